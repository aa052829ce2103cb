//! What a seed decides about a run, and the bugs that can be put into one.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A bug that a system of this kind is known to have had, made by the machinery around the core: what the simulation
/// is worth is how fast it finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Log writes are reported as done, and answered for, when they are handed to the disk.
    AckBeforeSync,
    /// A leader counts its own entries before its disk has them; followers are honest.
    OwnEntriesBeforeSync,
    /// A snapshot is acknowledged before it is durable.
    InstallBeforeSync,
    /// The disk forgets whom the member voted for.
    VoteForgotten,
    /// Entries that were overwritten reappear behind the new ones.
    TailKept,
    /// A checkpoint names a later log position than its data has (etcd 3.5).
    CheckpointAhead,
    /// Any member answers reads from what it has.
    LocalReads,
    /// A leader answers reads from what it has before anything of its term is committed.
    ReadsBeforeFirstCommit,
    /// A leader answers reads without asking a quorum, as raft's lease-based reads do.
    LeaseReads,
    /// The second copy of a request is not recognised.
    DuplicatesApplied,
    /// A successor goes on from the leader's wall clock.
    WallClock,
    /// A member that starts counts the time in which it was down.
    LeaderlessTime,
    /// Watchers are not told what a snapshot brought.
    WatchGapAtInstall,
}

/// What the seed decides about a run.
#[derive(Clone, Debug)]
pub struct Options {
    pub members: u64,
    pub loss_percent: u32,
    pub duplicate_percent: u32,
    pub delay_ms: u64,
    pub sync_ms: u64,
    /// How long it may take to make a snapshot durable.
    pub install_ms: u64,
    /// One crash, pause, partition or hand-over in about so many milliseconds; 0: none.
    pub crash_every_ms: u64,
    pub pause_every_ms: u64,
    pub partition_every_ms: u64,
    pub step_aside_every_ms: u64,
    /// How much faster or slower than real time a member's clock may run.
    pub drift_permille: u64,
    /// A checkpoint each so many applied entries.
    pub checkpoint_every: u64,
    /// Events that are kept for watchers.
    pub history: usize,
    pub clients: usize,
    pub bug: Option<Bug>,
}

impl Options {
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0907_1045);
        let mut pick = |choices: &[u64]| choices[rng.random_range(0..choices.len())];
        Self {
            members: pick(&[1, 3, 3, 3, 5]),
            loss_percent: pick(&[0, 0, 1, 10]) as u32,
            duplicate_percent: pick(&[0, 1, 10]) as u32,
            delay_ms: pick(&[1, 5, 30, 150]),
            sync_ms: pick(&[0, 1, 10, 80]),
            install_ms: pick(&[0, 100, 4_000]),
            crash_every_ms: pick(&[0, 2_000, 8_000, 20_000]),
            pause_every_ms: pick(&[0, 0, 8_000]),
            partition_every_ms: pick(&[0, 3_000, 10_000]),
            step_aside_every_ms: pick(&[0, 0, 10_000]),
            drift_permille: pick(&[0, 0, 20]),
            checkpoint_every: pick(&[10, 50, 100_000]),
            history: pick(&[20, 1_000]) as usize,
            clients: pick(&[1, 4, 10]) as usize,
            bug: None,
        }
    }

    pub fn with_bug(self, bug: Bug) -> Self {
        Self { bug: Some(bug), ..self }
    }
}
