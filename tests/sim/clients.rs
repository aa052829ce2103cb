//! Clients that know what they may see.
//!
//! Each client owns one key and makes one request at a time, each at any member. A write that was answered must be seen
//! by every later read until the next write; a write without an answer may take effect at any time, once.

use crate::world::REQUEST_TIMEOUT;
use bytes::Bytes;
use quorate::replica::{Failure, Input, Token};
use quorate::store::{Command, Event, Key, Store, StoreError};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

/// What came of a request.
pub enum Outcome {
    Written(Result<u64, StoreError>),
    Read(Store),
    Failed(Failure),
    Unknown,
}

#[derive(Debug)]
enum Asked {
    Write(Bytes),
    /// A key with a time to live, by itself.
    Lease(Key, u64),
    Read,
}

#[derive(Debug, Default)]
struct Client {
    key: String,
    /// The value that a read must find, unless an unknown write took effect.
    current: Option<Bytes>,
    unknown: BTreeSet<Bytes>,
    asked: Option<(Token, u64, u64, Asked)>,
    next_at: u64,
    writes: u64,
}

pub struct Clients {
    clients: Vec<Client>,
    next_token: u64,
    running: bool,
    /// Keys with a time to live: when they were asked for at the earliest, and for how long.
    leases: BTreeMap<Key, (u64, u64)>,
    /// Values of writes and the index at which each took effect.
    applied: BTreeMap<Bytes, u64>,
}

impl Clients {
    pub fn new(count: usize) -> Self {
        let clients = (0..count).map(|n| Client { key: format!("/k/{n}"), ..Client::default() }).collect();
        Self { clients, next_token: 0, running: true, leases: BTreeMap::new(), applied: BTreeMap::new() }
    }

    pub fn stop(&mut self) {
        self.running = false;
    }

    pub fn idle(&self) -> bool {
        self.clients.iter().all(|c| c.asked.is_none() && (c.next_at != u64::MAX))
    }

    /// One write of the first client is to be made by the next member that is asked.
    pub fn start_one_more_write(&mut self) {
        self.clients[0].next_at = u64::MAX;
    }

    /// The requests that clients make to this member now.
    pub fn requests(&mut self, member: u64, members: u64, now: u64, rng: &mut ChaCha8Rng) -> Vec<Input> {
        let mut inputs = vec![];
        for (number, client) in self.clients.iter_mut().enumerate() {
            let forced = client.next_at == u64::MAX;
            let wants = client.asked.is_none() && ((self.running && client.next_at <= now) || forced);
            if !wants || rng.random_range(0..members) != 0 {
                continue;
            }
            client.next_at = now + rng.random_range(1..200);
            let token = Token(self.next_token);
            self.next_token += 1;
            let kind = if forced { 0 } else { rng.random_range(0..10) };
            let (asked, input) = if kind < 5 {
                client.writes += 1;
                let value = Bytes::from(format!("{number}-{}", client.writes));
                let key = Key::parse(client.key.as_bytes());
                let command = Command::Set { key, value: value.clone(), dir: false, ttl: None, refresh: false };
                (Asked::Write(value), Input::Write { token, command })
            } else if kind < 6 {
                client.writes += 1;
                let key = Key::parse(format!("/ttl/{number}-{}", client.writes).as_bytes());
                let ttl = rng.random_range(100..5_000);
                let command =
                    Command::Set { key: key.clone(), value: Bytes::new(), dir: false, ttl: Some(ttl), refresh: false };
                self.leases.insert(key.clone(), (now, ttl));
                (Asked::Lease(key, ttl), Input::Write { token, command })
            } else {
                (Asked::Read, Input::Read { token })
            };
            client.asked = Some((token, member, now, asked));
            inputs.push(input);
        }
        inputs
    }

    /// An answer reached its client.
    pub fn answer(&mut self, token: Token, outcome: Outcome, now: u64) {
        let Some(client) = self.clients.iter_mut().find(|c| c.asked.as_ref().is_some_and(|a| a.0 == token)) else {
            return;
        };
        let Some((_, _, since, asked)) = client.asked.take() else { return };
        let limit = REQUEST_TIMEOUT.as_millis() as u64 + 200 + 4_000;
        assert!(now - since <= limit, "an answer after {} ms", now - since);
        match (asked, outcome) {
            (Asked::Write(value), Outcome::Written(result)) => {
                let index = result.expect("a set of a file cannot be refused");
                assert_eq!(self.applied.get(&value), Some(&index), "answered before it was applied");
                client.current = Some(value);
            }
            (Asked::Write(value), Outcome::Failed(Failure::Timeout)) => {
                client.unknown.insert(value);
            }
            (Asked::Write(_) | Asked::Lease(..) | Asked::Read, Outcome::Failed(_)) => {}
            (Asked::Lease(..), Outcome::Written(result)) => drop(result.expect("a set of a file cannot be refused")),
            (Asked::Read, Outcome::Read(store)) => {
                let found = store.get(&Key::parse(client.key.as_bytes())).ok().and_then(|node| node.value);
                if found == client.current {
                    return;
                }
                let unknown = found.as_ref().is_some_and(|value| client.unknown.remove(value));
                assert!(unknown, "{}: read {found:?}, not {:?}", client.key, client.current);
                client.current = found;
            }
            (asked, _) => panic!("the wrong kind of answer to {asked:?}"),
        }
    }

    /// A member is gone, and with it whatever it was asked.
    pub fn member_crashed(&mut self, member: u64) {
        for client in &mut self.clients {
            if client.asked.as_ref().is_some_and(|asked| asked.1 == member)
                && let Some((_, _, _, Asked::Write(value))) = client.asked.take()
            {
                client.unknown.insert(value);
            }
        }
    }

    /// A change was applied somewhere: each takes effect once, at one index.
    pub fn applied(&mut self, event: &Event) {
        if let Some(value) = event.node.value.clone().filter(|value| !value.is_empty()) {
            let index = *self.applied.entry(value).or_insert(event.index);
            assert_eq!(index, event.index, "one write took effect twice: {event:?}");
        }
    }

    /// A key expired somewhere: not before its time.
    pub fn expired(&mut self, event: &Event, now: u64) {
        let (since, ttl) = self.leases[&event.node.key];
        assert!(now >= since + ttl, "{:?} expired {} ms early", event.node.key, since + ttl - now);
    }
}
