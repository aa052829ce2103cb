//! What the driver makes known to those who ask without asking it: the state, who the members are, how the member stands.

use super::alarms::log_refusal;
use super::links::{KnownStatus, Links};
use super::view::{log_members, log_votes, members_of};
use crate::http::backend::{Alarm, Member, Status, View};
use crate::replica::{MemberInfo, Replica, Standing};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What was made known last.
#[derive(Default)]
pub(super) struct Publisher {
    /// The members as they were last published and told to the transport.
    members_told: Option<Arc<BTreeMap<u64, MemberInfo>>>,
    members: Arc<BTreeMap<u64, Member>>,
}

impl Publisher {
    /// Publishes the state, and tells the transport who the others are.
    pub(super) fn publish(&mut self, replica: &Replica, links: &Links) {
        let state = replica.state();
        if !self.members_told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &state.members)) {
            let members = Arc::clone(&state.members);
            log_members(self.members_told.as_deref(), &members);
            let own = links.status.load().status.id;
            let others = members.iter().filter(|(id, _)| **id != own);
            // The roster first: the transport asks it who of those that call may go on.
            links.roster.store(Arc::new(state.roster()));
            links.peers.set_peers(others.map(|(id, info)| (*id, info.peer_urls.clone())).collect());
            let before = std::mem::replace(&mut self.members, Arc::new(members_of(state)));
            log_votes(&before, &self.members);
            self.members_told = Some(members);
        }
        let view = View {
            store: state.store.clone(),
            raft_index: state.applied.index,
            raft_term: replica.standing().term,
            members: Arc::clone(&self.members),
        };
        links.view.store(Arc::new(view));
    }
}

/// Publishes how the member stands, with so many keys expired since, and tells the log what changed.
pub(super) fn note_standing(replica: &Replica, links: &Links, expired: u64) {
    let standing = replica.standing();
    let applied = replica.state().applied.index;
    let known = links.status.load();
    let before = &known.status;
    let changed = (before.term, before.leader) != (standing.term, standing.leader);
    let refusing = before.alarms.contains(&Alarm::WritesRefused);
    let same = (before.commit, before.applied) == (standing.commit, applied)
        && refusing == standing.refuses.is_some();
    if !changed && expired == 0 && same {
        return;
    }
    if refusing != standing.refuses.is_some() {
        log_refusal(&standing);
    }
    if changed {
        log_change(before, &standing);
    }
    if before.leader == before.id && !standing.leads {
        links.peers.stop_snapshots();
    }
    let leader_since = if changed { Instant::now() } else { known.leader_since };
    let status = Status {
        leader: standing.leader,
        term: standing.term,
        commit: standing.commit,
        applied,
        expired: before.expired + expired,
        alarms: standing.refuses.map(|_| Alarm::WritesRefused).into_iter().collect(),
        ..before.clone()
    };
    drop(known);
    links.status.store(Arc::new(KnownStatus { status, leader_since }));
}

fn log_change(before: &Status, now: &Standing) {
    if now.leads {
        tracing::info!(term = now.term, "this member leads the cluster now");
    } else if now.leader != 0 {
        tracing::info!(
            term = now.term,
            leader = format_args!("{:x}", now.leader),
            "the cluster has a leader"
        );
    } else if before.leader != 0 {
        tracing::warn!(term = now.term, "the leader is lost; an election is to follow");
    }
}
