//! What can go wrong between a program and the cluster.

use serde::Deserialize;
use std::fmt;

/// An answer of the v2 API that says no: the numbered error that clients match on.
///
/// It displays as `100: Key not found (/a) [7]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{code}: {message} ({cause}) [{index}]")]
pub struct ApiError {
    /// The number, such as 100 (key not found), 101 (compare failed), 105 (key exists), 401 (history cleared).
    #[serde(rename = "errorCode")]
    pub code: u16,
    /// The text that belongs to the number.
    #[serde(default)]
    pub message: String,
    /// What it is about: mostly the offending key.
    #[serde(default)]
    pub cause: String,
    /// The store's index when the request failed; 0 if it was refused before it reached the store.
    #[serde(default)]
    pub index: u64,
}

/// Why one endpoint gave no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The connection could not be made: the request was never sent.
    Connect,
    /// The connection broke before the answer was complete; the request may have been carried out.
    Broken,
    /// No answer within the timeout for one request; the request may have been carried out.
    Timeout,
    /// The member answered 500 or 503: it knows no leader, or could not reach a quorum in time.
    NoLeader,
    /// Another status in the 500s, or a redirect that was not followed.
    Status(u16),
}

/// One endpoint's failure, as listed in [`Error::Cluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointError {
    /// Which endpoint, as a URL.
    pub endpoint: String,
    /// What kind of failure.
    pub kind: FailureKind,
    /// The failure in words, complete without the endpoint.
    pub text: String,
}

impl EndpointError {
    /// Whether the endpoint could not be talked to at all, as opposed to having answered badly or late.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(self.kind, FailureKind::Connect | FailureKind::Broken)
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for EndpointError {}

/// Everything that a call of the client can fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The cluster answered, and the answer is no.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A members request was refused: its HTTP status and the server's words.
    #[error("{message}")]
    Refused {
        /// The HTTP status, such as 404 or 409.
        status: u16,
        /// The server's explanation.
        message: String,
    },
    /// No endpoint gave a usable answer; one entry for each that was tried, in order.
    #[error("client: etcd cluster is unavailable or misconfigured{}", in_one_line(.0))]
    Cluster(Vec<EndpointError>),
    /// A request that must not be sent twice (a creation, a deletion) failed at one endpoint after it may have been
    /// sent. It may or may not have been carried out.
    #[error(transparent)]
    Uncertain(EndpointError),
    /// The members publish no client URLs, or no endpoint was given.
    #[error("client: no endpoints available")]
    NoEndpoints,
    /// An endpoint is not a URL that this client can talk to.
    #[error("invalid endpoint {endpoint:?}: {reason}")]
    InvalidEndpoint {
        /// The endpoint as it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client's own configuration (certificates) cannot be used.
    #[error("{0}")]
    InvalidConfig(String),
    /// The endpoint answered something that is not the v2 API.
    #[error("client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint")]
    InvalidAnswer {
        /// The endpoint that gave it.
        endpoint: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The total timeout passed. A write may or may not have been carried out.
    #[error("context deadline exceeded")]
    Timeout,
}

impl Error {
    /// The number of the [`ApiError`], if it is one.
    #[must_use]
    pub fn api_code(&self) -> Option<u16> {
        match self {
            Self::Api(error) => Some(error.code),
            _ => None,
        }
    }

    /// Whether nobody could be talked to: every endpoint refused the connection or dropped it, or time ran out.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        match self {
            Self::Cluster(failures) => failures.iter().all(EndpointError::is_connection),
            Self::Uncertain(failure) => failure.is_connection(),
            Self::Timeout => true,
            _ => false,
        }
    }
}

/// `; error #0: A\n; error #1: B\n`: etcd's tools print it so, and scripts look for it.
fn in_one_line(failures: &[EndpointError]) -> String {
    failures
        .iter()
        .enumerate()
        .fold(String::new(), |line, (i, failure)| line + &format!("; error #{i}: {failure}\n"))
}
