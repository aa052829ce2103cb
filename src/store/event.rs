//! What happened to a key: the record that writers get as their answer, watchers as their news, and the history keeps.

use super::{ClusterTime, Key};
use bytes::Bytes;
use std::sync::Arc;

/// What was done to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names of the v2 API
pub enum Action {
    Set,
    Create,
    Update,
    CompareAndSwap,
    Delete,
    CompareAndDelete,
    Expire,
}

impl Action {
    /// As it stands in an answer's `action`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Create => "create",
            Self::Update => "update",
            Self::CompareAndSwap => "compareAndSwap",
            Self::Delete => "delete",
            Self::CompareAndDelete => "compareAndDelete",
            Self::Expire => "expire",
        }
    }

    /// Whether the node is gone after it.
    #[must_use]
    pub fn removes(self) -> bool {
        matches!(self, Self::Delete | Self::CompareAndDelete | Self::Expire)
    }
}

/// A key's node as it was at one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is.
    pub key: Key,
    /// `None` for a directory, and in an event that removed the node.
    pub value: Option<Bytes>,
    /// Whether it is a directory.
    pub dir: bool,
    /// When it expires; `None`: never.
    pub deadline: Option<ClusterTime>,
    /// The index at which it was created.
    pub created: u64,
    /// The index at which it was changed last; for a removal, the index of the removal.
    pub modified: u64,
}

impl Node {
    /// The same node in memory of its own: one cut from a message would keep the whole message alive.
    pub(super) fn compact(&self) -> Self {
        let value = self.value.as_ref().map(|value| Bytes::copy_from_slice(value));
        Self { key: self.key.compact(), value, ..self.clone() }
    }
}

/// One change, applied at one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The store's index after it. Each index belongs to exactly one event.
    pub index: u64,
    /// What was done.
    pub action: Action,
    /// The node after it.
    pub node: Arc<Node>,
    /// The node before it, if there was one and the action reports it.
    pub prev_node: Option<Arc<Node>>,
    /// A TTL refresh: in the history for the index's sake, but no watcher hears of it.
    pub refresh: bool,
    /// Cluster time at which it was applied; `ttl` in an answer counts from here.
    pub time: ClusterTime,
}

impl Event {
    /// Whether a past event concerns a watcher of `key`: it happened there, or below it if the watcher is recursive,
    /// or removed a directory above it. Refreshes concern nobody.
    ///
    /// This is the rule for the history. Live, hidden keys are withheld as well, see [`super::WatcherHub`].
    #[must_use]
    pub fn matches(&self, key: &Key, recursive: bool) -> bool {
        if self.refresh {
            return false;
        }
        let removed_dir = self.node.dir && self.action.removes();
        self.node.key == *key
            || (recursive && key.contains(&self.node.key))
            || (removed_dir && self.node.key.contains(key))
    }
}
