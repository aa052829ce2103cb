//! Carries one request to the endpoints in turn, until one gives an answer that counts.
//!
//! The endpoint that answered last is asked first the next time. A request that changes something and cannot be told
//! apart from its own repetition (`once`) goes on to the next endpoint only if it was certainly not sent.

use super::error::{EndpointError, Error, FailureKind};
use super::escape;
use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// A larger answer is refused: it is memory that a broken or hostile server would make us spend.
const MAX_BODY: usize = 512 << 20;
/// As many redirects in a row are followed.
const MAX_REDIRECTS: usize = 10;
/// A dead peer of an idle watch is noticed after about two of these.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Called with each request just before it is sent.
pub(super) type Trace = Arc<dyn Fn(&Outgoing<'_>) + Send + Sync>;

/// A request as it is about to be sent, for tracing.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// `GET`, `PUT`, `POST` or `DELETE`.
    pub method: &'a str,
    /// The whole URL.
    pub url: &'a str,
    /// The body, for a PUT or POST.
    pub body: Option<&'a str>,
}

/// One request, without the endpoint that it goes to.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Escaped, absolute.
    pub(super) path: String,
    /// Escaped; may be empty.
    pub(super) query: String,
    /// Content type and text.
    pub(super) body: Option<(&'static str, String)>,
    /// A long poll: no timeouts apply.
    pub(super) wait: bool,
    /// Must not be sent a second time if it may have been carried out.
    pub(super) once: bool,
}

impl Request {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            query: String::new(),
            body: None,
            wait: false,
            once: false,
        }
    }
}

/// An endpoint's answer, complete unless it is a wait whose connection broke: then the body is empty.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) endpoint: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A header that holds a number; 0 if it is not there.
    pub(super) fn number(&self, header: &str) -> u64 {
        self.text(header).parse().unwrap_or(0)
    }

    pub(super) fn text(&self, header: &str) -> &str {
        self.headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub(super) fn invalid(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::InvalidAnswer { endpoint: self.endpoint.clone(), reason: reason.to_string() }
    }
}

/// What a TLS connection needs; PEM.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsFiles {
    /// The only authorities to trust; `None`: the system's.
    pub(super) ca: Option<Vec<u8>>,
    /// The client's certificate and key, one after the other.
    pub(super) identity: Option<Vec<u8>>,
}

pub(super) struct Transport {
    endpoints: RwLock<Arc<[Url]>>,
    /// Which endpoint answered last: an index into `endpoints`, taken modulo its length.
    pinned: AtomicUsize,
    plain: reqwest::Client,
    /// Built when the first https URL is met: it reads the system's certificates, which a machine that speaks plain
    /// HTTP need not have.
    secure: OnceLock<Result<reqwest::Client, String>>,
    tls: TlsFiles,
    pub(super) timeout: Option<Duration>,
    pub(super) total_timeout: Option<Duration>,
    credentials: Option<(String, String)>,
    trace: Option<Trace>,
}

/// A time-out below this is over before the request is sent.
const SHORTEST: Duration = Duration::from_millis(1);

impl Transport {
    pub(super) fn new(
        endpoints: Arc<[Url]>,
        tls: TlsFiles,
        timeouts: [Option<Duration>; 2],
        credentials: Option<(String, String)>,
        trace: Option<Trace>,
    ) -> Result<Self, Error> {
        let [timeout, total_timeout] = timeouts;
        Ok(Self {
            endpoints: RwLock::new(endpoints),
            pinned: AtomicUsize::new(0),
            plain: plain_client().map_err(Error::InvalidConfig)?,
            secure: OnceLock::new(),
            tls,
            timeout,
            total_timeout,
            credentials,
            trace,
        })
    }

    pub(super) fn endpoints(&self) -> Arc<[Url]> {
        Arc::clone(&self.endpoints.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the endpoints, and goes on with the one in use if it is among them.
    pub(super) fn set_endpoints(&self, fresh: Arc<[Url]>) {
        let mut endpoints = self.endpoints.write().unwrap_or_else(PoisonError::into_inner);
        let in_use = endpoints.get(self.pinned.load(Ordering::Relaxed) % endpoints.len().max(1));
        let pinned = fresh.iter().position(|url| Some(url) == in_use).unwrap_or(0);
        *endpoints = fresh;
        self.pinned.store(pinned, Ordering::Relaxed);
    }

    /// Sends the request to the endpoints in turn, within the total timeout.
    pub(super) async fn execute(&self, request: &Request) -> Result<Answer, Error> {
        let limit = if request.wait { None } else { self.total_timeout };
        match limit {
            Some(limit) if limit < SHORTEST => Err(Error::Timeout),
            Some(limit) => {
                tokio::time::timeout(limit, self.try_all(request)).await.unwrap_or(Err(Error::Timeout))
            }
            None => self.try_all(request).await,
        }
    }

    async fn try_all(&self, request: &Request) -> Result<Answer, Error> {
        let endpoints = self.endpoints();
        let first = self.pinned.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for i in 0..endpoints.len() {
            let at = (first + i) % endpoints.len();
            match self.try_one(&endpoints[at], request).await? {
                Ok(answer) => {
                    if i > 0 {
                        self.pinned.store(at, Ordering::Relaxed);
                    }
                    return Ok(answer);
                }
                Err(failure) if request.once && failure.kind != FailureKind::Connect => {
                    return Err(Error::Uncertain(failure));
                }
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() { Err(Error::NoEndpoints) } else { Err(Error::Cluster(failures)) }
    }

    /// The outer error ends the whole call; the inner one makes the next endpoint's turn.
    async fn try_one(
        &self,
        endpoint: &Url,
        request: &Request,
    ) -> Result<Result<Answer, EndpointError>, Error> {
        let mut url = target(endpoint, request);
        let name = name_of(endpoint);
        for _ in 0..=MAX_REDIRECTS {
            if let Some(trace) = &self.trace {
                let body = request.body.as_ref().map(|(_, text)| text.as_str());
                trace(&Outgoing { method: request.method.as_str(), url: url.as_str(), body });
            }
            let answer = match self.send(&name, &url, request).await? {
                Ok(answer) => answer,
                Err(failure) => return Ok(Err(failure)),
            };
            if !answer.status.is_redirection() {
                return Ok(server_failure(&name, answer.status).map_or(Ok(answer), Err));
            }
            match url.join(answer.text("location")) {
                Ok(next) if url.scheme() == "https" && next.scheme() != "https" => {
                    return Err(answer.invalid(&"a redirect from https to plain http"));
                }
                Ok(next) if matches!(next.scheme(), "http" | "https") => url = next,
                _ => return Err(answer.invalid(&"a redirect to nowhere")),
            }
        }
        let text = "client: too many redirects".to_owned();
        Ok(Err(EndpointError { endpoint: name, kind: FailureKind::Status(307), text }))
    }

    /// Asks this one endpoint, whatever the status that it answers, within the timeout for one request. Not traced.
    pub(super) async fn probe(
        &self,
        endpoint: &Url,
        request: &Request,
    ) -> Result<Result<Answer, EndpointError>, Error> {
        self.send(&name_of(endpoint), &target(endpoint, request), request).await
    }

    async fn send(
        &self,
        name: &str,
        url: &Url,
        request: &Request,
    ) -> Result<Result<Answer, EndpointError>, Error> {
        let client = self.client_for(url)?;
        let mut outgoing = client.request(request.method.clone(), url.clone());
        if let Some((content_type, text)) = &request.body {
            outgoing = outgoing.header(reqwest::header::CONTENT_TYPE, *content_type).body(text.clone());
        }
        if let Some((user, password)) = &self.credentials {
            outgoing = outgoing.basic_auth(user, Some(password));
        }
        let limit = if request.wait { None } else { self.timeout };
        let sent = match limit {
            // The timer is too coarse for less: a server nearby would answer first, now and then.
            Some(limit) if limit < SHORTEST => return Ok(Err(timed_out(name))),
            Some(limit) => match tokio::time::timeout(limit, outgoing.send()).await {
                Ok(sent) => sent,
                Err(_) => return Ok(Err(timed_out(name))),
            },
            None => outgoing.send().await,
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => return Ok(Err(connection_failure(name, url, &error))),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let body = match read_body(response).await {
            Ok(body) => body,
            // The headers say from which index the watch stood; it can go on from there without a gap.
            Err(_) if request.wait && status.is_success() => Bytes::new(),
            Err(error) => return Ok(Err(connection_failure(name, url, &error))),
        };
        let answer = Answer { endpoint: name.to_owned(), status, headers, body };
        if answer.body.len() > MAX_BODY {
            return Err(answer.invalid(&"the answer is too large"));
        }
        Ok(Ok(answer))
    }

    fn client_for(&self, url: &Url) -> Result<&reqwest::Client, Error> {
        if url.scheme() != "https" {
            return Ok(&self.plain);
        }
        let secure = self.secure.get_or_init(|| secure_client(&self.tls));
        secure.as_ref().map_err(|reason| Error::InvalidConfig(reason.clone()))
    }
}

fn target(endpoint: &Url, request: &Request) -> Url {
    let mut url = endpoint.clone();
    let base = endpoint.path().trim_end_matches('/');
    url.set_path(&format!("{base}{}", request.path));
    url.set_query((!request.query.is_empty()).then_some(request.query.as_str()));
    url
}

/// An endpoint's URL as people write it: without the slash of an empty path.
pub(super) fn name_of(endpoint: &Url) -> String {
    endpoint.as_str().trim_end_matches('/').to_owned()
}

/// The body, up to one byte more than is allowed.
async fn read_body(mut response: reqwest::Response) -> Result<Bytes, reqwest::Error> {
    let Some(first) = response.chunk().await? else { return Ok(Bytes::new()) };
    let mut body = BytesMut::from(first);
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            break;
        }
    }
    Ok(body.freeze())
}

fn server_failure(endpoint: &str, status: StatusCode) -> Option<EndpointError> {
    let (kind, text) = match status.as_u16() {
        500 | 503 => (FailureKind::NoLeader, format!("client: etcd member {endpoint} has no leader")),
        code @ 501..=599 => {
            let reason = status.canonical_reason().unwrap_or("");
            let text = format!("client: etcd member {endpoint} returns server error [{reason}]");
            (FailureKind::Status(code), text)
        }
        _ => return None,
    };
    Some(EndpointError { endpoint: endpoint.to_owned(), kind, text })
}

fn timed_out(endpoint: &str) -> EndpointError {
    EndpointError {
        endpoint: endpoint.to_owned(),
        kind: FailureKind::Timeout,
        text: format!("client: endpoint {endpoint} exceeded header timeout"),
    }
}

/// What went wrong below HTTP, in the words that etcd's users know from their logs.
fn connection_failure(endpoint: &str, url: &Url, error: &reqwest::Error) -> EndpointError {
    let mut root: &(dyn std::error::Error + 'static) = error;
    let mut io = None;
    while let Some(source) = root.source() {
        root = source;
        io = root.downcast_ref::<std::io::Error>().or(io);
    }
    let host = url.host_str().unwrap_or("");
    let port = url.port_or_known_default().unwrap_or(0);
    let text = match io {
        _ if error.is_dns() => format!("dial tcp: lookup {host}: no such host"),
        Some(io) if error.is_connect() => format!("dial tcp {host}:{port}: connect: {}", in_go_words(io)),
        _ if error.is_connect() => format!("dial tcp {host}:{port}: {root}"),
        Some(io) => format!("read tcp {host}:{port}: {}", in_go_words(io)),
        None => format!("{host}:{port}: {root}"),
    };
    let kind = if error.is_connect() { FailureKind::Connect } else { FailureKind::Broken };
    EndpointError { endpoint: endpoint.to_owned(), kind, text }
}

/// `connection refused`, not `Connection refused (os error 111)`.
fn in_go_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

fn common(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE)
        .user_agent(concat!("quorate/", env!("CARGO_PKG_VERSION")))
}

/// For plain HTTP. reqwest wants a TLS configuration even so: one that trusts nobody.
fn plain_client() -> Result<reqwest::Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    common(reqwest::Client::builder())
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(|error| error.to_string())
}

fn secure_client(files: &TlsFiles) -> Result<reqwest::Client, String> {
    // Fails only if the process has chosen a provider already: then that one it is.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = common(reqwest::Client::builder());
    if let Some(pem) = &files.ca {
        let authorities = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| error.to_string())?;
        builder = builder.tls_certs_only(authorities);
    }
    if let Some(pem) = &files.identity {
        let identity = reqwest::Identity::from_pem(pem).map_err(|error| error.to_string())?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| error.to_string())
}

/// Name-value pairs for a query: the values are text.
pub(super) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let pairs: Vec<(&str, String)> = pairs.into_iter().collect();
    escape::form(pairs.iter().map(|(name, value)| (*name, value.as_bytes())))
}
