//! What was handed to the disk, and what is known to be on it.
//!
//! Invariants:
//! - raft is told that a write is on disk only when it is, except on a follower whose disk is full (`stalled`);
//! - a change of the membership is applied only where the disk says that it is committed, but for such a follower
//!   (`may_apply`).
//!
//! What it does not do: decide what is written, which is raft's (`ready`), and write it (`storage`).

use super::{LogWrite, Replica, UNWRITTEN_BYTES_MAX};
use raft::StateRole;
use raft::eraftpb::{Entry, EntryType, HardState};
use std::collections::VecDeque;

/// The writes under way.
#[derive(Debug)]
pub(super) struct Writes {
    /// Number of the last that was handed out, and of the last that is on disk.
    begun: u64,
    done: u64,
    /// Term and commit index that are known to be on disk.
    durable_term: u64,
    durable_commit: u64,
    /// The same in writes under way, by their numbers.
    hard_states: Vec<(u64, u64, u64)>,
    /// The bytes of entries in writes under way, by their numbers, and their sum.
    unwritten: VecDeque<(u64, u64)>,
    unwritten_bytes: u64,
    disk_full: bool,
    /// The last write that raft was told to be on disk before it is: see `stalled`.
    presumed: Option<u64>,
    /// A snapshot that is being made durable: its write's number, and its index.
    installing: Option<(u64, u64)>,
}

impl Writes {
    /// What is on disk at the start.
    pub(super) fn new(recovered: &HardState) -> Self {
        Self {
            begun: 0,
            done: 0,
            durable_term: recovered.term,
            durable_commit: recovered.commit,
            hard_states: Vec::new(),
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            disk_full: false,
            presumed: None,
            installing: None,
        }
    }

    /// The disk is at work.
    pub(super) fn under_way(&self) -> bool {
        self.begun > self.done
    }

    pub(super) fn durable_term(&self) -> u64 {
        self.durable_term
    }

    /// As many bytes of entries wait for the disk as may.
    pub(super) fn too_many(&self) -> bool {
        self.unwritten_bytes >= UNWRITTEN_BYTES_MAX
    }

    /// Not between taking a snapshot and having it on disk, and not while raft believes more to be on disk than is.
    pub(super) fn may_campaign(&self) -> bool {
        self.installing.is_none() && self.presumed.is_none()
    }

    /// Whether a committed change of the membership may be applied. Whoever acts on one must not forget that it is
    /// committed: it would need the vote of one that it has sent away. Only a follower whose disk is full does not wait, as
    /// it would lag behind: all that it was given is presumed to be written (`stalled`), there is a leader who has it on
    /// disk, and this one does not campaign before it has. A leader waits, however full its disk is.
    pub(super) fn may_apply(&self, index: u64) -> bool {
        index <= self.durable_commit || self.presumed == Some(self.begun)
    }

    fn begin(&mut self, write: &LogWrite) {
        if let Some(state) = &write.install {
            self.installing = Some((write.number, state.applied.index));
        }
        if let Some(hard_state) = &write.hard_state {
            self.hard_states.push((write.number, hard_state.term, hard_state.commit));
        }
        let bytes = write.entries.iter().map(|entry| entry.data.len() as u64).sum();
        self.unwritten.push_back((write.number, bytes));
        self.unwritten_bytes += bytes;
        self.begun = write.number;
    }

    /// Returns the index of a snapshot that is on disk now.
    fn end(&mut self, number: u64) -> Option<u64> {
        self.done = self.done.max(number);
        let (durable_term, durable_commit) = (&mut self.durable_term, &mut self.durable_commit);
        self.hard_states.retain(|(write, term, commit)| {
            if *write <= number {
                *durable_term = (*durable_term).max(*term);
                *durable_commit = (*durable_commit).max(*commit);
            }
            *write > number
        });
        while self.unwritten.front().is_some_and(|(write, _)| *write <= number) {
            self.unwritten_bytes -= self.unwritten.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        self.disk_full = false;
        self.presumed = self.presumed.filter(|presumed| *presumed > number);
        self.installing.take_if(|(write, _)| *write <= number).map(|(_, index)| index)
    }
}

/// Whether an entry is a change of raft's configuration.
pub(super) fn changes_members(entry: &Entry) -> bool {
    entry.get_entry_type() != EntryType::EntryNormal
}

impl Replica {
    /// Hands a write to the log, or, when there is nothing in it and nothing before it, is done with it at once.
    pub(super) fn log_write(&mut self, write: LogWrite) {
        let empty = write.entries.is_empty() && write.hard_state.is_none() && write.install.is_none();
        if empty && !self.writes.under_way() {
            self.raw.on_persist_ready(write.number);
            let messages = write.then_send;
            self.send(messages);
            return;
        }
        if empty && write.then_send.is_empty() {
            return; // the next write that is persisted says it of this one too
        }
        self.writes.begin(&write);
        self.effects.writes.push(write);
        self.presume_written();
    }

    /// A follower whose disk is full goes on applying what a quorum has on disk, so that its clients go on reading. Raft
    /// applies only what it believes to be on this member's disk too, so it is told that; nothing that the member says
    /// to others depends on it, since that is kept back until it is true. A leader would count its own disk for a
    /// quorum, so this one must not become one until then (`may_campaign`).
    pub(super) fn stalled(&mut self) {
        self.writes.disk_full = true;
        self.presume_written();
    }

    fn presume_written(&mut self) {
        let follows = self.raw.raft.state == StateRole::Follower;
        let writes = &mut self.writes;
        if writes.disk_full && follows && writes.installing.is_none() && writes.under_way() {
            writes.presumed = Some(writes.begun);
            self.raw.on_persist_ready(writes.begun);
        }
    }

    pub(super) fn persisted(&mut self, number: u64) {
        let installed = self.writes.end(number);
        self.raw.on_persist_ready(number);
        if let Some(index) = installed {
            // Raft counts a snapshot as applied only once it is on disk; by then more may be.
            self.raw.advance_apply_to(index.max(self.raw.raft.raft_log.applied));
        }
    }
}
