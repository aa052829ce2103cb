//! Requests to a discovery service, and patience with it.

use super::DiscoveryError;
use super::answer::{Answer, KeyNode, Verdict};
use super::registry::{Registry, parse_size};
use reqwest::{Client, Method, RequestBuilder, Url};
use std::error::Error;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Answers beyond this are cut off and not understood: a registry of thousands of members fits.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a first sensible answer, retries included; after it there is no limit.
    pub(super) first_contact: Duration,
    /// For the answer to one request.
    pub(super) request: Duration,
    /// For one wait; afterwards the state is read again.
    pub(super) watch: Duration,
    /// Before the first retry; it doubles with each.
    pub(super) backoff_min: Duration,
    /// Between retries at most.
    pub(super) backoff_max: Duration,
    /// Between two reads of the state at least, when a wait ended without having waited.
    pub(super) pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_contact: Duration::from_secs(30),
            request: Duration::from_secs(5),
            watch: Duration::from_secs(60),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(10),
            pause: Duration::from_secs(1),
        }
    }
}

/// Lines about a service that does not answer come at most this often once it has answered before.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A discovery service under one token.
pub(super) struct Service {
    client: Client,
    /// The discovery URL without a slash at the end.
    base: String,
    /// The same without a password in it, for messages.
    shown: String,
    patience: Patience,
    /// Whether it has answered sensibly before: a wrong URL is told from an outage by it.
    contacted: bool,
    began: Instant,
}

/// What a request that has succeeded, now or after retries, found.
pub(super) enum Found {
    /// The node, and the index of the state that it was read from.
    Node(KeyNode, Option<u64>),
    Missing,
    Exists,
}

impl Service {
    pub(super) fn new(url: &str, patience: Patience) -> Result<Self, DiscoveryError> {
        let bad = |reason: String| DiscoveryError::BadUrl { url: url.to_owned(), reason };
        let mut parsed = Url::parse(url).map_err(|error| bad(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(bad("it must begin with http:// or https:// and a host".to_owned()));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(bad("it must not have a query or a fragment".to_owned()));
        }
        if parsed.path() == "/" {
            return Err(bad("it names no token".to_owned()));
        }
        let client = client(parsed.scheme() == "https").map_err(|error| bad(chain(&error)))?;
        if parsed.password().is_some() {
            parsed.set_password(Some("xxxxx")).map_err(|()| bad("it cannot have a password".to_owned()))?;
        }
        Ok(Self {
            client,
            base: url.trim_end_matches('/').to_owned(),
            shown: parsed.as_str().trim_end_matches('/').to_owned(),
            patience,
            contacted: false,
            began: Instant::now(),
        })
    }

    /// The discovery URL, for messages.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Who is registered now, and the index that this was read at.
    pub(super) async fn registry(&mut self) -> Result<(Registry, Option<u64>), DiscoveryError> {
        let missing = DiscoveryError::SizeMissing { url: self.shown.clone() };
        let query = "quorum=true&recursive=false&sorted=false";
        let Found::Node(size, _) = self.insist(Method::GET, &format!("/_config/size?{query}"), None).await?
        else {
            return Err(missing);
        };
        let Some(size) = parse_size(&size.value) else {
            return Err(DiscoveryError::SizeBad { url: self.shown.clone(), size: size.value });
        };
        let Found::Node(directory, index) = self.insist(Method::GET, &format!("?{query}"), None).await?
        else {
            return Err(missing);
        };
        Ok((Registry::new(&self.shown, size, directory), index))
    }

    /// Registers `value` under `id` unless that key exists. Safe to repeat, so it is when an answer gets lost.
    pub(super) async fn register(&mut self, id: u64, value: &str) -> Result<Found, DiscoveryError> {
        self.insist(Method::PUT, &format!("/{id:x}?prevExist=false"), Some(value)).await
    }

    /// Waits until the service shows the registration that was made at `created`. For services whose members answer
    /// from their own, older state; one that cannot say so is not asked again.
    pub(super) async fn confirm(&self, id: u64, created: u64) {
        let path = format!("/{id:x}?recursive=false&wait=true&waitIndex={created}");
        let answer = self.send(Method::GET, &path, None, self.patience.request).await;
        if let Err(reason) = answer {
            tracing::debug!(%reason, "discovery: the registration could not be confirmed by a wait");
        }
    }

    /// Waits for any change of the registry from `index` on. Whatever ends the wait, the state has to be read again;
    /// so a service that cannot wait is polled.
    pub(super) async fn changed(&self, index: Option<u64>) {
        let began = Instant::now();
        if let Some(index) = index {
            let path = format!("?recursive=true&wait=true&waitIndex={}", index.saturating_add(1));
            match self
                .send(Method::GET, &path, None, self.patience.watch)
                .await
                .map(|answer| answer.verdict())
            {
                Ok(Verdict::Node(_)) => return,
                Ok(other) => tracing::debug!(?other, "discovery: a wait ended without an event"),
                Err(reason) => tracing::debug!(%reason, "discovery: a wait ended without an event"),
            }
        }
        sleep(self.patience.pause.saturating_sub(began.elapsed())).await;
    }

    /// Lets a moment pass.
    pub(super) async fn pause(&self) {
        sleep(self.patience.pause).await;
    }

    /// Sends until there is a sensible answer, or none can be hoped for.
    async fn insist(
        &mut self,
        method: Method,
        path: &str,
        form: Option<&str>,
    ) -> Result<Found, DiscoveryError> {
        let asked = || format!("{}{}", self.shown, path.split('?').next().unwrap_or_default());
        let mut delay = self.patience.backoff_min;
        let mut last_line: Option<Instant> = None;
        loop {
            let reason = match self.send(method.clone(), path, form, self.patience.request).await {
                Err(reason) => reason,
                Ok(answer) => match answer.verdict() {
                    Verdict::Unwell(reason) => reason,
                    Verdict::Foreign(reason) if self.contacted => reason,
                    Verdict::Foreign(answer) => {
                        return Err(DiscoveryError::BadEndpoint { url: asked(), answer });
                    }
                    Verdict::Refused(reason) => return Err(DiscoveryError::Refused { url: asked(), reason }),
                    sensible => {
                        let found = match sensible {
                            Verdict::Node(node) => Found::Node(node, answer.index),
                            Verdict::Exists => Found::Exists,
                            _ => Found::Missing,
                        };
                        self.contacted = true;
                        return Ok(found);
                    }
                },
            };
            let waited = self.began.elapsed();
            if !self.contacted && waited + delay > self.patience.first_contact {
                return Err(DiscoveryError::Unreachable { url: self.shown.clone(), waited, reason });
            }
            if !self.contacted || last_line.is_none_or(|line| line.elapsed() >= LOG_EVERY) {
                tracing::warn!(url = %asked(), %reason, retry_in = ?delay, "discovery: no answer");
                last_line = Some(Instant::now());
            }
            sleep(delay).await;
            delay = (delay * 2).min(self.patience.backoff_max);
        }
    }

    /// One request and its complete answer, or why there is none.
    async fn send(
        &self,
        method: Method,
        path: &str,
        form: Option<&str>,
        timeout: Duration,
    ) -> Result<Answer, String> {
        let mut request: RequestBuilder =
            self.client.request(method, format!("{}{path}", self.base)).timeout(timeout);
        if let Some(value) = form {
            let body = format!("value={}", form_encoded(value));
            request = request.header("Content-Type", "application/x-www-form-urlencoded").body(body);
        }
        let mut response = request.send().await.map_err(|error| chain(&error.without_url()))?;
        let index =
            response.headers().get("X-Etcd-Index").and_then(|value| value.to_str().ok()?.parse().ok());
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error.without_url()))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, index, body })
    }
}

fn client(tls: bool) -> Result<Client, reqwest::Error> {
    // An error means that the process has a provider already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .tcp_keepalive(Duration::from_secs(30))
        .user_agent(concat!("quorate/", env!("CARGO_PKG_VERSION")));
    if tls {
        return builder.build();
    }
    // Machines without any CA certificate are common among containers; plain HTTP must work on them.
    builder.tls_certs_only([]).build()
}

/// Percent-encodes the value of a form field; everything but unreserved characters.
fn form_encoded(value: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// An error and what caused it, outermost first.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}
