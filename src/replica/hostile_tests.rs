//! Whatever comes from a peer, a member goes on: messages of every kind with fields drawn at random.

use super::test_net::{LIMITS, info};
use super::*;
use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

const KINDS: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

struct Hostile {
    rng: ChaCha8Rng,
    member: Replica,
    now: Duration,
}

impl Hostile {
    /// A member of three, which leads if it has the only vote.
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut state = State::founding(7, (1..=3).map(|id| (id, info(id))).collect(), LIMITS);
        if rng.random_range(0..3) == 0 {
            state.membership = ConfState::from((vec![1], vec![2, 3]));
        }
        let config = ReplicaConfig {
            id: 1,
            session: 1,
            seed,
            election_ticks: 10,
            request_timeout: Duration::from_secs(7),
            incarnation: 1,
            strict_reconfig: true,
            quota_bytes: 0,
            log_held_bytes: if seed.is_multiple_of(2) { 0 } else { 1 << 20 },
        };
        let entries = (2..6).map(|index| Entry { index, term: 1 + index / 4, ..Entry::default() }).collect();
        let hard_state = HardState { term: 2, commit: 3, ..HardState::default() };
        let base = LogPosition::FOUNDING;
        let mut recovered = Recovered { state, base, entries, hard_state, clock: None };
        if seed.is_multiple_of(5) {
            // One that was added and has nothing yet.
            let members = recovered.state.members.as_ref().clone();
            recovered = Recovered {
                state: State::joining(7, members, LIMITS),
                base: LogPosition::default(),
                entries: vec![],
                hard_state: HardState::default(),
                clock: None,
            };
        }
        let member = Replica::new(config, recovered, Duration::ZERO).unwrap();
        Self { rng, member, now: Duration::ZERO }
    }

    fn near(&mut self, value: u64) -> u64 {
        match self.rng.random_range(0..12) {
            0 => 0,
            1 => 1,
            2 => value.saturating_sub(1),
            3 => value.saturating_add(1),
            4 => value.saturating_add(self.rng.random_range(0..5)),
            5 => value.saturating_add(1 << 33),
            6 => u64::MAX - self.rng.random_range(0..3),
            _ => value,
        }
    }

    fn index(&mut self) -> u64 {
        let log = &self.member.raw.raft.raft_log;
        let (committed, last) = (log.committed, log.last_index());
        let of = if self.rng.random_range(0..2) == 0 { committed } else { last };
        self.near(of)
    }

    fn term(&mut self) -> u64 {
        let term = self.member.raw.raft.term;
        self.near(term)
    }

    fn membership(&mut self) -> ConfState {
        if self.rng.random_range(0..2) == 0 {
            return self.member.state().membership.clone();
        }
        let mut ids =
            || (0..self.rng.random_range(0..4)).map(|_| self.rng.random_range(0..4)).collect::<Vec<_>>();
        let (voters, learners) = (ids(), ids());
        let mut membership = ConfState::from((voters, learners));
        if self.rng.random_range(0..4) == 0 {
            membership.set_voters_outgoing(vec![2]);
            membership.auto_leave = true;
        }
        membership
    }

    fn message(&mut self) -> Message {
        let mut message = Message {
            from: self.rng.random_range(0..5),
            to: if self.rng.random_range(0..20) == 0 { 2 } else { 1 },
            term: self.term(),
            index: self.index(),
            log_term: self.term(),
            commit: self.index(),
            commit_term: self.term(),
            reject: self.rng.random_range(0..2) == 0,
            reject_hint: self.index(),
            priority: self.rng.random_range(-1..2),
            request_snapshot: if self.rng.random_range(0..2) == 0 { 0 } else { self.index() },
            ..Message::default()
        };
        message.set_msg_type(KINDS[self.rng.random_range(0..KINDS.len())]);
        let mut before = (message.index, message.log_term);
        for _ in 0..self.rng.random_range(0..4) {
            let in_order = self.rng.random_range(0..8) != 0;
            let index = if in_order { before.0.wrapping_add(1) } else { self.index() };
            let term = if in_order { before.1 } else { self.term() };
            before = (index, term);
            message.mut_entries().push(Entry { index, term, ..Entry::default() });
        }
        if self.rng.random_range(0..3) == 0 {
            message.set_context(vec![7; self.rng.random_range(0..20)].into());
        }
        message
    }

    fn say_something(&mut self) {
        let mut message = self.message();
        let from = message.from;
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let mut state = self.member.state().clone();
            state.applied = LogPosition { index: message.index, term: message.log_term };
            state.membership = self.membership();
            let metadata = message.mut_snapshot().mut_metadata();
            (metadata.index, metadata.term) = (state.applied.index, state.applied.term);
            metadata.set_conf_state(state.membership.clone());
            self.member
                .step(self.now, Input::Snapshot { message: Box::new(message), state: Box::new(state) });
        } else {
            let input = Input::Frame { from, messages: vec![message], forwarded: vec![], beacon: None };
            self.member.step(self.now, input);
        }
    }
}

#[test]
fn nothing_that_a_peer_says_stops_a_member_or_changes_what_is_committed() {
    let (mut led, mut campaigned) = (0, 0);
    for seed in 0..400 {
        let mut hostile = Hostile::new(seed);
        let (mut committed, mut unwritten) = (BTreeMap::<u64, u64>::new(), Vec::new());
        for _ in 0..60 {
            match hostile.rng.random_range(0..8) {
                0 => hostile.member.step(hostile.now, Input::Tick),
                1..4 => {
                    for number in unwritten.drain(..) {
                        hostile.member.step(hostile.now, Input::Persisted { number });
                    }
                }
                _ => hostile.say_something(),
            }
            if hostile.rng.random_range(0..3) == 0 {
                continue;
            }
            let effects =
                hostile.member.flush(hostile.now).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            for write in effects.writes {
                unwritten.push(write.number);
                if let Some(state) = write.install {
                    let LogPosition { index, term } = state.applied;
                    let known = committed.range(..=index).next_back().map(|(at, known)| (*at, *known));
                    assert!(known.is_none_or(|(at, known)| known == term || (at < index && known < term)));
                    committed.insert(index, term);
                }
            }
            let standing = hostile.member.standing();
            led += u32::from(standing.leads);
            campaigned += u32::from(hostile.member.raw.raft.state != raft::StateRole::Follower);
            for entry in hostile.member.log_entries() {
                if entry.index <= standing.commit {
                    let known = *committed.entry(entry.index).or_insert(entry.term);
                    assert_eq!(known, entry.term, "seed {seed}: entry {} is another", entry.index);
                }
            }
        }
        assert!(hostile.member.raw.raft.term < 1 << 40, "seed {seed}: the terms are used up");
    }
    assert!(led > 500 && campaigned > led + 100, "{led} {campaigned}");
}
