//! The URLs that members and clients are reached at: `http://host:port` and nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An `http://host:port`, kept as it was written: ids are computed from the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpUrl {
    text: String,
    /// Without the brackets of an IPv6 address; empty for `http://:port`.
    host: String,
    port: u16,
}

/// Why a text is not an [`HttpUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No scheme, or one that members do not speak.
    #[error("URL scheme must be http: {0}")]
    Scheme(String),
    /// `https`.
    #[error("TLS is not supported yet, URL scheme must be http: {0}")]
    Tls(String),
    /// The part behind the scheme is no host and port.
    #[error("URL address does not have the form \"host:port\": {0}")]
    HostPort(String),
    /// Something behind the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
}

impl HttpUrl {
    /// The host, an IPv6 address without its brackets; empty when the URL is `http://:port`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 asks the system for a free one and only makes sense to listen on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port` to bind a listener to; all IPv4 interfaces when the URL names no host.
    #[must_use]
    pub fn listen_address(&self) -> String {
        if self.host.is_empty() {
            return format!("0.0.0.0:{}", self.port);
        }
        host_port(&self.host, self.port)
    }

    /// Whether it means every interface, and so cannot be dialled from elsewhere.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.host.is_empty() || self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    /// Whether it is only reachable from the same machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost") || self.ip().is_some_and(|ip| ip.is_loopback())
    }

    /// The same host at another port.
    pub(super) fn with_port(&self, port: u16) -> Self {
        Self::new(&self.host, port)
    }

    pub(super) fn new(host: &str, port: u16) -> Self {
        Self { text: format!("http://{}", host_port(host, port)), host: host.to_owned(), port }
    }

    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl FromStr for HttpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(UrlError::Scheme(text.to_owned()));
        };
        if scheme.eq_ignore_ascii_case("https") {
            return Err(UrlError::Tls(text.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(UrlError::Scheme(text.to_owned()));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = split_host_port(authority).ok_or_else(|| UrlError::HostPort(text.to_owned()))?;
        if !path.is_empty() {
            return Err(UrlError::Path(text.to_owned()));
        }
        Ok(Self { text: format!("http://{authority}"), host: host.to_owned(), port })
    }
}

fn split_host_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let port = port.parse().ok()?;
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok().then_some((inner, port));
    }
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    plain.then_some((host, port))
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl AsRef<str> for HttpUrl {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_host_and_port_only() {
        let cases: &[(&str, &str, u16, &str)] = &[
            ("http://127.0.0.1:4001", "127.0.0.1", 4001, "127.0.0.1:4001"),
            (" http://n1.example.com:1 ", "n1.example.com", 1, "n1.example.com:1"),
            ("http://[fd00::1]:7001", "fd00::1", 7001, "[fd00::1]:7001"),
            ("HTTP://[::]:80", "::", 80, "[::]:80"),
            ("http://:4001", "", 4001, "0.0.0.0:4001"),
            ("http://0.0.0.0:0", "0.0.0.0", 0, "0.0.0.0:0"),
        ];
        for (text, host, port, listen) in cases {
            let url: HttpUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.host(), url.port()), (*host, *port), "{text}");
            assert_eq!(url.listen_address(), *listen, "{text}");
        }
    }

    #[test]
    fn refuses_everything_else_as_etcd_words_it() {
        let cases: &[(&str, &str)] = &[
            ("10.0.0.1:4001", "URL scheme must be http: 10.0.0.1:4001"),
            ("ftp://10.0.0.1:4001", "URL scheme must be http: ftp://10.0.0.1:4001"),
            ("https://h:1", "TLS is not supported yet, URL scheme must be http: https://h:1"),
            ("http://h", "URL address does not have the form \"host:port\": http://h"),
            ("http://", "URL address does not have the form \"host:port\": http://"),
            ("http://h:", "URL address does not have the form \"host:port\": http://h:"),
            ("http://h:65536", "URL address does not have the form \"host:port\": http://h:65536"),
            ("http://h:+1", "URL address does not have the form \"host:port\": http://h:+1"),
            ("http://::1:80", "URL address does not have the form \"host:port\": http://::1:80"),
            ("http://[x]:80", "URL address does not have the form \"host:port\": http://[x]:80"),
            ("http://u:p@h:80", "URL address does not have the form \"host:port\": http://u:p@h:80"),
            ("http://h:80/", "URL must not contain a path: http://h:80/"),
            ("http://h:80?x", "URL must not contain a path: http://h:80?x"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<HttpUrl>().expect_err(text);
            assert_eq!(error.to_string(), *expected);
        }
    }

    #[test]
    fn knows_which_addresses_others_cannot_dial() {
        for (text, loopback, unspecified) in [
            ("http://127.0.0.7:1", true, false),
            ("http://localhost:1", true, false),
            ("http://[::1]:1", true, false),
            ("http://[::]:1", false, true),
            ("http://0.0.0.0:1", false, true),
            ("http://:1", false, true),
            ("http://10.0.0.1:1", false, false),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!((url.is_loopback(), url.is_unspecified()), (loopback, unspecified), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_what_it_parses(text in "(http://)?\\PC{0,20}(:[0-9]{1,6})?") {
            if let Ok(url) = text.parse::<HttpUrl>() {
                prop_assert_eq!(url.to_string().parse::<HttpUrl>(), Ok(url));
            }
        }
    }
}
