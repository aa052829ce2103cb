//! A state as the records of `proto/state.proto`, and back: what a checkpoint holds and a snapshot carries.
//!
//! The `Tail` with count and checksum is not made here: whoever writes the records appends it, whoever reads them has
//! checked it (`storage`, `transport`).

use super::LogPosition;
use super::sessions::Sessions;
use super::state::{MemberInfo, State};
use crate::proto::state::{self, Head, History, Membership, Page, Record, record::Body};
use crate::store::{Action, ClusterTime, Event, HistoryLimits, Key, Node, Store, StoreBuilder};
use bytes::Bytes;
use raft::eraftpb::ConfState;
use std::borrow::Borrow;
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
                page.nodes.push(node_record(node, true));
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
                let record = event_record(event, &store);
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
        Self::from_stream(records.iter().map(Ok), limits, None)
    }

    /// Rebuilds a state from records as they come; they are not kept. What is the same in a `known` store is shared with it.
    ///
    /// # Errors
    /// What is wrong with the records, or the first error among them.
    pub fn from_stream<R: Borrow<Record>>(
        records: impl IntoIterator<Item = Result<R, String>>,
        limits: HistoryLimits,
        known: Option<Store>,
    ) -> Result<Self, String> {
        let mut records = records.into_iter();
        let first = records.next().transpose()?;
        let Some(Body::Head(head)) = first.as_ref().and_then(|record| record.borrow().body.as_ref()) else {
            return Err("the first record is not a head".into());
        };
        let mut store = StoreBuilder::new(limits, head.store_index, head.digest).sharing(known);
        // All of them, also those that are cut from the history: later ones refer to them.
        let mut events = Vec::new();
        for record in records {
            match &record?.borrow().body {
                Some(Body::Page(page)) => {
                    for node in &page.nodes {
                        store.add_node(&node_from(node))?;
                    }
                }
                Some(Body::History(page)) => {
                    for event in &page.events {
                        let event = store.share_event(event_from(event, &events, &store)?);
                        store.add_event(Arc::clone(&event))?;
                        events.push(event);
                    }
                }
                Some(Body::Tail(_)) => {}
                Some(Body::Head(_)) | None => return Err("a record is out of place".into()),
            }
        }
        let store = store.build()?;
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

fn node_record(node: &Node, with_value: bool) -> state::Node {
    state::Node {
        key: node.key.to_bytes(),
        value: node.value.as_ref().filter(|_| with_value).cloned().unwrap_or_default(),
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

fn event_record(event: &Event, store: &Store) -> state::Event {
    let has_value = |node: &Node| node.value.as_ref().is_some_and(|value| !value.is_empty());
    let same = |one: &Arc<Node>, other: &Arc<Node>| {
        Arc::ptr_eq(one, other) || (one.key == other.key && one.value == other.value)
    };
    let before = |prev: &Node| store.history().get(prev.modified).map(|before| &before.node);
    let prev_value_left_out = event
        .prev_node
        .as_ref()
        .is_some_and(|prev| has_value(prev) && before(prev).is_some_and(|before| same(before, prev)));
    let prev_node = event.prev_node.as_ref().map(|prev| node_record(prev, !prev_value_left_out));
    let node = &event.node;
    let now = || store.node(&node.key).filter(|now| now.modified == event.index);
    let value_left_out = has_value(node) && now().is_some_and(|now| same(now, node));
    let node = node_record(node, !value_left_out);
    let action = ACTIONS.iter().find(|(ours, _)| *ours == event.action).map(|(_, theirs)| *theirs);
    state::Event {
        index: event.index,
        action: action.unwrap_or_default().into(),
        node: Some(node),
        prev_node,
        refresh: event.refresh,
        time_ms: event.time.0,
        prev_value_left_out,
        value_left_out,
    }
}

/// `before` are the events before this one, without a gap; `store` has all nodes.
fn event_from(record: &state::Event, before: &[Arc<Event>], store: &StoreBuilder) -> Result<Event, String> {
    let action = ACTIONS
        .iter()
        .find(|(_, theirs)| *theirs == record.action())
        .map(|(ours, _)| *ours)
        .ok_or_else(|| format!("event {} has no action that is known here", record.index))?;
    let node = record.node.as_ref().ok_or_else(|| format!("event {} has no node", record.index))?;
    let mut node = node_from(node);
    let now = store.node(&node.key).filter(|now| now.modified == record.index);
    if record.value_left_out {
        let now = now.ok_or_else(|| format!("event {} lacks its value", record.index))?;
        node.value.clone_from(&now.value);
    }
    if action.removes() {
        node.value = None;
    }
    let node = now.filter(|now| ***now == node).map_or_else(|| Arc::new(node), Arc::clone);
    let mut prev_node = record.prev_node.as_ref().map(node_from);
    let mut before_it = None;
    if let (Some(prev), true) = (&mut prev_node, record.prev_value_left_out) {
        let first = before.first().map_or(record.index, |event| event.index);
        let position = prev.modified.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let set_by = position.and_then(|at| before.get(at)).filter(|event| event.node.key == prev.key);
        let set_by = set_by.ok_or_else(|| format!("event {} lacks the value before it", record.index))?;
        prev.value.clone_from(&set_by.node.value);
        before_it = Some(&set_by.node).filter(|node| ***node == *prev);
    }
    let prev_node = before_it.map(Arc::clone).or_else(|| prev_node.map(Arc::new));
    Ok(Event {
        index: record.index,
        action,
        node,
        prev_node,
        refresh: record.refresh,
        time: ClusterTime(record.time_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Command, Compare};

    const LIMITS: HistoryLimits = HistoryLimits { events: 50, bytes: 1 << 20 };

    fn set(key: &str, value: &'static [u8], dir: bool) -> Command {
        let value = Bytes::from_static(value);
        Command::Set { key: Key::parse(key.as_bytes()), value, dir, ttl: None, refresh: false }
    }

    fn state(commands: impl IntoIterator<Item = Command>) -> State {
        let mut state = State::founding(7, BTreeMap::from([(1, MemberInfo::default())]), LIMITS);
        for command in commands {
            state.store.apply(ClusterTime(5), &command).unwrap();
        }
        state
    }

    fn history(state: &State) -> Vec<Event> {
        state.store.history().iter_from(0).map(|event| (**event).clone()).collect()
    }

    #[test]
    fn what_was_before_an_event_is_written_once_and_comes_back() {
        const LARGE: &[u8] = &[7; 2000];
        let key = Key::parse(b"/k");
        let refresh =
            Command::Set { key: key.clone(), value: Bytes::new(), dir: false, ttl: Some(9), refresh: true };
        let swap = Command::CompareAndSwap {
            key: key.clone(),
            compare: Compare { prev_value: Bytes::new(), prev_index: 2 },
            value: Bytes::from_static(LARGE),
            ttl: None,
            refresh: false,
        };
        let delete = Command::Delete { key, dir: false, recursive: false };
        let few =
            [set("/k", LARGE, false), set("/k", b"", false), swap, refresh, delete, set("/k", b"", true)];
        // The oldest event of the second was preceded by one that is forgotten.
        let many = (0..80).map(|_| set("/k", LARGE, false));
        let near =
            ["/a", "/a-b", "/a/b", "/a0", "/a/b/c"].map(|key| set(key, LARGE, key == "/a" || key == "/a/b"));
        for state in [state(few), state(many), state(near)] {
            let records: Vec<_> = state.clone().into_records().collect();
            let bytes: usize = records.iter().map(prost::Message::encoded_len).sum();
            let values: usize =
                history(&state).iter().filter_map(|e| e.node.value.as_ref()).map(Bytes::len).sum();
            // What a key has now is in the pages, and what was before an event in the event before it.
            assert!(bytes < values.max(1) + LARGE.len() + 200 * 50, "{bytes} for {values}");
            let again = State::from_records(&records, LIMITS).unwrap();
            assert_eq!(history(&again), history(&state));
            assert_eq!(again.store.history().bytes(), state.store.history().bytes());
        }
    }

    #[test]
    fn a_history_that_refers_to_what_it_does_not_have_is_refused() {
        let mut records: Vec<_> =
            state([set("/k", b"1", false), set("/k", b"2", false)]).into_records().collect();
        let history = records.iter_mut().find_map(|record| match &mut record.body {
            Some(Body::History(history)) => Some(history),
            _ => None,
        });
        history.unwrap().events[1].prev_node.as_mut().unwrap().modified_index = 77;
        assert!(State::from_records(&records, LIMITS).unwrap_err().contains("lacks the value"));
        let page = records.iter_mut().find_map(|record| match &mut record.body {
            Some(Body::Page(page)) => Some(page),
            _ => None,
        });
        let node = &mut page.unwrap().nodes[0];
        (node.created_index, node.modified_index) = (1, 1);
        assert!(State::from_records(&records, LIMITS).unwrap_err().contains("lacks its value"));
    }
}
