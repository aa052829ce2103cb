//! At most one leader a term (election safety), and a leader has everything that was committed in terms
//! before its own (leader completeness).

use super::same_state::SameState;
use quorate::replica::{Replica, Standing};
use std::collections::HashMap;

#[derive(Default)]
pub struct Leaders {
    by_term: HashMap<u64, u64>,
}

impl Leaders {
    /// After each step. Whether this is a new leader.
    pub fn standing(&mut self, member: u64, standing: Standing, black_box: bool) -> bool {
        if !standing.leads {
            return false;
        }
        let known = self.by_term.insert(standing.term, member);
        assert!(
            black_box || known.is_none_or(|known| known == member),
            "two leaders in term {}",
            standing.term
        );
        known.is_none()
    }

    /// A member has become the leader.
    pub fn complete(replica: &Replica, states: &SameState) {
        let entries = replica.log_entries();
        let Some(first) = entries.first().map(|e| e.index) else { return };
        // A candidate may be elected late, when a later term has committed more already.
        let own = replica.standing().term;
        for (index, term) in states.committed_from(first).filter(|(_, term)| *term < own) {
            let has = entries.get((index - first) as usize).map(|e| e.term);
            assert_eq!(has, Some(term), "a leader without the committed entry {index} of term {term}");
        }
    }
}
