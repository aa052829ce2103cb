//! A store that is put together again from a checkpoint, part by part, so that nobody has to hold all parts at once.

use super::keyspace::Keyspace;
use super::{Event, EventHistory, HistoryLimits, Key, Node, Store};
use std::sync::Arc;

/// Takes the nodes in key order, then the events in index order.
#[derive(Debug)]
pub struct StoreBuilder {
    limits: HistoryLimits,
    index: u64,
    digest: u64,
    nodes: Keyspace,
    last: Key,
    history: Option<EventHistory>,
    /// What is the same in this one is shared with it.
    known: Option<Store>,
}

impl StoreBuilder {
    /// For a store of this index and digest. A history beyond the limits will be cut to them.
    #[must_use]
    pub fn new(limits: HistoryLimits, index: u64, digest: u64) -> Self {
        Self {
            limits,
            index,
            digest,
            nodes: Keyspace::default(),
            last: Key::root(),
            history: None,
            known: None,
        }
    }

    /// Shares with another store what is the same there: a member that lags behind need not hold twice what it has.
    #[must_use]
    pub fn sharing(mut self, known: Option<Store>) -> Self {
        self.known = known;
        self
    }

    /// Adds a copy of the next node.
    ///
    /// # Errors
    ///
    /// It breaks an invariant; the text says which.
    pub fn add_node(&mut self, node: &Node) -> Result<(), String> {
        let (key, index) = (&node.key, self.index);
        if *key <= self.last {
            return Err(format!("node {key} is out of order"));
        }
        if node.dir == node.value.is_some() {
            return Err(format!("node {key} is not either a file or a directory"));
        }
        if node.created == 0 || node.created > node.modified || node.modified > index {
            let (created, modified) = (node.created, node.modified);
            return Err(format!("node {key} was created at {created} and modified at {modified} of {index}"));
        }
        let parent = key.parent().unwrap_or_else(Key::root);
        if !parent.is_root() && !self.node(&parent).is_some_and(|parent| parent.dir) {
            return Err(format!("node {key} is not in a directory"));
        }
        let known =
            self.known.as_ref().and_then(|known| known.nodes.get(key)).filter(|known| ***known == *node);
        let node = known.map_or_else(|| Arc::new(node.compact()), Arc::clone);
        self.last = node.key.clone();
        self.nodes.put(node);
        Ok(())
    }

    /// A node that was added.
    #[must_use]
    pub fn node(&self, key: &Key) -> Option<&Arc<Node>> {
        self.nodes.get(key)
    }

    /// An event to be added, or the same one of the store that is shared with.
    #[must_use]
    pub fn share_event(&self, event: Event) -> Arc<Event> {
        let known = self.known.as_ref().and_then(|known| known.history.get(event.index));
        known.filter(|known| ***known == event).map_or_else(|| Arc::new(event), Arc::clone)
    }

    /// Adds the next event.
    ///
    /// # Errors
    ///
    /// It breaks an invariant; the text says which.
    pub fn add_event(&mut self, event: Arc<Event>) -> Result<(), String> {
        let expected = self.history.as_ref().map_or(event.index.max(1), |history| history.last_index() + 1);
        if event.index != expected || event.index > self.index {
            return Err(format!("event {} stands where {expected} belongs, of {}", event.index, self.index));
        }
        if event.node.modified != event.index {
            return Err(format!("event {} is about a change at {}", event.index, event.node.modified));
        }
        self.history.get_or_insert_with(|| EventHistory::new(self.limits, expected)).push(event);
        Ok(())
    }

    /// The store, if nothing is missing.
    ///
    /// # Errors
    ///
    /// The history does not reach up to the index.
    pub fn build(self) -> Result<Store, String> {
        let Self { limits, index, digest, nodes, history, .. } = self;
        let history = history.unwrap_or_else(|| EventHistory::new(limits, index + 1));
        if history.last_index() != index {
            return Err(format!("the history ends at {} of {index}", history.last_index()));
        }
        Ok(Store { nodes, history, index, digest })
    }
}
