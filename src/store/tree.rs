//! The store as a whole: what can be read of it, and how it is put together again from a checkpoint.

use super::builder::StoreBuilder;
use super::keyspace::{Keyspace, Missing};
use super::{ClusterTime, ErrorCode, Event, EventHistory, HistoryLimits, Key, Node, StoreError};
use std::sync::Arc;

/// What a successful command, or an expiry, did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The event, as it also stands in the history.
    pub event: Arc<Event>,
    /// The store before a directory that was not empty was removed: its watchers below are told if their path existed
    /// in it. Keeps the removed nodes in memory, so it is dropped when the watchers are told.
    pub removed_from: Option<Box<Store>>,
}

/// The keyspace with its index, TTL index, event history and digest. A clone is O(1).
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) nodes: Keyspace,
    pub(super) history: EventHistory,
    pub(super) index: u64,
    pub(super) digest: u64,
}

impl Store {
    /// An empty store at index 0.
    #[must_use]
    pub fn new(limits: HistoryLimits) -> Self {
        Self { nodes: Keyspace::default(), history: EventHistory::new(limits, 1), index: 0, digest: 0 }
    }

    /// The earliest deadline of any node.
    #[must_use]
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        self.nodes.next_due().and_then(|node| node.deadline)
    }

    /// How many nodes have a deadline.
    #[must_use]
    pub fn ttl_count(&self) -> usize {
        self.nodes.due_len()
    }

    /// The index of the last event; X-Etcd-Index.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The rolling digest over all events so far; 0 before the first.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The node at `key`, as a GET must find it: 104 below a file, 100 naming the first missing ancestor.
    /// The root is a directory that was created at index 0.
    pub fn get(&self, key: &Key) -> Result<Node, StoreError> {
        if key.is_root() {
            return Ok(Node {
                key: Key::root(),
                value: None,
                dir: true,
                deadline: None,
                created: 0,
                modified: 0,
            });
        }
        self.find(key).map(|node| Node::clone(node))
    }

    /// Whether there is a node at `key`.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.is_root() || self.nodes.get(key).is_some()
    }

    /// The direct children of a directory in byte order of their names, hidden ones included; none if `dir` is not a
    /// directory. What is below a child is skipped, so the cost is that of the children alone.
    pub fn children<'a>(&'a self, dir: &Key) -> impl Iterator<Item = Node> + use<'a> {
        self.nodes.children(dir).map(|node| Node::clone(node))
    }

    /// All nodes below a directory (not itself) in key order, parents before children, hidden ones included.
    pub fn descendants<'a>(&'a self, dir: &Key) -> impl Iterator<Item = Node> + use<'a> {
        self.nodes.descendants(dir).map(|node| Node::clone(node))
    }

    /// The same from the key `start` on, itself included: to go on with a walk that was broken off, or behind a subtree.
    pub fn descendants_from<'a>(
        &'a self,
        dir: &Key,
        start: &Key,
    ) -> impl Iterator<Item = &'a Node> + use<'a> {
        self.nodes.descendants_from(dir, start).map(|node| &**node)
    }

    /// Every node but the root, in key order: what a checkpoint holds.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        self.nodes.iter().map(|node| Node::clone(node))
    }

    /// Every node after `key` in key order: how a walk over [`Self::nodes`] is taken up again.
    pub fn nodes_after(&self, key: &Key) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.after(key)
    }

    /// The node at a key other than the root, if there is one.
    #[must_use]
    pub fn node(&self, key: &Key) -> Option<&Arc<Node>> {
        self.nodes.get(key)
    }

    /// How many nodes there are, the root not counted.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn byte_count(&self) -> u64 {
        self.nodes.bytes()
    }

    /// The event history.
    #[must_use]
    pub fn history(&self) -> &EventHistory {
        &self.history
    }

    /// Rebuilds a store from what [`Self::nodes`], [`Self::history`], [`Self::index`] and [`Self::digest`] gave.
    /// A history beyond the limits is cut to them.
    ///
    /// # Errors
    ///
    /// The parts break an invariant; the text says which.
    pub fn from_parts(
        limits: HistoryLimits,
        index: u64,
        digest: u64,
        nodes: impl IntoIterator<Item = Node>,
        history: impl IntoIterator<Item = Arc<Event>>,
    ) -> Result<Self, String> {
        let mut builder = StoreBuilder::new(limits, index, digest);
        nodes.into_iter().try_for_each(|node| builder.add_node(&node))?;
        history.into_iter().try_for_each(|event| builder.add_event(event))?;
        builder.build()
    }

    /// The node at a key other than the root, or the error that a client gets.
    pub(super) fn find(&self, key: &Key) -> Result<&Arc<Node>, StoreError> {
        self.nodes.find(key).map_err(|missing| self.missing(&missing))
    }

    pub(super) fn missing(&self, missing: &Missing) -> StoreError {
        match missing {
            Missing::At(key) => self.refuse(ErrorCode::KeyNotFound, key),
            Missing::BelowFile(file) => self.refuse(ErrorCode::NotDir, file),
        }
    }

    /// An error about a key, at the current index.
    pub(super) fn refuse(&self, code: ErrorCode, key: &Key) -> StoreError {
        StoreError::new(code, key.compact().into_bytes(), self.index)
    }
}
