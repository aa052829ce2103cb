//! What each command does: the decisions of the v2 API, one function an operation.
//!
//! A function either refuses, and then nothing has changed, or makes exactly one event at exactly one new index.

use super::digest;
use super::keyspace::Missing;
use super::{Action, ClusterTime, Command, Compare, ErrorCode, Event, Key, Node, Outcome, Store, StoreError};
use bytes::Bytes;
use std::sync::Arc;

/// When a command is applied, and what it asks for in time.
#[derive(Clone, Copy)]
struct Timing {
    now: ClusterTime,
    deadline: Option<ClusterTime>,
    refresh: bool,
}

impl Timing {
    fn new(now: ClusterTime, ttl: Option<u64>, refresh: bool) -> Self {
        Self { now, deadline: ttl.map(|ttl| now.plus(ttl)), refresh }
    }
}

impl Store {
    /// Applies one command at a cluster time. An error changes nothing but is deterministic like the rest.
    pub fn apply(&mut self, time: ClusterTime, command: &Command) -> Result<Outcome, StoreError> {
        match command {
            Command::Set { key, value, dir, ttl, refresh } => {
                let value = (!dir).then_some(value);
                self.set(key, value, Timing::new(time, *ttl, *refresh))
            }
            Command::Create { key, value, dir, ttl, refresh: _ } => {
                // There is nothing to refresh: the node is new to every watcher, so they are told.
                let value = (!dir).then_some(value);
                self.create(key, value, Timing::new(time, *ttl, false))
            }
            Command::CreateInOrder { key, value, dir, ttl } => {
                let name = format!("{:020}", self.index + 1);
                let value = (!dir).then_some(value);
                self.create(&key.child(name.as_bytes()), value, Timing::new(time, *ttl, false))
            }
            Command::Update { key, value, ttl, refresh } => {
                self.update(key, value, Timing::new(time, *ttl, *refresh))
            }
            Command::CompareAndSwap { key, compare, value, ttl, refresh } => {
                self.compare_and_swap(key, compare, value, Timing::new(time, *ttl, *refresh))
            }
            Command::Delete { key, dir, recursive } => self.delete(time, key, *dir, *recursive),
            Command::CompareAndDelete { key, compare } => self.compare_and_delete(time, key, compare),
        }
    }

    /// Removes nodes whose deadline is at or before `time`, earliest deadline first, at most `limit` of them.
    /// A directory takes everything below it along, and counts as one.
    pub fn expire(&mut self, time: ClusterTime, limit: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while outcomes.len() < limit {
            let due = self.nodes.next_due().filter(|node| node.deadline.is_some_and(|at| at <= time));
            let Some(node) = due.cloned() else { break };
            outcomes.push(self.remove(time, &node, Action::Expire));
        }
        outcomes
    }

    fn set(&mut self, key: &Key, value: Option<&Bytes>, timing: Timing) -> Result<Outcome, StoreError> {
        self.refuse_root(key)?;
        let old = match self.nodes.find(key) {
            Ok(old) if old.dir => return Err(self.refuse(ErrorCode::NotFile, key)),
            Ok(old) => Some(old.clone()),
            Err(Missing::At(_)) if !timing.refresh => None,
            Err(missing) => return Err(self.missing(&missing)),
        };
        let value = match &old {
            Some(old) if timing.refresh && value.is_some() => old.value.clone(),
            _ => value.map(own),
        };
        Ok(self.place(key, value, old.as_ref(), Action::Set, timing))
    }

    fn create(&mut self, key: &Key, value: Option<&Bytes>, timing: Timing) -> Result<Outcome, StoreError> {
        self.refuse_root(key)?;
        match self.nodes.find(key) {
            Ok(_) => Err(self.refuse(ErrorCode::NodeExist, key)),
            Err(Missing::At(_)) => Ok(self.place(key, value.map(own), None, Action::Create, timing)),
            Err(missing) => Err(self.missing(&missing)),
        }
    }

    /// Changes only the deadline of a directory. Its `modified` in the event is new, while the stored one stays:
    /// clients see a directory's `modifiedIndex` move in the answer and nowhere else, and compare with what they read.
    fn update(&mut self, key: &Key, value: &Bytes, timing: Timing) -> Result<Outcome, StoreError> {
        self.refuse_root(key)?;
        let old = self.find(key)?.clone();
        if !old.dir {
            return Ok(self.rewrite(&old, value, Action::Update, timing));
        }
        if !value.is_empty() {
            return Err(self.refuse(ErrorCode::NotFile, key));
        }
        let stored = Node { deadline: timing.deadline, ..Node::clone(&old) };
        self.nodes.put(Arc::new(stored.clone()));
        let node = Arc::new(Node { modified: self.index + 1, ..stored });
        Ok(self.record(Action::Update, node, Some(old), timing))
    }

    fn compare_and_swap(
        &mut self,
        key: &Key,
        compare: &Compare,
        value: &Bytes,
        timing: Timing,
    ) -> Result<Outcome, StoreError> {
        self.refuse_root(key)?;
        let old = self.compared(key, compare)?;
        Ok(self.rewrite(&old, value, Action::CompareAndSwap, timing))
    }

    fn delete(
        &mut self,
        time: ClusterTime,
        key: &Key,
        dir: bool,
        recursive: bool,
    ) -> Result<Outcome, StoreError> {
        self.refuse_root(key)?;
        let node = self.find(key)?.clone();
        if node.dir && !dir && !recursive {
            return Err(self.refuse(ErrorCode::NotFile, key));
        }
        if node.dir && !recursive && !self.nodes.is_empty_dir(key) {
            return Err(self.refuse(ErrorCode::DirNotEmpty, key));
        }
        Ok(self.remove(time, &node, Action::Delete))
    }

    fn compare_and_delete(
        &mut self,
        time: ClusterTime,
        key: &Key,
        compare: &Compare,
    ) -> Result<Outcome, StoreError> {
        if key.is_root() {
            // As etcd has it: not 107, and without a cause.
            return Err(StoreError::new(ErrorCode::NotFile, Bytes::new(), self.index));
        }
        let node = self.compared(key, compare)?;
        Ok(self.remove(time, &node, Action::CompareAndDelete))
    }

    /// The root can be neither written nor removed.
    fn refuse_root(&self, key: &Key) -> Result<(), StoreError> {
        if key.is_root() { Err(self.refuse(ErrorCode::RootReadOnly, key)) } else { Ok(()) }
    }

    /// The file at a key if it compares.
    fn compared(&self, key: &Key, compare: &Compare) -> Result<Arc<Node>, StoreError> {
        let node = self.find(key)?;
        let Some(value) = &node.value else { return Err(self.refuse(ErrorCode::NotFile, key)) };
        match mismatch(value, node.modified, compare) {
            None => Ok(node.clone()),
            Some(cause) => Err(StoreError::new(ErrorCode::TestFailed, cause, self.index)),
        }
    }

    /// Puts a new node at a key, in place of the file `old` if there is one, and makes the directories on the way.
    /// Those are made at the same index and without events of their own.
    fn place(
        &mut self,
        key: &Key,
        value: Option<Bytes>,
        old: Option<&Arc<Node>>,
        action: Action,
        timing: Timing,
    ) -> Outcome {
        let index = self.index + 1;
        let key = old.map_or_else(|| key.compact(), |old| old.key.clone());
        if old.is_none() {
            self.make_parents(&key, index);
        }
        let dir = value.is_none();
        let node = Node { key, value, dir, deadline: timing.deadline, created: index, modified: index };
        let node = Arc::new(node);
        self.nodes.put(Arc::clone(&node));
        self.record(action, node, old.cloned(), timing)
    }

    /// Makes the directories above a key that are not there yet.
    fn make_parents(&mut self, key: &Key, index: u64) {
        let missing: Vec<Key> = key
            .ancestors()
            .rev()
            .take_while(|ancestor| !ancestor.is_root() && self.nodes.get(ancestor).is_none())
            .collect();
        for key in missing.into_iter().rev() {
            let dir = Node { key, value: None, dir: true, deadline: None, created: index, modified: index };
            self.nodes.put(Arc::new(dir));
        }
    }

    /// Changes a file's value and deadline; a refresh changes the deadline alone.
    fn rewrite(&mut self, old: &Arc<Node>, value: &Bytes, action: Action, timing: Timing) -> Outcome {
        let value = if timing.refresh { old.value.clone() } else { Some(own(value)) };
        let modified = self.index + 1;
        let node = Arc::new(Node { value, deadline: timing.deadline, modified, ..Node::clone(old) });
        self.nodes.put(Arc::clone(&node));
        self.record(action, node, Some(Arc::clone(old)), timing)
    }

    /// Removes a node with everything below it.
    fn remove(&mut self, time: ClusterTime, old: &Arc<Node>, action: Action) -> Outcome {
        let mut removed_from = None;
        if old.dir && !self.nodes.is_empty_dir(&old.key) {
            removed_from = Some(Box::new(self.clone()));
            self.nodes.remove_below(&old.key);
        }
        self.nodes.remove(&old.key);
        let modified = self.index + 1;
        let node = Arc::new(Node { value: None, deadline: None, modified, ..Node::clone(old) });
        let outcome = self.record(action, node, Some(Arc::clone(old)), Timing::new(time, None, false));
        Outcome { removed_from, ..outcome }
    }

    /// Takes the next index for what has just been done.
    fn record(
        &mut self,
        action: Action,
        node: Arc<Node>,
        prev_node: Option<Arc<Node>>,
        timing: Timing,
    ) -> Outcome {
        let event = Arc::new(Event {
            index: self.index + 1,
            action,
            node,
            prev_node,
            refresh: timing.refresh,
            time: timing.now,
        });
        self.index = event.index;
        self.digest = digest::after(self.digest, &event);
        self.history.push(event.clone());
        Outcome { event, removed_from: None }
    }
}

/// What does not compare, as clients are told: `[given != actual]`, value before index.
fn mismatch(value: &Bytes, modified: u64, compare: &Compare) -> Option<Vec<u8>> {
    let by_value = !compare.prev_value.is_empty() && compare.prev_value != *value;
    let by_index = compare.prev_index != 0 && compare.prev_index != modified;
    let values = || [b"[", &compare.prev_value[..], b" != ", value, b"]"].concat();
    let indexes = || format!("[{} != {modified}]", compare.prev_index).into_bytes();
    match (by_value, by_index) {
        (false, false) => None,
        (true, false) => Some(values()),
        (false, true) => Some(indexes()),
        (true, true) => Some([values(), indexes()].join(&b' ')),
    }
}

/// A value in memory of its own: one cut from a log entry would keep the whole entry alive.
fn own(value: &Bytes) -> Bytes {
    Bytes::copy_from_slice(value)
}
