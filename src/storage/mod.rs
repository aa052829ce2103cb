//! What is on disk: the raft log (raft-engine), checkpoints of the applied state (sled), the member's identity.
//!
//! ```text
//! DATA-DIR/member/            0700, one process at a time
//!     lock                    flock, holds the owner's pid
//!     identity                who this member is; written once
//!     clock                   a hint: the last reading of the cluster's clock
//!     notes/NAME              small blobs that bootstrap resumes from
//!     log/                    raft-engine: entries, hard state, the log's base; `synced` is the evidence of what was
//!                             acknowledged
//!     state/INDEX/            one checkpoint: an immutable sled database and its MANIFEST
//!     incoming-NAME.tmp       a leader's snapshot while it arrives
//! ```
//!
//! Invariants:
//! - `base <= checkpoint.at`, for each checkpoint that is kept, and `checkpoint.at <= commit`: the newest sound checkpoint
//!   and the entries after it are the whole state. The log is compacted only behind [`Checkpoints::oldest_kept`].
//! - Whatever [`Log::append`] with `sync` has returned for is there after any crash, or opening is refused. A torn tail
//!   (never acknowledged) is cut; anything else that is wrong is a [`StorageError::Corrupt`] that names the file.
//! - A file that must be whole (identity, note, manifest) is written beside its place, fsynced and renamed.
//! - After a failed fsync nothing is written or deleted any more: every later call fails too.
//!
//! All calls block; they belong on threads of their own. This module knows nothing of raft's rules beyond indexes and
//! terms, of the keyspace, or of peers: who may have what data is `node`'s business.

mod check;
mod checkpoint;
mod data_dir;
mod database;
mod error;
mod files;
mod identity;
mod log;
mod log_files;
mod log_meta;
mod manifest;
mod recovery;
mod spool;
#[cfg(test)]
mod tests;

use crate::replica::LogPosition;

pub use check::{CheckReport, check};
pub use checkpoint::{Checkpoints, LoadedCheckpoint};
pub use data_dir::DataDir;
pub use error::StorageError;
pub use files::{DiskSpace, disk_space};
pub use identity::Identity;
pub use log::{Log, RecoveredLog};
pub use recovery::{Recovered, Storage, recover};
pub use spool::{Spool, Spooled};
