//! Answers equal to those of a real etcd 3.4, shown two ways.
//!
//! - `live`: the same random requests go to a fresh etcd and to a fresh Quorate, and the answers are compared to the byte.
//!   `QUORATE_CONFORMANCE_SEED=7 QUORATE_CONFORMANCE_REQUESTS=20000` chooses what is played. Needs `etcd` in the `PATH`.
//!
//! What differs on purpose is listed, with the reasons, in `differences`.

mod compare;
mod differences;
mod generate;
mod live;
mod server;
mod wire;

use std::fmt::Write as _;

const REQUESTS: u64 = 3_000;
/// Requests to one pair of servers: a tree that only grows makes for slow listings, and one seed's luck for blind spots.
const REQUESTS_PER_SEED: u64 = 1_500;

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
    let mut played = 0;
    let mut seed = first_seed;
    let mut report = String::new();
    let mut differences = 0;
    let started = std::time::Instant::now();
    while played < requests {
        let count = REQUESTS_PER_SEED.min(requests - played);
        let tally = live::Run::new(seed).play(count as usize);
        _ = writeln!(
            report,
            "seed {seed}: {} requests, statuses {:?}, {} waits answered, meant differences {:?}",
            tally.requests, tally.statuses, tally.waits_answered, tally.meant
        );
        for difference in &tally.differences {
            _ = writeln!(report, "\n{difference}");
        }
        differences += tally.differences.len();
        played += count;
        seed += 1;
    }
    _ = writeln!(
        report,
        "{played} requests in {:.1?}, {differences} differences that are not meant",
        started.elapsed()
    );
    println!("{report}");
    assert_eq!(
        differences, 0,
        "replay a seed alone: QUORATE_CONFORMANCE_SEED=n QUORATE_CONFORMANCE_REQUESTS={REQUESTS_PER_SEED}"
    );
}
