//! Forming a cluster through a discovery service: the client side.
//!
//! A discovery service is a directory of the v2 keys API, behind a URL that serves as a token. `_config/size` says how
//! many members the cluster begins with; each member registers itself as one key, `<id> = <name>=<peer url>`, with
//! `prevExist=false`; the first `size` registrations, in the order in which they were created, are the cluster.
//! Any etcd can be the service, as can any member of a running cluster of this project, in the shapes that
//! discovery.etcd.io had.
//!
//! Invariants:
//! - Every [`join`] on one URL that succeeds returns the same members in the same order.
//! - Nothing is registered when the outcome is already known to be an error: a refused member takes no slot.
//! - Joining is resumable at every point: a member that registered and was killed finds its own registration, by id
//!   *and* value, and goes on. Its requests may be repeated any number of times; a registration is never overwritten.
//! - An answer is bounded in size and time, and so is the wait for a *first* sensible answer; waiting for the other
//!   members has no limit.
//!
//! What it does not do: serve as a discovery service (that is `http`), decide when discovery is to be used at all (a
//! data directory with a member in it makes it moot; that is `node`), or protect the token: whoever knows the URL
//! can register a member, so it is a secret.

mod answer;
mod error;
mod join;
mod registry;
mod service;

pub use error::DiscoveryError;
pub use join::{DiscoveryRequest, FoundCluster, join};
pub use registry::parse_members;

/// A member as the service knows it: its name and its peer URLs.
pub type FoundMember = (String, Vec<String>);

#[cfg(test)]
mod tests;
