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
    /// Who is a member is not in a checkpoint, but what the member began with.
    MembershipNotInCheckpoint,
    /// What a learner says counts as if a voter had said it.
    LearnersCount,
    /// A learner says that it has the log before it does, and is given its vote.
    VoteBeforeCaughtUp,
    /// The votes and acknowledgements of members that were removed still count.
    RemovedMembersCount,
    /// A member that lost its data goes on under its old id.
    WipedMemberGoesOn,
}

/// All of them.
pub const KNOWN_BUGS: &[Bug] = &[
    Bug::AckBeforeSync,
    Bug::OwnEntriesBeforeSync,
    Bug::FsyncErrorIgnored,
    Bug::HardStateApart,
    Bug::VoteForgotten,
    Bug::TailLost,
    Bug::CheckpointAhead,
    Bug::CompactedTooFar,
    Bug::SessionsNotInCheckpoint,
    Bug::TimeNotInCheckpoint,
    Bug::LocalReads,
    Bug::ReadsBeforeFirstCommit,
    Bug::LeaseReads,
    Bug::ReadsJoinLate,
    Bug::ReadsBeforeApplied,
    Bug::DuplicatesApplied,
    Bug::WallClock,
    Bug::LeaderlessTime,
    Bug::WatchGapAtInstall,
    Bug::WatchResumedAtPresent,
    Bug::MembershipNotInCheckpoint,
    Bug::LearnersCount,
    Bug::VoteBeforeCaughtUp,
    Bug::RemovedMembersCount,
    Bug::WipedMemberGoesOn,
];

/// A bug that is not found by this many seeds is one that the simulation is blind to.
pub const WITHIN: u64 = 300;

impl Options {
    pub fn with_bug(self, bug: Bug) -> Self {
        Self { bug: Some(bug), ..self }
    }
}
