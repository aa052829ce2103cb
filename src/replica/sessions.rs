//! Which requests were applied already, so that one that is sent again is not applied twice.
//!
//! A member numbers the requests of its clients within a session that lasts as long as its process. When the leader
//! changes, it sends again what is not answered; both copies may reach the log, and the second is passed over. Part of
//! the replicated state: every member must pass over the same ones. (Raft thesis, 6.3.)

use super::membership::MEMBERS_MAX;
use crate::proto::state;
use std::collections::{BTreeMap, VecDeque};

/// How far ahead of its floor a session may number requests; bounds the memory of a session to a window of bits.
pub(super) const WINDOW: u64 = 1 << 20;

/// How many sessions are remembered; the one that was silent longest is forgotten first. A cluster has one live session a
/// member, and each restart leaves a dead one: in the largest cluster all members may restart three times while one of
/// them is silent, and what it sends again is still known. Part of what members must agree on, like the limit of members.
const SESSIONS_MAX: usize = 4 * MEMBERS_MAX;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    floor: u64,
    /// Whether number `floor + i` was applied.
    applied: VecDeque<bool>,
    last_index: u64,
}

/// The sessions by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions(BTreeMap<u64, Session>);

impl Sessions {
    /// A batch of `session` at a raft index: nothing below `floor` will be asked for again.
    pub(super) fn open(&mut self, session: u64, floor: u64, index: u64) {
        if !self.0.contains_key(&session) && self.0.len() >= SESSIONS_MAX {
            let oldest = self.0.iter().min_by_key(|(id, s)| (s.last_index, **id)).map(|(id, _)| *id);
            if let Some(id) = oldest {
                self.0.remove(&id);
            }
        }
        let entry = self.0.entry(session).or_default();
        entry.last_index = index;
        if floor > entry.floor {
            let gone = usize::try_from(floor - entry.floor).unwrap_or(usize::MAX).min(entry.applied.len());
            entry.applied.drain(..gone);
            entry.floor = floor;
        }
    }

    /// Whether this number is not new.
    pub(super) fn has_applied(&self, session: u64, number: u64) -> bool {
        let Some(entry) = self.0.get(&session) else { return false };
        let Some(offset) = number.checked_sub(entry.floor) else { return true };
        usize::try_from(offset)
            .ok()
            .and_then(|offset| entry.applied.get(offset))
            .is_some_and(|applied| *applied)
    }

    /// Whether this number of an opened session is new; from now on it is not.
    pub(super) fn admit(&mut self, session: u64, number: u64) -> bool {
        let Some(entry) = self.0.get_mut(&session) else { return false };
        let Some(offset) = number.checked_sub(entry.floor) else { return false };
        if offset >= WINDOW {
            return false;
        }
        let offset = offset as usize;
        if entry.applied.len() <= offset {
            entry.applied.resize(offset + 1, false);
        }
        !std::mem::replace(&mut entry.applied[offset], true)
    }

    pub(super) fn to_records(&self) -> Vec<state::Session> {
        self.0
            .iter()
            .map(|(id, s)| state::Session {
                id: *id,
                floor: s.floor,
                applied: s
                    .applied
                    .iter()
                    .enumerate()
                    .filter(|(_, applied)| **applied)
                    .map(|(offset, _)| s.floor + offset as u64)
                    .collect(),
                last_index: s.last_index,
            })
            .collect()
    }

    pub(super) fn from_records(records: &[state::Session]) -> Result<Self, String> {
        let mut sessions = BTreeMap::new();
        for record in records {
            let mut session =
                Session { floor: record.floor, applied: VecDeque::new(), last_index: record.last_index };
            for number in &record.applied {
                let offset = number.checked_sub(record.floor).filter(|o| *o < WINDOW);
                let offset = offset
                    .ok_or_else(|| format!("session {:x}: {number} is out of its window", record.id))?;
                let offset = offset as usize;
                if session.applied.len() <= offset {
                    session.applied.resize(offset + 1, false);
                }
                session.applied[offset] = true;
            }
            sessions.insert(record.id, session);
        }
        Ok(Self(sessions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_admitted_once_in_any_order() {
        let mut sessions = Sessions::default();
        sessions.open(7, 0, 1);
        assert!(sessions.admit(7, 2));
        assert!(sessions.admit(7, 0));
        assert!(!sessions.admit(7, 2));
        sessions.open(7, 2, 2);
        assert!(!sessions.admit(7, 1), "below the floor: answered, whatever became of it");
        assert!(!sessions.admit(7, 2));
        assert!(sessions.admit(7, 3));
        assert!(!sessions.admit(7, 2 + WINDOW));
    }

    #[test]
    fn records_hold_all_of_it_but_trailing_gaps() {
        let mut sessions = Sessions::default();
        sessions.open(7, 5, 1);
        sessions.admit(7, 9);
        sessions.open(8, 0, 2);
        let again = Sessions::from_records(&sessions.to_records()).unwrap();
        assert_eq!(sessions, again);
        let bad = state::Session { id: 1, floor: 5, applied: vec![4], last_index: 0 };
        assert!(Sessions::from_records(&[bad]).is_err());
    }

    #[test]
    fn a_member_is_remembered_while_as_many_as_there_can_be_restart() {
        let members = MEMBERS_MAX as u64;
        let mut sessions = Sessions::default();
        sessions.open(0, 0, 1);
        assert!(sessions.admit(0, 0));
        // Each of the others starts, and starts again three times, with another session each time.
        for session in 1..=4 * (members - 1) {
            sessions.open(session, 0, 1 + session);
        }
        sessions.open(0, 0, 1_000);
        assert!(!sessions.admit(0, 0), "it was applied");
    }

    #[test]
    fn the_session_silent_longest_is_forgotten_first() {
        let mut sessions = Sessions::default();
        for id in 0..=SESSIONS_MAX as u64 {
            sessions.open(id, 0, 100 + id);
            sessions.admit(id, 0);
        }
        assert!(!sessions.admit(0, 0), "forgotten and not opened");
        assert!(!sessions.admit(1, 0), "remembered");
        assert_eq!(sessions.0.len(), SESSIONS_MAX);
    }
}
