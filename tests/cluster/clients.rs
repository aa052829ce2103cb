//! Clients that do something all the time, each with a pace and choices of its own from the seed.

use crate::checker::RegisterOp;
use crate::history::Done;
use crate::wire::{Answer, Made, Wire, value};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Keys are used for so long: the fewer calls of unknown end a history has, the sooner it is judged.
const EPOCH: u64 = 3_000_000;
const KEYS: u64 = 4;

pub struct Client {
    pub wire: Wire,
    pub who: String,
    /// It talks to this one only; none: to any.
    member: Option<usize>,
    chance: ChaCha8Rng,
    stop: Arc<AtomicBool>,
}

impl Client {
    pub fn new(wire: &Wire, kind: &str, number: usize, seed: u64, stop: &Arc<AtomicBool>) -> Self {
        let member = (number < wire.size).then_some(number);
        let who = format!("{kind}{number}");
        // Of the seed, apart from the choices of the others.
        let salt = who.bytes().fold(seed, |hash, byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
        let chance = ChaCha8Rng::seed_from_u64(salt);
        Self { wire: wire.clone(), who, member, chance, stop: Arc::clone(stop) }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn choose_member(&mut self) -> usize {
        self.member.unwrap_or_else(|| self.chance.random_range(0..self.wire.size))
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.chance.random_range(5..45))).await;
    }

    /// From impatient to patient.
    fn timeout(&mut self) -> Duration {
        Duration::from_millis(self.chance.random_range(300..3000))
    }

    fn epoch(&self) -> u64 {
        self.wire.history.now() / EPOCH
    }

    /// Reads, writes, swaps, creates and deletes a few keys.
    pub async fn registers(mut self) {
        let mut seen: HashMap<String, u64> = HashMap::new();
        while self.goes_on() {
            let key = format!("/r/{}.{}", self.epoch(), self.chance.random_range(0..KEYS));
            let new = self.wire.history.new_value();
            let known = seen.get(&key).copied();
            let op = match (self.chance.random_range(0..100), known) {
                (0..40, _) => RegisterOp::Read(None),
                (65..90, Some(previous)) => RegisterOp::Swap { previous, value: new },
                (90..95, _) => RegisterOp::Create(new),
                (95.., _) => RegisterOp::DeleteUnknown,
                _ => RegisterOp::Write(new),
            };
            if let Some(value) = self.register(&key, op).await {
                seen.insert(key, value);
            }
            if seen.len() > 100 {
                seen.clear();
            }
            self.pause().await;
        }
    }

    /// Gives the value that the key has, as far as the answer says.
    async fn register(&mut self, key: &str, op: RegisterOp) -> Option<u64> {
        let (member, timeout) = (self.choose_member(), self.timeout());
        let who = format!("{}@m{}", self.who, member + 1);
        let path = format!("/v2/keys{key}");
        let made = Made::now(&self.wire, &who, key);
        let put =
            |query: String, value: u64| (Method::PUT, format!("{path}{query}"), format!("value={value}"));
        let (method, rest, form) = match op {
            RegisterOp::Write(value) => put(String::new(), value),
            RegisterOp::Create(value) => put("?prevExist=false".to_owned(), value),
            RegisterOp::Swap { previous, value } => put(format!("?prevValue={previous}"), value),
            RegisterOp::DeleteUnknown => (Method::DELETE, path.clone(), String::new()),
            _ => {
                // A read without an answer says nothing.
                let answer = self.wire.read(member, key, "", timeout).await.ok()?;
                let seen = value(answer.node());
                if answer.error().is_some_and(|code| code != 100) {
                    self.odd(key, &answer);
                }
                made.answered(&answer, Done::Register(RegisterOp::Read(seen)), None);
                return seen;
            }
        };
        let answer = self.wire.ask(method, member, &rest, &form, timeout).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(silence) => {
                made.unanswered(silence, Done::Register(op));
                return None;
            }
        };
        let Some((done, wrote)) = outcome(op, &answer) else {
            self.odd(key, &answer);
            return None;
        };
        made.answered(&answer, Done::Register(done), wrote);
        match done {
            RegisterOp::SwapRefused(seen) => seen,
            _ => wrote,
        }
    }

    fn odd(&self, key: &str, answer: &Answer) {
        let Answer { status, body, .. } = answer;
        self.wire
            .history
            .violation(format!("{}: {key}: an answer that cannot be: {status} {body}", self.who));
    }

    /// Appends to a directory in order, and lists it.
    pub async fn queue(mut self) {
        while self.goes_on() {
            let key = format!("/q/{}", self.epoch());
            let (member, timeout) = (self.choose_member(), self.timeout());
            let who = format!("{}@m{}", self.who, member + 1);
            let made = Made::now(&self.wire, &who, &key);
            if self.chance.random_range(0..3) == 0 {
                let answer = self.wire.read(member, &key, "recursive=true&sorted=true", timeout).await;
                if let Ok(answer) = answer {
                    made.answered(&answer, Done::List(listed(answer.node())), None);
                }
            } else {
                let new = self.wire.history.new_value();
                let rest = format!("/v2/keys{key}");
                let answer =
                    self.wire.ask(Method::POST, member, &rest, &format!("value={new}"), timeout).await;
                match answer {
                    Err(silence) => made.unanswered(silence, Done::Append(None, new)),
                    Ok(answer) if answer.status == 201 => {
                        let place = answer.node()["key"].as_str().map(str::to_owned);
                        made.answered(&answer, Done::Append(place, new), Some(new));
                    }
                    Ok(answer) => self.odd(&key, &answer),
                }
            }
            self.pause().await;
        }
    }

    /// A member's own state goes forward only, as long as it runs.
    pub async fn own_state(mut self, starts: Arc<Vec<std::sync::atomic::AtomicU64>>) {
        let mut last = vec![(0, 0); self.wire.size];
        while self.goes_on() {
            let member = self.chance.random_range(0..self.wire.size);
            let start = starts[member].load(Ordering::SeqCst);
            let rest = "/v2/keys/?quorum=false";
            let answer = self.wire.ask(Method::GET, member, rest, "", Duration::from_secs(1)).await;
            let index = answer.ok().and_then(|answer| answer.index);
            if let Some(index) = index.filter(|_| starts[member].load(Ordering::SeqCst) == start) {
                let (known_start, known) = last[member];
                if known_start == start && index < known {
                    let what = format!("the own state of m{} went back from {known} to {index}", member + 1);
                    self.wire.history.violation(what);
                }
                last[member] = (start, index);
            }
            self.pause().await;
        }
    }
}

/// What was answered, and the value that was written; none if it is no answer to that.
fn outcome(op: RegisterOp, answer: &Answer) -> Option<(RegisterOp, Option<u64>)> {
    let done = matches!(answer.status, 200 | 201);
    Some(match (op, answer.error()) {
        (RegisterOp::Write(value) | RegisterOp::Create(value) | RegisterOp::Swap { value, .. }, None)
            if done =>
        {
            (op, Some(value))
        }
        (RegisterOp::Create(_), Some(105)) => (RegisterOp::CreateRefused, None),
        (RegisterOp::Swap { .. }, Some(100)) => (RegisterOp::SwapRefused(None), None),
        (RegisterOp::Swap { .. }, Some(101)) => {
            // "[wanted != there]"
            let cause = answer.body["cause"].as_str()?;
            let there = cause.split(" != ").nth(1)?.trim_end_matches(']').parse().ok()?;
            (RegisterOp::SwapRefused(Some(there)), None)
        }
        (RegisterOp::DeleteUnknown, None) if done => {
            (RegisterOp::Delete(Some(value(&answer.body["prevNode"])?)), None)
        }
        (RegisterOp::DeleteUnknown, Some(100)) => (RegisterOp::Delete(None), None),
        _ => return None,
    })
}

/// The values of a directory, in the order of its keys.
pub fn listed(node: &serde_json::Value) -> Vec<u64> {
    node["nodes"].as_array().map(|nodes| nodes.iter().filter_map(value).collect()).unwrap_or_default()
}
