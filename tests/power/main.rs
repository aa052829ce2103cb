//! The real server on a disk that forgets what was not synced: power cuts, damage, and recovery from every state that a
//! crash can leave.
//!
//! Needs Linux, root and /dev/fuse; without them the tests fail and say so. `POWER_CUTS=100 POWER_SEED=7 cargo test
//! --release --test power -- --nocapture power_cuts` makes a long run, and so does `POWER_STRIDE=1 ... power_may_go`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub)] // modules of one test

mod cluster;
mod cuts;
mod disk;
mod flips;
mod fuse;
mod http;
mod load;
mod mount;
mod points;
mod record;
mod replay;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The processor is for one test at a time: members that wait for it look like members that hang.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let _alone = alone();
    let cuts = from_env("POWER_CUTS", 8);
    let seed = from_env("POWER_SEED", 1);
    for (members, cuts) in [(1, cuts.div_ceil(2)), (3, cuts)] {
        let figures = cuts::run(members, cuts, seed);
        assert!(figures.acknowledged > 0, "no load: {figures:?}");
    }
}

#[test]
fn a_member_starts_from_every_state_of_its_disk() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut recordings = runtime.block_on(record::lone_member(60));
    recordings.push(runtime.block_on(record::snapshot_install()));
    for recording in &recordings {
        let begun = std::time::Instant::now();
        let figures = replay::every_state(recording).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(figures.opened > figures.operations / 2, "hardly anything to see: {figures:?}");
        println!("{}: {figures:?} in {:.0} s", recording.name, begun.elapsed().as_secs_f64());
    }
}

#[test]
fn a_flipped_bit_is_noticed_named_and_healed() {
    let _alone = alone();
    flips::run(from_env("POWER_SEED", 1), from_env("POWER_FLIPS", 1));
}

#[test]
fn power_may_go_at_any_operation_of_the_disk() {
    let _alone = alone();
    let (seed, stride) = (from_env("POWER_SEED", 1), from_env("POWER_STRIDE", 40));
    println!("{} points of founding", points::founding(seed, stride));
    println!("{} points of a member alone", points::alone(seed, stride));
    println!("{} points of an installation", points::install(seed, stride));
}
