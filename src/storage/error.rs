//! What can be wrong with a data directory. Every message names the file, what was being done, and what helps.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why something on disk could not be read, written or trusted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process owns the data directory.
    #[error("{} is in use by another running member{}; stop that one first, or give this one a data directory of its own",
        .path.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The owner, if it has written its id.
        pid: Option<u32>,
    },
    /// The directory holds something that is not this member's.
    #[error("{}: {what}", .path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// What it is, and what to do about it.
        what: String,
    },
    /// A newer version of the program wrote it.
    #[error("{} has format {found}, but this version reads up to {supported}: start the version that wrote it, or a newer one",
        .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format that this program knows.
        supported: u64,
    },
    /// The operating system refused it.
    #[error("{verb} {}: {source}; make it belong to the user that runs the member, with mode 0700 for directories", .path.display())]
    Permission {
        /// What was being done: "creating", "reading".
        verb: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file system takes no writes.
    #[error("{verb} {}: {source}; remount the file system for writing (the kernel log says why, if it was an error)", .path.display())]
    ReadOnly {
        /// What was being done.
        verb: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No space is left. What was being written is not there, everything before it is; the same call may be made again
    /// when there is space.
    #[error("{verb} {}: no space left ({what}); free some space on that file system", .path.display())]
    Full {
        /// What was being done.
        verb: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What is known about the space.
        what: String,
    },
    /// Any other failure of the disk or the system.
    #[error("{verb} {}: {source}; check the disk (the kernel log) and start again", .path.display())]
    Io {
        /// What was being done.
        verb: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk does not give the bytes back, this time.
    #[error("{} cannot be read: {source}; it is left as it is: check the disk (the kernel log) and start again", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("{} is damaged: {what}", .path.display())]
    Corrupt {
        /// The file, or the directory if it cannot be told more closely.
        path: PathBuf,
        /// What is wrong, and what to do about it.
        what: String,
    },
}

/// What helps a member that has lost data which it had acknowledged.
pub(crate) const CURE_REJOIN: &str = "with healthy peers, remove this member from the cluster, delete its data directory and add it again; \
     otherwise restore the directory from a backup";

impl StorageError {
    /// Sorts a failure of the system: `verb` is what was being done to `path`.
    pub(crate) fn io(verb: &'static str, path: &Path, source: io::Error) -> StorageError {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => StorageError::Permission { verb, path, source },
            io::ErrorKind::ReadOnlyFilesystem => StorageError::ReadOnly { verb, path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StorageError::Full { verb, path, what: source.to_string() }
            }
            _ => StorageError::Io { verb, path, source },
        }
    }

    /// A failure of the disk of which it is known now in which file.
    pub(crate) fn of_file(self, file: Option<PathBuf>) -> StorageError {
        match (self, file) {
            (StorageError::Io { verb, source, .. }, Some(path)) => StorageError::Io { verb, path, source },
            (other, _) => other,
        }
    }

    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> StorageError {
        StorageError::Corrupt { path: path.to_path_buf(), what: what.into() }
    }

    /// True for what passes by itself once there is space: nothing was half-done. After any other error of [`Log`] the
    /// member must stop: it cannot tell what is on disk.
    ///
    /// [`Log`]: super::Log
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, StorageError::Full { .. })
    }
}

/// Names what was being done when an [`io::Error`] came.
pub(crate) trait Doing<T> {
    fn doing(self, verb: &'static str, path: &Path) -> Result<T, StorageError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, verb: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::io(verb, path, source))
    }
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing(self, verb: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|errno| StorageError::io(verb, path, errno.into()))
    }
}
