//! Heartbeats that go to the leader, and into the log, together.
//!
//! Most of what a registry of machines writes are keys kept alive: `refresh=true`, or a set with a time to live. There may be
//! thousands a second, evenly spread, so that each would be an entry of its own, with its fsyncs and its messages; and
//! nobody minds if one takes a few milliseconds longer. So they wait for others, at their origin and at the leader, for
//! [`GATHER`] at the most each, and go with the first write that is none of them. Nobody waits for what will not come: when as
//! many have gathered as were lately under way at once, all of those who send one after another have sent theirs. So one
//! client alone waits for nothing, and several do for each other only.
//!
//! What it does not do: delay anything else, or say when others may go (`requests`).

use crate::proto::command::{Operation, Request, request::Body};
use std::time::Duration;

/// How long a heartbeat waits for others.
pub(super) const GATHER: Duration = Duration::from_millis(4);

/// What has gathered since the last that went.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Something that is no heartbeat is among it.
    urgent: bool,
    /// When the first came.
    since: Option<Duration>,
    /// As many were under way at once, counting down slowly.
    most: usize,
}

impl Gather {
    /// One more request came.
    pub(super) fn add(&mut self, heartbeat: bool, now: Duration) {
        self.urgent |= !heartbeat;
        self.since.get_or_insert(now);
    }

    /// What is there may not wait.
    pub(super) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// Whether what has gathered, so many, is to go now.
    pub(super) fn is_due(&self, gathered: usize, now: Duration) -> bool {
        self.urgent || gathered >= self.most || self.wake_at().is_none_or(|due| due <= now)
    }

    /// When it is to go, unless more comes.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.since.map(|since| since + GATHER)
    }

    /// It went, and so many are under way now.
    pub(super) fn went(&mut self, under_way: usize) {
        let most = under_way.max(self.most - self.most.div_ceil(8));
        *self = Self { most, ..Self::default() };
    }
}

/// Whether a request does no more than keep a key alive, as far as can be seen from it.
pub(super) fn is_heartbeat(request: &Request) -> bool {
    request.body.as_ref().is_some_and(keeps_alive)
}

/// The same of a request's body.
pub(super) fn keeps_alive(body: &Body) -> bool {
    let Body::Write(write) = body else { return false };
    write.refresh || (write.operation() == Operation::Set && write.ttl_plus_one > 0)
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
            gather.add(true, MS * at);
            assert!(gather.is_due(1, MS * at), "{at}");
            gather.went(1);
        }
    }

    #[test]
    fn those_who_send_one_after_another_wait_for_each_other_only() {
        let mut gather = Gather::default();
        gather.add(true, MS);
        gather.went(1);
        // Seven others come while the first is under way, as it happens.
        for under_way in 2..=8 {
            gather.add(true, MS);
            gather.went(under_way);
        }
        for round in 2..50 {
            for gathered in 1..=8 {
                gather.add(true, MS * round);
                assert_eq!(gather.is_due(gathered, MS * round), gathered == 8, "{gathered} in {round}");
            }
            gather.went(8);
        }
        // One has gone away: the others wait for it once or twice.
        let mut waits = 0;
        for round in 50..60 {
            gather.add(true, MS * 10 * round);
            if !gather.is_due(7, MS * 10 * round) {
                waits += 1;
                assert!(gather.is_due(7, MS * 10 * round + GATHER));
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
            gather.add(true, now);
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
        let write = |operation: Operation, ttl_plus_one, refresh| {
            keeps_alive(&Body::Write(Write {
                operation: operation.into(),
                ttl_plus_one,
                refresh,
                ..Write::default()
            }))
        };
        assert!(write(Operation::Set, 60_001, false));
        assert!(write(Operation::Update, 60_001, true));
        assert!(!write(Operation::Set, 0, false));
        assert!(!write(Operation::Create, 60_001, false), "it may be a lock");
        assert!(!write(Operation::CompareAndSwap, 60_001, false));
        let mut gather = Gather::default();
        gather.went(100);
        gather.add(true, MS);
        assert!(!gather.is_due(1, MS));
        gather.add(false, MS);
        assert!(gather.is_due(2, MS));
    }
}
