//! Members that have applied the same log up to the same index hold the same state, all of it: keys, history, cluster
//! time, sessions, membership.

use prost::Message as _;
use quorate::proto::state::Record;
use quorate::replica::{LogPosition, State};
use std::collections::{BTreeMap, HashMap};
use xxhash_rust::xxh3::xxh3_64;

#[derive(Default)]
pub struct SameState {
    digests: HashMap<u64, u64>,
    /// Terms of committed entries.
    positions: BTreeMap<u64, u64>,
    heads: HashMap<u64, u64>,
}

impl SameState {
    /// After each step.
    pub fn digest(&mut self, state: &State) {
        let LogPosition { index, term } = state.applied;
        let known = *self.positions.entry(index).or_insert(term);
        assert_eq!(known, term, "two entries were applied at {index}");
        let digest = *self.digests.entry(index).or_insert(state.store.digest());
        assert_eq!(digest, state.store.digest(), "states differ at {index}");
    }

    /// Now and then: what the digest does not cover.
    pub fn head(&mut self, state: &State) {
        let Some(head) = state.clone().into_records().next() else { return };
        let hash = xxh3_64(&head.encode_to_vec());
        let known = *self.heads.entry(state.applied.index).or_insert(hash);
        assert_eq!(known, hash, "what is beside the keys differs at {}", state.applied);
    }

    /// The terms of the committed entries that are known, from an index on.
    pub fn committed_from(&self, index: u64) -> impl Iterator<Item = (u64, u64)> {
        self.positions.range(index..).map(|(index, term)| (*index, *term))
    }

    /// At the end: to the byte, but for how far back a history reaches that came by a snapshot.
    pub fn ends_equal<'a>(states: impl Iterator<Item = &'a State>) {
        let all = |state: &State| -> Vec<Record> { state.clone().into_records().collect() };
        let mut states = states.map(all);
        let Some(first) = states.next() else { return };
        for state in states {
            let differs = first.iter().zip(&state).find(|(a, b)| a != b);
            assert!(differs.is_none() && first.len() == state.len(), "the members end with: {differs:?}");
        }
    }
}
