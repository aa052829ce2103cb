//! The state machine: the v2 tree of keys, directories and times to live, its event history, and which watcher an
//! event concerns.
//!
//! Pure: no raft, clock, thread, socket, file or random number. [`Store::apply`] is a function of the store and the
//! command alone, so every member that applies the same commands holds the same store, to the bit; the rolling
//! [`Store::digest`] says so.
//!
//! The keyspace is persistent (copy-on-write): [`Store::clone`] costs O(1), and a reader works on the clone that it
//! took while writes go on. Readers, checkpoints and snapshots rely on that.
//!
//! Invariants, which the property tests hold after every command:
//! - every node's parent exists and is a directory; the root is a directory and is never removed;
//! - `created <= modified <= index` for every node;
//! - a node has a deadline if and only if the TTL index names it with that deadline;
//! - the history holds one event for every index in `history.first_index()..=index`, in order, without a gap.
//!
//! What it does not do: turn `ttl` seconds into answers (that is `http`), decide *when* to expire (that is `replica`),
//! or deliver events (that is `node`).

mod apply;
mod btree;
mod builder;
mod command;
mod digest;
mod error;
mod event;
mod history;
mod key;
mod keyspace;
#[cfg(test)]
mod tests;
mod tree;
mod watch;

pub use builder::StoreBuilder;
pub use command::{Command, Compare};
pub use error::{ErrorCode, StoreError};
pub use event::{Action, Event, Node};
pub use history::{EventHistory, HistoryLimits};
pub use key::Key;
pub use tree::{Outcome, Store};
pub use watch::{WatcherHub, WatcherId};

/// A reading of the clock that is part of the replicated state, in milliseconds since the cluster was founded.
///
/// It advances while there is a leader and never goes back; no wall clock has a part in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterTime(pub u64);

impl ClusterTime {
    /// The reading `ms` milliseconds later; saturates instead of wrapping.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}
