//! The pages of the tree: leaves, which hold nodes, and branches, which hold pages.

use super::{Hints, Order};
use crate::store::Node;
use arrayvec::ArrayVec;
use std::marker::PhantomData;
use std::sync::Arc;

/// Nodes of a leaf, and pages of a branch, at the most.
pub(super) const SLOTS: usize = 16;

/// A page with less is joined with a neighbour, if there is room.
const FEW: usize = SLOTS / 4;

/// What two pages may hold together to become one.
const JOINED_MAX: usize = SLOTS * 3 / 4;

/// What a page became too large for: a page to be put behind it, and what is between them.
type Beside<O> = Option<(<O as Order>::Fence, Child<O>)>;

#[derive(Clone, Debug)]
pub(super) struct Leaf<O> {
    hints: Hints,
    pub(super) nodes: ArrayVec<Arc<Node>, SLOTS>,
    order: PhantomData<fn() -> O>,
}

#[derive(Clone, Debug)]
pub(super) struct Branch<O: Order> {
    /// Of the fences.
    hints: Hints,
    /// Between each child and the next.
    fences: ArrayVec<O::Fence, SLOTS>,
    pub(super) children: ArrayVec<Child<O>, SLOTS>,
}

#[derive(Clone, Debug)]
pub(super) enum Child<O: Order> {
    Leaf(Arc<Leaf<O>>),
    Branch(Arc<Branch<O>>),
}

impl<O: Order> Default for Leaf<O> {
    fn default() -> Self {
        Self::of(ArrayVec::new())
    }
}

impl<O: Order> Leaf<O> {
    fn of(nodes: ArrayVec<Arc<Node>, SLOTS>) -> Self {
        let hints = Hints::new::<O>(nodes.len(), |slot| O::key(&nodes[slot]));
        Self { hints, nodes, order: PhantomData }
    }

    pub(super) fn find(&self, key: O::Key<'_>) -> Result<usize, usize> {
        self.hints.find::<O>(key, |slot| O::key(&self.nodes[slot]))
    }

    fn insert(&mut self, slot: usize, node: Arc<Node>) {
        self.nodes.insert(slot, node);
        self.hints.insert::<O>(slot, |slot| O::key(&self.nodes[slot]));
    }

    /// Inserts a node, if need be into one half of this page.
    fn add(&mut self, slot: usize, node: Arc<Node>) -> Beside<O> {
        if !self.nodes.is_full() {
            self.insert(slot, node);
            return None;
        }
        let kept = if slot == SLOTS { SLOTS } else { SLOTS / 2 };
        let mut right = Self::of(self.nodes.drain(kept..).collect());
        if slot == SLOTS || slot > kept {
            right.insert(slot - kept, node);
        } else {
            self.nodes.insert(slot, node);
        }
        if kept < SLOTS {
            *self = Self::of(std::mem::take(&mut self.nodes));
        }
        let (before, after) = (&self.nodes[self.nodes.len() - 1], &right.nodes[0]);
        Some((O::fence(O::key(before), O::key(after)), Child::Leaf(Arc::new(right))))
    }
}

impl<O: Order> Branch<O> {
    fn of(fences: ArrayVec<O::Fence, SLOTS>, children: ArrayVec<Child<O>, SLOTS>) -> Self {
        let hints = Hints::new::<O>(fences.len(), |slot| O::key_of_fence(&fences[slot]));
        Self { hints, fences, children }
    }

    /// The child in which a key is, or else belongs.
    pub(super) fn towards(&self, key: O::Key<'_>) -> usize {
        match self.hints.find::<O>(key, |slot| O::key_of_fence(&self.fences[slot])) {
            Ok(fence) => fence + 1,
            Err(fence) => fence,
        }
    }

    /// Puts a page behind a child.
    fn insert(&mut self, child: usize, fence: O::Fence, right: Child<O>) {
        self.fences.insert(child, fence);
        self.hints.insert::<O>(child, |slot| O::key_of_fence(&self.fences[slot]));
        self.children.insert(child + 1, right);
    }

    /// The same, if need be in one half of this page.
    fn add(&mut self, child: usize, fence: O::Fence, right: Child<O>) -> Beside<O> {
        if !self.children.is_full() {
            self.insert(child, fence, right);
            return None;
        }
        if child + 1 == SLOTS {
            let beside = Self::of(ArrayVec::new(), std::iter::once(right).collect());
            return Some((fence, Child::Branch(Arc::new(beside))));
        }
        let kept = SLOTS / 2;
        let mut beside = Self::of(self.fences.drain(kept..).collect(), self.children.drain(kept..).collect());
        let between = self.fences.pop().expect("there is one between each two children");
        *self = Self::of(std::mem::take(&mut self.fences), std::mem::take(&mut self.children));
        if child < kept {
            self.insert(child, fence, right);
        } else {
            beside.insert(child - kept, fence, right);
        }
        Some((between, Child::Branch(Arc::new(beside))))
    }

    /// Joins a child of which little is left with one beside it.
    fn mend(&mut self, child: usize) {
        if self.children.len() == 1 {
            if self.children[0].len() == 0 {
                self.children.clear();
            }
            return;
        }
        let left = child.min(self.children.len() - 2);
        let (this, next) = (self.children[left].len(), self.children[left + 1].len());
        if this > 0 && next > 0 && this + next > JOINED_MAX {
            return;
        }
        let right = self.children.remove(left + 1);
        let fence = self.fences.remove(left);
        self.hints.remove(left);
        if this == 0 {
            self.children[left] = right;
        } else if next > 0 {
            self.children[left].append(fence, &right);
        }
    }
}

impl<O: Order> Child<O> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.nodes.len(),
            Self::Branch(branch) => branch.children.len(),
        }
    }

    /// Inserts a node; gives the one that was in its place, and what is to be put behind this page.
    pub(super) fn insert(&mut self, node: Arc<Node>) -> (Option<Arc<Node>>, Beside<O>) {
        match self {
            Self::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                match leaf.find(O::key(&node)) {
                    Ok(slot) => (Some(std::mem::replace(&mut leaf.nodes[slot], node)), None),
                    Err(slot) => (None, leaf.add(slot, node)),
                }
            }
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                let child = branch.towards(O::key(&node));
                let (old, beside) = branch.children[child].insert(node);
                (old, beside.and_then(|(fence, right)| branch.add(child, fence, right)))
            }
        }
    }

    /// Takes out a node, which must be there.
    pub(super) fn remove(&mut self, key: O::Key<'_>) -> Arc<Node> {
        match self {
            Self::Leaf(leaf) => {
                let leaf = Arc::make_mut(leaf);
                let slot = leaf.find(key).expect("it was looked up");
                leaf.hints.remove(slot);
                leaf.nodes.remove(slot)
            }
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                let child = branch.towards(key);
                let old = branch.children[child].remove(key);
                if branch.children[child].len() < FEW {
                    branch.mend(child);
                }
                old
            }
        }
    }

    /// Adds all of a page that stands behind this one.
    fn append(&mut self, fence: O::Fence, right: &Self) {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => {
                let left = Arc::make_mut(left);
                let mut nodes = std::mem::take(&mut left.nodes);
                nodes.extend(right.nodes.iter().cloned());
                *left = Leaf::of(nodes);
            }
            (Self::Branch(left), Self::Branch(right)) => {
                let left = Arc::make_mut(left);
                let (mut fences, mut children) =
                    (std::mem::take(&mut left.fences), std::mem::take(&mut left.children));
                fences.push(fence);
                fences.extend(right.fences.iter().cloned());
                children.extend(right.children.iter().cloned());
                *left = Branch::of(fences, children);
            }
            _ => unreachable!("pages of one level are of one kind"),
        }
    }

    /// A root that became too large becomes the first of two pages below a new one.
    pub(super) fn grow(&mut self, fence: O::Fence, right: Self) {
        let left = std::mem::replace(self, Self::Leaf(Arc::default()));
        let root = Branch::of(std::iter::once(fence).collect(), [left, right].into_iter().collect());
        *self = Self::Branch(Arc::new(root));
    }

    /// A root with one page below it is not needed.
    pub(super) fn shrink(&mut self) {
        while let Self::Branch(branch) = self
            && branch.children.len() <= 1
        {
            *self = branch.children.first().cloned().unwrap_or_else(|| Self::Leaf(Arc::default()));
        }
    }

    /// Checks what is below this page, and counts it.
    #[cfg(test)]
    pub(super) fn check<'a>(
        &'a self,
        least: Option<O::Key<'a>>,
        below: Option<O::Key<'a>>,
        depth: usize,
        depths: &mut std::collections::BTreeSet<usize>,
    ) -> usize {
        assert!(depth == 0 || self.len() > 0, "an empty page");
        match self {
            Self::Leaf(leaf) => {
                depths.insert(depth);
                leaf.hints.check::<O>(leaf.nodes.len(), |slot| O::key(&leaf.nodes[slot]));
                let keys: Vec<_> = leaf.nodes.iter().map(|node| O::key(node)).collect();
                let less = |a, b| O::compare(a, b).0.is_lt();
                assert!(keys.windows(2).all(|pair| less(pair[0], pair[1])));
                assert!(least.is_none_or(|least| keys.iter().all(|key| !less(*key, least))));
                assert!(below.is_none_or(|below| keys.iter().all(|key| less(*key, below))));
                keys.len()
            }
            Self::Branch(branch) => {
                let (fences, children) = (&branch.fences, &branch.children);
                assert_eq!(fences.len() + 1, children.len());
                branch.hints.check::<O>(fences.len(), |slot| O::key_of_fence(&fences[slot]));
                let fence = |slot: usize| fences.get(slot).map(O::key_of_fence);
                let counted = children.iter().enumerate().map(|(slot, child)| {
                    let least = slot.checked_sub(1).and_then(fence).or(least);
                    child.check(least, fence(slot).or(below), depth + 1, depths)
                });
                counted.sum()
            }
        }
    }
}
