//! A key with a time to live does not expire early by anybody's clock, and not much later than its time.
//!
//! Not early: between the request for it and its expiry there was a leader for at least its time, allowing for clocks that
//! run fast and for those that jumped. Not late: when it expires, cluster time is past its deadline by no more than an
//! expiry may take that has to wait for a disk, a pause of the leader or an election (`late_ms_max`). That cluster time
//! goes on whenever there is a leader follows from the last phase, in which all keys must be gone in time.

use quorate::store::{Action, Event, Key};
use std::collections::HashMap;

pub struct TimesToLive {
    drift_permille: u64,
    late_ms_max: u64,
    /// How long there was a leader, and how far clocks have jumped ahead.
    led_ms: u64,
    jumped_ms: u64,
    /// When each was asked for, by key and time to live: no two requests for one key have the same.
    asked: HashMap<(Key, u64), (u64, u64)>,
    pub expired: u64,
    pub latest_ms: u64,
}

impl TimesToLive {
    pub fn new(drift_permille: u64, late_ms_max: u64) -> Self {
        Self {
            drift_permille,
            late_ms_max,
            led_ms: 0,
            jumped_ms: 0,
            asked: HashMap::new(),
            expired: 0,
            latest_ms: 0,
        }
    }

    pub fn time_passed(&mut self, ms: u64, led: bool) {
        if led {
            self.led_ms += ms;
        }
    }

    pub fn clock_jumped(&mut self, ms: u64) {
        self.jumped_ms += ms;
    }

    pub fn asked(&mut self, key: Key, ttl: u64) {
        let before = self.asked.insert((key, ttl), (self.led_ms, self.jumped_ms));
        assert!(before.is_none(), "times to live are unique");
    }

    /// The first time that an index was applied anywhere; `since` is the event that gave the key its deadline.
    pub fn applied(&mut self, event: &Event, since: impl Fn(u64) -> u64) {
        if event.action != Action::Expire {
            return;
        }
        let before = event.prev_node.as_ref().expect("what expires was there");
        let deadline = before.deadline.expect("only what has a deadline expires").0;
        let key = &event.node.key;
        let ttl = deadline - since(before.modified);
        let (led, jumped) = self.asked[&(key.clone(), ttl)];
        let (led, jumped) = (self.led_ms - led, self.jumped_ms - jumped);
        let at_most = led + led * self.drift_permille / 1_000 + jumped + 2;
        assert!(at_most >= ttl, "{key:?} expired after {led} of its {ttl} ms (clocks jumped {jumped} ms)");
        let late = event.time.0.checked_sub(deadline).expect("expired before its deadline by cluster time");
        self.expired += 1;
        self.latest_ms = self.latest_ms.max(late);
        assert!(late <= self.late_ms_max, "{key:?} expired {late} ms late");
    }
}
