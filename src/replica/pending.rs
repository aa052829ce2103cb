//! The writes of this member's clients on their way to being applied.
//!
//! Each has a number within the member's session and is kept until it is applied here or its time is over. When the
//! leader changes, or the way to it was interrupted, all that are kept are sent again, in order; the sessions in the
//! replicated state see to it that none is applied twice (see `sessions`).

use super::Token;
use super::sessions::WINDOW;
use crate::proto::command::{Batch, Request, request::Body};
use std::collections::BTreeMap;
use std::time::Duration;

/// More than this many writes are not taken: well within the window of a session.
pub(super) const PENDING_MAX: usize = (WINDOW / 8) as usize;

/// A write whose fate is unknown for this long is sent again: the message that carried it may be lost.
const RESEND_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Entry {
    token: Token,
    body: Body,
    deadline: Duration,
    sent: Option<Duration>,
}

/// The writes by number.
#[derive(Debug)]
pub(super) struct Pending {
    session: u64,
    next_number: u64,
    entries: BTreeMap<u64, Entry>,
    /// Numbers that were not sent to the present leader yet are those from here on.
    unsent_from: u64,
}

impl Pending {
    pub(super) fn new(session: u64) -> Self {
        Self { session, next_number: 0, entries: BTreeMap::new(), unsent_from: 0 }
    }

    pub(super) fn session(&self) -> u64 {
        self.session
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a request; `Err` gives nothing away when there are too many.
    pub(super) fn add(&mut self, token: Token, body: Body, deadline: Duration) -> Result<(), Token> {
        let span = self.next_number - self.floor();
        if self.entries.len() >= PENDING_MAX || span >= WINDOW - 1 {
            return Err(token);
        }
        self.entries.insert(self.next_number, Entry { token, body, deadline, sent: None });
        self.next_number += 1;
        Ok(())
    }

    /// Below this number everything is answered.
    fn floor(&self) -> u64 {
        self.entries.first_key_value().map_or(self.next_number, |(number, _)| *number)
    }

    /// What is to go to the leader now: everything that it was not sent yet.
    pub(super) fn take_unsent(&mut self, now: Duration) -> Option<Batch> {
        let floor = self.floor();
        let mut requests = Vec::new();
        for (number, entry) in self.entries.range_mut(self.unsent_from..) {
            entry.sent = Some(now);
            requests.push(Request { number: *number, body: Some(entry.body.clone()) });
        }
        self.unsent_from = self.next_number;
        (!requests.is_empty()).then_some(Batch { session: self.session, floor, requests })
    }

    /// Everything is to be sent again: another leader, or a connection that broke.
    pub(super) fn resend_all(&mut self) {
        self.unsent_from = 0;
    }

    /// A request was applied here; who asked for it, if anybody still waits.
    pub(super) fn applied(&mut self, number: u64) -> Option<Token> {
        self.entries.remove(&number).map(|entry| entry.token)
    }

    /// Gives up writes whose time is over (`true`: it was sent and may still be applied), and, where the way to the
    /// leader may lose them, notices those that were lost.
    pub(super) fn tick(&mut self, now: Duration, may_be_lost: bool, mut failed: impl FnMut(Token, bool)) {
        let mut lost = false;
        self.entries.retain(|_, entry| {
            if entry.deadline <= now {
                failed(entry.token, entry.sent.is_some());
                return false;
            }
            lost |= entry.sent.is_some_and(|sent| now.saturating_sub(sent) >= RESEND_AFTER);
            true
        });
        if lost && may_be_lost {
            self.resend_all();
        }
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
            pending.add(Token(token), body(), MS * 7000).unwrap();
        }
        assert_eq!(numbers(pending.take_unsent(MS)), vec![0, 1, 2]);
        assert_eq!(numbers(pending.take_unsent(MS)), Vec::<u64>::new());
        assert_eq!(pending.applied(0), Some(Token(0)));
        assert_eq!(pending.applied(0), None);
        pending.resend_all();
        let again = pending.take_unsent(MS).unwrap();
        assert_eq!(again.floor, 1);
        assert_eq!(numbers(Some(again)), vec![1, 2]);
    }

    #[test]
    fn a_write_that_was_never_sent_is_told_from_one_that_may_be_applied() {
        let mut pending = Pending::new(3);
        pending.add(Token(0), body(), MS * 10).unwrap();
        pending.take_unsent(MS);
        pending.add(Token(1), body(), MS * 10).unwrap();
        let mut failed = Vec::new();
        pending.tick(MS * 10, true, |token, sent| failed.push((token.0, sent)));
        assert_eq!(failed, vec![(0, true), (1, false)]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn a_silent_leader_is_asked_again() {
        let mut pending = Pending::new(3);
        pending.add(Token(0), body(), MS * 7000).unwrap();
        pending.take_unsent(MS);
        pending.tick(MS + RESEND_AFTER, true, |_, _| unreachable!());
        assert_eq!(numbers(pending.take_unsent(MS)), vec![0]);
    }
}
