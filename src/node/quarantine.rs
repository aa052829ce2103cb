//! A member whose state differs from its leader's at the same index of the log: it must not be believed in anything.
//!
//! It answers every request for a key with an error, says nothing to the other members, so that it neither votes nor
//! counts for a quorum, and stays up, so that `/health`, the metrics and the log say what is wrong. A note in its data
//! directory keeps it from starting again with that state.
//!
//! What it does not do: find out which of the two is wrong. The leader's state is the one that a quorum goes on with.

use super::alarms::Alarms;
use super::driver::DriverInput;
use super::{StartError, config::Config};
use crate::http::backend::BackendError;
use crate::replica::LogPosition;
use crate::storage::DataDir;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc::Receiver;

/// Names the note.
const NOTE: &str = "diverged";

/// Refuses to start on a state that was found to differ.
pub(super) fn refuse_diverged(config: &Config, dir: &DataDir) -> Result<(), StartError> {
    match dir.note(NOTE)? {
        Some(note) => Err(StartError::Diverged {
            path: config.data_dir().display().to_string(),
            index: String::from_utf8_lossy(&note).into_owned(),
        }),
        None => Ok(()),
    }
}

/// Makes it durable.
pub(super) fn keep(dir: &DataDir, index: u64) {
    if let Err(error) = dir.save_note(NOTE, index.to_string().as_bytes()) {
        tracing::error!(%error, "the alarm could not be kept: a restart will not know of it, do not restart this member");
    }
}

/// Raises the alarm, and refuses everything until the member is stopped.
pub(super) async fn hold(
    inputs: &mut Receiver<DriverInput>,
    alarms: &Alarms,
    keep_alarm: &dyn Fn(u64),
    at: LogPosition,
) -> Result<(), String> {
    alarms.diverged.store(true, Ordering::SeqCst);
    keep_alarm(at.index);
    tracing::error!(
        index = at.index,
        term = at.term,
        "ALARM: the state of this member differs from the leader's at this index of the log. It serves nothing and does \
         not vote any more. Remove it from the cluster, keep its data directory for a report, and let it join anew with an \
         empty one"
    );
    while let Some(input) = inputs.recv().await {
        match input {
            DriverInput::Write { reply, .. } => drop(reply.send(Err(BackendError::Corrupt))),
            DriverInput::Read { reply } | DriverInput::Look { reply } => {
                drop(reply.send(Err(BackendError::Corrupt)));
            }
            DriverInput::Publish { reply, .. } => drop(reply.send(false)),
            DriverInput::Change { reply, .. } => drop(reply.send(Err(BackendError::Corrupt.into()))),
            DriverInput::Fatal(error) => return Err(error),
            DriverInput::Stop => break,
            DriverInput::Input(_) | DriverInput::Checkpointed { .. } | DriverInput::CheckpointFailed => {}
        }
    }
    Ok(())
}
