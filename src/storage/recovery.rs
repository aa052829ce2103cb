//! Where a member left off: the newest sound checkpoint and the log, brought into agreement.
//!
//! A crash can fall between a checkpoint and the change of the log that belongs to it:
//! - a checkpoint of the member's own state is written, the log is not yet compacted: the log simply reaches further back;
//! - a snapshot of the leader's state is written as a checkpoint, the log is not yet reset: it ends before the checkpoint,
//!   or goes on from another history. The reset is made up for here.

use raft::eraftpb::{Entry, HardState};

use super::LogPosition;
use super::checkpoint::{Checkpoints, LoadedCheckpoint};
use super::error::{CURE_REJOIN, StorageError};
use super::log::{Log, RecoveredLog};
use crate::proto::state::{Record, record::Body};

/// The open storage of a member.
#[derive(Debug)]
pub struct Storage {
    /// Entries and hard state.
    pub log: Log,
    /// The applied state.
    pub checkpoints: Checkpoints,
    /// What was found on opening.
    pub recovered: Recovered,
}

/// What a member had when it stopped. `base.index <= checkpoint.index <= commit <= last index`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recovered {
    /// The newest sound checkpoint: its position and its records without the tail. `None` for a member that has never
    /// written one, which then has nothing else either.
    pub checkpoint: Option<(LogPosition, Vec<Record>)>,
    /// Everything up to here is not in the log.
    pub base: LogPosition,
    /// The entries after the base; those up to the checkpoint are in it already.
    pub entries: Vec<Entry>,
    /// Never behind the checkpoint.
    pub hard_state: HardState,
    /// Checkpoints that were damaged, and where they are now.
    pub damaged: Vec<std::path::PathBuf>,
}

/// How the log relates to the checkpoint.
enum Fit {
    /// The checkpoint is the base, or an entry of the log.
    Within,
    /// The log ends before it, or is another history: it is void.
    Replaced,
}

/// Loads the newest checkpoint and fits the log to it; see [`Recovered`].
pub fn recover(checkpoints: &Checkpoints, log: &Log, found: RecoveredLog) -> Result<Recovered, StorageError> {
    recover_of(None, checkpoints, log, found)
}

/// As [`recover`], and refuses a checkpoint of another cluster.
pub(crate) fn recover_of(
    cluster_id: Option<u64>,
    checkpoints: &Checkpoints,
    log: &Log,
    found: RecoveredLog,
) -> Result<Recovered, StorageError> {
    check_log(log, &found)?;
    let Some(LoadedCheckpoint { at, records, damaged }) = checkpoints.load_newest()? else {
        if found == RecoveredLog::default() {
            return Ok(Recovered::default());
        }
        let what = format!("no sound checkpoint is left, and the log alone is not the state; {CURE_REJOIN}");
        return Err(StorageError::corrupt(checkpoints.dir(), what));
    };
    refuse_other_cluster(cluster_id, checkpoints, &records)?;
    let mut hard_state = found.hard_state.clone();
    if hard_state.term < at.term {
        // The vote was for the old term.
        hard_state.term = at.term;
        hard_state.vote = 0;
    }
    hard_state.commit = hard_state.commit.max(at.index);
    let (base, entries) = match fit(checkpoints, at, &found)? {
        Fit::Within => (found.base, found.entries),
        Fit::Replaced => {
            tracing::warn!("the log ends at {}; going on from the snapshot at {at}", found.last());
            hard_state.commit = at.index;
            crash_point!("recover.resetting");
            log.reset(at, &hard_state)?;
            crash_point!("recover.reset");
            (at, Vec::new())
        }
    };
    Ok(Recovered { checkpoint: Some((at, records)), base, entries, hard_state, damaged })
}

fn fit(checkpoints: &Checkpoints, at: LogPosition, log: &RecoveredLog) -> Result<Fit, StorageError> {
    if at.index < log.base.index {
        let what = format!(
            "the newest sound checkpoint is {at}, but the log begins only after {}; {CURE_REJOIN}",
            log.base
        );
        return Err(StorageError::corrupt(checkpoints.dir(), what));
    }
    if at.index > log.last().index {
        return Ok(Fit::Replaced);
    }
    let there = match at.index - log.base.index {
        0 => log.base,
        offset => LogPosition::of(&log.entries[offset as usize - 1]),
    };
    if there == at {
        return Ok(Fit::Within);
    }
    if at.index > log.hard_state.commit {
        return Ok(Fit::Replaced);
    }
    let what = format!("the checkpoint is {at}, but the log has committed {there}; {CURE_REJOIN}");
    Err(StorageError::corrupt(checkpoints.dir(), what))
}

/// What must hold of any log, whatever its checkpoints.
pub(crate) fn check_log(log: &Log, found: &RecoveredLog) -> Result<(), StorageError> {
    let last = found.last();
    let HardState { term, commit, .. } = found.hard_state;
    if commit > last.index {
        let what = format!("{commit} is committed, but the last entry is {last}; {CURE_REJOIN}");
        return Err(StorageError::corrupt(log.dir(), what));
    }
    if term < last.term {
        let what = format!("the term is {term}, but the last entry is {last}; {CURE_REJOIN}");
        return Err(StorageError::corrupt(log.dir(), what));
    }
    Ok(())
}

fn refuse_other_cluster(
    cluster_id: Option<u64>,
    checkpoints: &Checkpoints,
    records: &[Record],
) -> Result<(), StorageError> {
    let (Some(wanted), Some(Body::Head(head))) =
        (cluster_id, records.first().and_then(|record| record.body.as_ref()))
    else {
        return Ok(());
    };
    if head.cluster_id == wanted {
        return Ok(());
    }
    let what = format!(
        "the state is of cluster {:x}, but this member is of cluster {wanted:x}; put back the files that belong together",
        head.cluster_id
    );
    Err(StorageError::Foreign { path: checkpoints.dir().to_path_buf(), what })
}
