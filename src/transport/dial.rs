//! Opening a connection to one URL of a peer. The one place that will know about TLS on the dialling side.

use std::error::Error;

use tonic::transport::{Channel, Endpoint};

use super::TransportConfig;

/// Longest error text that is kept: some of it was written by the other side.
const TEXT_CHARS_MAX: usize = 300;

/// Connects to `http://host:port`; a name is resolved anew each time.
pub(super) async fn dial(url: &str, config: &TransportConfig) -> Result<Channel, String> {
    let endpoint =
        Endpoint::from_shared(url.to_owned()).map_err(|error| format!("{url:?} is no URL: {error}"))?;
    if endpoint.uri().scheme_str() != Some("http") {
        return Err(format!("{url:?} is not an http:// URL"));
    }
    let endpoint = endpoint
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(config.ping_interval)
        .keep_alive_timeout(config.ping_timeout)
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(|error| text(&error))
}

/// An error and what caused it, in one line.
pub(super) fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many of the errors here repeat what they wrap.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    one_line(&text)
}

/// What can be logged of a text that came from elsewhere.
pub(super) fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}
