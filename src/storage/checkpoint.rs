//! Checkpoints of the applied state: each an immutable sled database in a directory of its own.
//!
//! A checkpoint is built under an unfinished name, fsynced with all its files, listed in its manifest, and renamed. So at
//! any moment there are whole checkpoints under final names and rubbish under others. The newest two are kept, and while
//! another is written only the newest, which is read and checked before the other goes: so the disk never holds three.
//! Space comes back by deleting whole directories, never by sled's own collection.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::LogPosition;
use super::database;
use super::error::{Doing, StorageError};
use super::files::{self, UNFINISHED};
use super::manifest::{CURE_CHECKPOINT, Manifest};
use crate::proto::state::{Record, record::Body};

/// So that the loss of one, with the log back to the older, loses nothing.
const KEPT: usize = 2;

/// Suffix of a checkpoint that was found damaged; the newest two are left for people to look at.
const DAMAGED: &str = ".damaged";

/// Free space that a checkpoint leaves to the log.
const RESERVE_BYTES: u64 = 32 << 20;

/// The checkpoints of a member. Safe to share: one is written at a time.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    /// Positions of the whole ones, ascending.
    kept: Mutex<Vec<LogPosition>>,
    reserve_bytes: u64,
}

/// A checkpoint, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedCheckpoint {
    /// Everything up to here is in it.
    pub at: LogPosition,
    /// `Head`, `Page`s, `History` pages, in the order in which they were saved. The `Tail` was checked and is not here.
    pub records: Vec<Record>,
    /// Newer ones that were damaged, and where they are now.
    pub damaged: Vec<PathBuf>,
}

impl Checkpoints {
    /// Opens the checkpoints in `dir`, and removes what a crash left unfinished.
    pub fn open(dir: &Path) -> Result<Checkpoints, StorageError> {
        files::make_dir(dir)?;
        // A process that was killed may have renamed one and not synced that; the log is cut by what is here.
        files::sync_dir(dir)?;
        let names = files::names(dir)?;
        for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
            files::remove_any(&dir.join(name))?;
        }
        let damaged: Vec<&String> = names.iter().filter(|name| name.ends_with(DAMAGED)).collect();
        for name in damaged.iter().rev().skip(KEPT) {
            files::remove_any(&dir.join(name))?;
        }
        let mut kept: Vec<LogPosition> = names
            .iter()
            .filter_map(|name| parse_name(name))
            .filter_map(|index| Manifest::read(&dir.join(name_of(index))).ok())
            .map(|manifest| manifest.at())
            .collect();
        kept.sort_unstable();
        Ok(Checkpoints { dir: dir.to_path_buf(), kept: Mutex::new(kept), reserve_bytes: RESERVE_BYTES })
    }

    /// Removes all but the newest, then writes another and makes it durable. `records` are `Head`, `Page`s and `History`
    /// pages; the `Tail` is added here. One that is already there for that index is left as it is.
    ///
    /// An error leaves the newest, and another attempt may follow.
    pub fn save(&self, at: LogPosition, records: impl Iterator<Item = Record>) -> Result<(), StorageError> {
        let mut kept = self.lock();
        let place = self.dir.join(name_of(at.index));
        if !kept.contains(&at) {
            self.make_room(&mut kept)?;
            tracing::debug!("there is room for a checkpoint");
            let unfinished = self.dir.join(name_of(at.index) + UNFINISHED);
            let built = self.build(&unfinished, at, records).and_then(|()| {
                if place.exists() {
                    self.set_aside(&place)?;
                }
                fs::rename(&unfinished, &place).doing("renaming a checkpoint to", &place)
            });
            if let Err(e) = built {
                let _ = files::remove_any(&unfinished);
                return Err(e);
            }
            crash_point!("checkpoint.renamed");
            files::sync_dir(&self.dir)?;
            crash_point!("checkpoint.durable");
            kept.push(at);
            kept.sort_unstable();
        }
        Ok(())
    }

    /// Removes all but the newest, if that is what it was. One that is damaged is set aside instead.
    fn make_room(&self, kept: &mut Vec<LogPosition>) -> Result<(), StorageError> {
        while let [.., newest] = kept[..]
            && kept.len() >= KEPT
        {
            let place = self.dir.join(name_of(newest.index));
            match Manifest::read(&place).and_then(|manifest| manifest.verify(&place)) {
                Ok(()) => {}
                Err(e @ StorageError::Corrupt { .. }) => {
                    tracing::error!("checkpoint {}: {e}", newest.index);
                    self.set_aside(&place)?;
                    kept.pop();
                    continue;
                }
                Err(e) => {
                    // It may be readable another time; until then the others stay as well.
                    tracing::error!("checkpoint {}: {e}", newest.index);
                    return Ok(());
                }
            }
            for older in kept.drain(..kept.len() - 1) {
                // What could not be removed now is removed when the member starts again.
                if let Err(e) = discard(&self.dir.join(name_of(older.index))) {
                    tracing::warn!("an old checkpoint stays: {e}");
                }
            }
        }
        Ok(())
    }

    /// The newest checkpoint that is whole. Damaged ones on the way are renamed (`.damaged`) and logged; `None` when no
    /// whole one is left. Any failure that is not damage (permissions, no memory or space to read it) is an error. One
    /// that the disk does not give back is passed over too, but only where there is another: it may do so next time.
    pub fn load_newest(&self) -> Result<Option<LoadedCheckpoint>, StorageError> {
        let mut passed_over = Vec::new();
        let mut unreadable = None;
        let mut found = None;
        for (index, place) in self.places()?.into_iter().rev() {
            match self.load(&place, index) {
                Ok(whole) => {
                    found = Some(whole);
                    break;
                }
                Err(e @ (StorageError::Corrupt { .. } | StorageError::Unreadable { .. })) => {
                    tracing::error!("checkpoint {index}: {e}");
                    passed_over.push((index, place));
                    if matches!(e, StorageError::Unreadable { .. }) {
                        unreadable = Some(e);
                    }
                }
                Err(e) => return Err(e),
            }
        }
        if let (None, Some(e)) = (&found, unreadable) {
            return Err(e);
        }
        let mut damaged = Vec::new();
        for (index, place) in passed_over {
            damaged.push(self.set_aside(&place)?);
            self.lock().retain(|at| at.index != index);
        }
        Ok(found.map(|(at, records)| LoadedCheckpoint { at, records, damaged }))
    }

    /// The oldest checkpoint: the log may be compacted up to here.
    pub fn oldest_kept(&self) -> Option<LogPosition> {
        self.lock().first().copied()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn build(
        &self,
        dir: &Path,
        at: LogPosition,
        records: impl Iterator<Item = Record>,
    ) -> Result<(), StorageError> {
        files::remove_any(dir)?;
        files::make_dir(dir)?;
        crash_point!("checkpoint.begun");
        database::write(dir, records, self.reserve_bytes)?;
        tracing::debug!("a checkpoint's database is written");
        crash_point!("checkpoint.written");
        Manifest::seal(dir, at)?;
        tracing::debug!("a checkpoint is sealed");
        crash_point!("checkpoint.sealed");
        Ok(())
    }

    /// Reads a checkpoint without changing it: sled writes when it opens, so it gets a copy.
    pub(crate) fn load(&self, place: &Path, index: u64) -> Result<(LogPosition, Vec<Record>), StorageError> {
        let manifest = Manifest::read(place)?;
        let at = manifest.at();
        let mut last = None;
        for parent in scratch_parents(&self.dir) {
            let scratch = parent.join(format!("quorate-{:016x}{UNFINISHED}", rand::random::<u64>()));
            let read = files::make_dir(&scratch)
                .and_then(|()| manifest.copy_verified(place, &scratch))
                .and_then(|()| database::read(&scratch));
            let removed = files::remove_any(&scratch);
            match read {
                // A member must start on a full disk: there may be space elsewhere.
                Err(e) if e.is_out_of_space() => last = Some(e),
                Err(StorageError::Corrupt { path, what }) => {
                    let path =
                        path.strip_prefix(&scratch).map_or_else(|_| path.clone(), |rest| place.join(rest));
                    return Err(StorageError::Corrupt { path, what });
                }
                Err(e) => return Err(e),
                Ok(records) => {
                    removed?;
                    check_head(place, index, at, &records)?;
                    return Ok((at, records));
                }
            }
        }
        Err(last
            .unwrap_or_else(|| StorageError::io("reading", place, std::io::ErrorKind::StorageFull.into())))
    }

    /// Whole or damaged, ascending.
    pub(crate) fn places(&self) -> Result<Vec<(u64, PathBuf)>, StorageError> {
        let names = files::names(&self.dir)?;
        Ok(names.iter().filter_map(|name| Some((parse_name(name)?, self.dir.join(name)))).collect())
    }

    fn set_aside(&self, place: &Path) -> Result<PathBuf, StorageError> {
        let mut aside = place.as_os_str().to_owned();
        aside.push(DAMAGED);
        let aside = PathBuf::from(aside);
        files::remove_any(&aside)?;
        fs::rename(place, &aside).doing("moving aside", place)?;
        files::sync_dir(&self.dir)?;
        Ok(aside)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<LogPosition>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For [`check`](super::check): looks, and removes nothing.
    pub(crate) fn at(dir: &Path) -> Checkpoints {
        Checkpoints { dir: dir.to_path_buf(), kept: Mutex::default(), reserve_bytes: RESERVE_BYTES }
    }

    /// Free space that a checkpoint is to leave to the log; without this, 32 MiB.
    pub fn set_reserve_bytes(&mut self, bytes: u64) {
        self.reserve_bytes = bytes;
    }
}

/// Renames before it deletes, so that a crash does not leave half a checkpoint under a final name.
fn discard(place: &Path) -> Result<(), StorageError> {
    let mut unfinished = place.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    fs::rename(place, &unfinished).doing("removing", place)?;
    crash_point!("checkpoint.discarding");
    let unfinished = Path::new(&unfinished);
    if let Err(error) = files::shrink_gently(unfinished) {
        tracing::debug!(%error, "an old checkpoint is removed at once");
    }
    files::remove_any(unfinished)
}

fn scratch_parents(dir: &Path) -> [PathBuf; 3] {
    [dir.to_path_buf(), PathBuf::from("/dev/shm"), std::env::temp_dir()]
}

fn check_head(place: &Path, index: u64, at: LogPosition, records: &[Record]) -> Result<(), StorageError> {
    let head = match records.first().and_then(|record| record.body.as_ref()) {
        Some(Body::Head(head)) => LogPosition { index: head.applied_index, term: head.applied_term },
        _ => {
            return Err(StorageError::corrupt(
                place,
                format!("it does not begin with a head; {CURE_CHECKPOINT}"),
            ));
        }
    };
    if head == at && index == at.index {
        return Ok(());
    }
    Err(StorageError::corrupt(place, format!("its head says {head}, its manifest {at}; {CURE_CHECKPOINT}")))
}

fn name_of(index: u64) -> String {
    format!("{index:016x}")
}

fn parse_name(name: &str) -> Option<u64> {
    let index = u64::from_str_radix(name, 16).ok()?;
    (name_of(index) == name).then_some(index)
}
