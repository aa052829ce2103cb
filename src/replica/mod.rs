//! The consensus core: one input in, effects out.
//!
//! [`Replica`] wraps `raft::RawNode` and the replicated [`State`]. It sees no socket, file, thread or clock, and draws
//! its random numbers from a seed: the same inputs at the same times give the same effects, so five of them can run on
//! one thread through any sequence of crashes and partitions, and a failure can be replayed. The order in which
//! effects may happen is data ([`Effects`], [`LogWrite::then_send`]): whoever carries them out cannot get it wrong.
//!
//! Use: [`Replica::step`] with whatever happened, as often as there is something, then [`Replica::flush`] once and
//! carry out what it returns. What gathers between two flushes becomes one log entry, one round of reads, one frame
//! to each peer.
//!
//! Invariants:
//! - nothing is answered before it is applied here, and nothing is applied before a quorum has it on disk;
//! - `base <= applied <= committed`, and the state is what the log up to `applied` makes of the founding state;
//! - a request is applied at most once, however often it was sent (`sessions`);
//! - entries carry cluster times that never decrease (`clock`).
//!
//! What it does not do: decide when a checkpoint is taken, or who the peers' addresses are (`node`); store anything
//! (`storage`).

mod announce;
mod changes;
mod clock;
mod codec;
mod effects;
mod elections;
mod gather;
#[cfg(test)]
mod hostile_tests;
mod log;
mod membership;
#[cfg(test)]
mod membership_tests;
mod peers;
mod pending;
mod plausible;
mod queue;
mod reads;
mod ready;
mod records;
mod removals;
mod requests;
mod room;
#[cfg(test)]
mod room_tests;
mod sessions;
mod setup;
mod state;
#[cfg(test)]
mod test_net;
#[cfg(test)]
mod tests;
mod writes;

pub use effects::{Effects, Failure, Input, LogWrite, Outgoing, Reply, SnapshotToSend, Standing, Token};
pub use membership::{ChangeError, MemberChange};
pub use room::Shortage;
pub use setup::{LogPosition, Recovered, ReplicaConfig};
pub use state::{MemberInfo, Refused, Roster, State};

use crate::proto::command::{Publish, request::Body};
use crate::store::ClusterTime;
use announce::Announcements;
use changes::Changes;
use clock::Clock;
use log::MemLog;
use pending::Pending;
use queue::Queue;
use raft::eraftpb::Entry;
use raft::{RawNode, SnapshotStatus, StateRole};
use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reads::Reads;
use removals::Removals;
use room::Room;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use writes::Writes;

/// An entry's data stays below this, unless one request alone is larger.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Append messages carry up to this much.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Append messages under way to one peer.
const INFLIGHT_MESSAGES_MAX: usize = 256;

/// Bytes of entries that a leader has proposed and that are not committed, while its disk or its followers stand still;
/// what comes then waits where it came from.
const UNCOMMITTED_BYTES_MAX: usize = 64 << 20;

/// Forwarded requests wait for being proposed up to this much; the rest is dropped, and its origins send it again.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Entries wait for the disk up to this much; a follower takes no more then, and its leader sends again.
const UNWRITTEN_BYTES_MAX: u64 = 64 << 20;

/// Committed entries handed out at once, so that applying never holds up ticks for long.
const APPLY_BYTES_MAX: u64 = 4 << 20;

/// How many keys one entry expires at the most: writers wait no longer than that for a burst of expiries.
const EXPIRE_LIMIT: u32 = 1_000;

/// A member that starts without a leader campaigns after at most so many ticks, instead of a whole election timeout:
/// pre-vote makes that harmless where there is a leader.
const EARLY_CAMPAIGN_TICKS: u32 = 4;

/// The core of one member.
pub struct Replica {
    config: ReplicaConfig,
    raw: RawNode<MemLog>,
    state: State,
    /// A snapshot's state, between raft's message about it and raft's order to install it.
    incoming: Option<Box<State>>,
    clock: Clock,
    pending: Pending,
    reads: Reads,
    /// Requests that this member, as the leader, is to propose.
    queue: Queue,
    changes: Changes,
    announcements: Announcements,
    removals: Removals,
    /// The next entry to be applied removes this member: see `removes_this_member`.
    leaving: bool,
    /// This member was removed from the cluster and takes no more part.
    removed: bool,
    writes: Writes,
    /// Committed, and not applied yet: a change of the membership waits for the disk.
    unapplied: VecDeque<Entry>,
    /// Whether an entry that expires what is due was proposed and is not applied yet.
    expiry_proposed: bool,
    rng: ChaCha8Rng,
    election: Election,
    connected: BTreeSet<u64>,
    room: Room,
    standing: Standing,
    effects: Effects,
}

/// When to campaign; `raft` draws its timeouts from an entropy of its own, which is overruled here.
#[derive(Debug)]
struct Election {
    timeout: usize,
    drawn_for: (u64, StateRole, u64),
    early: Option<u32>,
}

impl Replica {
    /// Starts from what was recovered. `now` is the caller's monotonic clock, as in every other call.
    ///
    /// # Errors
    /// What was recovered does not fit together; the text says how.
    pub fn new(config: ReplicaConfig, recovered: Recovered, now: Duration) -> Result<Self, String> {
        let Recovered { state, base, entries, mut hard_state, clock } = recovered;
        let last = entries.last().map_or(base.index, |e| e.index);
        if state.applied.index < base.index || state.applied.index > last {
            return Err(format!(
                "the checkpoint at {} is outside the log, which holds {} to {last}",
                state.applied.index,
                base.index + 1
            ));
        }
        hard_state.commit = hard_state.commit.max(state.applied.index);
        hard_state.term = hard_state.term.max(state.applied.term);
        if hard_state.commit > last {
            return Err(format!(
                "entries up to {} were committed, but the log ends at {last}",
                hard_state.commit
            ));
        }
        let raft_config = raft::Config {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: 1,
            applied: state.applied.index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            max_committed_size_per_ready: APPLY_BYTES_MAX,
            // Never reached: `propose` stops before. But only what is bounded is counted.
            max_uncommitted_size: 4 * UNCOMMITTED_BYTES_MAX as u64,
            check_quorum: true,
            skip_bcast_commit: true, // see `announce`
            pre_vote: true,
            ..raft::Config::default()
        };
        let writes = Writes::new(&hard_state);
        let log = MemLog::new(base, entries, hard_state, state.applied, state.membership.clone());
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&raft_config, log, &logger).map_err(|e| e.to_string())?;
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let early = rng.random_range(1..=EARLY_CAMPAIGN_TICKS);
        // A hint from before the last term in the state may be ahead of what was stamped since: see `clock`.
        let (term, time) = match clock {
            Some((term, time)) if term >= state.applied.term => (term, time.max(state.time)),
            _ => (state.applied.term, state.time),
        };
        let mut replica = Self {
            clock: Clock::new(term, time, now),
            pending: Pending::new(config.session),
            reads: Reads::new(config.session),
            raw,
            state,
            incoming: None,
            queue: Queue::default(),
            changes: Changes::default(),
            announcements: Announcements::default(),
            removals: Removals::default(),
            leaving: false,
            removed: false,
            writes,
            unapplied: VecDeque::new(),
            expiry_proposed: false,
            rng,
            election: Election {
                timeout: config.election_ticks,
                drawn_for: (u64::MAX, StateRole::Follower, 0),
                early: Some(early),
            },
            connected: BTreeSet::new(),
            room: Room::default(),
            standing: Standing::default(),
            effects: Effects { publish: true, ..Effects::default() },
            config,
        };
        if replica.alone() {
            // Nobody else can lead: there is nothing to wait for.
            replica.election.early = None;
            replica.raw.campaign().map_err(|e| e.to_string())?;
        }
        Ok(replica)
    }

    /// The applied state; clone it to keep it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its place in the cluster.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// How far the best estimate of cluster time is ahead of the caller's monotonic clock, in microseconds. Changes
    /// only when this member learns something.
    pub fn clock_offset_micros(&self) -> i64 {
        self.clock.offset_micros()
    }

    /// The last cluster time that a leader vouched for, and its term: worth keeping for a restart.
    pub fn vouched_time(&self, now: Duration) -> (u64, ClusterTime) {
        self.clock.vouched(now)
    }

    /// Bytes of the log since its base.
    pub fn log_bytes(&self) -> u64 {
        self.raw.store().bytes()
    }

    /// Requests of local clients that wait.
    pub fn waiting(&self) -> usize {
        self.pending.len() + self.reads.len()
    }

    /// What each follower has on disk as far as this leader knows; empty on others.
    pub fn progress(&self) -> BTreeMap<u64, u64> {
        if self.raw.raft.state != StateRole::Leader {
            return BTreeMap::new();
        }
        self.raw.raft.prs().iter().map(|(id, progress)| (*id, progress.matched)).collect()
    }

    fn alone(&self) -> bool {
        let membership = &self.state.membership;
        membership.voters == [self.config.id] && membership.voters_outgoing.is_empty()
    }

    /// Takes in one thing that happened. Nothing that a peer or client sends makes it fail or panic.
    pub fn step(&mut self, now: Duration, input: Input) {
        if self.removed {
            return self.refuse(&input);
        }
        match input {
            Input::Tick => self.tick(now),
            Input::Write { token, command } => self.write(now, token, Body::Write(codec::encode(command))),
            Input::Publish { token, name, client_urls } => {
                let (member, incarnation) = (self.config.id, self.config.incarnation);
                self.write(now, token, Body::Publish(Publish { member, name, client_urls, incarnation }));
            }
            Input::Change { token, change } => {
                self.write(now, token, Body::Change(membership::encode(change)));
            }
            Input::Removed => self.leave(),
            Input::Read { token } => {
                if self.reads.len() >= pending::PENDING_MAX {
                    self.fail(token, Failure::Overloaded);
                } else {
                    self.reads.add(token, now, self.config.request_timeout);
                }
            }
            Input::Frame { from, messages, forwarded, beacon } => {
                self.receive(now, from, messages, forwarded, beacon);
            }
            Input::Snapshot { message, state } => self.receive_snapshot(*message, state),
            Input::Persisted { number } => self.persisted(number),
            Input::Stalled => self.stalled(),
            Input::Compactable { upto } => self.compact(upto),
            Input::Connected { peer } => self.connected(peer),
            Input::Unreachable { peer } => self.unreachable(peer),
            Input::SnapshotSent { peer, ok } => {
                let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raw.report_snapshot(peer, status);
            }
            Input::Space { short } => self.note_space(short),
            Input::StepAside => self.step_aside(),
        }
    }

    /// What is to be done now.
    ///
    /// # Errors
    /// A broken invariant, in words: the member must stop and not go on.
    pub fn flush(&mut self, now: Duration) -> Result<Effects, String> {
        if self.removed {
            return Ok(std::mem::take(&mut self.effects));
        }
        self.reads.give_up_lost(now);
        // Proposing makes raft ready, and being ready may make a new leader, who proposes: until nothing is left.
        // A change of the membership may have waited for the disk.
        self.apply(now)?;
        self.trim_log();
        loop {
            self.note_standing(now);
            if self.leaving && self.raw.raft.lead_transferee.is_none() {
                self.step_aside();
            }
            self.route(now);
            self.propose_changes(now);
            self.propose(now);
            if self.standing.leader != 0
                && let Some(context) = self.reads.begin(now)
            {
                self.raw.read_index(context);
            }
            self.announce_commit(now);
            if !self.raw.has_ready() {
                break;
            }
            self.ready(now)?;
        }
        let effects = &mut self.effects;
        self.reads.take_ready(self.state.applied.index, |token| effects.replies.push(Reply::Read { token }));
        let mut effects = std::mem::take(&mut self.effects);
        effects.wake_at = self.wake_at();
        Ok(effects)
    }

    /// Never an hour that has struck already: the caller would come back at once, and again.
    fn wake_at(&self) -> Option<Duration> {
        let can_propose = self.may_propose() && !self.too_much_uncommitted();
        let expiry = match self.state.store.next_deadline() {
            Some(deadline) if can_propose && !self.expiry_proposed => self.clock.when(deadline.plus(1)),
            _ => None,
        };
        let leader = self.standing.leader != 0;
        let unsent = self.pending.wake_at().filter(|_| leader);
        let takes_queued = can_propose && self.clock.in_office() && !self.writes.under_way();
        let queued = self.queue.wake_at().filter(|_| takes_queued);
        let reads = self.reads.wake_at(leader);
        [expiry, unsent, queued, reads, self.announcements.wake_at()].into_iter().flatten().min()
    }

    /// A member that was removed has one answer left.
    fn refuse(&mut self, input: &Input) {
        match input {
            Input::Write { token, .. }
            | Input::Read { token }
            | Input::Publish { token, .. }
            | Input::Change { token, .. } => self.fail(*token, Failure::Removed),
            _ => {}
        }
    }

    fn fail(&mut self, token: Token, reason: Failure) {
        self.effects.replies.push(Reply::Failed { token, reason });
    }

    fn write(&mut self, now: Duration, token: Token, body: Body) {
        if let Some(reason) = self.refusal(&body) {
            self.fail(token, reason);
            return;
        }
        if let Err(token) = self.pending.add(token, body, now, self.config.request_timeout) {
            self.fail(token, Failure::Overloaded);
        }
    }
}
