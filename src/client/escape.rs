//! Keys and parameters as they go into a URL or a form, spelled as etcd's own clients spell them.

/// A key as the path below the keys prefix: absolute, cleaned (`//`, `.`, `..` and a trailing slash resolved, since a
/// server only redirects to the clean form) and escaped. The root is `/`.
pub(crate) fn key_path(key: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in key.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    if segments.is_empty() {
        return "/".to_owned();
    }
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        escape(segment.as_bytes(), b"-_.~$&+,:;=@", &mut path);
    }
    path
}

/// Name-value pairs as a query or a form: in the order given, space as `+`.
pub(crate) fn form<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        escape(name.as_bytes(), b"-_.~", &mut out);
        out.push('=');
        for (i, word) in value.split(|&byte| byte == b' ').enumerate() {
            if i > 0 {
                out.push('+');
            }
            escape(word, b"-_.~", &mut out);
        }
    }
    out
}

fn escape(bytes: &[u8], plain: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_become_clean_absolute_paths() {
        for (key, path) in [
            ("", "/"),
            ("/", "/"),
            ("a", "/a"),
            ("/a/", "/a"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../..", "/"),
            ("/sp ace", "/sp%20ace"),
            ("/a%2Fb", "/a%252Fb"),
            ("/q?x#y", "/q%3Fx%23y"),
            ("/ü", "/%C3%BC"),
            ("/k=v+1,2:3;4@5$6&7", "/k=v+1,2:3;4@5$6&7"),
            ("/it's(*)!", "/it%27s%28%2A%29%21"),
            ("/%2e%2e/x", "/%252e%252e/x"),
        ] {
            assert_eq!(key_path(key), path, "{key:?}");
        }
    }

    #[test]
    fn forms_escape_what_would_end_a_value() {
        let pairs: [(&str, &[u8]); 3] = [("ttl", b"60"), ("value", b"w&=' z+~"), ("raw", &[0xff, b'\n'])];
        assert_eq!(form(pairs), "ttl=60&value=w%26%3D%27+z%2B~&raw=%FF%0A");
        assert_eq!(form([]), "");
    }

    proptest! {
        #[test]
        fn a_form_value_survives_the_way(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = form([("value", value.as_slice())]);
            let mut back = Vec::new();
            let mut bytes = text["value=".len()..].bytes();
            while let Some(byte) = bytes.next() {
                back.push(match byte {
                    b'+' => b' ',
                    b'%' => {
                        let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
                    }
                    plain => plain,
                });
            }
            prop_assert_eq!(back, value);
        }

        #[test]
        fn a_path_never_leaves_its_prefix(key in "[a./%?# ]{0,24}") {
            let path = key_path(&key);
            prop_assert!(path.starts_with('/'));
            prop_assert!(path == "/" || path[1..].split('/').all(|s| !matches!(s, "" | "." | "..")));
            prop_assert!(!path.contains(['?', '#', ' ']));
        }
    }
}
