//! A member's disk: it keeps what was written and forgets, at a crash, what was not synced.

use crate::options::Bug;
use quorate::replica::{LogPosition, LogWrite, Recovered, State};
use quorate::store::{ClusterTime, HistoryLimits};
use raft::eraftpb::{Entry, HardState};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

pub struct Disk {
    checkpoint: State,
    /// The checkpoint before, to which the log reaches back; none after a snapshot.
    older: Option<State>,
    base: LogPosition,
    entries: Vec<Entry>,
    hard_state: HardState,
    /// Handed to the disk and not synced yet, by when they will be; lost in a crash.
    pub pending: VecDeque<(u64, LogWrite)>,
    /// The last note of cluster time, its term, and when it was made.
    pub clock: Option<(u64, ClusterTime, u64)>,
    bug: Option<Bug>,
}

impl Disk {
    pub fn founding(state: &State, bug: Option<Bug>) -> Self {
        let at = LogPosition::FOUNDING;
        Self {
            checkpoint: state.clone(),
            older: None,
            base: at,
            entries: vec![],
            hard_state: HardState { term: at.term, commit: at.index, ..HardState::default() },
            pending: VecDeque::new(),
            clock: None,
            bug,
        }
    }

    /// A write has reached the disk.
    pub fn apply(&mut self, write: &LogWrite) {
        if let Some(state) = &write.install {
            self.checkpoint = (**state).clone();
            self.older = None;
            self.base = state.applied;
            self.entries.clear();
            assert!(write.hard_state.is_some(), "a snapshot without the term and vote that belong to it");
        }
        if let Some(first) = write.entries.first() {
            let keep = (first.index - self.base.index - 1) as usize;
            assert!(keep <= self.entries.len(), "a gap in the log on disk");
            let tail = self.entries.split_off(keep);
            self.entries.extend(write.entries.iter().cloned());
            if self.bug == Some(Bug::TailKept) {
                self.entries.extend(tail.into_iter().skip(write.entries.len()));
            }
        }
        if let Some(hard_state) = &write.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "a term went back on disk");
            self.hard_state = hard_state.clone();
            if self.bug == Some(Bug::VoteForgotten) {
                self.hard_state.vote = 0;
            }
        }
    }

    /// Power is gone. What was not synced may still have reached the disk, in order: a random prefix of it has.
    pub fn crash(&mut self, rng: &mut ChaCha8Rng) {
        let survive = rng.random_range(0..=self.pending.len());
        let mut pending = std::mem::take(&mut self.pending).into_iter();
        for (_, write) in pending.by_ref().take(survive) {
            self.apply(&write);
        }
        // A snapshot becomes a checkpoint first and the log begins anew after that: a crash may fall between.
        if let Some((_, write)) = pending.next()
            && let Some(state) = write.install
            && rng.random_range(0..2) == 0
        {
            self.checkpoint = *state;
            self.older = None;
        }
    }

    /// A checkpoint that the log does not know becomes its base, as in `storage::recover`.
    fn fit_log_to_checkpoint(&mut self) {
        let at = self.checkpoint.applied;
        if self.hard_state.term < at.term {
            self.hard_state.term = at.term;
            self.hard_state.vote = 0;
        }
        let there = match at.index.checked_sub(self.base.index).expect("the log reaches back to the checkpoint") {
            0 => Some(self.base),
            offset => self.entries.get(offset as usize - 1).map(LogPosition::of),
        };
        if there != Some(at) {
            assert!(self.hard_state.commit <= at.index, "committed entries are thrown away");
            self.base = at;
            self.entries.clear();
        }
        self.hard_state.commit = self.hard_state.commit.max(at.index);
    }

    /// A checkpoint of the member's own state. Returns how far back the log is needed.
    pub fn checkpoint(&mut self, state: &State, limits: HistoryLimits) -> LogPosition {
        let upto = self.checkpoint.applied;
        let state = if self.bug == Some(Bug::CheckpointAhead) {
            let mut ahead = self.checkpoint.clone();
            ahead.applied = state.applied;
            ahead
        } else {
            let records: Vec<_> = state.clone().into_records().collect();
            State::from_records(&records, limits).expect("records make a state")
        };
        self.older = Some(std::mem::replace(&mut self.checkpoint, state));
        upto
    }

    pub fn compact(&mut self, base: LogPosition) {
        // After the writes before it; a crash in between keeps more, which is harmless.
        if self.pending.is_empty() && base.index > self.base.index {
            self.entries.retain(|e| e.index > base.index);
            self.base = base;
        }
    }

    /// What a member finds when it starts. Now and then the newest checkpoint is damaged: the one before must do.
    pub fn recover(&mut self, clock: Option<(u64, ClusterTime)>, rng: &mut ChaCha8Rng) -> Recovered {
        if rng.random_range(0..8) == 0
            && let Some(older) = self.older.take()
        {
            self.checkpoint = older;
        }
        self.fit_log_to_checkpoint();
        Recovered {
            state: self.checkpoint.clone(),
            base: self.base,
            entries: self.entries.clone(),
            hard_state: self.hard_state.clone(),
            clock,
        }
    }
}
