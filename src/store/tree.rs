//! The tree itself: commands in, events out.
//!
//! API agreed with the other modules; bodies to be written.

use super::{ClusterTime, Event, EventHistory, HistoryLimits, Key, Node, StoreError};
use bytes::Bytes;
use std::sync::Arc;

/// The comparison of a compare-and-swap or compare-and-delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// The value that the node must have; empty: any.
    pub prev_value: Bytes,
    /// The `modifiedIndex` that the node must have; 0: any.
    pub prev_index: u64,
}

/// One change to the keyspace. Times to live are in milliseconds from the cluster time at which the command is
/// applied; `None` makes the node permanent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the parameters of the v2 API
pub enum Command {
    /// `PUT` without conditions.
    Set { key: Key, value: Bytes, dir: bool, ttl: Option<u64>, refresh: bool },
    /// `PUT` with `prevExist=false`.
    Create { key: Key, value: Bytes, dir: bool, ttl: Option<u64>, refresh: bool },
    /// `POST`: a child of `key` named after the event's index, zero-padded to 20 digits.
    CreateInOrder { key: Key, value: Bytes, dir: bool, ttl: Option<u64> },
    /// `PUT` with `prevExist=true` and nothing to compare.
    Update { key: Key, value: Bytes, ttl: Option<u64>, refresh: bool },
    /// `PUT` with `prevValue` or `prevIndex`.
    CompareAndSwap { key: Key, compare: Compare, value: Bytes, ttl: Option<u64>, refresh: bool },
    /// `DELETE` without conditions.
    Delete { key: Key, dir: bool, recursive: bool },
    /// `DELETE` with `prevValue` or `prevIndex`.
    CompareAndDelete { key: Key, compare: Compare },
}

/// What a successful command, or an expiry, did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The event, as it also stands in the history.
    pub event: Arc<Event>,
    /// The store before a directory was removed: its watchers below are told if their path existed in it.
    pub removed_from: Option<Box<Store>>,
}

/// The keyspace with its index, TTL index, event history and digest.
#[derive(Clone, Debug)]
pub struct Store {
    _todo: (),
}

#[allow(unused_variables, clippy::todo)]
impl Store {
    /// An empty store at index 0.
    pub fn new(limits: HistoryLimits) -> Self {
        todo!()
    }
    /// Applies one command at a cluster time. An error changes nothing but is deterministic like the rest.
    pub fn apply(&mut self, time: ClusterTime, command: &Command) -> Result<Outcome, StoreError> {
        todo!()
    }
    /// Removes nodes whose deadline is at or before `time`, earliest deadline first, at most `limit` of them.
    pub fn expire(&mut self, time: ClusterTime, limit: usize) -> Vec<Outcome> {
        todo!()
    }
    /// The earliest deadline of any node.
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        todo!()
    }
    /// How many nodes have a deadline.
    pub fn ttl_count(&self) -> usize {
        todo!()
    }
    /// The index of the last event; X-Etcd-Index.
    pub fn index(&self) -> u64 {
        todo!()
    }
    /// The rolling digest over all events so far.
    pub fn digest(&self) -> u64 {
        todo!()
    }
    /// The node at `key`, as a GET must find it: 104 below a file, 100 naming the first missing ancestor.
    pub fn get(&self, key: &Key) -> Result<Node, StoreError> {
        todo!()
    }
    /// Whether there is a node at `key`.
    pub fn contains(&self, key: &Key) -> bool {
        todo!()
    }
    /// The direct children of a directory in byte order of their names, hidden ones included.
    pub fn children<'a>(&'a self, dir: &Key) -> Box<dyn Iterator<Item = Node> + 'a> {
        todo!()
    }
    /// All nodes below a directory (not itself) in key order, parents before children, hidden ones included.
    pub fn descendants<'a>(&'a self, dir: &Key) -> Box<dyn Iterator<Item = Node> + 'a> {
        todo!()
    }
    /// Every node but the root, in key order: what a checkpoint holds.
    pub fn nodes<'a>(&'a self) -> Box<dyn Iterator<Item = Node> + 'a> {
        todo!()
    }
    /// How many nodes there are, the root not counted.
    pub fn node_count(&self) -> usize {
        todo!()
    }
    /// Bytes of all keys and values.
    pub fn byte_count(&self) -> u64 {
        todo!()
    }
    /// The event history.
    pub fn history(&self) -> &EventHistory {
        todo!()
    }
    /// Rebuilds a store from what [`Self::nodes`], [`Self::history`], [`Self::index`] and [`Self::digest`] gave.
    /// Refuses parts that break an invariant, saying which.
    pub fn from_parts(
        limits: HistoryLimits,
        index: u64,
        digest: u64,
        nodes: impl IntoIterator<Item = Node>,
        history: impl IntoIterator<Item = Arc<Event>>,
    ) -> Result<Self, String> {
        todo!()
    }
}
