//! Heads that are refused before anything is looked up: what HTTP/1.1 demands and the library does not check. Pure.
//!
//! A request without `Host`, or with two, is how caches and proxies are made to disagree about whom it is for; one with a transfer
//! coding that is not understood has a body that cannot be found the end of.

use hyper::header::{EXPECT, HOST, HeaderMap, TRANSFER_ENCODING};
use hyper::{Method, StatusCode, Version};

/// Says why a request is refused, in the words of Go's server.
pub(crate) fn check(
    version: Version,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), (StatusCode, &'static str)> {
    let bad = |text| Err((StatusCode::BAD_REQUEST, text));
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 && method != Method::CONNECT => {
            return bad("400 Bad Request: missing required Host header");
        }
        (Some(_), Some(_)) => return bad("400 Bad Request: too many Host headers"),
        (Some(host), None) if !host.as_bytes().iter().all(|&byte| is_of_host(byte)) => {
            return bad("400 Bad Request: malformed Host header");
        }
        _ => {}
    }
    if headers.get(EXPECT).is_some_and(|expected| !is_continue(expected.as_bytes())) {
        return Err((StatusCode::EXPECTATION_FAILED, ""));
    }
    match headers.get(TRANSFER_ENCODING) {
        Some(coding) if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => {
            Err((StatusCode::NOT_IMPLEMENTED, "Unsupported transfer encoding"))
        }
        _ => Ok(()),
    }
}

/// Whether what is expected is that the body may be sent; the library sees to that.
fn is_continue(expected: &[u8]) -> bool {
    expected.is_empty() || expected.trim_ascii().eq_ignore_ascii_case(b"100-continue")
}

fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    #[test]
    fn heads() {
        let host = |text: &'static [u8]| (HOST, HeaderValue::from_bytes(text).unwrap());
        let coding = |text| (TRANSFER_ENCODING, HeaderValue::from_static(text));
        let check = |version, headers: &[(HeaderName, HeaderValue)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, value.clone());
            }
            check(version, &Method::GET, &map).err().map(|(status, _)| status.as_u16())
        };
        assert_eq!(check(Version::HTTP_11, &[]), Some(400));
        assert_eq!(check(Version::HTTP_10, &[]), None);
        assert_eq!(check(Version::HTTP_11, &[host(b"[::1]:4001")]), None);
        assert_eq!(check(Version::HTTP_11, &[host(b"")]), None);
        assert_eq!(check(Version::HTTP_11, &[host(b"a/b")]), Some(400));
        assert_eq!(check(Version::HTTP_11, &[host(b"\xff")]), Some(400));
        assert_eq!(check(Version::HTTP_11, &[host(b"a"), host(b"a")]), Some(400));
        assert_eq!(check(Version::HTTP_11, &[host(b"a"), coding("Chunked ")]), None);
        for (expected, status) in [("100-Continue", None), ("", None), ("200-ok", Some(417))] {
            let expected = (EXPECT, HeaderValue::from_static(expected));
            assert_eq!(check(Version::HTTP_11, &[host(b"a"), expected]), status);
        }
        assert_eq!(check(Version::HTTP_11, &[host(b"a"), coding("gzip, chunked")]), Some(501));
    }
}
