//! What an operator must know of at once: in `/health`, in the metrics and, by whoever raises it, in the log.

use crate::http::backend::{Alarm, BackendError};
use crate::replica::{Failure, Shortage, Standing};
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

/// A failure as clients are told of it.
pub(super) fn error_of(reason: Failure) -> BackendError {
    match reason {
        Failure::Timeout => BackendError::Timeout,
        Failure::NoLeader => BackendError::NoLeader,
        Failure::Overloaded => BackendError::Overloaded,
        Failure::NoRoom(Shortage::Disk) | Failure::LeftOut(Shortage::Disk) => BackendError::NoSpace,
        Failure::NoRoom(Shortage::Quota) | Failure::LeftOut(Shortage::Quota) => BackendError::Quota,
        Failure::Removed => BackendError::Removed,
    }
}

/// Says that the cluster began or ceased to refuse writes.
pub(super) fn log_refusal(now: &Standing) {
    match now.refuses {
        Some(Shortage::Disk) => tracing::warn!(
            leads = now.leads,
            "the cluster refuses writes: the disks of too many members are nearly full; reads and deletes go on"
        ),
        Some(Shortage::Quota) => tracing::warn!(
            leads = now.leads,
            "the cluster refuses writes: the keyspace has reached its quota; reads, deletes and refreshes go on"
        ),
        None => tracing::info!("the cluster does not refuse writes for want of space any more"),
    }
}
