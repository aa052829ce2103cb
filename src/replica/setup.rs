//! What the core is given when it starts.

use super::State;
use crate::store::ClusterTime;
use raft::eraftpb::{Entry, HardState};
use std::time::Duration;

/// A position in the raft log: an index and the term of the entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The index; 0 is before the first entry.
    pub index: u64,
    /// The term in which the entry was made.
    pub term: u64,
}

impl LogPosition {
    /// Where every founding member of a cluster begins: as if one entry, which made the cluster, were applied.
    pub const FOUNDING: Self = Self { index: 1, term: 1 };

    /// The position of an entry.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        Self { index: entry.index, term: entry.term }
    }
}

impl std::fmt::Display for LogPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (term {})", self.index, self.term)
    }
}

/// How the core is set up; see [`Replica::new`](super::Replica::new).
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This member's id.
    pub id: u64,
    /// Names this run of the process; must differ from every earlier one of the cluster.
    pub session: u64,
    /// Decides election timeouts.
    pub seed: u64,
    /// How many ticks a follower waits for its leader; the real timeout is between one and two of these.
    pub election_ticks: usize,
    /// How long a request may take before its client is told that it failed.
    pub request_timeout: Duration,
    /// Names this member's data directory: another one for each that is made.
    pub incarnation: u64,
    /// Refuse changes of membership after which the voters in reach would be no quorum.
    pub strict_reconfig: bool,
    /// Bytes of the log that may be in memory however small the keyspace is. A follower that lacks more, and for a moment
    /// does not answer, is sent the state.
    pub log_held_bytes: u64,
    /// Bytes of keys and values that the keyspace may reach by what this member proposes; 0: any number.
    pub quota_bytes: u64,
}

/// What a member knows when it starts.
#[derive(Debug)]
pub struct Recovered {
    /// The newest checkpoint.
    pub state: State,
    /// The log's base: everything up to here is in the checkpoint.
    pub base: LogPosition,
    /// The log after the base.
    pub entries: Vec<Entry>,
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The last cluster time that was heard of and the term of the leader who said so, if they were kept.
    pub clock: Option<(u64, ClusterTime)>,
}
