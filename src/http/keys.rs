//! `/v2/keys`: reads and writes; waits are in `wait`.

use super::answer::{self, Answer, Position};
use super::backend::{Backend, View, Written};
use super::body::{self, BodyError, Kind};
use super::extensions::PageRequest;
use super::listing::Listing;
use super::params::{self, KeysMethod, KeysRequest, ReadRequest};
use super::render::{self, Moment};
use super::stats::Operation;
use super::{App, form, metrics, pages, wait};
use crate::store::{Action, Command, ErrorCode, Key, Node, StoreError};
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use std::sync::Arc;
use std::time::Instant;

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
    let mut answer = match (app.backend.refusal(), read(app, key, request).await) {
        (Some(refusal), _) => answer::backend_error(&refusal),
        (None, Ok(request)) => measured(app, request).await,
        (None, Err(refusal)) => *refusal,
    };
    if let Some(id) = app.cluster_id() {
        answer.headers_mut().insert(answer::CLUSTER_ID, id);
    }
    answer
}

/// A request, and what of its head matters later.
struct Asked {
    request: KeysRequest,
    target: Uri,
    headers: HeaderMap,
}

/// Makes out what is asked.
async fn read<B: Backend>(
    app: &App<B>,
    key: Key,
    request: Request<Incoming>,
) -> Result<Asked, Box<Answer<B::Watch>>> {
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
    let request = request.map_err(|error| refused(&error))?;
    Ok(Asked { request, target: head.uri, headers: head.headers })
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

/// Performs a request and counts what came of it.
async fn measured<B: Backend>(app: &App<B>, asked: Asked) -> Answer<B::Watch> {
    let method = metrics::Method::of(&asked.request);
    let started = (!matches!(asked.request, KeysRequest::Wait(_))).then(Instant::now);
    app.stats.requests.received(method);
    let answer = perform(app, asked).await;
    app.stats.requests.answered(method, answer.status(), started.map(|started| started.elapsed()));
    answer
}

async fn perform<B: Backend>(app: &App<B>, asked: Asked) -> Answer<B::Watch> {
    match asked.request {
        KeysRequest::Read(request) => get(app, &request, &asked.target).await,
        KeysRequest::Wait(request) => wait::wait(app, request, &asked.headers).await,
        KeysRequest::Write { command, no_value_on_success } => write(app, command, no_value_on_success).await,
    }
}

async fn get<B: Backend>(app: &App<B>, request: &ReadRequest, target: &Uri) -> Answer<B::Watch> {
    if let Some(page) = &request.page {
        return get_page(app, request, page, target).await;
    }
    let view = match app.backend.read(request.consistency).await {
        Ok(view) => view,
        Err(error) => {
            app.stats.count(Operation::Get, false);
            return answer::backend_error(&error);
        }
    };
    let found = view.store.get(&request.key);
    app.stats.count(Operation::Get, found.is_ok());
    match found {
        Ok(node) => show(view, &node, request, Moment::of(app.backend.clock())),
        Err(error) => answer::error(&error),
    }
}

/// A piece of a directory. What is no directory has no pieces.
async fn get_page<B: Backend>(
    app: &App<B>,
    request: &ReadRequest,
    page: &PageRequest,
    target: &Uri,
) -> Answer<B::Watch> {
    let state = pages::state(app, request, page).await;
    app.stats.count(Operation::Get, state.as_ref().is_ok_and(|state| state.get(&request.key).is_ok()));
    let state = match state {
        Ok(state) => state,
        Err(error) => return answer::backend_error(&error),
    };
    match state.get(&request.key) {
        Ok(node) if node.dir => {
            let target = (target.path(), target.query().unwrap_or(""));
            state.show(app, &node, request, page, target).await
        }
        Ok(node) => show(state.into_view(), &node, request, Moment::of(app.backend.clock())),
        Err(error) => answer::error(&error),
    }
}

/// The answer to a read. A directory that does not fit one chunk is written while it is sent.
fn show<W>(view: Arc<View>, node: &Node, request: &ReadRequest, moment: Moment) -> Answer<W> {
    let position = Position::of(&view.summary, view.summary.index);
    if node.dir {
        let mut listing = Listing::new(view, node, request.recursive, request.keys_only, moment);
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
    let has_fields = moment.node_fields(&mut out, node, request.keys_only);
    render::node_tail(&mut out, has_fields, node.modified, node.created);
    out.put_slice(b"}\n");
    answer::keys(StatusCode::OK, position, Kind::Full(out.freeze()))
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
