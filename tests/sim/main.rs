//! Deterministic simulation: the production core of several members on one thread, from one seed.
//!
//! `world` is the members and the time, `disk` and `network` what they live on, `clients` make requests and know what
//! they may see, `oracle` holds what must be true of all of it. A failing seed is printed and replays:
//! `SIM_SEED=n cargo test --test sim one_seed`. `SIM_SEEDS=n` sets how many seeds a run tries, `SIM_FROM=n` the first.
//! `SIM_BUG=n` puts the n-th known bug into `one_seed`.
#![allow(unreachable_pub, clippy::struct_field_names)] // modules of one test

mod clients;
mod contract;
mod disk;
mod network;
mod options;
mod oracle;
mod world;

use options::{Bug, Options};
use oracle::Coverage;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::World;

const RUN_MS: u64 = 30_000;

/// An optimised build gets through twenty times as many.
const SEEDS: u64 = if cfg!(debug_assertions) { 60 } else { 1_000 };

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

fn run(seed: u64, options: Options) -> (u64, Coverage) {
    let mut world = World::new(seed, options);
    world.run_faults(RUN_MS);
    world.heal_and_converge();
    (world.trace_hash(), world.coverage())
}

/// Does something for each number, on all processors.
fn for_each(numbers: std::ops::Range<u64>, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    work(number);
                }
            });
        }
    });
}

#[test]
fn faults_lose_nothing_and_a_healed_cluster_converges() {
    let failed = Mutex::new(Vec::new());
    let coverage = Mutex::new(Coverage::default());
    let from = number("SIM_FROM").unwrap_or(0);
    for_each(from..from + number("SIM_SEEDS").unwrap_or(SEEDS), |seed| {
        match catch_unwind(|| run(seed, Options::from_seed(seed))) {
            Ok((_, covered)) => coverage.lock().unwrap().add(&covered),
            Err(_) => failed.lock().unwrap().push(seed),
        }
    });
    let (failed, coverage) = (failed.into_inner().unwrap(), coverage.into_inner().unwrap());
    println!("{coverage:?}");
    assert!(
        failed.is_empty(),
        "failing seeds: {failed:?}; replay one with SIM_SEED=n cargo test --test sim one_seed"
    );
    coverage.assert_complete();
}

/// Each known bug, and within how many seeds it is to be found; about three times what it took when it was put in.
const KNOWN_BUGS: [(Bug, u64); 11] = [
    (Bug::AckBeforeSync, 10),
    (Bug::OwnEntriesBeforeSync, 20),
    (Bug::VoteForgotten, 60),
    (Bug::CheckpointAhead, 20),
    (Bug::LocalReads, 20),
    (Bug::ReadsBeforeFirstCommit, 60),
    (Bug::LeaseReads, 60),
    (Bug::DuplicatesApplied, 20),
    (Bug::WallClock, 20),
    (Bug::LeaderlessTime, 20),
    (Bug::WatchGapAtInstall, 20),
];

#[test]
fn each_known_bug_is_found() {
    let rows = Mutex::new(vec![String::new(); KNOWN_BUGS.len()]);
    let missed = Mutex::new(Vec::new());
    // `SIM_TABLE=1` tries all seeds of each, to see how many find it.
    let all = number("SIM_TABLE").is_some();
    for_each(0..KNOWN_BUGS.len() as u64, |row| {
        let (bug, within) = KNOWN_BUGS[row as usize];
        let within = number("SIM_SEEDS").unwrap_or(within);
        let (mut first, mut found) = (None, 0);
        for seed in 0..within {
            if catch_unwind(|| run(seed, Options::from_seed(seed).with_bug(bug))).is_err() {
                found += 1;
                first.get_or_insert(seed);
                if !all {
                    break;
                }
            }
        }
        let text = format!("{bug:?}: first by seed {first:?}, by {found} of {within} seeds");
        rows.lock().unwrap()[row as usize] = text;
        if found == 0 {
            missed.lock().unwrap().push(bug);
        }
    });
    println!("{}", rows.into_inner().unwrap().join("\n"));
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "the simulation is blind to {missed:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1_000..1_004 {
        let trace = || run(seed, Options::from_seed(seed)).0;
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

/// The seed that `SIM_SEED` names, alone; 0 by default.
#[test]
fn one_seed() {
    let seed = number("SIM_SEED").unwrap_or(0);
    let options = Options::from_seed(seed);
    let bug = number("SIM_BUG").and_then(|row| KNOWN_BUGS.get(row as usize));
    let options = bug.map_or(options.clone(), |(bug, _)| options.with_bug(*bug));
    println!("{options:?}");
    println!("{:?}", run(seed, options).1);
}
