//! Why a cluster was not found, in words that say what to do.

use std::time::Duration;

/// Why a member could not join through a discovery service. All of these are final: retrying what can be retried has
/// been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The URL itself is unusable.
    #[error("discovery: bad discovery URL {url:?}: {reason}")]
    BadUrl {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing answered for as long as a first contact is tried.
    #[error(
        "discovery: no answer from {url} within {} s: {reason}; is the URL right, and the service up?",
        waited.as_secs()
    )]
    Unreachable {
        /// The discovery URL.
        url: String,
        /// How long it was tried.
        waited: Duration,
        /// The last failure.
        reason: String,
    },
    /// Something answered that is not the v2 keys API.
    #[error(
        "discovery: bad discovery endpoint: {url} answered {answer}; it does not speak the etcd v2 keys API there"
    )]
    BadEndpoint {
        /// What was asked for.
        url: String,
        /// Status and the beginning of the body.
        answer: String,
    },
    /// There is no such token.
    #[error(
        "discovery: size key not found: there is no token at {url} (mistyped, expired, or never created: \
         a new one comes from /new?size=N, or from setting {url}/_config/size on an etcd of your own)"
    )]
    SizeMissing {
        /// The discovery URL.
        url: String,
    },
    /// The size is not a number that a cluster can have.
    #[error(
        "discovery: size key is bad: {url}/_config/size is {size:?}, it must be a whole number from 1 on"
    )]
    SizeBad {
        /// The discovery URL.
        url: String,
        /// What it holds.
        size: String,
    },
    /// All slots are taken by others.
    #[error(
        "discovery: cluster is full: all {size} slots of {url} are taken, by {}; \
         this member can be added to that running cluster (POST /v2/members) and started with \
         -initial-cluster-state existing, or another cluster begun with a new discovery URL",
        holders.join(", ")
    )]
    Full {
        /// The discovery URL.
        url: String,
        /// The size of the cluster.
        size: usize,
        /// Who has the slots: `name=url`, in order.
        holders: Vec<String>,
    },
    /// This member's id is registered with another value.
    #[error(
        "discovery: found duplicate id {id:x}: it is registered as {theirs:?} and this member is {ours:?}; \
         start it with the name and the peer URLs that it registered, or use a new discovery URL"
    )]
    DuplicateId {
        /// The id.
        id: u64,
        /// The value registered.
        theirs: String,
        /// The value that this member would register.
        ours: String,
    },
    /// Another member has the same name.
    #[error(
        "discovery: found duplicate name {name:?}: {theirs:?} is registered as {their_id}, and this member is \
         {ours:?} ({id:x}); give each member a -name of its own and, if both are registered, use a new discovery URL"
    )]
    DuplicateName {
        /// The name.
        name: String,
        /// This member's id.
        id: u64,
        /// The value that this member registers.
        ours: String,
        /// The key of the other.
        their_id: String,
        /// The value of the other.
        theirs: String,
    },
    /// Two registrations other than this member's cannot be in one cluster.
    #[error(
        "discovery: registrations {first:?} and {second:?} at {url} have {what} in common; use a new discovery URL"
    )]
    Collision {
        /// The discovery URL.
        url: String,
        /// One value.
        first: String,
        /// The other value.
        second: String,
        /// The name or URL that both have.
        what: String,
    },
    /// A registration that no member can have made.
    #[error("discovery: invalid registration {key} = {value:?}: {reason}")]
    BadRegistration {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// The service answers, and refuses.
    #[error("discovery: {url} refused: {reason}")]
    Refused {
        /// What was asked for.
        url: String,
        /// Its words.
        reason: String,
    },
}
