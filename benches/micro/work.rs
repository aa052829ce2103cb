//! What the micro-benchmarks and the guard of instruction counts do: fixed inputs, no clock, no thread.

use bytes::Bytes;
use quorate::http::testing;
use quorate::replica::{
    Effects, Input, LogPosition, MemberInfo, Recovered, Replica, ReplicaConfig, Reply, State, Token,
};
use quorate::store::{ClusterTime, Command, Event, HistoryLimits, Key, Outcome, Store, WatcherHub};
use raft::eraftpb::HardState;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const LIMITS: HistoryLimits = HistoryLimits { events: 100_000, bytes: 64 << 20 };
const VALUE_BYTES: usize = 256;
pub(crate) fn key(number: u64) -> Key {
    Key::parse(format!("/service/region-{}/node-{number:08}", number % 10).as_bytes())
}

pub(crate) fn set(number: u64) -> Command {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    Command::Set { key: key(number), value, dir: false, ttl: None, refresh: false }
}

pub(crate) fn filled(keys: u64) -> Store {
    let mut store = Store::new(LIMITS);
    for number in 0..keys {
        store.apply(ClusterTime(0), &set(number)).expect("nothing is in the way");
    }
    store
}

pub(crate) fn overwrites(keys: u64, count: u64) -> Vec<Command> {
    // A prime that divides no count of keys used here: every key once before any twice.
    (0..count).map(|turn| set(turn * 7_919 % keys)).collect()
}

/// An event that replaced a value.
pub(crate) fn event() -> Arc<Event> {
    let mut store = filled(1);
    store.apply(ClusterTime(1), &set(0)).expect("a file stays a file").event
}

pub(crate) fn render(event: &Event, count: u32) {
    for _ in 0..count {
        black_box(testing::render(event));
    }
}

/// A write as it comes: its path, and its form.
pub(crate) fn parse(count: u32) {
    let form = Bytes::from(format!("value={}&ttl=60&prevExist=true", "v".repeat(VALUE_BYTES)));
    for _ in 0..count {
        assert!(testing::parse_put("/v2/keys/service/region-1/node-00000001", black_box(&form)));
    }
}

/// A hub with so many watchers of other keys, and a few of what changes.
pub(crate) fn hub(watchers: u64) -> WatcherHub {
    let mut hub = WatcherHub::new();
    for number in 0..watchers {
        hub.insert(key(number), false);
    }
    hub.insert(Key::parse(b"/service"), true);
    hub.insert(Key::root(), true);
    hub
}

pub(crate) fn outcomes(count: u64) -> Vec<Outcome> {
    let mut store = Store::new(LIMITS);
    let apply = |number| store.apply(ClusterTime(0), &set(number)).expect("nothing is in the way");
    (0..count).map(apply).collect()
}

pub(crate) fn match_watchers(hub: &WatcherHub, outcomes: &[Outcome]) -> usize {
    let mut told = 0;
    for outcome in outcomes {
        hub.matching(outcome, |_| told += 1);
    }
    told
}

/// Three members without disks or a network between them: whatever is sent arrives, whatever is written is durable.
pub(crate) struct Trio {
    members: Vec<Replica>,
    now: Duration,
    inputs: VecDeque<(usize, Input)>,
    answered: u64,
    next_token: u64,
}

const TICK: Duration = Duration::from_millis(100);

impl Trio {
    /// Three members, the first of which leads.
    pub(crate) fn start() -> Self {
        let infos = || (1..=3).map(|id| (id, MemberInfo::default())).collect();
        let member = |id| {
            let config = ReplicaConfig {
                incarnation: id,
                strict_reconfig: true,
                quota_bytes: 0,
                log_held_bytes: 32 << 20,
                id,
                session: id,
                // The first one's timeout is the shortest with these, whatever it is.
                seed: id,
                election_ticks: 10,
                request_timeout: Duration::from_secs(7),
            };
            let recovered = Recovered {
                state: State::founding(7, infos(), LIMITS),
                base: LogPosition::FOUNDING,
                entries: Vec::new(),
                hard_state: HardState { term: 1, commit: 1, ..HardState::default() },
                clock: None,
            };
            Replica::new(config, recovered, Duration::ZERO).expect("a founding member starts")
        };
        let members: Vec<Replica> = (1..=3).map(member).collect();
        let mut trio =
            Self { members, now: Duration::ZERO, inputs: VecDeque::new(), answered: 0, next_token: 0 };
        while trio.leader().is_none() {
            trio.now += TICK;
            trio.inputs.extend((0..3).map(|member| (member, Input::Tick)));
            trio.settle();
        }
        trio
    }

    fn leader(&self) -> Option<usize> {
        self.members.iter().position(|member| member.standing().leads && member.state().applied.term > 1)
    }

    /// Proposes writes at the leader, all at once, and returns when every member has applied them.
    pub(crate) fn commit(&mut self, writes: &[Command]) {
        let leader = self.leader().expect("nothing makes it step down");
        let expected = self.answered + writes.len() as u64;
        for command in writes {
            let token = Token(self.next_token);
            self.next_token += 1;
            self.members[leader].step(self.now, Input::Write { token, command: command.clone() });
        }
        self.flush(leader);
        self.settle();
        assert_eq!(self.answered, expected);
    }

    fn settle(&mut self) {
        while let Some((member, input)) = self.inputs.pop_front() {
            self.members[member].step(self.now, input);
            self.flush(member);
        }
    }

    fn flush(&mut self, member: usize) {
        let effects = self.members[member].flush(self.now).expect("no invariant is broken");
        self.carry_out(member, effects);
    }

    fn carry_out(&mut self, member: usize, effects: Effects) {
        let from = member as u64 + 1;
        for (to, outgoing) in effects.send {
            let Ok(to) = usize::try_from(to - 1) else { continue };
            let (messages, forwarded) = (outgoing.messages, outgoing.forwarded);
            self.inputs.push_back((to, Input::Frame { from, messages, forwarded, beacon: outgoing.beacon }));
        }
        for write in effects.writes {
            self.inputs.push_back((member, Input::Persisted { number: write.number }));
            for message in write.then_send {
                let Ok(to) = usize::try_from(message.to - 1) else { continue };
                let messages = vec![message];
                let frame = Input::Frame { from, messages, forwarded: Vec::new(), beacon: None };
                self.inputs.push_back((to, frame));
            }
        }
        let written = effects.replies.iter().filter(|reply| matches!(reply, Reply::Write { .. }));
        self.answered += written.count() as u64;
    }
}
