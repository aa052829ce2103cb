//! Members, what they live on, and time, which goes from one thing that is due to the next.

mod disks;
mod effects;
mod faults;
mod handshake;
mod lives;
mod operator;
mod phases;

use crate::bugs::Bug;
use crate::clients::Clients;
use crate::coverage::Coverage;
use crate::disk::Disk;
use crate::invariants::Invariants;
use crate::invariants::ttl::TimesToLive;
use crate::invariants::watches::Watcher;
use crate::member::Member;
use crate::network::{Network, Packet, Wire};
use crate::options::Options;
use crate::trace::Trace;
use faults::Faults;
use operator::Operator;
use quorate::replica::{Input, MemberInfo, Reply, State};
use quorate::store::HistoryLimits;
use raft::eraftpb::MessageType;
use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

pub const TICK_MS: u64 = 100;
const TICK: Duration = Duration::from_millis(TICK_MS);
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);
const WATCHERS: usize = 3;

/// In so long a member that was paused gets what was sent to it meanwhile.
const RESUME_MS: u64 = 20;

pub struct World {
    now: u64,
    rng: ChaCha8Rng,
    options: Options,
    /// The member with id `n` is at `n - 1`.
    members: Vec<Member>,
    network: Network,
    clients: Clients,
    watchers: Vec<Watcher>,
    invariants: Invariants,
    coverage: Coverage,
    trace: Trace,
    faults: Faults,
    operator: Operator,
    /// What every founding member begins with.
    founding: State,
    /// Whom clients may ask; all by default.
    reachable: Vec<bool>,
    /// No more faults of its own making.
    healing: bool,
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let infos = (1..=options.members)
            .map(|id| (id, MemberInfo { name: format!("m{id}"), ..MemberInfo::default() }));
        let state = State::founding(7, infos.collect(), history_limits(&options));
        let drift = options.drift_permille;
        let members: Vec<Member> = (1..=options.members)
            .map(|id| {
                let rate = rng.random_range(1_000 - drift..=1_000 + drift);
                Member::new(id, Disk::founding(&state, options.bug), rate)
            })
            .collect();
        Self {
            now: 0,
            rng,
            reachable: vec![true; members.len()],
            members,
            network: Network::new(&options),
            clients: Clients::new(options.clients, options.think_ms),
            watchers: (0..WATCHERS).map(|_| Watcher::new()).collect(),
            invariants: Invariants::new(TimesToLive::new(drift, late_ms_max(&options))),
            coverage: Coverage::default(),
            trace: Trace::new(),
            faults: Faults::default(),
            operator: Operator::default(),
            founding: state,
            healing: false,
            options,
        }
    }

    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    pub fn coverage(mut self) -> Coverage {
        self.coverage.note_many("expiries", self.invariants.ttl.expired);
        self.coverage.note_max("max ms that an expiry was late", self.invariants.ttl.latest_ms);
        self.coverage.note_many("simulated ms", self.now);
        self.coverage
    }

    fn has_bug(&self, bug: Bug) -> bool {
        self.options.bug == Some(bug)
    }

    fn ids(&self) -> Vec<u64> {
        self.members.iter().map(|m| m.id).collect()
    }

    /// Goes on to the next moment at which something is due, or to `until`.
    fn step(&mut self, until: u64) {
        let members = self.members.iter().map(Member::next_at);
        let watchers = self.watchers.iter().filter(|w| w.at.is_none()).map(|w| w.back_at);
        let others = [self.network.next_at(), self.clients.next_at(), Some(until)];
        let next = members.chain(watchers).chain(others.into_iter().flatten()).min().unwrap_or(until);
        let next = next.max(self.now + 1);
        self.invariants.ttl.time_passed(next - self.now, self.members.iter().any(Member::leads));
        self.now = next;
        for at in 0..self.members.len() {
            let member = &self.members[at];
            if member.crash_at.is_some_and(|crash| crash <= self.now) {
                self.crash(at);
            } else if member.replica.is_none() && !member.gone && member.down_until <= self.now {
                self.boot(at);
            }
        }
        // Of what waited for a member that was paused, anything may come first.
        let requests_first = self.rng.random_range(0..2) == 0;
        if requests_first {
            self.take_backlog();
        }
        self.deliver();
        self.take_backlog();
        for at in 0..self.members.len() {
            if self.members[at].runs(self.now) {
                self.sync_disk(at);
                self.finish_checkpoint(at);
                self.maybe_tick(at);
            }
        }
        self.let_clients_ask();
        for at in 0..self.members.len() {
            let member = &self.members[at];
            let wakes = member.wake_at.is_some_and(|wake| member.clock.when(wake) <= self.now);
            if member.runs(self.now) && (member.dirty || wakes) {
                self.flush(at);
            }
        }
        self.let_watchers_resume();
        self.start_joining();
    }

    fn input(&mut self, at: usize, input: Input) {
        let member = &mut self.members[at];
        let now = member.clock.read(self.now);
        if let Some(replica) = &mut member.replica {
            note_input(&mut self.trace, self.now, at, &input);
            member.dirty = true;
            replica.step(now, input);
        }
    }

    fn deliver(&mut self) {
        while let Some(packet) = self.network.arrived(self.now) {
            let at = (packet.to - 1) as usize;
            let member = &self.members[at];
            if member.replica.is_some() && member.paused_until > self.now {
                let until = member.paused_until + self.rng.random_range(0..RESUME_MS);
                self.network.hold(packet, until);
                continue;
            }
            let Packet { from, to, wire } = packet;
            let lost = member.replica.is_none() || self.network.is_cut(from, to) || !self.greets(from, to);
            let input = match wire {
                Wire::SnapshotSent(ok) => Input::SnapshotSent { peer: from, ok },
                Wire::Unreachable => Input::Unreachable { peer: from },
                Wire::Snapshot(message, state) => {
                    let told = Packet { from: to, to: from, wire: Wire::SnapshotSent(!lost) };
                    self.network.hold(told, self.now + 1);
                    if lost {
                        continue;
                    }
                    Input::Snapshot { message, state }
                }
                Wire::Disowned(how) => {
                    self.disown(at, how);
                    continue;
                }
                Wire::Hello => continue,
                _ if lost => continue,
                Wire::Connected => Input::Connected { peer: from },
                Wire::Frame(messages, forwarded, beacon) => {
                    let answers =
                        |m: &raft::eraftpb::Message| m.get_msg_type() == MessageType::MsgReadIndexResp;
                    if self.has_bug(Bug::ReadsBeforeApplied) && messages.iter().any(answers) {
                        for token in self.clients.reading_at(at) {
                            self.answer(at, Reply::Read { token });
                        }
                    }
                    let (from, messages) = self.attribute_by_bug(from, at, messages);
                    Input::Frame { from, messages, forwarded, beacon }
                }
            };
            self.input(at, input);
        }
    }

    fn maybe_tick(&mut self, at: usize) {
        let member = &mut self.members[at];
        let clock = member.clock.read(self.now);
        if member.replica.is_none() || member.next_tick > clock {
            return;
        }
        // After a pause one tick, as the driver does.
        member.next_tick = clock + TICK;
        self.input(at, Input::Tick);
        self.keep_clock(at);
        self.look_at_space(at);
        self.publish(at);
        self.try_to_connect(at);
    }

    fn let_clients_ask(&mut self) {
        let asked = self.members.iter().zip(&self.reachable);
        let there = asked.map(|(m, reachable)| {
            (*reachable && m.replica.is_some(), m.paused_until.saturating_sub(self.now))
        });
        let there: Vec<_> = there.collect();
        for (at, input) in self.clients.due(self.now, &there, &mut self.rng, &mut self.invariants) {
            self.members[at].backlog.push(input);
        }
        self.take_backlog();
    }

    fn take_backlog(&mut self) {
        for at in 0..self.members.len() {
            if !self.members[at].runs(self.now) {
                continue;
            }
            for input in std::mem::take(&mut self.members[at].backlog) {
                match input {
                    Input::Read { token } if self.may_read_by_bug(at) => {
                        self.answer(at, Reply::Read { token });
                    }
                    input => self.input(at, input),
                }
            }
        }
    }
}

fn history_limits(options: &Options) -> HistoryLimits {
    HistoryLimits { events: options.history, bytes: 1 << 20 }
}

/// By how much cluster time may have passed a deadline when the key goes: a leader that cannot commit goes on counting
/// until it is replaced, and one that was paused counts on as if it had not been.
fn late_ms_max(options: &Options) -> u64 {
    let election = 2 * options.election_ticks * TICK_MS;
    let pause = if options.pause_every_ms > 0 { faults::PAUSE_MS.end } else { 0 };
    let jump = if options.clock_jump_every_ms > 0 { faults::JUMP_MS.end } else { 0 };
    let mut disk = options.sync_ms + options.install_ms;
    if options.disk_trouble_every_ms > 0 {
        disk = 20 * disk + faults::SPACE_MS.end;
    }
    1_000 + 3 * election + 2 * pause + 2 * jump + 4 * (disk + options.delay_ms)
}

/// Raft's messages by their numbers; noted with sender, term, index, log term, commit, entries, refusal.
const MESSAGES: [&str; 19] = [
    "Hup",
    "Beat",
    "Propose",
    "Append",
    "AppendResponse",
    "RequestVote",
    "RequestVoteResponse",
    "Snapshot",
    "Heartbeat",
    "HeartbeatResponse",
    "Unreachable",
    "SnapStatus",
    "CheckQuorum",
    "TransferLeader",
    "TimeoutNow",
    "ReadIndex",
    "ReadIndexResp",
    "RequestPreVote",
    "RequestPreVoteResponse",
];

fn note_input(trace: &mut Trace, now: u64, at: usize, input: &Input) {
    match input {
        Input::Frame { from, messages, forwarded, beacon } => {
            let time = beacon.as_ref().map_or(0, |b| b.time_ms);
            trace.note(now, at, "frame from, forwarded, time", &[*from, forwarded.len() as u64, time]);
            for m in messages {
                let [entries, reject] = [m.entries.len() as u64, u64::from(m.reject)];
                let name = MESSAGES[m.get_msg_type() as usize];
                trace.note(now, at, name, &[m.from, m.term, m.index, m.log_term, m.commit, entries, reject]);
            }
        }
        Input::Snapshot { state, .. } => trace.note(now, at, "snapshot", &[state.applied.index]),
        other => trace.note_debug(now, at, other),
    }
}
