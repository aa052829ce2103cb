//! Log writes on their way to the disk.

use super::World;
use crate::bugs::Bug;
use crate::disk::Job;
use crate::network::Wire;
use quorate::replica::{Input, LogWrite};
use rand::RngExt as _;

/// How much longer a slow disk takes.
const SLOWER: u64 = 20;

/// While it is full, the core is told so this often.
const STALLED_EVERY_MS: u64 = 500;

impl World {
    pub(super) fn queue_write(&mut self, at: usize, mut write: LogWrite) {
        let latency = if write.install.is_some() { self.options.install_ms } else { self.options.sync_ms };
        let slow = self.members[at].disk.slow_until > self.now;
        let latency = if slow { latency.max(10) * SLOWER } else { latency };
        let (acknowledge, send) = match self.options.bug {
            Some(Bug::AckBeforeSync) => (true, true),
            Some(Bug::OwnEntriesBeforeSync) => (true, false),
            _ => (false, false),
        };
        if send {
            for message in std::mem::take(&mut write.then_send) {
                self.send(at, message.to, Wire::Frame(vec![message], vec![], None));
            }
        }
        if acknowledge {
            self.input(at, Input::Persisted { number: write.number });
        }
        self.maybe_crash_soon(at, &write, latency);
        let took = if latency == 0 { 0 } else { self.rng.random_range(0..latency) };
        self.queue(at, self.now + took, Job::Write(write));
    }

    pub(super) fn queue(&mut self, at: usize, due: u64, job: Job) {
        let queue = &mut self.members[at].disk.queue;
        let due = queue.back().map_or(due, |(last, _)| due.max(*last));
        queue.push_back((due, job));
    }

    pub(super) fn sync_disk(&mut self, at: usize) {
        while let Some((due, _)) = self.members[at].disk.queue.front() {
            if *due > self.now {
                return;
            }
            let disk = &mut self.members[at].disk;
            if disk.full_until > self.now {
                // It waits for space, as the log's thread does, and says so now and then.
                let again = disk.full_until.min(self.now + STALLED_EVERY_MS);
                if let Some((due, _)) = disk.queue.front_mut() {
                    *due = again;
                }
                self.coverage.note("writes wait for space");
                self.input(at, Input::Stalled);
                return;
            }
            if !disk.sync_works() {
                self.stop_for_disk(at);
                return;
            }
            let Some((_, job)) = disk.queue.pop_front() else { return };
            disk.done(&job);
            if let Job::Write(write) = job
                && self.synced(at, write).is_none()
            {
                return;
            }
        }
    }

    /// A write is on disk: the core is told first, then its messages go out. None if the member died meanwhile.
    fn synced(&mut self, at: usize, write: LogWrite) -> Option<()> {
        let disk = &self.members[at].disk;
        if let Some(first) = write.entries.first() {
            let before = first.index.checked_sub(1).and_then(|index| disk.term_at(index));
            if !self.options.black_box {
                self.invariants.log_matching.logged(&write.entries, before);
            }
            let again = self.invariants.log_matching.copies(&write.entries);
            self.coverage.note_many("requests twice in the log", again);
        }
        self.coverage.note_many("installs", u64::from(write.install.is_some()));
        self.maybe_crash_between(at, true)?;
        self.input(at, Input::Persisted { number: write.number });
        for message in write.then_send {
            self.maybe_crash_between(at, true)?;
            self.send(at, message.to, Wire::Frame(vec![message], vec![], None));
        }
        Some(())
    }

    /// The core is told when space runs short and when there is some again.
    pub(super) fn look_at_space(&mut self, at: usize) {
        let member = &mut self.members[at];
        let short = member.disk.short_until > self.now;
        if member.short_of_space != short {
            member.short_of_space = short;
            self.input(at, Input::Space { short });
        }
    }
}
