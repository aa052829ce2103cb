//! Carries out what the core of a member wants, one effect after another, as the driver of a real one does; or, with a
//! bug, as it must not. Between any two the member may crash.

use super::World;
use crate::bugs::Bug;
use crate::clients::Outcome;
use crate::disk::Job;
use crate::invariants::durability::quorum;
use crate::invariants::leaders::Leaders;
use crate::invariants::membership::Membership;
use crate::network::{Packet, Wire};
use quorate::replica::{Effects, LogPosition, Outgoing, Reply, Token};
use quorate::store;
use std::collections::BTreeSet;

impl World {
    pub(super) fn may_read_by_bug(&self, at: usize) -> bool {
        let Some(replica) = &self.members[at].replica else { return false };
        let (standing, applied) = (replica.standing(), replica.state().applied);
        let settled = applied.term == standing.term;
        match self.options.bug {
            Some(Bug::LocalReads) => true,
            Some(Bug::ReadsBeforeFirstCommit) => standing.leads && !settled,
            Some(Bug::LeaseReads) => standing.leads && settled && applied.index >= standing.commit,
            _ => false,
        }
    }

    pub(super) fn flush(&mut self, at: usize) {
        while self.members[at].runs(self.now) {
            let member = &mut self.members[at];
            member.dirty = false;
            let now = member.clock.read(self.now);
            let Some(replica) = &mut member.replica else { return };
            let effects = replica.flush(now).expect("no invariant of the core is broken");
            member.wake_at = effects.wake_at;
            // Asking for an hour that has struck is asking to be run in circles.
            let rests = member.wake_at.is_none_or(|wake| member.clock.when(wake) > self.now);
            assert!(rests, "it never rests");
            self.observe(at, &effects);
            if self.carry_out(at, effects).is_none() || !self.members[at].dirty {
                return;
            }
        }
    }

    /// What must hold after every step of a core, whether its effects are carried out or not.
    fn observe(&mut self, at: usize, effects: &Effects) {
        let member = &self.members[at];
        let Some(replica) = &member.replica else { return };
        let standing = replica.standing();
        assert!(effects.diverged.is_none(), "member {} diverged at {:?}", member.id, effects.diverged);
        for outcome in &effects.events {
            self.applied(at as u64 + 1, &outcome.event);
        }
        let (member, invariants) = (&self.members[at], &mut self.invariants);
        let Some(replica) = &member.replica else { return };
        let digest = replica.state().store.digest();
        let applied = replica.state().applied.index;
        let figures = [standing.term, standing.leader, standing.commit, applied, digest];
        self.trace.note(self.now, at, "= term, leader, commit, applied, digest", &figures);
        let elected = invariants.leaders.standing(member.id, standing, self.options.black_box);
        self.coverage.note_many("elections", u64::from(elected));
        if self.options.black_box {
            return;
        }
        let state = replica.state();
        invariants.same_state.digest(state);
        if elected {
            Leaders::complete(replica, &invariants.same_state);
            Membership::leads(member.id, state);
        }
        invariants.monotonic.step(member.id, member.run, standing, state);
        let members = &self.members;
        let last_on_disk = |id: u64| members[(id - 1) as usize].disk.last_index();
        invariants.membership.check(state, last_on_disk);
        // What counted was the membership when it was committed: what it is after this step, or was before, or is at the
        // leader, if that is another.
        let others = members.iter().filter_map(|m| m.replica.as_ref()).map(|r| &r.state().membership);
        let memberships: Vec<_> = [&state.membership, &member.membership].into_iter().chain(others).collect();
        let lost = &self.operator.lost;
        let held = |index: u64| {
            let terms: BTreeSet<u64> = members.iter().filter_map(|m| m.disk.term_at(index)).collect();
            terms.into_iter().any(|term| {
                let at = LogPosition { index, term };
                // A machine that is lost did hold what it said it had.
                let holds = |id: &u64| lost.contains(id) || members[(*id - 1) as usize].disk.holds(at);
                memberships.iter().any(|membership| quorum(membership, holds))
            })
        };
        let commits = invariants.durability.check(member.id, standing, state, held);
        self.coverage.note_many("commits", commits);
        let membership = state.membership.clone();
        self.members[at].membership = membership;
    }

    fn applied(&mut self, member: u64, event: &std::sync::Arc<store::Event>) {
        if self.invariants.history.applied(member, event) {
            self.invariants.exactly_once.applied(event);
            let history = &self.invariants.history;
            let refreshed = event.refresh && event.node.deadline.is_some();
            self.coverage.note_many("refreshes", u64::from(refreshed));
            self.invariants.ttl.applied(event, |index| history.event(index).map_or(0, |e| e.time.0));
        }
    }

    /// None if the member died on the way.
    fn carry_out(&mut self, at: usize, mut effects: Effects) -> Option<()> {
        for (to, Outgoing { messages, forwarded, beacon }) in std::mem::take(&mut effects.send) {
            self.maybe_crash_between(at, false)?;
            self.send(at, to, Wire::Frame(messages, forwarded, beacon));
        }
        let installs = effects.writes.iter().any(|write| write.install.is_some());
        for write in std::mem::take(&mut effects.writes) {
            self.maybe_crash_between(at, true)?;
            self.queue_write(at, write);
        }
        self.maybe_crash_between(at, false)?;
        if !(installs && self.has_bug(Bug::WatchGapAtInstall)) {
            self.tell_watchers(at, &effects);
        }
        if effects.removed {
            self.note_removed(at);
        }
        for reply in effects.replies {
            self.maybe_crash_between(at, true)?;
            if self.is_own(at, &reply) {
                continue;
            }
            if matches!(reply, Reply::Read { .. }) && self.has_bug(Bug::ReadsJoinLate) {
                for token in self.clients.reading_at(at) {
                    self.answer(at, Reply::Read { token });
                }
            }
            self.answer(at, reply);
        }
        for snapshot in effects.snapshots {
            self.maybe_crash_between(at, true)?;
            self.coverage.note("snapshots sent");
            self.send(at, snapshot.to, Wire::Snapshot(snapshot.message, snapshot.state));
        }
        if let Some(base) = effects.compact {
            self.maybe_crash_between(at, true)?;
            self.queue(at, self.now, Job::Compact(base));
        }
        self.maybe_checkpoint(at);
        Some(())
    }

    fn tell_watchers(&mut self, at: usize, effects: &Effects) {
        let member = &mut self.members[at];
        let Some(replica) = &member.replica else { return };
        let store = &replica.state().store;
        if effects.watchers_cleared {
            self.coverage.note("histories cleared");
        } else {
            let first = effects.events.first().map(|outcome| outcome.event.index);
            assert!(
                first.is_none_or(|first| first == member.told + 1),
                "events do not follow on {}",
                member.told
            );
        }
        for watcher in self.watchers.iter_mut().filter(|w| w.at == Some(at)) {
            if effects.watchers_cleared {
                watcher.resume(store, &mut self.coverage);
            } else {
                effects.events.iter().for_each(|outcome| watcher.told(&outcome.event));
            }
        }
        member.told = store.index();
    }

    pub(super) fn answer(&mut self, at: usize, reply: Reply) {
        let Some(replica) = &self.members[at].replica else { return };
        let (token, outcome): (Token, _) = match reply {
            Reply::Write { token, result } => (token, Outcome::Written(result)),
            Reply::Read { token } => (token, Outcome::Read(replica.state().store.clone())),
            Reply::Published { .. } => return,
            Reply::Changed { token, result } => return self.answer_operator(token, &result),
            Reply::Failed { token, reason } => (token, Outcome::Failed(reason)),
        };
        let Self { now, network, invariants, coverage, .. } = self;
        self.clients.answer(token, outcome, *now, network, invariants, coverage);
    }

    pub(super) fn send(&mut self, at: usize, to: u64, wire: Wire) {
        if !self.knows(at, to) {
            return;
        }
        let member = &self.members[at];
        if let Wire::Frame(messages, ..) = &wire
            && !self.options.black_box
        {
            for message in messages {
                self.invariants.promises.sent(message, member.incarnation, &member.disk);
            }
        }
        let packet = Packet { from: member.id, to, wire };
        self.network.send(self.now, packet, &mut self.rng);
    }
}
