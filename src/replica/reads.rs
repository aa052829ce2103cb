//! Linearizable reads by ReadIndex (raft thesis, 6.4): a round asks the leader for its commit index, and the leader
//! makes sure that it still is the leader; whoever waited when the round began may then read any state that is
//! applied up to that index.
//!
//! In a cluster of two or three a follower's question is itself the proof that its leader leads (`answer_round`); else, and for a
//! leader's own readers, the leader asks the others.
//!
//! One round serves everyone who waits. `raft` drops rounds without a word (RAFT-RS 6.4: no leader, leader without a
//! commit in its term, a lost message), so a round that stays open is given up and its readers join a new one, with a
//! new context: the leader ignores a context that it knows.

use super::gather::Gather;
use super::{Replica, Token};
use raft::StateRole;
use raft::eraftpb::{Message, MessageType};
use std::collections::VecDeque;
use std::time::Duration;

/// Rounds under way at once. The second lets readers who just missed the first go on without waiting for it.
const ROUNDS_MAX: usize = 2;

/// How long a reader waits for others to share a round with at the most, where more than [`FEW`] were under way at once: then
/// the processors are busy with rounds, and larger ones make all of them faster.
const READER_PATIENCE: Duration = Duration::from_millis(1);
const FEW: usize = 16;

/// After this long without an answer a round is given up.
const ROUND_PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Waiting {
    token: Token,
    deadline: Duration,
}

#[derive(Debug)]
struct Round {
    sequence: u64,
    started: Duration,
    readers: Vec<Waiting>,
}

/// The readers of one member.
#[derive(Debug)]
pub(super) struct Reads {
    session: u64,
    next_sequence: u64,
    waiting: Vec<Waiting>,
    gather: Gather,
    rounds: VecDeque<Round>,
    /// Rounds that were answered, by the index that must be applied first.
    confirmed: Vec<(u64, Vec<Waiting>)>,
}

impl Reads {
    pub(super) fn new(session: u64) -> Self {
        Self {
            session,
            next_sequence: 0,
            waiting: Vec::new(),
            gather: Gather::default(),
            rounds: VecDeque::new(),
            confirmed: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, token: Token, now: Duration, timeout: Duration) {
        let patience = if self.gather.most() > FEW { READER_PATIENCE } else { Duration::ZERO };
        self.gather.add(patience, now);
        let deadline = now + timeout;
        self.waiting.push(Waiting { token, deadline });
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
            + self.rounds.iter().map(|r| r.readers.len()).sum::<usize>()
            + self.confirmed.iter().map(|(_, readers)| readers.len()).sum::<usize>()
    }

    /// The context of a round to begin now, if anybody waits who need not wait for others, and there is room.
    pub(super) fn begin(&mut self, now: Duration) -> Option<Vec<u8>> {
        let due = !self.waiting.is_empty() && self.gather.is_due(self.waiting.len(), now);
        if !due || self.rounds.len() >= ROUNDS_MAX {
            return None;
        }
        self.gather.went(self.len());
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let readers = std::mem::take(&mut self.waiting);
        self.rounds.push_back(Round { sequence, started: now, readers });
        let mut context = Vec::with_capacity(16);
        context.extend_from_slice(&self.session.to_be_bytes());
        context.extend_from_slice(&sequence.to_be_bytes());
        Some(context)
    }

    /// A round was answered: its readers wait for `index` now. Answers come in any order.
    pub(super) fn confirm(&mut self, context: &[u8], index: u64) {
        let Some((session, sequence)) = parse(context) else { return };
        if session != self.session {
            return;
        }
        if let Some(at) = self.rounds.iter().position(|r| r.sequence == sequence)
            && let Some(round) = self.rounds.remove(at)
        {
            self.confirmed.push((index, round.readers));
        }
    }

    /// Who may read a state that is applied up to `applied`.
    pub(super) fn take_ready(&mut self, applied: u64, mut ready: impl FnMut(Token)) {
        self.confirmed.retain_mut(|(index, readers)| {
            if *index > applied {
                return true;
            }
            for reader in readers.drain(..) {
                ready(reader.token);
            }
            false
        });
    }

    /// Gives up every round under way: they may never be answered (a change of leader).
    pub(super) fn restart(&mut self) {
        for round in self.rounds.drain(..) {
            self.waiting.extend(round.readers);
            self.gather.hurry();
        }
    }

    /// Gives up rounds that stay open too long: their readers wait for the next.
    pub(super) fn give_up_lost(&mut self, now: Duration) {
        let mut at = 0;
        while at < self.rounds.len() {
            if now.saturating_sub(self.rounds[at].started) < ROUND_PATIENCE {
                at += 1;
            } else if let Some(round) = self.rounds.remove(at) {
                self.waiting.extend(round.readers);
                self.gather.hurry();
            }
        }
    }

    /// Gives up everybody.
    pub(super) fn drain(&mut self, mut failed: impl FnMut(Token)) {
        self.restart();
        let confirmed = std::mem::take(&mut self.confirmed).into_iter().flat_map(|(_, readers)| readers);
        std::mem::take(&mut self.waiting)
            .into_iter()
            .chain(confirmed)
            .for_each(|reader| failed(reader.token));
    }

    /// Gives up readers whose time is over.
    pub(super) fn tick(&mut self, now: Duration, mut failed: impl FnMut(Token)) {
        let mut sweep = |readers: &mut Vec<Waiting>| {
            readers.retain(|reader| {
                let alive = reader.deadline > now;
                if !alive {
                    failed(reader.token);
                }
                alive
            });
        };
        sweep(&mut self.waiting);
        for round in &mut self.rounds {
            sweep(&mut round.readers);
        }
        for (_, readers) in &mut self.confirmed {
            sweep(readers);
        }
    }

    /// When the oldest round under way is to be given up, or, with a leader, the next to be begun.
    pub(super) fn wake_at(&self, leader: bool) -> Option<Duration> {
        let may_begin = leader && !self.waiting.is_empty() && self.rounds.len() < ROUNDS_MAX;
        let begins = self.gather.wake_at().filter(|_| may_begin);
        self.rounds.iter().map(|r| r.started + ROUND_PATIENCE).chain(begins).min()
    }
}

impl Replica {
    /// Answers a follower's round at once where its question is proof enough that this member leads; says whether it did.
    ///
    /// A round is to show that nobody led a later term before its readers came, for that leader could have acknowledged writes
    /// that are not in this log. It would have been elected by a majority. The follower asked after its readers had come,
    /// and asked this member, so it knew of no term beyond those that this member has led; and this member knows of
    /// none now. Where these two are a majority, one of them would have given that vote. It says nothing of readers who came after the
    /// question was asked, those of this member among them: raft confirms all rounds before one that it confirms, so it is not
    /// told of this one.
    pub(super) fn answer_round(&mut self, question: &Message) -> bool {
        let (raft, membership) = (&self.raw.raft, &self.state.membership);
        let asker_and_leader = 2 * 2 > membership.voters.len()
            && membership.voters_outgoing.is_empty()
            && membership.voters.contains(&question.from)
            && membership.voters.contains(&self.config.id);
        if !asker_and_leader || raft.state != StateRole::Leader || !raft.commit_to_current_term() {
            return false;
        }
        let mut answer = Message::default();
        answer.set_msg_type(MessageType::MsgReadIndexResp);
        (answer.from, answer.to) = (self.config.id, question.from);
        (answer.term, answer.index) = (raft.term, raft.raft_log.committed);
        answer.entries = question.entries.clone();
        self.send(vec![answer]);
        true
    }
}

fn parse(context: &[u8]) -> Option<(u64, u64)> {
    let (session, sequence) = context.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*session), u64::from_be_bytes(sequence.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ready(reads: &mut Reads, applied: u64) -> Vec<u64> {
        let mut tokens = Vec::new();
        reads.take_ready(applied, |t| tokens.push(t.0));
        tokens
    }

    #[test]
    fn one_round_serves_all_who_wait_and_only_when_applied() {
        let mut reads = Reads::new(9);
        reads.add(Token(1), Duration::ZERO, MS * 7000);
        reads.add(Token(2), Duration::ZERO, MS * 7000);
        let context = reads.begin(MS).unwrap();
        reads.add(Token(3), Duration::ZERO, MS * 7000);
        reads.confirm(&context, 10);
        assert_eq!(ready(&mut reads, 9), Vec::<u64>::new());
        assert_eq!(ready(&mut reads, 10), vec![1, 2]);
        assert!(reads.begin(MS).is_some(), "the third came later and needs a round of its own");
        assert_eq!(reads.len(), 1);
    }

    #[test]
    fn where_there_are_many_a_round_waits_for_those_who_will_come_again() {
        let mut reads = Reads::new(9);
        let many = FEW as u64 + 1;
        (0..many).for_each(|token| reads.add(Token(token), MS, MS * 7000));
        let context = reads.begin(MS).unwrap();
        reads.confirm(&context, 1);
        assert_eq!(ready(&mut reads, 1).len(), FEW + 1);
        (1..many).for_each(|token| reads.add(Token(token), MS * 2, MS * 7000));
        assert_eq!(reads.begin(MS * 2), None);
        assert_eq!((reads.wake_at(true), reads.wake_at(false)), (Some(MS * 2 + READER_PATIENCE), None));
        assert!(reads.begin(MS * 2 + READER_PATIENCE).is_some(), "one has gone away");
    }

    #[test]
    fn a_lost_round_is_begun_again_with_another_context() {
        let mut reads = Reads::new(9);
        reads.add(Token(1), Duration::ZERO, MS * 7000);
        let first = reads.begin(MS).unwrap();
        let mut failed = Vec::new();
        reads.give_up_lost(MS + ROUND_PATIENCE);
        reads.tick(MS + ROUND_PATIENCE, |t| failed.push(t.0));
        let second = reads.begin(MS + ROUND_PATIENCE).unwrap();
        assert_ne!(first, second);
        reads.confirm(&first, 1); // late: nobody waits for it any more
        assert!(ready(&mut reads, 1).is_empty());
        reads.confirm(&second, 1);
        assert_eq!(ready(&mut reads, 1), vec![1]);
        assert!(failed.is_empty());
    }

    #[test]
    fn a_reader_fails_when_its_time_is_over() {
        let mut reads = Reads::new(9);
        reads.add(Token(1), Duration::ZERO, MS * 100);
        let context = reads.begin(MS).unwrap();
        let mut failed = Vec::new();
        reads.tick(MS * 300, |t| failed.push(t.0));
        assert_eq!(failed, vec![1], "also in the middle of a round");
        reads.confirm(&context, 0);
        assert!(ready(&mut reads, 5).is_empty());
    }
}
