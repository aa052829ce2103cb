//! What befalls members, and when.

use super::World;
use quorate::replica::{Input, LogWrite};
use rand::RngExt as _;

/// When each kind of fault strikes next.
#[derive(Default)]
pub(super) struct Faults {
    crash: u64,
    pause: u64,
    partition: u64,
    step_aside: u64,
}

impl Faults {
    pub(super) fn next_at(&self) -> u64 {
        self.crash.min(self.pause).min(self.partition).min(self.step_aside)
    }
}

impl World {
    pub(super) fn due(&mut self, at: u64, every_ms: u64) -> (bool, u64) {
        match every_ms {
            0 => (false, u64::MAX),
            _ if at > self.now => (false, at),
            _ => (at != 0, self.now + self.rng.random_range(1..2 * every_ms)),
        }
    }

    pub(super) fn inject(&mut self, end: u64) {
        let some = self.rng.random_range(0..self.members.len());
        let (crash, at) = self.due(self.faults.crash, self.options.crash_every_ms);
        self.faults.crash = at.min(end);
        if crash && self.members[some].replica.is_some() {
            // Now and then power is gone for all of them.
            if self.rng.random_range(0..4) == 0 {
                (0..self.members.len()).for_each(|at| self.crash(at));
            } else {
                self.crash(some);
            }
        }
        let (pause, at) = self.due(self.faults.pause, self.options.pause_every_ms);
        self.faults.pause = at.min(end);
        if pause && self.members[some].paused_until <= self.now {
            let ms = self.rng.random_range(100..4_000);
            self.oracle.coverage.pauses += 1;
            self.members[some].paused_until = self.now + ms;
            self.clients.member_pauses(some as u64 + 1, ms);
        }
        let (partition, at) = self.due(self.faults.partition, self.options.partition_every_ms);
        self.faults.partition = at.min(end);
        if partition {
            self.oracle.coverage.partitions += 1;
            self.network.partition(self.now, self.options.members, &mut self.rng);
        }
        let (aside, at) = self.due(self.faults.step_aside, self.options.step_aside_every_ms);
        self.faults.step_aside = at.min(end);
        if aside && self.runs(some) {
            self.input(some, Input::StepAside);
            self.flush(some);
        }
    }

    pub(super) fn crash(&mut self, at: usize) {
        let longest = if self.rng.random_range(0..2) == 0 { 50 } else { 6_000 };
        let member = &mut self.members[at];
        member.crash_at = None;
        if member.replica.take().is_none() {
            return;
        }
        let installs = member.disk.pending.iter().filter(|(_, write)| write.install.is_some()).count();
        self.oracle.coverage.crashes += 1;
        self.oracle.coverage.installs_cut_short += installs as u64;
        member.disk.crash(&mut self.rng);
        member.down_until = self.now + self.rng.random_range(1..longest);
        self.clients.member_crashed(member.id);
    }

    /// Promises are broken by who forgets that they were made: crashes are worth most around them.
    pub(super) fn maybe_crash_soon(&mut self, at: usize, write: &LogWrite, latency: u64) {
        let one_in = match self.options.crash_at_write {
            0 => return,
            n if write.install.is_some() => n.div_ceil(4),
            n if write.hard_state.is_some() => n,
            _ => return,
        };
        if self.rng.random_range(0..one_in) == 0 {
            self.members[at].crash_at = Some(self.now + self.rng.random_range(1..2 * latency + 50));
        }
    }
}
