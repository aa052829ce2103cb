//! The network between members: a message may be lost, late, twice or out of order, and members may be cut off from
//! each other, one way or both.

use crate::options::{Bug, Options};
use quorate::proto::command::Batch;
use quorate::proto::peer::Beacon;
use quorate::replica::State;
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
}

pub struct Packet {
    pub from: u64,
    pub to: u64,
    pub wire: Wire,
}

pub struct Network {
    /// By when they arrive, and the order in which they were sent.
    packets: BTreeMap<(u64, u64), Packet>,
    sent: u64,
    /// Directed pairs that cannot talk.
    cut: BTreeSet<(u64, u64)>,
    loss_percent: u32,
    duplicate_percent: u32,
    delay_ms: u64,
    bug: Option<Bug>,
}

impl Network {
    pub fn new(options: &Options) -> Self {
        Self {
            packets: BTreeMap::new(),
            sent: 0,
            cut: BTreeSet::new(),
            loss_percent: options.loss_percent,
            duplicate_percent: options.duplicate_percent,
            delay_ms: options.delay_ms,
            bug: options.bug,
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
        let at = now + rng.random_range(1..=self.delay_ms);
        if let Wire::Frame(messages, forwarded, beacon) = &mut wire {
            if let Some(beacon) = beacon.as_mut().filter(|_| self.bug == Some(Bug::WallClock)) {
                beacon.time_ms = now + from * 10_000;
            }
            if rng.random_range(0..100) < self.duplicate_percent {
                let mut forwarded = forwarded.clone();
                if self.bug == Some(Bug::DuplicatesApplied) {
                    for batch in &mut forwarded {
                        batch.session ^= rng.next_u64();
                    }
                }
                let wire = Wire::Frame(messages.clone(), forwarded, *beacon);
                let late = at + rng.random_range(0..200);
                self.put(late, Packet { from, to, wire });
            }
        }
        self.put(at, Packet { from, to, wire });
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

    pub fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Cuts a random set of directed pairs, or none. What was cut and is not any more is connected anew.
    pub fn partition(&mut self, now: u64, members: u64, rng: &mut ChaCha8Rng) {
        let before = std::mem::take(&mut self.cut);
        let kind = rng.random_range(0..4);
        let lonely = rng.random_range(1..=members);
        for a in 1..=members {
            for b in 1..=members {
                let cut = match kind {
                    0 => false,
                    1 => (a == lonely) != (b == lonely),
                    2 => a == lonely && b != lonely,
                    _ => a != b && rng.random_range(0..3) == 0,
                };
                if cut {
                    self.cut.insert((a, b));
                }
            }
        }
        self.reconnect(now, before, rng);
    }

    /// Ends all faults.
    pub fn heal(&mut self, now: u64, rng: &mut ChaCha8Rng) {
        let before = std::mem::take(&mut self.cut);
        (self.loss_percent, self.duplicate_percent) = (0, 0);
        self.delay_ms = self.delay_ms.min(10);
        self.reconnect(now, before, rng);
    }

    fn reconnect(&mut self, now: u64, before: BTreeSet<(u64, u64)>, rng: &mut ChaCha8Rng) {
        for (from, to) in before {
            if !self.cut.contains(&(from, to)) && rng.random_range(0..2) == 0 {
                let at = now + rng.random_range(1..300);
                self.put(at, Packet { from, to, wire: Wire::Connected });
            }
        }
    }
}
