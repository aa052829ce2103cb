//! Clients that write without a pause, remember what was acknowledged, and find out what is missing.
//!
//! Each writes its own keys, one request at a time, with a count for a value. A key whose write got no answer is never
//! written again: the old write might still come, and would look like a lost one. So at any time the value of a key is
//! at least what was last acknowledged and at most what was last asked for.

use crate::http::{Answer, Connection};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Short, so that a client soon tries another member.
const TIMEOUT: Duration = Duration::from_millis(400);

/// Keys that one client writes in turn.
const KEYS: u64 = 24;

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    acknowledged: u64,
    asked: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    known: Mutex<BTreeMap<String, Known>>,
}

pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<u64>>,
}

impl Load {
    /// `round` makes the keys its own.
    pub fn start(ports: &[u16], clients: u64, round: u64) -> Load {
        let shared = Arc::new(Shared::default());
        let clients = (0..clients)
            .map(|number| {
                let (shared, ports) = (Arc::clone(&shared), ports.to_vec());
                std::thread::spawn(move || client(&shared, &ports, number, round))
            })
            .collect();
        Load { shared, clients }
    }

    /// Waits for the requests in flight. Gives how many writes were acknowledged.
    pub fn stop(self) -> (Written, u64) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let count = self.clients.into_iter().map(|client| client.join().unwrap()).sum();
        let known = std::mem::take(&mut *self.shared.known.lock().unwrap());
        (Written(known), count)
    }
}

/// What some load has written.
#[derive(Default)]
pub struct Written(BTreeMap<String, Known>);

impl Written {
    pub fn extend(&mut self, more: Written) {
        self.0.extend(more.0);
    }

    /// Compares with what a member has; gives what is wrong.
    pub fn check(&self, port: u16) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut connection = Connection::new(port, Duration::from_secs(5));
        let listed = loop {
            match connection.get("/v2/keys/load?recursive=true") {
                Some(Answer { status: 200, body }) => break body,
                Some(Answer { status: 404, .. }) => break serde_json::Value::Null,
                _ if Instant::now() > deadline => return Err("no listing".to_owned()),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut there = BTreeMap::new();
        collect(&listed["node"], &mut there);
        let wrong: Vec<String> = self
            .0
            .iter()
            .filter_map(|(key, known)| {
                let found = there.get(key).copied();
                let right = match found {
                    Some(count) => count >= known.acknowledged && count <= known.asked,
                    None => known.acknowledged == 0,
                };
                (!right).then(|| format!("{key} is {found:?}, but {known:?}"))
            })
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("{} of {} keys: {}", wrong.len(), self.0.len(), wrong[..wrong.len().min(5)].join("; ")))
    }
}

fn collect(node: &serde_json::Value, there: &mut BTreeMap<String, u64>) {
    if let (Some(key), Some(value)) = (node["key"].as_str(), node["value"].as_str()) {
        let count = value.split('.').next().and_then(|count| count.parse().ok());
        there.insert(key.to_owned(), count.unwrap_or(u64::MAX));
    }
    for child in node["nodes"].as_array().into_iter().flatten() {
        collect(child, there);
    }
}

fn client(shared: &Shared, ports: &[u16], number: u64, round: u64) -> u64 {
    let mut at = number as usize;
    let mut connection = Connection::new(ports[at % ports.len()], TIMEOUT);
    let mut generation = vec![0; KEYS as usize];
    let (mut count, mut acknowledged) = (0, 0);
    while !shared.stop.load(Ordering::Relaxed) {
        count += 1;
        let slot = count % KEYS;
        let key = format!("/load/{round}/{number}/{slot}-{}", generation[slot as usize]);
        // Now and then large: a batch then takes several pages of a disk.
        let len = if count % 16 == 0 { 20_000 } else { (count * 37 % 700) as usize };
        let known = |change: &dyn Fn(&mut Known)| {
            change(shared.known.lock().unwrap().entry(key.clone()).or_default());
        };
        known(&|known| known.asked = count);
        let value = format!("{count}.{}", "x".repeat(len));
        match connection.put(&format!("/v2/keys{key}"), &value) {
            Some(Answer { status: 200 | 201, .. }) => {
                known(&|known| known.acknowledged = count);
                acknowledged += 1;
            }
            _ => {
                generation[slot as usize] += 1;
                at += 1;
                connection = Connection::new(ports[at % ports.len()], TIMEOUT);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    acknowledged
}
