//! What the driver makes known: the state to those who look (see [`super::published`]), who the members are, how the
//! member stands.

use super::alarms::log_refusal;
use super::links::{KnownStatus, Links};
use super::view::{log_members, log_votes, members_of};
use super::waiters::ReadReply;
use crate::http::backend::{Alarm, Member, Status, Summary, View};
use crate::replica::{MemberInfo, Replica, Standing};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What was made known last.
#[derive(Default)]
pub(super) struct Publisher {
    summary: Arc<Summary>,
    /// The state that readers have in reach.
    view: Option<Arc<View>>,
    /// Who found none.
    asked: Vec<ReadReply>,
    /// The members as they were last published and told to the transport.
    members_told: Option<Arc<BTreeMap<u64, MemberInfo>>>,
    members: Arc<BTreeMap<u64, Member>>,
}

impl Publisher {
    /// Somebody wants the state and found none.
    pub(super) fn ask(&mut self, reply: ReadReply) {
        self.asked.push(reply);
    }

    /// To be called before the state may change: takes it back if nobody has looked at it, so that it need not be copied.
    pub(super) fn take_back(&mut self, links: &Links) {
        if !links.published.was_looked_at() {
            links.published.put_view(None);
            self.view = None;
        }
    }

    /// The state as it was published last, for those who are answered now.
    pub(super) fn view(&mut self, replica: &Replica, links: &Links) -> Arc<View> {
        let view = self.view.get_or_insert_with(|| {
            let store = replica.state().store.clone();
            let view = Arc::new(View { store, summary: Arc::clone(&self.summary) });
            links.published.put_view(Some(Arc::clone(&view)));
            view
        });
        Arc::clone(view)
    }

    /// To be called when all is published: the state is in reach again, and who found none gets it.
    pub(super) fn answer(&mut self, replica: &Replica, links: &Links) {
        let view = self.view(replica, links);
        for reply in self.asked.drain(..) {
            let _ = reply.send(Ok(Arc::clone(&view)));
        }
    }

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
        let term = replica.standing().term;
        let members = Arc::clone(&self.members);
        self.summary = Arc::new(Summary::of(&state.store, state.applied.index, term, members));
        let view = Arc::new(View { store: state.store.clone(), summary: Arc::clone(&self.summary) });
        links.published.put(Arc::clone(&view));
        self.view = Some(view);
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
