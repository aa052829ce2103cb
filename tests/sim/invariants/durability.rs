//! What is committed is on the disks of a quorum, and nothing is applied that is not committed.

use quorate::replica::{LogPosition, Standing, State};
use raft::eraftpb::ConfState;

pub struct Durability {
    committed: u64,
}

impl Default for Durability {
    fn default() -> Self {
        Self { committed: LogPosition::FOUNDING.index }
    }
}

impl Durability {
    /// After each step of a member; `held` says whether a quorum has one and the same entry of this index on disk. How
    /// much more is committed.
    pub fn check(
        &mut self,
        member: u64,
        standing: Standing,
        state: &State,
        held: impl Fn(u64) -> bool,
    ) -> u64 {
        let applied = state.applied.index;
        assert!(applied <= standing.commit, "member {member} applied {applied} of {}", standing.commit);
        if standing.commit <= self.committed {
            return 0;
        }
        assert!(held(standing.commit), "{} is committed, and not on the disks of a quorum", standing.commit);
        let more = standing.commit - self.committed;
        self.committed = standing.commit;
        more
    }
}

/// Whether those for whom it is true are a quorum.
pub fn quorum(membership: &ConfState, is: impl Fn(&u64) -> bool) -> bool {
    let majority = |voters: &[u64]| voters.iter().filter(|id| is(id)).count() * 2 > voters.len();
    let joint = membership.voters_outgoing.is_empty() || majority(&membership.voters_outgoing);
    majority(&membership.voters) && joint
}
