//! A member's disk. It keeps what was synced; of the rest a crash leaves a part, in the order in which it was written.
//!
//! As in `storage`: a record of the log is whole or cut off (its checksum tells), the two newest checkpoints are kept and
//! the log reaches back to the older, and a snapshot becomes a checkpoint first and the log's base after that. (There the
//! older goes when another is begun, here when that is there.)

use crate::bugs::Bug;
use crate::coverage::Coverage;
use quorate::proto::state::Membership;
use quorate::proto::state::record::Body;
use quorate::replica::{LogPosition, LogWrite, Recovered, State};
use quorate::store::{ClusterTime, HistoryLimits};
use raft::eraftpb::{Entry, HardState};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

/// Checkpoints that are kept.
const KEPT: usize = 2;

pub enum Job {
    Write(LogWrite),
    Compact(LogPosition),
}

/// The log as it would be read back.
#[derive(Clone)]
struct Log {
    base: LogPosition,
    entries: Vec<Entry>,
    hard_state: HardState,
}

pub struct Disk {
    log: Log,
    /// Ascending.
    checkpoints: Vec<State>,
    /// Handed to the disk and not synced yet, by when it will be.
    pub queue: VecDeque<(u64, Job)>,
    /// A checkpoint that is being written, and when it will be there.
    pub checkpointing: Option<(u64, State)>,
    /// The last note of cluster time, its term, and when it was made.
    pub clock: Option<(u64, ClusterTime, u64)>,
    /// Until when each sync takes so many times as long.
    pub slow_until: u64,
    /// The next sync fails.
    pub failing: bool,
    /// Until when there is no space, and until when there is little.
    pub full_until: u64,
    pub short_until: u64,
    /// With `Bug::FsyncErrorIgnored`: what is really there since a sync failed.
    really: Option<(Log, Vec<State>)>,
    first_membership: Option<Membership>,
    bug: Option<Bug>,
}

impl Disk {
    pub fn founding(state: &State, bug: Option<Bug>) -> Self {
        let at = LogPosition::FOUNDING;
        let hard_state = HardState { term: at.term, commit: at.index, ..HardState::default() };
        Self::beginning(state, hard_state, bug)
    }

    /// Of a member that was added to a cluster and knows nothing of its state.
    pub fn joining(state: &State, bug: Option<Bug>) -> Self {
        Self::beginning(state, HardState::default(), bug)
    }

    fn beginning(state: &State, hard_state: HardState, bug: Option<Bug>) -> Self {
        Self {
            log: Log { base: state.applied, entries: vec![], hard_state },
            checkpoints: vec![state.clone()],
            queue: VecDeque::new(),
            checkpointing: None,
            clock: None,
            slow_until: 0,
            failing: false,
            full_until: 0,
            short_until: 0,
            really: None,
            first_membership: membership_of(state),
            bug,
        }
    }

    /// No more trouble, and what waits for a slow disk is done soon.
    pub fn heal(&mut self, now: u64) {
        (self.slow_until, self.failing) = (0, false);
        (self.full_until, self.short_until) = (0, 0);
        for (due, _) in &mut self.queue {
            *due = (*due).min(now + 10);
        }
        if let Some((due, _)) = &mut self.checkpointing {
            *due = (*due).min(now + 10);
        }
    }

    /// The next sync is due; whether it works.
    pub fn sync_works(&mut self) -> bool {
        let works = !std::mem::take(&mut self.failing);
        if !works && self.bug == Some(Bug::FsyncErrorIgnored) {
            self.really.get_or_insert((self.log.clone(), self.checkpoints.clone()));
            return true;
        }
        works
    }

    pub fn done(&mut self, job: &Job) {
        match job {
            Job::Write(write) => self.write(write),
            Job::Compact(base) if base.index > self.log.base.index => {
                self.log.entries.retain(|e| e.index > base.index);
                self.log.base = *base;
            }
            Job::Compact(_) => {}
        }
    }

    fn write(&mut self, write: &LogWrite) {
        if let Some(state) = &write.install {
            self.save((**state).clone());
            self.log.base = state.applied;
            self.log.entries.clear();
            assert!(write.hard_state.is_some(), "a snapshot without the term and vote that belong to it");
        }
        if let Some(first) = write.entries.first() {
            let keep = (first.index - self.log.base.index - 1) as usize;
            assert!(keep <= self.log.entries.len(), "a gap in the log on disk");
            self.log.entries.truncate(keep);
            self.log.entries.extend(write.entries.iter().cloned());
        }
        if let Some(hard_state) = &write.hard_state {
            assert!(hard_state.term >= self.log.hard_state.term, "a term went back on disk");
            self.log.hard_state = hard_state.clone();
            if self.bug == Some(Bug::VoteForgotten) {
                self.log.hard_state.vote = 0;
            }
        }
    }

    fn save(&mut self, state: State) {
        if !self.checkpoints.iter().any(|kept| kept.applied == state.applied) {
            self.checkpoints.push(state);
            self.checkpoints.sort_by_key(|kept| kept.applied);
        }
        let extra = self.checkpoints.len().saturating_sub(KEPT);
        self.checkpoints.drain(..extra);
    }

    /// A checkpoint of the member's own state is written. Returns how far back the log is needed.
    pub fn checkpointed(&mut self, state: &State, limits: HistoryLimits) -> LogPosition {
        let mut records: Vec<_> = state.clone().into_records().collect();
        if let Some(Body::Head(head)) = records.first_mut().and_then(|r| r.body.as_mut()) {
            match self.bug {
                Some(Bug::SessionsNotInCheckpoint) => head.sessions.clear(),
                Some(Bug::TimeNotInCheckpoint) => head.time_ms = 0,
                Some(Bug::MembershipNotInCheckpoint) => head.membership.clone_from(&self.first_membership),
                _ => {}
            }
        }
        let mut read = State::from_records(&records, limits).expect("records make a state");
        if self.bug == Some(Bug::CheckpointAhead) {
            let at = read.applied;
            read.clone_from(self.checkpoints.last().expect("one is always kept"));
            read.applied = at;
        }
        self.save(read);
        match self.bug {
            Some(Bug::CompactedTooFar) => self.checkpoints.last(),
            _ => self.checkpoints.first(),
        }
        .map_or(LogPosition::FOUNDING, |kept| kept.applied)
    }

    /// Power is gone, or the process was killed: a random part of what was not synced has reached the disk.
    pub fn crash(&mut self, rng: &mut ChaCha8Rng, coverage: &mut Coverage) {
        self.checkpointing = None;
        if let Some((log, checkpoints)) = self.really.take() {
            (self.log, self.checkpoints) = (log, checkpoints);
            self.queue.clear();
            return;
        }
        let survive = rng.random_range(0..=self.queue.len());
        let mut queue = std::mem::take(&mut self.queue).into_iter();
        for (_, job) in queue.by_ref().take(survive) {
            self.done(&job);
        }
        if let Some((_, Job::Write(torn))) = queue.next() {
            self.tear(torn, rng, coverage);
        }
        if self.bug == Some(Bug::TailLost) && rng.random_range(0..2) == 0 {
            let keep = self.log.entries.len().saturating_sub(rng.random_range(0..3));
            self.log.entries.truncate(keep);
            let last = self.log.entries.last().map_or(self.log.base.index, |e| e.index);
            self.log.hard_state.commit = self.log.hard_state.commit.min(last);
        }
    }

    /// The write that was under way. A torn record of the log does not check and is cut off; an install is several
    /// steps, and a crash may fall between them.
    fn tear(&mut self, write: LogWrite, rng: &mut ChaCha8Rng, coverage: &mut Coverage) {
        coverage.note("torn writes");
        if let Some(state) = write.install
            && rng.random_range(0..2) == 0
        {
            coverage.note("install torn");
            // The one before is no longer to be fallen back on: what it needs of the log may be another history's.
            self.checkpoints = vec![*state];
        }
        if self.bug == Some(Bug::HardStateApart)
            && let Some(hard_state) = write.hard_state
        {
            self.log.hard_state = hard_state;
        }
    }

    /// A checkpoint that the log does not know becomes its base, as in `storage::recover`.
    fn fit_log_to_checkpoint(&mut self) {
        let at = self.checkpoints.last().expect("one is always kept").applied;
        let log = &mut self.log;
        let last = log.entries.last().map_or(log.base.index, |e| e.index);
        assert!(
            log.hard_state.commit <= last,
            "{} is committed, but the log ends at {last}",
            log.hard_state.commit
        );
        if log.hard_state.term < at.term {
            log.hard_state.term = at.term;
            log.hard_state.vote = 0;
        }
        let offset = at.index.checked_sub(log.base.index).expect("the log begins only after the checkpoint");
        let there = match offset {
            0 => Some(log.base),
            offset => log.entries.get(offset as usize - 1).map(LogPosition::of),
        };
        if there != Some(at) {
            assert!(log.hard_state.commit <= at.index, "committed entries are thrown away");
            log.base = at;
            log.entries.clear();
        }
        log.hard_state.commit = log.hard_state.commit.max(at.index);
    }

    /// What a member finds when it starts. Now and then the newest checkpoint is damaged: the one before must do, unless
    /// a snapshot has cut the log off from it.
    pub fn recover(
        &mut self,
        clock: Option<(u64, ClusterTime)>,
        rng: &mut ChaCha8Rng,
        coverage: &mut Coverage,
    ) -> Recovered {
        let older_does = self.checkpoints.len() > 1
            && (self.checkpoints[0].applied.index >= self.log.base.index
                || self.bug == Some(Bug::CompactedTooFar));
        if rng.random_range(0..8) == 0 && older_does {
            coverage.note("checkpoint newest damaged");
            self.checkpoints.pop();
        }
        self.fit_log_to_checkpoint();
        let Log { base, entries, hard_state } = self.log.clone();
        let state = self.checkpoints.last().expect("one is always kept").clone();
        Recovered { state, base, entries, hard_state, clock }
    }

    /// Whether an entry is safe here.
    pub fn holds(&self, at: LogPosition) -> bool {
        self.term_at(at.index).is_none_or(|term| term == at.term) && self.last_index() >= at.index
    }

    /// The term of an entry; none if it is behind the log's base.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let offset = index.checked_sub(self.log.base.index)?;
        match offset {
            0 => Some(self.log.base.term),
            offset => self.log.entries.get(offset as usize - 1).map(|e| e.term),
        }
    }

    pub fn last_index(&self) -> u64 {
        self.log.entries.last().map_or(self.log.base.index, |e| e.index)
    }

    pub fn hard_state(&self) -> &HardState {
        &self.log.hard_state
    }
}

fn membership_of(state: &State) -> Option<Membership> {
    let Some(Body::Head(head)) = state.clone().into_records().next().and_then(|record| record.body) else {
        return None;
    };
    head.membership
}
