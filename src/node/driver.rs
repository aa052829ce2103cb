//! Runs the core: takes what happened, steps the replica, carries out its effects.
//!
//! It never waits for a disk or a socket. What gathers in its queue while it works becomes one batch, so load makes
//! batches larger and one client alone waits for nothing.
//!
//! It shares its thread with the connections to the other members (see [`super`]): what a peer sent is stepped, and
//! what a peer is to get is written, without waking another thread. So between two batches it lets them have a turn.

use super::alarms::log_refusal;
use super::checkpoints::CheckpointPlan;
use super::disk::{self, CheckpointThread, DiskJob};
use super::links::{KnownStatus, Links, Settings};
use super::quarantine;
use super::view::{log_members, log_votes, members_of};
use super::waiters::{ChangeReply, ReadReply, Waiter, Waiters, WriteReply};
use super::watch::News;
use crate::http::backend::{Alarm, BackendError, Member, Status, View};
use crate::replica::{Effects, Input, LogPosition, MemberChange, MemberInfo, Replica, Standing};
use crate::store::{Action, ClusterTime, Command};
use crossbeam_channel::TrySendError;
use raft::eraftpb::Message;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
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
    checkpoint_thread: CheckpointThread,
    /// The members as they were last published and told to the transport.
    members_told: Option<Arc<BTreeMap<u64, MemberInfo>>>,
    members: Arc<BTreeMap<u64, Member>>,
    clock_kept: (u64, u64),
    /// Watchers were not told of everything.
    news_lost: bool,
}

impl Driver {
    pub(super) fn new(replica: Replica, links: Links, settings: Settings) -> Self {
        let applied = replica.state().applied.index;
        let checkpoint = CheckpointPlan::new(settings.checkpoints, applied, replica.log_bytes());
        Self {
            replica,
            links,
            settings,
            waiters: Waiters::default(),
            held: VecDeque::new(),
            checkpoint,
            checkpoint_thread: CheckpointThread::default(),
            members_told: None,
            members: Arc::default(),
            clock_kept: (0, 0),
            news_lost: false,
        }
    }

    /// Runs until it is told to stop. Gives the thread of a checkpoint that may be under way.
    ///
    /// # Errors
    /// The member must not go on: its disk or an invariant failed. The text says which.
    pub(super) async fn run(mut self) -> (Result<(), String>, CheckpointThread) {
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
        self.note_standing(expired as u64);
        if effects.publish {
            self.publish();
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
            self.waiters.answer(reply, &self.replica, &self.links.view);
        }
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

    fn publish(&mut self) {
        let state = self.replica.state();
        if !self.members_told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &state.members)) {
            let members = Arc::clone(&state.members);
            log_members(self.members_told.as_deref(), &members);
            let own = self.links.status.load().status.id;
            let others = members.iter().filter(|(id, _)| **id != own);
            // The roster first: the transport asks it who of those that call may go on.
            self.links.roster.store(Arc::new(state.roster()));
            self.links.peers.set_peers(others.map(|(id, info)| (*id, info.peer_urls.clone())).collect());
            let before = std::mem::replace(&mut self.members, Arc::new(members_of(state)));
            log_votes(&before, &self.members);
            self.members_told = Some(members);
        }
        let view = View {
            store: state.store.clone(),
            raft_index: state.applied.index,
            raft_term: self.replica.standing().term,
            members: Arc::clone(&self.members),
        };
        self.links.view.store(Arc::new(view));
    }

    fn note_standing(&mut self, expired: u64) {
        let standing = self.replica.standing();
        let applied = self.replica.state().applied.index;
        let known = self.links.status.load();
        let before = &known.status;
        let changed = (before.term, before.leader) != (standing.term, standing.leader);
        let refusing = before.alarms.contains(&Alarm::WritesRefused);
        let same = (before.commit, before.applied) == (standing.commit, applied)
            && refusing == standing.refuses.is_some();
        if !changed && expired == 0 && same {
            return;
        }
        if refusing != standing.refuses.is_some() {
            log_refusal(&standing);
        }
        if changed {
            log_change(before, &standing);
        }
        if before.leader == before.id && !standing.leads {
            self.links.peers.stop_snapshots();
        }
        let leader_since = if changed { Instant::now() } else { known.leader_since };
        let status = Status {
            leader: standing.leader,
            term: standing.term,
            commit: standing.commit,
            applied,
            expired: before.expired + expired,
            alarms: standing.refuses.map(|_| Alarm::WritesRefused).into_iter().collect(),
            ..before.clone()
        };
        drop(known);
        self.links.status.store(Arc::new(KnownStatus { status, leader_since }));
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
        );
    }

    /// Notes cluster time beside the log, now and then, while there is a key that it matters to.
    fn keep_clock(&mut self, now: Duration) {
        const KEEP_EVERY_MS: u64 = 1_000;
        let (term, ClusterTime(reading)) = self.replica.vouched_time(now);
        let due = term != self.clock_kept.0 || reading >= self.clock_kept.1 + KEEP_EVERY_MS;
        if self.replica.state().store.ttl_count() > 0 && due {
            self.clock_kept = (term, reading);
            (self.links.keep_clock)(term, reading);
        }
    }
}

fn log_change(before: &Status, now: &Standing) {
    if now.leads {
        tracing::info!(term = now.term, "this member leads the cluster now");
    } else if now.leader != 0 {
        tracing::info!(
            term = now.term,
            leader = format_args!("{:x}", now.leader),
            "the cluster has a leader"
        );
    } else if before.leader != 0 {
        tracing::warn!(term = now.term, "the leader is lost; an election is to follow");
    }
}
