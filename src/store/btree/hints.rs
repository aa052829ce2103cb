//! Eight bytes of each key of a page, one after another in memory, so that a search need not look at most keys.

use super::Order;
use super::page::SLOTS;
use arrayvec::ArrayVec;
use std::cmp::Ordering;

/// For each key of a page, in order, what [`Order::hint`] makes of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hints {
    /// All keys have so many bytes in common from the start, or more.
    skip: usize,
    of: ArrayVec<u64, SLOTS>,
}

impl Hints {
    /// Of the keys that `at` gives, so many.
    pub(super) fn new<'k, O: Order>(len: usize, at: impl Fn(usize) -> O::Key<'k>) -> Self {
        let skip = if len < 2 { 0 } else { O::compare(at(0), at(len - 1)).1 };
        Self { skip, of: (0..len).map(|slot| O::hint(at(slot), skip)).collect() }
    }

    /// In which slot a key is, or else belongs. `at` gives the key of a slot.
    ///
    /// The hints are searched as if the key began like all keys of the page. Whether it does shows at the first key that
    /// it is compared with, which nearly always is the one that it is equal to.
    pub(super) fn find<'k, O: Order>(
        &self,
        key: O::Key<'_>,
        at: impl Fn(usize) -> O::Key<'k>,
    ) -> Result<usize, usize> {
        let hint = O::hint(key, self.skip);
        let mut low = self.of.partition_point(|other| *other < hint);
        let mut high = low + self.of[low..].iter().take_while(|other| **other == hint).count();
        let elsewhere = |order| Err(if order == Ordering::Less { 0 } else { self.of.len() });
        if low == high {
            if self.skip > 0
                && let Some(last) = self.of.len().checked_sub(1)
            {
                let (order, common) = O::compare(key, at(low.min(last)));
                if common < self.skip {
                    return elsewhere(order);
                }
            }
            return Err(low);
        }
        while low < high {
            let middle = usize::midpoint(low, high);
            let (order, common) = O::compare(key, at(middle));
            match order {
                Ordering::Equal => return Ok(middle),
                order if common < self.skip => return elsewhere(order),
                Ordering::Less => high = middle,
                Ordering::Greater => low = middle + 1,
            }
        }
        Err(low)
    }

    /// A key was put into a slot.
    pub(super) fn insert<'k, O: Order>(&mut self, slot: usize, at: impl Fn(usize) -> O::Key<'k>) {
        let len = self.of.len() + 1;
        let at_an_end = slot == 0 || slot + 1 == len;
        // A page that grows at its end begins with the hints of one key.
        if len.is_power_of_two() || (at_an_end && O::compare(at(0), at(len - 1)).1 < self.skip) {
            *self = Self::new::<O>(len, at);
        } else {
            self.of.insert(slot, O::hint(at(slot), self.skip));
        }
    }

    /// A key was taken out of a slot.
    pub(super) fn remove(&mut self, slot: usize) {
        self.of.remove(slot);
    }

    #[cfg(test)]
    pub(super) fn check<'k, O: Order>(&self, len: usize, at: impl Fn(usize) -> O::Key<'k>) {
        assert_eq!(self.of.len(), len);
        if len > 1 {
            assert!(self.skip <= O::compare(at(0), at(len - 1)).1);
        }
        for slot in 0..len {
            assert_eq!(self.of[slot], O::hint(at(slot), self.skip));
            assert_eq!(self.find::<O>(at(slot), &at), Ok(slot));
        }
    }
}
