//! Who belongs to the cluster changes one member at a time, the same way everywhere; who has left does not come back; and
//! nobody votes who would hold the others up.
//!
//! Of each configuration that is ever seen applied: there is a voter; no two changes are joined into one; the members are
//! those that raft replicates to, no more and no fewer; a vote is given to a member whose disk holds the log up to nearly
//! its end. A leader is a voter of the configuration that it goes by.

use quorate::replica::State;
use raft::eraftpb::ConfState;
use std::collections::{BTreeMap, BTreeSet};

/// A member that lacks more entries than this when it is given its vote had not caught up: what `replica` allows, and
/// what may be under way.
const LACKS_MAX: u64 = 256;

#[derive(Default)]
pub struct Membership {
    /// Voters and learners by the log index at which a member was seen with them.
    applied: BTreeMap<u64, (BTreeSet<u64>, BTreeSet<u64>)>,
    removed: BTreeSet<u64>,
}

fn sets(membership: &ConfState) -> (BTreeSet<u64>, BTreeSet<u64>) {
    (membership.voters.iter().copied().collect(), membership.learners.iter().copied().collect())
}

impl Membership {
    /// After each step of a member. Whether the configuration is new to all.
    pub fn check(&mut self, state: &State, last_on_disk: impl Fn(u64) -> u64) -> bool {
        if state.membership.voters.is_empty() {
            // A member that joins knows nothing yet.
            assert_eq!(state.applied.index, 0, "a cluster without voters");
            return false;
        }
        let now = sets(&state.membership);
        let index = state.applied.index;
        let known = self.applied.range(..=index).next_back();
        if known.is_some_and(|(_, known)| *known == now) {
            return false;
        }
        assert!(
            known.is_none_or(|(at, _)| *at < index),
            "two configurations at {index}: {known:?} and {now:?}"
        );
        let first = self.applied.range(index..).next().is_none();
        let joint =
            !state.membership.voters_outgoing.is_empty() || !state.membership.learners_next.is_empty();
        assert!(!joint, "only simple changes are made");
        let ids: BTreeSet<u64> = now.0.union(&now.1).copied().collect();
        assert!(ids.iter().eq(state.members.keys()), "members and configuration differ at {index}");
        assert!(ids.is_disjoint(&state.removed), "a member came back that was removed");
        if let Some((_, before)) = known.filter(|_| first) {
            for voter in now.0.difference(&before.0) {
                let last = last_on_disk(*voter);
                assert!(
                    last + LACKS_MAX >= index,
                    "member {voter} got its vote at {index} and has up to {last}"
                );
            }
        }
        self.removed.extend(&state.removed);
        self.applied.insert(index, now);
        true
    }

    /// A member leads.
    pub fn leads(member: u64, state: &State) {
        let voters = &state.membership.voters;
        assert!(voters.contains(&member), "member {member} leads and is no voter of {voters:?}");
    }
}
