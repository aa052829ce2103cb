//! Members, their disks and their clocks, and the faults that befall them.
//!
//! Time goes from one thing that is due to the next. Members crash between any two effects, pause (what is sent to
//! them meanwhile arrives afterwards), and have clocks that are faster or slower than real time.

mod effects;
mod faults;

use crate::clients::Clients;
use crate::disk::Disk;
use crate::network::{Network, Packet, Wire};
use crate::options::{Bug, Options};
use crate::oracle::{Coverage, Oracle};
use faults::Faults;
use quorate::replica::{Input, MemberInfo, Replica, ReplicaConfig, Reply, State};
use quorate::store::HistoryLimits;
use rand::{Rng as _, RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::time::Duration;

const TICK_MS: u64 = 100;
const KEEP_CLOCK_MS: u64 = 1_000;
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

struct Member {
    id: u64,
    replica: Option<Replica>,
    disk: Disk,
    /// How fast its clock is, by the thousand, and when its process started.
    clock_permille: u64,
    booted: u64,
    next_tick: u64,
    wake_at: Option<u64>,
    paused_until: u64,
    down_until: u64,
    crash_at: Option<u64>,
    boots: u64,
    checkpointed: u64,
    /// The last event that watchers were told of.
    watched: u64,
    dirty: bool,
}

impl Member {
    fn clock(&self, now: u64) -> Duration {
        Duration::from_micros((now - self.booted) * self.clock_permille)
    }

    /// When its clock will show this.
    fn when(&self, clock: Duration) -> u64 {
        self.booted + (clock.as_micros() as u64).div_ceil(self.clock_permille)
    }

    fn leads(&self) -> bool {
        self.replica.as_ref().is_some_and(|r| r.standing().leads)
    }

    fn next_at(&self) -> u64 {
        if self.replica.is_none() {
            return self.down_until;
        }
        let disk = self.disk.pending.front().map(|(due, _)| *due);
        let next = [Some(self.next_tick), self.wake_at, disk].into_iter().flatten().min();
        let next = next.unwrap_or(self.next_tick).max(self.paused_until);
        self.crash_at.map_or(next, |crash| crash.min(next))
    }
}

pub struct World {
    now: u64,
    rng: ChaCha8Rng,
    options: Options,
    members: Vec<Member>,
    network: Network,
    clients: Clients,
    oracle: Oracle,
    faults: Faults,
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let infos = (1..=options.members)
            .map(|id| (id, MemberInfo { name: format!("m{id}"), ..MemberInfo::default() }));
        let limits = HistoryLimits { events: options.history, bytes: 1 << 20 };
        let state = State::founding(7, infos.collect(), limits);
        let drift = options.drift_permille;
        let members = (1..=options.members)
            .map(|id| Member {
                id,
                replica: None,
                disk: Disk::founding(&state, options.bug),
                clock_permille: rng.random_range(1_000 - drift..=1_000 + drift),
                booted: 0,
                next_tick: 0,
                wake_at: None,
                paused_until: 0,
                down_until: 0,
                crash_at: None,
                boots: 0,
                checkpointed: 1,
                watched: 0,
                dirty: false,
            })
            .collect();
        Self {
            now: 0,
            rng,
            members,
            network: Network::new(&options),
            clients: Clients::new(options.clients),
            oracle: Oracle::new(drift),
            faults: Faults::default(),
            options,
        }
    }

    pub fn trace_hash(&self) -> u64 {
        self.oracle.trace_hash()
    }

    pub fn coverage(&self) -> Coverage {
        self.oracle.coverage
    }

    /// Runs for some simulated time with faults of every kind that the options allow.
    pub fn run_faults(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.inject(end);
            self.step(self.faults.next_at().min(end));
        }
    }

    /// Ends all faults; then the cluster must get everything done, and all members must come to one state.
    pub fn heal_and_converge(&mut self) {
        self.network.heal(self.now, &mut self.rng);
        (self.options.install_ms, self.options.crash_at_write) = (0, 0);
        self.options.sync_ms = self.options.sync_ms.min(10);
        for member in &mut self.members {
            member.paused_until = 0;
            member.down_until = 0;
            member.crash_at = None;
        }
        let healed = self.now;
        self.clients.stop();
        loop {
            self.step(self.now + TICK_MS);
            let states = || self.members.iter().map(|m| m.replica.as_ref().map(Replica::state));
            let applied: BTreeSet<_> = states().map(|s| s.map(|s| s.applied)).collect();
            let leases = states().flatten().map(|s| s.store.ttl_count()).max();
            let settled =
                self.now > healed + 10_000 && applied.len() == 1 && self.clients.idle() && leases == Some(0);
            if settled {
                break;
            }
            assert!(
                self.now < healed + 60_000,
                "a healed cluster did not settle: {applied:?}, {leases:?} leases"
            );
        }
        self.clients.force_one_more_write(self.now);
        let begun = self.now;
        while !self.clients.idle() {
            self.step(self.now + TICK_MS);
            assert!(self.now < begun + 10_000, "a healed cluster takes no writes");
        }
    }

    fn boot(&mut self, at: usize) {
        let first_tick = self.rng.random_range(0..TICK_MS);
        let member = &mut self.members[at];
        member.boots += 1;
        member.booted = self.now;
        member.next_tick = self.now + 1 + first_tick;
        let config = ReplicaConfig {
            incarnation: member.id,
            strict_reconfig: true,
            id: member.id,
            session: member.id << 32 | member.boots,
            seed: self.rng.next_u64(),
            election_ticks: self.options.election_ticks as usize,
            request_timeout: REQUEST_TIMEOUT,
            quota_bytes: 0,
        };
        let clock = member.disk.clock.map(|(term, time, noted)| match self.options.bug {
            Some(Bug::LeaderlessTime) => (term, time.plus(self.now - noted)),
            _ => (term, time),
        });
        let recovered = member.disk.recover(clock, &mut self.rng);
        let replica = Replica::new(config, recovered, Duration::ZERO).expect("a member starts from its disk");
        member.checkpointed = replica.state().applied.index;
        member.watched = replica.state().store.index();
        member.replica = Some(replica);
        let id = member.id;
        for peer in (1..=self.options.members).filter(|peer| *peer != id) {
            self.input(at, Input::Connected { peer });
            self.network.hold(Packet { from: id, to: peer, wire: Wire::Connected }, self.now + 5);
        }
        self.flush(at);
    }

    /// Goes on to the next moment at which something is due, or to `until`.
    fn step(&mut self, until: u64) {
        let members = self.members.iter().map(Member::next_at);
        let others = [self.network.next_at(), self.clients.next_at(), Some(until)];
        let next = members.chain(others.into_iter().flatten()).min().unwrap_or(until).max(self.now + 1);
        self.oracle.time_passed(next - self.now, self.members.iter().any(Member::leads));
        self.now = next;
        for at in 0..self.members.len() {
            let member = &self.members[at];
            if member.crash_at.is_some_and(|crash| crash <= self.now) {
                self.crash(at);
            } else if member.replica.is_none() && member.down_until <= self.now {
                self.boot(at);
            }
        }
        self.deliver();
        let running: Vec<bool> = (0..self.members.len()).map(|at| self.runs(at)).collect();
        for at in (0..running.len()).filter(|at| running[*at]) {
            self.sync_disk(at);
            self.maybe_tick(at);
        }
        for (at, input) in self.clients.due(self.now, &running, &mut self.rng, &mut self.oracle) {
            self.request(at, input);
        }
        for (at, runs) in running.into_iter().enumerate() {
            let member = &self.members[at];
            if runs && (member.dirty || member.wake_at.is_some_and(|wake| wake <= self.now)) {
                self.flush(at);
            }
        }
    }

    fn runs(&self, at: usize) -> bool {
        self.members[at].replica.is_some() && self.members[at].paused_until <= self.now
    }

    fn input(&mut self, at: usize, input: Input) {
        let member = &mut self.members[at];
        let clock = member.clock(self.now);
        if let Some(replica) = &mut member.replica {
            member.dirty = true;
            replica.step(clock, input);
        }
    }

    fn deliver(&mut self) {
        while let Some(packet) = self.network.arrived(self.now) {
            let at = (packet.to - 1) as usize;
            let member = &self.members[at];
            if member.replica.is_some() && member.paused_until > self.now {
                let until = member.paused_until;
                self.network.hold(packet, until);
                continue;
            }
            let Packet { from, to, wire } = packet;
            let lost = member.replica.is_none() || self.network.is_cut(from, to);
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
                _ if lost => continue,
                Wire::Connected => Input::Connected { peer: from },
                Wire::Frame(messages, forwarded, beacon) => {
                    Input::Frame { from, messages, forwarded, beacon }
                }
            };
            self.input(at, input);
        }
    }

    fn sync_disk(&mut self, at: usize) {
        let mut done = None;
        let mut sends = vec![];
        let member = &mut self.members[at];
        while member.disk.pending.front().is_some_and(|(due, _)| *due <= self.now) {
            let Some((_, write)) = member.disk.pending.pop_front() else { break };
            member.disk.apply(&write);
            self.oracle.coverage.installs += u64::from(write.install.is_some());
            self.oracle.logged(&write);
            done = Some(write.number);
            sends.extend(write.then_send);
        }
        if let Some(number) = done {
            self.input(at, Input::Persisted { number });
        }
        for message in sends {
            self.send(at, message.to, Wire::Frame(vec![message], vec![], None));
        }
    }

    fn maybe_tick(&mut self, at: usize) {
        let member = &mut self.members[at];
        if member.next_tick > self.now {
            return;
        }
        member.next_tick = self.now + TICK_MS;
        self.input(at, Input::Tick);
        let member = &mut self.members[at];
        let noted = member.disk.clock.map_or(0, |(_, _, noted)| noted);
        if self.now >= noted + KEEP_CLOCK_MS
            && let Some(replica) = &member.replica
        {
            let (term, time) = replica.vouched_time(member.clock(self.now));
            member.disk.clock = Some((term, time, self.now));
        }
    }

    fn request(&mut self, at: usize, input: Input) {
        if let Input::Read { token } = input
            && self.may_read_by_bug(at)
        {
            self.answer(at, Reply::Read { token });
        } else {
            self.input(at, input);
        }
    }

    fn flush(&mut self, at: usize) {
        loop {
            let member = &mut self.members[at];
            member.dirty = false;
            let clock = member.clock(self.now);
            let Some(replica) = &mut member.replica else { return };
            let effects = replica.flush(clock).expect("no invariant is broken");
            member.wake_at = effects.wake_at.map(|wake| member.when(wake));
            // Asking for an hour that has struck is asking to be run in circles.
            assert!(member.wake_at.is_none_or(|wake| wake > self.now), "it never rests");
            self.carry_out(at, effects);
            self.check(at);
            if !self.members[at].dirty {
                return;
            }
        }
    }

    /// What must hold after every step.
    fn check(&mut self, at: usize) {
        let member = &self.members[at];
        let Some(replica) = &member.replica else { return };
        let state = replica.state();
        self.oracle.standing(member.id, replica.standing());
        self.oracle.state(state);
        assert_eq!(member.watched, state.store.index(), "watchers of {} miss what is applied", member.id);
    }
}
