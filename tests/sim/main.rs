//! Deterministic simulation: the production core of several members on one thread, from one seed.
//!
//! `world` is the network, the disks and the time; `clients` make requests and know what they may see; each property is
//! checked as the run goes. A failing seed is printed and replays: `SIM_SEED=n cargo test --test sim one_seed`.
//! `SIM_SEEDS=n` sets how many seeds a run tries.

mod clients;
mod world;

use world::{Options, World};

fn seeds(default: u64) -> std::ops::Range<u64> {
    let count = std::env::var("SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    0..count
}

fn run(seed: u64) -> u64 {
    let mut world = World::new(seed, Options::from_seed(seed));
    world.run_faults(60_000);
    world.heal_and_converge();
    world.trace_hash()
}

#[test]
fn faults_lose_nothing_and_a_healed_cluster_converges() {
    let mut failed = Vec::new();
    for seed in seeds(60) {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "failing seeds: {failed:?}; replay one with SIM_SEED=n cargo test --test sim one_seed");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1_000..1_004 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// The seed that `SIM_SEED` names, alone; 0 by default.
#[test]
fn one_seed() {
    run(std::env::var("SIM_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0));
}
