//! A watcher sees every event from the index that it asked for on, once and in order, at whichever members and however
//! often it has to begin again; or it is told that events are gone, and from where on it is told again.

use crate::coverage::Coverage;
use quorate::store::{Event, Store};

pub struct Watcher {
    /// The member it is at, if any.
    pub at: Option<usize>,
    /// When it looks for another.
    pub back_at: u64,
    next: u64,
    pub seen: u64,
}

impl Watcher {
    pub fn new() -> Self {
        Self { at: None, back_at: 0, next: 1, seen: 0 }
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// It comes to a member: what the member's history has of what it missed.
    pub fn resume(&mut self, store: &Store, coverage: &mut Coverage) {
        let history = store.history();
        if self.next < history.first_index() {
            coverage.note("watchers cleared");
            self.next = store.index() + 1;
            return;
        }
        let events: Vec<_> = history.iter_from(self.next).cloned().collect();
        for event in &events {
            self.told(event);
        }
        assert!(self.next > store.index(), "told up to {} of {}", self.next - 1, store.index());
        coverage.note_many("events resumed", events.len() as u64);
    }

    /// It is at a member that applies this. A member that is behind what it has seen already has nothing to tell.
    pub fn told(&mut self, event: &Event) {
        if event.index < self.next {
            return;
        }
        assert_eq!(event.index, self.next, "a watcher is not told what happened before");
        self.next += 1;
        self.seen += 1;
    }
}
