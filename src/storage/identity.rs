//! Who a member is: written once, when it has joined or founded a cluster.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{CURE_REJOIN, StorageError};
use super::files;

/// Which member of which cluster a data directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format of the whole data directory, [`Identity::FORMAT`] for a new one.
    pub format: u32,
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// Its name when it was founded.
    pub name: String,
    /// Where peers reached it when it was founded.
    pub peer_urls: Vec<String>,
    /// Drawn when the directory was made, so that an empty directory under an old id is noticed; 0 in directories that
    /// are older than this field.
    #[serde(default)]
    pub incarnation: u64,
}

/// The one field that every format has.
#[derive(Deserialize)]
struct Format {
    format: u64,
}

impl Identity {
    /// The newest format that this program reads and the one that it writes.
    pub const FORMAT: u32 = 1;

    pub(crate) fn read(path: &Path) -> Result<Option<Identity>, StorageError> {
        let Some(json) = files::read_sealed(path, CURE_REJOIN)? else { return Ok(None) };
        let unreadable = |e: serde_json::Error| {
            StorageError::corrupt(path, format!("it makes no sense ({e}); {CURE_REJOIN}"))
        };
        let Format { format } = serde_json::from_slice(&json).map_err(unreadable)?;
        if format > u64::from(Identity::FORMAT) {
            let supported = u64::from(Identity::FORMAT);
            return Err(StorageError::Newer { path: path.to_path_buf(), found: format, supported });
        }
        serde_json::from_slice(&json).map(Some).map_err(unreadable)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), StorageError> {
        let json = serde_json::to_vec(self).map_err(|e| StorageError::io("encoding", path, e.into()))?;
        files::write_sealed(path, &json)
    }
}
