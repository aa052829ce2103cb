//! What the HTTP layer needs of a member. `node` implements it; tests of this layer bring a small one of their own.

pub use super::view::{ClockReading, Consistency, Member, Summary, View, WatchRequest};

use crate::replica::{ChangeError, MemberChange};
use crate::store::{Command, Event, StoreError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A write that was applied.
#[derive(Clone, Debug)]
pub struct Written {
    /// What it did.
    pub event: Arc<Event>,
    /// X-Raft-Index of the answer.
    pub raft_index: u64,
    /// X-Raft-Term of the answer.
    pub raft_term: u64,
}

/// Why a member could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The store refused it: an ordinary answer of the API.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No quorum answered in time. A write may still be applied.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// There was no leader for the whole time. A write was not applied.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The member is shutting down.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// More requests wait than the member takes. The write was not applied.
    #[error("etcdserver: too many requests")]
    Overloaded,
    /// Too many disks are nearly full. The write was not applied; reads and deletes go on.
    #[error("etcdserver: no space: the disks of the members are nearly full")]
    NoSpace,
    /// The keyspace has reached its quota. The write was not applied; reads, deletes and refreshes go on.
    #[error("etcdserver: mvcc: database space exceeded")]
    Quota,
    /// The member's state differs from the leader's: it answers nothing any more.
    #[error("etcdserver: corrupt cluster: the state of this member differs from its leader's, ask another")]
    Corrupt,
    /// The member was removed from its cluster. A write may still be applied.
    #[error("etcdserver: the member has been permanently removed from the cluster")]
    Removed,
}

/// Why the membership was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// The cluster refused it.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// The member could not get it done.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// An event on its way to watchers; its JSON is made once, by whoever is first, and shared.
#[derive(Debug)]
pub struct Notice {
    /// What happened.
    pub event: Arc<Event>,
    /// Wall clock and cluster time when it was applied here.
    pub clock: ClockReading,
    /// The rendered answer, newline included.
    pub rendered: OnceLock<Bytes>,
}

/// What a watcher is told next.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// An event.
    Event(Arc<Notice>),
    /// The watcher did not keep up; everything up to this index was delivered and the watch is over.
    Lagged {
        /// Index of the last event delivered.
        delivered: u64,
    },
    /// The member jumped ahead by a snapshot over events this watcher should have seen; the watch is over.
    Cleared,
}

/// A watch that is armed. Dropping it removes the watcher.
pub trait Watch: Send + 'static {
    /// The store's index when the watch was registered: X-Etcd-Index of the answer.
    fn registered_index(&self) -> u64;
    /// The index up to which everything that concerns this watch was returned by `next`; never beyond the store's. For a
    /// moment in which `next` has nothing to return; a call of it that is dropped unfinished loses nothing.
    fn seen(&self) -> u64;
    /// The next item; `None` when the member shuts down or, without `stream`, after the first event.
    fn next(&mut self) -> impl Future<Output = Option<WatchItem>> + Send;
}

/// A member's view of consensus, for the stats and health endpoints.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// This member's id.
    pub id: u64,
    /// This member's name.
    pub name: String,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The leader's id; 0: none known.
    pub leader: u64,
    /// How long that leader has led, as this member saw it.
    pub leader_uptime: Duration,
    /// The current term.
    pub term: u64,
    /// Highest log position known to be committed.
    pub commit: u64,
    /// Highest log position applied.
    pub applied: u64,
    /// How many keys expired since the process started.
    pub expired: u64,
    /// What is wrong with it.
    pub alarms: Vec<Alarm>,
}

/// What an operator must know of at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The member's disk is nearly full.
    NoSpace,
    /// The member's disk is full: its log waits for space, and it does not count for a quorum.
    DiskFull,
    /// The keyspace has reached its quota.
    Quota,
    /// The cluster takes no writes that need room, as the leader says.
    WritesRefused,
    /// The member's state differs from the leader's: it serves nothing.
    Corrupt,
    /// The member was removed from its cluster: it serves nothing.
    Removed,
}

impl Alarm {
    /// As in `/health` and the metrics; etcd's name where it has one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSpace => "NOSPACE",
            Self::DiskFull => "DISKFULL",
            Self::Quota => "QUOTA",
            Self::WritesRefused => "WRITESREFUSED",
            Self::Corrupt => "CORRUPT",
            Self::Removed => "REMOVED",
        }
    }
}

/// What a member exchanged with the others, for the stats endpoints.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// By the other's id.
    pub peers: BTreeMap<u64, PeerTraffic>,
    /// Messages that carry log entries, received from leaders.
    pub received: Appends,
    /// Such messages sent, as a leader.
    pub sent: Appends,
}

/// What was exchanged with one other member since it was first listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerTraffic {
    /// Whether there is a connection to it.
    pub connected: bool,
    /// How many messages' receipts were timed.
    pub receipts: u64,
    /// How long they took: the last, the mean, the standard deviation, the shortest and the longest.
    pub latency: [Duration; 5],
    /// How often a connection could not be made, or ended.
    pub failures: u64,
    /// Bytes sent to it.
    pub bytes_sent: u64,
    /// Bytes received from it.
    pub bytes_received: u64,
}

/// Messages of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Appends {
    /// How many there were.
    pub count: u64,
    /// How many a second lately; 0 if it is quiet.
    pub per_second: f64,
    /// How many bytes a second lately.
    pub bytes_per_second: f64,
}

/// A running member.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Its watches.
    type Watch: Watch;
    /// Replicates one command and answers when it is applied on this member.
    fn write(&self, command: Command) -> impl Future<Output = Result<Written, BackendError>> + Send;
    /// Changes the membership and answers when that is applied on this member.
    fn change_members(
        &self,
        change: MemberChange,
    ) -> impl Future<Output = Result<Member, MembersError>> + Send;
    /// The id of a member that is added now with these peer URLs.
    fn new_member_id(&self, peer_urls: &[String]) -> u64;
    /// A state to answer a read from.
    fn read(&self, consistency: Consistency) -> impl Future<Output = Result<Arc<View>, BackendError>> + Send;
    /// What is known of the member's own state, at once.
    fn summary(&self) -> Arc<Summary>;
    /// Registers a watcher: history from `since` on first, then live, without a gap or a repetition.
    fn watch(&self, request: WatchRequest) -> Result<Self::Watch, StoreError>;
    /// Both clocks, now.
    fn clock(&self) -> ClockReading;
    /// Its place in the cluster.
    fn status(&self) -> Status;
    /// What it exchanged with the other members.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
    /// Why this member answers nothing about keys, not even from its own state, if so.
    fn refusal(&self) -> Option<BackendError> {
        None
    }
    /// Appends metrics of its own, in Prometheus' text format.
    fn metrics(&self, _out: &mut String) {}
}
