//! Server-sent events, as the HTML standard has them. Pure.
//!
//! `id` always is an index up to which everything was told, so that a browser that comes back says where to go on. It
//! takes note of an `id` even if no `data` comes with it.

use super::render;
use crate::store::StoreError;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, HeaderName};

/// What a browser sends when it opens a stream again.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How long a browser is asked to wait before it opens a stream again, in milliseconds.
const RETRY_MILLIS: u32 = 1000;

/// Whether the client wants server-sent events: whether the header names them, whatever else it would take.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let named = |value: &hyper::header::HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        let media_types = text.split(',').map(|item| item.split(';').next().unwrap_or_default().trim());
        media_types.into_iter().any(|media_type| media_type.eq_ignore_ascii_case("text/event-stream"))
    };
    headers.get_all(ACCEPT).iter().any(named)
}

/// The start of a stream: everything up to the index is known to the client.
pub(crate) fn greeting(seen: u64) -> Bytes {
    format!("retry: {RETRY_MILLIS}\nid: {seen}\n\n").into()
}

/// An event of the store, as its line of JSON.
pub(crate) fn event(index: u64, line: &[u8]) -> Bytes {
    piece("", index, line)
}

/// Shows that the stream is alive, and moves the client's position on.
pub(crate) fn keep_alive(seen: u64) -> Bytes {
    format!(": nothing new\nid: {seen}\n\n").into()
}

/// The end of a stream whose time is up.
pub(crate) fn timeout(seen: u64) -> Bytes {
    piece("event: timeout\n", seen, &render::timeout(seen))
}

/// Why the stream ends. The client goes on from the error's index.
pub(crate) fn error(error: &StoreError) -> Bytes {
    piece("event: error\n", error.index, &render::error(error))
}

/// JSON has no line breaks but the one that ends it.
fn piece(kind: &str, index: u64, line: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(kind.len() + line.len() + 40);
    out.put_slice(kind.as_bytes());
    out.put_slice(b"id: ");
    super::json::unsigned(&mut out, index);
    out.put_slice(b"\ndata: ");
    out.put_slice(line.trim_ascii_end());
    out.put_slice(b"\n\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_if_it_is_named() {
        for (accept, expected) in [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream;q=0.9", true),
            ("*/*", false),
            ("text/event-streams", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(is_wanted(&headers), expected, "{accept}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }
}
