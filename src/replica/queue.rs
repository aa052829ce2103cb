//! What a leader is to propose.

use super::gather::{Gather, patience_of};
use crate::proto::command::Batch;
use prost::Message as _;
use std::collections::VecDeque;
use std::time::Duration;

/// Requests from all members, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    batches: Vec<Batch>,
    bytes: usize,
    requests: usize,
    gather: Gather,
    /// Requests in entries that were proposed and are not applied yet, by the indexes of these.
    proposed: VecDeque<(u64, usize)>,
}

impl Queue {
    pub(super) fn push(&mut self, batch: Batch, now: Duration) {
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
        !self.is_empty() && self.gather.is_due(self.requests, now)
    }

    /// When something is, though nothing comes to it.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.gather.wake_at().filter(|_| !self.is_empty())
    }

    /// What was taken last became this entry.
    pub(super) fn went(&mut self, index: u64, requests: usize) {
        if requests > 0 {
            self.proposed.push_back((index, requests));
        }
        let under_way = self.requests + self.proposed.iter().map(|(_, requests)| requests).sum::<usize>();
        self.gather.went(under_way);
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
