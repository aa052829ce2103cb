//! Runs the core: takes what happened, steps the replica, carries out its effects.
//!
//! It never waits for a disk or a socket. What gathers in its queue while it works becomes one batch, so load makes
//! batches larger and one client alone waits for nothing.
//!
//! It shares its thread with the connections to the other members (see [`super`]): what a peer sent is stepped, and
//! what a peer is to get is written, without waking another thread. So between two batches it lets them have a turn.

use super::checkpoints::CheckpointPlan;
use super::disk::{self, BackgroundThread, DiskJob};
use super::links::{Links, Settings};
use super::publisher::{self, Publisher};
use super::quarantine;
use super::waiters::{ChangeReply, ReadReply, Waiter, Waiters, WriteReply};
use super::watch::News;
use crate::http::backend::BackendError;
use crate::replica::{Effects, Input, LogPosition, MemberChange, Replica};
use crate::store::{Action, ClusterTime, Command};
use crossbeam_channel::TrySendError;
use raft::eraftpb::Message;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Inputs that may wait for the driver; clients beyond that are told so, peers' messages are dropped.
pub(super) const QUEUE_MAX: usize = 65_536;

/// Batches of events that may wait for the thread that tells watchers; beyond that they look into the history.
pub(super) const NEWS_MAX: usize = 256;

/// Log writes for which messages to peers may wait.
const HELD_MAX: usize = 16_384;

/// Inputs taken in before their effects are carried out.
const GATHER_MAX: usize = 4_096;

/// What the driver takes in.
pub(super) enum DriverInput {
    Input(Input),
    Write {
        command: Command,
        reply: WriteReply,
    },
    Read {
        reply: ReadReply,
    },
    /// Somebody wants the member's own state, and none is published.
    Look {
        reply: ReadReply,
    },
    Publish {
        name: String,
        client_urls: Vec<String>,
        reply: oneshot::Sender<bool>,
    },
    Change {
        change: MemberChange,
        reply: ChangeReply,
    },
    Checkpointed {
        upto: LogPosition,
    },
    CheckpointFailed,
    /// The disk failed: the member must stop.
    Fatal(String),
    /// Stop in an orderly way.
    Stop,
}

/// Why the driver goes on no more.
enum End {
    /// The member must stop; why.
    Fatal(String),
    /// The state differs from the leader's.
    Diverged(LogPosition),
}

impl From<String> for End {
    fn from(error: String) -> Self {
        Self::Fatal(error)
    }
}

pub(super) struct Driver {
    replica: Replica,
    links: Links,
    settings: Settings,
    waiters: Waiters,
    /// What is to be sent once the log write of that number is on disk, by number.
    held: VecDeque<(u64, Vec<Message>)>,
    checkpoint: CheckpointPlan,
    checkpoint_thread: BackgroundThread,
    publisher: Publisher,
    clock_kept: (u64, u64),
    /// Watchers were not told of everything.
    news_lost: bool,
}

impl Driver {
    pub(super) fn new(replica: Replica, links: Links, settings: Settings) -> Self {
        let applied = replica.state().applied.index;
        let own = links.status.load().status.id;
        let checkpoint = CheckpointPlan::new(settings.checkpoints, own, applied, replica.log_bytes());
        Self {
            replica,
            links,
            settings,
            waiters: Waiters::default(),
            held: VecDeque::new(),
            checkpoint,
            checkpoint_thread: BackgroundThread::default(),
            publisher: Publisher::default(),
            clock_kept: (0, 0),
            news_lost: false,
        }
    }

    /// Runs until it is told to stop. Gives the thread of a checkpoint that may be under way.
    ///
    /// # Errors
    /// The member must not go on: its disk or an invariant failed. The text says which.
    pub(super) async fn run(mut self) -> (Result<(), String>, BackgroundThread) {
        let at = match self.work().await {
            Ok(()) => return (Ok(()), self.checkpoint_thread),
            Err(End::Fatal(error)) => return (Err(error), self.checkpoint_thread),
            Err(End::Diverged(at)) => at,
        };
        self.waiters.fail_all(&BackendError::Corrupt);
        self.end_watches();
        let Links { inputs, alarms, keep_alarm, .. } = &mut self.links;
        let ended = quarantine::hold(inputs, alarms, keep_alarm, at).await;
        (ended, self.checkpoint_thread)
    }

    async fn work(&mut self) -> Result<(), End> {
        let mut next_tick = self.links.clock.now() + self.settings.tick;
        let mut wake_at = self.flush()?;
        loop {
            let now = self.links.clock.now();
            let until = wake_at.map_or(next_tick, |wake| wake.min(next_tick));
            let mut stop = false;
            if !self.links.inputs.is_empty() {
                // The peers' connections have their turn first; without inputs they get it anyway.
                tokio::task::yield_now().await;
            }
            // Nothing is not the end: the driver holds a sender itself.
            if let Ok(Some(input)) = timeout(until.saturating_sub(now), self.links.inputs.recv()).await {
                stop = self.gather(input)?;
            }
            let now = self.links.clock.now();
            if now >= next_tick {
                self.replica.step(now, Input::Tick);
                self.keep_clock(now);
                // After a pause one tick, not all that were missed: nobody was heard meanwhile.
                next_tick = now + self.settings.tick;
            }
            wake_at = self.flush()?;
            if stop {
                self.keep_clock(now);
                return Ok(());
            }
        }
    }

    /// Takes in one input and what else waits. Whether to stop.
    fn gather(&mut self, first: DriverInput) -> Result<bool, String> {
        let now = self.links.clock.now();
        let mut stop = self.take(now, first)?;
        for _ in 1..GATHER_MAX {
            let Ok(input) = self.links.inputs.try_recv() else { break };
            stop |= self.take(now, input)?;
        }
        Ok(stop)
    }

    fn take(&mut self, now: Duration, input: DriverInput) -> Result<bool, String> {
        match input {
            DriverInput::Input(Input::Persisted { number }) => {
                // The core first: an answer to what is sent must not reach it before it knows of the write, or a member
                // could win a vote with entries that it does not count as its own yet, which is fatal to raft.
                self.replica.step(now, Input::Persisted { number });
                self.release(number);
            }
            DriverInput::Input(input) => {
                if let Input::Space { short } = input {
                    self.checkpoint.set_hurry(short);
                }
                self.replica.step(now, input);
            }
            DriverInput::Write { command, reply } => {
                let token = self.waiters.add(Waiter::Write(reply));
                self.replica.step(now, Input::Write { token, command });
            }
            DriverInput::Read { reply } => {
                let token = self.waiters.add(Waiter::Read(reply));
                self.replica.step(now, Input::Read { token });
            }
            DriverInput::Look { reply } => self.publisher.ask(reply),
            DriverInput::Publish { name, client_urls, reply } => {
                let token = self.waiters.add(Waiter::Publish(reply));
                self.replica.step(now, Input::Publish { token, name, client_urls });
            }
            DriverInput::Change { change, reply } => {
                crash_point!("change.asked");
                let token = self.waiters.add(Waiter::Change(reply));
                self.replica.step(now, Input::Change { token, change });
            }
            DriverInput::Checkpointed { upto } => {
                self.checkpoint.ended();
                self.replica.step(now, Input::Compactable { upto });
            }
            DriverInput::CheckpointFailed => self.checkpoint.failed(now),
            DriverInput::Fatal(error) => return Err(error),
            DriverInput::Stop => return Ok(true),
        }
        Ok(false)
    }

    /// Keeps what must not be sent before this log write is on disk. While a disk stands still, not for ever: any message
    /// to a peer may be lost.
    fn hold_back(&mut self, number: u64, messages: Vec<Message>) {
        if !messages.is_empty() && self.held.len() < HELD_MAX {
            self.held.push_back((number, messages));
        }
    }

    /// Sends what waited for this log write and those before it.
    fn release(&mut self, number: u64) {
        while self.held.front().is_some_and(|(write, _)| *write <= number) {
            let Some((_, messages)) = self.held.pop_front() else { return };
            self.links.peers.send_messages(messages);
        }
    }

    /// Carries out what the core wants, in its order; returns when it wants to be stepped again.
    fn flush(&mut self) -> Result<Option<Duration>, End> {
        let now = self.links.clock.now();
        self.publisher.take_back(&self.links);
        let effects = self.replica.flush(now)?;
        let wake_at = effects.wake_at;
        self.carry_out(effects)?;
        Ok(wake_at)
    }

    fn carry_out(&mut self, effects: Effects) -> Result<(), End> {
        for (to, outgoing) in effects.send {
            self.links.peers.send(to, outgoing);
        }
        for mut write in effects.writes {
            crash_point!("write.sent");
            self.hold_back(write.number, std::mem::take(&mut write.then_send));
            self.checkpoint.wrote(write.entries.iter().map(|e| e.data.len() as u64 + 64).sum());
            if self.links.disk.send(DiskJob::Write(write)).is_err() {
                return Err(self.why_the_log_ended().into());
            }
        }
        self.links.clock.set_offset(self.replica.clock_offset_micros());
        let expired = effects.events.iter().filter(|o| o.event.action == Action::Expire).count();
        publisher::note_standing(&self.replica, &self.links, expired as u64);
        if effects.publish {
            self.publisher.publish(&self.replica, &self.links);
        }
        if effects.removed {
            self.leave();
        }
        let gap = effects.watchers_cleared || self.news_lost;
        let watches = &self.links.watches;
        if (gap && watches.anyone_live()) || watches.concerns_anyone(&effects.events) {
            let clock = self.links.clock.read();
            let news = News { outcomes: effects.events, clock, gap, end: false };
            self.news_lost = matches!(self.links.news.try_send(news), Err(TrySendError::Full(_)));
        }
        for reply in effects.replies {
            let view = || self.publisher.view(&self.replica, &self.links);
            self.waiters.answer(reply, &self.replica, view);
        }
        self.publisher.answer(&self.replica, &self.links);
        for snapshot in effects.snapshots {
            tracing::info!(
                to = format_args!("{:x}", snapshot.to),
                index = snapshot.state.applied.index,
                "a member is behind the log: sending it the whole state"
            );
            crash_point!("snapshot.begun");
            self.links.peers.send_snapshot(snapshot.to, &snapshot.message, *snapshot.state);
        }
        if let Some(base) = effects.compact {
            let _ = self.links.disk.send(DiskJob::Compact(base));
        }
        if let Some(at) = effects.diverged {
            return Err(End::Diverged(at));
        }
        self.maybe_checkpoint();
        Ok(())
    }

    /// The log's thread says why it ends before it does; if it did not, it panicked.
    fn why_the_log_ended(&mut self) -> String {
        let inputs = std::iter::from_fn(|| self.links.inputs.try_recv().ok());
        let said = inputs.into_iter().find_map(|input| match input {
            DriverInput::Fatal(error) => Some(error),
            _ => None,
        });
        said.unwrap_or_else(|| "the log's thread panicked; its message is in this log".into())
    }

    /// Whoever waits for an event of a member that serves no more would wait for ever.
    fn end_watches(&self) {
        let news = News { outcomes: Vec::new(), clock: self.links.clock.read(), gap: false, end: true };
        // The thread that tells them takes what is before it; it waits for nobody.
        let _ = self.links.news.send(news);
    }

    /// The cluster goes on without this member, which stays up to say so.
    fn leave(&self) {
        crash_point!("leave.noticed");
        self.links.alarms.removed.store(true, Ordering::Relaxed);
        self.links.peers.set_peers(BTreeMap::new());
        self.end_watches();
        tracing::error!(
            "this member was removed from its cluster and serves nobody any more: stop it; to let this machine join \
             again, empty its data directory, add it with `etcdctl member add`, and start it with \
             -initial-cluster-state existing"
        );
    }

    fn maybe_checkpoint(&mut self) {
        let state = self.replica.state();
        if !self.checkpoint.begin_if_due(state, self.links.clock.now()) {
            return;
        }
        self.checkpoint_thread = disk::checkpoint_in_background(
            Arc::clone(&self.links.checkpoints),
            state.clone(),
            self.links.inputs_back.clone(),
            Arc::clone(&self.links.disk_stats),
            self.links.stopped.clone(),
        );
    }

    /// Notes cluster time beside the log, now and then, while there is a key that it matters to.
    fn keep_clock(&mut self, now: Duration) {
        const KEEP_EVERY_MS: u64 = 1_000;
        let (term, ClusterTime(reading)) = self.replica.vouched_time(now);
        let due = term != self.clock_kept.0 || reading >= self.clock_kept.1.saturating_add(KEEP_EVERY_MS);
        if self.replica.state().store.ttl_count() > 0 && due {
            self.clock_kept = (term, reading);
            (self.links.keep_clock)(term, reading);
        }
    }
}
