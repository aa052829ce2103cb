//! A state as the records of `proto/state.proto`, and back: what a checkpoint holds and a snapshot carries.
//!
//! The `Tail` with count and checksum is not made here: whoever writes the records appends it, whoever reads them has
//! checked it (`storage`, `transport`).

use super::LogPosition;
use super::sessions::Sessions;
use super::state::{MemberInfo, State};
use crate::proto::state::{self, Head, History, Membership, Page, Record, record::Body};
use crate::store::{Action, ClusterTime, Event, HistoryLimits, Key, Node, Store};
use bytes::Bytes;
use raft::eraftpb::ConfState;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many bytes of keys and values go into one record before the next is begun. One value may be larger.
const PAGE_BYTES: usize = 4096;

impl State {
    /// The records of this state, made one by one as they are asked for.
    pub fn into_records(self) -> impl Iterator<Item = Record> + Send {
        let head = Record { body: Some(Body::Head(head(&self))) };
        let mut next_key = Some(Key::root());
        let nodes = self.store.clone();
        let pages = std::iter::from_fn(move || {
            let from = next_key.take()?;
            let mut page = Page::default();
            let mut bytes = 0;
            for node in nodes.nodes_after(&from) {
                if bytes >= PAGE_BYTES {
                    next_key = page.nodes.last().map(|last| Key::parse(&last.key));
                    break;
                }
                bytes += node.key.as_bytes().len() + node.value.as_ref().map_or(0, Bytes::len) + 32;
                page.nodes.push(node_record(&node));
            }
            (!page.nodes.is_empty()).then_some(Record { body: Some(Body::Page(page)) })
        });
        let mut next_index = Some(0);
        let store = self.store;
        let history = std::iter::from_fn(move || {
            let from = next_index.take()?;
            let mut page = History::default();
            let mut bytes = 0;
            for event in store.history().iter_from(from) {
                if bytes >= PAGE_BYTES {
                    next_index = Some(event.index);
                    break;
                }
                let record = event_record(event);
                bytes += prost::Message::encoded_len(&record);
                page.events.push(record);
            }
            (!page.events.is_empty()).then_some(Record { body: Some(Body::History(page)) })
        });
        std::iter::once(head).chain(pages).chain(history)
    }

    /// Rebuilds a state.
    ///
    /// # Errors
    /// What is wrong with the records.
    pub fn from_records(records: &[Record], limits: HistoryLimits) -> Result<Self, String> {
        let Some(Body::Head(head)) = records.first().and_then(|r| r.body.as_ref()) else {
            return Err("the first record is not a head".into());
        };
        let mut nodes = Vec::new();
        let mut events = Vec::new();
        for record in &records[1..] {
            match &record.body {
                Some(Body::Page(page)) => {
                    for node in &page.nodes {
                        nodes.push(node_from(node));
                    }
                }
                Some(Body::History(page)) => {
                    for event in &page.events {
                        events.push(Arc::new(event_from(event)?));
                    }
                }
                Some(Body::Tail(_)) => {}
                Some(Body::Head(_)) | None => return Err("a record is out of place".into()),
            }
        }
        let store = Store::from_parts(limits, head.store_index, head.digest, nodes, events)?;
        let membership = head.membership.clone().unwrap_or_default();
        // A member that joins begins with nothing, before the cluster's first entry.
        if membership.voters.is_empty() && head.applied_index > 0 {
            return Err("the head names no voters".into());
        }
        Ok(Self {
            cluster_id: head.cluster_id,
            applied: LogPosition { index: head.applied_index, term: head.applied_term },
            time: ClusterTime(head.time_ms),
            store,
            members: Arc::new(members_from(&membership)),
            removed: membership.removed.iter().copied().collect(),
            membership: conf_state_from(&membership),
            sessions: Sessions::from_records(&head.sessions)?,
        })
    }
}

fn head(state: &State) -> Head {
    Head {
        cluster_id: state.cluster_id,
        applied_index: state.applied.index,
        applied_term: state.applied.term,
        time_ms: state.time.0,
        store_index: state.store.index(),
        digest: state.store.digest(),
        membership: Some(Membership {
            voters: state.membership.voters.clone(),
            learners: state.membership.learners.clone(),
            voters_outgoing: state.membership.voters_outgoing.clone(),
            learners_next: state.membership.learners_next.clone(),
            auto_leave: state.membership.auto_leave,
            members: state
                .members
                .iter()
                .map(|(id, info)| state::Member {
                    id: *id,
                    name: info.name.clone(),
                    peer_urls: info.peer_urls.clone(),
                    client_urls: info.client_urls.clone(),
                    standby: info.standby,
                    incarnation: info.incarnation,
                })
                .collect(),
            removed: state.removed.iter().copied().collect(),
        }),
        sessions: state.sessions.to_records(),
    }
}

fn members_from(membership: &Membership) -> BTreeMap<u64, MemberInfo> {
    let info = |m: &state::Member| MemberInfo {
        name: m.name.clone(),
        peer_urls: m.peer_urls.clone(),
        client_urls: m.client_urls.clone(),
        standby: m.standby,
        incarnation: m.incarnation,
    };
    membership.members.iter().map(|m| (m.id, info(m))).collect()
}

fn conf_state_from(membership: &Membership) -> ConfState {
    let mut conf = ConfState::from((membership.voters.clone(), membership.learners.clone()));
    conf.set_voters_outgoing(membership.voters_outgoing.clone());
    conf.set_learners_next(membership.learners_next.clone());
    conf.auto_leave = membership.auto_leave;
    conf
}

fn node_record(node: &Node) -> state::Node {
    state::Node {
        key: node.key.to_bytes(),
        value: node.value.clone().unwrap_or_default(),
        directory: node.dir,
        deadline_plus_one: node.deadline.map_or(0, |d| d.0.saturating_add(1)),
        created_index: node.created,
        modified_index: node.modified,
    }
}

fn node_from(record: &state::Node) -> Node {
    Node {
        key: Key::parse(&record.key),
        value: (!record.directory).then(|| Bytes::copy_from_slice(&record.value)),
        dir: record.directory,
        deadline: record.deadline_plus_one.checked_sub(1).map(ClusterTime),
        created: record.created_index,
        modified: record.modified_index,
    }
}

const ACTIONS: [(Action, state::Action); 7] = [
    (Action::Set, state::Action::Set),
    (Action::Create, state::Action::Create),
    (Action::Update, state::Action::Update),
    (Action::CompareAndSwap, state::Action::CompareAndSwap),
    (Action::Delete, state::Action::Delete),
    (Action::CompareAndDelete, state::Action::CompareAndDelete),
    (Action::Expire, state::Action::Expire),
];

fn event_record(event: &Event) -> state::Event {
    let action = ACTIONS.iter().find(|(ours, _)| *ours == event.action).map(|(_, theirs)| *theirs);
    state::Event {
        index: event.index,
        action: action.unwrap_or_default().into(),
        node: Some(node_record(&event.node)),
        prev_node: event.prev_node.as_ref().map(node_record),
        refresh: event.refresh,
        time_ms: event.time.0,
    }
}

fn event_from(record: &state::Event) -> Result<Event, String> {
    let action = ACTIONS
        .iter()
        .find(|(_, theirs)| *theirs == record.action())
        .map(|(ours, _)| *ours)
        .ok_or_else(|| format!("event {} has no action that is known here", record.index))?;
    let node = record.node.as_ref().ok_or_else(|| format!("event {} has no node", record.index))?;
    let mut node = node_from(node);
    if action.removes() {
        node.value = None;
    }
    Ok(Event {
        index: record.index,
        action,
        node,
        prev_node: record.prev_node.as_ref().map(node_from),
        refresh: record.refresh,
        time: ClusterTime(record.time_ms),
    })
}
