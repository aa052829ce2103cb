//! Room on the member's disk, looked at in the background: a write costs an atomic addition, no system call.
//!
//! The disk is nearly full from when less than the reserve is free until there is a quarter more than that. Between two
//! looks, what is written to the log is counted as gone, so that a burst does not go through the reserve. What follows
//! from it is decided by the leader (`replica::Shortage`).

use super::alarms::Alarms;
use super::driver::DriverInput;
use super::published::Published;
use crate::replica::Input;
use crate::storage::{DiskSpace, disk_space};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The reserve, where none was configured: so much, but not more than a tenth of the file system.
const RESERVE_BYTES: u64 = 64 << 20;
const RESERVE_SHARE: u64 = 10;

/// The disk as it was last seen.
#[derive(Debug, Default)]
pub(super) struct Space {
    free: AtomicI64,
    reserve: AtomicU64,
    short: AtomicBool,
}

impl Space {
    /// So many bytes go into the log. True if the disk is nearly full with them, and was not before.
    pub(super) fn wrote(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let free = self.free.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
        free < self.reserve() && !self.short.swap(true, Ordering::Relaxed)
    }

    /// Bytes free, and the reserve.
    pub(super) fn figures(&self) -> (u64, u64) {
        (u64::try_from(self.free.load(Ordering::Relaxed)).unwrap_or(0), self.reserve.load(Ordering::Relaxed))
    }

    fn reserve(&self) -> i64 {
        i64::try_from(self.reserve.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
    }

    /// Takes in a look at the disk. `Some` if it is nearly full now and was not, or the other way round.
    fn look(&self, seen: DiskSpace, configured: Option<u64>) -> Option<bool> {
        let reserve = configured.unwrap_or_else(|| RESERVE_BYTES.min(seen.total / RESERVE_SHARE));
        self.reserve.store(reserve, Ordering::Relaxed);
        self.free.store(i64::try_from(seen.free).unwrap_or(i64::MAX), Ordering::Relaxed);
        let before = self.short.load(Ordering::Relaxed);
        let short = seen.free < if before { reserve + reserve / 4 } else { reserve };
        self.short.store(short, Ordering::Relaxed);
        (short != before).then_some(short)
    }
}

/// The thread that looks.
pub(super) struct SpaceWatch {
    pub dir: PathBuf,
    pub space: Arc<Space>,
    /// As configured; `None`: by the size of the disk.
    pub reserve: Option<u64>,
    /// Bytes of keys and values that the keyspace may reach; 0: any number.
    pub quota: u64,
    pub published: Arc<Published>,
    pub alarms: Arc<Alarms>,
    pub driver: mpsc::Sender<DriverInput>,
    /// Closed when the member stops.
    pub stopped: Receiver<()>,
}

impl SpaceWatch {
    /// The first look; the member starts with what it says.
    pub(super) fn begin(&self) {
        self.look();
    }

    pub(super) fn run(self) {
        while self.stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            self.look();
        }
    }

    fn look(&self) {
        match disk_space(&self.dir) {
            Ok(seen) => {
                let told = self.alarms.space.load(Ordering::Relaxed);
                let changed = self.space.look(seen, self.reserve);
                // The log's thread may have been the first to notice.
                let short = changed.unwrap_or_else(|| self.space.short.load(Ordering::Relaxed));
                if short != told || changed.is_some() {
                    self.tell(seen, short);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot see how much space is free"),
        }
        let bytes = self.published.summary().bytes;
        let over = self.quota > 0 && bytes >= self.quota;
        if self.alarms.quota.swap(over, Ordering::Relaxed) != over {
            if over {
                tracing::error!(
                    bytes,
                    quota = self.quota,
                    "the keyspace has reached -quota-backend-bytes: only reads, deletes and refreshes are taken until keys are deleted"
                );
            } else {
                tracing::info!(bytes, quota = self.quota, "the keyspace is below its quota again");
            }
        }
    }

    fn tell(&self, seen: DiskSpace, short: bool) {
        let (free_mib, reserve_mib) = (seen.free >> 20, self.space.figures().1 >> 20);
        let path = self.dir.display();
        if short {
            tracing::error!(
                %path,
                free_mib,
                reserve_mib,
                "the disk is nearly full: writes are refused unless enough other members have room; free some space there"
            );
        } else {
            tracing::info!(%path, free_mib, reserve_mib, "the disk has room again");
        }
        // A driver that has no room for it is told at the next look.
        let told = self.driver.try_send(DriverInput::Input(Input::Space { short })).is_ok();
        self.alarms.space.store(short == told, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn seen(free: u64) -> DiskSpace {
        DiskSpace { free, total: 100 * MIB }
    }

    #[test]
    fn between_the_marks_it_stays_as_it_was() {
        let space = Space::default();
        assert_eq!(space.look(seen(50 * MIB), None), None);
        assert_eq!(space.figures(), (50 * MIB, 10 * MIB), "a tenth of the disk");
        assert_eq!(space.look(seen(11 * MIB), None), None);
        assert_eq!(space.look(seen(9 * MIB), None), Some(true));
        assert_eq!(space.look(seen(12 * MIB), None), None);
        assert_eq!(space.look(seen(13 * MIB), None), Some(false));
        assert_eq!(space.look(seen(30 * MIB), Some(40 * MIB)), Some(true), "as configured");
        assert_eq!(space.look(seen(0), Some(0)), Some(false), "none");
    }

    #[test]
    fn what_is_written_between_two_looks_counts() {
        let space = Space::default();
        space.look(seen(20 * MIB), None);
        assert!(!space.wrote(5 * MIB));
        assert!(!space.wrote(5 * MIB));
        assert!(space.wrote(1));
        assert!(!space.wrote(MIB), "told once");
        assert_eq!(
            space.look(seen(20 * MIB), None),
            Some(false),
            "it was compressed, or the log was compacted"
        );
    }
}
