//! The phases of a run: faults, in which nothing may go wrong; a majority that is healed while the rest is not, which
//! must make progress; all healed, who must come to one state.

use super::{TICK_MS, World};
use crate::invariants::same_state::SameState;
use quorate::replica::Replica;
use raft::eraftpb::EntryType;
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
        let Some(mut ids) = self.agreed_voters() else {
            self.coverage.note("no majority healed: the membership was changing");
            return;
        };
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
        self.clients.stop();
        let took = self.must_settle();
        self.coverage.note_max("max ms until all healed agreed", took);
        self.must_write("a healed cluster takes no writes", self.majority_ms_max());
        self.step_for(1_000);
        // What was asked for long ago may have taken effect at last.
        self.must_settle();
        self.check_end();
    }

    fn must_settle(&mut self) -> u64 {
        let (healed, ms) = (self.now, self.converge_ms_max());
        loop {
            self.step(self.now + TICK_MS);
            let left = self.unsettled();
            if left.is_empty() {
                return self.now - healed;
            }
            assert!(self.now < healed + ms, "a healed cluster did not settle in {ms} ms: {left}");
        }
    }

    /// The voters, if all of them hold the same membership, and none is lost: which majority has a quorum is beyond doubt.
    fn agreed_voters(&self) -> Option<Vec<u64>> {
        if self.options.membership_every_ms == 0 {
            return Some(self.ids());
        }
        let newest = self.newest_state()?;
        let voters = newest.membership.voters.clone();
        // Nobody is on the way to a vote, and no change is in a log that is not applied.
        let agrees = |id: &u64| {
            let Some(replica) = &self.members[(*id - 1) as usize].replica else { return false };
            let state = replica.state();
            let under_way = replica.log_entries().iter().any(|entry| {
                entry.index > state.applied.index && entry.get_entry_type() != EntryType::EntryNormal
            });
            state.membership == newest.membership && state.membership.learners.is_empty() && !under_way
        };
        let settled = !voters.is_empty() && voters.iter().all(agrees) && self.operator.lost.is_empty();
        settled.then_some(voters)
    }

    /// The members that must come to one state: those of the newest membership whose machines are not lost.
    fn living(&self) -> Vec<usize> {
        let newest = self.newest_state().map(|state| state.members.keys().copied().collect::<Vec<u64>>());
        let living = newest.unwrap_or_default().into_iter().filter(|id| !self.operator.lost.contains(id));
        living.map(|id| (id - 1) as usize).collect()
    }

    /// What a healed cluster has yet to do, in words.
    fn unsettled(&self) -> String {
        let living = self.living();
        let states = || living.iter().map(|at| self.members[*at].replica.as_ref().map(Replica::state));
        let applied: BTreeSet<_> = states().map(|s| s.map(|s| s.applied)).collect();
        if applied.len() != 1 || applied.contains(&None) {
            return format!("applied {applied:?}");
        }
        if !self.clients.idle() {
            return "requests are open".into();
        }
        for state in states().flatten() {
            if state.store.ttl_count() > 0 {
                return format!("{} keys should have expired", state.store.ttl_count());
            }
            let learns = |id: &u64| state.members.get(id).is_none_or(|info| !info.standby);
            if state.membership.learners.iter().any(learns) && self.operator.lost.is_empty() {
                return format!("learners have no vote: {:?}", state.membership);
            }
        }
        let last = self.invariants.history.last_index();
        if self.watchers.iter().any(|w| w.next() != last + 1) {
            return "watchers are not told the last events".into();
        }
        let newest = self.newest_state();
        let unaware = |m: &&crate::member::Member| {
            let Some(replica) = m.replica.as_ref().filter(|_| !m.removed) else { return false };
            let left = newest.is_some_and(|state| !state.members.contains_key(&m.id));
            let knows_some = |at: &usize| replica.state().members.contains_key(&(*at as u64 + 1));
            (left || self.operator.lost.contains(&m.id)) && living.iter().any(knows_some)
        };
        self.members.iter().find(unaware).map_or_else(String::new, |m| format!("member {} is not told", m.id))
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
        let living = self.living().into_iter().filter_map(|at| self.members[at].replica.as_ref());
        let states: Vec<_> = living.map(Replica::state).collect();
        for state in &states {
            self.invariants.history.ends_with(&state.store);
            self.invariants.linearizable.ends_at(state.store.index());
        }
        if !self.options.black_box {
            SameState::ends_equal(states.into_iter());
        }
    }
}
