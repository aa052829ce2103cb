//! The replicated state as readers see it.

use crate::http::backend::{Member, Summary, View};
use crate::replica::{MemberInfo, State};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A state as it is published at first.
pub(super) fn view_of(state: &State) -> View {
    let members = Arc::new(members_of(state));
    View::of(&state.store, Summary::of(&state.store, state.applied.index, 0, members))
}

/// The members as `/v2/members` shows them.
pub(super) fn members_of(state: &State) -> BTreeMap<u64, Member> {
    let learner = |id| state.membership.learners.contains(id);
    state.members.iter().map(|(id, info)| (*id, member(*id, info, learner(id)))).collect()
}

pub(super) fn member(id: u64, info: &MemberInfo, learner: bool) -> Member {
    Member {
        id,
        name: info.name.clone(),
        peer_urls: info.peer_urls.clone(),
        client_urls: info.client_urls.clone(),
        learner,
    }
}

/// Tells the log who came and who left.
pub(super) fn log_members(before: Option<&BTreeMap<u64, MemberInfo>>, now: &BTreeMap<u64, MemberInfo>) {
    let Some(before) = before else { return };
    for (id, info) in now.iter().filter(|(id, _)| !before.contains_key(id)) {
        let urls = info.peer_urls.join(",");
        tracing::info!(member = format_args!("{id:x}"), urls, standby = info.standby, "a member was added");
        crash_point!("member.added");
    }
    for (id, info) in before.iter().filter(|(id, _)| !now.contains_key(id)) {
        tracing::info!(member = format_args!("{id:x}"), name = info.name, "a member was removed");
        crash_point!("member.removed");
    }
}

/// Tells the log who got a vote.
pub(super) fn log_votes(before: &BTreeMap<u64, Member>, now: &BTreeMap<u64, Member>) {
    let got_it =
        |id: &u64, member: &Member| !member.learner && before.get(id).is_some_and(|known| known.learner);
    for (id, member) in now.iter().filter(|(id, member)| got_it(id, member)) {
        tracing::info!(member = format_args!("{id:x}"), name = member.name, "a member got its vote");
        crash_point!("member.promoted");
    }
}
