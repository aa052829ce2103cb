//! Carries out what the core of a member wants, as the driver of a real one does; or, with a bug, as it must not.

use super::World;
use crate::clients::Outcome;
use crate::network::{Packet, Wire};
use crate::options::Bug;
use quorate::replica::{Effects, Input, LogWrite, Outgoing, Reply, Token};
use quorate::store::HistoryLimits;
use rand::RngExt as _;

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

    pub(super) fn carry_out(&mut self, at: usize, mut effects: Effects) {
        let id = self.members[at].id;
        assert!(effects.diverged.is_none(), "member {id} diverged at {:?}", effects.diverged);
        for (to, Outgoing { messages, forwarded, beacon }) in std::mem::take(&mut effects.send) {
            self.send(at, to, Wire::Frame(messages, forwarded, beacon));
        }
        let installs = effects.writes.iter().any(|write| write.install.is_some());
        for write in std::mem::take(&mut effects.writes) {
            self.write(at, write);
        }
        if !(installs && self.options.bug == Some(Bug::WatchGapAtInstall)) {
            self.watch(at, &effects);
        }
        for reply in effects.replies {
            self.answer(at, reply);
        }
        for snapshot in effects.snapshots {
            self.send(at, snapshot.to, Wire::Snapshot(snapshot.message, snapshot.state));
        }
        if let Some(base) = effects.compact {
            self.members[at].disk.compact(base);
        }
        self.maybe_checkpoint(at);
    }

    pub(super) fn write(&mut self, at: usize, mut write: LogWrite) {
        let latency = if write.install.is_some() { self.options.install_ms } else { self.options.sync_ms };
        let due = self.now + if latency == 0 { 0 } else { self.rng.random_range(0..latency) };
        let (acknowledge, send) = match self.options.bug {
            Some(Bug::AckBeforeSync) => (true, true),
            Some(Bug::OwnEntriesBeforeSync) => (true, false),
            _ => (false, false),
        };
        if send {
            for message in std::mem::take(&mut write.then_send) {
                self.send(at, message.to, Wire::Frame(vec![message], vec![], None));
            }
        }
        if acknowledge {
            self.input(at, Input::Persisted { number: write.number });
        }
        self.maybe_crash_soon(at, &write, latency);
        let pending = &mut self.members[at].disk.pending;
        let after = pending.back().map_or(due, |(last, _)| due.max(*last));
        pending.push_back((after, write));
    }

    pub(super) fn watch(&mut self, at: usize, effects: &Effects) {
        let member = &mut self.members[at];
        for outcome in &effects.events {
            self.oracle.watched(member.watched, &outcome.event);
            self.clients.applied(&outcome.event);
            member.watched = outcome.event.index;
        }
        if effects.watchers_cleared
            && let Some(replica) = &member.replica
        {
            self.oracle.coverage.histories_cleared += 1;
            member.watched = replica.state().store.index();
        }
    }

    pub(super) fn answer(&mut self, at: usize, reply: Reply) {
        let Some(replica) = &self.members[at].replica else { return };
        let (token, outcome): (Token, _) = match reply {
            Reply::Write { token, result } => (token, Outcome::Written(result.map(|e| e.index))),
            Reply::Read { token } => (token, Outcome::Read(replica.state().store.clone())),
            Reply::Published { .. } | Reply::Changed { .. } => return,
            Reply::Failed { token, reason } => (token, Outcome::Failed(reason)),
        };
        self.clients.answer(token, outcome, self.now, &mut self.oracle);
    }

    pub(super) fn maybe_checkpoint(&mut self, at: usize) {
        let member = &mut self.members[at];
        let Some(replica) = &member.replica else { return };
        let state = replica.state();
        if state.applied.index >= member.checkpointed + self.options.checkpoint_every {
            member.checkpointed = state.applied.index;
            let limits = HistoryLimits { events: self.options.history, bytes: 1 << 20 };
            let upto = member.disk.checkpoint(state, limits);
            self.input(at, Input::Compactable { upto });
        }
    }

    pub(super) fn send(&mut self, at: usize, to: u64, wire: Wire) {
        let from = self.members[at].id;
        self.network.send(self.now, Packet { from, to, wire }, &mut self.rng);
    }
}
