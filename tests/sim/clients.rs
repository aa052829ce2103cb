//! Clients that know what they may see.
//!
//! Each client owns one key and makes one request at a time, each at any member. A write that was answered must be seen
//! by every later read until the next write; a write without an answer may take effect at any time, once. That the
//! requests of all clients together are linearizable is checked by index, see `Oracle::answered`.

use crate::oracle::Oracle;
use crate::world::REQUEST_TIMEOUT;
use bytes::Bytes;
use quorate::replica::{Failure, Input, Token};
use quorate::store::{Command, Event, Key, Store, StoreError};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Longer than this no answer takes, but for pauses of the member: beyond the time-out there are ticks, and slow clocks.
const ANSWER_MS_MAX: u64 = REQUEST_TIMEOUT.as_millis() as u64 + 500;

/// Reads that took longer than this were begun again on the way.
const SLOW_READ_MS: u64 = 300;

/// What came of a request.
pub enum Outcome {
    Written(Result<u64, StoreError>),
    Read(Store),
    Failed(Failure),
}

#[derive(Debug)]
enum Asked {
    Write(Bytes),
    /// A key with a time to live, by itself.
    Lease,
    Read,
}

#[derive(Debug)]
struct Request {
    token: Token,
    member: u64,
    since: u64,
    /// How long the member was paused meanwhile.
    paused: u64,
    /// The index that the answer must reach.
    shown: u64,
    asked: Asked,
}

#[derive(Debug, Default)]
struct Client {
    key: String,
    /// The value that a read must find, unless an unknown write took effect.
    current: Option<Bytes>,
    unknown: BTreeSet<Bytes>,
    request: Option<Request>,
    next_at: u64,
    writes: u64,
}

pub struct Clients {
    all: Vec<Client>,
    next_token: u64,
    running: bool,
    /// One more write of the first client is to be made.
    forced: bool,
    /// Values of writes and the index at which each took effect.
    applied: HashMap<Bytes, u64>,
    /// Values of writes of which a client was told that they will not take effect.
    refused: HashSet<Bytes>,
}

impl Clients {
    pub fn new(count: usize) -> Self {
        let clients = (0..count).map(|n| Client { key: format!("/k/{n}"), ..Client::default() }).collect();
        Self {
            all: clients,
            next_token: 0,
            running: true,
            forced: false,
            applied: HashMap::new(),
            refused: HashSet::new(),
        }
    }

    pub fn stop(&mut self) {
        self.running = false;
    }

    pub fn idle(&self) -> bool {
        !self.forced && self.all.iter().all(|c| c.request.is_none())
    }

    pub fn force_one_more_write(&mut self, now: u64) {
        self.forced = true;
        self.all[0].next_at = now;
    }

    /// When the next request is to be made.
    pub fn next_at(&self) -> Option<u64> {
        let wants =
            |(n, c): &(usize, &Client)| c.request.is_none() && (self.running || (self.forced && *n == 0));
        self.all.iter().enumerate().filter(wants).map(|(_, c)| c.next_at).min()
    }

    /// The requests that are due, each with the member that is asked. A member that is not there is not asked.
    pub fn due(
        &mut self,
        now: u64,
        members: &[bool],
        rng: &mut ChaCha8Rng,
        oracle: &mut Oracle,
    ) -> Vec<(usize, Input)> {
        let mut inputs = vec![];
        for number in 0..self.all.len() {
            let forced = self.forced && number == 0;
            let client = &mut self.all[number];
            if client.request.is_some() || client.next_at > now || !(self.running || forced) {
                continue;
            }
            client.next_at = now + rng.random_range(1..200);
            let at = rng.random_range(0..members.len());
            if !members[at] {
                continue;
            }
            let token = Token(self.next_token);
            self.next_token += 1;
            let (asked, input) = client.ask(number, token, forced, rng, oracle);
            client.request = Some(Request {
                token,
                member: at as u64 + 1,
                since: now,
                paused: 0,
                shown: oracle.shown(),
                asked,
            });
            self.forced &= !forced;
            inputs.push((at, input));
        }
        inputs
    }

    /// An answer reached its client.
    pub fn answer(&mut self, token: Token, outcome: Outcome, now: u64, oracle: &mut Oracle) {
        let asking = |c: &&mut Client| c.request.as_ref().is_some_and(|r| r.token == token);
        let Some(client) = self.all.iter_mut().find(asking) else { return };
        let Some(Request { since, paused, shown, asked, .. }) = client.request.take() else { return };
        let took = now - since;
        assert!(took <= ANSWER_MS_MAX + paused, "an answer after {took} ms");
        match (asked, outcome) {
            (Asked::Write(value), Outcome::Written(result)) => {
                let index = result.expect("a set of a file cannot be refused");
                assert_eq!(self.applied.get(&value), Some(&index), "answered before it was applied");
                oracle.answered(shown, index, true);
                oracle.coverage.writes += 1;
                client.current = Some(value);
            }
            (Asked::Lease, Outcome::Written(result)) => {
                oracle.answered(shown, result.expect("a set of a file cannot be refused"), true);
            }
            (Asked::Read, Outcome::Read(store)) => {
                oracle.answered(shown, store.index(), false);
                oracle.coverage.reads += 1;
                oracle.coverage.slow_reads += u64::from(took > SLOW_READ_MS);
                client.found(&store);
            }
            (Asked::Write(value), Outcome::Failed(Failure::Timeout)) => {
                oracle.coverage.timeouts += 1;
                client.unknown.insert(value);
            }
            (Asked::Write(value), Outcome::Failed(_)) => {
                assert!(!self.applied.contains_key(&value), "refused, yet applied: {value:?}");
                self.refused.insert(value);
            }
            (_, Outcome::Failed(_)) => {}
            (asked, _) => panic!("the wrong kind of answer to {asked:?}"),
        }
    }

    /// A member does nothing for a while.
    pub fn member_pauses(&mut self, member: u64, ms: u64) {
        for request in self.all.iter_mut().filter_map(|c| c.request.as_mut()).filter(|r| r.member == member) {
            request.paused += ms;
        }
    }

    /// A member is gone, and with it whatever it was asked.
    pub fn member_crashed(&mut self, member: u64) {
        for client in &mut self.all {
            if client.request.as_ref().is_some_and(|r| r.member == member)
                && let Some(Request { asked: Asked::Write(value), .. }) = client.request.take()
            {
                client.unknown.insert(value);
            }
        }
    }

    /// A change was applied somewhere: each takes effect once, at one index.
    pub fn applied(&mut self, event: &Event) {
        if let Some(value) = event.node.value.clone().filter(|value| !value.is_empty()) {
            assert!(!self.refused.contains(&value), "applied after it was refused: {event:?}");
            let index = *self.applied.entry(value).or_insert(event.index);
            assert_eq!(index, event.index, "one write took effect twice: {event:?}");
        }
    }
}

impl Client {
    fn ask(
        &mut self,
        number: usize,
        token: Token,
        forced: bool,
        rng: &mut ChaCha8Rng,
        oracle: &mut Oracle,
    ) -> (Asked, Input) {
        let kind = if forced { 0 } else { rng.random_range(0..10) };
        if kind >= 6 {
            return (Asked::Read, Input::Read { token });
        }
        self.writes += 1;
        if kind == 5 {
            let key = Key::parse(format!("/ttl/{number}-{}", self.writes).as_bytes());
            let ttl = rng.random_range(100..5_000);
            oracle.lease_asked(key.clone(), ttl);
            let command =
                Command::Set { key, value: Bytes::new(), dir: false, ttl: Some(ttl), refresh: false };
            return (Asked::Lease, Input::Write { token, command });
        }
        let value = Bytes::from(format!("{number}-{}", self.writes));
        let key = Key::parse(self.key.as_bytes());
        let command = Command::Set { key, value: value.clone(), dir: false, ttl: None, refresh: false };
        (Asked::Write(value), Input::Write { token, command })
    }

    fn found(&mut self, store: &Store) {
        let found = store.get(&Key::parse(self.key.as_bytes())).ok().and_then(|node| node.value);
        if found == self.current {
            return;
        }
        let unknown = found.as_ref().is_some_and(|value| self.unknown.remove(value));
        assert!(unknown, "{}: read {found:?}, not {:?}", self.key, self.current);
        self.current = found;
    }
}
