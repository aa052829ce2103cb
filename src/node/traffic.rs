//! How many messages with log entries come and go, and how fast: the figures of `/v2/stats/self`.

use crate::http::backend::Appends;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Rates are those of this many messages at the most, as in etcd.
const RECENT_MAX: usize = 200;
/// After so long without a message there is no rate.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// Counts messages of one kind.
#[derive(Debug, Default)]
pub(super) struct AppendCounter(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    count: u64,
    recent: VecDeque<(Instant, usize)>,
    recent_bytes: usize,
}

impl AppendCounter {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a message of this size.
    pub(super) fn add(&self, bytes: usize) {
        self.add_at(Instant::now(), bytes);
    }

    fn add_at(&self, now: Instant, bytes: usize) {
        let counted = &mut *self.counted();
        counted.count += 1;
        if counted.recent.len() == RECENT_MAX
            && let Some((_, oldest)) = counted.recent.pop_front()
        {
            counted.recent_bytes -= oldest;
        }
        counted.recent.push_back((now, bytes));
        counted.recent_bytes += bytes;
    }

    /// The figures as of now.
    pub(super) fn appends(&self) -> Appends {
        self.appends_at(Instant::now())
    }

    fn appends_at(&self, now: Instant) -> Appends {
        let counted = self.counted();
        let quiet = Appends { count: counted.count, ..Appends::default() };
        let (Some((first, _)), Some((last, _))) = (counted.recent.front(), counted.recent.back()) else {
            return quiet;
        };
        let seconds = last.duration_since(*first).as_secs_f64();
        if seconds <= 0.0 || now.duration_since(*last) > QUIET_AFTER {
            return quiet;
        }
        Appends {
            per_second: counted.recent.len() as f64 / seconds,
            bytes_per_second: counted.recent_bytes as f64 / seconds,
            ..quiet
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_recent_messages() {
        let counter = AppendCounter::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(counter.appends_at(start), Appends::default());
        for message in 0..300 {
            // The first hundred are large, slow, and long ago.
            counter.add_at(
                at(if message < 100 { 0 } else { 1000 + message }),
                if message < 100 { 9000 } else { 50 },
            );
        }
        let Appends { count, per_second, bytes_per_second } = counter.appends_at(at(1500));
        assert_eq!(count, 300);
        let expected = 200.0 / 0.199;
        assert!((per_second - expected).abs() < 0.01, "{per_second}");
        assert!((bytes_per_second - 50.0 * expected).abs() < 0.5, "{bytes_per_second}");
        let quiet = Appends { count: 300, ..Appends::default() };
        assert_eq!(counter.appends_at(at(2400)), quiet);
    }
}
