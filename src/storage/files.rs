//! Small files that are whole or absent: sealed with a checksum, written beside their place, fsynced, renamed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::error::{Doing, StorageError};

/// Suffix of what is not finished; whatever carries it may be deleted at any start.
pub(crate) const UNFINISHED: &str = ".tmp";

/// A sealed file ends with a newline, 16 hex digits of XXH3-64 over what is before, and a newline.
const SEAL_LEN: usize = 18;

/// The largest sealed file that is read: identities, notes and manifests are far below.
const SEALED_LEN_MAX: u64 = 16 << 20;

/// Writes `content` to `path` so that a crash at any point leaves the old file, or the new one.
pub(crate) fn write_sealed(path: &Path, content: &[u8]) -> Result<(), StorageError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = Path::new(&unfinished);
    let written = write_new(unfinished, content).and_then(|()| {
        crash_point!("sealed.written");
        fs::rename(unfinished, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(unfinished);
    }
    written.doing("writing", path)?;
    crash_point!("sealed.renamed");
    sync_parent(path)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    write!(file, "\n{:016x}\n", xxh3_64(content))?;
    file.sync_all()
}

/// Reads a file of [`write_sealed`]; `None` when there is none.
pub(crate) fn read_sealed(path: &Path, cure: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StorageError::io("reading", path, e)),
    };
    let mut bytes = Vec::new();
    file.take(SEALED_LEN_MAX).read_to_end(&mut bytes).doing("reading", path)?;
    let damaged = || StorageError::corrupt(path, format!("its checksum is wrong; {cure}"));
    let content_len = bytes.len().checked_sub(SEAL_LEN).ok_or_else(damaged)?;
    let (content, seal) = bytes.split_at(content_len);
    if seal != format!("\n{:016x}\n", xxh3_64(content)).as_bytes() {
        return Err(damaged());
    }
    bytes.truncate(content_len);
    Ok(Some(bytes))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StorageError> {
    File::open(path).and_then(|dir| dir.sync_all()).doing("flushing", path)
}

/// Makes the name of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StorageError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// Makes a directory (0700) with its parents, durably; no error if it is there.
pub(crate) fn make_dir(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        // Whoever made it may have been killed before its name was on disk.
        return match sync_parent(path) {
            // A directory above that is not ours to read: it was made with the machine.
            Err(StorageError::Permission { .. }) => Ok(()),
            synced => synced,
        };
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        make_dir(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        // Another process was quicker; the lock will tell which of them goes on.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created.doing("creating", path)?,
    }
    sync_parent(path)
}

/// Removes a file or a directory with all that is in it; no error if it is not there.
pub(crate) fn remove_any(path: &Path) -> Result<(), StorageError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StorageError::io("removing", path, e)),
        _ => Ok(()),
    }
}

/// Shortens the files of a directory to nothing, piece by piece. To remove a file of some hundred MiB at once is one
/// transaction of the file system, for which every fsync beside it waits: 0.1 s was seen.
pub(crate) fn shrink_gently(dir: &Path) -> io::Result<()> {
    const PIECE: u64 = 8 << 20;
    const PAUSE: Duration = Duration::from_millis(3);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let mut left = entry.metadata()?.len();
        if !entry.file_type()?.is_file() || left <= PIECE {
            continue;
        }
        let file = File::options().write(true).open(entry.path())?;
        while left > 0 {
            left = left.saturating_sub(PIECE);
            file.set_len(left)?;
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, StorageError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).doing("reading", path)? {
        names.push(entry.doing("reading", path)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// What an unprivileged user may still write.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// How much space the file system of `path` has.
pub fn disk_space(path: &Path) -> Result<DiskSpace, StorageError> {
    let stat = rustix::fs::statvfs(path).doing("asking for the free space of", path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(DiskSpace { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
}
