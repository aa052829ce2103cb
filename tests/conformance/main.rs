//! Answers equal to those of a real etcd 3.4, shown two ways.
//!
//! - `live`: the same random requests go to a fresh etcd and to a fresh Quorate, and the answers are compared to the byte.
//!   `QUORATE_CONFORMANCE_SEED=7 QUORATE_CONFORMANCE_REQUESTS=20000` chooses what is played. Needs `etcd` in the `PATH`.
//! - `script`: requests that were written down, with the answers that an etcd 3.4 gave; they need none to be replayed. After a
//!   change to a script, record anew: `cargo test --test conformance -- --ignored record`.
//!
//! What differs on purpose is listed, with the reasons, in `differences`.

mod compare;
mod differences;
mod generate;
mod live;
mod script;
mod server;
mod wire;
mod words;

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const REQUESTS: u64 = 20_000;
/// Pairs of servers at once.
const PAIRS: u64 = 4;
/// Requests to one pair of servers: enough that the history overflows; not all, for one seed's luck makes for blind spots.
const REQUESTS_PER_SEED: u64 = 5_000;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")),
        Err(_) => default,
    }
}

#[test]
fn random_requests_get_the_same_answers() {
    if !server::etcd_is_installed() {
        return;
    }
    let requests = setting("QUORATE_CONFORMANCE_REQUESTS", REQUESTS);
    let first_seed = setting("QUORATE_CONFORMANCE_SEED", 1);
    let started = std::time::Instant::now();
    let seeds = requests.div_ceil(REQUESTS_PER_SEED);
    let next = AtomicU64::new(0);
    let report = Mutex::new((String::new(), 0));
    // Servers wait for their disks most of the time.
    std::thread::scope(|scope| {
        for _ in 0..seeds.min(PAIRS) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= seeds {
                        return;
                    }
                    let count = REQUESTS_PER_SEED.min(requests - at * REQUESTS_PER_SEED);
                    let tally = live::Run::new(first_seed + at).play(count as usize);
                    let (report, differences) = &mut *report.lock().expect("a report");
                    _ = writeln!(report, "seed {}: {tally}", first_seed + at);
                    *differences += tally.differences.len();
                }
            });
        }
    });
    let (report, differences) = report.into_inner().expect("a report");
    println!(
        "{report}{requests} requests in {:.1?}, {differences} differences that are not meant",
        started.elapsed()
    );
    assert_eq!(
        differences, 0,
        "replay a seed alone: QUORATE_CONFORMANCE_SEED=n QUORATE_CONFORMANCE_REQUESTS={REQUESTS_PER_SEED}"
    );
}

fn assert_none(what: &str, (count, differences): (usize, Vec<String>)) {
    assert!(count > 0, "there are no scripts");
    let all = differences.join("\n");
    assert!(differences.is_empty(), "{} of {count} answers differ from {what}:\n{all}", differences.len());
}

#[test]
fn scripts_get_the_recorded_answers() {
    assert_none("the recorded ones", script::compare_recorded());
}

#[test]
fn scripts_get_the_answers_of_a_real_etcd() {
    if server::etcd_is_installed() {
        assert_none("those of a real etcd", script::compare_live());
    }
}

/// Not a test: `cargo test --test conformance -- --ignored record`.
#[test]
#[ignore = "rewrites the recorded answers; needs a real etcd"]
fn record() {
    assert!(server::etcd_is_installed(), "nothing to record from");
    script::record();
}
