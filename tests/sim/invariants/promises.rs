//! A member promises nothing that its disk does not hold: an entry that it says it has, a vote that it gives, a term for
//! which it stands. And it votes for one candidate a term, whatever crashes lie between.

use crate::disk::Disk;
use raft::eraftpb::{Message, MessageType};
use std::collections::HashMap;

#[derive(Default)]
pub struct Promises {
    /// By data directory and term: one that was emptied has promised nothing.
    votes: HashMap<(u64, u64), u64>,
}

impl Promises {
    /// A member sends this.
    pub fn sent(&mut self, message: &Message, incarnation: u64, disk: &Disk) {
        let hard_state = disk.hard_state();
        let voted_for = match message.get_msg_type() {
            MessageType::MsgAppendResponse if !message.reject => {
                let last = disk.last_index();
                assert!(message.index <= last, "says it has {}, but its disk ends at {last}", message.index);
                return;
            }
            MessageType::MsgRequestVoteResponse if !message.reject => message.to,
            MessageType::MsgRequestVote => message.from,
            _ => return,
        };
        let durable = hard_state.term > message.term
            || (hard_state.term == message.term && hard_state.vote == voted_for);
        assert!(durable, "a vote in term {} that is not on disk: {hard_state:?}", message.term);
        let before = self.votes.insert((incarnation, message.term), voted_for);
        assert!(before.is_none_or(|before| before == voted_for), "two votes in term {}", message.term);
    }
}
