//! When this member campaigns, who it thinks leads, and what changes with that.

use super::{Failure, Outgoing, Replica, Standing};
use crate::proto::peer::Beacon;
use raft::StateRole;
use rand::RngExt as _;
use std::time::Duration;

impl Replica {
    /// Raft panics when it is to campaign between taking a snapshot and having it on disk (`hup` slices the log from
    /// `applied`, which the snapshot has cut off), and when whoever has the only vote, and so wins at once, has not all of
    /// its log on disk. A leader does not campaign.
    pub(super) fn may_campaign(&self) -> bool {
        let (raft, log) = (&self.raw.raft, &self.raw.raft.raft_log);
        let wins_at_once = raft.state != StateRole::Leader && raft.prs().is_singleton();
        self.writes.may_campaign()
            && raft.snap().is_none()
            && !(wins_at_once && log.persisted != log.last_index())
    }

    pub(super) fn tick(&mut self, now: Duration) {
        // A follower it is, for the moment, and nothing but time-outs count.
        if self.may_campaign() {
            self.draw_election_timeout();
            self.raw.tick();
            self.campaign_early();
        }
        self.changes.tick(now);
        self.tick_room();
        let leads = self.standing.leads;
        let mut failed = Vec::new();
        self.pending.tick(now, !leads, |token, sent| {
            failed.push((token, if sent { Failure::Timeout } else { Failure::NoLeader }));
        });
        let no_leader = self.standing.leader == 0;
        self.reads.tick(now, |token| {
            failed.push((token, if no_leader { Failure::NoLeader } else { Failure::Timeout }));
        });
        for (token, reason) in failed {
            self.fail(token, reason);
        }
        if self.clock.in_office() {
            self.send_beacon(now);
        }
    }

    /// Draws a timeout anew whenever raft would, from our seed; raft reads it in `tick` only.
    pub(super) fn draw_election_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        let current = (raft.term, raft.state, raft.leader_id);
        if self.election.drawn_for != current {
            self.election.drawn_for = current;
            let ticks = self.config.election_ticks;
            self.election.timeout = self.rng.random_range(ticks..2 * ticks);
        }
        raft.set_randomized_election_timeout(self.election.timeout);
    }

    pub(super) fn campaign_early(&mut self) {
        let Some(ticks) = self.election.early else { return };
        if self.raw.raft.leader_id != 0 {
            self.election.early = None;
            return;
        }
        let voters = &self.state.membership.voters;
        let reachable =
            voters.iter().filter(|id| **id == self.config.id || self.connected.contains(id)).count();
        if reachable * 2 <= voters.len() || !voters.contains(&self.config.id) {
            return;
        }
        if ticks > 1 {
            self.election.early = Some(ticks - 1);
            return;
        }
        self.election.early = None;
        // An error here means that it may not campaign now: the ordinary timeout will see to it.
        let _ = self.raw.campaign();
    }

    /// What this member, as the leader, has to say at present.
    pub(super) fn beacon(&mut self, now: Duration) -> Beacon {
        let mut beacon = Beacon {
            term: self.raw.raft.term,
            time_ms: self.clock.stamp(now).0,
            digest_index: self.state.applied.index,
            digest: self.state.store.digest(),
            ..Beacon::default()
        };
        self.tell_of_room(&mut beacon);
        beacon
    }

    fn send_beacon(&mut self, now: Duration) {
        let beacon = self.beacon(now);
        let peers: Vec<u64> =
            self.raw.raft.prs().iter().map(|(id, _)| *id).filter(|id| *id != self.config.id).collect();
        for peer in peers {
            let told = &mut self.outgoing(peer).beacon;
            *told = Some(beacon.clone().instead_of(told.take()));
        }
    }

    pub(super) fn outgoing(&mut self, peer: u64) -> &mut Outgoing {
        let send = &mut self.effects.send;
        let at = send.iter().position(|(to, _)| *to == peer).unwrap_or_else(|| {
            send.push((peer, Outgoing::default()));
            send.len() - 1
        });
        &mut send[at].1
    }

    pub(super) fn note_standing(&mut self, now: Duration) {
        let raft = &self.raw.raft;
        let standing = Standing {
            term: raft.term,
            leader: raft.leader_id,
            leads: raft.state == StateRole::Leader,
            commit: raft.raft_log.committed,
            refuses: self.shortage(),
        };
        let before = std::mem::replace(&mut self.standing, standing);
        if (before.term, before.leader) != (standing.term, standing.leader) {
            self.pending.resend_all();
            self.reads.restart();
            self.leader_changed();
            if before.leads {
                // What was queued comes again from its origins, or is pending here.
                self.clock.leave_office(now);
                self.queue.clear();
                self.changes.clear();
                self.expiry_proposed = false;
            }
        }
        if standing.leads && !self.clock.in_office() && self.state.applied.term == standing.term {
            // Its own first entry is applied, so every earlier one is, and it knows the latest time in the log.
            self.clock.take_office(standing.term, self.state.time, now);
            self.changes.took_office();
            self.reads.restart();
        }
    }

    pub(super) fn connected(&mut self, peer: u64) {
        if self.state.members.contains_key(&peer) {
            self.connected.insert(peer);
        }
        if peer == self.standing.leader {
            self.pending.resend_all();
            self.reads.restart();
        }
    }

    pub(super) fn unreachable(&mut self, peer: u64) {
        self.connected.remove(&peer);
        self.raw.report_unreachable(peer);
    }

    pub(super) fn step_aside(&mut self) {
        self.hand_over(|_| true);
    }

    /// Hands leadership, if this member has it, to the best follower of those that will do. Whether there is one.
    pub(super) fn hand_over(&mut self, will_do: impl Fn(u64) -> bool) -> bool {
        if !self.standing.leads {
            return false;
        }
        // Not by raft's `recent_active`, which it forgets once an election timeout.
        let prs = self.raw.raft.prs();
        let best = prs
            .iter()
            .filter(|(id, _)| {
                **id != self.config.id
                    && self.in_reach(**id)
                    && self.state.membership.voters.contains(id)
                    && will_do(**id)
            })
            .max_by_key(|(id, p)| (p.matched, std::cmp::Reverse(**id)));
        let best = best.map(|(id, _)| *id);
        if let Some(id) = best {
            self.raw.transfer_leader(id);
        }
        best.is_some()
    }
}
