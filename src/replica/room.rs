//! Room for more: whose disk is nearly full, how large the keyspace may become, and what a leader does about it.
//!
//! Whether a request is taken is decided where it is proposed, by the leader, and never when it is applied: members
//! have different disks, and must come to the same state. A leader takes nothing that needs room while its own disk is
//! nearly full or so many voters' are that fewer than a quorum have room, or while the keyspace has reached its quota.
//! Deletes, expiry and what the members do for themselves go on; that is what the reserve of disk is for. What it
//! decides it says with its beacons, so that other members refuse at once what they would have forwarded, and of what was
//! on its way already it says which requests it left out. Their clients are told so at once where that means that they will
//! never be applied: where a request was sent once, since a member's stream to another brings nothing twice. One that was sent
//! again may be in a log already, and waits (`Pending::left_out`).
//!
//! A leader whose disk is nearly full hands over to a voter that has room, if there is one: the followers that are full
//! fall behind and catch up when they have space, and the cluster goes on as long as a quorum has room.
//!
//! A follower says that it is short of space with beacons of its own, for as long as it is: what was not said for an
//! election timeout is over.

use super::{Failure, Replica};
use crate::proto::command::{Batch, Operation, request::Body};
use crate::proto::peer::Beacon;
use std::collections::BTreeMap;
use std::time::Duration;

/// Election timeouts from one attempt to hand leadership to a member with room until the next.
const HAND_OVER_EVERY: u32 = 5;

/// Ticks before the first attempt: so long it may take until this member knows who else is short.
const HAND_OVER_AFTER: u32 = 2;

/// Why a leader takes nothing that needs room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Its own disk, or the disks of too many members, are nearly full.
    Disk,
    /// The keyspace has reached its quota.
    Quota,
}

/// What is known of everybody's room.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// This member's disk is nearly full.
    own_short: bool,
    /// Voters that said so, and for how many ticks that counts.
    short_peers: BTreeMap<u64, usize>,
    /// What the leader said.
    leader_refuses: Option<Shortage>,
    ticks_to_hand_over: u32,
}

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    Nothing,
    /// Room in the log, but none in the keyspace.
    Log,
    Keys,
}

fn demand(body: &Body) -> Demand {
    match body {
        Body::Write(write) => match write.operation() {
            Operation::Delete | Operation::CompareAndDelete => Demand::Nothing,
            _ if write.refresh => Demand::Log,
            _ => Demand::Keys,
        },
        Body::Publish(_) | Body::Change(_) | Body::Refusal(_) => Demand::Nothing,
    }
}

fn has_room_for(body: &Body, shortage: Shortage) -> bool {
    match shortage {
        Shortage::Disk => demand(body) == Demand::Nothing,
        Shortage::Quota => demand(body) != Demand::Keys,
    }
}

impl Replica {
    /// This member's disk is nearly full, or is not any more.
    pub(super) fn note_space(&mut self, short: bool) {
        self.room.own_short = short;
        self.room.ticks_to_hand_over = HAND_OVER_AFTER;
    }

    /// Why requests that need room are refused at present; on a follower, as far as its leader has told.
    pub(super) fn shortage(&self) -> Option<Shortage> {
        if !self.standing.leads {
            return self.room.leader_refuses;
        }
        let voters = &self.state.membership.voters;
        let has_room = |id: &&u64| {
            if **id == self.config.id {
                !self.room.own_short
            } else {
                !self.room.short_peers.contains_key(id)
            }
        };
        let with_room = voters.iter().filter(has_room).count();
        if self.room.own_short || with_room * 2 <= voters.len() {
            return Some(Shortage::Disk);
        }
        let quota = self.config.quota_bytes;
        (quota > 0 && self.state.store.byte_count() >= quota).then_some(Shortage::Quota)
    }

    /// Why a request of a local client is not taken, if so.
    pub(super) fn refusal(&self, body: &Body) -> Option<Failure> {
        let shortage = self.shortage()?;
        (!has_room_for(body, shortage)).then_some(Failure::NoRoom(shortage))
    }

    /// Leaves of what `from` forwarded what there is room for, and says what it left out. If that cannot be said yet, or
    /// is lost, it comes again.
    pub(super) fn with_room(&mut self, now: Duration, from: u64, mut batch: Batch) -> Option<Batch> {
        if let Some(shortage) = self.shortage() {
            let sessions = &self.state.sessions;
            let mut left_out = Vec::new();
            batch.requests.retain(|request| {
                let fits = request.body.as_ref().is_none_or(|body| has_room_for(body, shortage));
                if !fits && !sessions.has_applied(batch.session, request.number) {
                    left_out.push(request.number);
                }
                fits
            });
            if !left_out.is_empty() && self.clock.in_office() {
                let beacon = self.beacon(now);
                let told = &mut self.outgoing(from).beacon;
                let beacon = Beacon { session: batch.session, left_out, ..beacon };
                *told = Some(beacon.instead_of(told.take()));
            }
        }
        (!batch.requests.is_empty()).then_some(batch)
    }

    /// There is another leader, or none.
    pub(super) fn leader_changed(&mut self) {
        self.room.leader_refuses = None;
        self.room.ticks_to_hand_over = HAND_OVER_AFTER;
    }

    pub(super) fn hear_of_room(&mut self, from: u64, beacon: &Beacon) {
        if beacon.short_of_space {
            // The election timeout of a peer is as long as ours.
            self.room.short_peers.insert(from, self.config.election_ticks);
        } else {
            self.room.short_peers.remove(&from);
        }
        if from == self.standing.leader && beacon.term == self.standing.term {
            self.room.leader_refuses = match beacon.refuses {
                0 => None,
                2 => Some(Shortage::Quota),
                _ => Some(Shortage::Disk),
            };
            if let Some(shortage) = self.room.leader_refuses
                && beacon.session == self.pending.session()
            {
                for number in &beacon.left_out {
                    if let Some(token) = self.pending.left_out(*number) {
                        self.fail(token, Failure::LeftOut(shortage));
                    }
                }
            }
        }
    }

    /// What this member's beacon says of room.
    pub(super) fn tell_of_room(&self, beacon: &mut Beacon) {
        beacon.short_of_space = self.room.own_short;
        beacon.refuses = match self.shortage() {
            None => 0,
            Some(Shortage::Disk) => 1,
            Some(Shortage::Quota) => 2,
        };
    }

    pub(super) fn tick_room(&mut self) {
        self.room.short_peers.retain(|_, ticks| {
            *ticks -= 1;
            *ticks > 0
        });
        self.room.ticks_to_hand_over = self.room.ticks_to_hand_over.saturating_sub(1);
        if !self.room.own_short {
            return;
        }
        let leader = self.standing.leader;
        if !self.standing.leads {
            if leader != 0 {
                let beacon = Beacon { term: self.standing.term, short_of_space: true, ..Beacon::default() };
                self.outgoing(leader).beacon = Some(beacon);
            }
        } else if self.room.ticks_to_hand_over == 0 && self.raw.raft.lead_transferee.is_none() {
            let short = self.room.short_peers.clone();
            if self.hand_over(|id| !short.contains_key(&id)) {
                self.room.ticks_to_hand_over =
                    HAND_OVER_EVERY.saturating_mul(self.config.election_ticks as u32);
            }
        }
    }
}
