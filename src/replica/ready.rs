//! Raft's `Ready`: what it wants written, sent and applied, in its order.

use super::writes::changes_members;
use super::{LogPosition, LogWrite, Replica, Reply, SnapshotToSend, State, state};
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{GetEntriesContext, ProgressState, Storage as _};
use std::sync::Arc;
use std::time::Duration;

/// A log that is larger is cut, whoever lacks what of it.
const LOG_HELD_BYTES_MAX: u64 = 64 << 20;

/// The log in memory takes at most this part of what the keys and values take, see [`ReplicaConfig::log_held_bytes`].
const LOG_OF_STATE: u64 = 4;

impl Replica {
    pub(super) fn ready(&mut self, now: Duration) -> Result<(), String> {
        let mut ready = self.raw.ready();
        let install =
            (!ready.snapshot().is_empty()).then(|| self.install(ready.snapshot().get_metadata().index, now));
        let install = install.transpose()?;
        let entries = ready.take_entries();
        self.raw.mut_store().append(entries.clone());
        let must_sync = ready.must_sync();
        // The commit index alone is not worth a write: a restarted member learns it again. But it goes with every write of
        // entries, changed or not: an entry that changes the membership says by being there that the change before it is
        // committed, and a member that forgets that would campaign by a membership two changes old, whose majority need
        // not meet that of the present one. And it is written before a change is applied: see `may_apply`.
        let sync = must_sync || ready.committed_entries().iter().any(changes_members);
        let hard_state = (install.is_some() || sync).then(|| self.raw.raft.hard_state());
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().set_hard_state(hard_state.clone());
        }
        for read in ready.take_read_states() {
            self.reads.confirm(&read.request_ctx, read.index);
        }
        let messages = ready.take_messages();
        self.send(messages);
        let then_send = self.send_what_needs_no_disk(ready.take_persisted_messages());
        let number = ready.number();
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        self.log_write(LogWrite { number, install, entries, hard_state, sync, then_send });
        self.unapplied.extend(committed);
        self.apply(now)
    }

    /// A follower's answers wait for its disk, but not those that promise nothing beyond a term that is on disk
    /// already: heartbeats and reads never wait for an fsync.
    pub(super) fn send_what_needs_no_disk(&mut self, messages: Vec<Message>) -> Vec<Message> {
        let term = self.raw.raft.term;
        if self.writes.durable_term() != term {
            return messages;
        }
        let (now, later): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| {
            let free = matches!(
                message.get_msg_type(),
                MessageType::MsgHeartbeatResponse | MessageType::MsgReadIndex | MessageType::MsgReadIndexResp
            );
            free && (message.term == 0 || message.term == term)
        });
        self.send(now);
        later
    }

    pub(super) fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = message.to;
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.send_snapshot(message);
            } else {
                self.outgoing(to).messages.push(message);
            }
        }
    }

    /// The state goes out as it is now, and raft's message is made to say so.
    pub(super) fn send_snapshot(&mut self, mut message: Message) {
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.index = self.state.applied.index;
        metadata.term = self.state.applied.term;
        metadata.set_conf_state(self.state.membership.clone());
        let to = message.to;
        let state = Box::new(self.state.clone());
        self.effects.snapshots.push(SnapshotToSend { to, message: Box::new(message), state });
    }

    pub(super) fn install(&mut self, index: u64, now: Duration) -> Result<Box<State>, String> {
        let Some(state) = self.incoming.take().filter(|state| state.applied.index == index) else {
            return Err(format!("raft installs a snapshot at {index} that was not received"));
        };
        let seen = self.state.store.index();
        self.state = *state.clone();
        self.unapplied.clear();
        self.leaving = false;
        self.clock.hear(state.applied.term, state.time, now);
        self.raw.mut_store().reset(state.applied, state.membership.clone());
        let history = self.state.store.history();
        if history.first_index() <= seen + 1 {
            let missed = history
                .iter_from(seen + 1)
                .map(|event| crate::store::Outcome { event: Arc::clone(event), removed_from: None });
            self.effects.events.extend(missed);
        } else {
            self.effects.watchers_cleared = true;
        }
        self.effects.publish = true;
        Ok(state)
    }

    /// Applies what is committed, up to a change of the membership that has to wait.
    pub(super) fn apply(&mut self, now: Duration) -> Result<(), String> {
        let before = self.state.applied;
        while !self.leaving
            && let Some(entry) = self.unapplied.pop_front()
        {
            if changes_members(&entry) {
                self.leaving = self.removes_this_member(&entry)?;
                if self.leaving || !self.writes.may_apply(entry.index) {
                    self.unapplied.push_front(entry);
                    break;
                }
                self.change_membership(&entry)?;
            } else {
                let done = self.state.apply(&entry)?;
                if !entry.data.is_empty() {
                    self.expiry_proposed = false;
                    self.clock.hear(entry.term, self.state.time, now);
                }
                self.answer(done);
            }
        }
        let applied = self.state.applied;
        if applied != before {
            self.effects.publish = true;
            self.queue.applied(applied.index);
            self.raw.mut_store().set_applied(applied);
            self.raw.advance_apply_to(applied.index);
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, done: state::EntryOutcome) {
        self.effects.events.extend(done.events);
        let session = self.pending.session();
        for applied in done.answered.into_iter().filter(|applied| applied.session == session) {
            if let Some(token) = self.pending.remove(applied.number) {
                let result = applied.result.map(|outcome| outcome.event);
                self.effects.replies.push(Reply::Write { token, result });
            }
        }
        for (_, number) in done.published.into_iter().filter(|(from, _)| *from == session) {
            if let Some(token) = self.pending.remove(number) {
                self.effects.replies.push(Reply::Published { token });
            }
        }
        for changed in done.changed {
            self.answer_change(changed);
        }
        self.settle_removals(done.proposed_at);
    }

    pub(super) fn compact(&mut self, upto: LogPosition) {
        let upto = self.held_back().filter(|held| held.index < upto.index).unwrap_or(upto);
        if upto.index <= self.state.applied.index && self.raw.mut_store().compact(upto) {
            self.effects.compact = Some(upto);
        }
    }

    /// Forgets what of the log no follower should be given any more: it would rather be sent the state. What this member's
    /// own disk does not have yet stays, since `raft` asks for it when it has; but that is never applied.
    pub(super) fn trim_log(&mut self) {
        let follower_lacks = (self.state.store.byte_count() / LOG_OF_STATE).min(LOG_HELD_BYTES_MAX);
        let bytes_max = follower_lacks.max(self.config.log_held_bytes);
        if self.raw.store().bytes() > bytes_max {
            let upto = self.state.applied.index;
            let upto = self.held_back().map_or(upto, |held| held.index.min(upto));
            self.raw.mut_store().trim(upto, bytes_max);
        }
    }

    /// How far the log may go if no follower is to lack what it can still be given, as long as there is a connection to it
    /// and it answers: one that is sent a state while writes go on would be sent another and another. Not for ever: only
    /// while the log is small.
    fn held_back(&self) -> Option<LogPosition> {
        let log = self.raw.store();
        if !self.standing.leads || log.bytes() > LOG_HELD_BYTES_MAX {
            return None;
        }
        let there = |id: u64| id != self.config.id && self.connected.contains(&id) && self.in_reach(id);
        let followers = self.raw.raft.prs().iter().filter(|(id, _)| there(**id));
        let lacking = followers.map(|(_, progress)| match progress.state {
            ProgressState::Snapshot => progress.pending_snapshot,
            ProgressState::Probe => progress.next_idx.saturating_sub(1),
            ProgressState::Replicate => progress.matched,
        });
        let index = lacking.filter(|index| *index >= log.base().index).min()?;
        Some(LogPosition { index, term: log.term(index).ok()? })
    }

    /// The entries of the log in memory, for tests that compare logs.
    #[doc(hidden)]
    pub fn log_entries(&self) -> Vec<Entry> {
        let log = self.raw.store();
        let (low, high) = (log.base().index + 1, log.last_position().index + 1);
        log.entries(low, high, None, GetEntriesContext::empty(false)).unwrap_or_default()
    }
}
