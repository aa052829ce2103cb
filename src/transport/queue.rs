//! What waits to be sent to one peer. Pure: the clock is an argument.
//!
//! Invariants:
//! - Messages leave in the order in which they came, each kind for itself.
//! - `bytes` is the sum over what waits and stays within `queue_bytes` (connected) or `offline_bytes` (not).
//! - What is lost is told once for each outage and once for each overflow: the callers pass a `true` on.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;

use super::{Outgoing, TransportConfig};
use crate::proto::command::Batch;
use crate::proto::peer::{Beacon, Frame};

/// What a message adds to a frame besides itself, at most: a tag and a length.
const ITEM_OVERHEAD: usize = 8;

#[derive(Debug)]
struct Waiting<T> {
    since: Instant,
    bytes: usize,
    item: T,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    raft: VecDeque<Waiting<Bytes>>,
    forwarded: VecDeque<Waiting<Batch>>,
    beacon: Option<Beacon>,
    bytes: usize,
    connected: bool,
    loss_told: bool,
}

impl Queue {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn is_empty(&self) -> bool {
        self.raft.is_empty() && self.forwarded.is_empty() && self.beacon.is_none()
    }

    /// Adds what is to be sent. `true`: something was lost, and this is to be told.
    #[must_use]
    pub(super) fn push(&mut self, now: Instant, outgoing: Outgoing, config: &TransportConfig) -> bool {
        let Outgoing { mut raft, forwarded, beacon } = outgoing;
        let count = raft.len() + forwarded.len();
        raft.retain(|message| message.len() + ITEM_OVERHEAD <= config.message_bytes);
        let mut forwarded: Vec<_> = forwarded.into_iter().map(|batch| (batch.encoded_len(), batch)).collect();
        forwarded.retain(|(bytes, _)| bytes + ITEM_OVERHEAD <= config.message_bytes);
        let mut lost = raft.len() + forwarded.len() < count;

        let added = raft.iter().map(|message| message.len() + ITEM_OVERHEAD).sum::<usize>()
            + forwarded.iter().map(|(bytes, _)| bytes + ITEM_OVERHEAD).sum::<usize>();
        if self.connected {
            // Without a connection it would be out of date before it is sent.
            let before = self.beacon.take();
            self.beacon = match beacon {
                Some(beacon) => Some(beacon.instead_of(before)),
                None => before,
            };
        }
        if self.connected && self.bytes + added > config.queue_bytes {
            // What waits goes first: it is what the peer misses next.
            lost |= added > 0;
            return lost && self.tell();
        }
        for message in raft {
            let bytes = message.len() + ITEM_OVERHEAD;
            self.raft.push_back(Waiting { since: now, bytes, item: message });
        }
        for (bytes, batch) in forwarded {
            self.forwarded.push_back(Waiting { since: now, bytes: bytes + ITEM_OVERHEAD, item: batch });
        }
        self.bytes += added;
        if !self.connected {
            lost |= self.trim(now, config);
        }
        lost && self.tell()
    }

    /// The next frame, merged from what waits.
    pub(super) fn next_frame(&mut self, config: &TransportConfig) -> Option<Frame> {
        if self.is_empty() {
            return None;
        }
        let mut room = config.frame_bytes;
        // At least one of each kind, so that neither starves the other.
        let raft = take(&mut self.raft, &mut room, &mut self.bytes);
        let forwarded = if room_left_for_both(&raft, self.forwarded.front(), config) {
            take(&mut self.forwarded, &mut room, &mut self.bytes)
        } else {
            Vec::new()
        };
        if self.bytes <= config.queue_bytes / 2 {
            self.loss_told = false;
        }
        Some(Frame { raft, forwarded, beacon: self.beacon.take(), probe: 0 })
    }

    /// The peer is connected. `true`: what waited too long for that was dropped, and this is to be told.
    #[must_use]
    pub(super) fn connect(&mut self, now: Instant, config: &TransportConfig) -> bool {
        let lost = self.trim(now, config) && self.tell();
        self.connected = true;
        self.loss_told = false;
        lost
    }

    /// The connection is gone, and with it what was on its way; what waits would leave a gap and goes too.
    /// `true`: this is to be told.
    #[must_use]
    pub(super) fn disconnect(&mut self) -> bool {
        if !self.connected {
            return false;
        }
        *self = Self { loss_told: true, ..Self::default() };
        true
    }

    fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.loss_told, true)
    }

    /// Drops what is too old or too much to wait for a connection.
    fn trim(&mut self, now: Instant, config: &TransportConfig) -> bool {
        let mut lost = false;
        let stale = |since: Instant| now.saturating_duration_since(since) > config.offline_age;
        loop {
            let full = self.bytes > config.offline_bytes;
            let raft = self.raft.front().map(|waiting| waiting.since);
            let forwarded = self.forwarded.front().map(|waiting| waiting.since);
            let raft_first = match (raft, forwarded) {
                (None, None) => return lost,
                (Some(raft), Some(forwarded)) => raft <= forwarded,
                (raft, _) => raft.is_some(),
            };
            let oldest = if raft_first { raft } else { forwarded };
            if !full && !oldest.is_some_and(stale) {
                return lost;
            }
            let bytes = if raft_first {
                self.raft.pop_front().map(|waiting| waiting.bytes)
            } else {
                self.forwarded.pop_front().map(|waiting| waiting.bytes)
            };
            self.bytes -= bytes.unwrap_or(0);
            lost = true;
        }
    }
}

/// Takes items from the front while there is room; the first one is taken however large it is.
fn take<T>(queue: &mut VecDeque<Waiting<T>>, room: &mut usize, total: &mut usize) -> Vec<T> {
    let mut taken = Vec::new();
    while let Some(front) = queue.front() {
        if !taken.is_empty() && front.bytes > *room {
            break;
        }
        let Some(front) = queue.pop_front() else { break };
        *room = room.saturating_sub(front.bytes);
        *total -= front.bytes;
        taken.push(front.item);
    }
    taken
}

/// Whether the frame that has these raft messages can take the first batch too without being too large to be accepted.
fn room_left_for_both(raft: &[Bytes], batch: Option<&Waiting<Batch>>, config: &TransportConfig) -> bool {
    let raft: usize = raft.iter().map(|message| message.len() + ITEM_OVERHEAD).sum();
    let batch = batch.map_or(0, |batch| batch.bytes);
    raft == 0 || raft + batch <= config.message_bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::proto::command::Request;

    fn config() -> TransportConfig {
        TransportConfig {
            queue_bytes: 1000,
            offline_bytes: 500,
            frame_bytes: 100,
            message_bytes: 400,
            ..TransportConfig::default()
        }
    }

    fn raft(sizes: &[usize]) -> Outgoing {
        let raft = sizes.iter().map(|&size| Bytes::from(vec![size as u8; size])).collect();
        Outgoing { raft, ..Outgoing::default() }
    }

    fn sizes(frame: &Frame) -> Vec<usize> {
        frame.raft.iter().map(Bytes::len).collect()
    }

    fn connected(now: Instant) -> Queue {
        let mut queue = Queue::default();
        assert!(!queue.connect(now, &config()));
        queue
    }

    #[test]
    fn what_waits_is_merged_up_to_the_frame_size() {
        let now = Instant::now();
        let mut queue = connected(now);
        for sizes in [&[10, 20][..], &[30], &[40, 300], &[1]] {
            assert!(!queue.push(now, raft(sizes), &config()));
        }
        let frames: Vec<_> = std::iter::from_fn(|| queue.next_frame(&config())).map(|f| sizes(&f)).collect();
        assert_eq!(frames, [vec![10, 20, 30], vec![40], vec![300], vec![1]]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn the_latest_beacon_wins_and_none_waits_for_a_connection() {
        let now = Instant::now();
        let beacon = |time_ms| Some(Beacon { time_ms, ..Beacon::default() });
        let mut queue = Queue::default();
        assert!(!queue.push(now, Outgoing { beacon: beacon(1), ..Outgoing::default() }, &config()));
        assert!(!queue.connect(now, &config()));
        assert!(queue.is_empty());
        for time_ms in [2, 3] {
            assert!(!queue.push(now, Outgoing { beacon: beacon(time_ms), ..raft(&[5]) }, &config()));
        }
        let frame = queue.next_frame(&config()).unwrap();
        assert_eq!((frame.beacon, frame.raft.len()), (beacon(3), 2));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_later_beacon_says_what_an_earlier_one_left_out() {
        let now = Instant::now();
        let mut queue = connected(now);
        let beacon = |time_ms, session, left_out| Beacon { time_ms, session, left_out, ..Beacon::default() };
        let last = |queue: &mut Queue, beacons: Vec<Beacon>| {
            for beacon in beacons {
                let outgoing = Outgoing { beacon: Some(beacon), ..Outgoing::default() };
                assert!(!queue.push(now, outgoing, &config()));
            }
            queue.next_frame(&config()).unwrap().beacon.unwrap()
        };
        let said =
            last(&mut queue, vec![beacon(1, 7, vec![3]), beacon(2, 7, vec![4, 5]), beacon(3, 0, vec![])]);
        assert_eq!(said, beacon(3, 7, vec![4, 5, 3]));
        // A peer that was started again is not told what was before that.
        let said = last(&mut queue, vec![beacon(1, 7, vec![3]), beacon(2, 8, vec![0])]);
        assert_eq!(said, beacon(2, 8, vec![0]));
        let many = || (0..1 << 14).collect::<Vec<_>>();
        let said = last(&mut queue, vec![beacon(1, 7, many()), beacon(2, 7, many())]);
        assert_eq!(said.left_out.len(), 1 << 14);
    }

    #[test]
    fn forwarded_requests_are_not_starved_by_raft_messages() {
        let now = Instant::now();
        let mut queue = connected(now);
        let batch = Batch { session: 7, floor: 1, requests: vec![Request { number: 1, body: None }] };
        let forwarded = vec![batch.clone(), batch];
        assert!(!queue.push(now, Outgoing { forwarded, ..raft(&[90, 90]) }, &config()));
        let frame = queue.next_frame(&config()).unwrap();
        assert_eq!((frame.raft.len(), frame.forwarded.len()), (1, 1));
    }

    #[test]
    fn an_overflow_is_told_once_and_again_after_it_drained() {
        let now = Instant::now();
        let mut queue = connected(now);
        let fill = |queue: &mut Queue| -> Vec<bool> {
            (0..6).map(|_| queue.push(now, raft(&[290]), &config())).collect()
        };
        assert_eq!(fill(&mut queue), [false, false, false, true, false, false]);
        while queue.next_frame(&config()).is_some() {}
        assert_eq!(fill(&mut queue), [false, false, false, true, false, false]);
    }

    #[test]
    fn a_message_that_no_frame_can_carry_is_lost_alone() {
        let now = Instant::now();
        let mut queue = connected(now);
        assert!(queue.push(now, raft(&[10, 399, 20]), &config()));
        assert_eq!(sizes(&queue.next_frame(&config()).unwrap()), [10, 20]);
    }

    #[test]
    fn without_a_connection_the_oldest_goes_first() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let losses: Vec<_> = (1..=4).map(|i| queue.push(now, raft(&[100 + i]), &config())).collect();
        assert_eq!(losses, [false; 4]);
        assert!(queue.push(now, raft(&[105]), &config()), "the first loss is told");
        assert!(!queue.push(now, raft(&[106]), &config()), "and only the first");
        assert!(!queue.connect(now, &config()));
        assert_eq!(sizes(&queue.next_frame(&config()).unwrap()), [103]);
    }

    #[test]
    fn stale_messages_do_not_wait_for_a_connection() {
        let start = Instant::now();
        let mut queue = Queue::default();
        assert!(!queue.push(start, raft(&[1]), &config()));
        assert!(!queue.push(start + Duration::from_millis(900), raft(&[2]), &config()));
        assert!(queue.connect(start + Duration::from_millis(1500), &config()));
        assert_eq!(sizes(&queue.next_frame(&config()).unwrap()), [2]);
    }

    #[test]
    fn a_broken_connection_is_told_once() {
        let now = Instant::now();
        let mut queue = connected(now);
        assert!(!queue.push(now, raft(&[10]), &config()));
        assert!(queue.disconnect());
        assert!(!queue.disconnect());
        assert!(queue.is_empty());
        assert!(!queue.push(now, raft(&[10; 99]), &config()), "a loss in the same outage is not told again");
    }

    proptest! {
        #[test]
        fn order_and_accounting_hold(pushes in prop::collection::vec(prop::collection::vec(1_usize..120, 0..5), 0..60),
                                     drains in prop::collection::vec(0_usize..3, 60)) {
            let now = Instant::now();
            let mut queue = connected(now);
            let (mut accepted, mut received) = (Vec::<usize>::new(), Vec::<usize>::new());
            for (push, drain) in pushes.iter().zip(&drains) {
                let before = queue.bytes();
                let _ = queue.push(now, raft(push), &config());
                if queue.bytes() > before {
                    accepted.extend(push);
                }
                prop_assert!(queue.bytes() <= config().queue_bytes);
                for frame in (0..*drain).filter_map(|_| queue.next_frame(&config())) {
                    prop_assert!(frame.encoded_len() <= config().frame_bytes.max(130));
                    received.extend(sizes(&frame));
                }
            }
            while let Some(frame) = queue.next_frame(&config()) {
                received.extend(sizes(&frame));
            }
            prop_assert_eq!(accepted, received);
            prop_assert_eq!(queue.bytes(), 0);
        }
    }
}
