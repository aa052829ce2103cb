//! What goes in and what comes out: options, nodes, responses, members.

use serde::Deserialize;

/// A key or a directory, as answers carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// The full key; empty for the root.
    pub key: String,
    /// The value; `None` for a directory and for a node that was removed.
    pub value: Option<String>,
    /// Whether it is a directory.
    pub dir: bool,
    /// The children, in a listing.
    pub nodes: Vec<Node>,
    /// The index at which it was created.
    pub created_index: u64,
    /// The index at which it was changed last.
    pub modified_index: u64,
    /// When it expires by the server's clock (RFC 3339); `None`: never.
    pub expiration: Option<String>,
    /// Seconds until it expires, rounded up; may be 0 or negative while it awaits its removal.
    pub ttl: Option<i64>,
}

/// A successful answer about a key, or an event on a watched one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Response {
    /// What was done: `get`, `set`, `create`, `update`, `compareAndSwap`, `delete`, `compareAndDelete`, `expire`.
    pub action: String,
    /// The node after it.
    pub node: Node,
    /// The node before it, where there was one.
    pub prev_node: Option<Node>,
    /// `X-Etcd-Index`: the store's index when the answer was made; for a watch, when the watch was registered.
    #[serde(skip)]
    pub etcd_index: u64,
    /// `X-Raft-Index`, 0 where the server does not say.
    #[serde(skip)]
    pub raft_index: u64,
    /// `X-Raft-Term`, 0 where the server does not say.
    #[serde(skip)]
    pub raft_term: u64,
    /// `X-Etcd-Cluster-Id` in hexadecimal; empty where the server does not say.
    #[serde(skip)]
    pub cluster_id: String,
}

/// How to read a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// List a directory's whole subtree, not only its children.
    pub recursive: bool,
    /// Sort the listing by key.
    pub sorted: bool,
    /// `Some(true)`: linearizable; `Some(false)`: from the asked member's own state, which may be stale; `None`: as the
    /// server does by default (linearizable here, local in etcd).
    pub quorum: Option<bool>,
}

/// How to write a key. The default is an unconditional, permanent `set` of a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// Time to live in seconds; `None`: permanent (and an existing TTL is removed).
    pub ttl: Option<u64>,
    /// Only if the present value is this. An empty string cannot be a condition of the v2 API and counts as none.
    pub prev_value: Option<String>,
    /// Only if the node was last changed at this index; 0 counts as none.
    pub prev_index: Option<u64>,
    /// `Some(true)`: only if the key exists (update); `Some(false)`: only if it does not (create).
    pub prev_exist: Option<bool>,
    /// Write a directory, not a value.
    pub dir: bool,
    /// Only renew the TTL: keep the value and wake no watchers. Needs `ttl`.
    pub refresh: bool,
}

/// How to remove a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Only if the present value is this; empty counts as no condition.
    pub prev_value: Option<String>,
    /// Only if the node was last changed at this index; 0 counts as none.
    pub prev_index: Option<u64>,
    /// Also an empty directory.
    pub dir: bool,
    /// Also a directory with all that is in it.
    pub recursive: bool,
}

/// What a compare-and-swap or compare-and-delete compares; at least one of the two must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The present value.
    pub value: Option<String>,
    /// The index of the last change.
    pub index: Option<u64>,
}

impl Condition {
    /// The value must be this.
    pub fn value(value: impl Into<String>) -> Self {
        Self { value: Some(value.into()), index: None }
    }

    /// The last change must have been at this index.
    #[must_use]
    pub fn index(index: u64) -> Self {
        Self { value: None, index: Some(index) }
    }
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Only events after this index; 0: from now on.
    pub after_index: u64,
    /// Also everything below the key.
    pub recursive: bool,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Its id in hexadecimal, not zero-padded.
    pub id: String,
    /// Its name; empty until it has started.
    #[serde(default)]
    pub name: String,
    /// Where the other members reach it.
    #[serde(default, rename = "peerURLs", deserialize_with = "null_is_empty")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    #[serde(default, rename = "clientURLs", deserialize_with = "null_is_empty")]
    pub client_urls: Vec<String>,
    /// It replicates and has no vote. Never of an etcd's.
    #[serde(default, rename = "isLearner")]
    pub is_learner: bool,
}

/// What a server says of its version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// Of the server, such as `2.3.8`.
    #[serde(rename = "etcdserver")]
    pub server: String,
    /// That the whole cluster agrees on; empty where the server does not say.
    #[serde(rename = "etcdcluster", default)]
    pub cluster: String,
}

/// Some servers write `null` for an empty list.
pub(crate) fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
