//! Nothing of a member goes back while it runs: its term, what it knows to be committed, what it has applied, the index
//! of its keys, cluster time. (What a crash may take is for `promises` and `durability` to say.)

use quorate::replica::{Standing, State};
use std::collections::HashMap;

const FIGURES: [&str; 5] = ["term", "commit", "applied", "store", "time"];

#[derive(Default)]
pub struct Monotonic {
    /// By member: which run of its process, and the figures last seen.
    seen: HashMap<u64, (u64, [u64; 5])>,
}

impl Monotonic {
    /// After each step; `run` counts the starts of its process.
    pub fn step(&mut self, member: u64, run: u64, standing: Standing, state: &State) {
        let Standing { term, commit, .. } = standing;
        let now = [term, commit, state.applied.index, state.store.index(), state.time.0];
        let (before_run, before) = self.seen.insert(member, (run, now)).unwrap_or_default();
        if run == before_run {
            for ((name, before), now) in FIGURES.iter().zip(before).zip(now) {
                assert!(now >= before, "{name} of member {member} went back from {before} to {now}");
            }
        }
    }
}
