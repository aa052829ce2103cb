//! What changes of the membership do, and who may take part.

use super::test_net::{LIMITS, LOG_HELD_BYTES, Net, TICK, add, info};
use super::*;
use crate::store::{Command, Key};
use raft::eraftpb::HardState;

#[test]
fn a_member_is_added_without_a_vote_and_gets_it_when_it_has_caught_up() {
    let mut net = Net::founded(1..=1);
    assert!(net.write(1, "before"));
    net.change(1, add(2)).unwrap();
    assert_eq!(net.voters(), [1], "one that was never started costs no quorum");
    assert!(net.write(1, "meanwhile"));
    net.join(2);
    net.run(20);
    assert_eq!(net.voters(), [1, 2]);
    assert!(net.write(2, "through the new one"));
    assert_eq!(net.members[&1].state().store.digest(), net.members[&2].state().store.digest());
    assert_eq!(net.members[&1].state().members, net.members[&2].state().members);
}

#[test]
fn a_standby_waits_for_its_promotion() {
    let mut net = Net::founded(1..=3);
    let at = net.leader();
    net.change(at, MemberChange::Add { id: 4, peer_urls: vec!["http://m4:1".into()], standby: true })
        .unwrap();
    net.join(4);
    net.run(30);
    assert_eq!(net.voters(), [1, 2, 3]);
    assert!(net.write(4, "it takes writes"));
    net.change(4, MemberChange::Promote { id: 4 }).unwrap();
    net.run(20);
    assert_eq!(net.voters().len(), 4);
}

#[test]
fn the_log_is_not_cut_from_under_a_follower_that_is_in_reach_and_behind() {
    for (connected, answers) in [(true, true), (true, false), (false, true)] {
        let in_reach = connected && answers;
        let mut net = Net::founded(1..=3);
        let leader = net.leader();
        let behind = (1..=3).find(|id| *id != leader).unwrap();
        net.give(leader, Input::Connected { peer: behind });
        net.cut.insert(behind);
        if !connected {
            net.give(leader, Input::Unreachable { peer: behind });
        }
        if !answers {
            net.run(11);
        }
        let has = net.members[&behind].state().applied.index;
        for value in ["a", "b", "c"] {
            let key = Key::parse(b"/k");
            let command = Command::Set { key, value: value.into(), dir: false, ttl: None, refresh: false };
            net.give(leader, Input::Write { token: Token(98), command });
        }
        let base = |net: &mut Net| {
            let upto = net.members[&leader].state().applied;
            net.give(leader, Input::Compactable { upto });
            (net.members[&leader].raw.store().base().index, upto.index)
        };
        let (left, upto) = base(&mut net);
        assert!(upto >= has + 3);
        assert_eq!(left, if in_reach { has } else { upto });
        net.cut.clear();
        net.run(3);
        assert_eq!(net.members[&behind].state().applied.index, upto, "by its log or by the whole state");
        let (left, upto) = base(&mut net);
        assert_eq!(left, upto, "nobody lacks anything");
    }
}

#[test]
fn of_the_log_in_memory_stays_what_a_follower_in_reach_lacks_and_little_more() {
    let mut net = Net::founded(1..=3);
    let leader = net.leader();
    let behind = (1..=3).find(|id| *id != leader).unwrap();
    let fill = |net: &mut Net| {
        for _ in 0..100 {
            let command = Command::Set {
                key: Key::parse(b"/k"),
                value: vec![b'v'; 60_000].into(),
                dir: false,
                ttl: None,
                refresh: false,
            };
            net.give(leader, Input::Write { token: Token(98), command });
        }
    };
    fill(&mut net);
    for (id, member) in &net.members {
        let log = member.raw.store();
        assert!(log.bytes() <= LOG_HELD_BYTES, "{id} holds {}", log.bytes());
        assert!(log.bytes() > LOG_HELD_BYTES / 2);
    }
    let has = net.members[&behind].raw.store().last_position().index;
    net.give(leader, Input::Connected { peer: behind });
    net.cut.insert(behind);
    fill(&mut net);
    let log = net.members[&leader].raw.store();
    assert_eq!(log.base().index, has);
    let base = log.base();
    // The disk has all of it still, and is told to forget what the memory has forgotten already.
    let before = LogPosition { index: base.index - 50, ..base };
    net.compacted.clear();
    net.give(leader, Input::Compactable { upto: before });
    assert_eq!(net.compacted, [(leader, before)]);
    net.cut.clear();
    net.run(3);
    assert_eq!(net.members[&behind].state().applied, net.members[&leader].state().applied);
    fill(&mut net);
    assert!(net.members[&leader].raw.store().bytes() <= LOG_HELD_BYTES);
}

/// Else all of them, started again, could need a member for a quorum that the change made dispensable, and that is gone.
#[test]
fn that_a_change_is_committed_is_on_disk_before_it_is_applied() {
    let mut net = Net::founded(1..=2);
    let at = net.leader();
    net.change(at, add(3)).unwrap();
    net.join(3);
    net.run(2);
    let changes_at = |net: &Net, id: u64| {
        let log = net.members[&id].log_entries();
        log.iter().filter(|entry| writes::changes_members(entry)).map(|entry| entry.index).max().unwrap()
    };
    while net.voters().len() < 3 {
        net.run(1);
    }
    net.run(2);
    for (id, member) in &net.members {
        let last = changes_at(&net, *id);
        assert!(member.state().applied.index >= last);
        assert!(net.committed[id] >= last, "{id} has {} of {last}", net.committed[id]);
    }
    let gone = (1..=3).find(|id| *id != net.leader()).unwrap();
    net.slow.extend(net.members.keys());
    net.give(at, Input::Change { token: Token(99), change: MemberChange::Remove { id: gone } });
    // Until then the disks were not asked; each writes what it was given at the next tick, after it has said more.
    for _ in 0..20 {
        net.run(1);
        for (id, member) in &net.members {
            let log = member.log_entries();
            let applied = log.iter().filter(|entry| entry.index <= member.state().applied.index);
            let change =
                applied.filter(|entry| writes::changes_members(entry)).map(|entry| entry.index).max();
            assert!(change.is_none_or(|change| change <= net.committed[id]), "{id} applied {change:?}");
        }
    }
    assert_eq!(net.voters().len(), 2);
}

#[test]
fn whoever_is_to_leave_stays_until_those_who_go_on_say_so() {
    for (voters, leader_leaves) in [(2, false), (3, false), (3, true)] {
        let mut net = Net::founded(1..=voters);
        let at = net.leader();
        let stays = (1..=voters).find(|id| *id != at).unwrap();
        let (gone, asked) = if leader_leaves { (at, stays) } else { (stays, at) };
        net.change(asked, MemberChange::Remove { id: gone }).unwrap();
        assert!(!net.voters().contains(&gone));
        assert!(net.left.is_empty(), "{:?}", net.left);
        let known = &net.members[&gone].state().membership.voters;
        assert_eq!(known.len() as u64, voters, "it would vote for one who has not heard that it is removed");
        net.give(gone, Input::Removed);
        assert!(net.left.contains(&gone));
    }
}

/// Of two, one is to leave. It knows that this is committed, with which raft lets nobody campaign, and has more of the log than
/// the one that is to stay, which forgot it: who refuses a vote says how far it knows the log to be committed.
#[test]
fn who_is_to_leave_reminds_the_one_that_stays() {
    let mut net = Net::founded(1..=2);
    let stays = net.leader();
    let leaves = 3 - stays;
    net.slow.insert(stays);
    let before = net.members[&stays].log_entries().last().unwrap().index;
    net.give(stays, Input::Change { token: Token(99), change: MemberChange::Remove { id: leaves } });
    // Too large to wait for the disk.
    let (key, value) = (Key::parse(b"/k"), vec![b'v'; ENTRY_BYTES_MAX + 1].into());
    let command = Command::Set { key, value, dir: false, ttl: None, refresh: false };
    net.give(stays, Input::Write { token: Token(98), command });
    net.finish_one();
    // Time enough to say so; its disk is not asked again.
    for _ in 0..3 {
        net.now += TICK;
        net.give(stays, Input::Tick);
    }
    let change = before + 1;
    let log = net.members[&stays].log_entries();
    assert!(writes::changes_members(&log[log.len() - 2]) && log[log.len() - 2].index == change);
    assert_eq!(net.members[&leaves].log_entries().len(), log.len(), "it has both");
    for id in [stays, leaves] {
        assert_eq!(net.members[&id].standing().commit, change, "{id} knows that the change is committed");
    }
    // Killed, before its disk has more than the change.
    let term = net.members[&stays].standing().term;
    let state = State::founding(7, BTreeMap::from([(1, info(1)), (2, info(2))]), LIMITS);
    let entries = log.into_iter().filter(|entry| entry.index <= change).collect();
    let hard_state = HardState { term, vote: stays, commit: before, ..HardState::default() };
    net.slow.clear();
    net.restart(stays, Recovered { state, base: LogPosition::FOUNDING, entries, hard_state, clock: None });
    net.run(100);
    assert_eq!(net.leader(), stays);
    assert_eq!(net.voters(), [stays]);
    assert!(net.write(stays, "after"));
}

/// Of four, one is removed, and switched off as soon as that is answered; at that moment the leader is lost too. The two that
/// are left are a majority of three, and one of them has not heard of anything.
#[test]
fn once_a_removal_is_answered_nobody_needs_the_removed_one() {
    for leader_asks in [true, false] {
        let mut net = Net::founded(1..=4);
        let leader = net.leader();
        let [gone, behind, knows] = (1..=4).filter(|id| *id != leader).collect::<Vec<_>>()[..] else {
            unreachable!()
        };
        net.cut.insert(behind);
        net.cut_when_answered.extend([gone, leader]);
        net.replies.clear();
        let asked = if leader_asks { leader } else { knows };
        net.give(asked, Input::Change { token: Token(99), change: MemberChange::Remove { id: gone } });
        net.run(10);
        assert!(matches!(net.replies[..], [(_, Reply::Changed { result: Ok(_), .. })]), "{:?}", net.replies);
        assert!(net.cut.contains(&gone) && net.cut.contains(&leader));
        net.cut.remove(&behind);
        net.run(60);
        assert!([behind, knows].contains(&net.leader()));
        assert!(!net.voters().contains(&gone));
        assert!(net.write(behind, "after"));
    }
}

/// It is elected, perhaps, for having what nobody else has.
#[test]
fn a_leader_whose_removal_is_in_its_log_hands_over() {
    let mut net = Net::founded(1..=2);
    let old = net.leader();
    let new = 3 - old;
    // The entry reaches the other, whose answer is lost with the leader.
    let change = MemberChange::Remove { id: new };
    net.silent.insert(new);
    net.give(old, Input::Change { token: Token(99), change });
    net.run(1);
    net.cut.insert(old);
    net.silent.clear();
    let (now, raft) = (net.now, &mut net.members.get_mut(&new).unwrap().raw.raft);
    raft.become_candidate();
    raft.become_leader();
    net.members.get_mut(&new).unwrap().note_standing(now);
    net.cut.clear();
    net.run(60);
    assert_eq!(net.leader(), old);
    assert_eq!(net.voters(), [old]);
    assert!(net.write(old, "after"));
}

#[test]
fn a_new_leader_listens_to_everybody_before_it_refuses_a_removal_for_want_of_a_quorum() {
    for they_come_back in [true, false] {
        let mut net = Net::founded(1..=5);
        let old = net.leader();
        let others: Vec<u64> = (1..=5).filter(|id| *id != old).collect();
        net.replies.clear();
        // They are not there when it is handed over, and give the new leader no vote.
        net.cut.extend(&others[2..]);
        net.give(others[0], Input::Change { token: Token(99), change: MemberChange::Remove { id: old } });
        net.run(2);
        assert_ne!(net.leader(), old, "it hands over");
        assert!(net.replies.is_empty(), "{:?}", net.replies);
        if they_come_back {
            net.cut.clear();
        }
        net.run(12);
        let [(_, Reply::Changed { result, .. })] = &net.replies[..] else { panic!("{:?}", net.replies) };
        if they_come_back {
            assert!(result.is_ok(), "{result:?}");
        } else {
            assert_eq!(*result, Err(ChangeError::NoQuorum { voters: 4, in_reach: 2 }));
        }
    }
}

#[test]
fn a_leader_that_is_to_leave_hands_over_first() {
    let mut net = Net::founded(1..=3);
    let old = net.leader();
    let asked = (1..=3).find(|id| *id != old).unwrap();
    let term = net.members[&old].standing().term;
    net.change(asked, MemberChange::Remove { id: old }).unwrap();
    let new = net.leader();
    assert_ne!(new, old);
    assert_eq!(net.members[&new].standing().term, term + 1, "without an election that waits for a time-out");
    assert!(!net.voters().contains(&old));
    assert!(net.write(asked, "after"));
    // Nobody is obliged to tell it that its removal is committed; a peer that refuses it does.
    net.give(old, Input::Removed);
    assert!(net.left.contains(&old));
    net.replies.clear();
    net.give(old, Input::Read { token: Token(1) });
    assert!(
        matches!(net.replies[..], [(_, Reply::Failed { reason: Failure::Removed, .. })]),
        "{:?}",
        net.replies
    );
}

#[test]
fn what_would_leave_no_quorum_in_reach_is_refused() {
    let mut net = Net::founded(1..=3);
    let leader = net.leader();
    let [dead, live] = (1..=3).filter(|id| *id != leader).collect::<Vec<_>>()[..] else { unreachable!() };
    net.cut.insert(dead);
    net.run(20);
    let refused = net.change(live, MemberChange::Remove { id: live });
    assert_eq!(refused, Err(ChangeError::NoQuorum { voters: 2, in_reach: 1 }));
    net.change(live, MemberChange::Remove { id: dead }).unwrap();
    assert_eq!(net.voters().len(), 2);
    net.change(leader, MemberChange::Remove { id: live }).unwrap();
    assert_eq!(net.change(leader, MemberChange::Remove { id: leader }), Err(ChangeError::LastVoter));
    assert_eq!(net.voters(), [leader]);
}

#[test]
fn a_learner_gets_no_vote_that_would_cost_the_quorum() {
    let mut net = Net::founded(1..=3);
    let leader = net.leader();
    let dead = (1..=3).find(|id| *id != leader).unwrap();
    net.cut.insert(dead);
    net.run(20);
    net.change(leader, add(4)).unwrap();
    net.join(4);
    net.cut.insert(4);
    net.run(30);
    assert_eq!(net.voters().len(), 3, "two of four would be no quorum");
    net.cut.remove(&4);
    net.run(30);
    assert_eq!(net.voters().len(), 4);
}

#[test]
fn the_state_refuses_what_does_not_fit() {
    let mut net = Net::founded(1..=3);
    let at = net.leader();
    let urls = |text: &str| vec![text.to_owned()];
    let taken = MemberChange::Add { id: 9, peer_urls: urls("http://m2:1"), standby: false };
    let table = [
        (add(2), ChangeError::IdExists),
        (taken, ChangeError::UrlExists),
        (MemberChange::Update { id: 1, peer_urls: urls("http://m2:1") }, ChangeError::UrlExists),
        (MemberChange::Update { id: 9, peer_urls: urls("http://m9:1") }, ChangeError::NotFound),
        (MemberChange::Remove { id: 9 }, ChangeError::NotFound),
        (MemberChange::Promote { id: 9 }, ChangeError::NotFound),
    ];
    for (change, error) in table {
        assert_eq!(net.change(at, change), Err(error));
    }
    net.change(at, MemberChange::Update { id: 2, peer_urls: urls("http://m2:2") }).unwrap();
    let gone = (1..=3).find(|id| *id != at).unwrap();
    net.change(at, MemberChange::Remove { id: gone }).unwrap();
    assert_eq!(net.change(at, MemberChange::Remove { id: gone }), Err(ChangeError::Removed));
    assert_eq!(net.change(at, add(gone)), Err(ChangeError::IdExists), "an id never comes back");
}

#[test]
fn a_replay_comes_to_the_same_members() {
    let mut net = Net::founded(1..=1);
    net.change(1, add(2)).unwrap();
    net.join(2);
    net.run(20);
    net.change(1, MemberChange::Remove { id: 2 }).unwrap();
    assert!(net.write(1, "v"));
    let mut replayed = State::founding(7, BTreeMap::from([(1, info(1))]), LIMITS);
    replayed.replay(&net.members[&1].log_entries()).unwrap();
    let state = net.members[&1].state();
    assert_eq!((&replayed.members, &replayed.removed), (&state.members, &state.removed));
    assert_eq!((replayed.applied, replayed.store.digest()), (state.applied, state.store.digest()));
}

#[test]
fn a_member_is_admitted_with_the_data_that_it_is_known_with() {
    let mut roster = Roster::default();
    let known = MemberInfo { incarnation: 5, ..info(1) };
    roster.members = std::sync::Arc::new(BTreeMap::from([(1, known), (2, info(2))]));
    roster.removed.insert(3);
    let table = [
        (1, 5, Ok(())),
        (1, 6, Err(Refused::Wiped)),
        (1, 0, Err(Refused::Wiped)),
        (2, 6, Ok(())),
        (3, 5, Err(Refused::Removed)),
        (4, 5, Ok(())),
    ];
    for (member, incarnation, admitted) in table {
        assert_eq!(roster.admits(member, incarnation), admitted, "{member} with {incarnation}");
    }
}
