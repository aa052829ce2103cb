//! Members that talk to each other at once and in order, without a disk or a clock that could fail: what the rules say,
//! not what luck brings, which is the simulator's.

use super::*;
use crate::store::{Command, HistoryLimits, Key};
use raft::eraftpb::HardState;

pub(super) const LIMITS: HistoryLimits = HistoryLimits { events: 100, bytes: 1 << 20 };
pub(super) const TICK: Duration = Duration::from_millis(100);

pub(super) const LOG_HELD_BYTES: u64 = 4 << 20;

pub(super) struct Net {
    pub(super) members: BTreeMap<u64, Replica>,
    pub(super) cut: BTreeSet<u64>,
    /// Members with a full disk, and what waits for it.
    pub(super) full: BTreeMap<u64, Vec<LogWrite>>,
    pub(super) quota: u64,
    pub(super) now: Duration,
    pub(super) replies: Vec<(u64, Reply)>,
    pub(super) left: BTreeSet<u64>,
    strict: bool,
    /// The commit index that each has on its disk.
    pub(super) committed: BTreeMap<u64, u64>,
    /// Members whose disk is done with the next tick, and what it does.
    pub(super) slow: BTreeSet<u64>,
    queued: Vec<(u64, LogWrite)>,
    /// Starts of members.
    runs: u64,
    /// How far each disk was told to forget the log.
    pub(super) compacted: Vec<(u64, LogPosition)>,
    /// Members that hear, but are not heard.
    pub(super) silent: BTreeSet<u64>,
    /// Members that are gone as soon as a change is answered.
    pub(super) cut_when_answered: BTreeSet<u64>,
}

impl Net {
    pub(super) fn founded(ids: impl Iterator<Item = u64> + Clone) -> Self {
        Self::with_quota(ids, 0)
    }

    pub(super) fn with_quota(ids: impl Iterator<Item = u64> + Clone, quota: u64) -> Self {
        let mut net = Self {
            members: BTreeMap::new(),
            cut: BTreeSet::new(),
            full: BTreeMap::new(),
            quota,
            now: Duration::ZERO,
            replies: vec![],
            left: BTreeSet::new(),
            strict: true,
            committed: BTreeMap::new(),
            slow: BTreeSet::new(),
            queued: vec![],
            runs: 0,
            compacted: vec![],
            silent: BTreeSet::new(),
            cut_when_answered: BTreeSet::new(),
        };
        let infos: BTreeMap<_, _> = ids.clone().map(|id| (id, info(id))).collect();
        for id in ids {
            let state = State::founding(7, infos.clone(), LIMITS);
            let hard_state = HardState { term: 1, commit: 1, ..HardState::default() };
            net.start(id, state, LogPosition::FOUNDING, hard_state);
        }
        net.run(40);
        net
    }

    pub(super) fn start(&mut self, id: u64, state: State, base: LogPosition, hard_state: HardState) {
        self.restart(id, Recovered { state, base, entries: vec![], hard_state, clock: None });
    }

    /// Starts it from what is on its disk; what was not yet is lost.
    pub(super) fn restart(&mut self, id: u64, recovered: Recovered) {
        self.queued.retain(|(of, _)| *of != id);
        self.runs += 1;
        let config = ReplicaConfig {
            id,
            session: self.runs,
            seed: id,
            election_ticks: 10,
            request_timeout: Duration::from_secs(7),
            incarnation: id,
            strict_reconfig: self.strict,
            quota_bytes: self.quota,
            log_held_bytes: LOG_HELD_BYTES,
        };
        self.members.insert(id, Replica::new(config, recovered, self.now).unwrap());
    }

    /// A member that was added and has nothing yet.
    pub(super) fn join(&mut self, id: u64) {
        let members = self.members[&self.leader()].state().members.as_ref().clone();
        self.start(id, State::joining(7, members, LIMITS), LogPosition::default(), HardState::default());
    }

    pub(super) fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now += TICK;
            let ids: Vec<u64> = self.members.keys().copied().collect();
            for (id, write) in std::mem::take(&mut self.queued) {
                self.finish(id, write);
            }
            for id in &ids {
                self.give(*id, Input::Tick);
            }
        }
    }

    pub(super) fn give(&mut self, id: u64, input: Input) {
        self.give_all(vec![(id, input)]);
    }

    /// Slow disks are done with the first that waits.
    pub(super) fn finish_one(&mut self) {
        let (id, write) = self.queued.remove(0);
        self.finish(id, write);
    }

    fn finish(&mut self, id: u64, write: LogWrite) {
        self.committed.extend(write.hard_state.map(|hard_state| (id, hard_state.commit)));
        let mut inputs = vec![(id, Input::Persisted { number: write.number })];
        for message in write.then_send.into_iter().filter(|m| self.reaches(id, m.to)) {
            inputs.push((message.to, frame(id, Outgoing { messages: vec![message], ..Outgoing::default() })));
        }
        self.give_all(inputs);
    }

    pub(super) fn reaches(&self, from: u64, to: u64) -> bool {
        !self.cut.contains(&from) && !self.cut.contains(&to) && !self.silent.contains(&from)
    }

    pub(super) fn give_all(&mut self, mut inputs: Vec<(u64, Input)>) {
        let now = self.now;
        while !inputs.is_empty() {
            let (to, input) = inputs.remove(0);
            let Some(member) = self.members.get_mut(&to) else { continue };
            member.step(now, input);
            let effects = member.flush(now).unwrap();
            self.compacted.extend(effects.compact.map(|base| (to, base)));
            self.replies.extend(effects.replies.into_iter().map(|reply| (to, reply)));
            if self.replies.iter().any(|(_, reply)| matches!(reply, Reply::Changed { .. })) {
                self.cut.append(&mut self.cut_when_answered);
            }
            if effects.removed {
                self.left.insert(to);
            }
            for (other, outgoing) in effects.send.into_iter().filter(|(other, _)| self.reaches(to, *other)) {
                inputs.push((other, frame(to, outgoing)));
            }
            for write in effects.writes {
                if self.slow.contains(&to) {
                    self.queued.push((to, write));
                    continue;
                }
                if let Some(waiting) = self.full.get_mut(&to) {
                    waiting.push(write);
                    inputs.push((to, Input::Stalled));
                    continue;
                }
                if let Some(hard_state) = &write.hard_state {
                    self.committed.insert(to, hard_state.commit);
                }
                inputs.push((to, Input::Persisted { number: write.number }));
                for message in write.then_send.into_iter().filter(|message| self.reaches(to, message.to)) {
                    let (other, messages) = (message.to, vec![message]);
                    inputs.push((other, frame(to, Outgoing { messages, ..Outgoing::default() })));
                }
            }
            for snapshot in effects.snapshots {
                let ok = self.reaches(to, snapshot.to) && self.members.contains_key(&snapshot.to);
                if ok {
                    inputs.push((
                        snapshot.to,
                        Input::Snapshot { message: snapshot.message, state: snapshot.state },
                    ));
                }
                inputs.push((to, Input::SnapshotSent { peer: snapshot.to, ok }));
            }
        }
    }

    pub(super) fn leader(&self) -> u64 {
        let leads = |(id, member): (&u64, &Replica)| {
            (member.standing().leads && !self.cut.contains(id)).then_some(*id)
        };
        self.members.iter().find_map(leads).expect("somebody leads")
    }

    pub(super) fn change(&mut self, at: u64, change: MemberChange) -> Result<(u64, MemberInfo), ChangeError> {
        self.replies.clear();
        self.give(at, Input::Change { token: Token(99), change });
        self.run(45);
        let found = self.replies.iter().find_map(|(from, reply)| match reply {
            Reply::Changed { token: Token(99), result } if *from == at => Some(result.clone()),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no answer: {:?}", self.replies))
    }

    pub(super) fn write(&mut self, at: u64, value: &'static str) -> bool {
        self.replies.clear();
        let key = Key::parse(b"/k");
        let command = Command::Set { key, value: value.into(), dir: false, ttl: None, refresh: false };
        self.give(at, Input::Write { token: Token(98), command });
        self.run(10);
        self.replies
            .iter()
            .any(|(_, reply)| matches!(reply, Reply::Write { token: Token(98), result: Ok(_) }))
    }

    pub(super) fn voters(&self) -> Vec<u64> {
        self.members[&self.leader()].state().membership.voters.clone()
    }
}

pub(super) fn frame(from: u64, outgoing: Outgoing) -> Input {
    let Outgoing { messages, forwarded, beacon } = outgoing;
    Input::Frame { from, messages, forwarded, beacon }
}

pub(super) fn info(id: u64) -> MemberInfo {
    MemberInfo { name: format!("m{id}"), peer_urls: vec![format!("http://m{id}:1")], ..MemberInfo::default() }
}

pub(super) fn add(id: u64) -> MemberChange {
    MemberChange::Add { id, peer_urls: vec![format!("http://m{id}:1")], standby: false }
}
