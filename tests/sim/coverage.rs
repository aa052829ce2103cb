//! How often what the simulation is about has happened. A run that never saw it says nothing of it.

use std::collections::BTreeMap;

/// What must have happened in a thousand seeds.
const REQUIRED: &[&str] = &[
    "answers lost in a crash",
    "cas refused",
    "changes of membership",
    "changes refused: no quorum",
    "checkpoint failed",
    "checkpoint newest damaged",
    "clock jumps",
    "commits",
    "crashes",
    "crashes between effects",
    "crashes of all",
    "disk short of space",
    "disk slow",
    "elections",
    "events resumed",
    "expiries",
    "fsync failed",
    "guests",
    "hand-overs",
    "histories cleared",
    "install torn",
    "installs",
    "machines lost",
    "left out: no space",
    "majority healed, rest cut",
    "majority healed, rest down",
    "majority healed, rest half cut",
    "members joined",
    "members that learnt of their removal",
    "partition bridge",
    "partition halves",
    "partition lonely",
    "partition one-way",
    "partition random",
    "partition ring",
    "pauses",
    "reads",
    "refreshes",
    "refused before the log",
    "refused: no space",
    "requests twice in the log",
    "slow reads",
    "snapshots sent",
    "suspensions",
    "timeouts",
    "told of a removal",
    "torn writes",
    "watchers cleared",
    "wiped members turned away",
    "writes",
    "writes wait for space",
];

#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub fn note(&mut self, what: &'static str) {
        self.note_many(what, 1);
    }

    pub fn note_many(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    /// Keeps the greatest.
    pub fn note_max(&mut self, what: &'static str, value: u64) {
        let known = self.0.entry(what).or_default();
        *known = value.max(*known);
    }

    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            if what.starts_with("max ") {
                self.note_max(what, *count);
            } else {
                self.note_many(what, *count);
            }
        }
    }

    pub fn missing(&self) -> Vec<&'static str> {
        REQUIRED.iter().copied().filter(|what| !self.0.contains_key(what)).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>10}  {what}"))
    }
}
