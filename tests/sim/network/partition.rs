//! The ways in which members are cut off from each other.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Whole,
    /// One member alone.
    Lonely,
    /// One member is heard by nobody, or hears nobody.
    OneWay,
    /// Two groups.
    Halves,
    /// Two groups, and one member that both can talk to (the Cloudflare outage of 2020).
    Bridge,
    /// Everybody talks to two neighbours only.
    Ring,
    /// Each direction of each link by itself.
    Random,
}

impl Shape {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Whole, "partition whole"),
        (Self::Lonely, "partition lonely"),
        (Self::OneWay, "partition one-way"),
        (Self::Halves, "partition halves"),
        (Self::Bridge, "partition bridge"),
        (Self::Ring, "partition ring"),
        (Self::Random, "partition random"),
    ];

    pub fn draw(rng: &mut ChaCha8Rng) -> (Self, &'static str) {
        Self::ALL[rng.random_range(0..Self::ALL.len())]
    }

    /// The directed pairs that cannot talk.
    pub fn cut(self, members: &[u64], rng: &mut ChaCha8Rng) -> BTreeSet<(u64, u64)> {
        let count = members.len();
        let offset = rng.random_range(0..count);
        let one = members[offset];
        let outward = rng.random_range(0..2) == 0;
        let side: Vec<bool> = members.iter().map(|_| rng.random_range(0..2) == 0).collect();
        let mut cut = BTreeSet::new();
        for (i, a) in members.iter().enumerate() {
            for (j, b) in members.iter().enumerate().filter(|(j, _)| *j != i) {
                let apart = match self {
                    Self::Whole => false,
                    Self::Lonely => *a == one || *b == one,
                    Self::OneWay => *(if outward { a } else { b }) == one,
                    Self::Halves => side[i] != side[j],
                    Self::Bridge => side[i] != side[j] && *a != one && *b != one,
                    // The ring begins anywhere.
                    Self::Ring => ![1, count - 1].contains(&((i + count - j) % count)),
                    Self::Random => rng.random_range(0..3) == 0,
                };
                if apart {
                    cut.insert((*a, *b));
                }
            }
        }
        cut
    }
}
