//! A hash over everything that a run did, in order: two runs of one seed must have the same. `SIM_TRACE=1` prints it all.

use std::fmt::Debug;
use xxhash_rust::xxh3::Xxh3Default;

pub struct Trace {
    hash: Xxh3Default,
    printed: bool,
}

impl Trace {
    pub fn new() -> Self {
        Self { hash: Xxh3Default::default(), printed: std::env::var_os("SIM_TRACE").is_some() }
    }

    pub fn note(&mut self, now: u64, at: usize, what: &str, numbers: &[u64]) {
        self.hash.update(what.as_bytes());
        for number in [now, at as u64].iter().chain(numbers) {
            self.hash.update(&number.to_le_bytes());
        }
        if self.printed {
            println!("{now:>7} m{} {what} {numbers:?}", at + 1);
        }
    }

    pub fn note_debug(&mut self, now: u64, at: usize, what: &impl Debug) {
        self.note(now, at, &format!("{what:?}"), &[]);
    }

    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }
}
