//! A walk over the tree, in order.

use super::page::{Branch, Child};
use super::{Order, Tree};
use crate::store::Node;
use std::ops::Bound;
use std::sync::Arc;

/// The rest of a walk.
#[derive(Debug)]
pub(in crate::store) struct Iter<'a, O: Order> {
    /// The branches above the leaf, and which child of each the walk is in.
    above: Vec<(&'a Branch<O>, usize)>,
    leaf: std::slice::Iter<'a, Arc<Node>>,
}

impl<'a, O: Order> Iter<'a, O> {
    pub(super) fn from(root: &'a Child<O>, from: Bound<O::Key<'_>>) -> Self {
        let mut walk = Self { above: Vec::new(), leaf: [].iter() };
        walk.descend(root, from);
        walk
    }

    fn descend(&mut self, mut page: &'a Child<O>, from: Bound<O::Key<'_>>) {
        loop {
            match page {
                Child::Leaf(leaf) => {
                    let begin = match from {
                        Bound::Unbounded => 0,
                        Bound::Included(key) => leaf.find(key).unwrap_or_else(|slot| slot),
                        Bound::Excluded(key) => leaf.find(key).map_or_else(|slot| slot, |slot| slot + 1),
                    };
                    self.leaf = leaf.nodes[begin..].iter();
                    return;
                }
                Child::Branch(branch) => {
                    let child = match from {
                        Bound::Unbounded => 0,
                        Bound::Included(key) | Bound::Excluded(key) => branch.towards(key),
                    };
                    self.above.push((branch, child));
                    page = &branch.children[child];
                }
            }
        }
    }
}

impl<'a, O: Order> Iterator for Iter<'a, O> {
    type Item = &'a Arc<Node>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(node) = self.leaf.next() {
                return Some(node);
            }
            let (branch, child) = self.above.last_mut()?;
            *child += 1;
            match branch.children.get(*child) {
                Some(page) => self.descend(page, Bound::Unbounded),
                None => drop(self.above.pop()),
            }
        }
    }
}

impl<'a, O: Order> IntoIterator for &'a Tree<O> {
    type Item = &'a Arc<Node>;
    type IntoIter = Iter<'a, O>;

    fn into_iter(self) -> Iter<'a, O> {
        self.iter()
    }
}
