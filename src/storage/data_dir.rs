//! The data directory: who owns it, whose it is, and the small files in it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use xxhash_rust::xxh3::xxh3_64;

use super::checkpoint::Checkpoints;
use super::error::{Doing, StorageError};
use super::files;
use super::identity::Identity;
use super::log::Log;
use super::recovery::{Storage, recover_of};
use super::spool::Spool;

/// Everything that may be in `member/`.
const OURS: [&str; 6] = ["lock", "identity", "clock", "notes", "log", "state"];

/// A data directory that this process owns until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    member: PathBuf,
    /// Holds the flock; the kernel lets go of it however the process ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory (0700) if it is missing and takes its lock.
    ///
    /// Refuses one that is not a directory, cannot be written, is locked by a running process, or holds anything that is
    /// not this program's: it never mixes its files with those of a real etcd. `member/` is tightened to 0700.
    pub fn open(path: &Path) -> Result<DataDir, StorageError> {
        match fs::metadata(path) {
            Ok(found) if !found.is_dir() => {
                let what =
                    "it is a file, and the data directory must be a directory; name another path".to_owned();
                return Err(StorageError::Foreign { path: path.to_path_buf(), what });
            }
            Ok(_) => {
                refuse_foreign(path)?;
                files::make_dir(path)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => make_or_tell(path)?,
            Err(e) => return Err(StorageError::io("looking at", path, e)),
        }
        let member = path.join("member");
        files::make_dir(&member)?;
        tighten(&member)?;
        let lock = take_lock(&member.join("lock"))?;
        for name in files::names(&member)?.iter().filter(|name| name.ends_with(files::UNFINISHED)) {
            files::remove_any(&member.join(name))?;
        }
        prove_writable(&member)?;
        files::make_dir(&member.join("notes"))?;
        Ok(DataDir { member, _lock: lock })
    }

    /// Takes the lock of a directory that exists, and changes nothing else in it.
    pub(crate) fn open_existing(path: &Path) -> Result<DataDir, StorageError> {
        let member = path.join("member");
        fs::metadata(&member).doing("looking at", &member)?;
        refuse_foreign(path)?;
        let lock_path = member.join("lock");
        let lock = File::open(&lock_path).doing("opening", &lock_path)?;
        lock_or_tell(&lock, &lock_path)?;
        Ok(DataDir { member, _lock: lock })
    }

    /// Who this member is; `None` before [`DataDir::create_identity`].
    pub fn identity(&self) -> Result<Option<Identity>, StorageError> {
        Identity::read(&self.identity_path())
    }

    /// Makes the member's identity durable. Refuses to change an existing one.
    pub fn create_identity(&self, identity: &Identity) -> Result<(), StorageError> {
        let path = self.identity_path();
        match self.identity()? {
            Some(found) if found == *identity => Ok(()),
            Some(found) => {
                let what = format!(
                    "it says member {:x} of cluster {:x}, not member {:x} of cluster {:x}; \
                     use the data directory of that member, or an empty one",
                    found.member_id, found.cluster_id, identity.member_id, identity.cluster_id
                );
                Err(StorageError::Foreign { path, what })
            }
            None => identity.write(&path),
        }
    }

    /// A small blob of [`DataDir::save_note`]. Names are `a-z`, `0-9` and `-`.
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.note_path(name)?;
        files::read_sealed(&path, "delete it: bootstrap then starts over")
    }

    /// The names of the blobs that are there.
    pub(crate) fn notes(&self) -> Result<Vec<String>, StorageError> {
        let notes = self.member.join("notes");
        let names = if notes.exists() { files::names(&notes)? } else { Vec::new() };
        Ok(names.into_iter().filter(|name| !name.ends_with(files::UNFINISHED)).collect())
    }

    /// Keeps a small blob, durably; a crash leaves the old one or the new one.
    pub fn save_note(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        files::write_sealed(&self.note_path(name)?, bytes)
    }

    /// Forgets a blob, durably; no error if there is none.
    pub fn remove_note(&self, name: &str) -> Result<(), StorageError> {
        let path = self.note_path(name)?;
        files::remove_any(&path)?;
        files::sync_parent(&path)
    }

    /// Leaves a hint of the cluster's clock, in milliseconds, and the term of the leader who said so. It survives the process but perhaps not the machine: there
    /// is no fsync, so that it costs nothing.
    pub fn save_clock(&self, term: u64, ms: u64) -> Result<(), StorageError> {
        let path = self.clock_path();
        let mut cell = [0; 24];
        cell[..8].copy_from_slice(&term.to_le_bytes());
        cell[8..16].copy_from_slice(&ms.to_le_bytes());
        let checksum = xxh3_64(&cell[..16]);
        cell[16..].copy_from_slice(&checksum.to_le_bytes());
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.write_all_at(&cell, 0))
            .doing("writing", &path)
    }

    /// The hint of [`DataDir::save_clock`]; `None` if there is none that is whole.
    pub fn load_clock(&self) -> Option<(u64, u64)> {
        let bytes = fs::read(self.clock_path()).ok()?;
        let clock = decode_clock(&bytes);
        if clock.is_none() {
            let path = self.clock_path();
            tracing::warn!(path = %path.display(), "the hint of the cluster's time is damaged: it is written anew");
        }
        clock
    }

    /// Opens the log and the checkpoints, and finds out where they left off.
    pub fn open_storage(&self) -> Result<Storage, StorageError> {
        let checkpoints = Checkpoints::open(&self.state_path())?;
        let (log, recovered_log) = Log::open(&self.log_path())?;
        let cluster_id = self.identity()?.map(|identity| identity.cluster_id);
        let recovered = recover_of(cluster_id, &checkpoints, &log, recovered_log)?;
        Ok(Storage { log, checkpoints, recovered })
    }

    /// A new file for a snapshot that arrives; each has a name of its own. So much of the disk is left to the log.
    pub fn spool(&self, name: u64, reserve_bytes: u64) -> Result<Spool, StorageError> {
        Spool::create(&self.member.join(format!("incoming-{name:x}{}", files::UNFINISHED)), reserve_bytes)
    }

    pub(crate) fn identity_path(&self) -> PathBuf {
        self.member.join("identity")
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.member.join("log")
    }

    pub(crate) fn state_path(&self) -> PathBuf {
        self.member.join("state")
    }

    pub(crate) fn clock_path(&self) -> PathBuf {
        self.member.join("clock")
    }

    fn note_path(&self, name: &str) -> Result<PathBuf, StorageError> {
        let notes = self.member.join("notes");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            let source =
                io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of a note"));
            return Err(StorageError::io("naming a note in", &notes, source));
        }
        Ok(notes.join(name))
    }
}

/// The term and the milliseconds in the file `clock`, if it is whole.
pub(crate) fn decode_clock(bytes: &[u8]) -> Option<(u64, u64)> {
    let cell: [u8; 24] = bytes.try_into().ok()?;
    let number = |at: usize| cell[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let (term, ms, checksum) = (number(0)?, number(8)?, number(16)?);
    (xxh3_64(&cell[..16]) == checksum).then_some((term, ms))
}

/// A path below which nothing can be made is a mistake in the path, not in the disk.
fn make_or_tell(path: &Path) -> Result<(), StorageError> {
    match files::make_dir(path) {
        Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let what = format!("it cannot be made ({source}); name another data directory");
            Err(StorageError::Foreign { path: path.to_path_buf(), what })
        }
        result => result,
    }
}

/// Refuses a directory with files in it that this program did not make.
fn refuse_foreign(path: &Path) -> Result<(), StorageError> {
    let foreign = |path: &Path, what: String| Err(StorageError::Foreign { path: path.to_path_buf(), what });
    let member = path.join("member");
    if !member.exists() {
        let strange: Vec<String> =
            files::names(path)?.into_iter().filter(|name| name != "lost+found").collect();
        if strange.is_empty() {
            return Ok(());
        }
        let some = strange.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        return foreign(
            path,
            format!("it holds files of something else ({some}); name an empty or a new directory"),
        );
    }
    if !member.is_dir() {
        return foreign(&member, "it is not a directory; name another data directory".to_owned());
    }
    if let Some(etcd) = ["wal", "snap"].into_iter().find(|name| member.join(name).exists()) {
        let what = format!(
            "it is the data directory of an etcd ({etcd}/ is there), which is left alone; name an empty or a new directory"
        );
        return foreign(&member, what);
    }
    let strange = |name: &&String| !OURS.contains(&name.as_str()) && !name.ends_with(files::UNFINISHED);
    match files::names(&member)?.iter().find(strange) {
        Some(name) => foreign(
            &member.join(name),
            "it is nothing that this program makes; move it elsewhere, or name another data directory"
                .to_owned(),
        ),
        None => Ok(()),
    }
}

fn tighten(member: &Path) -> Result<(), StorageError> {
    let mode = fs::metadata(member).doing("looking at", member)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(path = %member.display(), "mode {mode:o} lets others in: tightened to 700");
        fs::set_permissions(member, Permissions::from_mode(0o700)).doing("changing the mode of", member)?;
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, StorageError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(path).doing("opening", path)?;
    lock_or_tell(&lock, path)?;
    let wrote = lock.set_len(0).and_then(|()| lock.seek(SeekFrom::Start(0)));
    wrote.and_then(|_| writeln!(lock, "{}", std::process::id())).or_else(|e| {
        // The id is for people only; a full disk must not keep a member from starting.
        if e.kind() == io::ErrorKind::StorageFull {
            Ok(())
        } else {
            Err(StorageError::io("writing", path, e))
        }
    })?;
    Ok(lock)
}

fn lock_or_tell(lock: &File, path: &Path) -> Result<(), StorageError> {
    match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = lock.take(16).read_to_string(&mut text);
            Err(StorageError::Locked { path: path.to_path_buf(), pid: text.trim().parse().ok() })
        }
        Err(errno) => Err(StorageError::io("locking", path, errno.into())),
    }
}

/// Finds out now, with a clear message, rather than at the first write.
fn prove_writable(member: &Path) -> Result<(), StorageError> {
    let probe = member.join(format!("probe{}", files::UNFINISHED));
    File::create(&probe).doing("creating files in", member)?;
    files::remove_any(&probe)
}
