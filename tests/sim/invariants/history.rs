//! There is one history: each index belongs to one event, the same on every member, and no index is left out.
//!
//! What the first member to apply an index made of it is the event; every other must make the same of it, in every field.
//! An independent model, a list of versions for each key, is built from the events alone, and says what a read at an
//! index must find.

use bytes::Bytes;
use quorate::store::{Event, Key, Store};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Default)]
pub struct History {
    /// The event of index `n` is at `n - 1`.
    events: Vec<Arc<Event>>,
    versions: HashMap<Key, Vec<(u64, Option<Bytes>)>>,
}

impl History {
    /// A member applied this. Whether it was the first.
    pub fn applied(&mut self, member: u64, event: &Arc<Event>) -> bool {
        let at = (event.index - 1) as usize;
        if let Some(known) = self.events.get(at) {
            assert_eq!(**known, **event, "member {member} made something else of index {}", event.index);
            return false;
        }
        assert_eq!(at, self.events.len(), "member {member} left out an index");
        let value = event.node.value.clone().filter(|_| !event.action.removes());
        self.versions.entry(event.node.key.clone()).or_default().push((event.index, value));
        self.events.push(Arc::clone(event));
        true
    }

    pub fn last_index(&self) -> u64 {
        self.events.len() as u64
    }

    pub fn event(&self, index: u64) -> Option<&Arc<Event>> {
        self.events.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// What a key held at an index.
    pub fn value_at(&self, key: &Key, index: u64) -> Option<Bytes> {
        let versions = self.versions.get(key)?;
        let until = versions.partition_point(|(at, _)| *at <= index);
        versions.get(until.checked_sub(1)?)?.1.clone()
    }

    /// A client was answered with this event.
    pub fn answered(&self, event: &Arc<Event>) {
        assert_eq!(self.event(event.index), Some(event), "an answer that is not in the history");
    }

    /// A client read this.
    pub fn read(&self, store: &Store, key: &Key) {
        let found = store.get(key).ok().and_then(|node| node.value);
        assert_eq!(found, self.value_at(key, store.index()), "read of {key:?} at {}", store.index());
    }

    /// At the end: every event is there, and what it made of the keys.
    pub fn ends_with(&self, store: &Store) {
        assert_eq!(store.index(), self.last_index(), "events are lost");
        let files = store.nodes().filter(|node| !node.dir);
        let found: HashMap<Key, Bytes> = files.filter_map(|n| Some((n.key, n.value?))).collect();
        let latest =
            self.versions.iter().filter_map(|(key, all)| Some((key.clone(), all.last()?.1.clone()?)));
        assert_eq!(found, latest.collect::<HashMap<_, _>>(), "the keys are not what the events made of them");
    }
}
