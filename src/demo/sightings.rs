//! What one watcher has seen, and whether it can be all: the events of each key form a chain, since each event tells
//! the one before it.

use super::api::Reply;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// The last events that a view may show.
const RECENT_MOST: usize = 12;

/// One watcher's book.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// The member that it listens to.
    pub(super) at: usize,
    /// Index of every event, in order of arrival.
    pub(super) indexes: Vec<u64>,
    /// What was wrong with them.
    pub(super) faults: Vec<String>,
    /// Times that it had to go to another member.
    pub(super) moves: u64,
    /// Keys that expired: when it was heard of.
    pub(super) expired: HashMap<String, Instant>,
    /// The last few, but for the probe's.
    pub(super) recent: VecDeque<(u64, String)>,
    /// The last event of each key that exists.
    chain: HashMap<String, u64>,
}

impl Sightings {
    pub(super) fn new(at: usize) -> Self {
        Self { at, ..Self::default() }
    }

    /// Index of the last event.
    pub(super) fn last(&self) -> u64 {
        self.indexes.last().copied().unwrap_or(0)
    }

    /// Writes down an event; whether it is the first of its key's life.
    pub(super) fn take(&mut self, event: &Reply, now: Instant) -> bool {
        let (key, index) = (&event.node.key, event.node.modified_index);
        if index <= self.last() {
            self.faults.push(format!("event {index} came after event {}", self.last()));
        }
        let (told, seen) =
            (event.prev_node.as_ref().map(|node| node.modified_index), self.chain.get(key).copied());
        if told != seen {
            self.faults.push(format!(
                "event {index} on {key} follows event {}, the last one seen is {}",
                shown(told),
                shown(seen)
            ));
        }
        self.indexes.push(index);
        match event.action.as_str() {
            "expire" | "delete" => {
                self.chain.remove(key);
                self.expired.insert(key.clone(), now);
            }
            _ => {
                self.chain.insert(key.clone(), index);
            }
        }
        seen.is_none()
    }

    /// Keeps an event for the view.
    pub(super) fn remember(&mut self, event: &Reply) {
        if self.recent.len() == RECENT_MOST {
            self.recent.pop_front();
        }
        let value = event.node.value.as_deref().unwrap_or("");
        self.recent.push_back((
            event.node.modified_index,
            format!("{:<7} {} {value}", event.action, event.node.key),
        ));
    }
}

fn shown(index: Option<u64>) -> String {
    index.map_or_else(|| "none".to_owned(), |index| index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::api::KeyNode;

    fn event(action: &str, key: &str, index: u64, before: Option<u64>) -> Reply {
        let node = |index| KeyNode { key: key.to_owned(), modified_index: index, ..KeyNode::default() };
        Reply { action: action.to_owned(), node: node(index), prev_node: before.map(node) }
    }

    fn faults(events: &[Reply]) -> Vec<String> {
        let mut sightings = Sightings::new(0);
        for event in events {
            sightings.take(event, Instant::now());
        }
        sightings.faults
    }

    #[test]
    fn a_whole_chain_has_no_fault() {
        let events = [
            event("set", "/a", 3, None),
            event("set", "/b", 4, None),
            event("set", "/a", 7, Some(3)),
            event("expire", "/a", 8, Some(7)),
            event("create", "/a", 9, None),
        ];
        assert_eq!(faults(&events), [""; 0]);
    }

    #[test]
    fn what_is_missing_or_twice_or_late_is_noticed() {
        let (first, second, third) =
            (event("set", "/a", 1, None), event("set", "/a", 2, Some(1)), event("set", "/a", 3, Some(2)));
        assert_eq!(
            faults(&[first.clone(), third.clone()]),
            ["event 3 on /a follows event 2, the last one seen is 1"]
        );
        assert_eq!(faults(&[first.clone(), second.clone(), second.clone()]).len(), 2);
        assert_eq!(faults(&[second, first, third])[1], "event 1 came after event 2");
        let end = event("expire", "/a", 2, Some(1));
        assert_eq!(faults(&[event("set", "/a", 1, None), end, event("set", "/a", 3, Some(1))]).len(), 1);
    }
}
