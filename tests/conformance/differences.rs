//! The differences from etcd 3.4 that are meant, each with its reason. Whatever else differs is a bug.

use crate::wire::{Answer, Request};

/// A difference that is meant.
pub(crate) struct Meant {
    pub(crate) what: &'static str,
    pub(crate) why: &'static str,
    /// Whether it explains these two answers, theirs and ours. As narrow as can be.
    applies: fn(&Request, &Answer, &Answer) -> bool,
}

/// All of them.
pub(crate) const MEANT: [Meant; 1] = [Meant { what: "", why: "", applies: |_, _, _| false }];

/// The one that explains why two answers differ.
pub(crate) fn explain(request: &Request, theirs: &Answer, ours: &Answer) -> Option<&'static Meant> {
    MEANT.iter().find(|meant| (meant.applies)(request, theirs, ours))
}
