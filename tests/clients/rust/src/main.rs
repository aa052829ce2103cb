//! The `etcd` crate in the roles of `../roles.py`, which says what they are. It has no lock, no election and no watch
//! without an end: they are made of what it has, as its users do.

use std::fmt::Display;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use etcd::kv::{self, Action, GetOptions, KeyValueInfo, Node, WatchError, WatchOptions};
use etcd::{Client, Error, Response};
use futures::Future;
use hyper::client::HttpConnector;
use serde_json::{Value, json};
use tokio::prelude::FutureExt;
use tokio::runtime::Runtime;

const KEEP_TTL: u64 = 3;
const LOCK_TTL: u64 = 4;
const ELECTION_TTL: u64 = 3;
const LEADS_FOR: Duration = Duration::from_millis(1500);
const TERM: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(2);
const NOT_FOUND: u64 = 100;
const COMPARE_FAILED: u64 = 101;
const EXISTS: u64 = 105;

/// Why a request did not do what it was to.
#[derive(Debug)]
enum Failure {
    /// The cluster's answer is no.
    Refused(u64, String),
    /// There is no answer.
    Unknown(String),
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused(code, message) => write!(f, "{code}: {message}"),
            Failure::Unknown(what) => write!(f, "no answer: {what}"),
        }
    }
}

/// The crate tries one endpoint after the other until one says yes: what it has is what each of them said.
impl From<Vec<Error>> for Failure {
    fn from(errors: Vec<Error>) -> Self {
        for error in &errors {
            if let Error::Api(no) = error
                && no.error_code < 300
            {
                return Failure::Refused(no.error_code, no.message.clone());
            }
        }
        Failure::Unknown(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}

type Outcome = Result<Node, Failure>;

fn say(what: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}").and_then(|()| out.flush()).expect("standard output");
}

fn violation(what: &str) {
    say(&json!({ "violation": what }));
}

struct Role {
    runtime: Runtime,
    client: Client<HttpConnector>,
    me: String,
    scratch: PathBuf,
    index: u64,
    ending: Arc<AtomicBool>,
}

/// The requests.
impl Role {
    fn run<F>(&mut self, work: F) -> Outcome
    where
        F: Future<Item = Response<KeyValueInfo>, Error = Vec<Error>> + Send + 'static,
    {
        match self.runtime.block_on(work.timeout(TIMEOUT)) {
            Ok(response) => Ok(response.data.node),
            Err(error) => Err(error
                .into_inner()
                .map_or_else(|| Failure::Unknown("time is up".to_owned()), Failure::from)),
        }
    }

    fn get(&mut self, key: &str) -> Outcome {
        let work =
            kv::get(&self.client, key, GetOptions { strong_consistency: true, ..GetOptions::default() });
        self.run(work)
    }

    fn listing(&mut self, key: &str) -> Result<Vec<String>, Failure> {
        let options = GetOptions { strong_consistency: true, recursive: true, sort: true };
        let work = kv::get(&self.client, key, options);
        let mut found = Vec::new();
        leaves(&self.run(work)?, &mut found);
        Ok(found)
    }

    fn set(&mut self, key: &str, value: &str, ttl: Option<u64>) -> Outcome {
        let work = kv::set(&self.client, key, value, ttl);
        self.run(work)
    }

    fn create(&mut self, key: &str, value: &str, ttl: Option<u64>) -> Outcome {
        let work = kv::create(&self.client, key, value, ttl);
        self.run(work)
    }

    fn swap(&mut self, key: &str, value: &str, prev: &str, ttl: Option<u64>) -> Outcome {
        let work = kv::compare_and_swap(&self.client, key, value, ttl, Some(prev), None);
        self.run(work)
    }

    /// It knows no `refresh=true`: an update with the same value.
    fn refresh(&mut self, key: &str, value: &str, ttl: u64) -> Outcome {
        let work = kv::update(&self.client, key, value, Some(ttl));
        self.run(work)
    }

    fn append(&mut self, key: &str, value: &str) -> Outcome {
        let work = kv::create_in_order(&self.client, key, value, None);
        self.run(work)
    }

    fn remove(&mut self, key: &str, prev: &str) -> Outcome {
        let work = kv::compare_and_delete(&self.client, key, Some(prev), None);
        self.run(work)
    }

    /// One change from `index` on, or none in that time.
    fn change(
        &mut self,
        key: &str,
        index: u64,
        recursive: bool,
        timeout: Option<Duration>,
    ) -> Option<KeyValueInfo> {
        let work = kv::watch(&self.client, key, WatchOptions { index: Some(index), recursive, timeout });
        match self.runtime.block_on(work) {
            Ok(response) => Some(response.data),
            Err(WatchError::Timeout) => None,
            Err(WatchError::Other(errors)) => {
                if let Failure::Refused(code, message) = Failure::from(errors) {
                    violation(&format!("a watch was refused: {code}: {message}"));
                }
                sleep(Duration::from_millis(100));
                None
            }
        }
    }

    fn over(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Makes `key` with the value `name`, a name that is used once, or waits until it can; and gives a time at which the
    /// time to live had certainly not begun.
    fn claim(&mut self, key: &str, name: &str, ttl: u64) -> Option<(Node, Instant)> {
        let first = Instant::now();
        while !self.over() {
            let sent = Instant::now();
            match self.create(key, name, Some(ttl)) {
                Ok(node) => return Some((node, sent)),
                Err(Failure::Refused(EXISTS, _)) => {}
                Err(Failure::Refused(code, message)) => {
                    violation(&format!("claiming {key}: {code}: {message}"))
                }
                Err(Failure::Unknown(_)) => sleep(Duration::from_millis(50)),
            }
            match self.get(key) {
                Ok(found) if found.value.as_deref() == Some(name) => return Some((found, first)),
                Ok(found) => {
                    let index = found.modified_index.expect("a modifiedIndex") + 1;
                    self.change(key, index, false, Some(Duration::from_secs(1)));
                }
                Err(Failure::Refused(..)) => {} // it is free
                Err(Failure::Unknown(_)) => sleep(Duration::from_millis(50)),
            }
        }
        None
    }

    fn yield_up(&mut self, key: &str, name: &str) {
        for _ in 0..50 {
            match self.remove(key, name) {
                // By an attempt before, or its time was over.
                Ok(_) | Err(Failure::Refused(..)) => return,
                Err(Failure::Unknown(_)) => sleep(Duration::from_millis(100)),
            }
        }
    }
}

/// What a leader and the refreshing of its key know of each other.
struct Leading {
    refreshed: Mutex<Instant>,
    over: AtomicBool,
}

impl Leading {
    fn refreshed(&self, at: Instant) {
        *self.refreshed.lock().expect("no panic") = at;
    }

    /// Returns when the term is over, or when it is not sure any more that the key is still there.
    fn last(&self, ending: &AtomicBool) {
        let started = Instant::now();
        while !ending.load(Ordering::Relaxed)
            && !self.over.load(Ordering::Relaxed)
            && started.elapsed() < TERM
            && self.refreshed.lock().expect("no panic").elapsed() < LEADS_FOR
        {
            sleep(Duration::from_millis(20));
        }
    }
}

fn leaves(node: &Node, found: &mut Vec<String>) {
    if node.dir == Some(true) {
        node.nodes.iter().flatten().for_each(|child| leaves(child, found));
    } else {
        found.push(node.key.clone().expect("a key"));
    }
}

fn refused(wanted: u64, outcome: Outcome) {
    assert!(
        matches!(outcome, Err(Failure::Refused(code, _)) if code == wanted),
        "not refused with {wanted}: {outcome:?}"
    );
}

/// The roles.
impl Role {
    fn basics(&mut self) -> Result<(), Failure> {
        let base = format!("/app/basics-{}", self.me);
        let key = |name: &str| format!("{base}/{name}");
        let first = self.set(&key("a"), "one", None)?;
        let read = self.get(&key("a"))?;
        assert_eq!((read.value.as_deref(), read.created_index), (Some("one"), first.created_index));
        assert_eq!(read.modified_index, first.modified_index);
        refused(NOT_FOUND, self.get(&key("none")));
        refused(EXISTS, self.create(&key("a"), "two", None));
        assert_eq!(self.create(&key("b"), "two", None)?.value.as_deref(), Some("two"));
        refused(COMPARE_FAILED, self.swap(&key("a"), "x", "two", None));
        let second = self.swap(&key("a"), "three", "one", None)?;
        assert_eq!(second.created_index, first.created_index);
        assert!(second.modified_index > first.modified_index);
        refused(COMPARE_FAILED, self.remove(&key("a"), "one"));
        let odd = "a b+c&d=e%41/?#\u{fc}\n\"'";
        self.set(&key("odd"), odd, None)?;
        assert_eq!(self.get(&key("odd"))?.value.as_deref(), Some(odd));
        self.swap(&key("odd"), "even", odd, None)?;
        self.set(&key("deep/er"), "v", Some(60))?;
        let ttl = self.get(&key("deep/er"))?.ttl.unwrap_or(0);
        assert!((51..=60).contains(&ttl), "a TTL of 60 is {ttl}");
        assert_eq!(self.listing(&base)?, [key("a"), key("b"), key("deep/er"), key("odd")]);
        let mut keys = Vec::new();
        for value in ["a", "b", "c"] {
            keys.extend(self.append(&key("queue"), value)?.key);
        }
        assert_eq!(self.listing(&key("queue"))?, keys);
        self.remove(&key("a"), "three")?;
        refused(NOT_FOUND, self.get(&key("a")));
        say(&json!({ "basics": "passed" }));
        Ok(())
    }

    fn write(&mut self) {
        for count in 1_u64.. {
            if self.over() {
                return;
            }
            let value = format!("{}.{count}", self.me);
            let done = match count % 3 {
                0 => self.append("/app/queue", &value),
                _ => self.set(&format!("/app/write/{}/{count}", self.me), &value, None),
            };
            match done {
                Ok(node) => self.read_back(&node, &value),
                Err(Failure::Unknown(_)) => sleep(Duration::from_millis(50)),
                Err(no) => violation(&format!("writing {value}: {no}")),
            }
            sleep(Duration::from_millis(10));
        }
    }

    fn read_back(&mut self, node: &Node, value: &str) {
        say(&json!({ "wrote": node.key, "value": value, "index": node.modified_index }));
        match self.get(node.key.as_deref().expect("a key")) {
            Ok(found) if found.value.as_deref() == Some(value) => {}
            Err(Failure::Unknown(_)) => {}
            other => violation(&format!("{value:?} was acknowledged, and then there was {other:?}")),
        }
    }

    fn cas(&mut self) {
        for count in 1_u64.. {
            if self.over() {
                return;
            }
            match self.count_up(count) {
                Ok(()) | Err(Failure::Refused(COMPARE_FAILED, _)) => {}
                Err(Failure::Unknown(_)) => sleep(Duration::from_millis(50)),
                Err(no) => violation(&format!("the register: {no}")),
            }
            sleep(Duration::from_millis(10));
        }
    }

    fn count_up(&mut self, count: u64) -> Result<(), Failure> {
        let current = self.get("/app/register")?.value.unwrap_or_default();
        let number: u64 =
            current.split(' ').next().and_then(|word| word.parse().ok()).expect("a number in the register");
        let value = format!("{} {}.{count}", number + 1, self.me);
        let done = self.swap("/app/register", &value, &current, None)?;
        say(&json!({ "swapped": value, "index": done.modified_index }));
        Ok(())
    }

    fn keep(&mut self) -> Result<(), Failure> {
        let me = self.me.clone();
        self.set("/app/keep", &me, Some(KEEP_TTL))?;
        say(&json!({ "keeps": KEEP_TTL }));
        while !self.over() {
            sleep(Duration::from_millis(400));
            match self.refresh("/app/keep", &me, KEEP_TTL) {
                Ok(node) => say(&json!({ "refreshed": node.modified_index })),
                Err(Failure::Unknown(_)) => {}
                Err(no) => violation(&format!("refreshing a key that was kept: {no}")),
            }
        }
        Ok(())
    }

    fn enter(&self, guard: &str, who: &str) {
        if fs::create_dir(self.scratch.join(guard)).is_err() {
            violation(&format!("{who} has {guard} while another has it"));
        }
    }

    fn leave(&self, guard: &str) {
        fs::remove_dir(self.scratch.join(guard)).expect("the guard that was entered");
    }

    fn lock(&mut self) {
        for count in 1_u64.. {
            let name = format!("{}.{count}", self.me);
            let Some((node, _)) = self.claim("/app/lock", &name, LOCK_TTL) else { return };
            // A claim that took a while has not all of its time left.
            if node.ttl.unwrap_or(0) >= LOCK_TTL as i64 - 1 {
                self.enter("lock", &name);
                say(&json!({ "acquired": node.created_index }));
                sleep(Duration::from_millis(100));
                self.leave("lock");
            }
            self.yield_up("/app/lock", &name);
            sleep(Duration::from_millis(20));
        }
    }

    fn elect(&mut self) {
        for count in 1_u64.. {
            let name = format!("{}.{count}", self.me);
            let Some((node, since)) = self.claim("/app/leader", &name, ELECTION_TTL) else { return };
            if since.elapsed() < LEADS_FOR {
                self.enter("leader", &name);
                say(&json!({ "elected": node.created_index }));
                let leading = Leading { refreshed: Mutex::new(since), over: AtomicBool::new(false) };
                let (ending, guard) = (Arc::clone(&self.ending), self.scratch.join("leader"));
                std::thread::scope(|scope| {
                    scope.spawn(|| self.refresh_leader(&name, &leading));
                    leading.last(&ending);
                    fs::remove_dir(guard).expect("the guard that was entered");
                    say(&json!({ "resigned": node.created_index }));
                    leading.over.store(true, Ordering::Relaxed);
                });
            }
            self.yield_up("/app/leader", &name);
        }
    }

    /// Refreshes a leader's key until it is over; in a thread, because a request may take longer than the leader is one.
    fn refresh_leader(&mut self, name: &str, leading: &Leading) {
        while !leading.over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(300));
            let sent = Instant::now();
            match self.swap("/app/leader", name, name, Some(ELECTION_TTL)) {
                Ok(_) => {
                    leading.refreshed(sent);
                    say(&json!({ "led": name }));
                }
                Err(Failure::Unknown(_)) => {}
                Err(no) => {
                    let late = leading.refreshed.lock().expect("no panic").elapsed();
                    if late < Duration::from_secs(ELECTION_TTL) && !leading.over.load(Ordering::Relaxed) {
                        violation(&format!(
                            "{name} led, and its key was gone {late:?} after a refresh: {no}"
                        ));
                    }
                    leading.over.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn watch(&mut self) {
        let mut next = self.index;
        loop {
            let Some(event) = self.change("/app", next, true, None) else { continue };
            let (Some(key), Some(index)) = (event.node.key, event.node.modified_index) else { continue };
            say(
                &json!({ "event": word(event.action), "key": key, "index": index, "value": event.node.value }),
            );
            if key == "/app/end" {
                return;
            }
            next = index + 1;
        }
    }
}

fn word(action: Action) -> Value {
    serde_json::to_value(action).expect("an action is a word")
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [role, me, endpoints, scratch, more @ ..] = given.as_slice() else {
        eprintln!("rust-etcd-roles ROLE ID ENDPOINT,... SCRATCH [INDEX]");
        std::process::exit(2);
    };
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    let ending = Arc::new(AtomicBool::new(false));
    let mut this = Role {
        runtime: Runtime::new().expect("a runtime"),
        client: Client::new(&endpoints, None).expect("a client"),
        me: me.clone(),
        scratch: scratch.into(),
        index: more.first().map_or(0, |index| index.parse().expect("an index")),
        ending: Arc::clone(&ending),
    };
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        ending.store(true, Ordering::Relaxed);
    });
    let outcome = match role.as_str() {
        "basics" => this.basics(),
        "keep" => this.keep(),
        "write" => Ok(this.write()),
        "cas" => Ok(this.cas()),
        "lock" => Ok(this.lock()),
        "elect" => Ok(this.elect()),
        "watch" => Ok(this.watch()),
        other => panic!("no role {other}"),
    };
    if let Err(error) = outcome {
        eprintln!("{error}");
        std::process::exit(1);
    }
    // Connections of a watch that was let go would keep the runtime up.
    std::process::exit(0);
}
