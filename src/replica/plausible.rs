//! Which of raft's messages are let in: raft 0.7 panics at, or believes, what no member says.
//!
//! What is refused is dropped as if it were lost. Nothing that a member says, late or repeated, is refused. What this does
//! not do: guard against a leader that lies about the log in itself; whoever is let in at the peer port is a member.

use super::Replica;
use raft::eraftpb::{ConfState, Entry, Message, MessageType};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// A term further ahead than this is refused: an election a millisecond would take fifty days. Terms only rise, and at the
/// last there could be no election ever.
const TERMS_AHEAD_MAX: u64 = 1 << 32;

/// No cluster comes so far, at that rate in half a billion years; and a term can still be added to.
const TERM_MAX: u64 = 1 << 62;

/// No log comes so far: a million entries a second would take a hundred thousand years. Raft counts on from what it is given.
const INDEX_MAX: u64 = 1 << 62;

impl Replica {
    /// Whether a member may have said this; snapshots come another way.
    pub(super) fn plausible(&self, message: &Message) -> bool {
        let (raft, kind) = (&self.raw.raft, message.get_msg_type());
        let last = raft.raft_log.last_index();
        match kind {
            MessageType::MsgAppend => self.plausible_term(message) && plausible_append(message),
            MessageType::MsgHeartbeat => {
                self.plausible_term(message) && (message.term < raft.term || message.commit <= last)
            }
            // A follower cannot have more of this term's log than the leader, and refuses nothing before what it has.
            // Nobody here asks for a snapshot.
            MessageType::MsgAppendResponse => {
                self.plausible_term(message)
                    && (message.term != raft.term || message.index <= last)
                    && (!message.reject || message.reject_hint <= message.index)
                    && message.request_snapshot == raft::INVALID_INDEX
            }
            MessageType::MsgHeartbeatResponse | MessageType::MsgRequestPreVoteResponse => {
                self.plausible_term(message)
            }
            // One that is below others answers without a term while it has none, which raft cannot send. Nobody here is.
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                self.plausible_term(message) && message.priority >= 0
            }
            // Nobody is asked for a vote before the term, and all of the log before it, is on disk.
            MessageType::MsgRequestVoteResponse => {
                self.plausible_term(message)
                    && (message.term != raft.term || self.writes.durable_term() == raft.term)
            }
            MessageType::MsgTimeoutNow => self.plausible_term(message) && self.may_campaign(),
            // A question for the leader has no term.
            MessageType::MsgReadIndex => message.term == 0 && message.entries.len() == 1,
            MessageType::MsgReadIndexResp => self.plausible_term(message) && message.entries.len() == 1,
            // States come by `Input::Snapshot`, and requests by `forwarded`. The others raft says to itself: only a leader asks
            // itself to hand over.
            MessageType::MsgSnapshot
            | MessageType::MsgPropose
            | MessageType::MsgTransferLeader
            | MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum => false,
        }
    }

    /// Whether a member may have sent this snapshot.
    pub(super) fn plausible_snapshot(&self, message: &Message) -> bool {
        let (metadata, log) = (message.get_snapshot().get_metadata(), &self.raw.raft.raft_log);
        let committed = log.term(log.committed).unwrap_or_default();
        let goes_on = match metadata.index.cmp(&log.committed) {
            // Raft passes over it.
            Ordering::Less => true,
            Ordering::Equal => metadata.term == committed,
            Ordering::Greater => metadata.term >= committed,
        };
        goes_on
            && message.get_msg_type() == MessageType::MsgSnapshot
            && self.plausible_term(message)
            && (1..=INDEX_MAX).contains(&metadata.index)
            && (1..=message.term).contains(&metadata.term)
            && plausible_membership(metadata.get_conf_state())
    }

    /// Without a term raft takes a message for one of its own making, which nothing is checked of.
    fn plausible_term(&self, message: &Message) -> bool {
        let most = TERM_MAX.min(self.raw.raft.term.saturating_add(TERMS_AHEAD_MAX));
        (1..=most).contains(&message.term)
    }
}

/// Whether the entries follow one another, and what they are said to follow. Only what is before the first has no term;
/// raft takes 0 also for the term of what it does not have.
fn plausible_append(message: &Message) -> bool {
    let fits = |before: (u64, u64), entry: &Entry| {
        let follows =
            before.0.checked_add(1) == Some(entry.index) && before.1 <= entry.term && entry.term > 0;
        follows.then_some((entry.index, entry.term))
    };
    let last = message.entries.iter().try_fold((message.index, message.log_term), fits);
    (message.index == 0) == (message.log_term == 0) && last.is_some_and(|(_, term)| term <= message.term)
}

/// Whether there are voters, and nobody has two parts. Changes are made one at a time, never jointly.
fn plausible_membership(membership: &ConfState) -> bool {
    let all: BTreeSet<u64> = membership.voters.iter().chain(&membership.learners).copied().collect();
    let joint = !membership.voters_outgoing.is_empty()
        || !membership.learners_next.is_empty()
        || membership.auto_leave;
    !membership.voters.is_empty()
        && !joint
        && !all.contains(&0)
        && all.len() == membership.voters.len() + membership.learners.len()
}
