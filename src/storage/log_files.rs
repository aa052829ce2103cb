//! The files of the log, as raft-engine sees them: watched, so that a failed fsync is an error and not a panic.
//!
//! raft-engine panics when an fsync fails. Here the failure is noted instead, the engine is told that all is well, and
//! [`Log`](super::Log) looks at the note before it believes the engine. From then on nothing is written, renamed or
//! deleted: what the engine would remove may be the only copy of what did not reach the disk.
//!
//! What recovery cuts off a file is kept beside it until it is known that nothing acknowledged was in it.
//!
//! Space that is only allocated makes fsyncs slow: the first write to each block of it changes the file's metadata, which
//! the fsync must write too, in a file system with a journal together with all that others have put into that. So the
//! log is written over zeros, which are put there some way ahead of it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

type PlainFile = <DefaultFileSystem as FileSystem>::Handle;

/// Suffix of the bytes that recovery cut off a file.
pub(crate) const CUT_SUFFIX: &str = ".cut";

/// Whether an fsync has failed, and of which file.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failed: OnceLock<(PathBuf, String)>,
    /// The file that was last read from: where an error came from, which the engine does not tell.
    last_read: Mutex<Option<PathBuf>>,
    #[cfg(test)]
    pub(crate) faults: Faults,
}

/// What tests make go wrong.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) sync: std::sync::atomic::AtomicBool,
    pub(crate) no_space: std::sync::atomic::AtomicBool,
}

impl Health {
    /// The failed fsync, if there was one.
    pub(crate) fn failure(&self) -> Option<(&Path, &str)> {
        self.failed.get().map(|(path, error)| (path.as_path(), error.as_str()))
    }

    pub(crate) fn last_read(&self) -> Option<PathBuf> {
        self.last_read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn check(&self) -> io::Result<()> {
        match self.failure() {
            Some((path, error)) => {
                Err(io::Error::other(format!("flushing {} failed: {error}", path.display())))
            }
            None => Ok(()),
        }
    }

    #[cfg(test)]
    fn inject(
        &self,
        fault: impl Fn(&Faults) -> &std::sync::atomic::AtomicBool,
        error: io::ErrorKind,
    ) -> io::Result<()> {
        if fault(&self.faults).load(std::sync::atomic::Ordering::Relaxed) {
            Err(error.into())
        } else {
            Ok(())
        }
    }
}

/// The system's own error: the engine's says which call failed, and not how.
fn system_error(error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() {
        return error;
    }
    // Nothing has been called since.
    let system = io::Error::last_os_error();
    if system.kind() == error.kind() { system } else { error }
}

/// The file system that raft-engine is given.
#[derive(Debug, Default)]
pub(crate) struct WatchedFiles {
    health: Arc<Health>,
}

impl WatchedFiles {
    pub(crate) fn new(health: Arc<Health>) -> WatchedFiles {
        WatchedFiles { health }
    }

    fn watch(&self, path: &Path, plain: PlainFile) -> WatchedFile {
        WatchedFile { plain: Arc::new(plain), path: path.to_path_buf(), health: Arc::clone(&self.health) }
    }
}

impl FileSystem for WatchedFiles {
    type Handle = WatchedFile;
    type Reader = WatchedReader;
    type Writer = WatchedWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<WatchedFile> {
        self.health.check()?;
        Ok(self.watch(path.as_ref(), DefaultFileSystem.create(path.as_ref())?))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<WatchedFile> {
        Ok(self.watch(path.as_ref(), DefaultFileSystem.open(path.as_ref(), permission)?))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.health.check()?;
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.health.check()?;
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, file: Arc<WatchedFile>) -> io::Result<Self::Reader> {
        *self.health.last_read.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.path.clone());
        Ok(WatchedReader(DefaultFileSystem.new_reader(Arc::clone(&file.plain))?))
    }

    fn new_writer(&self, file: Arc<WatchedFile>) -> io::Result<WatchedWriter> {
        let plain = DefaultFileSystem.new_writer(Arc::clone(&file.plain))?;
        Ok(WatchedWriter { plain, health: Arc::clone(&file.health), position: 0, zeroed: 0, allocated: 0 })
    }
}

/// A file of the log.
pub(crate) struct WatchedFile {
    plain: Arc<PlainFile>,
    path: PathBuf,
    health: Arc<Health>,
}

impl WatchedFile {
    /// Keeps what is after `offset`, unless it is the zeros of preallocation.
    fn keep_cut(&self, offset: usize) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset as u64))?;
        let mut cut = Vec::new();
        file.read_to_end(&mut cut)?;
        if cut.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        tracing::warn!(path = %self.path.display(), offset, "cutting off {} bytes that were never finished", cut.len());
        let mut aside = self.path.clone().into_os_string();
        aside.push(CUT_SUFFIX);
        match fs::write(&aside, cut) {
            // The bytes are for people; a full disk must not keep a member from starting.
            Err(e) if e.kind() == io::ErrorKind::StorageFull => fs::remove_file(&aside),
            kept => kept,
        }
    }
}

impl Handle for WatchedFile {
    /// Only recovery calls this; while the log is written it is [`WatchedWriter`] that truncates.
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.health.check()?;
        self.keep_cut(offset)?;
        Handle::truncate(&*self.plain, offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.plain.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        let synced =
            self.health.inject(|faults| &faults.sync, io::ErrorKind::Other).and_then(|()| self.plain.sync());
        #[cfg(not(test))]
        let synced = self.plain.sync().map_err(system_error);
        if let Err(e) = synced {
            tracing::error!(path = %self.path.display(), "flushing the log failed: {e}");
            let _ = self.health.failed.set((self.path.clone(), e.to_string()));
        }
        // The engine would panic. The note is looked at before anything is acknowledged.
        Ok(())
    }
}

/// Reads a file of the log back.
pub(crate) struct WatchedReader(<DefaultFileSystem as FileSystem>::Reader);

impl Read for WatchedReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).map_err(system_error)
    }
}

impl Seek for WatchedReader {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

/// So far ahead of the log its file is filled with zeros: often enough that no fsync has much of them to write, and seldom
/// enough that most have none.
const ZEROS_AHEAD: usize = 512 << 10;
static ZEROS: LazyLock<Vec<u8>> = LazyLock::new(|| vec![0; ZEROS_AHEAD]);

/// The end of the log, where it is appended to.
pub(crate) struct WatchedWriter {
    plain: <DefaultFileSystem as FileSystem>::Writer,
    health: Arc<Health>,
    position: usize,
    /// What is before this was written, by whomever.
    zeroed: usize,
    /// The file's end.
    allocated: usize,
}

impl WatchedWriter {
    /// Sees to it that what is written next is followed by zeros, so that it is the last write for a while which the
    /// file system has to find blocks for.
    fn fill_ahead(&mut self, next: usize) {
        let from = self.position + next;
        if from <= self.zeroed || self.allocated <= self.zeroed {
            return;
        }
        let until = from.saturating_add(ZEROS_AHEAD).min(self.allocated);
        self.zeroed = until.max(from);
        let zeros = &ZEROS[..until.saturating_sub(from)];
        let filled = self.plain.seek(SeekFrom::Start(from as u64)).and_then(|_| self.plain.write_all(zeros));
        // It only makes what follows faster.
        if let Err(error) = filled {
            tracing::debug!(%error, "the log could not be filled with zeros ahead");
        }
    }
}

impl Write for WatchedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.health.check()?;
        #[cfg(test)]
        self.health.inject(|faults| &faults.no_space, io::ErrorKind::StorageFull)?;
        self.fill_ahead(bytes.len());
        self.plain.seek(SeekFrom::Start(self.position as u64))?;
        let written = self.plain.write(bytes).map_err(system_error)?;
        self.position += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.plain.flush()
    }
}

impl Seek for WatchedWriter {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let position = self.plain.seek(position)?;
        self.position = position as usize;
        Ok(position)
    }
}

impl WriteExt for WatchedWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.health.check()?;
        self.plain.truncate(offset)?;
        (self.position, self.zeroed, self.allocated) = (offset, offset, offset);
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.health.check()?;
        self.plain.allocate(offset, size)?;
        self.zeroed = self.zeroed.max(offset);
        self.allocated = offset + size;
        Ok(())
    }
}
