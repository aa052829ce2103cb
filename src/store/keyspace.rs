//! The nodes themselves, and which of them expire when.
//!
//! One flat ordered set of nodes by key stands for the whole tree: [`Key`]'s order makes every subtree one range. So
//! nothing here recurses, however deep a path is, and a listing is a walk. The root has no entry.

use super::Node;
use super::btree::{Iter, Order, Tree};
use super::key::{self, Key};
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// By the key.
#[derive(Clone, Copy, Debug)]
enum ByKey {}

impl Order for ByKey {
    type Key<'a> = &'a [u8];
    type Fence = Arc<[u8]>;

    fn key(node: &Node) -> &[u8] {
        node.key.as_bytes()
    }

    fn key_of_fence(fence: &Arc<[u8]>) -> &[u8] {
        fence
    }

    /// The beginning of `after`, up to what is not in `before`.
    fn fence(before: &[u8], after: &[u8]) -> Arc<[u8]> {
        let (_, common) = key::compare(before, after);
        after[..=common].into()
    }

    fn compare(left: &[u8], right: &[u8]) -> (Ordering, usize) {
        key::compare(left, right)
    }

    fn hint(key: &[u8], skip: usize) -> u64 {
        key::eight_bytes(key.get(skip..).unwrap_or_default())
    }
}

/// By the deadline, then by the index of the node's last change, so that what was set within one millisecond expires in
/// the order in which it was set, then by key. Only nodes that have a deadline.
#[derive(Clone, Copy, Debug)]
enum ByDeadline {}

impl Order for ByDeadline {
    type Key<'a> = (u64, u64, &'a [u8]);
    type Fence = (u64, u64, Arc<[u8]>);

    fn key(node: &Node) -> Self::Key<'_> {
        let deadline = node.deadline.expect("only nodes that have one are here");
        (deadline.0, node.modified, node.key.as_bytes())
    }

    fn key_of_fence((deadline, modified, key): &Self::Fence) -> Self::Key<'_> {
        (*deadline, *modified, key)
    }

    fn fence(_: Self::Key<'_>, (deadline, modified, key): Self::Key<'_>) -> Self::Fence {
        (deadline, modified, key.into())
    }

    fn compare(left: Self::Key<'_>, right: Self::Key<'_>) -> (Ordering, usize) {
        let order = (left.0, left.1).cmp(&(right.0, right.1));
        (order.then_with(|| key::compare(left.2, right.2).0), 0)
    }

    fn hint(key: Self::Key<'_>, _: usize) -> u64 {
        key.0
    }
}

/// Why there is no node at a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing there: the first key on the way to it, or itself, that does not exist.
    At(Key),
    /// This file is on the way.
    BelowFile(Key),
}

/// All nodes, their deadlines and their size. A clone is O(1).
#[derive(Clone, Debug, Default)]
pub(super) struct Keyspace {
    nodes: Tree<ByKey>,
    /// The same nodes as in `nodes`, those with a deadline.
    due: Tree<ByDeadline>,
    bytes: u64,
}

impl Keyspace {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn due_len(&self) -> usize {
        self.due.len()
    }

    /// The node that expires next; of several with one deadline, the one changed first.
    pub(super) fn next_due(&self) -> Option<&Arc<Node>> {
        self.due.first()
    }

    /// The node at a key other than the root.
    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Node>> {
        self.nodes.get(key.as_bytes())
    }

    /// The node at a key other than the root, or what is in the way.
    pub(super) fn find(&self, key: &Key) -> Result<&Arc<Node>, Missing> {
        self.get(key).ok_or_else(|| self.missing(key))
    }

    /// Where the way to a missing key ends.
    ///
    /// Every node's parent exists, so the existing ancestors are the first few: a binary search finds the last.
    fn missing(&self, key: &Key) -> Missing {
        let path: Vec<Key> = key.ancestors().skip(1).collect();
        let existing = path.partition_point(|ancestor| self.get(ancestor).is_some());
        let last = existing.checked_sub(1).and_then(|last| self.get(&path[last]));
        match last {
            Some(file) if !file.dir => Missing::BelowFile(file.key.clone()),
            _ => Missing::At(path.get(existing).unwrap_or(key).clone()),
        }
    }

    /// Puts a node at its key, in place of what was there.
    pub(super) fn put(&mut self, node: Arc<Node>) {
        if let Some(old) = self.nodes.insert(Arc::clone(&node)) {
            self.forget(&old);
        }
        self.bytes += size(&node);
        if node.deadline.is_some() {
            self.due.insert(node);
        }
    }

    /// Removes one node, which must have none below it.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(old) = self.nodes.remove(key.as_bytes()) {
            self.forget(&old);
        }
    }

    /// Removes everything below a directory, itself excluded.
    pub(super) fn remove_below(&mut self, dir: &Key) {
        let doomed: Vec<Arc<Node>> = self.descendants(dir).map(Arc::clone).collect();
        if doomed.len() <= self.nodes.len() / 2 {
            for node in doomed {
                self.remove(&node.key);
            }
            return;
        }
        // Most of the keyspace goes: less work to keep the rest.
        let kept = |node: &Node| !dir.contains(&node.key) || node.key == *dir;
        self.nodes = self.nodes.iter().filter(|node| kept(node)).cloned().collect();
        self.due = self.due.iter().filter(|node| kept(node)).cloned().collect();
        self.bytes -= doomed.iter().map(|node| size(node)).sum::<u64>();
    }

    /// Whether a directory is empty, hidden children counted too.
    pub(super) fn is_empty_dir(&self, dir: &Key) -> bool {
        self.descendants(dir).next().is_none()
    }

    /// Every node, in key order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter()
    }

    /// The nodes after a key, whether there is one at it or not, in key order.
    pub(super) fn after(&self, key: &Key) -> impl Iterator<Item = &Arc<Node>> {
        self.below(key)
    }

    /// The nodes below a directory, itself excluded, in key order.
    pub(super) fn descendants<'a>(&'a self, dir: &Key) -> impl Iterator<Item = &'a Arc<Node>> + use<'a> {
        let dir = dir.clone();
        self.below(&dir).take_while(move |node| dir.contains(&node.key))
    }

    /// The same from a key on, itself included.
    pub(super) fn descendants_from<'a>(
        &'a self,
        dir: &Key,
        start: &Key,
    ) -> impl Iterator<Item = &'a Arc<Node>> + use<'a> {
        let dir = dir.clone();
        let rest = if *start <= dir { self.below(&dir) } else { self.from(start) };
        rest.take_while(move |node| dir.contains(&node.key))
    }

    /// The direct children of a directory.
    pub(super) fn children(&self, dir: &Key) -> Children<'_> {
        Children { keyspace: self, rest: Some(self.below(dir)), dir: dir.clone() }
    }

    /// Everything after a key.
    fn below(&self, key: &Key) -> Iter<'_, ByKey> {
        self.nodes.range(Bound::Excluded(key.as_bytes()))
    }

    /// Everything from a key on.
    fn from(&self, key: &Key) -> Iter<'_, ByKey> {
        self.nodes.range(Bound::Included(key.as_bytes()))
    }

    /// Takes a node that has left `nodes` out of the other books.
    fn forget(&mut self, node: &Arc<Node>) {
        self.bytes -= size(node);
        if node.deadline.is_some() {
            self.due.remove(ByDeadline::key(node));
        }
    }

    /// Whether the trees keep theirs.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.nodes.check();
        self.due.check();
    }

    /// Deadlines and keys as the deadline index has them, for the tests of the invariants.
    #[cfg(test)]
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (super::ClusterTime, &Key)> {
        self.due.iter().map(|node| (node.deadline.expect("only nodes with one"), &node.key))
    }
}

/// Bytes of a node's key and value.
fn size(node: &Node) -> u64 {
    let value = node.value.as_ref().map_or(0, bytes::Bytes::len);
    (node.key.as_bytes().len() + value) as u64
}

/// Walks the direct children of a directory, skipping over what is below them.
pub(super) struct Children<'a> {
    keyspace: &'a Keyspace,
    dir: Key,
    /// Where the walk is; `None` when it has left the directory.
    rest: Option<Iter<'a, ByKey>>,
}

impl<'a> Iterator for Children<'a> {
    type Item = &'a Arc<Node>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let node = self.rest.as_mut()?.next();
            let Some(node) = node.filter(|node| self.dir.contains(&node.key)) else {
                self.rest = None;
                return None;
            };
            if self.dir.is_parent_of(&node.key) {
                return Some(node);
            }
            // Inside a child that was given already: on to the first key behind it.
            let behind = self.dir.child_towards(&node.key).after_subtree();
            self.rest = Some(self.keyspace.from(&behind));
        }
    }
}
