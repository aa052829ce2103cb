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
        for message in messages {
            // A peer speaks for itself only, states come by `Input::Snapshot`, and requests by `forwarded`.
            let kind = message.get_msg_type();
            let foreign = message.from != from || message.to != self.config.id;
            if foreign
                || matches!(kind, MessageType::MsgSnapshot | MessageType::MsgPropose)
                || !self.plausible(&message)
            {
                continue;
            }
            // An error is a message that does not concern this member any more.
            let _ = self.raw.step(message);
        }
        self.note_standing(now);
        if self.standing.leads {
            for batch in forwarded {
                self.enqueue(batch);
            }
        }
        if let Some(beacon) = beacon {
            self.hear_beacon(now, from, beacon);
        }
    }

    /// Refuses what would make raft panic: a commit index or log position that this member cannot have.
    pub(super) fn plausible(&self, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgHeartbeat => {
                message.term < self.raw.raft.term || message.commit <= self.raw.raft.raft_log.last_index()
            }
            MessageType::MsgAppend => {
                let contiguous = message.entries.iter().enumerate();
                contiguous.into_iter().all(|(i, e)| e.index == message.index + 1 + i as u64)
            }
            // To campaign while a snapshot is not on disk yet is more than raft can do; see `tick`.
            MessageType::MsgTimeoutNow => self.installing.is_none(),
            _ => true,
        }
    }

    pub(super) fn hear_beacon(&mut self, now: Duration, from: u64, beacon: Beacon) {
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
        let fits = message.get_msg_type() == MessageType::MsgSnapshot
            && message.to == self.config.id
            && metadata.index == state.applied.index
            && metadata.term == state.applied.term
            && *metadata.get_conf_state() == state.membership
            && state.cluster_id == self.state.cluster_id;
        if !fits {
            return;
        }
        self.incoming = Some(state);
        let _ = self.raw.step(message);
    }
}
