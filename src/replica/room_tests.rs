//! What members do without room: rules, on members that talk at once.

use super::test_net::Net;
use super::*;
use crate::proto::command::Batch;
use crate::store::{Command, Key};
use bytes::Bytes;

fn set(value: impl Into<Bytes>) -> Command {
    Command::Set { key: Key::parse(b"/k"), value: value.into(), dir: false, ttl: None, refresh: false }
}

/// What becomes of a command that a member's client sends.
fn ask(net: &mut Net, at: u64, command: Command) -> Result<(), Failure> {
    net.replies.clear();
    net.give(at, Input::Write { token: Token(97), command });
    net.run(3);
    let found = net.replies.iter().find_map(|(_, reply)| match reply {
        Reply::Write { token: Token(97), .. } => Some(Ok(())),
        Reply::Failed { token: Token(97), reason } => Some(Err(*reason)),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no answer: {:?}", net.replies))
}

fn short(net: &mut Net, id: u64, short: bool) {
    net.give(id, Input::Space { short });
}

const NO_DISK: Result<(), Failure> = Err(Failure::NoRoom(Shortage::Disk));
const DELETE: fn() -> Command = || Command::Delete { key: Key::parse(b"/k"), dir: false, recursive: false };

#[test]
fn a_leader_whose_disk_is_nearly_full_hands_over_to_a_member_with_room() {
    let mut net = Net::with_quota(1..=3, 0);
    let first = net.leader();
    let other = net.members.keys().copied().find(|id| *id != first).unwrap();
    short(&mut net, other, true);
    net.run(2);
    assert_eq!(ask(&mut net, first, set("v")), Ok(()), "a quorum has room");
    short(&mut net, first, true);
    net.run(4);
    let second = net.leader();
    assert!(second != first && second != other, "{second} leads");
    assert_eq!(ask(&mut net, second, set("v")), NO_DISK, "two of three have none");
    short(&mut net, first, false);
    net.run(12);
    assert_eq!(ask(&mut net, first, set("v")), Ok(()));
    assert_eq!(net.leader(), second);
}

#[test]
fn without_room_on_a_quorum_every_member_refuses_what_needs_it_and_takes_deletes() {
    let mut net = Net::with_quota(1..=3, 0);
    assert_eq!(ask(&mut net, 1, set("v")), Ok(()));
    for id in 1..=3 {
        short(&mut net, id, true);
    }
    net.run(3);
    for id in 1..=3 {
        assert_eq!(ask(&mut net, id, set("v")), NO_DISK, "on {id}");
        assert_eq!(ask(&mut net, id, DELETE()), Ok(()), "on {id}");
        assert_eq!(net.members[&id].standing().refuses, Some(Shortage::Disk));
    }
    let leader = net.leader();
    // What a member that has not heard yet forwards is not proposed either.
    let batch = Batch {
        session: 77,
        floor: 0,
        requests: vec![crate::proto::command::Request {
            number: 0,
            body: Some(Body::Write(codec::encode(set("late")))),
        }],
    };
    let from = net.members.keys().copied().find(|id| *id != leader).unwrap();
    net.give(leader, Input::Frame { from, messages: vec![], forwarded: vec![batch], beacon: None });
    net.run(3);
    assert!(net.members[&leader].state().store.get(&Key::parse(b"/k")).is_err());
    for id in 1..=3 {
        short(&mut net, id, false);
    }
    net.run(12);
    for id in 1..=3 {
        assert_eq!(ask(&mut net, id, set("v")), Ok(()), "on {id}");
    }
}

#[test]
fn a_leader_without_room_hands_over_as_soon_as_others_have_room_again() {
    // Raft forgets once an election timeout who was active, so it must work at any distance from that.
    for phase in 0..10 {
        let mut net = Net::with_quota(1..=3, 0);
        let first = net.leader();
        net.run(phase);
        for id in 1..=3 {
            short(&mut net, id, true);
        }
        net.run(40);
        assert_eq!(net.leader(), first, "nobody is better off");
        for id in (1..=3).filter(|id| *id != first) {
            short(&mut net, id, false);
        }
        net.run(12);
        let second = net.leader();
        assert_ne!(second, first, "{phase} ticks later");
        assert_eq!(ask(&mut net, first, set("v")), Ok(()));
    }
}

#[test]
fn who_forwards_before_it_knows_is_told_at_once_that_there_is_no_room() {
    let mut net = Net::with_quota(1..=3, 0);
    let leader = net.leader();
    let asked = leader % 3 + 1;
    short(&mut net, leader, true);
    assert_eq!(net.members[&asked].shortage(), None, "it was told nothing yet");
    net.give(asked, Input::Write { token: Token(1), command: set("v") });
    assert!(
        net.replies.iter().any(|(at, reply)| *at == asked
            && matches!(reply, Reply::Failed { token: Token(1), reason: Failure::LeftOut(Shortage::Disk) })),
        "{:?}",
        net.replies
    );
    assert_eq!(net.members[&asked].shortage(), Some(Shortage::Disk), "and now it knows");
    assert_eq!(net.members[&asked].waiting(), 0);
}

/// The first copy waits in the leader's log for a quorum when the leader begins to refuse, and the second is left out.
#[test]
fn who_forwarded_twice_is_not_told_that_it_will_not_be_applied() {
    let mut net = Net::with_quota(1..=3, 0);
    let leader = net.leader();
    let asked = leader % 3 + 1;
    net.slow.extend((1..=3).filter(|id| *id != leader));
    net.replies.clear();
    net.give(asked, Input::Write { token: Token(1), command: set("v") });
    short(&mut net, leader, true);
    net.give(asked, Input::Connected { peer: leader });
    assert_eq!(net.members[&asked].shortage(), Some(Shortage::Disk), "it was told what the leader thinks");
    assert!(net.replies.is_empty(), "and nothing of the write: {:?}", net.replies);
    net.run(3);
    assert!(
        net.replies
            .iter()
            .any(|(at, reply)| *at == asked
                && matches!(reply, Reply::Write { token: Token(1), result: Ok(_) })),
        "{:?}",
        net.replies
    );
}

#[test]
fn what_a_leader_left_out_is_said_with_its_next_heartbeat_if_not_before() {
    let mut net = Net::with_quota(1..=3, 0);
    let leader = net.leader();
    let asked = leader % 3 + 1;
    short(&mut net, leader, true);
    net.silent.insert(asked);
    net.give(asked, Input::Write { token: Token(1), command: set("v") });
    let requests =
        vec![crate::proto::command::Request { number: 0, body: Some(Body::Write(codec::encode(set("v")))) }];
    let session = net.members[&asked].pending.session();
    let forwarded = vec![Batch { session, floor: 0, requests }];
    // Both before what they lead to is sent.
    let member = net.members.get_mut(&leader).unwrap();
    member.step(net.now, Input::Frame { from: asked, messages: vec![], forwarded, beacon: None });
    net.give(leader, Input::Tick);
    let left_out = |(_, reply): &(u64, Reply)| {
        matches!(reply, Reply::Failed { token: Token(1), reason: Failure::LeftOut(Shortage::Disk) })
    };
    assert!(net.replies.iter().any(left_out), "{:?}", net.replies);
}

#[test]
fn at_its_quota_the_keyspace_takes_refreshes_and_deletes_only() {
    let mut net = Net::with_quota(1..=3, 1000);
    assert_eq!(ask(&mut net, 1, set(vec![b'x'; 2000])), Ok(()), "below it when it was asked");
    net.run(2);
    for id in 1..=3 {
        assert_eq!(ask(&mut net, id, set("v")), Err(Failure::NoRoom(Shortage::Quota)), "on {id}");
    }
    let key = Key::parse(b"/k");
    let refresh = Command::Update { key, value: Bytes::new(), ttl: Some(600_000), refresh: true };
    assert_eq!(ask(&mut net, 2, refresh), Ok(()));
    assert_eq!(ask(&mut net, 3, DELETE()), Ok(()));
    net.run(2);
    assert_eq!(ask(&mut net, 2, set("v")), Ok(()));
}

#[test]
fn a_follower_with_a_full_disk_applies_what_others_have_on_theirs_and_neither_acknowledges_votes_nor_leads() {
    let mut net = Net::with_quota(1..=3, 0);
    let leader = net.leader();
    let full = net.members.keys().copied().find(|id| *id != leader).unwrap();
    let third = 6 - leader - full;
    net.full.insert(full, vec![]);
    let durable = net.members[&leader].progress()[&full];
    for value in ["1", "2", "3"] {
        assert!(net.write(leader, value));
    }
    let key = Key::parse(b"/k");
    assert_eq!(net.members[&full].state().store.get(&key).unwrap().value.as_deref(), Some(&b"3"[..]));
    assert_eq!(net.members[&leader].progress()[&full], durable, "nothing of it was acknowledged");
    // With the leader gone the two others are a quorum, but one of them has only promised to itself.
    net.cut.insert(leader);
    net.run(80);
    for id in [full, third] {
        assert!(!net.members[&id].standing().leads, "{id} leads without a quorum on disk");
    }
    for write in net.full.remove(&full).unwrap() {
        net.give(full, Input::Persisted { number: write.number });
    }
    net.run(80);
    let second = net.leader();
    assert!(net.write(second, "4"));
    assert_eq!(net.members[&full].state().store.digest(), net.members[&third].state().store.digest());
}

/// A leader that forgot it would need the vote of one that it has sent away. A follower does not campaign until its disk knows.
#[test]
fn with_a_full_disk_a_follower_applies_a_change_of_the_membership_and_a_leader_does_not() {
    for leads in [true, false] {
        let mut net = Net::with_quota(1..=4, 0);
        let leader = net.leader();
        let [gone, other, third] = (1..=4).filter(|id| *id != leader).collect::<Vec<_>>()[..] else {
            unreachable!()
        };
        let full = if leads { leader } else { other };
        // The change is in the leader's log on disk, and nobody else has it, when the disk fills.
        net.cut.insert(leader);
        net.give(leader, Input::Change { token: Token(99), change: MemberChange::Remove { id: gone } });
        let change = net.members[&leader].log_entries().last().unwrap().index;
        net.full.insert(full, vec![]);
        net.cut.clear();
        net.run(3);
        let has_applied = |net: &Net, id: u64| net.members[&id].state().applied.index >= change;
        assert!(net.members[&leader].standing().leads && net.members[&leader].standing().commit >= change);
        assert!(has_applied(&net, third), "whose disk has it");
        assert_eq!(has_applied(&net, full), !leads);
        assert!(net.committed[&full] < change, "its disk does not say that it is committed");
        for write in net.full.remove(&full).unwrap() {
            net.give(full, Input::Persisted { number: write.number });
        }
        net.run(3);
        assert!(has_applied(&net, full));
        assert_eq!(net.voters().len(), 3);
    }
}

#[test]
fn what_gathers_at_a_leader_while_disks_stand_still_is_bounded() {
    let mut net = Net::with_quota(1..=3, 0);
    let leader = net.leader();
    net.full.insert(leader, vec![]);
    net.cut.insert(leader);
    let from = net.members.keys().copied().find(|id| *id != leader).unwrap();
    let value = Bytes::from(vec![1; 1 << 20]);
    for number in 0..200 {
        let body = Some(Body::Write(codec::encode(set(value.clone()))));
        let requests = vec![crate::proto::command::Request { number, body }];
        let forwarded = vec![Batch { session: 77, floor: 0, requests }];
        net.give(leader, Input::Frame { from, messages: vec![], forwarded, beacon: None });
    }
    let member = &net.members[&leader];
    let (uncommitted, queued) = (member.raw.raft.uncommitted_size(), member.queue.bytes());
    assert!((60 << 20..=66 << 20).contains(&uncommitted), "{uncommitted} bytes are uncommitted");
    assert!((60 << 20..=66 << 20).contains(&queued), "{queued} bytes are queued");
}
