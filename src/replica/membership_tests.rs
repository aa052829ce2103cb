//! Members that talk to each other at once and in order, without a disk or a clock that could fail: what the rules say,
//! not what luck brings, which is the simulator's.

use super::*;
use crate::store::{Command, HistoryLimits, Key};
use raft::eraftpb::HardState;
use std::collections::BTreeMap;

const LIMITS: HistoryLimits = HistoryLimits { events: 100, bytes: 1 << 20 };
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Net {
    pub(super) members: BTreeMap<u64, Replica>,
    pub(super) cut: BTreeSet<u64>,
    /// Members with a full disk, and what waits for it.
    pub(super) full: BTreeMap<u64, Vec<LogWrite>>,
    pub(super) quota: u64,
    now: Duration,
    pub(super) replies: Vec<(u64, Reply)>,
    left: BTreeSet<u64>,
    strict: bool,
    /// The commit index that each has on its disk.
    committed: BTreeMap<u64, u64>,
}

impl Net {
    fn founded(ids: impl Iterator<Item = u64> + Clone) -> Self {
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

    fn start(&mut self, id: u64, state: State, base: LogPosition, hard_state: HardState) {
        let config = ReplicaConfig {
            id,
            session: id,
            seed: id,
            election_ticks: 10,
            request_timeout: Duration::from_secs(7),
            incarnation: id,
            strict_reconfig: self.strict,
            quota_bytes: self.quota,
        };
        let recovered = Recovered { state, base, entries: vec![], hard_state, clock: None };
        self.members.insert(id, Replica::new(config, recovered, self.now).unwrap());
    }

    /// A member that was added and has nothing yet.
    fn join(&mut self, id: u64) {
        let members = self.members[&self.leader()].state().members.as_ref().clone();
        self.start(id, State::joining(7, members, LIMITS), LogPosition::default(), HardState::default());
    }

    pub(super) fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now += TICK;
            let ids: Vec<u64> = self.members.keys().copied().collect();
            for id in &ids {
                self.give(*id, Input::Tick);
            }
        }
    }

    pub(super) fn give(&mut self, id: u64, input: Input) {
        let now = self.now;
        let mut inputs = vec![(id, input)];
        while !inputs.is_empty() {
            let (to, input) = inputs.remove(0);
            let Some(member) = self.members.get_mut(&to) else { continue };
            member.step(now, input);
            let effects = member.flush(now).unwrap();
            self.replies.extend(effects.replies.into_iter().map(|reply| (to, reply)));
            if effects.removed {
                self.left.insert(to);
            }
            let reaches = |other: u64| !self.cut.contains(&to) && !self.cut.contains(&other);
            let frame = |outgoing: Outgoing| Input::Frame {
                from: to,
                messages: outgoing.messages,
                forwarded: outgoing.forwarded,
                beacon: outgoing.beacon,
            };
            for (other, outgoing) in effects.send.into_iter().filter(|(other, _)| reaches(*other)) {
                inputs.push((other, frame(outgoing)));
            }
            for write in effects.writes {
                if let Some(hard_state) = &write.hard_state {
                    self.committed.insert(to, hard_state.commit);
                }
                if let Some(waiting) = self.full.get_mut(&to) {
                    waiting.push(write);
                    inputs.push((to, Input::Stalled));
                    continue;
                }
                inputs.push((to, Input::Persisted { number: write.number }));
                for message in write.then_send.into_iter().filter(|message| reaches(message.to)) {
                    let (other, messages) = (message.to, vec![message]);
                    inputs.push((other, frame(Outgoing { messages, ..Outgoing::default() })));
                }
            }
            for snapshot in effects.snapshots {
                let ok = reaches(snapshot.to) && self.members.contains_key(&snapshot.to);
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

    fn change(&mut self, at: u64, change: MemberChange) -> Result<(u64, MemberInfo), ChangeError> {
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

    fn voters(&self) -> Vec<u64> {
        self.members[&self.leader()].state().membership.voters.clone()
    }
}

fn info(id: u64) -> MemberInfo {
    MemberInfo { name: format!("m{id}"), peer_urls: vec![format!("http://m{id}:1")], ..MemberInfo::default() }
}

fn add(id: u64) -> MemberChange {
    MemberChange::Add { id, peer_urls: vec![format!("http://m{id}:1")], standby: false }
}

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

/// Else all of them, started again, could need a member for a quorum that the change made dispensable, and that is gone.
#[test]
fn that_a_change_is_committed_is_on_disk_soon_after_it_is_applied() {
    let mut net = Net::founded(1..=2);
    let at = net.leader();
    net.change(at, add(3)).unwrap();
    net.join(3);
    while net.voters().len() < 3 {
        net.run(1);
    }
    net.run(2);
    for (id, member) in &net.members {
        let log = member.log_entries();
        let changes =
            log.iter().filter(|entry| entry.get_entry_type() != raft::eraftpb::EntryType::EntryNormal);
        let last = changes.map(|entry| entry.index).max().unwrap();
        assert!(member.state().applied.index >= last);
        assert!(net.committed[id] >= last, "{id} has {} of {last}", net.committed[id]);
    }
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
