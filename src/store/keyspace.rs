//! The nodes themselves, and which of them expire when.
//!
//! One flat ordered set of nodes by key stands for the whole tree: [`Key`]'s order makes every subtree one range. So
//! nothing here recurses, however deep a path is, and a listing is a walk. The root has no entry.
//!
//! A slot of the set is one pointer. The tree copies a B-tree leaf whenever a reader holds the previous version, which
//! is after every publish, and that copy costs a reference count per slot; with key and value in the slot it would be
//! two and twice the memory to move (measured at 100,000 keys with a clone every 64 writes: a third slower). The price: a
//! separator in an inner node of the set keeps the version of a node from which it was made, value included, until the
//! inner node is split or merged. That is at most one old version for every eight nodes or so.

use super::{Key, Node};
use imbl::OrdSet;
use imbl::ordset::RangedIter;
use imbl::shared_ptr::DefaultSharedPtr;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// A node in the set by key. Equal and ordered by the key alone.
#[derive(Clone, Debug)]
struct ByKey(Arc<Node>);

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

/// A node in the set by deadline; only nodes that have one. Equal and ordered by deadline, then by the index of the
/// node's last change, so that what was set within one millisecond expires in the order in which it was set, then key.
#[derive(Clone, Debug)]
struct ByDeadline(Arc<Node>);

impl PartialEq for ByDeadline {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ByDeadline {}

impl PartialOrd for ByDeadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByDeadline {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.0, &other.0);
        (a.deadline, a.modified).cmp(&(b.deadline, b.modified)).then_with(|| a.key.cmp(&b.key))
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
    nodes: OrdSet<ByKey>,
    /// The same nodes as in `nodes`, those with a deadline.
    due: OrdSet<ByDeadline>,
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
        self.due.get_min().map(|node| &node.0)
    }

    /// The node at a key other than the root.
    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Node>> {
        self.nodes.get(key).map(|node| &node.0)
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
        let existing = path.partition_point(|ancestor| self.nodes.contains(ancestor));
        let last = existing.checked_sub(1).and_then(|last| self.get(&path[last]));
        match last {
            Some(file) if !file.dir => Missing::BelowFile(file.key.clone()),
            _ => Missing::At(path.get(existing).unwrap_or(key).clone()),
        }
    }

    /// Puts a node at its key, in place of what was there.
    pub(super) fn put(&mut self, node: Arc<Node>) {
        if let Some(old) = self.nodes.insert(ByKey(node.clone())) {
            self.forget(&old.0);
        }
        self.bytes += size(&node);
        if node.deadline.is_some() {
            self.due.insert(ByDeadline(node));
        }
    }

    /// Removes one node, which must have none below it.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(old) = self.nodes.remove(key) {
            self.forget(&old.0);
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
        self.nodes = self.nodes.iter().filter(|node| kept(&node.0)).cloned().collect();
        self.due = self.due.iter().filter(|node| kept(&node.0)).cloned().collect();
        self.bytes -= doomed.iter().map(|node| size(node)).sum::<u64>();
    }

    /// Whether a directory is empty, hidden children counted too.
    pub(super) fn is_empty_dir(&self, dir: &Key) -> bool {
        self.descendants(dir).next().is_none()
    }

    /// Every node, in key order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().map(|node| &node.0)
    }

    /// The nodes after a key, whether there is one at it or not, in key order.
    pub(super) fn after(&self, key: &Key) -> impl Iterator<Item = &Arc<Node>> {
        self.below(key).map(|node| &node.0)
    }

    /// The nodes below a directory, itself excluded, in key order.
    pub(super) fn descendants<'a>(&'a self, dir: &Key) -> impl Iterator<Item = &'a Arc<Node>> + use<'a> {
        let dir = dir.clone();
        self.below(&dir).map(|node| &node.0).take_while(move |node| dir.contains(&node.key))
    }

    /// The same from a key on, itself included.
    pub(super) fn descendants_from<'a>(
        &'a self,
        dir: &Key,
        start: &Key,
    ) -> impl Iterator<Item = &'a Arc<Node>> + use<'a> {
        let dir = dir.clone();
        let from = if *start <= dir { Bound::Excluded(&dir) } else { Bound::Included(start) };
        let rest: RangedIter<'_, ByKey, DefaultSharedPtr> =
            self.nodes.range::<_, Key>((from, Bound::Unbounded));
        rest.map(|node| &node.0).take_while(move |node| dir.contains(&node.key))
    }

    /// The direct children of a directory.
    pub(super) fn children(&self, dir: &Key) -> Children<'_> {
        Children { keyspace: self, rest: Some(self.below(dir)), dir: dir.clone() }
    }

    /// Everything after a key.
    fn below(&self, key: &Key) -> RangedIter<'_, ByKey, DefaultSharedPtr> {
        self.nodes.range::<(Bound<&Key>, Bound<&Key>), Key>((Bound::Excluded(key), Bound::Unbounded))
    }

    /// Everything from a key on.
    fn from(&self, key: &Key) -> RangedIter<'_, ByKey, DefaultSharedPtr> {
        self.nodes.range::<(Bound<&Key>, Bound<&Key>), Key>((Bound::Included(key), Bound::Unbounded))
    }

    /// Takes a node that has left `nodes` out of the other books.
    fn forget(&mut self, node: &Arc<Node>) {
        self.bytes -= size(node);
        if node.deadline.is_some() {
            self.due.remove(&ByDeadline(node.clone()));
        }
    }

    /// Deadlines and keys as the deadline index has them, for the tests of the invariants.
    #[cfg(test)]
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (super::ClusterTime, &Key)> {
        self.due.iter().map(|node| (node.0.deadline.expect("only nodes with one"), &node.0.key))
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
    rest: Option<RangedIter<'a, ByKey, DefaultSharedPtr>>,
}

impl<'a> Iterator for Children<'a> {
    type Item = &'a Arc<Node>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let node = self.rest.as_mut()?.next().map(|node| &node.0);
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
