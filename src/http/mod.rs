//! Clients on 4001: the v2 API. Async at the edge, pure inside.
//!
//! A request goes through `route` (where to), `params` (what is asked), the [`Backend`] (a view of the
//! keyspace, a write, a watch) and `render` (what the answer says); all but the backend's part is pure. Requests are
//! served by hyper directly, one task a connection and none a request: there is one table of routes, and the hot path
//! has no use for a framework's. A wait is taken from it while it waits (`parked`), for the memory.
//!
//! What holds whatever a client does:
//! - every wait for a client is bounded: for the head of a request, its body, the client taking the answer, the next
//!   request (`connection`); a wait for an event is the exception, and TCP's keep-alive finds clients that vanished;
//! - every size is bounded: head, body, number of connections; large answers are written while they are sent (`listing`);
//! - a client that goes away takes its watcher with it;
//! - bytes that are no HTTP, or no request of this API, get an error and change nothing.
//!
//! Answers are those of etcd 3.4 to the byte, but for what is said in `params` (linearizable reads, TTLs that do not
//! wrap), `watch` (how streams end) and here: no CORS headers unless configured, listings are always sorted, and a
//! request over a limit is told so. What clients can ask for beyond etcd is in `extensions`.
//!
//! What it does not do: TLS, authentication.

mod admin;
mod answer;
pub mod backend;
mod body;
mod calendar;
mod client;
mod connection;
mod discovery;
mod event_stream;
mod extensions;
mod form;
mod head;
mod json;
mod keys;
mod listing;
mod members;
mod metrics;
mod misc;
mod pages;
mod params;
mod parked;
#[cfg(test)]
mod pipeline_tests;
mod process;
mod render;
mod route;
mod server;
mod stats;
#[doc(hidden)]
pub mod testing;
mod view;
mod wait;
mod watch;

pub use admin::{config_json, machines_json, remove_machine};
pub use backend::Backend;
pub use server::{ServeConfig, serve};

use answer::Answer;
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL, HeaderMap, HeaderValue,
    LINK, ORIGIN, VARY,
};
use hyper::{Method, Request};
use pages::Pages;
use route::Route;
use stats::Stats;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

/// What all requests share.
struct App<B> {
    backend: B,
    config: ServeConfig,
    stats: Arc<Stats>,
    started: SystemTime,
    /// The server is shutting down: waits end.
    closing: Arc<AtomicBool>,
    cluster_id: OnceLock<HeaderValue>,
    /// The states that clients read page by page.
    pages: Arc<Pages>,
}

impl<B: Backend> App<B> {
    fn new(backend: B, config: ServeConfig) -> Self {
        Self {
            backend,
            config,
            stats: Arc::default(),
            started: SystemTime::now(),
            closing: Arc::default(),
            cluster_id: OnceLock::new(),
            pages: Arc::default(),
        }
    }

    /// X-Etcd-Cluster-Id, once the cluster has one.
    fn cluster_id(&self) -> Option<HeaderValue> {
        if let Some(id) = self.cluster_id.get() {
            return Some(id.clone());
        }
        let id = self.backend.status().cluster_id;
        let value = HeaderValue::from_str(&format!("{id:x}")).ok().filter(|_| id != 0)?;
        Some(self.cluster_id.get_or_init(|| value).clone())
    }

    /// Answers one request.
    async fn answer(&self, request: Request<Incoming>) -> Answer<B::Watch> {
        if let Err((status, text)) = head::check(request.version(), request.method(), request.headers()) {
            return answer::closing(answer::refused_head(status, text));
        }
        let origin = self.allowed_origin(request.headers());
        let asks_for_last_event_id = asks_for_last_event_id(request.headers());
        let uri = request.uri();
        let mut answer = match route::route(request.method(), uri.path(), uri.query()) {
            Ok(Route::Keys(key)) => keys::handle(self, key, request).await,
            Ok(Route::Members(route)) => members::handle(self, route, request).await,
            Ok(Route::Machines) => members::machines(self),
            Ok(Route::Leader) => admin::leader(self),
            Ok(Route::Admin(route)) => admin::handle(self, route, request).await,
            Ok(Route::StatsStore) => misc::stats_store(self),
            Ok(Route::StatsSelf) => misc::stats_self(self),
            Ok(Route::StatsLeader) => misc::stats_leader(self),
            Ok(Route::Version) => misc::version(),
            Ok(Route::Health) => misc::health(self).await,
            Ok(Route::Metrics) => metrics::handle(self),
            Ok(Route::DebugVars) => misc::debug_vars(self),
            Ok(Route::NewToken) => discovery::new_token(self, request).await,
            Err(refusal) => answer::refuse(refusal, &Method::clone(request.method())),
        };
        if let Some(origin) = origin {
            allow_origin(answer.headers_mut(), origin);
            cors_of_extensions(answer.headers_mut(), asks_for_last_event_id);
        }
        answer
    }

    /// The origin that a browser may show the answer to.
    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let allowed = &self.config.cors;
        if allowed.is_empty() {
            return None;
        }
        if allowed.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        headers
            .get(ORIGIN)
            .filter(|origin| allowed.iter().any(|allowed| origin == &allowed.as_str()))
            .cloned()
    }
}

/// Whether a browser asks beforehand if it may say where a stream of events is to go on (those that do not use
/// `EventSource` for that).
fn asks_for_last_event_id(headers: &HeaderMap) -> bool {
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    asked.is_some_and(|asked| asked.to_ascii_lowercase().contains("last-event-id"))
}

/// What a page may see and say besides, if it uses an extension.
fn cors_of_extensions(headers: &mut HeaderMap, asks_for_last_event_id: bool) {
    if asks_for_last_event_id {
        let allowed = "accept, content-type, authorization, last-event-id";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
    }
    if headers.contains_key(LINK) || headers.contains_key(CACHE_CONTROL) {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Link, X-Etcd-Index"));
    }
}

fn allow_origin(headers: &mut HeaderMap, origin: HeaderValue) {
    if origin != "*" {
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("accept, content-type, authorization"),
    );
}
