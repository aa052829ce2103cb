//! `/v2/keys`: reads, waits and writes.

use super::answer::{self, Answer, Position};
use super::backend::{Backend, Consistency, View, WatchRequest, Written};
use super::body::{self, BodyError, Kind};
use super::listing::Listing;
use super::params::{self, KeysMethod, KeysRequest};
use super::render::{self, Moment};
use super::stats::{Operation, WatcherCount};
use super::watch::WatchBody;
use super::{App, form};
use crate::store::{Action, Command, ErrorCode, Key, Node, StoreError};
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use std::sync::Arc;

/// The most levels that a key may have to be written. Each is a node of its own, with its whole path, so that one long
/// path of short names could cost megabytes.
const MAX_LEVELS: usize = 512;

/// About as many bytes as an answer takes besides its key and value.
const AROUND_NODE: usize = 192;

/// Answers a request for a key. The method is one of those that the route allows.
pub(crate) async fn handle<B: Backend>(
    app: &App<B>,
    key: Key,
    request: Request<Incoming>,
) -> Answer<B::Watch> {
    let mut answer = match read(app, key, request).await {
        Ok(request) => perform(app, request).await,
        Err(refusal) => *refusal,
    };
    if let Some(id) = app.cluster_id() {
        answer.headers_mut().insert(answer::CLUSTER_ID, id);
    }
    answer
}

/// Makes out what is asked.
async fn read<B: Backend>(
    app: &App<B>,
    key: Key,
    request: Request<Incoming>,
) -> Result<KeysRequest, Box<Answer<B::Watch>>> {
    let (head, body) = request.into_parts();
    let method = match head.method {
        Method::HEAD => KeysMethod::Head,
        Method::PUT => KeysMethod::Put,
        Method::POST => KeysMethod::Post,
        Method::DELETE => KeysMethod::Delete,
        _ => KeysMethod::Get,
    };
    let mut form = Bytes::new();
    if matches!(method, KeysMethod::Put | KeysMethod::Post) {
        let content_type = head.headers.get(CONTENT_TYPE).map(hyper::header::HeaderValue::as_bytes);
        let is_form = form::is_form(content_type).map_err(|error| refused(&params::invalid_form(&error)))?;
        let body = body::read(body, app.config.max_body_bytes, app.config.body_timeout).await;
        let body = body.map_err(|error| Box::new(body_error(app, error)))?;
        if is_form {
            form = body;
        }
    }
    let levels = key.depth();
    let request = params::parse(method, key, head.uri.query().unwrap_or(""), &form);
    if levels > MAX_LEVELS && matches!(request, Ok(KeysRequest::Write { .. })) {
        let cause = format!("the key has {levels} levels, more than {MAX_LEVELS}");
        return Err(refused(&params::refuse(ErrorCode::InvalidField, cause)));
    }
    request.map_err(|error| refused(&error))
}

fn refused<W>(error: &StoreError) -> Box<Answer<W>> {
    Box::new(answer::error(error))
}

/// Says why a body was not taken. The rest of it is not read, so the connection ends.
fn body_error<B: Backend>(app: &App<B>, error: BodyError) -> Answer<B::Watch> {
    let (status, cause) = match error {
        BodyError::TooLarge => {
            let cause = format!("the request body is larger than {} bytes", app.config.max_body_bytes);
            (StatusCode::PAYLOAD_TOO_LARGE, cause)
        }
        BodyError::TooSlow => {
            let cause = format!("the request body was not complete after {:?}", app.config.body_timeout);
            (StatusCode::REQUEST_TIMEOUT, cause)
        }
        BodyError::Broken => (StatusCode::BAD_REQUEST, "the request body is broken".to_owned()),
    };
    answer::closing(answer::error_with(status, &params::refuse(ErrorCode::InvalidForm, cause)))
}

async fn perform<B: Backend>(app: &App<B>, request: KeysRequest) -> Answer<B::Watch> {
    if let Some(error) = app.backend.refuses() {
        return answer::backend_error(&error);
    }
    match request {
        KeysRequest::Read { key, recursive, consistency } => get(app, &key, recursive, consistency).await,
        KeysRequest::Wait(request) => wait(app, request),
        KeysRequest::Write { command, no_value_on_success } => write(app, command, no_value_on_success).await,
    }
}

async fn get<B: Backend>(
    app: &App<B>,
    key: &Key,
    recursive: bool,
    consistency: Consistency,
) -> Answer<B::Watch> {
    let view = match consistency {
        Consistency::Local => app.backend.view(),
        Consistency::Linearizable => match app.backend.read(consistency).await {
            Ok(view) => view,
            Err(error) => {
                app.stats.count(Operation::Get, false);
                return answer::backend_error(&error);
            }
        },
    };
    let found = view.store.get(key);
    app.stats.count(Operation::Get, found.is_ok());
    match found {
        Ok(node) => show(view, &node, recursive, Moment::of(app.backend.clock())),
        Err(error) => answer::error(&error),
    }
}

/// The answer to a read. A directory that does not fit one chunk is written while it is sent.
fn show<W>(view: Arc<View>, node: &Node, recursive: bool, moment: Moment) -> Answer<W> {
    let position = position(&view, view.store.index());
    if node.dir {
        let mut listing = Listing::new(view, node, recursive, moment);
        listing.fill();
        let body = if listing.is_written() {
            Kind::Full(listing.next_chunk().unwrap_or_default())
        } else {
            Kind::Listing(Box::new(listing))
        };
        return answer::keys(StatusCode::OK, position, body);
    }
    let size = AROUND_NODE + node.key.as_bytes().len() + node.value.as_ref().map_or(0, Bytes::len);
    let mut out = BytesMut::with_capacity(size);
    out.put_slice(b"{\"action\":\"get\",\"node\":");
    moment.node(&mut out, node);
    out.put_slice(b"}\n");
    answer::keys(StatusCode::OK, position, Kind::Full(out.freeze()))
}

fn wait<B: Backend>(app: &App<B>, request: WatchRequest) -> Answer<B::Watch> {
    use super::backend::Watch as _;
    let stream = request.stream;
    match app.backend.watch(request) {
        Ok(watch) => {
            let position = position(&app.backend.view(), watch.registered_index());
            let count = WatcherCount::new(&app.stats);
            let body = WatchBody::new(watch, stream, Arc::clone(&app.closing), count);
            answer::keys(StatusCode::OK, position, Kind::Watch(body))
        }
        Err(error) => answer::error(&error),
    }
}

async fn write<B: Backend>(app: &App<B>, command: Command, no_value_on_success: bool) -> Answer<B::Watch> {
    let operation = Operation::of(&command);
    let outcome = app.backend.write(command).await;
    app.stats.count(operation, outcome.is_ok());
    match outcome {
        Ok(Written { event, raft_index, raft_term }) => {
            let creates =
                event.action == Action::Create || (event.action == Action::Set && event.prev_node.is_none());
            let status = if creates { StatusCode::CREATED } else { StatusCode::OK };
            let without_nodes = no_value_on_success && !event.action.removes();
            let body = render::event(&event, &app.backend.clock(), without_nodes);
            let position = Position { etcd_index: event.index, raft_index, raft_term };
            answer::keys(status, position, Kind::Full(body))
        }
        Err(error) => answer::backend_error(&error),
    }
}

fn position(view: &View, etcd_index: u64) -> Position {
    Position { etcd_index, raft_index: view.raft_index, raft_term: view.raft_term }
}
