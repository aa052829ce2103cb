//! The ring of past events.
//!
//! Invariant: one event for every index from [`EventHistory::first_index`] to [`EventHistory::last_index`], in order.
//!
//! A watcher that was away is brought up to date from here. What a scan matches differs from what a live watcher is
//! told in two points, as in etcd: hidden keys are not withheld, and the removal of a directory concerns every key
//! below it whether it existed or not. etcd matches the latter by raw string prefix, so that a watcher of `/wdx` gets the
//! removal of `/wd`; that is a bug nobody can rely on, and here it goes by path segment like everything else.

use super::{Event, Key};
use imbl::Vector;
use std::sync::Arc;

/// How much history is kept; whichever bound is reached first cuts the oldest event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// At most this many events.
    pub events: usize,
    /// At most about this many bytes of keys and values in events.
    pub bytes: usize,
}

/// The events of the last indexes, one for each, without a gap. A clone is O(1).
#[derive(Clone, Debug)]
pub struct EventHistory {
    limits: HistoryLimits,
    events: Vector<Arc<Event>>,
    bytes: usize,
    /// The index of the next event.
    next_index: u64,
}

impl EventHistory {
    /// An empty history whose first event will have this index.
    pub(super) fn new(limits: HistoryLimits, next_index: u64) -> Self {
        Self { limits, events: Vector::new(), bytes: 0, next_index }
    }

    /// Appends the next event and cuts old ones down to the limits.
    pub(super) fn push(&mut self, event: Arc<Event>) {
        assert_eq!(event.index, self.next_index, "events come without a gap");
        self.next_index += 1;
        self.bytes += event_bytes(&event);
        self.events.push_back(event);
        while self.events.len() > self.limits.events || self.bytes > self.limits.bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= event_bytes(&oldest);
        }
    }

    /// The index of the oldest event that is kept; of the next event to come, if none is.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.next_index - self.events.len() as u64
    }

    /// The index of the last event that happened, kept or not; 0 before the first.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.next_index - 1
    }

    /// The last event, if it is kept.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<Event>> {
        self.events.last()
    }

    /// How many events are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes of keys and values in the events that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bounds it is kept within.
    #[must_use]
    pub fn limits(&self) -> HistoryLimits {
        self.limits
    }

    /// The event of one index, if it is kept.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<&Arc<Event>> {
        self.events.get(usize::try_from(index.checked_sub(self.first_index())?).ok()?)
    }

    /// The events from `index` on, or from the oldest on if that is later.
    pub fn iter_from(&self, index: u64) -> impl Iterator<Item = &Arc<Event>> {
        let skipped = index.saturating_sub(self.first_index());
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.events.len());
        self.events.focus().narrow(skipped..).into_iter()
    }

    /// The first event at or after the index `since` that concerns a watcher of `key`; `None` if it has yet to happen.
    /// A `since` of 0 asks for nothing past, so the answer is `None`.
    ///
    /// # Errors
    ///
    /// Events from `since` on have been cut already. The error is the oldest index that could be asked for.
    pub fn scan(&self, key: &Key, recursive: bool, since: u64) -> Result<Option<Arc<Event>>, u64> {
        if since == 0 {
            return Ok(None);
        }
        if since < self.first_index() {
            return Err(self.first_index());
        }
        Ok(self.iter_from(since).find(|event| event.matches(key, recursive)).cloned())
    }
}

/// What an event counts for against [`HistoryLimits::bytes`].
fn event_bytes(event: &Event) -> usize {
    let value = |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, bytes::Bytes::len);
    let before = event.prev_node.as_ref().map_or(0, |node| value(&node.value));
    event.node.key.as_bytes().len() + value(&event.node.value) + before
}
