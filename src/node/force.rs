//! `-force-new-cluster`: a lone survivor goes on as a cluster of its own.
//!
//! For the day on which a quorum is gone for good. The survivor keeps everything that is in its log, which is all that
//! was ever acknowledged with its help and perhaps more, and counts every other member as removed, so that none of them
//! can take part again without having been added anew. If the others are alive after all, there are two clusters from
//! then on: that is why a person has to ask for it.
//!
//! Crash-safe: the new beginning is a checkpoint beyond the end of the log, which recovery takes as the log's new base.

use super::StartError;
use super::bootstrap::Member;
use crate::replica::{LogPosition, Recovered};
use raft::eraftpb::{ConfState, HardState};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes the member the only one of its cluster, if it is not that already.
pub(super) fn alone(member: Member) -> Result<Member, StartError> {
    let Member { identity, storage, recovered } = member;
    let own = identity.member_id;
    let Recovered { mut state, entries, hard_state, clock, base } = recovered;
    let others = |state: &crate::replica::State| state.members.keys().any(|id| *id != own);
    let as_member = state.members.get(&own).cloned().unwrap_or_default();
    state.replay(&entries).map_err(StartError::Damaged)?;
    if !others(&state) && state.membership.voters == [own] {
        tracing::warn!("-force-new-cluster: this member is alone already; remove the flag");
        let recovered = Recovered { state, base, entries, hard_state, clock };
        return Ok(Member { identity, storage, recovered });
    }
    let gone: Vec<u64> = state.members.keys().copied().filter(|id| *id != own).collect();
    // The last entries may have removed it: it is the one that is left all the same.
    let info = state.members.get(&own).cloned().unwrap_or(as_member);
    state.members = Arc::new(BTreeMap::from([(own, info)]));
    state.removed.extend(&gone);
    state.removed.remove(&own);
    state.membership = ConfState::from((vec![own], vec![]));
    let term = hard_state.term.max(state.applied.term) + 1;
    state.applied = LogPosition { index: state.applied.index + 1, term };
    let hard_state = HardState { term, commit: state.applied.index, ..HardState::default() };
    storage.checkpoints.save(state.applied, state.clone().into_records())?;
    crash_point!("force.checkpointed");
    storage.log.reset(state.applied, &hard_state)?;
    tracing::warn!(
        index = state.applied.index,
        removed = gone.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>().join(","),
        "-force-new-cluster: this member is a cluster of its own now; start it without the flag from now on, and the \
         others only after their data directories are emptied and they were added anew"
    );
    let recovered = Recovered { base: state.applied, state, entries: Vec::new(), hard_state, clock };
    Ok(Member { identity, storage, recovered })
}
