//! Clients: each makes one request at a time, each at any member, and knows what its answer may be.
//!
//! Some keys belong to one client, some are shared; there are plain writes, compare-and-swaps, in-order creations, keys
//! with a time to live that are refreshed or not, and reads of a whole state. A request without an answer may take effect
//! at any time, once, or never.

use crate::coverage::Coverage;
use crate::invariants::Invariants;
use crate::network::Network;
use crate::world::REQUEST_TIMEOUT;
use bytes::Bytes;
use quorate::replica::{Failure, Input, Token};
use quorate::store::{Command, Compare, ErrorCode, Event, Key, Store, StoreError};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// Longer than this no answer takes, but for pauses of the member: beyond the time-out there are ticks, and slow clocks.
const ANSWER_MS_MAX: u64 = REQUEST_TIMEOUT.as_millis() as u64 * 5 / 4 + 500;

/// Reads that took longer than this were begun again on the way.
const SLOW_READ_MS: u64 = 300;

const SHARED_KEYS: u64 = 3;
pub const TTL_MS: std::ops::Range<u64> = 100..5_000;
const TTL_STEP: u64 = 1_000;

/// What came of a request.
pub enum Outcome {
    Written(Result<Arc<Event>, StoreError>),
    Read(Store),
    Failed(Failure),
}

#[derive(Debug)]
enum Asked {
    Write { key: Key, value: Bytes, compared: Option<Bytes> },
    Read,
}

#[derive(Debug)]
struct Request {
    token: Token,
    member: usize,
    since: u64,
    /// How long the member was paused meanwhile, or its clock stood still.
    paused: u64,
    /// What had been shown when it began, see `Linearizable`.
    shown: u64,
    asked: Asked,
}

#[derive(Debug, Default)]
struct Client {
    request: Option<Request>,
    next_at: u64,
    writes: u64,
    forced_at: usize,
    /// Its key with a time to live, which it may refresh.
    lease: Option<Key>,
    /// What it read last from a shared key.
    seen: Option<(Key, Bytes)>,
}

pub struct Clients {
    all: Vec<Client>,
    /// A client waits for up to so long before its next request.
    think_ms: u64,
    next_token: u64,
    running: bool,
    /// One more write of the first client is to be made.
    forced: bool,
    /// Writes that succeeded.
    pub written: u64,
}

impl Clients {
    pub fn new(count: usize, think_ms: u64) -> Self {
        let all = (0..count).map(|_| Client::default()).collect();
        Self { all, think_ms, next_token: 0, running: true, forced: false, written: 0 }
    }

    pub fn stop(&mut self) {
        self.running = false;
    }

    pub fn idle(&self) -> bool {
        !self.forced && self.all.iter().all(|c| c.request.is_none())
    }

    /// The first client makes one more write, at another member each time; what it waits for yet, it gives up.
    pub fn force_one_more_write(&mut self, now: u64) {
        self.forced = true;
        self.all[0].request = None;
        self.all[0].next_at = now;
    }

    /// When the next request is to be made.
    pub fn next_at(&self) -> Option<u64> {
        let wants =
            |(n, c): &(usize, &Client)| c.request.is_none() && (self.running || (self.forced && *n == 0));
        self.all.iter().enumerate().filter(wants).map(|(_, c)| c.next_at).min()
    }

    /// The requests that are due, each with the member that is asked. Of each member: whether it is there, and how long
    /// it is still paused.
    pub fn due(
        &mut self,
        now: u64,
        members: &[(bool, u64)],
        rng: &mut ChaCha8Rng,
        invariants: &mut Invariants,
    ) -> Vec<(usize, Input)> {
        let mut inputs = vec![];
        for number in 0..self.all.len() {
            let forced = self.forced && number == 0;
            let client = &mut self.all[number];
            if client.request.is_some() || client.next_at > now || !(self.running || forced) {
                continue;
            }
            client.next_at = now + if forced { 1 } else { rng.random_range(1..self.think_ms) };
            let member =
                if forced { client.next_member(members.len()) } else { rng.random_range(0..members.len()) };
            let (there, paused) = members[member];
            if !there {
                continue;
            }
            let token = Token(self.next_token);
            self.next_token += 1;
            let (asked, input) = client.ask(number, token, forced, rng, invariants);
            let shown = invariants.linearizable.begins();
            client.request = Some(Request { token, member, since: now, paused, shown, asked });
            self.forced &= !forced;
            inputs.push((member, input));
        }
        inputs
    }

    /// Reads that wait at a member.
    pub fn reading_at(&self, member: usize) -> Vec<Token> {
        let requests = self.all.iter().filter_map(|c| c.request.as_ref());
        requests.filter(|r| r.member == member && matches!(r.asked, Asked::Read)).map(|r| r.token).collect()
    }

    /// An answer reached its client.
    pub fn answer(
        &mut self,
        token: Token,
        outcome: Outcome,
        now: u64,
        network: &Network,
        invariants: &mut Invariants,
        coverage: &mut Coverage,
    ) {
        let asking = |c: &&mut Client| c.request.as_ref().is_some_and(|r| r.token == token);
        let Some(client) = self.all.iter_mut().find(asking) else { return };
        let Some(Request { since, paused, shown, asked, .. }) = client.request.take() else { return };
        let took = now - since;
        assert!(took <= ANSWER_MS_MAX + paused, "an answer after {took} ms");
        match (asked, outcome) {
            (Asked::Write { key, value, compared }, Outcome::Written(Ok(event))) => {
                coverage.note("writes");
                self.written += 1;
                invariants.linearizable.written(shown, event.index);
                invariants.history.answered(&event);
                assert!(
                    key.contains(&event.node.key) || key == event.node.key,
                    "{key:?}: answered {event:?}"
                );
                assert_eq!(event.node.value.as_ref(), Some(&value), "answered with another's event");
                let before = event.prev_node.as_ref().and_then(|node| node.value.clone());
                assert!(compared.is_none() || compared == before, "swapped {before:?} for {compared:?}");
            }
            (Asked::Write { key, value, compared }, Outcome::Written(Err(error))) => {
                coverage.note("cas refused");
                invariants.linearizable.read(shown, error.index);
                let there = invariants.history.value_at(&key, error.index);
                let rightly = match error.code {
                    ErrorCode::TestFailed => compared.is_some() && there.is_some() && there != compared,
                    ErrorCode::KeyNotFound => there.is_none(),
                    _ => false,
                };
                assert!(rightly, "{error} for {key:?}, which is {there:?}");
                if !value.is_empty() {
                    invariants.exactly_once.refused(value);
                }
            }
            (Asked::Read, Outcome::Read(store)) => {
                coverage.note("reads");
                coverage.note_many("slow reads", u64::from(took > SLOW_READ_MS));
                invariants.linearizable.read(shown, store.index());
                client.look_at(&store, invariants);
            }
            (Asked::Write { .. }, Outcome::Failed(Failure::Timeout)) => coverage.note("timeouts"),
            (Asked::Write { .. }, Outcome::Failed(Failure::Removed)) => coverage.note("told of a removal"),
            (Asked::Write { value, .. }, Outcome::Failed(reason)) => {
                let left_out = matches!(reason, Failure::LeftOut(_));
                coverage.note(match reason {
                    Failure::NoRoom(_) => "refused: no space",
                    Failure::LeftOut(_) => "left out: no space",
                    _ => "refused before the log",
                });
                // The member counts what it sent, and takes it that no more than that arrives.
                let repeated = left_out && network.has_repeated(&value);
                if !value.is_empty() && !repeated {
                    invariants.exactly_once.refused(value);
                }
            }
            (Asked::Read, Outcome::Failed(_)) => {}
            (asked, _) => panic!("the wrong kind of answer to {asked:?}"),
        }
    }

    /// A member does nothing for a while.
    pub fn member_pauses(&mut self, member: usize, ms: u64) {
        for request in self.all.iter_mut().filter_map(|c| c.request.as_mut()).filter(|r| r.member == member) {
            request.paused += ms;
        }
    }

    /// A member is gone, and with it whatever it was asked. How many requests that is.
    pub fn member_crashed(&mut self, member: usize) -> u64 {
        let mut lost = 0;
        for client in &mut self.all {
            if client.request.as_ref().is_some_and(|r| r.member == member) {
                client.request = None;
                lost += 1;
            }
        }
        lost
    }
}

impl Client {
    fn next_member(&mut self, members: usize) -> usize {
        self.forced_at += 1;
        self.forced_at % members
    }

    fn ask(
        &mut self,
        number: usize,
        token: Token,
        forced: bool,
        rng: &mut ChaCha8Rng,
        invariants: &mut Invariants,
    ) -> (Asked, Input) {
        let kind = if forced { 0 } else { rng.random_range(0..12) };
        if kind >= 7 {
            return (Asked::Read, Input::Read { token });
        }
        self.writes += 1;
        let shared = |rng: &mut ChaCha8Rng| key(&format!("/shared/{}", rng.random_range(0..SHARED_KEYS)));
        let (at, command, compared) = match kind {
            5 | 6 => return self.ask_for_time(number, token, rng, invariants),
            0 | 1 => (key(&format!("/own/{number}")), None, None),
            2 => (shared(rng), None, None),
            3 => match self.seen.clone() {
                Some((key, seen)) => (key, Some(seen.clone()), Some(seen)),
                None => (shared(rng), None, None),
            },
            _ => (key("/queue"), None, None),
        };
        let value = Bytes::from(format!("{number}-{}", self.writes));
        invariants.exactly_once.asked(value.clone());
        let (key, new) = (at.clone(), value.clone());
        let command = match command {
            Some(prev_value) => Command::CompareAndSwap {
                key,
                compare: Compare { prev_value, prev_index: 0 },
                value: new,
                ttl: None,
                refresh: false,
            },
            None if kind == 4 => Command::CreateInOrder { key, value: new, dir: false, ttl: None },
            None => Command::Set { key, value: new, dir: false, ttl: None, refresh: false },
        };
        (Asked::Write { key: at, value, compared }, Input::Write { token, command })
    }

    /// A new key with a time to live, or the last one anew.
    fn ask_for_time(
        &mut self,
        number: usize,
        token: Token,
        rng: &mut ChaCha8Rng,
        invariants: &mut Invariants,
    ) -> (Asked, Input) {
        // No two requests for one key ask for the same time, so that an expiry tells which of them it is due to.
        let ttl = rng.random_range(TTL_MS) / TTL_STEP * TTL_STEP + self.writes % TTL_STEP;
        let last = self.lease.take().filter(|_| rng.random_range(0..2) == 0);
        let refresh = last.is_some();
        let at = last.unwrap_or_else(|| key(&format!("/ttl/{number}-{}", self.writes)));
        self.lease = Some(at.clone());
        invariants.ttl.asked(at.clone(), ttl);
        let command =
            Command::Set { key: at.clone(), value: Bytes::new(), dir: false, ttl: Some(ttl), refresh };
        (Asked::Write { key: at, value: Bytes::new(), compared: None }, Input::Write { token, command })
    }

    fn look_at(&mut self, store: &Store, invariants: &Invariants) {
        for number in 0..SHARED_KEYS {
            let key = key(&format!("/shared/{number}"));
            invariants.history.read(store, &key);
            if let Ok(node) = store.get(&key)
                && node.modified % SHARED_KEYS == number
            {
                self.seen = node.value.map(|value| (key, value));
            }
        }
        if let Some(lease) = &self.lease {
            invariants.history.read(store, lease);
        }
    }
}

fn key(path: &str) -> Key {
    Key::parse(path.as_bytes())
}
