//! A running member: the only place where the parts meet.
//!
//! ```text
//!  clients ── http ──┐                        ┌── transport ── other members
//!                    ├── Handle ── driver ────┤
//!  the embedder ─────┘    (replica + store)   └── log thread, checkpoints ── storage
//! ```
//!
//! The driver's thread runs the core and publishes the applied state after each batch; readers and watchers work on
//! what is published. The disk has threads of its own. Everything asynchronous runs on the caller's runtime.
//!
//! What it does not do: decide anything that members must agree on (`replica`, `store`).

mod alarms;
mod backend;
mod bootstrap;
mod checkpoints;
mod clock;
pub mod config;
mod disk;
mod driver;
pub mod ids;
mod listen;
mod peer_routes;
mod quarantine;
mod running;
mod serve;
mod space;
mod view;
mod watch;
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
    /// A cluster that runs cannot be joined yet.
    #[error(
        "-initial-cluster-state existing: joining a running cluster is not supported yet; a new cluster is founded with -initial-cluster-state new"
    )]
    JoinUnsupported,
    /// A lone survivor cannot be made a cluster of its own yet.
    #[error("-force-new-cluster is not supported yet: start the member without it, its data is kept")]
    ForceUnsupported,
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
