//! What befalls members, and when.

use super::World;
use quorate::replica::{Input, LogWrite};
use rand::RngExt as _;
use std::ops::Range;

pub(super) const PAUSE_MS: Range<u64> = 100..4_000;
pub(super) const JUMP_MS: Range<u64> = 1..10_000;
/// The operator asks for nothing in so long before the faults end.
const OPERATOR_RESTS_MS: u64 = 10_000;
const SLOW_MS: Range<u64> = 100..5_000;
pub(super) const SPACE_MS: Range<u64> = 100..5_000;

/// When each kind of fault strikes next.
#[derive(Default)]
pub(super) struct Faults {
    crash: u64,
    pause: u64,
    partition: u64,
    step_aside: u64,
    clock_jump: u64,
    disk_trouble: u64,
    membership: u64,
}

impl Faults {
    pub(super) fn next_at(&self) -> u64 {
        let all = [
            self.crash,
            self.pause,
            self.partition,
            self.step_aside,
            self.clock_jump,
            self.disk_trouble,
            self.membership,
        ];
        all.into_iter().min().unwrap_or(u64::MAX)
    }
}

impl World {
    /// Whether a fault of a kind strikes now that was to strike `at`, and when the next does.
    fn due(&mut self, at: u64, every_ms: u64) -> (bool, u64) {
        match every_ms {
            0 => (false, u64::MAX),
            _ if at > self.now => (false, at),
            _ => (at != 0, self.now + self.rng.random_range(1..2 * every_ms)),
        }
    }

    pub(super) fn inject(&mut self, end: u64) {
        let some = self.rng.random_range(0..self.members.len());
        let options = self.options.clone();
        let (strikes, next) = self.due(self.faults.crash, options.crash_every_ms);
        self.faults.crash = next.min(end);
        if strikes {
            self.crash_some(some);
        }
        let (strikes, next) = self.due(self.faults.pause, options.pause_every_ms);
        self.faults.pause = next.min(end);
        if strikes && self.members[some].runs(self.now) {
            self.pause(some);
        }
        let (strikes, next) = self.due(self.faults.partition, options.partition_every_ms);
        self.faults.partition = next.min(end);
        if strikes {
            let ids = self.ids();
            self.network.partition(self.now, &ids, &mut self.rng, &mut self.coverage);
        }
        let (strikes, next) = self.due(self.faults.step_aside, options.step_aside_every_ms);
        self.faults.step_aside = next.min(end);
        if strikes && self.members[some].runs(self.now) {
            self.coverage.note_many("hand-overs", u64::from(self.members[some].leads()));
            self.input(some, Input::StepAside);
            self.flush(some);
        }
        let (strikes, next) = self.due(self.faults.clock_jump, options.clock_jump_every_ms);
        self.faults.clock_jump = next.min(end);
        if strikes {
            self.jump_clock(some);
        }
        let (strikes, next) = self.due(self.faults.disk_trouble, options.disk_trouble_every_ms);
        self.faults.disk_trouble = next.min(end);
        if strikes {
            self.trouble_disk(some);
        }
        let (strikes, next) = self.due(self.faults.membership, options.membership_every_ms);
        self.faults.membership = next.min(end);
        // Before the end of the faults there is time for what was asked to be done or to be given up.
        if strikes && self.now + OPERATOR_RESTS_MS < end {
            self.operate();
        }
    }

    fn crash_some(&mut self, some: usize) {
        // Now and then power is gone for all of them.
        if self.rng.random_range(0..4) == 0 {
            self.coverage.note("crashes of all");
            (0..self.members.len()).for_each(|at| self.crash(at));
        } else {
            self.crash(some);
        }
    }

    /// Its process is stopped while its clock goes on, or its machine is suspended, and the clock stands still.
    fn pause(&mut self, some: usize) {
        let ms = self.rng.random_range(PAUSE_MS);
        let suspended = self.rng.random_range(0..3) == 0;
        self.coverage.note(if suspended { "suspensions" } else { "pauses" });
        let member = &mut self.members[some];
        member.paused_until = self.now + ms;
        if suspended {
            member.clock.stand_still(self.now, self.now + ms);
        }
        self.clients.member_pauses(some, ms);
    }

    /// Its clock jumps ahead, or goes at another rate from now on.
    fn jump_clock(&mut self, some: usize) {
        self.coverage.note("clock jumps");
        let clock = &mut self.members[some].clock;
        let drift = self.options.drift_permille;
        let rate = self.rng.random_range(1_000 - drift..=1_000 + drift);
        clock.set_rate(self.now, rate);
        if self.rng.random_range(0..2) == 0 {
            let ms = self.rng.random_range(JUMP_MS);
            clock.jump(self.now, ms);
            self.invariants.ttl.clock_jumped(ms);
        }
    }

    fn trouble_disk(&mut self, some: usize) {
        let disk = &mut self.members[some].disk;
        match self.rng.random_range(0..3) {
            0 => {
                self.coverage.note("disk slow");
                disk.slow_until = self.now + self.rng.random_range(SLOW_MS);
            }
            1 => disk.failing = true,
            _ => {
                self.coverage.note("disk short of space");
                disk.short_until = self.now + self.rng.random_range(SPACE_MS);
                if self.rng.random_range(0..2) == 0 {
                    disk.full_until = self.now + self.rng.random_range(SPACE_MS);
                }
            }
        }
    }

    /// A crash between two effects, which `matters` more where something is made durable or told to a client. None if
    /// it happens.
    pub(super) fn maybe_crash_between(&mut self, at: usize, matters: bool) -> Option<()> {
        let one_in = match self.options.crash_at_effect {
            0 => return Some(()),
            n if matters => n.div_ceil(10),
            n => n,
        };
        if self.rng.random_range(0..one_in) == 0 && !self.healing {
            self.coverage.note("crashes between effects");
            self.crash(at);
        }
        self.members[at].replica.as_ref().map(|_| ())
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
