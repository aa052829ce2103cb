//! Which watcher an event concerns. Pure bookkeeping: `node` owns the channels and delivers.

use super::{Key, Outcome};

/// Names a watcher within one hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(pub u64);

/// The watchers of one member, by the path they watch.
#[derive(Debug, Default)]
pub struct WatcherHub {}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl WatcherHub {
    pub fn new() -> Self {
        todo!()
    }
    pub fn insert(&mut self, key: Key, recursive: bool) -> WatcherId {
        todo!()
    }
    pub fn remove(&mut self, id: WatcherId) -> bool {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Calls `notify` once for each watcher that this outcome concerns, in a fixed order.
    pub fn matching(&self, outcome: &Outcome, notify: impl FnMut(WatcherId)) {
        todo!()
    }
}
