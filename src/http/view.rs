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
    /// Raft position up to which it is applied: X-Raft-Index.
    pub raft_index: u64,
    /// The member's current raft term: X-Raft-Term.
    pub raft_term: u64,
    /// The members by id.
    pub members: Arc<BTreeMap<u64, Member>>,
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
