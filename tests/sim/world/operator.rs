//! The operator: adds and removes members, promotes standbys, moves members, and replaces machines that are lost or whose
//! data directory was emptied. Requests go to any member, and may time out like every other.

use super::{World, history_limits};
use crate::disk::Disk;
use crate::member::Member;
use quorate::replica::{ChangeError, Input, MemberChange, MemberInfo, Replica, State, Token};
use raft::eraftpb::{Entry, EntryType};
use rand::{Rng as _, RngExt as _};
use std::collections::{BTreeMap, BTreeSet};

/// So long a request may take effect after it was made, with or without an answer.
const OPEN_MS: u64 = 10_000;
const MEMBERS_MAX: usize = 7;
/// Ids that are ever given.
const IDS_MAX: usize = 14;
/// The operator's tokens are told from those of clients by this bit.
const OPERATOR: u64 = 1 << 63;

#[derive(Default)]
pub(super) struct Operator {
    requests: u64,
    /// Without an answer yet, and until when they may still take effect.
    open: BTreeMap<Token, u64>,
    /// Were asked to be added, and are started when a member says that they were.
    joining: Vec<u64>,
    /// Machines that are gone for good, or came back empty.
    pub(super) lost: BTreeSet<u64>,
}

impl World {
    pub(super) fn newest_state(&self) -> Option<&State> {
        let states = self.members.iter().filter_map(|m| m.replica.as_ref()).map(Replica::state);
        states.max_by_key(|state| state.applied)
    }

    pub(super) fn operate(&mut self) {
        let at = self.rng.random_range(0..self.members.len());
        let member = &self.members[at];
        let Some(replica) = member.replica.as_ref().filter(|_| member.runs(self.now)) else { return };
        let state = replica.state().clone();
        let members: Vec<u64> = state.members.keys().copied().collect();
        if members.is_empty() {
            return;
        }
        let some = members[self.rng.random_range(0..members.len())];
        match self.rng.random_range(0..13) {
            0..=3 => self.add(at, &state),
            4..=6 => self.remove(at, &state, some),
            7 => self.change(at, MemberChange::Promote { id: some }),
            8 => {
                let peer_urls = vec![format!("http://m{some}:{}", self.rng.next_u32())];
                self.change(at, MemberChange::Update { id: some, peer_urls });
            }
            _ => self.lose(some),
        }
    }

    fn change(&mut self, at: usize, change: MemberChange) {
        self.operator.requests += 1;
        let token = Token(OPERATOR | self.operator.requests);
        self.operator.open.insert(token, self.now + OPEN_MS);
        self.members[at].backlog.push(Input::Change { token, change });
    }

    fn add(&mut self, at: usize, state: &State) {
        if state.members.len() >= MEMBERS_MAX || self.members.len() >= IDS_MAX {
            return;
        }
        let id = self.members.len() as u64 + 1;
        let drift = self.options.drift_permille;
        let rate = self.rng.random_range(1_000 - drift..=1_000 + drift);
        let nothing = State::joining(state.cluster_id, BTreeMap::new(), history_limits(&self.options));
        let mut member = Member::new(id, Disk::joining(&nothing, self.options.bug), rate);
        member.gone = true;
        self.members.push(member);
        self.reachable.push(true);
        self.operator.joining.push(id);
        let standby = self.rng.random_range(0..4) == 0;
        self.change(at, MemberChange::Add { id, peer_urls: vec![format!("http://m{id}")], standby });
    }

    /// While a voter is lost, only lost ones are removed: whoever takes out those that live meanwhile loses the quorum,
    /// and cannot be helped where the leader has not noticed yet.
    fn remove(&mut self, at: usize, state: &State, some: u64) {
        let lost = state.members.keys().copied().find(|id| self.operator.lost.contains(id));
        let few = state.membership.voters.len() <= 3 && self.rng.random_range(0..8) != 0;
        match lost {
            Some(id) => self.change(at, MemberChange::Remove { id }),
            None if few && state.membership.voters.contains(&some) => {}
            None => self.change(at, MemberChange::Remove { id: some }),
        }
    }

    /// A machine is gone, or loses its data and is started again by somebody who does not know. Only where the others are
    /// a quorum whatever configuration is under way.
    fn lose(&mut self, some: u64) {
        let at = (some - 1) as usize;
        let Some(newest) = self.newest_state().cloned() else { return };
        let agreed = |m: &Member| {
            let Some(replica) = &m.replica else { return !newest.members.contains_key(&m.id) };
            let committed = m.disk.hard_state().commit;
            let changes = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
            replica.state().membership == newest.membership
                && !replica.log_entries().iter().any(|entry| changes(entry) && entry.index > committed)
                && replica.state().members.get(&some).is_some_and(|info| info.incarnation != 0)
        };
        let of_cluster = |m: &&Member| newest.members.contains_key(&m.id);
        let now = self.now;
        self.operator.open.retain(|_, until| *until > now);
        let safe = self.operator.lost.is_empty()
            && self.operator.open.is_empty()
            && self.operator.joining.is_empty()
            && newest.membership.voters.len() >= 3
            && self.members.iter().filter(of_cluster).all(agreed);
        if !safe || self.members[at].replica.is_none() {
            return;
        }
        self.operator.lost.insert(some);
        self.crash(at);
        if self.rng.random_range(0..2) == 0 {
            self.coverage.note("machines lost");
            self.members[at].gone = true;
            return;
        }
        self.coverage.note("machines wiped");
        let infos = newest
            .members
            .iter()
            .map(|(id, info)| (*id, MemberInfo { incarnation: 0, client_urls: vec![], ..info.clone() }));
        let (infos, limits) = (infos.collect(), history_limits(&self.options));
        let member = &mut self.members[at];
        member.incarnation += 1 << 32;
        // Who founded it alone would found another.
        member.disk =
            if self.options.members > 1 && some <= self.options.members && self.rng.random_range(0..2) == 0 {
                Disk::founding(&self.founding, self.options.bug)
            } else {
                Disk::joining(&State::joining(newest.cluster_id, infos, limits), self.options.bug)
            };
    }

    /// Starts those who are known to be members by now.
    pub(super) fn start_joining(&mut self) {
        for id in std::mem::take(&mut self.operator.joining) {
            let states = self.members.iter().filter_map(|m| m.replica.as_ref()).map(Replica::state);
            let known: Vec<&State> = states.filter(|state| state.members.contains_key(&id)).collect();
            let Some(state) = known.first() else {
                self.operator.joining.push(id);
                continue;
            };
            let limits = history_limits(&self.options);
            let joining = State::joining(state.cluster_id, (*state.members).clone(), limits);
            let member = &mut self.members[(id - 1) as usize];
            member.disk = Disk::joining(&joining, self.options.bug);
            member.gone = false;
            member.down_until = self.now + 1;
            self.coverage.note("members joined");
        }
    }

    pub(super) fn answer_operator(&mut self, token: Token, result: &Result<(u64, MemberInfo), ChangeError>) {
        self.operator.open.remove(&token);
        self.coverage.note(match result {
            Ok(_) => "changes of membership",
            Err(ChangeError::NoQuorum { .. }) => "changes refused: no quorum",
            Err(_) => "changes refused",
        });
    }
}
