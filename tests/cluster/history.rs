//! What happened, as the clients and watchers saw it, by one monotonic clock.

use crate::checker::RegisterOp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a client did to a key, and was told.
#[derive(Clone, Debug)]
pub enum Done {
    Register(RegisterOp),
    /// The key that was made, if it was answered, and the value.
    Append(Option<String>, u64),
    /// The values in the order of their keys.
    List(Vec<u64>),
    /// A key with a time to live was made or refreshed, for so long: what it promises is checked by itself.
    Lease,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub who: String,
    pub key: String,
    pub invoked: u64,
    /// None: nobody knows what became of it.
    pub returned: Option<u64>,
    pub done: Done,
    /// `X-Etcd-Index` of the answer.
    pub index: Option<u64>,
    /// `modifiedIndex` that a write was given, and the value that it wrote.
    pub wrote: Option<(u64, u64)>,
}

/// An event as it was told, without what depends on when it was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub index: u64,
    pub at: u64,
    pub event: Value,
}

pub struct History {
    started: Instant,
    calls: Mutex<Vec<Call>>,
    /// By watcher.
    told: Mutex<BTreeMap<String, Vec<Told>>>,
    violations: Mutex<Vec<String>>,
    /// What the nemesis did, and when.
    faults: Mutex<Vec<(u64, String)>>,
    values: AtomicU64,
}

impl History {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            calls: Mutex::default(),
            told: Mutex::default(),
            violations: Mutex::default(),
            faults: Mutex::default(),
            values: AtomicU64::new(1),
        }
    }

    /// Microseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A value that is written once.
    pub fn new_value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    pub fn called(&self, call: Call) {
        self.calls.lock().expect("no panic").push(call);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no panic").clone()
    }

    pub fn told(&self, watcher: &str, told: Told) {
        self.told.lock().expect("no panic").entry(watcher.to_owned()).or_default().push(told);
    }

    pub fn watchers(&self) -> BTreeMap<String, Vec<Told>> {
        self.told.lock().expect("no panic").clone()
    }

    pub fn last_told(&self, watcher: &str) -> u64 {
        self.told
            .lock()
            .expect("no panic")
            .get(watcher)
            .and_then(|told| told.last())
            .map_or(0, |told| told.index)
    }

    pub fn violation(&self, what: String) {
        let mut violations = self.violations.lock().expect("no panic");
        // One wrong thing may be seen a thousand times.
        if violations.len() < 20 {
            eprintln!("{:10.3} s  VIOLATION: {what}", self.now() as f64 / 1e6);
            violations.push(what);
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("no panic").clone()
    }

    pub fn fault(&self, what: &str) {
        eprintln!("{:10.3} s  {what}", self.now() as f64 / 1e6);
        self.faults.lock().expect("no panic").push((self.now(), what.to_owned()));
    }

    pub fn faults(&self) -> Vec<(u64, String)> {
        self.faults.lock().expect("no panic").clone()
    }
}
