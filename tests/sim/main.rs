//! Deterministic simulation: the production core of several members on one thread, from one seed.
//!
//! `world` is the members and the time, `disk`, `network` and `clock` what they live on; `clients` make requests and know
//! what they may see; each file of `invariants` is one thing that must hold of all of it. `options` is what a seed decides,
//! `bugs` what it is measured by. `README.md` says what is simulated and what is not, and how well it finds bugs.
//!
//! A failing seed is printed and replays: `SIM_SEED=n cargo test --test sim one_seed -- --nocapture`.
//! `SIM_SEEDS=n` sets how many seeds a run tries, `SIM_FROM=n` the first; `SIM_BUG=Name` puts a known bug into `one_seed`.
#![allow(unreachable_pub, clippy::struct_field_names)] // modules of one test

mod bugs;
mod clients;
mod clock;
mod contract;
mod coverage;
mod disk;
mod invariants;
mod member;
mod network;
mod options;
mod trace;
mod world;

use bugs::{KNOWN_BUGS, WITHIN};
use coverage::Coverage;
use options::Options;
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
    world.heal_majority();
    world.heal_and_converge();
    (world.trace_hash(), world.coverage())
}

/// Does something for each number, on all processors.
fn for_each(numbers: std::ops::Range<u64>, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    let threads = number("SIM_THREADS").map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        |threads| threads as usize,
    );
    std::thread::scope(|scope| {
        for _ in 0..threads {
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
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let began = std::time::Instant::now();
    for_each(from..from + seeds, |seed| {
        if let Ok((_, covered)) = catch_unwind(|| run(seed, Options::from_seed(seed))) {
            coverage.lock().unwrap().add(&covered);
        } else {
            println!("seed {seed} failed");
            failed.lock().unwrap().push(seed);
        }
    });
    let (failed, coverage) = (failed.into_inner().unwrap(), coverage.into_inner().unwrap());
    println!("{seeds} seeds in {:?}:\n{coverage}", began.elapsed());
    assert!(
        failed.is_empty(),
        "failing seeds: {failed:?}; replay one with SIM_SEED=n cargo test --test sim one_seed -- --nocapture"
    );
    if seeds >= 1_000 {
        assert_eq!(coverage.missing(), Vec::<&str>::new(), "this never happened");
    }
}

#[test]
fn each_known_bug_is_found() {
    let rows = Mutex::new(vec![String::new(); KNOWN_BUGS.len()]);
    let missed = Mutex::new(Vec::new());
    // `SIM_TABLE=n` tries n seeds of each, to see how many find it.
    let table = number("SIM_TABLE");
    let black_box = number("SIM_BLACK_BOX").is_some();
    for_each(0..KNOWN_BUGS.len() as u64, |row| {
        let bug = KNOWN_BUGS[row as usize];
        let (mut first, mut found) = (None, 0);
        for seed in 0..table.unwrap_or(WITHIN) {
            let options = Options { black_box, ..Options::from_seed(seed).with_bug(bug) };
            if catch_unwind(|| run(seed, options)).is_err() {
                found += 1;
                first.get_or_insert(seed);
                if table.is_none() {
                    break;
                }
            }
        }
        rows.lock().unwrap()[row as usize] = match first {
            Some(first) => format!("| {bug:?} | {first} | {found} |"),
            None => format!("| {bug:?} | - | 0 |"),
        };
        if found == 0 {
            missed.lock().unwrap().push(bug);
        }
    });
    println!("| bug | first seed | seeds |\n{}", rows.into_inner().unwrap().join("\n"));
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

/// Nothing of a run depends on the process: addresses, hash seeds, the environment.
#[test]
fn the_same_seed_gives_the_same_trace_in_another_process() {
    let seed = 1_004;
    let ours = format!("trace {:016x}", run(seed, Options::from_seed(seed)).0);
    let theirs = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_seed", "--nocapture"])
        .env_clear()
        .env("SIM_SEED", seed.to_string())
        .output()
        .unwrap();
    let theirs = String::from_utf8_lossy(&theirs.stdout);
    assert!(theirs.contains(&ours), "{ours}, but: {theirs}");
}

/// The seed that `SIM_SEED` names, alone; 0 by default.
#[test]
fn one_seed() {
    let seed = number("SIM_SEED").unwrap_or(0);
    let options = Options::from_seed(seed);
    let bug = std::env::var("SIM_BUG").ok().map(|name| {
        let known = KNOWN_BUGS.iter().find(|bug| format!("{bug:?}") == name);
        *known.unwrap_or_else(|| panic!("{name} is not known"))
    });
    let options = match bug {
        Some(bug) => options.with_bug(bug),
        None => options,
    };
    println!("{options:?}");
    let (trace, coverage) = run(seed, options);
    println!("{coverage}trace {trace:016x}");
}
