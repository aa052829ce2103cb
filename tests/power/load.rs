//! Clients that write without a pause, remember what was acknowledged, and find out what is missing.
//!
//! Each writes its own keys, one request at a time, with a count for a value. A key whose write got no answer is never
//! written again: the old write might still come, and would look like a lost one. So at any time the value of a key is
//! at least what was last acknowledged and at most what was last asked for.

use super::http::{Answer, Connection, Unanswered};
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
    paused: AtomicBool,
    known: Mutex<BTreeMap<String, Known>>,
}

pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<u64>>,
}

impl Load {
    pub fn start(ports: &[u16], clients: u64) -> Load {
        let shared = Arc::new(Shared::default());
        let clients = (0..clients)
            .map(|number| {
                let (shared, ports) = (Arc::clone(&shared), ports.to_vec());
                std::thread::spawn(move || client(&shared, &ports, number))
            })
            .collect();
        Load { shared, clients }
    }

    /// No more is asked for until it is unset; what was asked for may still come.
    #[allow(dead_code, reason = "not every test needs it")]
    pub fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
    }

    /// Gives how many writes were acknowledged.
    pub fn stop(self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().unwrap()).sum()
    }

    fn known(&self) -> BTreeMap<String, Known> {
        self.shared.known.lock().unwrap().clone()
    }

    /// Compares with what a member answers, while the load goes on; gives what is wrong.
    pub fn check(&self, port: u16) -> Result<(), String> {
        let before = self.known();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut connection = Connection::new(port, Duration::from_secs(10));
        let listed = loop {
            match connection.get("/v2/keys/load?recursive=true") {
                Some(Answer { status: 200, body }) => break body,
                Some(Answer { status: 404, .. }) => break serde_json::Value::Null,
                _ if Instant::now() > deadline => return Err("no listing".to_owned()),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let after = self.known();
        let mut there = BTreeMap::new();
        collect(&listed["node"], &mut there);
        let wrong: Vec<String> = before
            .iter()
            .filter_map(|(key, known)| {
                let found = there.get(key).copied();
                let right = match found {
                    Some(count) => count >= known.acknowledged && count <= after[key].asked,
                    None => known.acknowledged == 0,
                };
                (!right).then(|| format!("{key} is {found:?}, but {known:?}"))
            })
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("{} of {} keys: {}", wrong.len(), before.len(), wrong[..wrong.len().min(5)].join("; ")))
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

fn client(shared: &Shared, ports: &[u16], number: u64) -> u64 {
    let mut at = number as usize;
    let mut connection = Connection::new(ports[at % ports.len()], TIMEOUT);
    let mut generation = vec![0; KEYS as usize];
    let (mut count, mut acknowledged) = (0, 0);
    while !shared.stop.load(Ordering::Relaxed) {
        if shared.paused.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        count += 1;
        let slot = count % KEYS;
        let key = format!("/load/{number}/{slot}-{}", generation[slot as usize]);
        // Now and then large: a batch then takes several pages of a disk.
        let len = if count % 25 == 0 { 20_000 } else { (count * 37 % 700) as usize };
        let known = |change: &dyn Fn(&mut Known)| {
            change(shared.known.lock().unwrap().entry(key.clone()).or_default());
        };
        known(&|known| known.asked = count);
        let value = format!("{count}.{}", "x".repeat(len));
        match connection.put(&format!("/v2/keys{key}"), &value) {
            Ok(Answer { status: 200 | 201, .. }) => {
                known(&|known| known.acknowledged = count);
                acknowledged += 1;
            }
            failed => {
                if !matches!(failed, Err(Unanswered::Refused)) {
                    generation[slot as usize] += 1;
                }
                at += 1;
                connection = Connection::new(ports[at % ports.len()], TIMEOUT);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    acknowledged
}
