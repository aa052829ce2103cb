//! An ordered set of nodes that is persistent: a B+ tree whose pages are shared between its versions and copied when they
//! are written.
//!
//! A clone is O(1), and a change of a tree that was cloned copies the pages on the way from the root to a leaf, at most one
//! of each level. What a copy costs is mostly the reference counts of what the page holds, and those of nodes are far from
//! each other in memory: so pages are small, and what orders nodes stands in the page itself as far as eight bytes can
//! say it ([`Hints`]). A search looks at two or three nodes, whatever the number of nodes in the tree.
//!
//! Invariants, which [`Tree::check`] tells tests:
//! - nodes are in strictly ascending order; a leaf other than the root is not empty, and all leaves are equally deep;
//! - a fence of a branch is greater than everything before it and at most everything after it;
//! - hints are those of the keys beside them, cut after what all of them begin with, or less.
//!
//! A page need not be half full: it is joined with a neighbour when both fit into three quarters of one. A page that
//! overflows at its end is left full, since what comes in order goes on there.
//!
//! It knows nothing of directories, deadlines or events; [`super::keyspace`] does.

mod hints;
mod iter;
mod page;
#[cfg(test)]
mod tests;

use super::Node;
use hints::Hints;
pub(super) use iter::Iter;
use page::{Child, Leaf};
use std::cmp::Ordering;
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

/// What nodes are ordered by.
pub(super) trait Order: Copy + Debug + 'static {
    /// What is compared. No two nodes of a tree have the same.
    type Key<'a>: Copy;
    /// A key of its own, between two nodes.
    type Fence: Clone + Debug;

    fn key(node: &Node) -> Self::Key<'_>;

    fn key_of_fence(fence: &Self::Fence) -> Self::Key<'_>;

    /// A key that is greater than `before` and at most `after`.
    fn fence(before: Self::Key<'_>, after: Self::Key<'_>) -> Self::Fence;

    /// How they compare, and how many bytes they have in common from the start. May be 0 always.
    fn compare(left: Self::Key<'_>, right: Self::Key<'_>) -> (Ordering, usize);

    /// A number for what follows the first `skip` bytes: of keys that have those in common, the greater one's is not
    /// less.
    fn hint(key: Self::Key<'_>, skip: usize) -> u64;
}

/// The set.
#[derive(Clone, Debug)]
pub(super) struct Tree<O: Order> {
    root: Child<O>,
    len: usize,
}

impl<O: Order> Default for Tree<O> {
    fn default() -> Self {
        Self { root: Child::Leaf(Arc::new(Leaf::default())), len: 0 }
    }
}

impl<O: Order> Tree<O> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: O::Key<'_>) -> Option<&Arc<Node>> {
        let mut page = &self.root;
        loop {
            match page {
                Child::Leaf(leaf) => return leaf.find(key).ok().map(|at| &leaf.nodes[at]),
                Child::Branch(branch) => page = &branch.children[branch.towards(key)],
            }
        }
    }

    /// The least.
    pub(super) fn first(&self) -> Option<&Arc<Node>> {
        let mut page = &self.root;
        loop {
            match page {
                Child::Leaf(leaf) => return leaf.nodes.first(),
                Child::Branch(branch) => page = &branch.children[0],
            }
        }
    }

    /// Adds a node, in place of the one with the same key, which it gives.
    pub(super) fn insert(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        let (old, beside) = self.root.insert(node);
        if let Some((fence, right)) = beside {
            self.root.grow(fence, right);
        }
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a node out.
    pub(super) fn remove(&mut self, key: O::Key<'_>) -> Option<Arc<Node>> {
        // What is not there must not cost a copy.
        self.get(key)?;
        let old = self.root.remove(key);
        self.root.shrink();
        self.len -= 1;
        Some(old)
    }

    /// All nodes, in order.
    pub(super) fn iter(&self) -> Iter<'_, O> {
        Iter::from(&self.root, Bound::Unbounded)
    }

    /// The nodes from a key on, in order.
    pub(super) fn range(&self, from: Bound<O::Key<'_>>) -> Iter<'_, O> {
        Iter::from(&self.root, from)
    }

    /// Whether the invariants hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut depths = std::collections::BTreeSet::new();
        let counted = self.root.check(None, None, 0, &mut depths);
        assert_eq!(counted, self.len);
        assert_eq!(depths.len(), 1, "leaves are {depths:?} deep");
    }
}

impl<O: Order> FromIterator<Arc<Node>> for Tree<O> {
    fn from_iter<I: IntoIterator<Item = Arc<Node>>>(nodes: I) -> Self {
        let mut tree = Self::default();
        for node in nodes {
            tree.insert(node);
        }
        tree
    }
}
