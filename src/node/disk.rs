//! The threads that own the disk: one appends to the log, one at a time writes a checkpoint.
//!
//! While one fsync runs, writes queue up and go into the next together. A log that cannot be written is the end of
//! the member: it stops acknowledging at once and never tries that write again, since a kernel may drop the pages of
//! a failed fsync (PAINS D5). Only a full disk is waited for: what was to be written is not there, and all before it is.
//! Meanwhile nothing is acknowledged, so the member does not count for a quorum, and everything else goes on.

use super::alarms::Alarms;
use super::driver::DriverInput;
use super::space::Space;
use crate::replica::{Input, LogPosition, LogWrite, State};
use crate::storage::{Checkpoints, Log, StorageError, disk_space};
use crossbeam_channel::RecvTimeoutError;
use raft::eraftpb::{Entry, HardState};
use rustix::process::setpriority_process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What the log's thread is told to do.
pub(super) enum DiskJob {
    Write(LogWrite),
    /// Forget entries up to here.
    Compact(LogPosition),
}

/// Figures of the disk, for `/metrics`.
#[derive(Debug, Default)]
pub(super) struct DiskStats {
    pub syncs: AtomicU64,
    pub sync_micros: AtomicU64,
    pub checkpoints: AtomicU64,
}

/// An fsync slower than this is worth a line in the log.
const SLOW_SYNC_MS: u128 = 500;

/// How often a full disk is looked at, and how much must be free beside what is to be written.
const SPACE_RETRY: Duration = Duration::from_secs(1);
const SPACE_MARGIN: u64 = 1 << 20;

/// Writes of a gathered batch beyond this many are left for the next.
const GATHER_MAX: usize = 256;

pub(super) struct LogThread {
    pub log: Arc<Log>,
    /// Frees what the log takes on disk and does not need any more.
    pub freeing: BackgroundThread,
    pub checkpoints: Arc<Checkpoints>,
    pub jobs: mpsc::UnboundedReceiver<DiskJob>,
    pub driver: mpsc::Sender<DriverInput>,
    pub stats: Arc<DiskStats>,
    pub space: Arc<Space>,
    pub alarms: Arc<Alarms>,
    /// Closed when the member stops.
    pub stopped: crossbeam_channel::Receiver<()>,
}

impl LogThread {
    /// Works until the driver is gone, or until something cannot be written.
    pub(super) fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            if let Err(error) = self.work(first) {
                // The driver may be gone already: then nobody needs to know.
                let _ = self.driver.blocking_send(DriverInput::Fatal(error.to_string()));
                return;
            }
        }
    }

    fn work(&mut self, first: DiskJob) -> Result<(), StorageError> {
        let mut gathered = Gathered::default();
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                DiskJob::Compact(base) => {
                    self.write(&std::mem::take(&mut gathered))?;
                    crash_point!("compact.begun");
                    self.when_there_is_space(0, || self.log.compact(base))?;
                    crash_point!("compact.written");
                    self.free_space();
                }
                DiskJob::Write(write) if write.install.is_some() => {
                    self.write(&std::mem::take(&mut gathered))?;
                    self.freeing = BackgroundThread::default();
                    self.install(write)?;
                }
                DiskJob::Write(write) => gathered.add(write),
            }
            if gathered.writes < GATHER_MAX {
                next = self.jobs.try_recv().ok();
            }
        }
        self.write(&gathered)
    }

    fn write(&self, gathered: &Gathered) -> Result<(), StorageError> {
        let Some(number) = gathered.number else { return Ok(()) };
        if !gathered.entries.is_empty() || gathered.hard_state.is_some() {
            let bytes = gathered.entries.iter().map(|entry| entry.data.len() as u64 + 64).sum();
            if self.space.wrote(bytes) {
                let _ = self.driver.blocking_send(DriverInput::Input(Input::Space { short: true }));
            }
            let begun = Instant::now();
            self.when_there_is_space(bytes, || {
                self.log.append(&gathered.entries, gathered.hard_state.as_ref(), gathered.sync)
            })?;
            self.note_sync(begun, gathered.sync);
        }
        self.done(number);
        Ok(())
    }

    /// Does what needs about `bytes` of space; waits while there is none.
    fn when_there_is_space(
        &self,
        bytes: u64,
        mut work: impl FnMut() -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut full = false;
        loop {
            let error = match work() {
                Err(error) if error.is_out_of_space() => error,
                result => {
                    if full && result.is_ok() {
                        self.alarms.full.store(false, Ordering::Relaxed);
                        tracing::info!("there is space on the disk again: the log goes on");
                    }
                    return result;
                }
            };
            if !full {
                full = true;
                self.alarms.full.store(true, Ordering::Relaxed);
                tracing::error!(
                    %error,
                    "the disk is full: this member acknowledges nothing until there is space; reads and watches go on"
                );
            }
            let _ = self.driver.blocking_send(DriverInput::Input(Input::Stalled));
            while self.stopped.recv_timeout(SPACE_RETRY) == Err(RecvTimeoutError::Timeout) {
                if disk_space(self.log.dir()).map_or(true, |seen| seen.free > bytes + SPACE_MARGIN) {
                    break;
                }
                let _ = self.driver.blocking_send(DriverInput::Input(Input::Stalled));
            }
            if self.stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Disconnected) {
                return Err(error);
            }
        }
    }

    /// Removes files of the log, beside what is written to it: appends would wait for that for longer than clients like.
    fn free_space(&mut self) {
        // The last time must be over, since there is one at a time.
        self.freeing = BackgroundThread::default();
        let (log, driver, stopped) = (Arc::clone(&self.log), self.driver.clone(), self.stopped.clone());
        self.freeing = BackgroundThread::spawn("log-files", move || {
            loop {
                match log.free_space() {
                    Ok(()) => {
                        crash_point!("compact.done");
                        break;
                    }
                    Err(error) if error.is_out_of_space() => {
                        if stopped.recv_timeout(SPACE_RETRY) != Err(RecvTimeoutError::Timeout) {
                            break;
                        }
                    }
                    Err(error) => {
                        let _ = driver.blocking_send(DriverInput::Fatal(error.to_string()));
                        break;
                    }
                }
            }
        });
    }

    fn note_sync(&self, begun: Instant, sync: bool) {
        if !sync {
            return;
        }
        let took = begun.elapsed();
        self.stats.syncs.fetch_add(1, Ordering::Relaxed);
        self.stats.sync_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        if took.as_millis() > SLOW_SYNC_MS {
            tracing::warn!(
                took_ms = took.as_millis() as u64,
                "the disk is slow: an fsync of the log took long"
            );
        }
    }

    /// A leader's snapshot: a durable checkpoint first, then the log begins anew after it. A crash between the two
    /// leaves a checkpoint beyond the log's end, which recovery takes as the new base.
    fn install(&self, write: LogWrite) -> Result<(), StorageError> {
        let Some(state) = write.install else { return Ok(()) };
        let at = state.applied;
        let bytes = state.store.byte_count();
        self.when_there_is_space(bytes, || self.checkpoints.save(at, state.as_ref().clone().into_records()))?;
        crash_point!("install.checkpointed");
        let hard_state = write.hard_state.unwrap_or_default();
        self.when_there_is_space(0, || self.log.reset(at, &hard_state))?;
        crash_point!("install.reset");
        self.when_there_is_space(0, || self.log.append(&write.entries, None, true))?;
        crash_point!("install.done");
        self.done(write.number);
        Ok(())
    }

    fn done(&self, number: u64) {
        let _ = self.driver.blocking_send(DriverInput::Input(Input::Persisted { number }));
    }
}

/// Several writes as one.
#[derive(Default)]
struct Gathered {
    writes: usize,
    number: Option<u64>,
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
    sync: bool,
}

impl Gathered {
    fn add(&mut self, write: LogWrite) {
        self.writes += 1;
        self.number = Some(write.number);
        if let Some(first) = write.entries.first() {
            while self.entries.last().is_some_and(|last| last.index >= first.index) {
                self.entries.pop();
            }
        }
        self.entries.extend(write.entries);
        self.hard_state = write.hard_state.or(self.hard_state.take());
        self.sync |= write.sync;
    }
}

/// A thread that works on the disk for a while, if there is one. Dropping this waits for it: a member that has stopped
/// has stopped writing, and its directory may be opened again.
#[derive(Default)]
pub(super) struct BackgroundThread(Option<JoinHandle<()>>);

impl BackgroundThread {
    fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Self {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work);
        Self(
            thread.inspect_err(|error| tracing::error!(%error, "could not start a thread for the disk")).ok(),
        )
    }
}

impl Drop for BackgroundThread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// A checkpoint's thread yields to those that clients wait for.
const NICENESS: i32 = 10;

/// Gives a checkpoint its records, and pauses for twice as long as was worked on them: a checkpoint of some hundred MiB
/// as fast as it can be written takes the disk from the log, and the processor from everyone, for a second. A member that
/// stops waits for its checkpoint, and is not kept waiting by pauses.
struct Gently<I> {
    records: I,
    since: Instant,
    stopped: crossbeam_channel::Receiver<()>,
}

impl<I: Iterator> Iterator for Gently<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        /// Work between two pauses; a disk may take longer, and is not waited for longer than this times ten.
        const WORK: Duration = Duration::from_millis(2);
        let worked = self.since.elapsed();
        if worked >= WORK {
            let _ = self.stopped.recv_timeout(2 * worked.min(10 * WORK));
            self.since = Instant::now();
        }
        self.records.next()
    }
}

/// Writes a checkpoint on a thread of its own and tells the driver how far the log is needed now.
pub(super) fn checkpoint_in_background(
    checkpoints: Arc<Checkpoints>,
    state: State,
    driver: mpsc::Sender<DriverInput>,
    stats: Arc<DiskStats>,
    stopped: crossbeam_channel::Receiver<()>,
) -> BackgroundThread {
    let work = move || {
        let at = state.applied;
        let begun = Instant::now();
        // The thread, and those of sled that it starts. All that may go wrong is that it is not so.
        let _ = setpriority_process(None, NICENESS);
        let records = Gently { records: state.into_records(), since: begun, stopped };
        // sled panics where others return an error (PAINS D7.9); the checkpoint's directory is worthless then anyway.
        let save = std::panic::AssertUnwindSafe(|| checkpoints.save(at, records));
        let outcome = match std::panic::catch_unwind(save) {
            Ok(Ok(())) => {
                stats.checkpoints.fetch_add(1, Ordering::Relaxed);
                let took_ms = begun.elapsed().as_millis() as u64;
                tracing::info!(index = at.index, took_ms, "wrote a checkpoint");
                crash_point!("checkpoint.done");
                DriverInput::Checkpointed { upto: checkpoints.oldest_kept().unwrap_or_default() }
            }
            // The log still holds everything: the next attempt may do better.
            Ok(Err(error)) => {
                tracing::error!(%error, "could not write a checkpoint; the log is kept instead");
                DriverInput::CheckpointFailed
            }
            Err(_) => {
                tracing::error!("writing a checkpoint panicked; the log is kept instead");
                DriverInput::CheckpointFailed
            }
        };
        let _ = driver.blocking_send(outcome);
    };
    BackgroundThread::spawn("checkpoint", work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_a_member_that_stops_makes_no_pauses() {
        let (running, stopped) = crossbeam_channel::bounded::<()>(0);
        drop(running);
        let begun = Instant::now();
        let mut records = Gently { records: 0..50, since: begun, stopped };
        for number in 0..50 {
            // As after a second of work.
            records.since = begun.checked_sub(Duration::from_secs(1)).unwrap();
            assert_eq!(records.next(), Some(number));
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "two seconds of pauses");
    }
}
