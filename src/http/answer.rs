//! Answers as HTTP: statuses and headers. What stands in the bodies is made by `render` and the handlers.

use super::backend::{BackendError, Summary};
use super::body::Kind;
use super::render;
use super::route::Refusal;
use crate::store::{ErrorCode, StoreError};
use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};

/// An answer on its way out.
pub(crate) type Answer<W> = Response<Kind<W>>;

pub(crate) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(crate) const ETCD_INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Where the answer stands in the keyspace and in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// X-Etcd-Index.
    pub(crate) etcd_index: u64,
    /// X-Raft-Index.
    pub(crate) raft_index: u64,
    /// X-Raft-Term.
    pub(crate) raft_term: u64,
}

impl Position {
    /// That of a state whose X-Etcd-Index is to be this.
    pub(crate) fn of(state: &Summary, etcd_index: u64) -> Self {
        Self { etcd_index, raft_index: state.raft_index, raft_term: state.raft_term }
    }
}

fn answer<W>(status: StatusCode, content_type: HeaderValue, body: Kind<W>) -> Answer<W> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// JSON that is there in full.
pub(crate) fn json<W>(status: StatusCode, body: Bytes) -> Answer<W> {
    answer(status, JSON, Kind::Full(body))
}

/// Plain text.
pub(crate) fn text<W>(status: StatusCode, body: impl Into<Bytes>) -> Answer<W> {
    answer(status, TEXT, Kind::Full(body.into()))
}

/// Bytes that are not for reading.
pub(crate) fn octets<W>(body: Bytes) -> Answer<W> {
    answer(StatusCode::OK, HeaderValue::from_static("application/octet-stream"), Kind::Full(body))
}

/// An answer from the keyspace.
pub(crate) fn keys<W>(status: StatusCode, position: Position, body: Kind<W>) -> Answer<W> {
    let mut answer = answer(status, JSON, body);
    let headers = answer.headers_mut();
    headers.insert(ETCD_INDEX, position.etcd_index.into());
    headers.insert(RAFT_INDEX, position.raft_index.into());
    headers.insert(RAFT_TERM, position.raft_term.into());
    answer
}

/// A status without a body.
pub(crate) fn empty<W>(status: StatusCode) -> Answer<W> {
    let mut answer = Response::new(Kind::Full(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// A stream of server-sent events.
pub(crate) fn event_stream<W>(position: Position, body: Kind<W>) -> Answer<W> {
    let mut answer = keys(StatusCode::OK, position, body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers an answer before it passes it on would never pass on this one.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    answer
}

/// An error of the keys API.
pub(crate) fn error<W>(error: &StoreError) -> Answer<W> {
    error_with(render::status(error.code), error)
}

/// An error of the keys API with a status other than the one that its number has.
pub(crate) fn error_with<W>(status: StatusCode, error: &StoreError) -> Answer<W> {
    let mut answer = json(status, render::error(error));
    answer.headers_mut().insert(ETCD_INDEX, error.index.into());
    answer
}

/// What the member could not do. A member that takes no more requests says so with 503, on which clients try another;
/// without room for a write it is 507; the other causes are 500, as in etcd.
pub(crate) fn backend_error<W>(failure: &BackendError) -> Answer<W> {
    let internal = || StoreError::new(ErrorCode::RaftInternal, failure.to_string(), 0);
    match failure {
        BackendError::Store(refusal) => error(refusal),
        BackendError::NoSpace | BackendError::Quota => {
            error_with(StatusCode::INSUFFICIENT_STORAGE, &internal())
        }
        BackendError::Corrupt | BackendError::Removed => {
            error_with(StatusCode::SERVICE_UNAVAILABLE, &internal())
        }
        BackendError::Timeout | BackendError::NoLeader | BackendError::Stopped => error(&internal()),
        BackendError::Overloaded => {
            let mut answer = error_with(StatusCode::SERVICE_UNAVAILABLE, &internal());
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
    }
}

/// Ends the connection after this answer.
pub(crate) fn closing<W>(mut answer: Answer<W>) -> Answer<W> {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Answers a request that has no handler.
pub(crate) fn refuse<W>(refusal: Refusal, method: &Method) -> Answer<W> {
    match refusal {
        Refusal::Options => Response::new(Kind::Full(Bytes::new())),
        Refusal::BadPath => closing(text(StatusCode::BAD_REQUEST, "400 Bad Request")),
        Refusal::NotFound => plain_error(StatusCode::NOT_FOUND, "404 page not found\n"),
        Refusal::NotAllowed(allowed) => {
            let mut answer = not_allowed();
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            answer
        }
        Refusal::Moved(location) => moved(&location, method),
    }
}

/// The answer to a head that is none; it says no more than the status if there is no text.
pub(crate) fn refused_head<W>(status: StatusCode, body: &'static str) -> Answer<W> {
    if !body.is_empty() {
        return text(status, body);
    }
    let mut answer = Response::new(Kind::Full(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// 405 without saying what is allowed.
pub(crate) fn not_allowed<W>() -> Answer<W> {
    plain_error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")
}

/// An error as text, marked so that no browser takes it for anything else.
pub(crate) fn plain_error<W>(status: StatusCode, body: impl Into<Bytes>) -> Answer<W> {
    let mut answer = text(status, body);
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// 301; with a link for those who read it by eye.
fn moved<W>(location: &str, method: &Method) -> Answer<W> {
    let Ok(target) = HeaderValue::from_str(location) else {
        return refuse(Refusal::BadPath, method);
    };
    let mut answer = if *method == Method::GET || *method == Method::HEAD {
        let html = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", escape_html(location));
        let body = if *method == Method::GET { Bytes::from(html) } else { Bytes::new() };
        answer(
            StatusCode::MOVED_PERMANENTLY,
            HeaderValue::from_static("text/html; charset=utf-8"),
            Kind::Full(body),
        )
    } else {
        let mut answer = Response::new(Kind::Full(Bytes::new()));
        *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
        answer
    };
    answer.headers_mut().insert(LOCATION, target);
    answer
}

fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
