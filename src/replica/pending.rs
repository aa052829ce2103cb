//! The writes of this member's clients on their way to being applied.
//!
//! Each has a number within the member's session and is kept until it is applied here or its time is over. When the
//! leader changes, or the way to it was interrupted, all that are kept are sent again, in order; one that stays without
//! an answer is sent again by itself, each time after twice as long, so that a cluster that is slow because it has too
//! much to do is not given all of it once more every second. The sessions in the replicated state see to it that none
//! is applied twice (see `sessions`).

use super::Token;
use super::gather::{Gather, patience};
use super::sessions::WINDOW;
use crate::proto::command::{Batch, Request, request::Body};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// More than this many writes are not taken: well within the window of a session.
pub(super) const PENDING_MAX: usize = (WINDOW / 8) as usize;

/// Writes of more bytes than this together are not taken, unless it is one alone.
const PENDING_BYTES_MAX: usize = 64 << 20;

/// A write whose fate is unknown for this long is sent again: the message that carried it may be lost.
const RESEND_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Entry {
    token: Token,
    body: Body,
    bytes: usize,
    deadline: Duration,
    sent: Option<Duration>,
    /// How often it was sent: no more copies of it can reach a log.
    copies: u32,
    /// After so long without an answer it is sent again.
    patience: Duration,
}

impl Entry {
    fn note_sent(&mut self, now: Duration) {
        self.sent = Some(now);
        self.copies = self.copies.saturating_add(1);
    }
}

/// The writes by number.
#[derive(Debug)]
pub(super) struct Pending {
    session: u64,
    next_number: u64,
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
    /// Numbers that were not sent to the present leader yet are those from here on, and these.
    unsent_from: u64,
    lost: BTreeSet<u64>,
    gather: Gather,
}

impl Pending {
    pub(super) fn new(session: u64) -> Self {
        Self {
            session,
            next_number: 0,
            entries: BTreeMap::new(),
            bytes: 0,
            unsent_from: 0,
            lost: BTreeSet::new(),
            gather: Gather::default(),
        }
    }

    pub(super) fn session(&self) -> u64 {
        self.session
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a request; `Err` gives nothing away when there are too many.
    pub(super) fn add(
        &mut self,
        token: Token,
        body: Body,
        now: Duration,
        timeout: Duration,
    ) -> Result<(), Token> {
        let span = self.next_number - self.floor();
        let bytes = body.encoded_len();
        let full = self.entries.len() >= PENDING_MAX || self.bytes + bytes > PENDING_BYTES_MAX;
        if (full && !self.entries.is_empty()) || span >= WINDOW - 1 {
            return Err(token);
        }
        self.bytes += bytes;
        self.gather.add(patience(&body), now);
        let deadline = now + timeout;
        let entry = Entry { token, body, bytes, deadline, sent: None, copies: 0, patience: RESEND_AFTER };
        self.entries.insert(self.next_number, entry);
        self.next_number += 1;
        Ok(())
    }

    /// Below this number everything is answered.
    fn floor(&self) -> u64 {
        self.entries.first_key_value().map_or(self.next_number, |(number, _)| *number)
    }

    /// What is to go to the leader now: everything that it was not sent yet, unless that may wait for more.
    pub(super) fn take_unsent(&mut self, now: Duration) -> Option<Batch> {
        let unsent = usize::try_from(self.next_number - self.unsent_from).unwrap_or(usize::MAX);
        if (unsent == 0 || !self.gather.is_due(unsent, now)) && self.lost.is_empty() {
            return None;
        }
        let floor = self.floor();
        let mut requests = Vec::new();
        for number in std::mem::take(&mut self.lost).range(..self.unsent_from) {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.note_sent(now);
                requests.push(Request { number: *number, body: Some(entry.body.clone()) });
            }
        }
        for (number, entry) in self.entries.range_mut(self.unsent_from..) {
            entry.note_sent(now);
            entry.patience = RESEND_AFTER;
            requests.push(Request { number: *number, body: Some(entry.body.clone()) });
        }
        self.unsent_from = self.next_number;
        self.gather.went(self.entries.len());
        (!requests.is_empty()).then_some(Batch { session: self.session, floor, requests })
    }

    /// When what is not sent yet is to go, though nothing comes to it.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.gather.wake_at().filter(|_| self.next_number > self.unsent_from)
    }

    /// Everything is to be sent again: another leader, or a connection that broke.
    pub(super) fn resend_all(&mut self) {
        self.unsent_from = 0;
        self.gather.hurry();
    }

    /// What came of a request is known; who asked for it, if anybody still waits.
    pub(super) fn remove(&mut self, number: u64) -> Option<Token> {
        let entry = self.entries.remove(&number)?;
        self.bytes -= entry.bytes;
        Some(entry.token)
    }

    /// A leader left it out. Who asked for it, if it was the only copy, so that it will never be applied. Of several
    /// another may be in a log already, of this leader or of one before it, and be committed later: it goes on waiting, as if
    /// the leader had said nothing.
    pub(super) fn left_out(&mut self, number: u64) -> Option<Token> {
        if self.entries.get(&number)?.copies > 1 {
            return None;
        }
        self.remove(number)
    }

    /// Gives up everything.
    pub(super) fn drain(&mut self, mut failed: impl FnMut(Token)) {
        for entry in std::mem::take(&mut self.entries).into_values() {
            failed(entry.token);
        }
        self.lost.clear();
        self.bytes = 0;
    }

    /// Gives up writes whose time is over (`true`: it was sent and may still be applied), and, where the way to the
    /// leader may lose them, notices those that were lost.
    pub(super) fn tick(&mut self, now: Duration, may_be_lost: bool, mut failed: impl FnMut(Token, bool)) {
        let (lost, bytes) = (&mut self.lost, &mut self.bytes);
        self.entries.retain(|number, entry| {
            if entry.deadline <= now {
                failed(entry.token, entry.sent.is_some());
                *bytes -= entry.bytes;
                return false;
            }
            let silent = entry.sent.is_some_and(|sent| now.saturating_sub(sent) >= entry.patience);
            if silent && may_be_lost && lost.insert(*number) {
                entry.patience *= 2;
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::command::Write;

    const MS: Duration = Duration::from_millis(1);

    fn body() -> Body {
        Body::Write(Write::default())
    }

    fn numbers(batch: Option<Batch>) -> Vec<u64> {
        batch.map_or(vec![], |b| b.requests.iter().map(|r| r.number).collect())
    }

    #[test]
    fn what_is_not_answered_is_sent_again_with_a_floor_below_it() {
        let mut pending = Pending::new(3);
        for token in 0..3 {
            pending.add(Token(token), body(), Duration::ZERO, MS * 7000).unwrap();
        }
        assert_eq!(numbers(pending.take_unsent(MS)), vec![0, 1, 2]);
        assert_eq!(numbers(pending.take_unsent(MS)), Vec::<u64>::new());
        assert_eq!(pending.remove(0), Some(Token(0)));
        assert_eq!(pending.remove(0), None);
        pending.resend_all();
        let again = pending.take_unsent(MS).unwrap();
        assert_eq!(again.floor, 1);
        assert_eq!(numbers(Some(again)), vec![1, 2]);
    }

    #[test]
    fn a_write_that_was_never_sent_is_told_from_one_that_may_be_applied() {
        let mut pending = Pending::new(3);
        pending.add(Token(0), body(), Duration::ZERO, MS * 10).unwrap();
        pending.take_unsent(MS);
        pending.add(Token(1), body(), Duration::ZERO, MS * 10).unwrap();
        let mut failed = Vec::new();
        pending.tick(MS * 10, true, |token, sent| failed.push((token.0, sent)));
        assert_eq!(failed, vec![(0, true), (1, false)]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn what_is_left_out_is_given_up_if_no_other_copy_was_sent() {
        let mut pending = Pending::new(3);
        for token in 0..3 {
            pending.add(Token(token), body(), Duration::ZERO, MS * 7000).unwrap();
        }
        pending.take_unsent(MS);
        assert_eq!(pending.left_out(0), Some(Token(0)));
        assert_eq!(pending.left_out(0), None);
        pending.resend_all();
        assert_eq!(pending.left_out(1), Some(Token(1)), "it was to be sent again, but was not yet");
        assert_eq!(numbers(pending.take_unsent(MS)), vec![2]);
        assert_eq!(pending.left_out(2), None, "the other copy may be in a log");
        assert_eq!(pending.remove(2), Some(Token(2)), "and may be applied");
        pending.add(Token(3), body(), Duration::ZERO, MS * 7000).unwrap();
        pending.take_unsent(MS);
        pending.tick(MS + RESEND_AFTER, true, |_, _| unreachable!());
        pending.take_unsent(MS + RESEND_AFTER);
        assert_eq!(pending.left_out(3), None, "sent again by itself");
    }

    #[test]
    fn a_silent_leader_is_asked_again() {
        let mut pending = Pending::new(3);
        pending.add(Token(0), body(), Duration::ZERO, MS * 7000).unwrap();
        pending.take_unsent(MS);
        pending.tick(MS + RESEND_AFTER, true, |_, _| unreachable!());
        pending.add(Token(1), body(), Duration::ZERO, MS * 7000).unwrap();
        assert_eq!(numbers(pending.take_unsent(MS + RESEND_AFTER)), vec![0, 1]);
        pending.tick(MS + 2 * RESEND_AFTER, true, |_, _| unreachable!());
        assert_eq!(
            numbers(pending.take_unsent(MS + 2 * RESEND_AFTER)),
            vec![1],
            "the first a second time, only later"
        );
        pending.tick(MS + 3 * RESEND_AFTER, true, |_, _| unreachable!());
        assert_eq!(numbers(pending.take_unsent(MS + 3 * RESEND_AFTER)), vec![0]);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let mut pending = Pending::new(3);
        let large =
            || Body::Write(Write { value: vec![0; PENDING_BYTES_MAX / 2].into(), ..Write::default() });
        pending.add(Token(0), large(), Duration::ZERO, MS * 7000).unwrap();
        assert_eq!(pending.add(Token(1), large(), Duration::ZERO, MS * 7000), Err(Token(1)));
        pending.add(Token(2), body(), Duration::ZERO, MS * 7000).unwrap();
        pending.remove(0);
        pending.add(Token(3), large(), Duration::ZERO, MS * 7000).unwrap();
    }
}
