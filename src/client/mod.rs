//! The Rust client of the v2 API.
//!
//! It speaks to Quorate and to any etcd that has the v2 API (0.4, 2.x, 3.x with `--enable-v2`), asks the endpoints in
//! turn, and stays with the one that answers. `etcdctl`, the discovery client and the tests are built on it.
//!
//! ```no_run
//! use quorate::client::{Client, GetOptions, SetOptions, WatchOptions};
//!
//! # async fn example() -> Result<(), quorate::client::Error> {
//! let client = Client::new(["http://10.0.0.1:4001", "http://10.0.0.2:4001"])?;
//!
//! // Announce a service for a minute.
//! let options = SetOptions { ttl: Some(60), ..SetOptions::default() };
//! client.set("/announce/services/apache80", "104.131.15.192:80", &options).await?;
//!
//! // Find it.
//! let answer = client.get("/announce/services/apache80", &GetOptions::default()).await?;
//! println!("{}", answer.node.value.unwrap_or_default());
//!
//! // Hear of every change after that answer, without a gap.
//! let options = WatchOptions { after_index: answer.etcd_index, recursive: true };
//! let mut watcher = client.watcher("/announce/services", &options);
//! loop {
//!     let event = watcher.next().await?;
//!     println!("{} {}", event.action, event.node.key);
//! }
//! # }
//! ```
//!
//! A lock, or any change that must not overwrite somebody else's:
//!
//! ```no_run
//! # use quorate::client::{Client, Condition, Error};
//! # async fn example(client: Client) -> Result<(), Error> {
//! match client.create("/lock", "me", Some(30)).await {
//!     Ok(mine) => {
//!         let still_mine = Condition::index(mine.node.modified_index);
//!         client.compare_and_delete("/lock", &still_mine).await?;
//!     }
//!     Err(Error::Api(error)) if error.code == 105 => println!("somebody has it: {}", error.cause),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it promises:
//! - A request goes to the next endpoint when a connection cannot be made or breaks, at a timeout, and when a member
//!   answers 5xx. Creations and deletions, which cannot be repeated without a wrong answer, do so only when they were
//!   certainly not sent; else the error is [`Error::Uncertain`].
//! - A watch that is interrupted goes on where it was; if it cannot, error 401 says so.
//! - Answers and waits are bounded: sizes by a constant, times by the two timeouts (a watch has none).
//!
//! What it does not do: keep a cache, look for new members on its own ([`Client::sync`] does when asked), or resolve
//! DNS SRV records.

mod error;
mod escape;
mod keys;
mod members;
#[cfg(test)]
mod tests;
mod transport;
mod types;
mod watch;

pub use error::{ApiError, EndpointError, Error, FailureKind};
pub use transport::Outgoing;
pub use types::{
    Condition, DeleteOptions, GetOptions, Member, Node, Response, SetOptions, Version, WatchOptions,
};
pub use watch::Watcher;

use reqwest::Url;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use transport::{TlsFiles, Trace, Transport, name_of};

/// A client of one cluster. Clones share their connections and the endpoint in use.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
    /// What stands before a key's path: `/v2/keys`.
    prefix: Arc<str>,
}

impl Client {
    /// A client of the cluster at these endpoints, with 5 s for one request and 15 s for a call in all.
    ///
    /// An endpoint is `http://HOST:PORT`, `https://HOST:PORT`, or `HOST:PORT`, which means http.
    pub fn new<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        Self::builder().build(endpoints)
    }

    /// A client with other settings.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The endpoints in use, in order.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.transport.endpoints().iter().map(name_of).collect()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints()).finish_non_exhaustive()
    }
}

/// Settings of a [`Client`].
///
/// ```no_run
/// # use quorate::client::{Client, Error};
/// use std::time::Duration;
/// # fn example() -> Result<(), Error> {
/// let client = Client::builder().timeout(Duration::from_secs(1)).build(["10.0.0.1:4001"])?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClientBuilder {
    timeout: Option<Duration>,
    total_timeout: Option<Duration>,
    prefix: String,
    tls: TlsFiles,
    credentials: Option<(String, String)>,
    trace: Option<Trace>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(5)),
            total_timeout: Some(Duration::from_secs(15)),
            prefix: "/v2/keys".to_owned(),
            tls: TlsFiles::default(),
            credentials: None,
            trace: None,
        }
    }
}

impl ClientBuilder {
    /// How long one endpoint may take until its answer begins; `None` for no limit. Watches have none.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// How long a call may take over all endpoints; `None` for no limit. Watches have none.
    #[must_use]
    pub fn total_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.total_timeout = timeout.into();
        self
    }

    /// What stands before the keys' paths instead of `/v2/keys`. A discovery service has nothing there.
    #[must_use]
    pub fn keys_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        let clean = self.prefix.trim_end_matches('/').len();
        self.prefix.truncate(clean);
        self
    }

    /// Trust only these authorities (PEM) for https, not the system's.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.ca = Some(pem.into());
        self
    }

    /// Show this certificate and key (PEM, one after the other) to https servers.
    #[must_use]
    pub fn identity_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some(pem.into());
        self
    }

    /// Log in with HTTP basic authentication.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), password.into()));
        self
    }

    /// Show each request to this function just before it is sent.
    #[must_use]
    pub fn trace(mut self, trace: impl Fn(&Outgoing<'_>) + Send + Sync + 'static) -> Self {
        self.trace = Some(Arc::new(trace));
        self
    }

    /// The client of the cluster at these endpoints.
    ///
    /// # Errors
    /// [`Error::InvalidEndpoint`], or [`Error::NoEndpoints`] if there is none.
    pub fn build<S: AsRef<str>>(self, endpoints: impl IntoIterator<Item = S>) -> Result<Client, Error> {
        let endpoints =
            endpoints.into_iter().map(|text| parse_endpoint(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        let timeouts = [self.timeout, self.total_timeout];
        let transport = Transport::new(endpoints.into(), self.tls, timeouts, self.credentials, self.trace)?;
        Ok(Client { transport: Arc::new(transport), prefix: self.prefix.into() })
    }
}

/// An endpoint as people type it: without a scheme it is http.
fn parse_endpoint(text: &str) -> Result<Url, Error> {
    let invalid = |reason: String| Error::InvalidEndpoint { endpoint: text.to_owned(), reason };
    let trimmed = text.trim();
    let full = if trimmed.contains("://") { trimmed.to_owned() } else { format!("http://{trimmed}") };
    let mut url = Url::parse(&full).map_err(|error| invalid(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid(format!("unsupported protocol scheme {:?}", url.scheme())));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("no host".to_owned()));
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}
