//! One member: its core while it runs, and what outlives it.

use crate::clock::Clock;
use crate::disk::Disk;
use quorate::replica::{Input, Replica};
use raft::eraftpb::ConfState;
use std::collections::VecDeque;
use std::time::Duration;

pub struct Member {
    pub id: u64,
    pub replica: Option<Replica>,
    pub disk: Disk,
    pub clock: Clock,
    /// By its clock.
    pub next_tick: Duration,
    pub wake_at: Option<Duration>,
    /// In real time.
    pub paused_until: u64,
    pub down_until: u64,
    pub crash_at: Option<u64>,
    /// Requests that clients made while it was paused.
    pub backlog: Vec<Input>,
    /// As it was after the last step.
    pub membership: ConfState,
    /// Names its data directory, and whether the cluster knows that name.
    pub incarnation: u64,
    pub published: bool,
    pub publishing: bool,
    /// Its core was told that space is short.
    pub short_of_space: bool,
    /// Who calls it and is no member as far as it knows; the latest first.
    pub guests: VecDeque<u64>,
    /// It was removed from the cluster, and knows it.
    pub removed: bool,
    /// Its process is not to be started any more, or not yet.
    pub gone: bool,
    /// Counts the starts of its process.
    pub run: u64,
    pub checkpointed: u64,
    /// The last event that watchers here were told of.
    pub told: u64,
    /// Something was put into the core since its effects were carried out.
    pub dirty: bool,
}

impl Member {
    pub fn new(id: u64, disk: Disk, rate: u64) -> Self {
        Self {
            id,
            replica: None,
            disk,
            clock: Clock::new(rate),
            next_tick: Duration::ZERO,
            wake_at: None,
            paused_until: 0,
            down_until: 0,
            crash_at: None,
            backlog: vec![],
            membership: ConfState::default(),
            incarnation: id,
            published: false,
            publishing: false,
            short_of_space: false,
            guests: VecDeque::new(),
            removed: false,
            gone: false,
            run: 0,
            checkpointed: 0,
            told: 0,
            dirty: false,
        }
    }

    pub fn leads(&self) -> bool {
        self.replica.as_ref().is_some_and(|r| r.standing().leads)
    }

    pub fn runs(&self, now: u64) -> bool {
        self.replica.is_some() && self.paused_until <= now
    }

    /// When something of it is due next.
    pub fn next_at(&self) -> u64 {
        if self.replica.is_none() {
            return if self.gone { u64::MAX } else { self.down_until };
        }
        let clock =
            [Some(self.next_tick), self.wake_at].into_iter().flatten().min().map(|at| self.clock.when(at));
        let sync = self.disk.queue.front().map(|(due, _)| *due);
        let checkpoint = self.disk.checkpointing.as_ref().map(|(due, _)| *due);
        let next = [clock, sync, checkpoint].into_iter().flatten().min();
        let next = next.unwrap_or(u64::MAX).max(self.paused_until);
        self.crash_at.map_or(next, |crash| crash.min(next))
    }
}
