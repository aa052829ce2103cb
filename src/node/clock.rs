//! Cluster time for whoever answers a request: read without asking the driver.

use crate::http::backend::ClockReading;
use crate::store::ClusterTime;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The member's monotonic clock, and how far cluster time is from it.
#[derive(Debug)]
pub(super) struct ClockCell {
    origin: Instant,
    /// Cluster time minus the monotonic clock, in milliseconds.
    offset_ms: AtomicI64,
}

impl ClockCell {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), offset_ms: AtomicI64::new(0) }
    }

    /// The monotonic clock that the core is stepped with.
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    pub(super) fn set(&self, cluster: ClusterTime, now: Duration) {
        let offset = cluster.0 as i64 - now.as_millis() as i64;
        self.offset_ms.store(offset, Ordering::Relaxed);
    }

    /// Both clocks, now.
    pub(super) fn read(&self) -> ClockReading {
        let ms = self.now().as_millis() as i64 + self.offset_ms.load(Ordering::Relaxed);
        ClockReading { cluster: ClusterTime(ms.max(0) as u64), wall: SystemTime::now() }
    }
}
