//! Which watcher an event concerns. Pure bookkeeping: `node` owns the channels and delivers.
//!
//! The rules for live events, those of etcd but for one point:
//! - a watcher hears of events at its key and, if recursive, below it, by whole path segments;
//! - not if a path segment between its key and the event's starts with `_`;
//! - when a directory is removed, every watcher at a path that existed below it hears of that, recursive or not;
//! - nobody hears of a refresh;
//! - a watcher is told once. (etcd tells a stream watcher at exactly the removed path twice.)
//!
//! What it does not do: look at the index from which a watcher wants events, or know one-shot from stream watchers.

use super::{Key, Outcome};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

/// Names a watcher within one hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(pub u64);

/// The watchers of one path in the order in which they came, each with whether it is recursive.
type AtPath = BTreeMap<WatcherId, bool>;

/// The watchers of one member, by the path they watch.
///
/// To find the watchers of an event takes a look-up for each level of its key; of a removed directory also a walk over
/// the watchers below it. The rest of the watchers costs nothing.
#[derive(Debug, Default)]
pub struct WatcherHub {
    /// No path is without a watcher.
    by_path: BTreeMap<Key, AtPath>,
    by_id: BTreeMap<WatcherId, Key>,
    last_id: u64,
}

impl WatcherHub {
    /// A hub without watchers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a watcher of `key` and, if `recursive`, of everything below it. Ids are never used again.
    pub fn insert(&mut self, key: Key, recursive: bool) -> WatcherId {
        self.last_id += 1;
        let id = WatcherId(self.last_id);
        // The watchers of one path share the bytes of its key.
        let key = match self.by_path.entry(key) {
            Entry::Occupied(mut at) => {
                at.get_mut().insert(id, recursive);
                at.key().clone()
            }
            Entry::Vacant(path) => {
                let key = path.key().clone();
                path.insert(AtPath::from([(id, recursive)]));
                key
            }
        };
        self.by_id.insert(id, key);
        id
    }

    /// Takes a watcher off; whether it was there.
    pub fn remove(&mut self, id: WatcherId) -> bool {
        let Some(key) = self.by_id.remove(&id) else { return false };
        if let Some(at) = self.by_path.get_mut(&key) {
            at.remove(&id);
            if at.is_empty() {
                self.by_path.remove(&key);
            }
        }
        true
    }

    /// How many watchers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Calls `notify` once for each watcher that this outcome concerns.
    ///
    /// In a fixed order: of a removal first the watchers below the path, deepest first, and those at the path; then,
    /// of any event, from the root down to the path. At one path, who came first is first.
    pub fn matching(&self, outcome: &Outcome, mut notify: impl FnMut(WatcherId)) {
        let event = &outcome.event;
        if event.refresh || self.is_empty() {
            return;
        }
        let key = &event.node.key;
        if event.action.removes() {
            self.matching_below(outcome, &mut notify);
            self.matching_at(key, &mut notify);
        }
        // Where the last hidden segment starts decides for all watched paths at once.
        let hidden = key.as_bytes().windows(2).rposition(|pair| pair == b"/_");
        let seen_by = |watched: &Key| hidden.is_none_or(|hidden| hidden < watched.stem().len());
        for watched in key.ancestors().filter(seen_by) {
            let watchers = self.by_path.get(&watched).into_iter().flatten();
            watchers.filter(|(_, recursive)| **recursive).for_each(|(id, _)| notify(*id));
        }
        if !event.action.removes() {
            self.matching_at(key, &mut notify);
        }
    }

    /// The watchers at exactly a path.
    fn matching_at(&self, key: &Key, notify: &mut impl FnMut(WatcherId)) {
        self.by_path.get(key).into_iter().flatten().for_each(|(id, _)| notify(*id));
    }

    /// The watchers whose own path went with a removed directory.
    fn matching_below(&self, outcome: &Outcome, notify: &mut impl FnMut(WatcherId)) {
        let (dir, Some(before)) = (&outcome.event.node.key, &outcome.removed_from) else { return };
        let subtree = (Bound::Excluded(dir.clone()), Bound::Excluded(dir.after_subtree()));
        for (watched, watchers) in self.by_path.range(subtree).rev() {
            if before.contains(watched) {
                watchers.keys().copied().for_each(&mut *notify);
            }
        }
    }
}
