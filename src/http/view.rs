//! What reads and waits are made of: plain types, which the parser and the renderer need and nothing else of a member.

use crate::store::{ClusterTime, Key, Store};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// One member of the cluster as `/v2/members` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id; hexadecimal on the wire.
    pub id: u64,
    /// Its name; empty until it has published it.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has published them.
    pub client_urls: Vec<String>,
    /// Replicates but does not vote.
    pub learner: bool,
}

/// The applied state at one moment: reads are answered from it, without a lock, while writes go on.
#[derive(Clone, Debug)]
pub struct View {
    /// The keyspace.
    pub store: Store,
    /// Where it stands.
    pub summary: Arc<Summary>,
}

/// What is known of an applied state without holding it.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The index of the last change: X-Etcd-Index.
    pub index: u64,
    /// The first index of the history.
    pub oldest: u64,
    /// How many events the history has.
    pub events: usize,
    /// Keys and directories.
    pub nodes: usize,
    /// Those that will expire.
    pub ttl_nodes: usize,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// Raft position up to which it is applied: X-Raft-Index.
    pub raft_index: u64,
    /// The member's current raft term: X-Raft-Term.
    pub raft_term: u64,
    /// The members by id.
    pub members: Arc<BTreeMap<u64, Member>>,
}

impl Summary {
    /// That of a state.
    #[must_use]
    pub fn of(store: &Store, raft_index: u64, raft_term: u64, members: Arc<BTreeMap<u64, Member>>) -> Self {
        Self {
            index: store.index(),
            oldest: store.history().first_index(),
            events: store.history().len(),
            nodes: store.node_count(),
            ttl_nodes: store.ttl_count(),
            bytes: store.byte_count(),
            raft_index,
            raft_term,
            members,
        }
    }
}

impl View {
    /// Of a state of which it keeps a copy, which is cheap.
    #[must_use]
    pub fn of(store: &Store, summary: Summary) -> Self {
        Self { store: store.clone(), summary: Arc::new(summary) }
    }
}

/// A reading of cluster time and the wall clock taken together, to show a deadline as `expiration` and `ttl`.
#[derive(Clone, Copy, Debug)]
pub struct ClockReading {
    /// Cluster time, extrapolated on a member that is not the leader.
    pub cluster: ClusterTime,
    /// The wall clock at the same moment. For display only.
    pub wall: SystemTime,
}

/// Which state a read may be answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Any state that includes every write acknowledged before the read began (ReadIndex).
    Linearizable,
    /// The member's own, which may lag.
    Local,
}

/// What is asked of a watch.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// The key or directory.
    pub key: Key,
    /// Everything below it too.
    pub recursive: bool,
    /// All events rather than the first.
    pub stream: bool,
    /// From this index on, past ones from the history; 0: from the next event on.
    pub since: u64,
}
