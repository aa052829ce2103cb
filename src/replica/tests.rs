//! What takes a peer's exact words to come about; what takes luck is found in `tests/sim`.

use super::test_net::Net;
use super::*;
use crate::proto::command::Batch;
use crate::proto::peer::Beacon;
use crate::store::{Command, HistoryLimits, Key};
use raft::eraftpb::{Entry, HardState, Message, MessageType};

const LIMITS: HistoryLimits = HistoryLimits { events: 100, bytes: 1 << 20 };
const MS: Duration = Duration::from_millis(1);

fn founding() -> State {
    let infos = (1..=3).map(|id| (id, MemberInfo::default()));
    State::founding(7, infos.collect(), LIMITS)
}

fn start(recovered: Recovered) -> Replica {
    let config = ReplicaConfig {
        incarnation: 7,
        strict_reconfig: true,
        id: 1,
        session: 1,
        seed: 1,
        election_ticks: 10,
        request_timeout: Duration::from_secs(7),
        quota_bytes: 0,
        log_held_bytes: 32 << 20,
    };
    Replica::new(config, recovered, Duration::ZERO).unwrap()
}

fn member() -> Replica {
    let hard_state = HardState { term: 1, commit: 1, ..HardState::default() };
    let base = LogPosition::FOUNDING;
    start(Recovered { state: founding(), base, entries: vec![], hard_state, clock: None })
}

fn message(kind: MessageType, from: u64, term: u64) -> Message {
    let mut message = Message { from, to: 1, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn frame(replica: &mut Replica, message: Message) {
    let input = Input::Frame { from: message.from, messages: vec![message], forwarded: vec![], beacon: None };
    replica.step(MS, input);
}

fn snapshot(from: u64, term: u64, index: u64) -> Input {
    let mut state = founding();
    state.applied = LogPosition { index, term };
    let mut message = message(MessageType::MsgSnapshot, from, term);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (index, term);
    metadata.set_conf_state(state.membership.clone());
    Input::Snapshot { message: Box::new(message), state: Box::new(state) }
}

#[test]
fn of_two_snapshots_at_once_the_newer_is_installed_and_durable_with_its_term() {
    let mut replica = member();
    replica.step(MS, snapshot(2, 3, 90));
    replica.step(MS, snapshot(2, 3, 40));
    let effects = replica.flush(MS).unwrap();
    assert_eq!(replica.state().applied.index, 90);
    let write = effects.writes.iter().find(|write| write.install.is_some()).unwrap();
    assert_eq!(write.hard_state.as_ref().map(|hs| (hs.term, hs.commit)), Some((3, 90)));
    assert!(write.sync && !write.then_send.is_empty(), "the answer waits for the disk");
}

#[test]
fn a_member_that_installs_a_snapshot_neither_campaigns_nor_panics() {
    let mut replica = member();
    replica.step(MS, snapshot(2, 3, 90));
    let number = replica.flush(MS).unwrap().writes.last().unwrap().number;
    for _ in 0..50 {
        replica.step(MS, Input::Tick);
    }
    frame(&mut replica, message(MessageType::MsgTimeoutNow, 2, 3));
    assert_eq!(replica.flush(MS).unwrap().send.len(), 0);
    replica.step(MS, Input::Persisted { number });
    for _ in 0..50 {
        replica.step(MS, Input::Tick);
    }
    let effects = replica.flush(MS).unwrap();
    let asks = |m: &Message| m.get_msg_type() == MessageType::MsgRequestPreVote;
    let later = effects.writes.iter().flat_map(|write| &write.then_send);
    let sent = effects.send.iter().flat_map(|(_, out)| &out.messages).chain(later);
    assert!(sent.into_iter().any(asks), "once it has it on disk it does");
}

#[test]
fn a_hint_of_an_earlier_term_than_the_state_does_not_count() {
    let restart = |clock| {
        let mut state = founding();
        state.applied = LogPosition { index: 5, term: 4 };
        state.time = ClusterTime(1_000);
        let hard_state = HardState { term: 4, commit: 5, ..HardState::default() };
        let replica = start(Recovered { base: state.applied, state, entries: vec![], hard_state, clock });
        replica.vouched_time(MS)
    };
    assert_eq!(restart(None), (4, ClusterTime(1_000)));
    assert_eq!(restart(Some((3, ClusterTime(60_000)))), (4, ClusterTime(1_000)));
    assert_eq!(restart(Some((4, ClusterTime(60_000)))), (4, ClusterTime(60_000)));
}

#[test]
fn nonsense_from_a_peer_is_passed_over() {
    let lead = |replica: &mut Replica| {
        frame(replica, message(MessageType::MsgHeartbeat, 2, 3));
        replica.flush(MS).unwrap();
    };
    let mut replica = member();
    lead(&mut replica);
    // Raft would take the first for its own, and its commit index; it would index an empty list for the second.
    let mut answer = message(MessageType::MsgReadIndexResp, 2, 0);
    answer.index = 1 << 40;
    answer.mut_entries().push(Entry::default());
    frame(&mut replica, answer);
    frame(&mut replica, message(MessageType::MsgReadIndex, 2, 0));
    let mut heartbeat = message(MessageType::MsgHeartbeat, 2, 3);
    heartbeat.commit = 1 << 40;
    frame(&mut replica, heartbeat);
    for index in [1, 1 << 40, u64::MAX] {
        let mut append = message(MessageType::MsgAppend, 2, 3);
        (append.index, append.log_term, append.commit) = (index, 1, u64::MAX);
        append.mut_entries().push(Entry { index: index.wrapping_add(2), term: 3, ..Entry::default() });
        frame(&mut replica, append);
    }
    replica.flush(MS).unwrap();
    assert_eq!(replica.standing().commit, 1);
    lead(&mut replica);
    assert_eq!(replica.standing().leader, 2, "and goes on");
}

#[test]
fn a_leader_passes_over_answers_that_cannot_be() {
    let mut state = founding();
    state.membership = raft::eraftpb::ConfState::from((vec![1], vec![2]));
    let hard_state = HardState { term: 1, commit: 1, ..HardState::default() };
    let mut replica =
        start(Recovered { state, base: LogPosition::FOUNDING, entries: vec![], hard_state, clock: None });
    let effects = replica.flush(MS).unwrap();
    assert!(replica.standing().leads);
    replica.step(MS, Input::Persisted { number: effects.writes.last().unwrap().number });
    let term = replica.standing().term;
    let mut answer = message(MessageType::MsgAppendResponse, 2, term);
    answer.index = u64::MAX;
    frame(&mut replica, answer);
    // One before what it was given next, and more than it can have: raft would count on from there.
    let next = replica.raw.raft.prs().get(2).unwrap().next_idx;
    let mut answer = message(MessageType::MsgAppendResponse, 2, term);
    (answer.index, answer.reject, answer.reject_hint) = (next - 1, true, u64::MAX);
    frame(&mut replica, answer);
    frame(&mut replica, message(MessageType::MsgReadIndex, 2, 0));
    replica.flush(MS).unwrap();
    assert!(replica.standing().leads);
}

/// Raft panics if one becomes leader before it has all of its log on disk.
#[test]
fn nobody_leads_before_its_log_is_on_disk_whatever_peers_say() {
    for sole in [true, false] {
        let mut state = founding();
        if sole {
            state.membership = raft::eraftpb::ConfState::from((vec![1], vec![2, 3]));
        }
        let hard_state = HardState { term: 1, commit: 1, ..HardState::default() };
        let mut replica =
            start(Recovered { state, base: LogPosition::FOUNDING, entries: vec![], hard_state, clock: None });
        for write in replica.flush(MS).unwrap().writes {
            replica.step(MS, Input::Persisted { number: write.number });
        }
        let log = replica.raw.store().last_position();
        let mut append = message(MessageType::MsgAppend, 2, 9);
        (append.index, append.log_term) = (log.index, log.term);
        append.mut_entries().push(Entry { index: log.index + 1, term: 9, ..Entry::default() });
        frame(&mut replica, append);
        let writes = replica.flush(MS).unwrap().writes;
        frame(&mut replica, message(MessageType::MsgTimeoutNow, 2, 9));
        for _ in 0..30 {
            replica.step(MS, Input::Tick);
            for kind in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
                for term in 9..13 {
                    frame(&mut replica, message(kind, 2, term));
                }
            }
        }
        assert!(!replica.standing().leads);
        let numbers = writes
            .iter()
            .map(|write| write.number)
            .chain(replica.flush(MS).unwrap().writes.into_iter().map(|write| write.number));
        for number in numbers.collect::<Vec<_>>() {
            replica.step(MS, Input::Persisted { number });
        }
        for _ in 0..30 {
            replica.step(MS, Input::Tick);
        }
        replica.flush(MS).unwrap();
        assert_eq!(replica.standing().leads, sole, "then it does, if it has the only vote");
    }
}

#[test]
fn a_state_that_differs_from_the_leaders_at_the_same_position_is_noticed() {
    let beacon = |digest_index, digest| Beacon { term: 3, digest_index, digest, ..Beacon::default() };
    let hear = |from: u64, beacon: Beacon| {
        let mut replica = member();
        frame(&mut replica, message(MessageType::MsgHeartbeat, 2, 3));
        let input = Input::Frame { from, messages: vec![], forwarded: vec![], beacon: Some(beacon) };
        replica.step(MS, input);
        replica.flush(MS).unwrap().diverged
    };
    let digest = founding().store.digest();
    assert_eq!(hear(2, beacon(1, digest ^ 1)), Some(LogPosition::FOUNDING));
    assert_eq!(hear(2, beacon(1, digest)), None);
    assert_eq!(hear(2, beacon(2, digest ^ 1)), None, "the leader is elsewhere in the log");
    assert_eq!(hear(3, beacon(1, digest ^ 1)), None, "not the leader");
}

/// Kinds of the messages that are to be sent, at once or after a write.
fn sent(effects: &Effects) -> Vec<MessageType> {
    let now = effects.send.iter().flat_map(|(_, outgoing)| &outgoing.messages);
    let later = effects.writes.iter().flat_map(|write| &write.then_send);
    now.chain(later).map(Message::get_msg_type).collect()
}

#[test]
fn an_append_that_only_announces_a_commit_is_not_answered_but_one_that_asks_is() {
    let mut replica = member();
    let append = |index, commit, entries: Vec<Entry>| {
        let mut append = message(MessageType::MsgAppend, 2, 2);
        (append.index, append.log_term, append.commit) = (index, index, commit);
        append.set_entries(entries.into());
        append
    };
    frame(&mut replica, append(1, 1, vec![Entry { index: 2, term: 2, ..Entry::default() }]));
    let effects = replica.flush(MS).unwrap();
    assert_eq!(sent(&effects), [MessageType::MsgAppendResponse]);
    let number = effects.writes[0].number;
    replica.step(MS, Input::Persisted { number });
    frame(&mut replica, append(2, 2, vec![]));
    let effects = replica.flush(MS).unwrap();
    assert_eq!((sent(&effects), replica.state().applied.index), (vec![], 2));
    frame(&mut replica, append(2, 2, vec![]));
    assert_eq!(sent(&replica.flush(MS).unwrap()), [MessageType::MsgAppendResponse]);
}

/// Carries out what a lone member wants, on a disk that takes no time.
fn settle(replica: &mut Replica, now: Duration) -> Effects {
    let mut all = Effects::default();
    loop {
        let effects = replica.flush(now).unwrap();
        all.events.extend(effects.events);
        all.wake_at = effects.wake_at;
        let Some(last) = effects.writes.last() else { return all };
        replica.step(now, Input::Persisted { number: last.number });
    }
}

#[test]
fn no_part_of_a_millisecond_is_taken_from_a_time_to_live() {
    let micros = Duration::from_micros;
    for part in [0, 1, 500, 999] {
        let infos = BTreeMap::from([(1, MemberInfo::default())]);
        let state = State::founding(7, infos, LIMITS);
        let hard_state = HardState { term: 1, commit: 1, ..HardState::default() };
        let base = LogPosition::FOUNDING;
        let mut replica = start(Recovered { state, base, entries: vec![], hard_state, clock: None });
        settle(&mut replica, Duration::ZERO);
        let set = micros(10_000 + part);
        let (key, value) = (crate::store::Key::parse(b"/k"), "v".into());
        let command = crate::store::Command::Set { key, value, dir: false, ttl: Some(5), refresh: false };
        replica.step(set, Input::Write { token: Token(1), command });
        let mut wake_at = settle(&mut replica, set).wake_at.expect("somebody must come back for it");
        assert!(settle(&mut replica, set + micros(4_999)).events.is_empty(), "{part}: early");
        loop {
            let effects = settle(&mut replica, wake_at);
            if !effects.events.is_empty() {
                break;
            }
            assert!(effects.wake_at.is_some_and(|next| next > wake_at), "{part}: it would come back at once");
            wake_at = effects.wake_at.unwrap_or_default();
        }
        let lived = wake_at.checked_sub(set).unwrap();
        assert!(lived >= micros(5_000) && lived <= micros(6_000), "{part}: {lived:?}");
    }
}

/// A leader whose standby, the member 2, has all of its log.
fn leader_of_a_standby() -> Replica {
    let infos = (1..=2).map(|id| (id, MemberInfo { standby: id == 2, ..MemberInfo::default() }));
    let mut state = State::founding(7, infos.collect(), LIMITS);
    state.membership = raft::eraftpb::ConfState::from((vec![1], vec![2]));
    let hard_state = HardState { term: 1, commit: 1, ..HardState::default() };
    let base = LogPosition::FOUNDING;
    let mut replica = start(Recovered { state, base, entries: vec![], hard_state, clock: None });
    settle(&mut replica, MS);
    follow(&mut replica);
    settle(&mut replica, MS);
    assert!(replica.standing().leads);
    replica
}

/// The standby says that it has everything.
fn follow(replica: &mut Replica) {
    let mut answer = message(MessageType::MsgAppendResponse, 2, replica.standing().term);
    answer.index = replica.log_entries().last().map_or(1, |entry| entry.index);
    frame(replica, answer);
}

fn write(replica: &mut Replica, now: Duration) {
    let (key, value) = (crate::store::Key::parse(b"/k"), "v".into());
    let command = crate::store::Command::Set { key, value, dir: false, ttl: None, refresh: false };
    replica.step(now, Input::Write { token: Token(1), command });
}

/// What is sent to the standby: how many entries, and the commit index.
fn appends(effects: &Effects) -> Vec<(usize, u64)> {
    let messages = effects.send.iter().flat_map(|(_, outgoing)| &outgoing.messages);
    let appends = messages.filter(|message| message.get_msg_type() == MessageType::MsgAppend);
    appends.map(|append| (append.entries.len(), append.commit)).collect()
}

#[test]
fn a_commit_is_told_with_the_next_entries_or_soon() {
    let mut replica = leader_of_a_standby();
    let mut commit = |now: Duration| {
        write(&mut replica, now);
        let effects = replica.flush(now).unwrap();
        let number = effects.writes.last().unwrap().number;
        replica.step(now, Input::Persisted { number });
        (appends(&effects), replica.flush(now).unwrap(), replica.standing().commit)
    };
    let now = MS * 10;
    let (_, applied, first) = commit(now);
    assert_eq!(applied.replies.len(), 1, "its own client is answered at once");
    assert_eq!(appends(&applied), [], "and nobody waits at the standby");
    let (entries, applied, second) = commit(now);
    assert_eq!(entries, [(1, first)]);
    assert_eq!(appends(&applied), []);
    let wake_at = applied.wake_at.expect("somebody must come back for it");
    assert!(wake_at > now && wake_at <= now + 2 * MS);
    let later = replica.flush(wake_at).unwrap();
    assert_eq!((appends(&later), later.wake_at), (vec![(0, second)], None));
}

#[test]
fn a_commit_that_a_follower_waits_for_is_told_at_once() {
    let mut replica = leader_of_a_standby();
    write(&mut replica, MS);
    let number = replica.flush(MS).unwrap().writes.last().unwrap().number;
    replica.step(MS, Input::Persisted { number });
    replica.flush(MS).unwrap();
    let mut read = message(MessageType::MsgReadIndex, 2, 0);
    read.mut_entries().push(Entry { data: vec![7; 16].into(), ..Entry::default() });
    frame(&mut replica, read);
    let commit = replica.standing().commit;
    assert_eq!(appends(&replica.flush(MS).unwrap()), [(0, commit)], "a read there waits for it");
    let requests = vec![crate::proto::command::Request { number: 0, body: None }];
    let forwarded = vec![Batch { session: 99, floor: 0, requests }];
    let input = Input::Frame { from: 2, messages: vec![], forwarded, beacon: None };
    replica.step(MS, input);
    let number = replica.flush(MS).unwrap().writes.last().unwrap().number;
    replica.step(MS, Input::Persisted { number });
    assert_eq!(appends(&replica.flush(MS).unwrap()), [(0, commit + 1)], "a write from there does");
}

#[test]
fn heartbeats_wait_for_each_other_and_not_for_long_and_go_with_any_other_write() {
    let mut net = Net::founded(1..=3);
    let leader = net.leader();
    net.silent.extend((1..=3).filter(|id| *id != leader));
    let set = |ttl| {
        let key = Key::parse(b"/k");
        let command = Command::Set { key, value: "v".into(), dir: false, ttl, refresh: false };
        Input::Write { token: Token(98), command }
    };
    let entries = |net: &Net| net.members[&leader].log_entries().len();
    let before = entries(&net);
    for gone in [1, 2, 2] {
        net.give(leader, set(Some(60_000)));
        assert_eq!(entries(&net), before + gone);
    }
    // At its origin and at the leader, which is the same here.
    for gone in [2, 3] {
        let wake_at = net.members.get_mut(&leader).unwrap().flush(net.now).unwrap().wake_at;
        assert_eq!(wake_at, Some(net.now + gather::HEARTBEAT_PATIENCE));
        net.now += gather::HEARTBEAT_PATIENCE;
        net.give(leader, Input::Space { short: false });
        assert_eq!(entries(&net), before + gone);
    }
    net.give(leader, set(Some(60_000)));
    assert_eq!(entries(&net), before + 3);
    net.give(leader, set(None));
    assert_eq!(entries(&net), before + 4);
}
