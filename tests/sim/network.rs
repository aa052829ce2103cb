//! The network between members: a message may be lost, late, twice or out of order, and members may be cut off from
//! each other, one way or both.

mod partition;

use crate::bugs::Bug;
use crate::coverage::Coverage;
use crate::options::Options;
use bytes::Bytes;
use partition::Shape;
use quorate::proto::command::{Batch, request::Body};
use quorate::proto::peer::Beacon;
use quorate::replica::{Refused, State};
use raft::eraftpb::Message;
use rand::{Rng as _, RngExt as _};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

pub enum Wire {
    Frame(Vec<Message>, Vec<Batch>, Option<Beacon>),
    Snapshot(Box<Message>, Box<State>),
    /// What became of a snapshot, told to its sender.
    SnapshotSent(bool),
    Connected,
    Unreachable,
    /// A connection is tried.
    Hello,
    /// The receiver of something does not count the sender among the members any more.
    Disowned(Refused),
}

pub struct Packet {
    pub from: u64,
    pub to: u64,
    pub wire: Wire,
}

/// How late a straggler may be.
const STRAGGLER_MS: u64 = 2_000;

pub struct Network {
    /// By when they arrive, and the order in which they were sent.
    packets: BTreeMap<(u64, u64), Packet>,
    sent: u64,
    /// Directed pairs that cannot talk.
    cut: BTreeSet<(u64, u64)>,
    loss_percent: u32,
    duplicate_percent: u32,
    straggler_percent: u32,
    delay_ms: u64,
    bug: Option<Bug>,
    /// Values of writes that were sent once and arrive twice, which no real stream does.
    repeated: BTreeSet<Bytes>,
}

impl Network {
    pub fn new(options: &Options) -> Self {
        Self {
            packets: BTreeMap::new(),
            sent: 0,
            cut: BTreeSet::new(),
            loss_percent: options.loss_percent,
            duplicate_percent: options.duplicate_percent,
            straggler_percent: options.straggler_percent,
            delay_ms: options.delay_ms,
            bug: options.bug,
            repeated: BTreeSet::new(),
        }
    }

    pub fn send(&mut self, now: u64, packet: Packet, rng: &mut ChaCha8Rng) {
        let Packet { from, to, mut wire } = packet;
        let cut = self.cut.contains(&(from, to));
        let lost = cut || (rng.random_range(0..100) < self.loss_percent && matches!(wire, Wire::Frame(..)));
        if lost {
            let at = now + rng.random_range(1..500);
            let noticed = rng.random_range(0..20) == 0;
            if matches!(wire, Wire::Snapshot(..)) {
                self.put(at, Packet { from: to, to: from, wire: Wire::SnapshotSent(false) });
            } else if noticed {
                self.put(at, Packet { from: to, to: from, wire: Wire::Unreachable });
            }
            return;
        }
        let straggler = rng.random_range(0..100) < self.straggler_percent;
        let at = now + rng.random_range(1..=if straggler { STRAGGLER_MS } else { self.delay_ms });
        if let Wire::Frame(messages, forwarded, beacon) = &mut wire {
            if let Some(beacon) = beacon.as_mut().filter(|_| self.bug == Some(Bug::WallClock)) {
                beacon.time_ms = now + from * 10_000;
            }
            if rng.random_range(0..100) < self.duplicate_percent {
                let mut forwarded = forwarded.clone();
                self.note_repeated(&forwarded);
                if self.bug == Some(Bug::DuplicatesApplied) {
                    for batch in &mut forwarded {
                        batch.session ^= rng.next_u64();
                    }
                }
                let wire = Wire::Frame(messages.clone(), forwarded, beacon.clone());
                let late = at + rng.random_range(0..200);
                self.put(late, Packet { from, to, wire });
            }
        }
        self.put(at, Packet { from, to, wire });
    }

    fn note_repeated(&mut self, forwarded: &[Batch]) {
        let bodies = forwarded.iter().flat_map(|batch| &batch.requests).filter_map(|r| r.body.as_ref());
        self.repeated.extend(bodies.filter_map(|body| match body {
            Body::Write(write) => Some(write.value.clone()),
            _ => None,
        }));
    }

    /// Whether a member may get a request twice that was sent to it once.
    pub fn has_repeated(&self, value: &Bytes) -> bool {
        self.repeated.contains(value)
    }

    fn put(&mut self, at: u64, packet: Packet) {
        self.sent += 1;
        self.packets.insert((at, self.sent), packet);
    }

    pub fn next_at(&self) -> Option<u64> {
        self.packets.first_key_value().map(|((at, _), _)| *at)
    }

    /// A packet that has arrived by now.
    pub fn arrived(&mut self, now: u64) -> Option<Packet> {
        let first = self.packets.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    /// Its receiver does not run: it waits in a buffer.
    pub fn hold(&mut self, packet: Packet, until: u64) {
        self.put(until, packet);
    }

    /// Its machine lost power, and with it what it had not sent yet.
    pub fn forget_from(&mut self, member: u64) {
        self.packets
            .retain(|_, p| p.from != member || matches!(p.wire, Wire::SnapshotSent(_) | Wire::Unreachable));
    }

    pub fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Another partition, or none. What was cut and is not any more is connected anew.
    pub fn partition(&mut self, now: u64, members: &[u64], rng: &mut ChaCha8Rng, coverage: &mut Coverage) {
        let (shape, name) = Shape::draw(rng);
        coverage.note(name);
        let cut = shape.cut(members, rng);
        self.change(now, cut, rng);
    }

    /// No faults within `core`; who is not in it cannot be heard (`inward`) or does not hear.
    pub fn heal_among(
        &mut self,
        now: u64,
        core: &BTreeSet<u64>,
        apart: impl Fn(u64, u64) -> bool,
        members: &[u64],
        rng: &mut ChaCha8Rng,
    ) {
        self.calm();
        let mut cut = BTreeSet::new();
        for a in members {
            for b in members.iter().filter(|b| *b != a) {
                if !(core.contains(a) && core.contains(b)) && apart(*a, *b) {
                    cut.insert((*a, *b));
                }
            }
        }
        self.change(now, cut, rng);
    }

    /// Ends all faults.
    pub fn heal(&mut self, now: u64, rng: &mut ChaCha8Rng) {
        self.calm();
        self.change(now, BTreeSet::new(), rng);
    }

    fn calm(&mut self) {
        (self.loss_percent, self.duplicate_percent, self.straggler_percent) = (0, 0, 0);
        self.delay_ms = self.delay_ms.min(10);
    }

    fn change(&mut self, now: u64, cut: BTreeSet<(u64, u64)>, rng: &mut ChaCha8Rng) {
        let before = std::mem::replace(&mut self.cut, cut);
        for (from, to) in before {
            if !self.cut.contains(&(from, to)) && rng.random_range(0..2) == 0 {
                let at = now + rng.random_range(1..300);
                self.put(at, Packet { from, to, wire: Wire::Connected });
            }
        }
    }
}
