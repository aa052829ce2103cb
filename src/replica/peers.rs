//! What peers say, taken with care: nothing that comes over a socket may make raft panic.

use super::{Replica, State};
use crate::proto::command::Batch;
use crate::proto::peer::Beacon;
use crate::store::ClusterTime;
use raft::eraftpb::{Message, MessageType};
use std::time::Duration;

impl Replica {
    pub(super) fn receive(
        &mut self,
        now: Duration,
        from: u64,
        messages: Vec<Message>,
        forwarded: Vec<Batch>,
        beacon: Option<Beacon>,
    ) {
        // Guests have no place in what is kept by member, which would grow with whoever calls.
        let is_member = self.state.members.contains_key(&from);
        if is_member {
            self.changes.heard(from);
        }
        for message in messages {
            // A peer speaks for itself only.
            let kind = message.get_msg_type();
            let own = self.config.id;
            let foreign = message.from != from || message.to != own || from == own || from == 0;
            // Dropped as if it were lost: the log in memory must not grow while the disk stands still.
            let too_much =
                kind == MessageType::MsgAppend && !message.entries.is_empty() && self.writes.too_many();
            if foreign || too_much || !self.plausible(&message) {
                continue;
            }
            if kind == MessageType::MsgReadIndex {
                // The answer says that index, and the state there must have reached it.
                self.announcements.await_commit(self.raw.raft.raft_log.committed);
                if self.answer_round(&message) {
                    continue;
                }
            }
            let only_news = self.only_announces_a_commit(&message);
            // An error is a message that does not concern this member any more.
            let _ = self.raw.step(message);
            if only_news {
                self.keep_acknowledgement_back();
            }
        }
        self.note_standing(now);
        if self.standing.leads {
            for batch in forwarded {
                self.enqueue_forwarded(now, from, batch);
            }
        }
        if let Some(beacon) = beacon.filter(|_| is_member || from == self.standing.leader) {
            self.hear_beacon(now, from, &beacon);
        }
    }

    /// Whether an append says nothing but how far the log is committed, and that is news. What this member has of the log
    /// was or will be acknowledged without it.
    fn only_announces_a_commit(&self, message: &Message) -> bool {
        let log = &self.raw.raft.raft_log;
        message.get_msg_type() == MessageType::MsgAppend
            && message.entries.is_empty()
            && message.term == self.raw.raft.term
            && message.index == log.last_index()
            && message.commit > log.committed
    }

    /// Takes back raft's answer to such an append. It tells the leader nothing, and there would be one from each follower
    /// for each round. An acknowledgement that was lost is not missed for that: the leader asks again after a heartbeat,
    /// with an append that announces nothing.
    fn keep_acknowledgement_back(&mut self) {
        let answer = self.raw.raft.msgs.last();
        if answer.is_some_and(|m| m.get_msg_type() == MessageType::MsgAppendResponse && !m.reject) {
            self.raw.raft.msgs.pop();
        }
    }

    pub(super) fn hear_beacon(&mut self, now: Duration, from: u64, beacon: &Beacon) {
        self.hear_of_room(from, beacon);
        let current = beacon.term == self.raw.raft.term && from == self.raw.raft.leader_id;
        if !current || self.standing.leads {
            return;
        }
        self.clock.hear(beacon.term, ClusterTime(beacon.time_ms), now);
        let applied = self.state.applied;
        if beacon.digest_index == applied.index && beacon.digest != self.state.store.digest() {
            self.effects.diverged = Some(applied);
        }
    }

    pub(super) fn receive_snapshot(&mut self, message: Message, state: Box<State>) {
        let metadata = message.get_snapshot().get_metadata();
        let fits = self.plausible_snapshot(&message)
            && message.to == self.config.id
            && metadata.index == state.applied.index
            && metadata.term == state.applied.term
            && *metadata.get_conf_state() == state.membership
            && state.cluster_id == self.state.cluster_id;
        if !fits {
            return;
        }
        let index = state.applied.index;
        let _ = self.raw.step(message);
        // Raft passes over one that is older than what it has, and that may be another snapshot not installed yet.
        if self.raw.raft.snap().is_some_and(|taken| taken.get_metadata().index == index) {
            self.incoming = Some(state);
        }
    }
}
