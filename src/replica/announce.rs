//! When a leader tells its followers how far the log is committed.
//!
//! Entries and heartbeats say it on their way. A message for that alone wakes each follower once more for each write,
//! and while one write follows another it says what the next entries say a moment later. So there is one only where
//! somebody at a follower waits for it, as a write that came from there or a read does, or when there was nothing else
//! for [`ANNOUNCE_AFTER`]: that much later a follower's watchers, and readers of its own state, may see a write.
//!
//! What it does not do: the changes of membership, which raft announces at once by itself.

use super::Replica;
use std::time::Duration;

/// How long a commit that nobody waits for may be known to the leader alone.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(1);

/// What a leader's followers have been told.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// They were sent this commit index.
    told: u64,
    /// Somebody at a follower waits for what is committed up to here.
    awaited: u64,
    /// When they are to be told at the latest.
    due: Option<Duration>,
}

impl Announcements {
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.due
    }

    /// Somebody at a follower waits for the log up to here.
    pub(super) fn await_commit(&mut self, index: u64) {
        self.awaited = self.awaited.max(index);
    }

    /// Entries went to the followers, with the commit index.
    pub(super) fn went_with_entries(&mut self, committed: u64) {
        self.told = self.told.max(committed);
    }

    /// Whether the followers are to be told of this commit index now.
    fn is_due(&mut self, committed: u64, now: Duration) -> bool {
        if committed <= self.told {
            self.due = None;
            return false;
        }
        let due = *self.due.get_or_insert(now + ANNOUNCE_AFTER);
        if self.told >= self.awaited && now < due {
            return false;
        }
        (self.told, self.due) = (committed, None);
        true
    }
}

impl Replica {
    /// Tells the followers of a commit if it is time. After `propose`, whose entries say it too.
    pub(super) fn announce_commit(&mut self, now: Duration) {
        let log = &self.raw.raft.raft_log;
        if !self.standing.leads {
            // Whoever becomes the leader does not know who waits for what the one before it has left, or for its own first entry.
            self.announcements = Announcements { awaited: log.last_index() + 1, ..Announcements::default() };
        } else if self.announcements.is_due(log.committed, now) {
            self.raw.raft.bcast_append();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_nobody_waits_for_is_told_with_the_next_entries_or_after_a_moment() {
        let mut news = Announcements::default();
        assert!(!news.is_due(0, MS));
        assert!(!news.is_due(5, MS));
        assert_eq!(news.wake_at(), Some(MS + ANNOUNCE_AFTER));
        news.went_with_entries(5);
        assert!(!news.is_due(5, MS));
        assert_eq!(news.wake_at(), None, "nobody comes back for nothing");
        assert!(!news.is_due(6, MS * 2));
        assert!(!news.is_due(7, MS * 2 + ANNOUNCE_AFTER / 2), "a later commit does not put it off");
        assert!(news.is_due(7, MS * 2 + ANNOUNCE_AFTER));
        assert!(!news.is_due(7, MS * 9));
    }

    #[test]
    fn what_somebody_waits_for_is_told_at_once() {
        let mut news = Announcements::default();
        news.await_commit(4);
        assert!(news.is_due(3, MS), "it may be what they wait for");
        assert!(news.is_due(4, MS));
        assert!(!news.is_due(5, MS));
    }
}
