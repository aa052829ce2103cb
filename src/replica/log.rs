//! The raft log as `raft` reads it: every entry since the base, in memory.
//!
//! The copy on disk is only written while the member runs, and read when it starts; this one answers. The one on disk
//! is cut when a checkpoint makes a prefix unnecessary; this one holds only the part of it that a follower may be given.
//!
//! Invariants: entries are contiguous from `base.index + 1`; terms never decrease.

use super::LogPosition;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};
use std::collections::VecDeque;

/// The log, with what `raft` wants to know of the state that was applied from it.
#[derive(Debug)]
pub(super) struct MemLog {
    base: LogPosition,
    /// Where the log on disk begins, at or before the base.
    disk_base: LogPosition,
    entries: VecDeque<Entry>,
    bytes: u64,
    hard_state: HardState,
    /// Position and membership of the applied state: what a snapshot taken now would hold.
    applied: LogPosition,
    membership: ConfState,
}

/// What an entry costs beyond its data: its header on disk and in memory.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

fn size(entry: &Entry) -> u64 {
    entry.data.len() as u64 + entry.context.len() as u64 + ENTRY_OVERHEAD_BYTES
}

impl MemLog {
    pub(super) fn new(
        base: LogPosition,
        entries: Vec<Entry>,
        hard_state: HardState,
        applied: LogPosition,
        membership: ConfState,
    ) -> Self {
        let mut log = Self {
            base,
            disk_base: base,
            entries: VecDeque::new(),
            bytes: 0,
            hard_state,
            applied,
            membership,
        };
        log.append(entries);
        log
    }

    pub(super) fn last_position(&self) -> LogPosition {
        self.entries.back().map_or(self.base, LogPosition::of)
    }

    pub(super) fn base(&self) -> LogPosition {
        self.base
    }

    /// Bytes that the entries after the base take up.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends, cutting off a tail that the new entries replace.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.base.index,
            "entry {} is below the log's base {}",
            first.index,
            self.base.index
        );
        assert!(
            first.index <= self.last_position().index + 1,
            "entry {} leaves a gap after {}",
            first.index,
            self.last_position().index
        );
        while self.entries.back().is_some_and(|last| last.index >= first.index) {
            let cut = self.entries.pop_back().expect("just looked at");
            self.bytes -= size(&cut);
        }
        for entry in entries {
            assert_eq!(entry.index, self.last_position().index + 1, "entries must be contiguous");
            self.bytes += size(&entry);
            self.entries.push_back(entry);
        }
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(super) fn set_applied(&mut self, applied: LogPosition) {
        self.applied = applied;
    }

    pub(super) fn set_membership(&mut self, membership: ConfState) {
        self.membership = membership;
    }

    /// Forgets entries up to and including `base`, which the disk forgets too. Whether it has to.
    pub(super) fn compact(&mut self, base: LogPosition) -> bool {
        assert!(base.index <= self.applied.index, "only applied entries may be forgotten");
        while self.entries.front().is_some_and(|first| first.index <= base.index) {
            self.forget_first();
        }
        if base.index > self.base.index {
            self.base = base;
        }
        let news = base.index > self.disk_base.index;
        if news {
            self.disk_base = base;
        }
        news
    }

    /// Forgets entries up to and including an index, which must be applied, as long as there are more than so many bytes.
    /// The disk keeps them.
    pub(super) fn trim(&mut self, upto: u64, bytes_max: u64) {
        assert!(upto <= self.applied.index, "only applied entries may be forgotten");
        while self.bytes > bytes_max && self.entries.front().is_some_and(|first| first.index <= upto) {
            self.base = self.forget_first();
        }
    }

    fn forget_first(&mut self) -> LogPosition {
        let cut = self.entries.pop_front().expect("there is one");
        self.bytes -= size(&cut);
        LogPosition::of(&cut)
    }

    /// A snapshot replaced everything.
    pub(super) fn reset(&mut self, base: LogPosition, membership: ConfState) {
        self.entries.clear();
        self.bytes = 0;
        self.base = base;
        self.disk_base = base;
        self.applied = base;
        self.membership = membership;
        self.hard_state.commit = self.hard_state.commit.max(base.index);
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base.index + 1)?).ok()
    }
}

impl raft::Storage for MemLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.membership.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let (Some(from), Some(to)) = (self.position(low), self.position(high)) else {
            return Err(raft::Error::Store(StorageError::Unavailable));
        };
        if to > self.entries.len() {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let budget = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.range(from..to) {
            bytes += size(entry);
            if bytes > budget && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.index {
            return Ok(self.base.term);
        }
        if index < self.base.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.position(index)
            .and_then(|at| self.entries.get(at))
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last_position().index)
    }

    /// Only the position and membership: the state itself travels beside raft's message, see `Effects::snapshots`.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied.index < request_index {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied.index;
        metadata.term = self.applied.term;
        metadata.set_conf_state(self.membership.clone());
        Ok(snapshot)
    }
}
