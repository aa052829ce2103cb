use super::*;
use crate::store::{Action, Key};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Cluster time 1,000,000 was at 2026-11-22T05:59:26.75Z.
fn clock() -> ClockReading {
    let wall = UNIX_EPOCH + Duration::new(1_795_327_166, 750_000_000);
    ClockReading { cluster: ClusterTime(1_000_000), wall }
}

fn file(key: &str, value: &str, modified: u64, created: u64) -> Node {
    let value = Some(Bytes::copy_from_slice(value.as_bytes()));
    Node { key: Key::parse(key.as_bytes()), value, dir: false, deadline: None, created, modified }
}

fn directory(key: &str, modified: u64, created: u64) -> Node {
    Node { value: None, dir: true, ..file(key, "", modified, created) }
}

fn node_text(node: &Node) -> String {
    let mut out = BytesMut::new();
    Moment::of(clock()).node(&mut out, node);
    String::from_utf8(out.to_vec()).unwrap()
}

fn event_of(action: Action, node: Node, prev_node: Option<Node>) -> Event {
    Event {
        index: node.modified,
        action,
        node: Arc::new(node),
        prev_node: prev_node.map(Arc::new),
        refresh: false,
        time: ClusterTime(999_000),
    }
}

/// The texts are answers of etcd 3.4.23.
#[test]
fn nodes() {
    for (node, expected) in [
        (file("/q", "1", 5, 5), r#"{"key":"/q","value":"1","modifiedIndex":5,"createdIndex":5}"#),
        (file("/q", "", 5, 4), r#"{"key":"/q","value":"","modifiedIndex":5,"createdIndex":4}"#),
        (directory("/d", 11, 10), r#"{"key":"/d","dir":true,"modifiedIndex":11,"createdIndex":10}"#),
        (directory("/", 0, 0), r#"{"dir":true}"#),
    ] {
        assert_eq!(node_text(&node), expected);
    }
}

#[test]
fn ttl_and_expiration() {
    for (deadline, expected) in [
        (1_100_000, r#""expiration":"2026-11-22T06:01:06.75Z","ttl":100"#),
        (1_000_001, r#""expiration":"2026-11-22T05:59:26.751Z","ttl":1"#),
        (1_000_000, r#""expiration":"2026-11-22T05:59:26.75Z""#),
        (999_001, r#""expiration":"2026-11-22T05:59:25.751Z""#),
        (998_500, r#""expiration":"2026-11-22T05:59:25.25Z","ttl":-1"#),
        (u64::MAX, r#""expiration":"9999-12-31T23:59:59.999999999Z","ttl":18446744073708552"#),
    ] {
        let node = Node { deadline: Some(ClusterTime(deadline)), ..file("/t", "", 5, 5) };
        let expected = format!(r#"{{"key":"/t","value":"",{expected},"modifiedIndex":5,"createdIndex":5}}"#);
        assert_eq!(node_text(&node), expected, "{deadline}");
    }
}

/// The texts are answers of etcd 3.4.23.
#[test]
fn events() {
    let text = |event: &Event, without_nodes| {
        String::from_utf8(super::event(event, &clock(), without_nodes).to_vec()).unwrap()
    };
    let set = event_of(Action::Set, file("/q", "1", 5, 5), Some(file("/q", "", 4, 4)));
    assert_eq!(
        text(&set, false),
        "{\"action\":\"set\",\"node\":{\"key\":\"/q\",\"value\":\"1\",\"modifiedIndex\":5,\"createdIndex\":5},\
         \"prevNode\":{\"key\":\"/q\",\"value\":\"\",\"modifiedIndex\":4,\"createdIndex\":4}}\n"
    );
    assert_eq!(text(&set, true), "{\"action\":\"set\"}\n");
    let gone = Node { value: None, ..file("/w", "", 14, 13) };
    let delete = event_of(Action::Delete, gone, Some(file("/w", "1", 13, 13)));
    assert_eq!(
        text(&delete, false),
        "{\"action\":\"delete\",\"node\":{\"key\":\"/w\",\"modifiedIndex\":14,\"createdIndex\":13},\
         \"prevNode\":{\"key\":\"/w\",\"value\":\"1\",\"modifiedIndex\":13,\"createdIndex\":13}}\n"
    );
}

/// A watcher that reads an event late is told the `ttl` that the writer was told.
#[test]
fn ttl_of_an_event_counts_from_the_event() {
    let node = Node { deadline: Some(ClusterTime(1_059_000)), ..file("/t", "", 5, 5) };
    let bytes = super::event(&event_of(Action::Set, node, None), &clock(), false);
    let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(answer["node"]["ttl"], 60);
    assert_eq!(answer["node"]["expiration"], "2026-11-22T06:00:25.75Z");
}

/// The texts are answers of etcd 3.4.23.
#[test]
fn errors() {
    let text = |code, cause: &'static str, index| {
        String::from_utf8(super::error(&StoreError::new(code, cause, index)).to_vec()).unwrap()
    };
    assert_eq!(
        text(ErrorCode::KeyNotFound, "/x?<\"'&", 5),
        "{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/x?\\u003c\\\"'\\u0026\",\"index\":5}\n"
    );
    assert_eq!(
        text(ErrorCode::NotFile, "", 0),
        "{\"errorCode\":102,\"message\":\"Not a file\",\"index\":0}\n"
    );
    assert_eq!(&message("Not found")[..], b"{\"message\":\"Not found\"}");
}

proptest! {
    #[test]
    fn whatever_a_node_holds(
        key in proptest::collection::vec(any::<u8>(), 0..40),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        deadline in proptest::option::of(any::<u64>()),
        indexes in any::<(u64, u64)>(),
        dir in any::<bool>(),
    ) {
        let node = Node {
            key: Key::parse(&key),
            value: value.map(Bytes::from),
            dir,
            deadline: deadline.map(ClusterTime),
            created: indexes.0,
            modified: indexes.1,
        };
        let read: serde_json::Value = serde_json::from_str(&node_text(&node)).unwrap();
        prop_assert_eq!(read["modifiedIndex"].as_u64().unwrap_or(0), node.modified);
        prop_assert_eq!(read["createdIndex"].as_u64().unwrap_or(0), node.created);
        prop_assert_eq!(read.get("value").is_some(), node.value.is_some());
    }
}
