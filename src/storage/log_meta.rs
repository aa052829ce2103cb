//! What is true of the log beside its entries: written with every batch, in the same atomic unit.
//!
//! It states which entries count, so that none that the engine may bring back (from a file that it had not yet removed)
//! is ever taken for one of the log's; and it numbers the batches. The number of the newest batch that was fsynced is
//! also left, without an fsync of its own, in the file `synced`. If that names a batch which recovery did not find, then
//! acknowledged data is gone: damage, not a torn tail.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use raft::eraftpb::HardState;
use xxhash_rust::xxh3::xxh3_64;

use super::LogPosition;
use super::error::{CURE_REJOIN, Doing, StorageError};

const FORMAT: u64 = 1;

/// Ten words: format, batch, base, last, hard state, checksum.
pub(crate) const LOG_META_LEN: usize = 80;

/// `base.index <= last.index`; the log's entries are those in `base.index + 1 ..= last.index`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LogMeta {
    /// Number of the batch that carries this, from 1, without gaps.
    pub(crate) batch: u64,
    pub(crate) base: LogPosition,
    pub(crate) last: LogPosition,
    pub(crate) hard_state: HardState,
}

impl LogMeta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let LogMeta { batch, base, last, hard_state } = self;
        let words = [
            FORMAT,
            *batch,
            base.index,
            base.term,
            last.index,
            last.term,
            hard_state.term,
            hard_state.vote,
            hard_state.commit,
        ];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// `dir` is the log's, for the error.
    pub(crate) fn decode(dir: &Path, bytes: &[u8]) -> Result<LogMeta, StorageError> {
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| word.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
            .collect();
        if let Some(&found) = words.first().filter(|format| **format > FORMAT) {
            return Err(StorageError::Newer { path: dir.to_path_buf(), found, supported: FORMAT });
        }
        let wrong =
            || StorageError::corrupt(dir, format!("the log's own description is not whole; {CURE_REJOIN}"));
        let &[_, batch, base_index, base_term, last_index, last_term, term, vote, commit, checksum] =
            &words[..]
        else {
            return Err(wrong());
        };
        if bytes.len() != LOG_META_LEN
            || xxh3_64(&bytes[..LOG_META_LEN - 8]) != checksum
            || base_index > last_index
        {
            return Err(wrong());
        }
        Ok(LogMeta {
            batch,
            base: LogPosition { index: base_index, term: base_term },
            last: LogPosition { index: last_index, term: last_term },
            hard_state: HardState { term, vote, commit, ..HardState::default() },
        })
    }
}

/// The file `synced`: the newest batch that is known to be on disk.
#[derive(Debug)]
pub(crate) struct SyncedBatch {
    path: PathBuf,
    file: File,
}

impl SyncedBatch {
    pub(crate) const NAME: &str = "synced";

    pub(crate) fn open(log_dir: &Path) -> Result<SyncedBatch, StorageError> {
        let path = log_dir.join(SyncedBatch::NAME);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).doing("opening", &path)?;
        Ok(SyncedBatch { path, file })
    }

    /// `None` if there is no evidence: the file is new, or a crash tore it, or it is damaged, which is said.
    pub(crate) fn load(&self) -> Option<u64> {
        let bytes = fs::read(&self.path).ok().filter(|bytes| !bytes.is_empty())?;
        let batch = SyncedBatch::decode(&bytes);
        if batch.is_none() {
            tracing::warn!(
                path = %self.path.display(),
                "the note of the last write that was acknowledged is damaged: whether the end of the log is missing cannot be told"
            );
        }
        batch
    }

    /// The number in the file, if it is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<u64> {
        let cell: [u8; 16] = bytes.try_into().ok()?;
        let (batch, checksum) = cell.split_at(8);
        let intact = xxh3_64(batch).to_le_bytes() == checksum;
        intact.then(|| batch.try_into().map(u64::from_le_bytes).unwrap_or_default())
    }

    /// Best effort: it is evidence, and without it nothing is lost.
    pub(crate) fn save(&self, batch: u64) {
        let mut cell = [0; 16];
        cell[..8].copy_from_slice(&batch.to_le_bytes());
        cell[8..].copy_from_slice(&xxh3_64(&batch.to_le_bytes()).to_le_bytes());
        if let Err(e) = self.file.write_all_at(&cell, 0) {
            tracing::debug!(path = %self.path.display(), "not written: {e}");
        }
    }
}
