//! Cluster time for whoever answers a request: read without asking the driver.

use crate::http::backend::ClockReading;
use crate::store::ClusterTime;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The member's monotonic clock, and how far cluster time is from it.
#[derive(Debug)]
pub(super) struct ClockCell {
    origin: Instant,
    /// Cluster time minus the monotonic clock, in microseconds.
    offset_micros: AtomicI64,
}

impl ClockCell {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), offset_micros: AtomicI64::new(0) }
    }

    /// The monotonic clock that the core is stepped with.
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    pub(super) fn set_offset(&self, micros: i64) {
        self.offset_micros.store(micros, Ordering::Relaxed);
    }

    /// Both clocks at the last full millisecond of cluster time: so a deadline comes out as the same wall-clock time
    /// whenever it is shown.
    pub(super) fn read(&self) -> ClockReading {
        let wall = SystemTime::now();
        let micros = self.now().as_micros() as i64 + self.offset_micros.load(Ordering::Relaxed);
        let micros = u64::try_from(micros).unwrap_or(0);
        let wall = wall.checked_sub(Duration::from_micros(micros % 1_000)).unwrap_or(wall);
        ClockReading { cluster: ClusterTime(micros / 1_000), wall }
    }
}
