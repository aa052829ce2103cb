//! Known bugs of systems of this kind, put in one at a time by the machinery around the core: what the simulation is
//! worth is how fast it finds them. `README.md` here holds the table.

use crate::options::Options;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Log writes are reported as done, and answered for, when they are handed to the disk (etcd 14370).
    AckBeforeSync,
    /// A leader counts its own entries before its disk has them; followers are honest.
    OwnEntriesBeforeSync,
    /// A failed fsync is passed over, and the next ones work (the fsync papers, 2018 and 2020).
    FsyncErrorIgnored,
    /// Hard state and entries are not one write: a crash may leave the first alone (CurvineIO 1551).
    HardStateApart,
    /// The disk forgets whom the member voted for.
    VoteForgotten,
    /// The end of the log is lost although it was synced, and the member goes on as if it had never been (CTRL, 2018).
    TailLost,
    /// A checkpoint names a later log position than its data has (etcd 3.5).
    CheckpointAhead,
    /// The log is compacted up to the newest checkpoint, which may turn out to be damaged.
    CompactedTooFar,
    /// What was applied already is not told in a checkpoint: a second copy is applied again.
    SessionsNotInCheckpoint,
    /// Cluster time is not in a checkpoint.
    TimeNotInCheckpoint,
    /// Any member answers reads from what it has (etcd 0.4, 741).
    LocalReads,
    /// A leader answers reads from what it has before anything of its term is committed (tikv 9239).
    ReadsBeforeFirstCommit,
    /// A leader answers reads without asking a quorum, as raft's lease-based reads do (tikv 964, etcd 20418).
    LeaseReads,
    /// Readers that came after a round of ReadIndex began are answered with it.
    ReadsJoinLate,
    /// A read is answered when its index is known and not yet applied.
    ReadsBeforeApplied,
    /// The second copy of a request is not recognised.
    DuplicatesApplied,
    /// A successor goes on from the leader's wall clock.
    WallClock,
    /// A member that starts counts the time in which it was down.
    LeaderlessTime,
    /// Watchers are not told what a snapshot brought.
    WatchGapAtInstall,
    /// A watcher that comes back is told only what happens from then on.
    WatchResumedAtPresent,
}

/// Each bug, and within how many seeds it is to be found: about three times what it took when it was put in.
pub const KNOWN_BUGS: &[(Bug, u64)] = &[
    (Bug::AckBeforeSync, 10),
    (Bug::OwnEntriesBeforeSync, 20),
    (Bug::FsyncErrorIgnored, 60),
    (Bug::HardStateApart, 60),
    (Bug::VoteForgotten, 60),
    (Bug::TailLost, 60),
    (Bug::CheckpointAhead, 20),
    (Bug::CompactedTooFar, 60),
    (Bug::SessionsNotInCheckpoint, 60),
    (Bug::TimeNotInCheckpoint, 60),
    (Bug::LocalReads, 20),
    (Bug::ReadsBeforeFirstCommit, 60),
    (Bug::LeaseReads, 60),
    (Bug::ReadsJoinLate, 60),
    (Bug::ReadsBeforeApplied, 60),
    (Bug::DuplicatesApplied, 20),
    (Bug::WallClock, 20),
    (Bug::LeaderlessTime, 20),
    (Bug::WatchGapAtInstall, 20),
    (Bug::WatchResumedAtPresent, 20),
];

impl Bug {
    /// What a run needs for this bug to have a chance at all; the seed decides the rest as ever.
    pub fn put_into(self, options: Options) -> Options {
        Options { bug: Some(self), ..options }
    }
}
