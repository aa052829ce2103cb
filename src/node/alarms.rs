//! What an operator must know of at once: in `/health`, in the metrics and, by whoever raises it, in the log.

use crate::http::backend::Alarm;
use std::sync::atomic::{AtomicBool, Ordering};

/// The alarms that are on.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// The member's disk is nearly full.
    pub space: AtomicBool,
    /// The log waits for space: the disk is full.
    pub full: AtomicBool,
    /// The keyspace has reached its quota.
    pub quota: AtomicBool,
    /// The member's state differs from the leader's: it serves nothing any more.
    pub diverged: AtomicBool,
    /// The member was removed from its cluster: it serves nothing any more.
    pub removed: AtomicBool,
}

impl Alarms {
    pub(super) fn all(&self) -> impl Iterator<Item = (Alarm, bool)> {
        [
            (Alarm::NoSpace, &self.space),
            (Alarm::DiskFull, &self.full),
            (Alarm::Quota, &self.quota),
            (Alarm::Corrupt, &self.diverged),
            (Alarm::Removed, &self.removed),
        ]
        .into_iter()
        .map(|(alarm, on)| (alarm, on.load(Ordering::Relaxed)))
    }
}
