//! `application/x-www-form-urlencoded` and `Content-Type`, read as etcd's clients have always been answered.
//!
//! Pure. Names and values borrow from their source and are copied only where an escape makes that necessary. The texts
//! of errors are those that Go's `net/url` and `mime` give, since they reach clients as the `cause` of error 210.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Why a form could not be read; displays as the `cause` of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    /// `;` once separated pairs; readers disagree about it now, so it is refused.
    #[error("invalid semicolon separator in query")]
    Semicolon,
    /// A `%` that two hexadecimal digits do not follow; holds the quoted text.
    #[error("invalid URL escape {0}")]
    Escape(String),
    /// A `Content-Type` that is not one.
    #[error("mime: {0}")]
    MediaType(&'static str),
}

/// Calls `each` with every name and value in order, and returns the error that the whole deserves, if any: broken
/// pairs are passed over, a semicolon outweighs a bad escape, and the first bad escape outweighs later ones.
pub(crate) fn pairs<'a>(
    source: &'a [u8],
    mut each: impl FnMut(Cow<'a, [u8]>, Cow<'a, [u8]>),
) -> Result<(), FormError> {
    let mut failure = None;
    for pair in source.split(|&byte| byte == b'&') {
        if pair.contains(&b';') {
            failure = Some(FormError::Semicolon);
            continue;
        }
        if pair.is_empty() {
            continue;
        }
        let (name, value) = match pair.iter().position(|&byte| byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        match unescape(name).and_then(|name| Ok((name, unescape(value)?))) {
            Ok((name, value)) => each(name, value),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Decodes `%XX` and `+`, which stands for a space in forms.
fn unescape(text: &[u8]) -> Result<Cow<'_, [u8]>, FormError> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match first {
            b'+' => decoded.push(b' '),
            b'%' => {
                decoded.push(
                    hex_pair(tail).ok_or_else(|| FormError::Escape(quote(&rest[..rest.len().min(3)])))?,
                );
                rest = &tail[2..];
                continue;
            }
            other => decoded.push(*other),
        }
        rest = tail;
    }
    Ok(Cow::Owned(decoded))
}

/// The byte that two leading hexadecimal digits stand for.
pub(crate) fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    Some((digit(0)? << 4 | digit(1)?) as u8)
}

/// Quotes text as Go's `%q` does.
fn quote(text: &[u8]) -> String {
    let mut quoted = String::from('"');
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => quoted.extend(['\\', character]),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\x0c' => quoted.push_str("\\f"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x0b' => quoted.push_str("\\v"),
                '\0'..='\x1f' | '\x7f' => _ = write!(quoted, "\\x{:02x}", character as u32),
                _ => quoted.push(character),
            }
        }
        for byte in chunk.invalid() {
            _ = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a body with this `Content-Type` is a form: `Ok(false)` for other types, which are ignored, not refused.
pub(crate) fn is_form(content_type: Option<&[u8]>) -> Result<bool, FormError> {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    let Some(header) = content_type.filter(|header| !header.is_empty()) else { return Ok(false) };
    if header == FORM {
        return Ok(true);
    }
    let split = header.iter().position(|&byte| byte == b';').unwrap_or(header.len());
    let media_type = header[..split].trim_ascii();
    check_media_type(media_type).map_err(FormError::MediaType)?;
    check_media_parameters(&header[split..]).map_err(FormError::MediaType)?;
    Ok(media_type.eq_ignore_ascii_case(FORM))
}

fn check_media_type(text: &[u8]) -> Result<(), &'static str> {
    let (main, rest) = token(text);
    if main.is_empty() {
        return Err("no media type");
    }
    let Some((slash, rest)) = rest.split_first() else { return Ok(()) };
    if *slash != b'/' {
        return Err("expected slash after first token");
    }
    let (sub, rest) = token(rest);
    if sub.is_empty() {
        return Err("expected token after slash");
    }
    if !rest.is_empty() {
        return Err("unexpected content after media subtype");
    }
    Ok(())
}

fn check_media_parameters(mut rest: &[u8]) -> Result<(), &'static str> {
    let mut seen: Vec<Vec<u8>> = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() || rest.trim_ascii() == b";" {
            return Ok(());
        }
        let (name, tail) = media_parameter(rest).ok_or("invalid media parameter")?;
        if seen.contains(&name) {
            return Err("duplicate parameter name");
        }
        seen.push(name);
        rest = tail;
    }
}

/// Reads `; name=value` or `; name="value"`: the name in lower case, and what follows the value.
fn media_parameter(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (name, rest) = token(text.strip_prefix(b";")?.trim_ascii_start());
    if name.is_empty() {
        return None;
    }
    let value = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let rest =
        if let Some(quoted) = value.strip_prefix(b"\"") { after_quote(quoted)? } else { token(value).1 };
    (rest.len() < value.len()).then(|| (name.to_ascii_lowercase(), rest)) // a token has a byte at least
}

/// What follows the closing quote; a backslash takes the next byte with it.
fn after_quote(text: &[u8]) -> Option<&[u8]> {
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some(&text[at + 1..]),
            b'\\' => _ = bytes.next()?,
            b'\r' | b'\n' => return None,
            _ => {}
        }
    }
    None
}

/// Splits off the leading token of RFC 2045.
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let is_token = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(byte);
    text.split_at(text.iter().position(|byte| !is_token(byte)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(source: &[u8]) -> (Vec<(String, String)>, Option<String>) {
        let mut found = Vec::new();
        let text = |bytes: Cow<'_, [u8]>| String::from_utf8_lossy(&bytes).into_owned();
        let error = pairs(source, |name, value| found.push((text(name), text(value)))).err();
        (found, error.map(|error| error.to_string()))
    }

    #[test]
    fn pairs_are_split_and_unescaped() {
        let (found, error) = read(b"a=1&&b=x+y%20z&c&=d&e==f&%61=2");
        let expected = [("a", "1"), ("b", "x y z"), ("c", ""), ("", "d"), ("e", "=f"), ("a", "2")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(error, None);
    }

    /// The texts are those of etcd 3.4.23.
    #[test]
    fn errors_read_as_in_etcd() {
        for (source, cause) in [
            (&b"value=a;b"[..], "invalid semicolon separator in query"),
            (b"value=%", "invalid URL escape \"%\""),
            (b"value=%4", "invalid URL escape \"%4\""),
            ("value=%é%é".as_bytes(), "invalid URL escape \"%é\""),
            (b"va%zzlue=%yy&x;y&ttl=%aq", "invalid semicolon separator in query"),
            (b"a=%zz&b=%yy", "invalid URL escape \"%zz\""),
            (b"a=%\xff\n", "invalid URL escape \"%\\xff\\n\""),
        ] {
            assert_eq!(read(source).1.as_deref(), Some(cause), "{}", source.escape_ascii());
        }
    }

    /// The texts are those of etcd 3.4.23.
    #[test]
    fn content_types() {
        for (header, expected) in [
            ("application/x-www-form-urlencoded", Ok(true)),
            ("Application/X-WWW-Form-urlencoded ; param=value", Ok(true)),
            ("application/x-www-form-urlencoded; a=\"b;c\"; ", Ok(true)),
            ("application/x-www-form-urlencoded; a=b; b=b;", Ok(true)),
            ("application/x-www-form-urlencoded; a=b; a=b", Err("mime: duplicate parameter name")),
            ("", Ok(false)),
            ("foo", Ok(false)),
            ("text/plain", Ok(false)),
            ("foo/", Err("mime: expected token after slash")),
            ("foo bar", Err("mime: expected slash after first token")),
            ("foo/bar baz", Err("mime: unexpected content after media subtype")),
            (";", Err("mime: no media type")),
            ("application/x-www-form-urlencoded; a", Err("mime: invalid media parameter")),
            ("application/x-www-form-urlencoded; a=\"b", Err("mime: invalid media parameter")),
            ("application/x-www-form-urlencoded; a=", Err("mime: invalid media parameter")),
            ("application/x-www-form-urlencoded; a=;", Err("mime: invalid media parameter")),
            ("application/x-www-form-urlencoded; a=\"\"", Ok(true)),
            ("application/x-www-form-urlencoded; a=b; A=c;", Err("mime: duplicate parameter name")),
        ] {
            let found = is_form(Some(header.as_bytes())).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{header}");
        }
        assert_eq!(is_form(None), Ok(false));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(source in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = read(&source);
            _ = is_form(Some(&source));
        }

        #[test]
        fn escaped_values_come_back(value in proptest::collection::vec(any::<u8>(), 0..100)) {
            let escaped = value.iter().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
            let source = format!("value={escaped}").into_bytes();
            let mut found = None;
            pairs(&source, |_, read| found = Some(read.into_owned())).unwrap();
            prop_assert_eq!(found.unwrap(), value);
        }
    }
}
