//! If two logs hold an entry with the same index and term, they are the same up to there.
//!
//! By induction: an entry is the same on every disk, and so is the term of the one before it.

use prost::Message as _;
use quorate::proto::command::Entry as CommandEntry;
use raft::eraftpb::Entry;
use std::collections::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_64;

#[derive(Default)]
pub struct LogMatching {
    entries: HashMap<(u64, u64), (u64, Option<u64>)>,
    copies: HashMap<(u64, u64), HashSet<u64>>,
}

impl LogMatching {
    /// These entries came to lie on a disk, after one of this term.
    pub fn logged(&mut self, entries: &[Entry], mut term_before: Option<u64>) {
        for entry in entries {
            let hash = xxh3_64(&entry.data);
            let known = self.entries.entry((entry.index, entry.term)).or_insert((hash, term_before));
            assert_eq!(known.0, hash, "two entries {} of term {}", entry.index, entry.term);
            let same = known.1.is_none() || term_before.is_none() || known.1 == term_before;
            assert!(same, "entry {} of term {} after two different ones", entry.index, entry.term);
            known.1 = known.1.or(term_before);
            term_before = Some(entry.term);
        }
    }

    /// How many requests are in these entries that are elsewhere in the log too.
    pub fn copies(&mut self, entries: &[Entry]) -> u64 {
        let mut again = 0;
        for entry in entries.iter().filter(|e| !e.data.is_empty()) {
            let Ok(decoded) = CommandEntry::decode(entry.data.clone()) else { continue };
            for batch in &decoded.batches {
                for request in &batch.requests {
                    let at = self.copies.entry((batch.session, request.number)).or_default();
                    again += u64::from(at.insert(entry.index) && at.len() > 1);
                }
            }
        }
        again
    }
}
