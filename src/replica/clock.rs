//! Cluster time: the clock by which keys expire.
//!
//! A leader's reading is a base plus what its own monotonic clock has counted since it took office, and every log
//! entry carries one, never lower than the entry before. A leader also tells its reading with its heartbeats (the
//! beacon), so that a follower which takes over goes on from there although an idle leader wrote nothing.
//!
//! What counts is the word of the latest term, even if it is less than an earlier term's: a leader does not know all
//! that the one before it has told others, so it may begin lower, and keys that it has stamped live by its clock. A
//! leader speaks only once an entry of its term is committed, so whoever heard it knows of no earlier term's entries
//! that it did not know.
//!
//! Hence: no wall clock has a part in it; time without a leader does not count; a reading is never ahead of the real
//! time that has passed, and less than a millisecond behind it. A key is expired only when the reading is beyond its
//! deadline (`state`), so nothing expires early, not by a part of a millisecond either.

use crate::store::ClusterTime;
use std::time::Duration;

/// What a member knows of cluster time. `now` arguments are its monotonic clock.
#[derive(Debug)]
pub(super) struct Clock {
    /// While leading: the term, the reading at the moment it took office, and that moment.
    leading: Option<(u64, ClusterTime, Duration)>,
    /// The latest reading told by a leader, its term, and when it was heard.
    heard: (u64, ClusterTime, Duration),
    /// The last reading given out while leading.
    last: ClusterTime,
}

impl Clock {
    /// `known` is a reading of `term` from before: the applied state's, or the hint kept beside the log.
    pub(super) fn new(term: u64, known: ClusterTime, now: Duration) -> Self {
        Self { leading: None, heard: (term, known, now), last: known }
    }

    /// This member can now stamp entries; `applied` is the time of the last entry before its own.
    pub(super) fn take_office(&mut self, term: u64, applied: ClusterTime, now: Duration) {
        if self.leading.is_none() {
            let base = applied.max(self.heard.1);
            self.leading = Some((term, base, now));
            self.last = base;
        }
    }

    /// This member led and does not any more.
    pub(super) fn leave_office(&mut self, now: Duration) {
        if let Some((term, ..)) = self.leading {
            let reading = self.stamp(now);
            self.leading = None;
            self.heard = (term, reading, now);
        }
    }

    pub(super) fn in_office(&self) -> bool {
        self.leading.is_some()
    }

    /// The leader of `term` says, by beacon or in an entry that is committed, that it is `time`. A later term's word replaces an earlier one's, even backwards:
    /// a leader that was cut off counted on alone.
    pub(super) fn hear(&mut self, term: u64, time: ClusterTime, now: Duration) {
        if term > self.heard.0 || (term == self.heard.0 && time >= self.heard.1) {
            self.heard = (term, time, now);
        }
    }

    /// The leader's reading for an entry or beacon; never decreases.
    pub(super) fn stamp(&mut self, now: Duration) -> ClusterTime {
        let reading = self.read(now);
        self.last = self.last.max(reading);
        self.last
    }

    /// The best estimate of the reading now, on any member. For display, and for the leader's decisions.
    pub(super) fn read(&self, now: Duration) -> ClusterTime {
        let (_, base, since) = self.leading.unwrap_or(self.heard);
        base.plus(now.saturating_sub(since).as_millis() as u64)
    }

    /// Cluster time minus this member's monotonic clock, in microseconds: what [`Self::read`] adds, without its
    /// rounding, so that it only changes with the base.
    pub(super) fn offset_micros(&self) -> i64 {
        let (_, base, since) = self.leading.unwrap_or(self.heard);
        let micros = i64::try_from(base.0).unwrap_or(i64::MAX).saturating_mul(1_000);
        micros.saturating_sub(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// The last reading that a leader vouched for, and its term: what to go on from after a restart.
    pub(super) fn vouched(&self, now: Duration) -> (u64, ClusterTime) {
        match self.leading {
            Some((term, ..)) => (term, self.read(now)),
            None => (self.heard.0, self.heard.1),
        }
    }

    /// When, by this member's monotonic clock, the leader's reading will be `time`.
    pub(super) fn when(&self, time: ClusterTime) -> Option<Duration> {
        let (_, base, since) = self.leading?;
        Some(since + Duration::from_millis(time.0.saturating_sub(base.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_successor_goes_on_from_the_last_reading_it_heard_and_counts_no_leaderless_time() {
        let mut clock = Clock::new(0, ClusterTime(1_000), ms(0));
        clock.hear(3, ClusterTime(5_000), ms(10));
        clock.take_office(4, ClusterTime(4_000), ms(2_010));
        assert_eq!(clock.stamp(ms(2_010)), ClusterTime(5_000));
        assert_eq!(clock.stamp(ms(2_110)), ClusterTime(5_100));
        assert_eq!(clock.when(ClusterTime(6_000)), Some(ms(3_010)));
    }

    #[test]
    fn a_reading_of_a_later_term_replaces_a_higher_one_of_an_earlier_term() {
        let mut clock = Clock::new(0, ClusterTime(0), ms(0));
        clock.take_office(1, ClusterTime(0), ms(0));
        clock.leave_office(ms(60_000)); // cut off, it counted a minute alone
        clock.hear(2, ClusterTime(7), ms(60_001));
        clock.take_office(3, ClusterTime(5), ms(60_002));
        assert_eq!(clock.stamp(ms(60_002)), ClusterTime(7));
    }

    #[test]
    fn an_entry_of_a_later_term_replaces_a_higher_beacon_of_an_earlier_one() {
        let mut clock = Clock::new(0, ClusterTime(0), ms(0));
        clock.hear(1, ClusterTime(10_000), ms(10_000));
        // The leader of term 2 had not heard that; it stamps a key that lives 5 s, and is gone before its first beacon.
        clock.hear(2, ClusterTime(5_100), ms(10_100));
        clock.take_office(3, ClusterTime(5_100), ms(11_000));
        assert!(clock.stamp(ms(11_000)) < ClusterTime(10_100), "or the key would be gone after one");
    }

    #[test]
    fn readings_of_one_office_never_decrease_and_an_old_term_is_not_listened_to() {
        let mut clock = Clock::new(0, ClusterTime(50), ms(0));
        clock.hear(5, ClusterTime(100), ms(0));
        clock.hear(4, ClusterTime(900), ms(1));
        clock.hear(5, ClusterTime(90), ms(2));
        assert_eq!(clock.vouched(ms(500)), (5, ClusterTime(100)));
        clock.take_office(6, ClusterTime(0), ms(3));
        let first = clock.stamp(ms(10));
        assert!(clock.stamp(ms(9)) >= first);
    }
}
