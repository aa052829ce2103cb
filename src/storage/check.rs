//! Looks at each file of a data directory that no member is using, and changes nothing in it.

use std::fs;
use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoints;
use super::data_dir::{DataDir, decode_clock};
use super::error::{Doing, StorageError};
use super::files::{self, UNFINISHED};
use super::log::{Log, RecoveredLog};
use super::log_meta::SyncedBatch;
use super::recovery::check_log;

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckReport {
    /// What is there, one thing a line.
    pub lines: Vec<String>,
    /// What is wrong with it and what helps; empty if a member can start from the directory.
    pub problems: Vec<String>,
}

impl CheckReport {
    /// Nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn take<T>(&mut self, what: Result<T, StorageError>) -> Option<T> {
        what.map_err(|e| self.problems.push(e.to_string())).ok()
    }
}

/// Checks the identity, the small files, the log and each checkpoint of the data directory `path`, which must not be in use. The log is
/// read as a copy in the system's temporary directory, since reading it may mend it.
pub fn check(path: &Path) -> Result<CheckReport, StorageError> {
    let data_dir = DataDir::open_existing(path)?;
    let mut report = CheckReport::default();
    match report.take(data_dir.identity()) {
        Some(Some(id)) => {
            let line =
                format!("identity: member {:x} ({}) of cluster {:x}", id.member_id, id.name, id.cluster_id);
            report.lines.push(line);
        }
        Some(None) => report.lines.push("identity: none yet, the member has not joined a cluster".to_owned()),
        None => {}
    }
    check_small_files(&data_dir, &mut report)?;
    let log = check_log_dir(&data_dir.log_path(), &mut report)?;
    check_state_dir(&data_dir.state_path(), log.as_ref(), &mut report)?;
    Ok(report)
}

/// Notes are needed for a start; the two hints are not, and are written anew.
fn check_small_files(data_dir: &DataDir, report: &mut CheckReport) -> Result<(), StorageError> {
    for name in data_dir.notes()? {
        report.take(data_dir.note(&name));
    }
    let synced = data_dir.log_path().join(SyncedBatch::NAME);
    let mut check_hint = |path: &Path, whole: fn(&[u8]) -> bool| {
        let bytes = fs::read(path).unwrap_or_default();
        if !bytes.is_empty() && !whole(&bytes) {
            report
                .lines
                .push(format!("{} is damaged; it is a hint, and a start writes it anew", path.display()));
        }
    };
    check_hint(&data_dir.clock_path(), |bytes| decode_clock(bytes).is_some());
    check_hint(&synced, |bytes| SyncedBatch::decode(bytes).is_some());
    Ok(())
}

fn check_log_dir(dir: &Path, report: &mut CheckReport) -> Result<Option<RecoveredLog>, StorageError> {
    if !dir.exists() {
        report.lines.push("log: none yet".to_owned());
        return Ok(None);
    }
    let scratch = Scratch::new()?;
    for name in files::names(dir)? {
        let (from, to) = (dir.join(&name), scratch.0.join(&name));
        fs::copy(&from, &to).doing("copying", &from)?;
    }
    let opened = Log::open(&scratch.0).and_then(|(log, found)| check_log(&log, &found).map(|()| found));
    let found = report.take(opened.map_err(|e| renamed(e, &scratch.0, dir)));
    if let Some(found) = &found {
        report.lines.push(format!(
            "log: {} entries after {}, last {}, term {}, commit {}",
            found.entries.len(),
            found.base,
            found.last(),
            found.hard_state.term,
            found.hard_state.commit
        ));
    }
    Ok(found)
}

fn check_state_dir(
    dir: &Path,
    log: Option<&RecoveredLog>,
    report: &mut CheckReport,
) -> Result<(), StorageError> {
    let checkpoints = Checkpoints::at(dir);
    let places = if dir.exists() { checkpoints.places()? } else { Vec::new() };
    let mut newest = None;
    for (index, place) in places {
        if let Some((at, records)) = report.take(checkpoints.load(&place, index)) {
            report.lines.push(format!("checkpoint: {at}, {} records", records.len()));
            newest = Some(at);
        }
    }
    match (newest, log) {
        (None, Some(log)) if *log != RecoveredLog::default() => {
            report.problems.push(format!("{}: there is a log, but no sound checkpoint", dir.display()));
        }
        (None, _) => report.lines.push("checkpoint: none yet".to_owned()),
        (Some(at), Some(log)) if at.index < log.base.index => {
            report.problems.push(format!(
                "{}: entries between {at} and {} are missing",
                dir.display(),
                log.base
            ));
        }
        (Some(_), _) => {}
    }
    Ok(())
}

/// Speaks of the real file where the error names its copy.
fn renamed(error: StorageError, copy: &Path, real: &Path) -> StorageError {
    match error {
        StorageError::Corrupt { path, what } => {
            let path = path.strip_prefix(copy).map_or_else(|_| path.clone(), |rest| real.join(rest));
            let what = what.replace(&copy.display().to_string(), &real.display().to_string());
            StorageError::Corrupt { path, what }
        }
        other => other,
    }
}

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, StorageError> {
        let path = std::env::temp_dir().join(format!("quorate-{:016x}{UNFINISHED}", rand::random::<u64>()));
        files::make_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
