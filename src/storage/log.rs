//! The raft log: entries and hard state in raft-engine, the only thing that an acknowledgement waits for.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft::eraftpb::{Entry, HardState};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use super::LogPosition;
use super::error::{CURE_REJOIN, Doing, StorageError};
use super::files;
use super::log_files::{CUT_SUFFIX, Health, WatchedFiles};
use super::log_meta::{LogMeta, SyncedBatch};

/// raft-engine keeps many logs; this is the only one.
const REGION: u64 = 1;
const META_KEY: &[u8] = b"meta";

/// Files are removed whole, so this is the grain in which compaction frees space.
const FILE_SIZE_DEFAULT: u64 = 16 << 20;

/// How raft-engine finds the index of an entry.
#[derive(Debug)]
enum RaftEntry {}

impl MessageExt for RaftEntry {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// The raft log, open for writing. Safe to share: one write goes at a time.
pub struct Log {
    dir: PathBuf,
    engine: Engine<WatchedFiles>,
    health: Arc<Health>,
    state: Mutex<State>,
}

/// What the newest batch says.
struct State {
    meta: LogMeta,
    synced: SyncedBatch,
    /// Some batch was written without `sync` since the last that was.
    unsynced: bool,
}

/// What a log held when it was opened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecoveredLog {
    /// Everything up to here is compacted away or replaced by a snapshot.
    pub base: LogPosition,
    /// The entries after the base, without a gap.
    pub entries: Vec<Entry>,
    /// As it was last written.
    pub hard_state: HardState,
}

impl RecoveredLog {
    /// Position of the last entry, or the base.
    pub fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.base, LogPosition::of)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in `dir`, or makes one. Cuts a torn tail; refuses one that lacks anything it had acknowledged.
    /// What is returned is on disk: it is fsynced again, because a process that was killed may not have.
    pub fn open(dir: &Path) -> Result<(Log, RecoveredLog), StorageError> {
        Log::open_sized(dir, FILE_SIZE_DEFAULT)
    }

    pub(crate) fn open_sized(dir: &Path, file_size: u64) -> Result<(Log, RecoveredLog), StorageError> {
        files::make_dir(dir)?;
        let health = Arc::new(Health::default());
        let watched = Arc::new(WatchedFiles::new(Arc::clone(&health)));
        let engine = Engine::open_with_file_system(config(dir, file_size)?, watched)
            .map_err(|e| name_damage(dir, engine_error("opening the log in", dir, e)))
            .map_err(|e| e.of_file(health.last_read()))?;
        let synced = SyncedBatch::open(dir)?;
        let meta = match engine.get(REGION, META_KEY) {
            Some(bytes) => LogMeta::decode(dir, &bytes)?,
            None => LogMeta::default(),
        };
        if let Some(acknowledged) = synced.load().filter(|batch| *batch > meta.batch) {
            return Err(lost(dir, acknowledged, &meta));
        }
        let entries = on_fresh_thread(dir, || read_entries(dir, &engine, &health, &meta))?;
        sync_files(dir)?;
        remove_cuts(dir)?;
        synced.save(meta.batch);
        let recovered = RecoveredLog { base: meta.base, entries, hard_state: meta.hard_state.clone() };
        let state = Mutex::new(State { meta, synced, unsynced: false });
        let log = Log { dir: dir.to_path_buf(), engine, health, state };
        log.check_health()?;
        log.drop_below_base()?;
        Ok((log, recovered))
    }

    /// Appends `entries`, which replace whatever is at their first index or after it, and the hard state, in one atomic
    /// batch. With `sync`, returns when that and all before it are on disk.
    ///
    /// After [`StorageError::Full`] nothing was written and the call may be repeated. After any other error the member
    /// must stop: later calls fail too.
    pub fn append(
        &self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        sync: bool,
    ) -> Result<(), StorageError> {
        let mut state = self.lock();
        let nothing_new = entries.is_empty() && hard_state.is_none();
        if nothing_new && !(sync && state.unsynced) {
            return self.check_health();
        }
        let mut meta = state.meta.clone();
        let mut batch = LogBatch::default();
        if let Some(last) = entries.last() {
            self.check_order(entries, &meta)?;
            batch.add_entries::<RaftEntry>(REGION, entries).map_err(|e| self.failed(e))?;
            meta.last = LogPosition::of(last);
        }
        if let Some(hard_state) = hard_state {
            meta.hard_state = hard_state.clone();
        }
        self.write(&mut state, batch, meta, sync)
    }

    /// Forgets the entries up to `base`, which must be in the log; [`Self::free_space`] frees what they take on disk. The
    /// caller has everything up to there in checkpoints. A `base` that is not ahead of the log's own changes nothing.
    pub fn compact(&self, base: LogPosition) -> Result<(), StorageError> {
        let mut state = self.lock();
        if base.index <= state.meta.base.index {
            return self.check_health();
        }
        if base.index > state.meta.last.index {
            return Err(
                self.misuse(format!("compacting to {base}, behind the last entry {}", state.meta.last))
            );
        }
        let meta = LogMeta { base, ..state.meta.clone() };
        let mut batch = LogBatch::default();
        batch.add_command(REGION, Command::Compact { index: base.index + 1 });
        // Synced, so that no file is gone before it is on disk that the log does not need it.
        self.write(&mut state, batch, meta, true)
    }

    /// A snapshot at `base` has replaced the state: drops every entry and sets the hard state, in one synced batch.
    pub fn reset(&self, base: LogPosition, hard_state: &HardState) -> Result<(), StorageError> {
        let mut state = self.lock();
        let mut batch = LogBatch::default();
        if let Some(last) = self.engine.last_index(REGION) {
            batch.add_command(REGION, Command::Compact { index: last + 1 });
        }
        let meta = LogMeta { base, last: base, hard_state: hard_state.clone(), ..state.meta.clone() };
        self.write(&mut state, batch, meta, true)?;
        drop(state);
        self.free_space()
    }

    /// Bytes of disk that the log takes, as the file system counts them.
    pub fn size_on_disk(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.dir) else { return 0 };
        entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks() * 512).sum()
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn write(
        &self,
        state: &mut State,
        mut batch: LogBatch,
        mut meta: LogMeta,
        sync: bool,
    ) -> Result<(), StorageError> {
        self.check_health()?;
        meta.batch += 1;
        batch.put(REGION, META_KEY.to_vec(), meta.encode()).map_err(|e| self.failed(e))?;
        crash_point!("log.writing");
        self.engine.write(&mut batch, sync).map_err(|e| self.failed(e))?;
        crash_point!("log.written");
        // The engine has been told that its fsync went well, whatever happened.
        self.check_health()?;
        state.meta = meta;
        state.unsynced = !sync;
        if sync {
            state.synced.save(state.meta.batch);
            crash_point!("log.noted");
        }
        Ok(())
    }

    /// The engine may have brought back entries that a lost command had removed; a gap after them would stop it.
    fn drop_below_base(&self) -> Result<(), StorageError> {
        let mut state = self.lock();
        let stale = self.engine.first_index(REGION).is_some_and(|first| first <= state.meta.base.index);
        if !stale {
            return Ok(());
        }
        let meta = state.meta.clone();
        let mut batch = LogBatch::default();
        batch.add_command(REGION, Command::Compact { index: meta.base.index + 1 });
        self.write(&mut state, batch, meta, true)
    }

    fn check_order(&self, entries: &[Entry], meta: &LogMeta) -> Result<(), StorageError> {
        let first = entries[0].index;
        let follows = first > meta.base.index && first <= meta.last.index + 1;
        let dense =
            entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index && pair[0].term <= pair[1].term);
        if follows && dense {
            return Ok(());
        }
        let last = entries[entries.len() - 1].index;
        Err(self.misuse(format!(
            "appending {first}..={last} to a log of {}..={}",
            meta.base.index + 1,
            meta.last.index
        )))
    }

    /// Removes the files that are no longer needed; the engine may rewrite a few entries for that. Takes up to a tenth of a
    /// second, while another thread may append.
    pub fn free_space(&self) -> Result<(), StorageError> {
        on_fresh_thread(&self.dir, || self.engine.purge_expired_files().map_err(|e| self.failed(e)))?;
        self.check_health()
    }

    fn check_health(&self) -> Result<(), StorageError> {
        match self.health.failure() {
            Some((path, error)) => {
                let source = std::io::Error::other(error.to_owned());
                Err(StorageError::Io { verb: "flushing to disk", path: path.to_path_buf(), source })
            }
            None => Ok(()),
        }
    }

    fn failed(&self, error: raft_engine::Error) -> StorageError {
        self.check_health().err().unwrap_or_else(|| engine_error("writing the log in", &self.dir, error))
    }

    /// A mistake of the caller, caught before the engine would panic over it.
    fn misuse(&self, what: String) -> StorageError {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
        StorageError::Io { verb: "writing the log in", path: self.dir.clone(), source }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }
}

fn config(dir: &Path, file_size: u64) -> Result<Config, StorageError> {
    let name = dir.to_str().ok_or_else(|| StorageError::Foreign {
        path: dir.to_path_buf(),
        what: "its name is not UTF-8, which the log needs; name another data directory".to_owned(),
    })?;
    Ok(Config {
        dir: name.to_owned(),
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        // One log, small files: threads would wait for each other.
        recovery_threads: 1,
        recovery_read_block_size: ReadableSize::kb(64),
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(file_size),
        // Remove files as soon as there is one that is not needed.
        purge_threshold: ReadableSize(file_size),
        // A recycled file would end in old batches, and a torn tail could no longer be told from its zeros.
        enable_log_recycle: false,
        ..Config::default()
    })
}

/// Reads the entries that `meta` says the log has.
fn read_entries(
    dir: &Path,
    engine: &Engine<WatchedFiles>,
    health: &Health,
    meta: &LogMeta,
) -> Result<Vec<Entry>, StorageError> {
    let (begin, end) = (meta.base.index + 1, meta.last.index + 1);
    let mut entries = Vec::new();
    if begin < end {
        engine.fetch_entries_to::<RaftEntry>(REGION, begin, end, None, &mut entries).map_err(|e| {
            match engine_error("reading the log in", dir, e) {
                StorageError::Corrupt { path, what } => {
                    StorageError::Corrupt { path: health.last_read().unwrap_or(path), what }
                }
                other => other,
            }
        })?;
    }
    let mut before = meta.base;
    for entry in &entries {
        if entry.index != before.index + 1 || entry.term < before.term {
            let what = format!("entry {} follows {before}; {CURE_REJOIN}", LogPosition::of(entry));
            return Err(StorageError::corrupt(dir, what));
        }
        before = LogPosition::of(entry);
    }
    if before != meta.last {
        let what = format!("its last entry is {before}, but {} was written; {CURE_REJOIN}", meta.last);
        return Err(StorageError::corrupt(dir, what));
    }
    Ok(entries)
}

/// Runs what reads entries back from the engine's files. The engine keeps the last block that a thread read in a
/// thread-local whose key is the number of the file and the place in it, not the directory: a thread that has read one log
/// may be given its bytes for those of another, or for those of the same after its tail was cut. A new thread has read none.
fn on_fresh_thread<T: Send>(
    dir: &Path,
    read: impl FnOnce() -> Result<T, StorageError> + Send,
) -> Result<T, StorageError> {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("log-reader".to_owned()).spawn_scoped(scope, read);
        reader
            .doing("starting a thread to read", dir)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn engine_error(verb: &'static str, dir: &Path, error: raft_engine::Error) -> StorageError {
    use raft_engine::Error;
    match error {
        Error::Io(source) => StorageError::io(verb, dir, source),
        // The engine's word for "there was no space in this file": it then tries another.
        Error::TryAgain(what) => StorageError::Full { verb, path: dir.to_path_buf(), what },
        Error::Corruption(_)
        | Error::Codec(_)
        | Error::Protobuf(_)
        | Error::EntryNotFound
        | Error::EntryCompacted => StorageError::corrupt(dir, format!("{error}; {CURE_REJOIN}")),
        other => StorageError::Io {
            verb,
            path: dir.to_path_buf(),
            source: std::io::Error::other(other.to_string()),
        },
    }
}

/// Finds the damaged file for an error that only knows the directory.
fn name_damage(dir: &Path, error: StorageError) -> StorageError {
    let StorageError::Corrupt { path, what } = error else { return error };
    let damaged = log_files(dir)
        .into_iter()
        .find(|file| Engine::dump(file).map_or(true, |mut items| items.any(|item| item.is_err())));
    StorageError::Corrupt { path: damaged.unwrap_or(path), what }
}

fn lost(dir: &Path, acknowledged: u64, meta: &LogMeta) -> StorageError {
    let cut = log_files_with(dir, CUT_SUFFIX);
    let newest = || log_files_with(dir, ".raftlog").pop();
    let path =
        cut.first().map(|cut| cut.with_extension("")).or_else(newest).unwrap_or_else(|| dir.to_path_buf());
    let kept = cut.first().map(|cut| format!(" (what could not be read is kept in {})", cut.display()));
    let what = format!(
        "{} writes that were acknowledged are missing after entry {}{}; {CURE_REJOIN}",
        acknowledged - meta.batch,
        meta.last,
        kept.unwrap_or_default()
    );
    StorageError::Corrupt { path, what }
}

/// The engine's files, oldest first.
fn log_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = log_files_with(dir, ".raftlog");
    found.extend(log_files_with(dir, ".rewrite"));
    found
}

fn log_files_with(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let names = files::names(dir).unwrap_or_default();
    names.into_iter().filter(|name| name.ends_with(suffix)).map(|name| dir.join(name)).collect()
}

/// Makes durable what a killed process may have left in memory only.
fn sync_files(dir: &Path) -> Result<(), StorageError> {
    for path in log_files(dir) {
        File::open(&path).and_then(|file| file.sync_data()).doing("flushing", &path)?;
    }
    files::sync_dir(dir)
}

fn remove_cuts(dir: &Path) -> Result<(), StorageError> {
    log_files_with(dir, CUT_SUFFIX).iter().try_for_each(|path| files::remove_any(path))
}
