//! Requests on their way into the log: to the leader, and there into entries.

use super::{ENTRY_BYTES_MAX, EXPIRE_LIMIT, QUEUE_BYTES_MAX, Replica, UNCOMMITTED_BYTES_MAX};
use crate::proto::command::{Batch, Entry as CommandEntry};
use prost::Message as _;
use std::time::Duration;

impl Replica {
    /// Gives this member's new requests to the leader, wherever it is.
    pub(super) fn route(&mut self, now: Duration) {
        if self.standing.leader == 0 {
            return;
        }
        let Some(batch) = self.pending.take_unsent(now) else { return };
        if self.standing.leads {
            self.enqueue(now, batch);
        } else {
            let leader = self.standing.leader;
            self.outgoing(leader).forwarded.push(batch);
        }
    }

    /// Whether it may, if it is the leader.
    pub(super) fn may_propose(&self) -> bool {
        !self.leaving && self.raw.raft.lead_transferee.is_none()
    }

    pub(super) fn too_much_uncommitted(&self) -> bool {
        self.raw.raft.uncommitted_size() >= UNCOMMITTED_BYTES_MAX
    }

    /// Queues what another member's clients want. Each member keeps what its own want until it is applied, and bounds it;
    /// but what is sent again may gather here.
    pub(super) fn enqueue_forwarded(&mut self, now: Duration, batch: Batch) {
        if self.queue_bytes < QUEUE_BYTES_MAX
            && let Some(batch) = self.with_room(batch)
        {
            self.enqueue(now, batch);
        }
    }

    pub(super) fn enqueue(&mut self, now: Duration, mut batch: Batch) {
        self.changes.take_from(&mut batch, now + self.config.request_timeout);
        if !batch.requests.is_empty() {
            self.enqueue_plain(batch);
        }
    }

    pub(super) fn enqueue_plain(&mut self, batch: Batch) {
        self.queue_bytes += batch.encoded_len();
        self.queue.push(batch);
    }

    /// Proposes what has gathered as one entry, unless the disk is busy with the last: then more gathers.
    pub(super) fn propose(&mut self, now: Duration) {
        if !self.clock.in_office() || !self.may_propose() || self.too_much_uncommitted() {
            return;
        }
        let time = self.clock.stamp(now);
        let due =
            !self.expiry_proposed && self.state.store.next_deadline().is_some_and(|deadline| deadline < time);
        let disk_busy = self.writes.under_way();
        if disk_busy && self.queue_bytes < ENTRY_BYTES_MAX && !due {
            return;
        }
        let owed = self.owes_an_entry();
        if self.queue.is_empty() && !due && !owed {
            return;
        }
        let mut first = true;
        while first || (!self.queue.is_empty() && !self.too_much_uncommitted()) {
            let entry = CommandEntry {
                time_ms: time.0,
                expire_limit: EXPIRE_LIMIT,
                batches: self.take_from_queue(ENTRY_BYTES_MAX),
                applied: self.state.applied.index,
            };
            first = false;
            let elsewhere = owed || entry.batches.iter().any(|batch| batch.session != self.pending.session());
            if self.raw.propose(vec![], entry.encode_to_vec()).is_err() {
                // Only on its way out of office: origins will send again what was in it.
                return;
            }
            self.note_proposed();
            let log = &self.raw.raft.raft_log;
            self.announcements.went_with_entries(log.committed);
            if elsewhere {
                self.announcements.await_commit(log.last_index());
            }
            self.expiry_proposed |= due;
        }
    }

    /// Takes batches off the queue, splitting one that is too large by itself.
    pub(super) fn take_from_queue(&mut self, budget: usize) -> Vec<Batch> {
        if self.queue_bytes <= budget {
            self.queue_bytes = 0;
            return std::mem::take(&mut self.queue);
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < budget && !self.queue.is_empty() {
            let batch = &mut self.queue[0];
            let mut count = 0;
            for request in &batch.requests {
                if bytes >= budget {
                    break;
                }
                bytes += request.encoded_len();
                count += 1;
            }
            if count == batch.requests.len() {
                taken.push(self.queue.remove(0));
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
        self.queue_bytes = self.queue.iter().map(Batch::encoded_len).sum();
        taken
    }
}
