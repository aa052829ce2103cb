//! What must hold whatever happens. Each file is one promise; it is told what happened and fails the run where the
//! promise is broken.
//!
//! Some look into the members, and find a bug where it happens; the others see what a client sees, and would find it
//! whatever its cause. `Options::black_box` leaves the first out.

pub mod durability;
pub mod exactly_once;
pub mod history;
pub mod leaders;
pub mod linearizable;
pub mod log_matching;
pub mod membership;
pub mod monotonic;
pub mod promises;
pub mod same_state;
pub mod ttl;
pub mod watches;

use durability::Durability;
use exactly_once::ExactlyOnce;
use history::History;
use leaders::Leaders;
use linearizable::Linearizable;
use log_matching::LogMatching;
use membership::Membership;
use monotonic::Monotonic;
use promises::Promises;
use same_state::SameState;
use ttl::TimesToLive;

pub struct Invariants {
    pub history: History,
    pub linearizable: Linearizable,
    pub exactly_once: ExactlyOnce,
    pub ttl: TimesToLive,
    // From here on what members show of their insides.
    pub same_state: SameState,
    pub leaders: Leaders,
    pub log_matching: LogMatching,
    pub durability: Durability,
    pub promises: Promises,
    pub membership: Membership,
    pub monotonic: Monotonic,
}

impl Invariants {
    pub fn new(ttl: TimesToLive) -> Self {
        Self {
            history: History::default(),
            linearizable: Linearizable::default(),
            exactly_once: ExactlyOnce::default(),
            ttl,
            same_state: SameState::default(),
            leaders: Leaders::default(),
            log_matching: LogMatching::default(),
            durability: Durability::default(),
            promises: Promises::default(),
            membership: Membership::default(),
            monotonic: Monotonic::default(),
        }
    }
}
