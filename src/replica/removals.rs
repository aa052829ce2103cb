//! When a removal is answered: once those who stay can do without the removed member.
//!
//! Whoever has asked for a removal may switch that machine off as soon as it is answered, and the cluster is to survive the
//! loss of a minority of the others from then on. But members act by the newest configuration that they know to be
//! committed, and at the moment in which the leader applies a removal it may be the only one that knows: without it the
//! others need the vote of the removed one. So the answer waits for one more entry, proposed by a leader that had applied
//! the removal (`Entry::applied`). Whoever has that entry on disk has the removal's commit index there too, since it came in
//! the same message and is written in the same batch; and when it is committed, a majority of those who stay has it.
//!
//! What it does not do: keep the answer over a restart or a change of leader for longer than the request's time-out; if no
//! such entry comes by then, the asker is told that the outcome is unknown.

use super::Replica;
use super::membership::Changed;

/// Removals that were applied here, and how far others are known to know of them.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// Answers that wait, by the index of the removal.
    waiting: Vec<(u64, Changed)>,
    /// Index of the newest removal.
    newest: u64,
    /// A leader had applied the log so far when it proposed what is applied here.
    settled: u64,
    /// The same of the newest entry that this member proposed, with its term.
    proposed: (u64, u64),
}

impl Removals {
    fn add(&mut self, index: u64, changed: Changed) {
        self.newest = index;
        self.waiting.push((index, changed));
    }

    /// Whether a leader in this term is to propose an entry for the sake of a removal.
    fn wants_entry(&self, term: u64) -> bool {
        let under_way = self.proposed.0 == term && self.proposed.1 >= self.newest;
        self.newest > self.settled && !under_way
    }

    /// Takes the answers of which an entry that was proposed by a leader at `applied` says that they may go.
    fn settle(&mut self, applied: u64) -> Vec<Changed> {
        self.settled = self.settled.max(applied);
        self.waiting.extract_if(.., |(index, _)| *index <= self.settled).map(|(_, changed)| changed).collect()
    }
}

impl Replica {
    /// A removal was applied here.
    pub(super) fn note_removal(&mut self, index: u64, changed: Changed) {
        self.removals.add(index, changed);
    }

    /// Whether this leader is to propose an entry for the sake of a removal, though nobody wants anything.
    pub(super) fn owes_an_entry(&self) -> bool {
        self.removals.wants_entry(self.raw.raft.term)
    }

    /// This leader proposed an entry.
    pub(super) fn note_proposed(&mut self) {
        self.removals.proposed = (self.raw.raft.term, self.state.applied.index);
    }

    /// An entry was applied here that a leader had proposed when it had applied the log up to `applied`.
    pub(super) fn settle_removals(&mut self, applied: u64) {
        for changed in self.removals.settle(applied) {
            self.answer_change(changed);
        }
    }
}
