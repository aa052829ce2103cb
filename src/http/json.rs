//! Writing JSON as Go's `encoding/json` writes it, byte for byte. Pure.

use bytes::{BufMut, BytesMut};

/// Writes a quoted string. The text may be any bytes; each one that is not UTF-8 becomes U+FFFD, escaped.
pub(crate) fn string(out: &mut BytesMut, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    if text.is_ascii() {
        // Nearly always, and many times faster.
        escaped(out, text);
    } else {
        for chunk in text.utf8_chunks() {
            escaped(out, chunk.valid().as_bytes());
            for _ in chunk.invalid() {
                out.put_slice(b"\\ufffd");
            }
        }
    }
    out.put_u8(b'"');
}

/// Writes the inside of a string, valid UTF-8: whole runs that need no escape at once.
fn escaped(out: &mut BytesMut, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut run = 0;
    let mut at = 0;
    let mut one_by_one = 0;
    while let Some(&byte) = text.get(at) {
        if at >= one_by_one
            && let Some(piece) = text[at..].first_chunk()
        {
            if is_plain(piece) {
                at += piece.len();
                continue;
            }
            one_by_one = at + piece.len();
        }
        if !SPECIAL[usize::from(byte)] {
            at += 1;
            continue;
        }
        let (escape, len): (&[u8], _) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0xe2 => match text.get(at..at + 3) {
                Some([_, 0x80, 0xa8]) => (b"\\u2028", 3),
                Some([_, 0x80, 0xa9]) => (b"\\u2029", 3),
                _ => {
                    at += 1;
                    continue;
                }
            },
            low => (&[b'\\', b'u', b'0', b'0', HEX[usize::from(low >> 4)], HEX[usize::from(low & 15)]], 1),
        };
        out.put_slice(&text[run..at]);
        out.put_slice(escape);
        at += len;
        run = at;
    }
    out.put_slice(&text[run..]);
}

/// The bytes that may not stand in a string as they are: control characters, quote and backslash, what a browser
/// could take for markup, and the first byte of the line separators U+2028 and U+2029.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    let others = b"\"\\<>&\xe2";
    let mut at = 0;
    while at < others.len() {
        special[others[at] as usize] = true;
        at += 1;
    }
    special
};

/// Whether none of these bytes is special.
#[expect(clippy::needless_bitwise_bool, reason = "without branches the processor takes all bytes at once")]
fn is_plain(piece: &[u8; 16]) -> bool {
    let special = |byte: u8| {
        (byte < 0x20)
            | (byte == b'"')
            | (byte == b'\\')
            | (byte == b'<')
            | (byte == b'>')
            | (byte == b'&')
            | (byte == 0xe2)
    };
    !piece.iter().fold(false, |found, byte| found | special(*byte))
}

/// Writes a number in decimal.
pub(crate) fn unsigned(out: &mut BytesMut, number: u64) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [0; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// Writes a number in decimal.
pub(crate) fn signed(out: &mut BytesMut, number: i64) {
    if number < 0 {
        out.put_u8(b'-');
    }
    unsigned(out, number.unsigned_abs());
}

/// Writes `["a","b"]`.
pub(crate) fn strings<'a>(out: &mut BytesMut, texts: impl IntoIterator<Item = &'a String>) {
    out.put_u8(b'[');
    for (at, text) in texts.into_iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        string(out, text.as_bytes());
    }
    out.put_u8(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quoted(text: &[u8]) -> String {
        let mut out = BytesMut::new();
        string(&mut out, text);
        String::from_utf8(out.to_vec()).unwrap()
    }

    /// The right-hand sides are answers of etcd 3.4.23.
    #[test]
    fn escapes() {
        for (text, expected) in [
            (&b"a/b"[..], r#""a/b""#),
            (b"\"\\\n\r\t", r#""\"\\\n\r\t""#),
            (b"\x00\x08\x0c\x1f\x7f", "\"\\u0000\\u0008\\u000c\\u001f\x7f\""),
            (b"<a>&'", r#""\u003ca\u003e\u0026'""#),
            ("é\u{2028}x\u{2029}\u{2027}\u{20ac}".as_bytes(), "\"é\\u2028x\\u2029\u{2027}\u{20ac}\""),
            (b"\xff\xe2\x82A", r#""\ufffd\ufffd\ufffdA""#),
            (b"", r#""""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn sixteen_at_once_are_judged_as_one_by_one() {
        for byte in 0..=u8::MAX {
            for at in 0..16 {
                let mut piece = [b'x'; 16];
                piece[at] = byte;
                assert_eq!(is_plain(&piece), !SPECIAL[usize::from(byte)], "{byte} at {at}");
            }
        }
        // Each special byte is escaped wherever it stands in a longer text.
        for at in 0..70 {
            let mut text = vec![b'x'; 70];
            text[at] = b'"';
            let expected = format!("\"{}\\\"{}\"", "x".repeat(at), "x".repeat(69 - at));
            assert_eq!(quoted(&text), expected);
        }
    }

    proptest! {
        #[test]
        fn text_comes_back(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&quoted(text.as_bytes())).unwrap(), text);
        }

        #[test]
        fn any_bytes_make_a_string(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            serde_json::from_str::<String>(&quoted(&text)).unwrap();
        }

        #[test]
        fn numbers(number in any::<i64>()) {
            let mut out = BytesMut::new();
            signed(&mut out, number);
            prop_assert_eq!(out.to_vec(), number.to_string().into_bytes());
            out.clear();
            unsigned(&mut out, number.unsigned_abs());
            prop_assert_eq!(out.to_vec(), number.unsigned_abs().to_string().into_bytes());
        }
    }
}
