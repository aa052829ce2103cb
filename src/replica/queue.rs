//! What a leader is to propose.
//!
//! Each entry costs every member messages, wake-ups and an fsync. Where many write, what comes while an entry is on its way waits
//! until it is as much as that, or that is applied: two entries that take turns instead of many small ones. Few
//! writers wait for nothing but the disk (`requests`).

use super::ENTRY_BYTES_MAX;
use super::gather::{Gather, patience_of};
use crate::proto::command::Batch;
use prost::Message as _;
use std::collections::VecDeque;
use std::time::Duration;

/// So many requests that are on their way are few, and those behind them do not wait for each other.
const FEW: usize = 16;

/// How long what comes behind many waits at the most.
const PATIENCE: Duration = Duration::from_millis(2);

/// Requests from all members, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: Vec<Batch>,
    bytes: usize,
    requests: usize,
    gather: Gather,
    /// Since when the first is there.
    since: Duration,
    /// Requests in entries that were proposed and are not applied yet, by the indexes of these.
    proposed: VecDeque<(u64, usize)>,
}

impl Queue {
    pub(super) fn push(&mut self, batch: Batch, now: Duration) {
        if self.is_empty() {
            self.since = now;
        }
        self.gather.add(patience_of(&batch.requests), now);
        self.bytes += batch.encoded_len();
        self.requests += batch.requests.len();
        self.batches.push(batch);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is something that is to be proposed now.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        !self.is_empty()
            && self.gather.is_due(self.requests, now)
            && self.held_until().is_none_or(|until| until <= now)
    }

    /// When something is, though nothing comes to it.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        let due = self.gather.wake_at().filter(|_| !self.is_empty())?;
        Some(self.held_until().map_or(due, |until| until.max(due)))
    }

    /// How long more may gather, where that which is on its way is more, and there is not enough for an entry already.
    fn held_until(&self) -> Option<Duration> {
        let under_way = self.under_way();
        let small = self.bytes < ENTRY_BYTES_MAX;
        (small && under_way > FEW && under_way > self.requests).then(|| self.since + PATIENCE)
    }

    /// Requests that were proposed and are not applied yet.
    fn under_way(&self) -> usize {
        self.proposed.iter().map(|(_, requests)| requests).sum()
    }

    /// What was taken last became this entry.
    pub(super) fn went(&mut self, index: u64, requests: usize) {
        if requests > 0 {
            self.proposed.push_back((index, requests));
        }
        self.gather.went(self.requests + self.under_way());
        if !self.is_empty() {
            self.gather.hurry();
        }
    }

    /// The log was applied so far.
    pub(super) fn applied(&mut self, upto: u64) {
        while self.proposed.front().is_some_and(|(index, _)| *index <= upto) {
            self.proposed.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes batches off the queue, splitting one that is too large by itself.
    pub(super) fn take(&mut self, budget: usize) -> Vec<Batch> {
        if self.bytes <= budget {
            (self.bytes, self.requests) = (0, 0);
            return std::mem::take(&mut self.batches);
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < budget && !self.batches.is_empty() {
            let batch = &mut self.batches[0];
            let mut count = 0;
            for request in &batch.requests {
                if bytes >= budget {
                    break;
                }
                bytes += request.encoded_len();
                count += 1;
            }
            if count == batch.requests.len() {
                taken.push(self.batches.remove(0));
            } else {
                let rest = batch.requests.split_off(count);
                let head = Batch {
                    session: batch.session,
                    floor: batch.floor,
                    requests: std::mem::replace(&mut batch.requests, rest),
                };
                taken.push(head);
            }
        }
        self.bytes = self.batches.iter().map(Batch::encoded_len).sum();
        self.requests = self.batches.iter().map(|batch| batch.requests.len()).sum();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::command::Request;

    const MS: Duration = Duration::from_millis(1);

    fn batch(requests: usize) -> Batch {
        Batch { session: 1, floor: 1, requests: vec![Request::default(); requests] }
    }

    /// A queue behind an entry of so many requests, with index 7.
    fn behind(under_way: usize) -> Queue {
        let mut queue = Queue::default();
        queue.push(batch(under_way), MS);
        assert!(queue.is_due(MS));
        queue.take(usize::MAX);
        queue.went(7, under_way);
        queue
    }

    #[test]
    fn behind_few_nobody_waits() {
        let mut queue = behind(FEW);
        queue.push(batch(1), MS * 2);
        assert!(queue.is_due(MS * 2));
    }

    #[test]
    fn behind_many_as_many_gather() {
        let mut queue = behind(FEW + 4);
        for _ in 0..FEW + 3 {
            queue.push(batch(1), MS * 2);
            assert!(!queue.is_due(MS * 2));
            assert_eq!(queue.wake_at(), Some(MS * 2 + PATIENCE));
        }
        queue.push(batch(1), MS * 2);
        assert!(queue.is_due(MS * 2));
    }

    #[test]
    fn what_gathers_goes_when_that_before_it_is_applied_or_time_is_up() {
        let mut queue = behind(FEW + 4);
        queue.push(batch(1), MS * 2);
        queue.push(batch(1), MS * 3);
        assert!(!queue.is_due(MS + PATIENCE) && queue.is_due(MS * 2 + PATIENCE), "since the first came");
        queue.applied(6);
        assert!(!queue.is_due(MS * 3));
        queue.applied(7);
        assert!(queue.is_due(MS * 3));
        queue.take(usize::MAX);
        queue.went(8, 2);
        assert_eq!(queue.wake_at(), None);
        queue.push(batch(1), MS * 4);
        assert!(queue.is_due(MS * 4));
    }
}
