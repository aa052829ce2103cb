//! Members, the network between them, their disks and their clocks.
//!
//! A disk keeps what was written and forgets, at a crash, what was not synced. A message may be lost, late, twice or
//! out of order. Members crash between any two effects, pause, and are cut off from each other, one way or both.

use crate::clients::{Clients, Outcome};
use quorate::proto::command::Batch;
use quorate::replica::{
    Effects, Input, LogPosition, LogWrite, MemberInfo, Outgoing, Recovered, Replica, ReplicaConfig, Reply, State,
};
use quorate::store::{Action, ClusterTime, HistoryLimits};
use raft::eraftpb::{Entry, HardState, Message};
use rand::{Rng as _, RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

const LIMITS: HistoryLimits = HistoryLimits { events: 1_000, bytes: 1 << 20 };
const TICK_MS: u64 = 100;
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// What the seed decides about a run.
#[derive(Clone, Debug)]
pub struct Options {
    pub members: u64,
    pub loss_percent: u32,
    pub duplicate_percent: u32,
    pub delay_ms: u64,
    pub sync_ms: u64,
    /// One crash, pause or partition in about so many milliseconds; 0: none.
    pub crash_every_ms: u64,
    pub pause_every_ms: u64,
    pub partition_every_ms: u64,
    /// A checkpoint each so many applied entries.
    pub checkpoint_every: u64,
    pub clients: usize,
}

impl Options {
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0907_1045);
        let mut pick = |choices: &[u64]| choices[rng.random_range(0..choices.len())];
        Self {
            members: pick(&[1, 3, 3, 3, 5]),
            loss_percent: pick(&[0, 0, 1, 10]) as u32,
            duplicate_percent: pick(&[0, 1, 10]) as u32,
            delay_ms: pick(&[1, 5, 30, 150]),
            sync_ms: pick(&[0, 1, 10, 80]),
            crash_every_ms: pick(&[0, 4_000, 15_000]),
            pause_every_ms: pick(&[0, 0, 8_000]),
            partition_every_ms: pick(&[0, 3_000, 10_000]),
            checkpoint_every: pick(&[10, 50, 100_000]),
            clients: pick(&[1, 4, 10]) as usize,
        }
    }
}

/// What a member's disk holds.
struct Disk {
    checkpoint: State,
    /// The checkpoint before: the log reaches back to it.
    older: LogPosition,
    base: LogPosition,
    entries: Vec<Entry>,
    hard_state: HardState,
    /// Handed to the disk and not synced yet; lost in a crash.
    pending: VecDeque<(u64, LogWrite)>,
}

impl Disk {
    fn founding(state: &State) -> Self {
        let at = LogPosition::FOUNDING;
        Self {
            checkpoint: state.clone(),
            older: at,
            base: at,
            entries: vec![],
            hard_state: HardState { term: at.term, commit: at.index, ..HardState::default() },
            pending: VecDeque::new(),
        }
    }

    fn apply(&mut self, write: &LogWrite) {
        if let Some(state) = &write.install {
            self.checkpoint = (**state).clone();
            self.older = state.applied;
            self.base = state.applied;
            self.entries.clear();
        }
        if let Some(first) = write.entries.first() {
            let keep = (first.index - self.base.index - 1) as usize;
            assert!(keep <= self.entries.len(), "a gap in the log on disk");
            self.entries.truncate(keep);
            self.entries.extend(write.entries.iter().cloned());
        }
        if let Some(hard_state) = &write.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "a term went back on disk");
            self.hard_state = hard_state.clone();
        }
    }

    fn compact(&mut self, base: LogPosition) {
        self.entries.retain(|e| e.index > base.index);
        self.base = self.base.max(base);
    }

    fn recover(&self, clock: Option<ClusterTime>) -> Recovered {
        Recovered {
            state: self.checkpoint.clone(),
            base: self.base,
            entries: self.entries.clone(),
            hard_state: self.hard_state.clone(),
            clock,
        }
    }
}

struct Member {
    id: u64,
    replica: Option<Replica>,
    disk: Disk,
    next_tick: u64,
    paused_until: u64,
    down_until: u64,
    boots: u64,
    checkpointed: u64,
    last_index: u64,
}

enum Wire {
    Frame(Vec<Message>, Vec<Batch>, Option<quorate::proto::peer::Beacon>),
    Snapshot(Box<Message>, Box<State>),
}

struct Packet {
    at: u64,
    from: u64,
    to: u64,
    wire: Wire,
}

pub struct World {
    pub now: u64,
    rng: ChaCha8Rng,
    options: Options,
    members: Vec<Member>,
    packets: Vec<Packet>,
    /// Directed pairs that cannot talk.
    cut: BTreeSet<(u64, u64)>,
    clients: Clients,
    /// Digest of the store after each applied log index, on whichever member was first.
    digests: BTreeMap<u64, u64>,
    /// Who led in each term.
    leaders: BTreeMap<u64, u64>,
    trace: DefaultHasher,
    faults: bool,
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        let infos = (1..=options.members).map(|id| (id, MemberInfo { name: format!("m{id}"), ..MemberInfo::default() }));
        let state = State::founding(7, infos.collect(), LIMITS);
        let members = (1..=options.members)
            .map(|id| Member {
                id,
                replica: None,
                disk: Disk::founding(&state),
                next_tick: id * 17 % TICK_MS,
                paused_until: 0,
                down_until: 0,
                boots: 0,
                checkpointed: 1,
                last_index: 0,
            })
            .collect();
        let clients = Clients::new(options.clients);
        Self {
            now: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            options,
            members,
            packets: vec![],
            cut: BTreeSet::new(),
            clients,
            digests: BTreeMap::new(),
            leaders: BTreeMap::new(),
            trace: DefaultHasher::new(),
            faults: true,
        }
    }

    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    /// Runs for some simulated time with faults of every kind that the options allow.
    pub fn run_faults(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.inject();
            self.step();
        }
    }

    /// Ends all faults; then the cluster must get everything done, and all members must come to one state.
    pub fn heal_and_converge(&mut self) {
        self.faults = false;
        self.cut.clear();
        for member in &mut self.members {
            member.paused_until = 0;
            member.down_until = 0;
        }
        let healed = self.now;
        self.clients.stop();
        loop {
            self.step();
            let applied: BTreeSet<_> =
                self.members.iter().map(|m| m.replica.as_ref().map(|r| r.state().applied)).collect();
            let settled = self.now > healed + 10_000 && applied.len() == 1 && self.clients.idle();
            if settled {
                break;
            }
            assert!(self.now < healed + 60_000, "a healed cluster did not settle: {applied:?}");
        }
        self.clients.start_one_more_write();
        let begun = self.now;
        while !self.clients.idle() {
            self.step();
            assert!(self.now < begun + 10_000, "a healed cluster takes no writes");
        }
    }

    fn chance(&mut self, every_ms: u64) -> bool {
        every_ms > 0 && self.rng.random_range(0..every_ms) == 0
    }

    fn inject(&mut self) {
        let some = self.rng.random_range(0..self.members.len());
        if self.chance(self.options.crash_every_ms) {
            let down = self.rng.random_range(0..6_000);
            self.crash(some, down);
        }
        if self.chance(self.options.pause_every_ms) {
            self.members[some].paused_until = self.now + self.rng.random_range(100..4_000);
        }
        if self.chance(self.options.partition_every_ms) {
            self.partition();
        }
    }

    /// Cuts a random set of directed pairs, or none.
    fn partition(&mut self) {
        self.cut.clear();
        let kind = self.rng.random_range(0..4);
        let ids: Vec<u64> = self.members.iter().map(|m| m.id).collect();
        let lonely = ids[self.rng.random_range(0..ids.len())];
        for a in &ids {
            for b in &ids {
                let cut = match kind {
                    0 => false,
                    1 => (*a == lonely) != (*b == lonely),
                    2 => *a == lonely && *b != lonely,
                    _ => a != b && self.rng.random_range(0..3) == 0,
                };
                if cut {
                    self.cut.insert((*a, *b));
                }
            }
        }
    }

    fn crash(&mut self, at: usize, down_ms: u64) {
        let member = &mut self.members[at];
        member.replica = None;
        // What was not synced may still have reached the disk, in order: a random prefix of it has.
        let survive = self.rng.random_range(0..=member.disk.pending.len());
        let pending: Vec<_> = member.disk.pending.drain(..).collect();
        for (_, write) in pending.iter().take(survive) {
            member.disk.apply(write);
        }
        member.down_until = self.now + down_ms;
        self.clients.member_crashed(member.id);
    }

    fn boot(&mut self, at: usize) {
        let now = Duration::from_millis(self.now);
        let member = &mut self.members[at];
        member.boots += 1;
        let config = ReplicaConfig {
            id: member.id,
            session: member.id << 32 | member.boots,
            seed: self.rng.next_u64(),
            election_ticks: 10,
            request_timeout: REQUEST_TIMEOUT,
        };
        let replica = Replica::new(config, member.disk.recover(None), now).expect("a member starts from its disk");
        member.checkpointed = replica.state().applied.index;
        member.last_index = 0;
        member.replica = Some(replica);
        let id = member.id;
        for peer in 1..=self.options.members {
            if peer != id {
                self.input(at, Input::Connected { peer });
            }
        }
        self.flush(at);
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now += 1;
        for at in 0..self.members.len() {
            let member = &self.members[at];
            if member.replica.is_none() && member.down_until <= self.now {
                self.boot(at);
            }
        }
        self.deliver();
        for at in 0..self.members.len() {
            if self.runs(at) {
                self.sync_disk(at);
                self.maybe_tick(at);
                self.serve_clients(at);
                self.flush(at);
            }
        }
    }

    fn runs(&self, at: usize) -> bool {
        self.members[at].replica.is_some() && self.members[at].paused_until <= self.now
    }

    fn input(&mut self, at: usize, input: Input) {
        let now = Duration::from_millis(self.now);
        if let Some(replica) = &mut self.members[at].replica {
            replica.step(now, input);
        }
    }

    fn deliver(&mut self) {
        let due = self.now;
        let (ready, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.packets).into_iter().partition(|p| p.at <= due);
        self.packets = later;
        for packet in ready {
            let at = (packet.to - 1) as usize;
            if !self.runs(at) || self.cut.contains(&(packet.from, packet.to)) {
                if matches!(packet.wire, Wire::Snapshot(..)) {
                    self.input((packet.from - 1) as usize, Input::SnapshotSent { peer: packet.to, ok: false });
                }
                continue;
            }
            match packet.wire {
                Wire::Frame(messages, forwarded, beacon) => {
                    self.input(at, Input::Frame { from: packet.from, messages, forwarded, beacon });
                }
                Wire::Snapshot(message, state) => {
                    self.input((packet.from - 1) as usize, Input::SnapshotSent { peer: packet.to, ok: true });
                    self.input(at, Input::Snapshot { message, state });
                }
            }
        }
    }

    fn sync_disk(&mut self, at: usize) {
        let mut done = None;
        let member = &mut self.members[at];
        let mut sends = vec![];
        while member.disk.pending.front().is_some_and(|(due, _)| *due <= self.now) {
            let Some((_, write)) = member.disk.pending.pop_front() else { break };
            member.disk.apply(&write);
            done = Some(write.number);
            sends.extend(write.then_send);
        }
        let id = member.id;
        for message in sends {
            self.send(id, message.to, Wire::Frame(vec![message], vec![], None));
        }
        if let Some(number) = done {
            self.input(at, Input::Persisted { number });
        }
    }

    fn maybe_tick(&mut self, at: usize) {
        if self.members[at].next_tick <= self.now {
            self.members[at].next_tick = self.now + TICK_MS;
            self.input(at, Input::Tick);
        }
    }

    fn serve_clients(&mut self, at: usize) {
        let id = self.members[at].id;
        for input in self.clients.requests(id, self.options.members, self.now, &mut self.rng) {
            self.input(at, input);
        }
    }

    fn flush(&mut self, at: usize) {
        let now = Duration::from_millis(self.now);
        let Some(replica) = &mut self.members[at].replica else { return };
        let effects = replica.flush(now).expect("no invariant is broken");
        self.carry_out(at, effects);
        self.check(at);
    }

    fn carry_out(&mut self, at: usize, effects: Effects) {
        let id = self.members[at].id;
        assert!(effects.diverged.is_none(), "member {id} diverged at {:?}", effects.diverged);
        for (to, Outgoing { messages, forwarded, beacon }) in effects.send {
            self.send(id, to, Wire::Frame(messages, forwarded, beacon));
        }
        for write in effects.writes {
            let due = self.now + if self.options.sync_ms == 0 { 0 } else { self.rng.random_range(0..self.options.sync_ms) };
            let after = self.members[at].disk.pending.back().map_or(due, |(last, _)| due.max(*last));
            self.members[at].disk.pending.push_back((after, write));
        }
        for outcome in &effects.events {
            let event = &outcome.event;
            (id, event.index, event.time.0, event.action.name()).hash(&mut self.trace);
            if event.action == Action::Expire {
                self.clients.expired(event, self.now);
            }
            self.clients.applied(event);
        }
        for reply in effects.replies {
            self.answer(at, reply);
        }
        for snapshot in effects.snapshots {
            self.send(id, snapshot.to, Wire::Snapshot(snapshot.message, snapshot.state));
        }
        if let Some(base) = effects.compact {
            // The log's thread gets there after the writes before it; a crash in between keeps more, which is harmless.
            if self.members[at].disk.pending.is_empty() {
                self.members[at].disk.compact(base);
            }
        }
        self.maybe_checkpoint(at);
    }

    fn answer(&mut self, at: usize, reply: Reply) {
        let Some(replica) = &self.members[at].replica else { return };
        let (token, outcome) = match reply {
            Reply::Write { token, result } => (token, Outcome::Written(result.map(|e| e.index))),
            Reply::Read { token } => (token, Outcome::Read(replica.state().store.clone())),
            Reply::Published { token } => (token, Outcome::Unknown),
            Reply::Failed { token, reason } => (token, Outcome::Failed(reason)),
        };
        self.clients.answer(token, outcome, self.now);
    }

    fn maybe_checkpoint(&mut self, at: usize) {
        let member = &mut self.members[at];
        let Some(replica) = &member.replica else { return };
        let state = replica.state();
        // Only what is on disk may be in a checkpoint: what is applied is committed, and was synced here before.
        if state.applied.index >= member.checkpointed + self.options.checkpoint_every && member.disk.pending.is_empty() {
            member.checkpointed = state.applied.index;
            let upto = member.disk.checkpoint.applied;
            let records: Vec<_> = state.clone().into_records().collect();
            member.disk.checkpoint = State::from_records(&records, LIMITS).expect("records make a state");
            member.disk.older = upto;
            self.input(at, Input::Compactable { upto });
        }
    }

    fn send(&mut self, from: u64, to: u64, wire: Wire) {
        let options = &self.options;
        let (loss, duplicate) = if self.faults { (options.loss_percent, options.duplicate_percent) } else { (0, 0) };
        if self.rng.random_range(0..100) < loss && !matches!(wire, Wire::Snapshot(..)) {
            return;
        }
        let delay = self.rng.random_range(1..=self.options.delay_ms);
        if let Wire::Frame(messages, forwarded, beacon) = &wire
            && self.rng.random_range(0..100) < duplicate
        {
            let copy = Wire::Frame(messages.clone(), forwarded.clone(), *beacon);
            let at = self.now + delay + self.rng.random_range(0..200);
            self.packets.push(Packet { at, from, to, wire: copy });
        }
        self.packets.push(Packet { at: self.now + delay, from, to, wire });
    }

    /// What must hold after every step.
    fn check(&mut self, at: usize) {
        let member = &mut self.members[at];
        let Some(replica) = &member.replica else { return };
        let state = replica.state();
        let standing = replica.standing();
        // At most one leader in a term.
        if standing.leads {
            let led = *self.leaders.entry(standing.term).or_insert(member.id);
            assert_eq!(led, member.id, "two leaders in term {}", standing.term);
        }
        // All members hold the same state at the same position.
        let digest = *self.digests.entry(state.applied.index).or_insert(state.store.digest());
        assert_eq!(digest, state.store.digest(), "states differ at {}", state.applied.index);
        // The store's index never goes back.
        assert!(state.store.index() >= member.last_index, "the index went back");
        member.last_index = state.store.index();
    }
}
