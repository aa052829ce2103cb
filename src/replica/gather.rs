//! Requests that go on together, since each trip costs every member messages, wake-ups and perhaps an fsync, however little goes
//! with it: heartbeats to the leader and into the log, readers into a round.
//!
//! Nobody waits for what will not come. When as many have gathered as were lately under way at once, all of those who send one
//! request after another have sent theirs, and they go: one client alone waits for nothing, and several about as long as it
//! takes to hear them all. Where they come as they please, their patience is the bound.
//!
//! Heartbeats have most of it. Most of what a registry of machines writes are keys kept alive: `refresh=true`, or a set with a
//! time to live. There may be thousands a second, evenly spread, and nobody minds if one takes a few milliseconds more. They
//! go with the first write that is none of them; such a write has no patience, for with many of them it gained nothing that
//! could be measured.
//!
//! What it does not do: say when others may go (`requests`, `reads`).

use crate::proto::command::{Operation, Request, request::Body};
use std::time::Duration;

/// How long a heartbeat waits for others at the most, at its origin and again at the leader.
pub(super) const HEARTBEAT_PATIENCE: Duration = Duration::from_millis(4);

/// What has gathered since the last that went.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// When it is to go at the latest.
    due: Option<Duration>,
    /// As many were under way at once, counting down slowly.
    most: usize,
}

impl Gather {
    /// One more request came that waits so long for others at the most.
    pub(super) fn add(&mut self, patience: Duration, now: Duration) {
        let due = now + patience;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// As many as were lately under way at once.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// What is there may not wait.
    pub(super) fn hurry(&mut self) {
        self.due = Some(Duration::ZERO);
    }

    /// Whether what has gathered, so many, is to go now.
    pub(super) fn is_due(&self, gathered: usize, now: Duration) -> bool {
        gathered >= self.most || self.due.is_none_or(|due| due <= now)
    }

    /// When it is to go, unless more comes.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.due
    }

    /// It went, and so many are under way now.
    pub(super) fn went(&mut self, under_way: usize) {
        let most = under_way.max(self.most - self.most.div_ceil(8));
        *self = Self { due: None, most };
    }
}

/// How long requests that come together wait for others.
pub(super) fn patience_of(requests: &[Request]) -> Duration {
    requests.iter().filter_map(|request| request.body.as_ref()).map(patience).min().unwrap_or_default()
}

/// How long a request waits for others: some time if it does no more than keep a key alive, as far as can be seen from it.
pub(super) fn patience(body: &Body) -> Duration {
    let Body::Write(write) = body else { return Duration::ZERO };
    let heartbeat = write.refresh || (write.operation() == Operation::Set && write.ttl_plus_one > 0);
    if heartbeat { HEARTBEAT_PATIENCE } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::command::Write;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_at_a_time_waits_for_nothing() {
        let mut gather = Gather::default();
        for at in 1..100 {
            gather.add(HEARTBEAT_PATIENCE, MS * at);
            assert!(gather.is_due(1, MS * at), "{at}");
            gather.went(1);
        }
    }

    #[test]
    fn those_who_send_one_after_another_wait_for_each_other_only() {
        let mut gather = Gather::default();
        gather.add(HEARTBEAT_PATIENCE, MS);
        gather.went(1);
        // Seven others come while the first is under way, as it happens.
        for under_way in 2..=8 {
            gather.add(HEARTBEAT_PATIENCE, MS);
            gather.went(under_way);
        }
        for round in 2..50 {
            for gathered in 1..=8 {
                gather.add(HEARTBEAT_PATIENCE, MS * round);
                assert_eq!(gather.is_due(gathered, MS * round), gathered == 8, "{gathered} in {round}");
            }
            gather.went(8);
        }
        // One has gone away: the others wait for it once or twice.
        let mut waits = 0;
        for round in 50..60 {
            gather.add(HEARTBEAT_PATIENCE, MS * 10 * round);
            if !gather.is_due(7, MS * 10 * round) {
                waits += 1;
                assert!(gather.is_due(7, MS * 10 * round + HEARTBEAT_PATIENCE));
            }
            gather.went(7);
        }
        assert_eq!(waits, 1);
    }

    #[test]
    fn many_that_come_as_they_please_gather_for_about_the_whole_time() {
        // Two a millisecond, each applied two milliseconds after it went.
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut gather, mut gathered, mut applied, mut now) = (Gather::default(), 0, vec![], MS);
        let (mut went, mut sent) = (0, 0);
        for _ in 0..10_000u32 {
            now += MS * rng.random_range(0..=1_000) / 1_000;
            applied.retain(|(until, _)| *until > now);
            gather.add(HEARTBEAT_PATIENCE, now);
            gathered += 1;
            if gather.is_due(gathered, now) {
                applied.push((now + MS * 2, gathered));
                gather.went(applied.iter().map(|(_, count)| count).sum());
                (went, sent) = (went + 1, sent + gathered);
                gathered = 0;
            }
        }
        assert!(sent / went >= 6, "{sent} in {went}");
    }

    #[test]
    fn heartbeats_are_told_from_writes_that_somebody_waits_for() {
        let heartbeat = |operation: Operation, ttl_plus_one, refresh| {
            let operation = operation.into();
            let write = Body::Write(Write { operation, ttl_plus_one, refresh, ..Write::default() });
            patience(&write) > Duration::ZERO
        };
        assert!(heartbeat(Operation::Set, 60_001, false));
        assert!(heartbeat(Operation::Update, 60_001, true));
        assert!(!heartbeat(Operation::Set, 0, false));
        assert!(!heartbeat(Operation::Create, 60_001, false), "it may be a lock");
        assert!(!heartbeat(Operation::CompareAndSwap, 60_001, false));
        let mut gather = Gather::default();
        gather.went(100);
        gather.add(HEARTBEAT_PATIENCE, MS);
        assert_eq!(gather.wake_at(), Some(MS + HEARTBEAT_PATIENCE));
        assert!(!gather.is_due(1, MS * 2));
        gather.add(Duration::ZERO, MS * 2);
        assert!(gather.is_due(2, MS * 2), "they go with it");
    }
}
