//! Who listens to whom, as `transport` and `node` have it: a member is heard if the receiver knows it with the data
//! directory that it comes with, or knows nothing of it; then it is answered as a guest.

use super::World;
use crate::bugs::Bug;
use crate::network::{Packet, Wire};
use quorate::replica::{Input, Refused, Replica, Reply, Token};
use raft::eraftpb::{Message, MessageType};
use rand::RngExt as _;

/// A member makes its name known with this bit in its token.
const PUBLISH: u64 = 1 << 62;

/// In one of so many ticks a member tries to connect to all: what is said of it then may be news to it.
const HELLO_EVERY_TICKS: u32 = 10;

/// As many as `transport` keeps.
const GUESTS_MAX: usize = 8;

impl World {
    /// Whether a message from one member is heard by another.
    pub(super) fn greets(&mut self, from: u64, to: u64) -> bool {
        let (sender, receiver) = (&self.members[(from - 1) as usize], &self.members[(to - 1) as usize]);
        let Some(replica) = &receiver.replica else { return false };
        if let Some(sending) = &sender.replica {
            let known = sending.state().members.get(&to).map_or(0, |info| info.incarnation);
            if known != 0 && known != receiver.incarnation && !self.has_bug(Bug::WipedMemberGoesOn) {
                let at = (to - 1) as usize;
                if replica.state().members.contains_key(&from) {
                    self.disown(at, Refused::Wiped);
                }
                return false;
            }
        }
        match replica.state().roster().admits(from, sender.incarnation) {
            Ok(()) => {
                if !Self::is_member(replica, from) {
                    self.welcome((to - 1) as usize, from);
                }
                true
            }
            Err(Refused::Wiped) if self.has_bug(Bug::WipedMemberGoesOn) => true,
            Err(Refused::Removed) if self.has_bug(Bug::RemovedMembersCount) => true,
            Err(how) => {
                let told = Packet { from: to, to: from, wire: Wire::Disowned(how) };
                self.network.hold(told, self.now + 1);
                false
            }
        }
    }

    /// A member hears that it does not belong to the cluster any more.
    pub(super) fn disown(&mut self, at: usize, how: Refused) {
        if self.members[at].replica.is_none() {
            return;
        }
        match how {
            Refused::Removed => self.input(at, Input::Removed),
            Refused::Wiped => {
                self.coverage.note("wiped members turned away");
                self.members[at].gone = true;
                self.end(at, u64::MAX, false);
            }
        }
    }

    /// Its process goes on to tell its clients, and takes no more part.
    pub(super) fn note_removed(&mut self, at: usize) {
        self.coverage.note("members that learnt of their removal");
        self.members[at].removed = true;
        for watcher in self.watchers.iter_mut().filter(|w| w.at == Some(at)) {
            watcher.at = None;
            watcher.back_at = self.now + 1;
        }
    }

    /// Keeps where a caller is reached that is no member as far as the called one knows.
    fn welcome(&mut self, at: usize, from: u64) {
        let guests = &mut self.members[at].guests;
        if !guests.contains(&from) {
            self.coverage.note("guests");
            guests.truncate(GUESTS_MAX - 1);
            guests.push_front(from);
        }
    }

    pub(super) fn is_member(replica: &Replica, id: u64) -> bool {
        replica.state().members.contains_key(&id)
    }

    /// Whether it may send anything to a member: only to those that it knows, and to guests that were not removed.
    pub(super) fn knows(&self, at: usize, to: u64) -> bool {
        let member = &self.members[at];
        let Some(replica) = &member.replica else { return false };
        let guest = || member.guests.contains(&to) && replica.state().roster().admits(to, 0).is_ok();
        Self::is_member(replica, to) || guest()
    }

    pub(super) fn publish(&mut self, at: usize) {
        let member = &mut self.members[at];
        if member.published || member.publishing || member.removed {
            return;
        }
        member.publishing = true;
        let (name, token) = (format!("m{}", member.id), Token(PUBLISH | member.id));
        self.input(at, Input::Publish { token, name, client_urls: vec![] });
    }

    /// Whether an answer is to what a member asked itself.
    pub(super) fn is_own(&mut self, at: usize, reply: &Reply) -> bool {
        let (Reply::Published { token } | Reply::Failed { token, .. }) = reply else { return false };
        if token.0 & PUBLISH == 0 {
            return false;
        }
        let member = &mut self.members[at];
        member.publishing = false;
        member.published |= matches!(reply, Reply::Published { .. });
        true
    }

    pub(super) fn try_to_connect(&mut self, at: usize) {
        let member = &self.members[at];
        let Some(replica) = &member.replica else { return };
        if self.options.membership_every_ms == 0 || self.rng.random_range(0..HELLO_EVERY_TICKS) != 0 {
            return;
        }
        let peers: Vec<u64> = replica.state().members.keys().copied().filter(|id| *id != member.id).collect();
        for to in peers {
            self.send(at, to, Wire::Hello);
        }
    }

    /// With a bug, who said something is not looked at closely: what those say who have no vote counts for one who has.
    pub(super) fn attribute_by_bug(
        &self,
        from: u64,
        at: usize,
        mut messages: Vec<Message>,
    ) -> (u64, Vec<Message>) {
        let member = &self.members[at];
        let Some(state) = member.replica.as_ref().map(Replica::state) else { return (from, messages) };
        let counts = match self.options.bug {
            Some(Bug::LearnersCount) => state.membership.learners.contains(&from),
            Some(Bug::RemovedMembersCount) => state.removed.contains(&from),
            Some(Bug::VoteBeforeCaughtUp) if state.membership.learners.contains(&from) => {
                let last = member.replica.as_ref().map_or(0, |r| r.standing().commit);
                for m in messages.iter_mut().filter(|m| m.get_msg_type() == MessageType::MsgAppendResponse) {
                    (m.reject, m.index) = (false, m.index.max(last));
                }
                false
            }
            _ => false,
        };
        let others = state.membership.voters.iter().copied().filter(|id| *id != member.id);
        let Some(voter) = others.max().filter(|_| counts) else { return (from, messages) };
        let answers = |m: &Message| {
            let kind = m.get_msg_type();
            kind == MessageType::MsgAppendResponse || kind == MessageType::MsgRequestVoteResponse
        };
        messages.retain(answers);
        for message in &mut messages {
            message.from = voter;
        }
        (voter, messages)
    }
}
