//! Whole requests through all that is pure: route, parameters, store, answer; each answer is checked against what it was made from.
//!
//! Compiled for tests and for the fuzz target in `tests/fuzz`, which both call [`run`].

use super::listing::Listing;
use super::params::{self, KeysMethod, KeysRequest, ReadRequest};
use super::render::{self, Moment};
use super::route::{self, Refusal, Route};
use super::view::{ClockReading, Consistency, Summary, View};
use super::{event_stream, form};
use crate::store::{ClusterTime, Event, HistoryLimits, Key, Node, Store, StoreError};
use bytes::{Bytes, BytesMut};
use hyper::{Method, Uri};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Requests of one run.
const REQUESTS_MAX: usize = 30;
/// Cluster time between two requests.
const STEP_MILLIS: u64 = 700;

/// Plays requests, one a line, to a new store: `METHOD TARGET`, then, after tabs, a form and its content type.
pub(crate) fn run(data: &[u8]) {
    let mut store = Store::new(HistoryLimits { events: 20, bytes: 4096 });
    for (at, line) in data.split(|&byte| byte == b'\n').take(REQUESTS_MAX).enumerate() {
        let time = ClusterTime(at as u64 * STEP_MILLIS);
        let clock =
            ClockReading { cluster: time, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000) };
        for outcome in store.expire(time, usize::MAX) {
            check_event(&outcome.event, &render::event(&outcome.event, &clock, false));
        }
        let mut parts = line.splitn(3, |&byte| byte == b'\t');
        let (head, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let content_type = parts.next().unwrap_or(b"application/x-www-form-urlencoded");
        if let Some((key, request)) = read(head, body, content_type) {
            answer(&mut store, &key, request, clock);
        }
    }
}

/// Makes out what a line asks of a key.
fn read(head: &[u8], body: &[u8], content_type: &[u8]) -> Option<(Key, KeysRequest)> {
    let space = head.iter().position(|&byte| byte == b' ')?;
    let method = Method::from_bytes(&head[..space]).ok()?;
    let target = Uri::try_from(&head[space + 1..]).ok()?;
    let key = match route::route(&method, target.path(), target.query()) {
        Ok(Route::Keys(key)) => key,
        Err(Refusal::Moved(location)) => {
            let to = Uri::try_from(&*location).expect("a location is a target");
            let again = route::route(&method, to.path(), to.query());
            assert!(!matches!(again, Err(Refusal::Moved(_) | Refusal::BadPath)), "{target} to {location}");
            return None;
        }
        _ => return None,
    };
    let method = match method {
        Method::GET => KeysMethod::Get,
        Method::HEAD => KeysMethod::Head,
        Method::PUT => KeysMethod::Put,
        Method::POST => KeysMethod::Post,
        Method::DELETE => KeysMethod::Delete,
        other => panic!("{other} is not allowed"),
    };
    let form = match form::is_form(Some(content_type)) {
        Ok(true) => Bytes::copy_from_slice(body),
        Ok(false) => Bytes::new(),
        Err(error) => {
            check_error(&params::invalid_form(&error));
            return None;
        }
    };
    match params::parse(method, key.clone(), target.query().unwrap_or(""), &form) {
        Ok(request) => Some((key, request)),
        Err(error) => {
            assert_eq!(error.index, 0);
            check_error(&error);
            None
        }
    }
}

/// Does what is asked, and checks what is said about it.
fn answer(store: &mut Store, key: &Key, request: KeysRequest, clock: ClockReading) {
    match request {
        KeysRequest::Write { command, no_value_on_success } => match store.apply(clock.cluster, &command) {
            Ok(outcome) => {
                let event = &outcome.event;
                check_event(event, &render::event(event, &clock, false));
                if no_value_on_success {
                    let short = json(&render::event(event, &clock, true));
                    assert_eq!(short, serde_json::json!({ "action": event.action.name() }));
                }
            }
            Err(error) => check_error(&error),
        },
        KeysRequest::Wait(wait) => {
            assert!(wait.timeout.is_none_or(|timeout| timeout <= Duration::from_secs(86_400)));
            let since = if wait.watch.since == 0 { store.index() } else { wait.watch.since };
            if let Ok(Some(event)) = store.history().scan(key, wait.watch.recursive, since) {
                let line = render::event(&event, &clock, false);
                check_event(&event, &line);
                let text = event_stream::event(event.index, &line);
                assert_eq!(text.split(|&byte| byte == b'\n').count(), 4, "one event, whatever is in it");
                assert!(!text.contains(&b'\r'));
            }
        }
        KeysRequest::Read(read) => match store.get(&read.key) {
            Ok(node) => show(store, &node, &read, clock),
            Err(error) => check_error(&error),
        },
    }
}

fn show(store: &Store, node: &Node, read: &ReadRequest, clock: ClockReading) {
    assert!(matches!(read.consistency, Consistency::Local | Consistency::Linearizable));
    let moment = Moment::of(clock);
    if !node.dir {
        let mut out = BytesMut::new();
        let has_fields = moment.node_fields(&mut out, node, read.keys_only);
        render::node_tail(&mut out, has_fields, node.modified, node.created);
        return check_node(node, &json(&out), read.keys_only);
    }
    let view = View::of(store, Summary::of(store, 0, 0, Arc::default()));
    let listing = Listing::new(Arc::new(view), node, read.recursive, read.keys_only, moment);
    let mut listing = match &read.page {
        Some(page) => listing.page(&page.start, page.limit),
        None => listing,
    };
    let chunks: Vec<Bytes> = std::iter::from_fn(|| listing.next_chunk()).collect();
    let whole = json(&chunks.concat());
    let mut shown = Vec::new();
    flatten(&whole["node"], &mut shown);
    if let Some(page) = &read.page {
        assert!(listing.more().is_none_or(|more| node.key.contains(more) && page.start < *more));
        let around = page.start.depth().saturating_sub(node.key.depth());
        assert!(shown.len() <= 1 + page.limit + around);
        return;
    }
    let in_listing = |below: &Node| {
        !below.key.hidden_below(&node.key) && (read.recursive || below.key.depth() == node.key.depth() + 1)
    };
    let expected: Vec<Node> =
        [node.clone()].into_iter().chain(store.descendants(&node.key).filter(in_listing)).collect();
    assert_eq!(shown.len(), expected.len(), "{whole}");
    for (node, shown) in expected.iter().zip(shown) {
        check_node(node, shown, read.keys_only);
    }
}

/// A node and all below it, parents before children.
fn flatten<'a>(shown: &'a Value, found: &mut Vec<&'a Value>) {
    let mut next = vec![shown];
    while let Some(node) = next.pop() {
        found.push(node);
        next.extend(node["nodes"].as_array().into_iter().flatten().rev());
    }
}

fn check_event(event: &Event, rendered: &[u8]) {
    let shown = json(rendered);
    assert_eq!(shown["action"], event.action.name());
    check_node(&event.node, &shown["node"], false);
    match &event.prev_node {
        Some(node) => check_node(node, &shown["prevNode"], false),
        None => assert!(shown.get("prevNode").is_none()),
    }
}

fn check_node(node: &Node, shown: &Value, keys_only: bool) {
    let key = (!node.key.is_root()).then(|| text(node.key.as_bytes()));
    assert_eq!(shown["key"].as_str(), key.as_deref());
    let value = node.value.as_ref().filter(|_| !keys_only).map(|value| text(value));
    assert_eq!(shown["value"].as_str(), value.as_deref());
    assert_eq!(shown["dir"].as_bool(), node.dir.then_some(true));
    assert_eq!(shown["modifiedIndex"].as_u64().unwrap_or(0), node.modified);
    assert_eq!(shown["createdIndex"].as_u64().unwrap_or(0), node.created);
    assert_eq!(shown.get("expiration").is_some(), node.deadline.is_some());
}

fn check_error(error: &StoreError) {
    let shown = json(&render::error(error));
    assert_eq!(shown["errorCode"], u64::from(error.code.number()));
    assert_eq!(shown["cause"].as_str().unwrap_or(""), text(&error.cause));
    assert_eq!(shown["index"], error.index);
    assert!((400..=500).contains(&render::status(error.code).as_u16()));
}

fn json(rendered: &[u8]) -> Value {
    let (body, line) = (rendered.trim_ascii_end(), String::from_utf8_lossy(rendered));
    assert!(!body.contains(&b'\n'), "{line}");
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// What JSON can show of bytes: each that is no UTF-8 as U+FFFD.
fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// A line that is nearly a request.
    fn line() -> impl Strategy<Value = String> {
        let parameter = "(ttl|dir|prevExist|prevIndex|prevValue|refresh|recursive|wait|waitIndex|quorum|limit|start|keysOnly|noValueOnSuccess|value)=(true|false|[0-9]{1,3}|[ab]|%[0-9a-f]{2}|/a/b)";
        let parameters = || proptest::collection::vec(parameter, 0..4).prop_map(|all| all.join("&"));
        ("GET|PUT|PUT|POST|DELETE", "(/(a|b|_h|%ff|%0a|%22|\\.\\.)){0,4}", parameters(), parameters())
            .prop_map(|(method, key, query, form)| format!("{method} /v2/keys{key}?{query}\t{form}"))
    }

    proptest! {
        #[test]
        fn any_requests(lines in proptest::collection::vec(line(), 1..20)) {
            super::run(lines.join("\n").as_bytes());
        }

        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            super::run(&data);
        }
    }
}
