//! Requests take effect one after another, each between its beginning and its answer.
//!
//! Every answer names the index at which the request took effect: an event's own, or that of the state that was read
//! (`history` checks that the content fits the index). What is left is that this order agrees with who had finished
//! before whom began: an answer must be newer than everything that any answer had shown when its request began. A
//! request without an answer may take effect at any time, once (`exactly_once`).

#[derive(Default)]
pub struct Linearizable {
    shown: u64,
}

impl Linearizable {
    /// A request begins; to be given back with its answer.
    pub fn begins(&self) -> u64 {
        self.shown
    }

    pub fn read(&mut self, shown: u64, index: u64) {
        assert!(index >= shown, "a stale answer: from index {index} when {shown} had been shown");
        self.shown = self.shown.max(index);
    }

    pub fn written(&mut self, shown: u64, index: u64) {
        assert!(index > shown, "a write took effect at index {index} when {shown} had been shown");
        self.shown = self.shown.max(index);
    }

    /// The state that all members end with has everything that was ever shown.
    pub fn ends_at(&self, index: u64) {
        assert!(
            index >= self.shown,
            "what was acknowledged up to {} is lost: the end is {index}",
            self.shown
        );
    }
}
