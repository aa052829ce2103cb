//! A member's monotonic clock as hardware makes it: it runs at a rate of its own, may jump ahead, and stands still while
//! its machine is suspended. It never goes back; that much an operating system promises.

use std::time::Duration;

#[derive(Debug)]
pub struct Clock {
    /// How many microseconds it counts in a real millisecond.
    rate: u64,
    /// The real time from which it has counted on from `base`.
    since: u64,
    base: Duration,
}

impl Clock {
    pub fn new(rate: u64) -> Self {
        Self { rate, since: 0, base: Duration::ZERO }
    }

    /// The process starts: its clock begins at zero.
    pub fn start(&mut self, now: u64) {
        (self.since, self.base) = (now, Duration::ZERO);
    }

    pub fn read(&self, now: u64) -> Duration {
        self.base + Duration::from_micros(now.saturating_sub(self.since) * self.rate)
    }

    /// The real time at which it will show this, if nothing befalls it.
    pub fn when(&self, reading: Duration) -> u64 {
        let ahead = reading.saturating_sub(self.base).as_micros() as u64;
        self.since + ahead.div_ceil(self.rate)
    }

    pub fn jump(&mut self, now: u64, ms: u64) {
        (self.base, self.since) = (self.read(now) + Duration::from_millis(ms), now);
    }

    pub fn set_rate(&mut self, now: u64, rate: u64) {
        (self.base, self.since, self.rate) = (self.read(now), now.max(self.since), rate);
    }

    pub fn stand_still(&mut self, now: u64, until: u64) {
        (self.base, self.since) = (self.read(now), until.max(self.since));
    }

    /// It does not stand still any longer.
    pub fn go_on(&mut self, now: u64) {
        self.since = self.since.min(now);
    }
}
