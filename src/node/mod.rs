//! A running member: the only place where the parts meet.
//!
//! ```text
//!  clients ── http ──┐                        ┌── transport ── other members
//!                    ├── Handle ── driver ────┤
//!  the embedder ─────┘    (replica + store)   └── log thread, checkpoints ── storage
//! ```
//!
//! The driver runs the core and publishes the applied state after each batch; readers and watchers work on what is
//! published. It has a thread to itself, together with the connections to the other members: a round of consensus costs
//! each member two changes of thread, to its disk and back, and clients, however many, cannot hold up a heartbeat. The
//! disk has threads of its own. Clients are served on the caller's runtime.
//!
//! What it does not do: decide anything that members must agree on (`replica`, `store`).

mod alarms;
mod backend;
mod bootstrap;
mod checkpoints;
mod clock;
pub mod config;
mod core_thread;
mod disk;
mod driver;
mod force;
pub mod ids;
mod incoming;
mod join;
mod links;
mod listen;
mod parts;
mod peer_routes;
mod published;
mod publisher;
mod quarantine;
mod running;
mod serve;
mod space;
mod traffic;
mod view;
mod waiters;
mod watch;
mod watch_queue;
mod wire;

pub use backend::Handle;
pub use running::Node;
pub use serve::serve;
pub use watch::NodeWatch;

/// Why a member does not start. One line each: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
    /// No cluster was found.
    #[error(transparent)]
    Discovery(#[from] crate::discovery::DiscoveryError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}: {source}{}", cure(source, what))]
    Listen {
        /// Host and port.
        address: String,
        /// Clients or peers.
        what: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// The data directory belongs to another member.
    #[error(
        "the data directory {path} belongs to the member {found:?}, not to {name:?}: start it with -name {found}, or give this one a -data-dir of its own"
    )]
    OtherMember {
        /// The directory.
        path: String,
        /// Whose it is.
        found: String,
        /// Who was started.
        name: String,
    },
    /// The data directory belongs to another cluster.
    #[error(
        "the data directory {path} belongs to the cluster of {found}, not of {asked}: go on with that, or give the new member a -data-dir of its own"
    )]
    OtherCluster {
        /// The directory.
        path: String,
        /// What its cluster was founded from.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// The state was found to differ from the leader's.
    #[error(
        "the state in {path} was found to differ from the leader's at log index {index}: it must not be served. Remove this member from the cluster, keep the directory for a report, and let the member join anew with an empty one"
    )]
    Diverged {
        /// The data directory.
        path: String,
        /// Where it was noticed.
        index: String,
    },
    /// What is on disk does not fit together.
    #[error("the data directory is damaged: {0}; move it away and let the member join anew")]
    Damaged(String),
    /// The running cluster does not know this member.
    #[error(
        "the running cluster does not know a member at {urls}: add it first, with `etcdctl member add {name} {urls}` \
         at one of its members, then start this one again"
    )]
    NotAdded {
        /// This member's name.
        name: String,
        /// Its peer URLs.
        urls: String,
    },
    /// No member of the running cluster answered.
    #[error("no member of the running cluster answers, so it cannot be joined: {0}")]
    NoAnswer(String),
    /// This member has lost what it acknowledged.
    #[error(
        "member {id:x} was in this cluster before with other data, as member {by:x} says: its data directory was \
         emptied or exchanged, and what it acknowledged is not in this one, so it must not vote. Put the old data \
         directory back; or remove the member with `etcdctl member remove {id:x}`, add it anew with `etcdctl member \
         add`, and start it with an empty data directory and -initial-cluster-state existing"
    )]
    Wiped {
        /// This member.
        id: u64,
        /// The member that knows it otherwise.
        by: u64,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

fn cure(source: &std::io::Error, what: &str) -> String {
    let flag =
        if what == "clients" { "-addr or -listen-client-urls" } else { "-peer-addr or -listen-peer-urls" };
    match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("; another process has it: stop that, or choose another with {flag}")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("; this machine has no such address: choose another with {flag}")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("; ports below 1024 need a privilege: choose another with {flag}")
        }
        _ => String::new(),
    }
}
