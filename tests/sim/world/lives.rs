//! How members start, stop, and die.

use super::{REQUEST_TIMEOUT, TICK_MS, World, history_limits};
use crate::bugs::Bug;
use crate::network::{Packet, Wire};
use quorate::replica::{Input, Replica, ReplicaConfig};
use rand::{Rng as _, RngExt as _};
use std::time::Duration;

/// Cluster time is noted beside the log this often.
const KEEP_CLOCK_MS: u64 = 1_000;

impl World {
    pub(super) fn boot(&mut self, at: usize) {
        let first_tick = self.rng.random_range(0..TICK_MS);
        let member = &mut self.members[at];
        member.run += 1;
        member.clock.start(self.now);
        member.next_tick = Duration::from_millis(1 + first_tick);
        member.wake_at = None;
        let config = ReplicaConfig {
            id: member.id,
            session: member.id << 32 | member.run,
            seed: self.rng.next_u64(),
            election_ticks: self.options.election_ticks as usize,
            request_timeout: REQUEST_TIMEOUT,
            incarnation: member.incarnation,
            strict_reconfig: true,
            log_held_bytes: self.options.log_held_bytes,
            quota_bytes: 0,
        };
        let clock = member.disk.clock.map(|(term, time, noted)| match self.options.bug {
            Some(Bug::LeaderlessTime) => (term, time.plus(self.now - noted)),
            _ => (term, time),
        });
        let recovered = member.disk.recover(clock, &mut self.rng, &mut self.coverage);
        let replica = Replica::new(config, recovered, Duration::ZERO).expect("a member starts from its disk");
        member.checkpointed = replica.state().applied.index;
        member.told = replica.state().store.index();
        member.replica = Some(replica);
        let (run, index) = (self.members[at].run, self.members[at].told);
        self.trace.note(self.now, at, "boot, run, index", &[run, index]);
        let id = self.members[at].id;
        for peer in
            self.ids().into_iter().filter(|peer| *peer != id && self.knows(at, *peer)).collect::<Vec<_>>()
        {
            self.input(at, Input::Connected { peer });
            self.network.hold(Packet { from: id, to: peer, wire: Wire::Connected }, self.now + 5);
        }
        self.flush(at);
    }

    /// The process is killed, or its machine loses power.
    pub(super) fn crash(&mut self, at: usize) {
        let longest = [50, 50, 6_000, 12_000][self.rng.random_range(0..4)];
        let power = self.rng.random_range(0..2) == 0;
        let down_until = self.now + self.rng.random_range(1..longest);
        if self.members[at].replica.is_some() {
            self.coverage.note("crashes");
            self.end(at, down_until, power);
        }
    }

    /// Its disk fails it, and it stops, as the driver does. A supervisor starts it again.
    pub(super) fn stop_for_disk(&mut self, at: usize) {
        self.coverage.note("fsync failed");
        let down_until = self.now + self.rng.random_range(1..3_000);
        self.end(at, down_until, false);
    }

    pub(super) fn end(&mut self, at: usize, down_until: u64, power: bool) {
        let member = &mut self.members[at];
        self.trace.note(self.now, at, "end, down until", &[down_until]);
        member.replica = None;
        member.crash_at = None;
        member.dirty = false;
        (member.publishing, member.published) = (false, false);
        member.short_of_space = false;
        member.backlog.clear();
        member.guests.clear();
        member.paused_until = 0;
        member.down_until = down_until;
        member.disk.crash(&mut self.rng, &mut self.coverage);
        if power {
            self.network.forget_from(member.id);
        }
        let lost = self.clients.member_crashed(at);
        self.coverage.note_many("answers lost in a crash", lost);
        for watcher in self.watchers.iter_mut().filter(|w| w.at == Some(at)) {
            watcher.at = None;
            watcher.back_at = self.now + self.rng.random_range(1..1_000);
        }
    }

    pub(super) fn keep_clock(&mut self, at: usize) {
        let member = &mut self.members[at];
        let noted = member.disk.clock.map_or(0, |(_, _, noted)| noted);
        if self.now >= noted + KEEP_CLOCK_MS
            && let Some(replica) = &member.replica
        {
            let (term, time) = replica.vouched_time(member.clock.read(self.now));
            member.disk.clock = Some((term, time, self.now));
        }
    }

    pub(super) fn let_watchers_resume(&mut self) {
        for watcher in &mut self.watchers {
            if watcher.at.is_some() || watcher.back_at > self.now {
                continue;
            }
            let at = self.rng.random_range(0..self.members.len());
            watcher.back_at = self.now + self.rng.random_range(1..200);
            let member = &self.members[at];
            let serves = member.runs(self.now) && !member.removed && self.reachable[at];
            let Some(replica) = member.replica.as_ref().filter(|_| serves) else { continue };
            watcher.at = Some(at);
            if self.options.bug != Some(Bug::WatchResumedAtPresent) {
                watcher.resume(&replica.state().store, &mut self.coverage);
            }
        }
    }

    /// A checkpoint is begun when enough was applied since the last; it is written from a clone, in the background.
    pub(super) fn maybe_checkpoint(&mut self, at: usize) {
        let took = match self.options.checkpoint_ms {
            0 => 0,
            ms => self.rng.random_range(0..ms),
        };
        let member = &mut self.members[at];
        let Some(replica) = &member.replica else { return };
        let state = replica.state();
        if member.disk.checkpointing.is_none()
            && state.applied.index >= member.checkpointed + self.options.checkpoint_every
        {
            member.checkpointed = state.applied.index;
            member.disk.checkpointing = Some((self.now + took, state.clone()));
            if !self.options.black_box {
                self.invariants.same_state.head(state);
            }
        }
    }

    pub(super) fn finish_checkpoint(&mut self, at: usize) {
        let limits = history_limits(&self.options);
        let disk = &mut self.members[at].disk;
        if disk.checkpointing.as_ref().is_none_or(|(due, _)| *due > self.now) {
            return;
        }
        let Some((_, state)) = disk.checkpointing.take() else { return };
        if disk.full_until > self.now || self.rng.random_range(0..50) == 0 {
            // Not fatal: the log is kept instead.
            self.coverage.note("checkpoint failed");
            return;
        }
        let upto = disk.checkpointed(&state, limits);
        self.input(at, Input::Compactable { upto });
    }
}
