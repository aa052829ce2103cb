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
    pub(super) fn enqueue_forwarded(&mut self, now: Duration, from: u64, batch: Batch) {
        if self.queue.bytes() < QUEUE_BYTES_MAX
            && let Some(batch) = self.with_room(now, from, batch)
        {
            self.enqueue(now, batch);
        }
    }

    pub(super) fn enqueue(&mut self, now: Duration, mut batch: Batch) {
        self.changes.take_from(&mut batch, now + self.config.request_timeout);
        if !batch.requests.is_empty() {
            self.queue.push(batch, now);
        }
    }

    /// Proposes what has gathered as one entry, unless the disk is busy with the last, or there are heartbeats only that may
    /// wait for others: then more gathers.
    pub(super) fn propose(&mut self, now: Duration) {
        if !self.clock.in_office() || !self.may_propose() || self.too_much_uncommitted() {
            return;
        }
        let time = self.clock.stamp(now);
        let due =
            !self.expiry_proposed && self.state.store.next_deadline().is_some_and(|deadline| deadline < time);
        let disk_busy = self.writes.under_way();
        if disk_busy && self.queue.bytes() < ENTRY_BYTES_MAX && !due {
            return;
        }
        let owed = self.owes_an_entry();
        if !self.queue.is_due(now) && !due && !owed {
            return;
        }
        let mut first = true;
        while first || (!self.queue.is_empty() && !self.too_much_uncommitted()) {
            let entry = CommandEntry {
                time_ms: time.0,
                expire_limit: EXPIRE_LIMIT,
                batches: self.queue.take(ENTRY_BYTES_MAX),
                applied: self.state.applied.index,
            };
            first = false;
            let requests = entry.batches.iter().map(|batch| batch.requests.len()).sum();
            let elsewhere = owed || entry.batches.iter().any(|batch| batch.session != self.pending.session());
            if self.raw.propose(vec![], entry.encode_to_vec()).is_err() {
                // Only on its way out of office: origins will send again what was in it.
                return;
            }
            self.note_proposed();
            let log = &self.raw.raft.raft_log;
            self.queue.went(log.last_index(), requests);
            self.announcements.went_with_entries(log.committed);
            if elsewhere {
                self.announcements.await_commit(log.last_index());
            }
            self.expiry_proposed |= due;
        }
    }
}
