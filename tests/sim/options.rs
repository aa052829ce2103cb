//! What a seed decides about a run. Each kind of fault is off in a good part of the seeds: some bugs show only where other
//! faults do not cover them (swarm testing).

use crate::bugs::Bug;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

#[derive(Clone, Debug)]
pub struct Options {
    pub members: u64,
    pub clients: usize,
    pub think_ms: u64,
    pub election_ticks: u64,
    /// A checkpoint each so many applied entries.
    pub checkpoint_every: u64,
    /// Events that are kept for watchers.
    pub history: usize,

    pub loss_percent: u32,
    pub duplicate_percent: u32,
    /// So many messages are late by seconds, and overtaken by others.
    pub straggler_percent: u32,
    pub delay_ms: u64,

    pub sync_ms: u64,
    /// How long it may take to make a snapshot, and a checkpoint, durable.
    pub install_ms: u64,
    pub checkpoint_ms: u64,

    /// One fault of the kind in about so many milliseconds; 0: none.
    pub crash_every_ms: u64,
    pub pause_every_ms: u64,
    pub partition_every_ms: u64,
    pub step_aside_every_ms: u64,
    pub clock_jump_every_ms: u64,
    pub disk_trouble_every_ms: u64,

    /// A change of the membership in about so many milliseconds.
    pub membership_every_ms: u64,

    /// One in so many writes of a term or vote, and four times as many snapshots, is followed by a crash soon; 0: none.
    pub crash_at_write: u64,
    /// A crash before one in so many effects, ten times as often before writes; 0: none.
    pub crash_at_effect: u64,

    /// How much faster or slower than real time a member's clock may run.
    pub drift_permille: u64,
    /// Applied entries that stay in memory.
    pub log_held_bytes: u64,
    pub bug: Option<Bug>,
    /// Only what clients see counts, not what the members' insides show: for measuring how blind one would be without.
    pub black_box: bool,
}

impl Options {
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0907_1045);
        let mut pick = |choices: &[u64]| choices[rng.random_range(0..choices.len())];
        Self {
            members: pick(&[1, 3, 3, 3, 3, 4, 5, 5, 6, 7]),
            clients: pick(&[1, 4, 10]) as usize,
            think_ms: pick(&[20, 200, 200, 1_000]),
            election_ticks: pick(&[2, 4, 10]),
            checkpoint_every: pick(&[5, 20, 100, 100_000]),
            history: pick(&[20, 1_000]) as usize,
            loss_percent: pick(&[0, 0, 1, 10, 30]) as u32,
            duplicate_percent: pick(&[0, 1, 10]) as u32,
            straggler_percent: pick(&[0, 0, 1, 5]) as u32,
            delay_ms: pick(&[1, 5, 30, 150]),
            sync_ms: pick(&[0, 1, 10, 80, 800]),
            install_ms: pick(&[0, 100, 4_000]),
            checkpoint_ms: pick(&[0, 100, 3_000]),
            crash_every_ms: pick(&[0, 2_000, 8_000, 20_000]),
            pause_every_ms: pick(&[0, 0, 3_000, 8_000]),
            partition_every_ms: pick(&[0, 1_000, 3_000, 10_000]),
            step_aside_every_ms: pick(&[0, 0, 1_000, 10_000]),
            clock_jump_every_ms: pick(&[0, 0, 3_000, 10_000]),
            disk_trouble_every_ms: pick(&[0, 0, 3_000, 10_000]),
            membership_every_ms: pick(&[0, 0, 1_000, 4_000]),
            crash_at_write: pick(&[0, 8, 30]),
            crash_at_effect: pick(&[0, 0, 1_000, 10_000]),
            drift_permille: pick(&[0, 0, 20, 100]),
            log_held_bytes: pick(&[0, 3_000, 1 << 30]),
            bug: None,
            black_box: false,
        }
    }
}
