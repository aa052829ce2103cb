//! When a checkpoint is due: the log is kept to about the size of the state.
//!
//! The log reaches back to the older of two checkpoints, so it is between one and two times what is written between
//! them, and a member that was away for less than that catches up from it. What is written between two follows the size
//! of the state, so that checkpoints cost about as much as the log itself, and disk use stays in proportion to what the
//! member holds.
//!
//! Members apply the same log, so they would all come to that point at one moment, and whatever majority a write waits for would be
//! busy with a checkpoint. So the first that a member takes after a start comes earlier by its place among the voters, and those
//! after it keep the distance.

use crate::replica::State;
use std::time::Duration;

/// After a checkpoint that failed, and between two that are taken because space is short.
const PAUSE: Duration = Duration::from_secs(10);

/// Bounds of the log between two checkpoints.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckpointPolicy {
    /// Applied entries at the most.
    pub entries: u64,
    /// Bytes of the log, however small the state is.
    pub log_bytes_min: u64,
    /// Bytes of the log, however large the state is.
    pub log_bytes_max: u64,
}

/// Keeps count of the log since the last checkpoint.
#[derive(Debug)]
pub(super) struct CheckpointPlan {
    policy: CheckpointPolicy,
    /// The member's id.
    own: u64,
    /// None was taken since the start.
    first: bool,
    running: bool,
    last_index: u64,
    bytes_since: u64,
    /// What these were before the one that is running.
    before: (u64, u64),
    /// Space is short: a checkpoint lets go of log, and of a larger checkpoint before it.
    hurry: bool,
    not_before: Duration,
}

impl CheckpointPlan {
    /// Of the member with this id, that starts with `log_bytes` of log behind a checkpoint at the applied state's position or before.
    pub(super) fn new(policy: CheckpointPolicy, own: u64, applied: u64, log_bytes: u64) -> Self {
        Self {
            policy,
            own,
            first: true,
            running: false,
            last_index: applied,
            bytes_since: log_bytes,
            before: (applied, log_bytes),
            hurry: false,
            not_before: Duration::ZERO,
        }
    }

    /// So much was written to the log.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.bytes_since += bytes;
    }

    /// Whether one is to be taken of this state now. If so, it counts as begun.
    pub(super) fn begin_if_due(&mut self, state: &State, now: Duration) -> bool {
        let entries = state.applied.index.saturating_sub(self.last_index);
        let CheckpointPolicy { entries: entries_max, log_bytes_min, log_bytes_max } = self.policy;
        let bytes = state.store.byte_count().min(log_bytes_max).max(log_bytes_min);
        let (entries_max, bytes) = (self.share(state, entries_max), self.share(state, bytes));
        let due = entries >= entries_max || self.bytes_since >= bytes || self.hurry;
        if !due || entries == 0 || self.running || now < self.not_before {
            return false;
        }
        self.before = (self.last_index, self.bytes_since);
        (self.running, self.first) = (true, false);
        (self.last_index, self.bytes_since) = (state.applied.index, 0);
        if self.hurry {
            self.not_before = now + PAUSE;
        }
        true
    }

    /// What is left of this until the first: less for each voter before this member.
    fn share(&self, state: &State, whole: u64) -> u64 {
        let voters = &state.membership.voters;
        if !self.first || voters.is_empty() {
            return whole;
        }
        let before = voters.iter().filter(|voter| **voter < self.own).count().min(voters.len() - 1);
        whole - whole / voters.len() as u64 * before as u64
    }

    /// Space is short, or not any more.
    pub(super) fn set_hurry(&mut self, hurry: bool) {
        self.hurry = hurry;
    }

    /// The one that was begun is there.
    pub(super) fn ended(&mut self) {
        self.running = false;
    }

    /// The one that was begun could not be written: another follows, in a while.
    pub(super) fn failed(&mut self, now: Duration) {
        let (last_index, bytes) = self.before;
        (self.running, self.last_index, self.bytes_since) = (false, last_index, bytes + self.bytes_since);
        self.not_before = now + PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::MemberInfo;
    use crate::store::HistoryLimits;
    use std::collections::BTreeMap;

    const MS: Duration = Duration::from_millis(1);
    const POLICY: CheckpointPolicy =
        CheckpointPolicy { entries: 100, log_bytes_min: 1000, log_bytes_max: 5000 };

    fn state(applied: u64) -> State {
        let members = BTreeMap::from([(1, MemberInfo::default())]);
        let mut state = State::founding(7, members, HistoryLimits { events: 10, bytes: 1000 });
        state.applied.index = applied;
        state
    }

    #[test]
    fn one_is_due_by_entries_or_bytes_and_one_at_a_time() {
        let mut plan = CheckpointPlan::new(POLICY, 1, 1, 0);
        assert!(!plan.begin_if_due(&state(100), MS));
        plan.wrote(999);
        assert!(!plan.begin_if_due(&state(100), MS));
        plan.wrote(1);
        assert!(plan.begin_if_due(&state(100), MS), "by bytes");
        plan.wrote(10_000);
        assert!(!plan.begin_if_due(&state(300), MS), "one at a time");
        plan.ended();
        assert!(!plan.begin_if_due(&state(100), MS), "nothing was applied since");
        assert!(plan.begin_if_due(&state(101), MS));
        plan.ended();
        assert!(!plan.begin_if_due(&state(200), MS));
        assert!(plan.begin_if_due(&state(201), MS), "by entries");
    }

    #[test]
    fn members_take_theirs_at_different_times() {
        let members = |applied| {
            let mut state = state(applied);
            state.membership.voters = vec![30, 10, 20];
            state
        };
        let taken = |own| -> Vec<u64> {
            let mut plan = CheckpointPlan::new(POLICY, own, 0, 0);
            let due = |applied: &u64| {
                let due = plan.begin_if_due(&members(*applied), MS);
                plan.ended();
                due
            };
            (1..=300).filter(due).collect()
        };
        assert_eq!(taken(10), [100, 200, 300]);
        assert_eq!(taken(20), [67, 167, 267]);
        assert_eq!(taken(30), [34, 134, 234]);
        assert_eq!(taken(40), [34, 134, 234], "not a voter yet");
        // By bytes too.
        let mut plan = CheckpointPlan::new(POLICY, 30, 0, 0);
        plan.wrote(333);
        assert!(!plan.begin_if_due(&members(1), MS));
        plan.wrote(1);
        assert!(plan.begin_if_due(&members(1), MS));
        plan.ended();
        plan.wrote(999);
        assert!(!plan.begin_if_due(&members(2), MS));
    }

    #[test]
    fn one_that_failed_is_tried_again_and_short_space_hurries() {
        let mut plan = CheckpointPlan::new(POLICY, 1, 1, 0);
        plan.wrote(1000);
        assert!(plan.begin_if_due(&state(5), MS));
        plan.failed(MS);
        assert!(!plan.begin_if_due(&state(5), PAUSE), "not at once");
        assert!(plan.begin_if_due(&state(5), PAUSE + MS), "and of the same state");
        plan.ended();
        plan.set_hurry(true);
        assert!(!plan.begin_if_due(&state(5), PAUSE + MS), "nothing is new");
        assert!(plan.begin_if_due(&state(6), PAUSE + MS));
        plan.ended();
        assert!(!plan.begin_if_due(&state(7), PAUSE + 2 * MS), "not all the time");
        assert!(plan.begin_if_due(&state(7), PAUSE + MS + PAUSE));
    }
}
