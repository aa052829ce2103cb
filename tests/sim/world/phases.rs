//! The phases of a run: faults, in which nothing may go wrong; a majority that is healed while the rest is not, which
//! must make progress; all healed, who must come to one state.

use super::{TICK_MS, World};
use crate::invariants::same_state::SameState;
use quorate::replica::Replica;
use rand::RngExt as _;
use std::collections::BTreeSet;

/// After so long without an answer a write is tried at another member: some member of a majority serves its clients, but
/// one that cannot hear a leader whom the others hear does not.
const PATIENCE_MS: u64 = 2_000;

impl World {
    /// Runs for some simulated time with faults of every kind that the options allow.
    pub fn run_faults(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.inject(end);
            self.step(self.faults.next_at().min(end));
        }
    }

    /// A majority has no faults any more; the others are down, or cut off, or their words come through one way only.
    /// A write must succeed in bounded time.
    pub fn heal_majority(&mut self) {
        let mut ids = self.ids();
        let mut core = BTreeSet::new();
        let count = ids.len() / 2 + 1;
        while core.len() < count {
            core.insert(ids.swap_remove(self.rng.random_range(0..ids.len())));
        }
        let kind = self.rng.random_range(0..3);
        if !ids.is_empty() {
            let names =
                ["majority healed, rest down", "majority healed, rest cut", "majority healed, rest half cut"];
            self.coverage.note(names[kind]);
        }
        self.end_faults();
        let all = self.ids();
        let salt = self.rng.random_range(0..1 << 16);
        let apart = |a: u64, b: u64| kind != 2 || (salt >> ((a * 5 + b * 3) % 16)) & 1 == 0;
        self.network.heal_among(self.now, &core, apart, &all, &mut self.rng);
        for at in 0..self.members.len() {
            let within = core.contains(&self.members[at].id);
            self.reachable[at] = within;
            if within {
                self.heal_member(at);
            } else if kind == 0 {
                self.crash(at);
                self.members[at].down_until = u64::MAX;
            }
        }
        let took = self.must_write("a healed majority takes no writes", self.majority_ms_max());
        self.coverage.note_max("max ms until a healed majority wrote", took);
    }

    /// Ends all faults; then the cluster must get everything done, and all members must come to one state.
    pub fn heal_and_converge(&mut self) {
        self.network.heal(self.now, &mut self.rng);
        self.end_faults();
        for at in 0..self.members.len() {
            self.heal_member(at);
            self.reachable[at] = true;
        }
        let healed = self.now;
        self.clients.stop();
        loop {
            self.step(self.now + TICK_MS);
            let states = || self.members.iter().map(|m| m.replica.as_ref().map(Replica::state));
            let applied: BTreeSet<_> = states().map(|s| s.map(|s| s.applied)).collect();
            let leases = states().flatten().map(|s| s.store.ttl_count()).max();
            if applied.len() == 1 && self.clients.idle() && leases == Some(0) {
                break;
            }
            let ms = self.converge_ms_max();
            assert!(
                self.now < healed + ms,
                "a healed cluster did not settle in {ms} ms: {applied:?}, {leases:?} leases"
            );
        }
        self.coverage.note_max("max ms until all healed agreed", self.now - healed);
        self.must_write("a healed cluster takes no writes", self.majority_ms_max());
        self.step_for(1_000);
        self.check_end();
    }

    fn end_faults(&mut self) {
        self.healing = true;
        (self.options.install_ms, self.options.crash_at_write) = (0, 0);
        self.options.sync_ms = self.options.sync_ms.min(10);
        self.options.checkpoint_ms = self.options.checkpoint_ms.min(10);
    }

    fn heal_member(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.paused_until = 0;
        member.down_until = 0;
        member.crash_at = None;
        member.clock.go_on(self.now);
        member.disk.heal(self.now);
    }

    /// Ten elections, and what may be under way when the faults end: a sync of a slow disk, a request that waits.
    fn majority_ms_max(&self) -> u64 {
        20 * self.options.election_ticks * TICK_MS + 20_000
    }

    /// Beyond that, the longest time to live that a client asks for, on the slowest clock.
    fn converge_ms_max(&self) -> u64 {
        self.majority_ms_max() + 10_000
    }

    fn must_write(&mut self, or: &str, within: u64) -> u64 {
        let begun = self.now;
        let before = self.clients.written;
        self.clients.stop();
        let mut patience = 0;
        while self.clients.written == before {
            if patience <= self.now || self.clients.idle() {
                patience = self.now + PATIENCE_MS;
                self.clients.force_one_more_write(self.now);
            }
            self.step(self.now + TICK_MS);
            assert!(self.now < begun + within, "{or} within {within} ms");
        }
        self.now - begun
    }

    fn step_for(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.step(end);
        }
    }

    fn check_end(&mut self) {
        let states: Vec<_> = self.members.iter().filter_map(|m| m.replica.as_ref()).map(Replica::state).collect();
        for state in &states {
            self.invariants.history.ends_with(&state.store);
            self.invariants.linearizable.ends_at(state.store.index());
        }
        let last = self.invariants.history.last_index();
        for watcher in &self.watchers {
            assert!(watcher.at.is_some() && watcher.next() == last + 1, "a watcher was not told the last events");
        }
        if !self.options.black_box {
            SameState::ends_equal(states.into_iter());
        }
    }
}
