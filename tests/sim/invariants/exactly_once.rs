//! A request takes effect at most once, however often it is sent, and never after its client was told that it will not.
//!
//! Every value that is written is unique, so that the event of a value is the request's effect.

use bytes::Bytes;
use quorate::store::Event;
use std::collections::{HashMap, HashSet};

#[derive(Default)]
pub struct ExactlyOnce {
    asked: HashSet<Bytes>,
    applied: HashMap<Bytes, u64>,
    refused: HashSet<Bytes>,
}

impl ExactlyOnce {
    pub fn asked(&mut self, value: Bytes) {
        assert!(self.asked.insert(value), "values are unique");
    }

    /// The first time that an index was applied anywhere.
    pub fn applied(&mut self, event: &Event) {
        let unique = |value: &Bytes| !value.is_empty() && !event.action.removes() && !event.refresh;
        let Some(value) = event.node.value.clone().filter(unique) else { return };
        assert!(self.asked.contains(&value), "nobody asked for this: {event:?}");
        assert!(!self.refused.contains(&value), "applied after it was refused: {event:?}");
        let before = self.applied.insert(value, event.index);
        assert_eq!(before, None, "one write took effect twice: {event:?}");
    }

    /// A client was told that this will not take effect.
    pub fn refused(&mut self, value: Bytes) {
        assert!(!self.applied.contains_key(&value), "refused, yet applied: {value:?}");
        self.refused.insert(value);
    }
}
