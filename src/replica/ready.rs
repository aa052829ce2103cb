//! Raft's `Ready`: what it wants written, sent and applied, in its order.

use super::{LogPosition, LogWrite, Replica, Reply, SnapshotToSend, State, state};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{GetEntriesContext, ProgressState, StateRole, Storage as _};
use std::sync::Arc;
use std::time::Duration;

/// A log that is larger is cut, whoever lacks what of it.
const LOG_HELD_BYTES_MAX: u64 = 64 << 20;

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
        // not meet that of the present one. And it is written when a change was applied: if all forgot that it is
        // committed, the majority of before it, one of whom may be gone for good by then, would be needed once more.
        let sync = must_sync || std::mem::take(&mut self.membership_applied);
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
        self.apply(committed, now)
    }

    /// Hands a write to the log, or, when there is nothing in it and nothing before it, is done with it at once.
    pub(super) fn log_write(&mut self, write: LogWrite) {
        let empty = write.entries.is_empty() && write.hard_state.is_none() && write.install.is_none();
        if empty && self.write_begun == self.write_done {
            self.raw.on_persist_ready(write.number);
            let messages = write.then_send;
            self.send(messages);
            return;
        }
        if empty && write.then_send.is_empty() {
            return; // the next write that is persisted says it of this one too
        }
        if let Some(state) = &write.install {
            self.installing = Some((write.number, state.applied.index));
        }
        if let Some(hard_state) = &write.hard_state {
            self.term_writes.push((write.number, hard_state.term));
        }
        let bytes = write.entries.iter().map(|entry| entry.data.len() as u64).sum();
        self.unwritten.push_back((write.number, bytes));
        self.unwritten_bytes += bytes;
        self.write_begun = write.number;
        self.effects.writes.push(write);
        self.presume_written();
    }

    /// A follower whose disk is full goes on applying what a quorum has on disk, so that its clients go on reading. Raft
    /// applies only what it believes to be on this member's disk too, so it is told that; nothing that the member says
    /// to others depends on it, since that is kept back until it is true. A leader would count its own disk for a
    /// quorum, so this one must not become one until then (`may_campaign`).
    pub(super) fn stalled(&mut self) {
        self.disk_full = true;
        self.presume_written();
    }

    fn presume_written(&mut self) {
        let follows = self.raw.raft.state == StateRole::Follower;
        if self.disk_full && follows && self.installing.is_none() && self.write_begun > self.write_done {
            self.presumed = Some(self.write_begun);
            self.raw.on_persist_ready(self.write_begun);
        }
    }

    pub(super) fn persisted(&mut self, number: u64) {
        self.write_done = self.write_done.max(number);
        let durable = &mut self.durable_term;
        self.term_writes.retain(|(write, term)| {
            if *write <= number {
                *durable = (*durable).max(*term);
            }
            *write > number
        });
        while self.unwritten.front().is_some_and(|(write, _)| *write <= number) {
            self.unwritten_bytes -= self.unwritten.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        self.disk_full = false;
        self.presumed = self.presumed.filter(|presumed| *presumed > number);
        self.raw.on_persist_ready(number);
        if let Some((write, index)) = self.installing
            && write <= number
        {
            self.installing = None;
            // Raft counts a snapshot as applied only once it is on disk; by then more may be.
            self.raw.advance_apply_to(index.max(self.raw.raft.raft_log.applied));
        }
    }

    /// A follower's answers wait for its disk, but not those that promise nothing beyond a term that is on disk
    /// already: heartbeats and reads never wait for an fsync.
    pub(super) fn send_what_needs_no_disk(&mut self, messages: Vec<Message>) -> Vec<Message> {
        let term = self.raw.raft.term;
        if self.durable_term != term {
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

    pub(super) fn apply(&mut self, entries: Vec<Entry>, now: Duration) -> Result<(), String> {
        let Some(last) = entries.last().map(|e| e.index) else { return Ok(()) };
        for entry in entries {
            match entry.get_entry_type() {
                EntryType::EntryNormal => {
                    let done = self.state.apply(&entry)?;
                    if !entry.data.is_empty() {
                        self.expiry_proposed = false;
                        self.clock.hear(entry.term, self.state.time, now);
                    }
                    self.answer(done);
                }
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.change_membership(&entry)?;
                }
            }
        }
        self.effects.publish = true;
        self.raw.mut_store().set_applied(self.state.applied);
        self.raw.advance_apply_to(last);
        Ok(())
    }

    pub(super) fn answer(&mut self, done: state::EntryOutcome) {
        self.effects.events.extend(done.events);
        let session = self.pending.session();
        for applied in done.answered.into_iter().filter(|applied| applied.session == session) {
            if let Some(token) = self.pending.applied(applied.number) {
                let result = applied.result.map(|outcome| outcome.event);
                self.effects.replies.push(Reply::Write { token, result });
            }
        }
        for (_, number) in done.published.into_iter().filter(|(from, _)| *from == session) {
            if let Some(token) = self.pending.applied(number) {
                self.effects.replies.push(Reply::Published { token });
            }
        }
        for changed in done.changed {
            self.answer_change(changed);
        }
    }

    pub(super) fn compact(&mut self, upto: LogPosition) {
        let upto = self.held_back().filter(|held| held.index < upto.index).unwrap_or(upto);
        let log = self.raw.mut_store();
        if upto.index <= log.base().index || upto.index > self.state.applied.index {
            return;
        }
        log.compact(upto);
        self.effects.compact = Some(upto);
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
