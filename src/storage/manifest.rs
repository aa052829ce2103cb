//! The list of a checkpoint's files, written last: a checkpoint is whole exactly if its bytes are those listed.
//!
//! sled may panic on a damaged database, and a panic ends the process. So it is never let near bytes that are not
//! the ones which it wrote.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::LogPosition;
use super::error::{Doing, StorageError};
use super::files;

const NAME: &str = "MANIFEST";
const FORMAT: u64 = 2;
const COPY_BUFFER: usize = 256 << 10;

/// What a damaged checkpoint means.
pub(crate) const CURE_CHECKPOINT: &str = "an older checkpoint is used if there is one";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u64,
    index: u64,
    term: u64,
    files: Vec<Listed>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Listed {
    /// Relative to the checkpoint.
    path: String,
    len: u64,
    xxh3: u64,
}

impl Manifest {
    /// Fsyncs everything in `dir`, lists it and makes the list durable.
    pub(crate) fn seal(dir: &Path, at: LogPosition) -> Result<(), StorageError> {
        let mut listed = Vec::new();
        list(dir, "", &mut listed)?;
        let manifest = Manifest { format: FORMAT, index: at.index, term: at.term, files: listed };
        let path = dir.join(NAME);
        let json =
            serde_json::to_vec(&manifest).map_err(|e| StorageError::io("encoding", &path, e.into()))?;
        files::write_sealed(&path, &json)
    }

    pub(crate) fn read(dir: &Path) -> Result<Manifest, StorageError> {
        let path = dir.join(NAME);
        let json = files::read_sealed(&path, CURE_CHECKPOINT)
            .map_err(unreadable)?
            .ok_or_else(|| StorageError::corrupt(&path, format!("it is missing; {CURE_CHECKPOINT}")))?;
        let manifest: Manifest = serde_json::from_slice(&json).map_err(|e| {
            StorageError::corrupt(&path, format!("it makes no sense ({e}); {CURE_CHECKPOINT}"))
        })?;
        if manifest.format > FORMAT {
            return Err(StorageError::Newer { path, found: manifest.format, supported: FORMAT });
        }
        if manifest.format < FORMAT {
            let what = format!(
                "it is of format {}, from before the first release; this program reads {FORMAT}. Remove this member from its \
                 cluster, empty its data directory and add it anew",
                manifest.format
            );
            return Err(StorageError::Foreign { path, what });
        }
        Ok(manifest)
    }

    pub(crate) fn at(&self) -> LogPosition {
        LogPosition { index: self.index, term: self.term }
    }

    /// Copies the listed files, and fails with `Corrupt` if one is not what was listed.
    pub(crate) fn copy_verified(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        for listed in &self.files {
            let source = from.join(&listed.path);
            let target = to.join(&listed.path);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).doing("creating", parent)?;
            }
            let mut sink = File::create(&target).doing("creating", &target)?;
            listed.read(&source, |bytes| sink.write_all(bytes).doing("copying to", &target))?;
        }
        Ok(())
    }

    /// Reads the listed files, and fails with `Corrupt` if one is not what was listed.
    pub(crate) fn verify(&self, dir: &Path) -> Result<(), StorageError> {
        self.files.iter().try_for_each(|listed| listed.read(&dir.join(&listed.path), |_| Ok(())))
    }
}

impl Listed {
    /// Reads the file, which is at `source`.
    fn read(
        &self,
        source: &Path,
        sink: impl FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut input = File::open(source).map_err(|e| unreadable(StorageError::io("opening", source, e)))?;
        if pump(&mut input, source, sink)? == (self.len, self.xxh3) {
            return Ok(());
        }
        Err(StorageError::corrupt(source, format!("its checksum is wrong; {CURE_CHECKPOINT}")))
    }
}

/// A file that is gone is damage; one that cannot be read may be readable another time. For both, an older checkpoint
/// may do.
fn unreadable(error: StorageError) -> StorageError {
    match error {
        StorageError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            StorageError::corrupt(&path, format!("it cannot be read ({source}); {CURE_CHECKPOINT}"))
        }
        StorageError::Io { path, source, .. } => StorageError::Unreadable { path, source },
        other => other,
    }
}

fn list(dir: &Path, prefix: &str, listed: &mut Vec<Listed>) -> Result<(), StorageError> {
    for name in files::names(dir)? {
        let path = dir.join(&name);
        let relative = format!("{prefix}{name}");
        if path.is_dir() {
            list(&path, &format!("{relative}/"), listed)?;
            continue;
        }
        let mut file = File::open(&path).doing("opening", &path)?;
        file.sync_all().doing("flushing", &path)?;
        let (len, xxh3) = pump(&mut file, &path, |_| Ok(()))?;
        listed.push(Listed { path: relative, len, xxh3 });
    }
    files::sync_dir(dir)
}

/// Reads a file to its end; gives its length and XXH3-64.
fn pump(
    input: &mut File,
    path: &Path,
    mut sink: impl FnMut(&[u8]) -> Result<(), StorageError>,
) -> Result<(u64, u64), StorageError> {
    let mut buffer = vec![0; COPY_BUFFER];
    let mut hash = Xxh3::new();
    let mut len = 0;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok((len, hash.digest())),
            Ok(n) => {
                hash.update(&buffer[..n]);
                len += n as u64;
                sink(&buffer[..n])?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(unreadable(StorageError::io("reading", path, e))),
        }
    }
}
