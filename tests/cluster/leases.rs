//! Keys with a time to live: made, perhaps refreshed, let go, and looked at until they are gone.

use crate::history::{Done, History};
use crate::wire::{Made, Wire};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// What is known of a key's time. All times in microseconds.
#[derive(Clone, Debug)]
pub struct Lease {
    pub key: String,
    pub ttl: u64,
    /// The last time that the time to live began was between these: a request was sent, and its answer came.
    pub sent: u64,
    pub acknowledged: u64,
    /// Somebody may have prolonged it since.
    pub maybe_longer: bool,
    /// The last request that saw it was sent then.
    pub seen: u64,
}

#[derive(Default)]
pub struct Leases(pub Mutex<Vec<Lease>>);

/// The cluster's own clock may differ from ours by what one tick and one timer take.
const EARLY_BY: u64 = 10_000;

impl Lease {
    /// It is gone by now.
    fn gone(&self, history: &History, how: &str) {
        let (now, end) = (history.now(), self.sent + self.ttl);
        if now + EARLY_BY < end {
            let early = (end - now) / 1000;
            history.violation(format!("{} was gone {early} ms before its time ({how}): {self:?}", self.key));
        }
    }
}

/// Starts a new one every now and then, until `stop`; then waits for the last to go.
pub async fn run(wire: Wire, seed: u64, leases: Arc<Leases>, stop: Arc<AtomicBool>) {
    let mut chance = ChaCha8Rng::seed_from_u64(seed ^ 0x1ea5e);
    let mut running = JoinSet::new();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let chance_of_it = ChaCha8Rng::seed_from_u64(chance.random());
        running.spawn(one(wire.clone(), count, chance_of_it, Arc::clone(&leases)));
        tokio::time::sleep(Duration::from_millis(chance.random_range(200..500))).await;
        while running.try_join_next().is_some() {}
    }
    let all =
        tokio::time::timeout(Duration::from_secs(20), async { while running.join_next().await.is_some() {} });
    if all.await.is_err() {
        wire.history.violation(format!("{} keys with a time to live do not go", running.len()));
    }
}

async fn one(wire: Wire, number: u64, mut chance: ChaCha8Rng, leases: Arc<Leases>) {
    let key = format!("/t/{number}");
    let seconds = chance.random_range(1..=3_u64);
    let mut lease =
        Lease { key, ttl: seconds * 1_000_000, sent: 0, acknowledged: 0, maybe_longer: false, seen: 0 };
    let value = wire.history.new_value();
    let first = format!("value={value}&ttl={seconds}");
    if put(&wire, &mut lease, &mut chance, "", &first, Some(value)).await != Some(true) {
        return; // it may be there or not
    }
    let again = format!("ttl={seconds}&refresh=true&prevExist=true");
    for _ in 0..chance.random_range(0..4) {
        tokio::time::sleep(Duration::from_millis(chance.random_range(100..600 * seconds))).await;
        match put(&wire, &mut lease, &mut chance, "", &again, None).await {
            Some(true) => {}
            Some(false) => return lease.gone(&wire.history, "refused a refresh"),
            None => lease.maybe_longer = true,
        }
    }
    let gone = watch_it_go(&wire, &mut lease, &mut chance).await;
    if gone {
        lease.gone(&wire.history, "not found");
    }
    leases.0.lock().expect("no panic").push(lease);
}

/// None: nobody knows.
async fn put(
    wire: &Wire,
    lease: &mut Lease,
    chance: &mut ChaCha8Rng,
    query: &str,
    form: &str,
    value: Option<u64>,
) -> Option<bool> {
    let member = chance.random_range(0..wire.size);
    let rest = format!("/v2/keys{}{query}", lease.key);
    let sent = wire.history.now();
    let who = format!("lease@m{}", member + 1);
    let made = Made::now(wire, &who, &lease.key);
    let answer = wire.ask(Method::PUT, member, &rest, form, Duration::from_secs(2)).await.ok()?;
    if !matches!(answer.status, 200 | 201) {
        return Some(false);
    }
    (lease.sent, lease.acknowledged) = (sent, wire.history.now());
    made.answered(&answer, Done::Lease, value);
    Some(true)
}

/// Whether it went, at last.
async fn watch_it_go(wire: &Wire, lease: &mut Lease, chance: &mut ChaCha8Rng) -> bool {
    loop {
        let member = chance.random_range(0..wire.size);
        let sent = wire.history.now();
        match wire.read(member, &lease.key, "", Duration::from_secs(1)).await {
            Ok(answer) if answer.status == 200 => lease.seen = sent,
            Ok(answer) if answer.error() == Some(100) => return true,
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(chance.random_range(40..120))).await;
    }
}
