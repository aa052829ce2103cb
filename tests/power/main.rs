//! The real server on a disk that forgets what was not synced: power cuts, damage, and recovery from every state that a
//! crash can leave.
//!
//! Needs Linux, root and /dev/fuse; without them the tests fail and say so. `POWER_CUTS=100 POWER_SEED=7 cargo test
//! --release --test power -- --nocapture power_cuts` makes a long run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub)] // modules of one test

mod cluster;
mod cuts;
mod disk;
mod fuse;
mod http;
mod load;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let cuts = from_env("POWER_CUTS", 8);
    let seed = from_env("POWER_SEED", 1);
    let three = cuts::run(3, cuts, seed);
    assert!(three.acknowledged > 20 * cuts, "hardly any load: {three:?}");
    let one = cuts::run(1, cuts.div_ceil(2), seed);
    assert!(one.acknowledged > 20 * cuts.div_ceil(2), "hardly any load: {one:?}");
}
