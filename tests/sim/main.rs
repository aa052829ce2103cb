//! Deterministic simulation: the production core of several members on one thread, from one seed.
//!
//! `world` is the members and the time, `disk` and `network` what they live on, `clients` make requests and know what
//! they may see, `oracle` holds what must be true of all of it. A failing seed is printed and replays:
//! `SIM_SEED=n cargo test --test sim one_seed`. `SIM_SEEDS=n` sets how many seeds a run tries.

mod clients;
mod disk;
mod network;
mod options;
mod oracle;
mod world;

use options::Options;
use oracle::Coverage;
use std::panic::catch_unwind;
use world::World;

const RUN_MS: u64 = 60_000;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let from = number("SIM_FROM").unwrap_or(0);
    from..from + number("SIM_SEEDS").unwrap_or(default)
}

fn run(seed: u64, options: Options) -> (u64, Coverage) {
    let mut world = World::new(seed, options);
    world.run_faults(RUN_MS);
    world.heal_and_converge();
    (world.trace_hash(), world.coverage())
}

#[test]
fn faults_lose_nothing_and_a_healed_cluster_converges() {
    let mut failed = Vec::new();
    let mut coverage = Coverage::default();
    for seed in seeds(60) {
        match catch_unwind(|| run(seed, Options::from_seed(seed))) {
            Ok((_, covered)) => coverage.add(&covered),
            Err(_) => failed.push(seed),
        }
    }
    println!("{coverage:?}");
    assert!(failed.is_empty(), "failing seeds: {failed:?}; replay one with SIM_SEED=n cargo test --test sim one_seed");
    coverage.assert_complete();
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
    let seed = std::env::var("SIM_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    println!("{:?}", Options::from_seed(seed));
    println!("{:?}", run(seed, Options::from_seed(seed)).1);
}
