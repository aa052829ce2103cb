//! Tests of the store as a whole, and what they share.

mod commands;
mod history;
mod model;
mod parts;
mod scale;
mod watch;

use super::*;
use bytes::Bytes;
use proptest::prelude::*;

pub(super) const LIMITS: HistoryLimits = HistoryLimits { events: 1000, bytes: 1 << 20 };

pub(super) fn key(path: &str) -> Key {
    Key::parse(path.as_bytes())
}

pub(super) fn store() -> Store {
    Store::new(LIMITS)
}

pub(super) fn set(path: &str, value: &str) -> Command {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Command::Set { key: key(path), value, dir: false, ttl: None, refresh: false }
}

pub(super) fn set_ttl(path: &str, ttl: u64) -> Command {
    Command::Set { key: key(path), value: Bytes::from("v"), dir: false, ttl: Some(ttl), refresh: false }
}

pub(super) fn mkdir(path: &str, ttl: Option<u64>) -> Command {
    Command::Set { key: key(path), value: Bytes::new(), dir: true, ttl, refresh: false }
}

pub(super) fn remove(path: &str) -> Command {
    Command::Delete { key: key(path), dir: true, recursive: true }
}

/// Applies at time 0 what must succeed.
pub(super) fn ok(store: &mut Store, command: &Command) -> Outcome {
    store.apply(ClusterTime(0), command).expect("the command succeeds")
}

/// Keys that collide, nest, hide and sort closely.
pub(super) fn any_key() -> impl Strategy<Value = Key> {
    let names = ["a", "b", "_h", "a.b", "a\0", "00000000000000000007"];
    prop::collection::vec(prop::sample::select(names.to_vec()), 0..4).prop_map(|names| key(&names.join("/")))
}

pub(super) fn any_command() -> impl Strategy<Value = Command> {
    let value = prop::sample::select(vec!["", "", "v", "w"]).prop_map(Bytes::from);
    let ttl = prop::option::of(0..40u64);
    let prev_index = prop_oneof![2 => Just(0), 3 => 0..30u64];
    let compare =
        (value.clone(), prev_index).prop_map(|(prev_value, prev_index)| Compare { prev_value, prev_index });
    let flag = prop::bool::weighted(0.3);
    (0..13u8, any_key(), value, ttl, compare, flag, flag).prop_map(
        |(operation, key, value, ttl, compare, dir, other)| match operation {
            0..=3 => Command::Set { key, value, dir, ttl, refresh: other },
            4 => Command::Create { key, value, dir, ttl, refresh: other },
            5 => Command::CreateInOrder { key, value, dir, ttl },
            6..=7 => Command::Update { key, value, ttl, refresh: other },
            8 => Command::CompareAndSwap { key, compare, value, ttl, refresh: other },
            9..=11 => Command::Delete { key, dir, recursive: other },
            _ => Command::CompareAndDelete { key, compare },
        },
    )
}

/// The invariants that the module promises, each looked up the long way.
pub(super) fn check_invariants(store: &Store) {
    store.nodes.check();
    let nodes: Vec<Node> = store.nodes().collect();
    assert!(nodes.windows(2).all(|pair| pair[0].key < pair[1].key));
    assert_eq!(nodes.len(), store.node_count());
    let mut bytes = 0;
    for node in &nodes {
        assert!(!node.key.is_root());
        assert_eq!(node.dir, node.value.is_none(), "{node:?}");
        let parent = store.get(&node.key.parent().unwrap()).expect("every parent exists");
        assert!(parent.dir, "{node:?} is in a file");
        let in_order = 0 < node.created && node.created <= node.modified && node.modified <= store.index();
        assert!(in_order, "{node:?} of {}", store.index());
        bytes += node.key.as_bytes().len() as u64 + node.value.as_ref().map_or(0, Bytes::len) as u64;
    }
    assert_eq!(bytes, store.byte_count());
    let mut deadlines: Vec<_> =
        nodes.iter().filter_map(|node| Some((node.deadline?, node.modified, node.key.clone()))).collect();
    deadlines.sort();
    let deadlines: Vec<_> = deadlines.into_iter().map(|(at, _, key)| (at, key)).collect();
    let indexed: Vec<_> = store.nodes.deadlines().map(|(at, key)| (at, key.clone())).collect();
    assert_eq!(deadlines, indexed);
    assert_eq!(store.next_deadline(), deadlines.first().map(|(at, _)| *at));
    assert_eq!(store.ttl_count(), deadlines.len());
    let history = store.history();
    let kept: Vec<u64> = history.iter_from(0).map(|event| event.index).collect();
    assert_eq!(kept, (history.first_index()..=store.index()).collect::<Vec<_>>());
}
