//! Changes of the membership: who replicates, who votes, and where they are.
//!
//! A member is added as a learner, which replicates and has no vote; the leader gives it its vote when it has caught
//! up, so that no change makes a quorum wait for a member that is still empty. A standby stays a learner until somebody
//! promotes it. Each change is one step of raft's simple protocol: one member at a time, one change under way.
//!
//! What changes who replicates travels as the context of a raft configuration change, so that members and
//! configuration change in the same entry; the rest are ordinary requests. Whether a change is taken is decided when
//! it is applied, from the state alone. What only a leader can know (who is in reach) is decided by the leader before,
//! and its refusal goes through the log like an answer, since the client may be another member's.
//!
//! Invariants:
//! - the members of the state are those of raft's configuration, no more and no fewer;
//! - an id that was removed never comes back;
//! - the last voter stays; and, unless configured otherwise, a change after which the voters in reach would be no quorum
//!   is refused;
//! - a leader that is to be removed hands over first.

use super::codec;
use super::{Failure, LogPosition, Replica, Reply, State};
use crate::proto::command::{Batch, Change, ChangeKind, Refusal, RefusalReason, Request, request::Body};
use crate::replica::state::MemberInfo;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType};
use raft::{ProgressState, StateRole};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// More members than this are not added: each costs every leader a stream and a place in every snapshot.
const MEMBERS_MAX: usize = 64;

/// Changes that wait for a leader's attention; more are not taken, and come again from their origins.
const QUEUE_MAX: usize = 64;

/// A learner that lacks no more entries than this has caught up.
const CAUGHT_UP_ENTRIES: u64 = 128;

/// What a client wants changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new member. It has a vote once it has caught up, unless it is a standby.
    Add {
        /// Its id; see `node::ids`.
        id: u64,
        /// Where the others reach it.
        peer_urls: Vec<String>,
        /// It is to follow without a vote until it is promoted.
        standby: bool,
    },
    /// A member is to leave for good.
    Remove {
        /// Which.
        id: u64,
    },
    /// A member is reached elsewhere now.
    Update {
        /// Which.
        id: u64,
        /// Where.
        peer_urls: Vec<String>,
    },
    /// A standby is to get a vote as soon as it has caught up.
    Promote {
        /// Which.
        id: u64,
    },
}

/// Why a change of the membership was refused; nothing was changed. In etcd's words where it has any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is a member of this id.
    #[error("membership: ID exists")]
    IdExists,
    /// Another member has one of these URLs.
    #[error("membership: peerURL exists")]
    UrlExists,
    /// There is no member of this id.
    #[error("membership: ID not found")]
    NotFound,
    /// The member of this id has left, and does not come back.
    #[error("membership: ID removed")]
    Removed,
    /// There are as many members as there can be.
    #[error("membership: the cluster has {MEMBERS_MAX} members, which is the limit")]
    TooMany,
    /// The voters in reach would be no quorum.
    #[error(
        "etcdserver: re-configuration failed due to not enough started members: of the {voters} voters that there \
         would be, {in_reach} are in reach"
    )]
    NoQuorum {
        /// How many voters there would be.
        voters: u32,
        /// How many of them answer the leader.
        in_reach: u32,
    },
    /// A cluster without a voter is none.
    #[error("membership: the last voting member cannot be removed")]
    LastVoter,
}

/// A change that was applied, or refused by the state or the leader.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub session: u64,
    pub number: u64,
    pub result: Result<(u64, MemberInfo), ChangeError>,
}

pub(super) fn encode(change: MemberChange) -> Change {
    let (kind, member, peer_urls, standby) = match change {
        MemberChange::Add { id, peer_urls, standby } => (ChangeKind::Add, id, peer_urls, standby),
        MemberChange::Remove { id } => (ChangeKind::Remove, id, Vec::new(), false),
        MemberChange::Update { id, peer_urls } => (ChangeKind::Update, id, peer_urls, false),
        MemberChange::Promote { id } => (ChangeKind::Promote, id, Vec::new(), false),
    };
    Change { kind: kind.into(), member, peer_urls, standby }
}

fn reason(refusal: &Refusal) -> ChangeError {
    match refusal.reason() {
        RefusalReason::LastVoter => ChangeError::LastVoter,
        RefusalReason::NoQuorum | RefusalReason::Unspecified => {
            ChangeError::NoQuorum { voters: refusal.voters, in_reach: refusal.in_reach }
        }
    }
}

impl State {
    /// Applies a change to the members. Those that change who replicates come with a raft configuration change, which
    /// is to be applied if and only if this returns `Ok`.
    pub(super) fn change(&mut self, change: &Change) -> Result<(u64, MemberInfo), ChangeError> {
        let id = change.member;
        self.check(change)?;
        let members = Arc::make_mut(&mut self.members);
        let info = match change.kind() {
            ChangeKind::Add => {
                let info = MemberInfo {
                    peer_urls: change.peer_urls.clone(),
                    standby: change.standby,
                    ..MemberInfo::default()
                };
                members.insert(id, info.clone());
                info
            }
            ChangeKind::Remove => {
                self.removed.insert(id);
                members.remove(&id).unwrap_or_default()
            }
            kind => {
                let info = members.get_mut(&id).ok_or(ChangeError::NotFound)?;
                match kind {
                    ChangeKind::Update => info.peer_urls.clone_from(&change.peer_urls),
                    _ => info.standby = false,
                }
                info.clone()
            }
        };
        Ok((id, info))
    }

    fn check(&self, change: &Change) -> Result<(), ChangeError> {
        let id = change.member;
        let taken = |url: &String| self.members.iter().any(|(at, m)| *at != id && m.peer_urls.contains(url));
        if change.kind() == ChangeKind::Add {
            if self.members.contains_key(&id) || self.removed.contains(&id) || id == 0 {
                return Err(ChangeError::IdExists);
            }
            if self.members.len() >= MEMBERS_MAX {
                return Err(ChangeError::TooMany);
            }
        } else if self.removed.contains(&id) {
            return Err(ChangeError::Removed);
        } else if !self.members.contains_key(&id) {
            return Err(ChangeError::NotFound);
        }
        if change.peer_urls.iter().any(taken) {
            return Err(ChangeError::UrlExists);
        }
        match change.kind() {
            ChangeKind::Remove if self.membership.voters == [id] => Err(ChangeError::LastVoter),
            ChangeKind::Vote if !self.membership.learners.contains(&id) => Err(ChangeError::NotFound),
            ChangeKind::Unspecified => Err(ChangeError::NotFound),
            _ => Ok(()),
        }
    }

    /// What a request about members that came in an ordinary entry comes to.
    pub(super) fn change_in_entry(&mut self, body: &Body) -> Option<Result<(u64, MemberInfo), ChangeError>> {
        match body {
            Body::Change(change) if configuration(change).is_none() => Some(self.change(change)),
            // Only a raft configuration change may bring these.
            Body::Change(_) => Some(Err(ChangeError::NotFound)),
            Body::Refusal(refusal) => Some(Err(reason(refusal))),
            Body::Write(_) | Body::Publish(_) => None,
        }
    }
}

/// The raft configuration change that a change needs, if any.
fn configuration(change: &Change) -> Option<ConfChangeV2> {
    let kind = match change.kind() {
        ChangeKind::Add => ConfChangeType::AddLearnerNode,
        ChangeKind::Remove => ConfChangeType::RemoveNode,
        ChangeKind::Vote => ConfChangeType::AddNode,
        ChangeKind::Update | ChangeKind::Promote | ChangeKind::Unspecified => return None,
    };
    let mut single = ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = change.member;
    let mut configuration = ConfChangeV2::default();
    configuration.mut_changes().push(single);
    Some(configuration)
}

/// A raft configuration change and the change of members that it is made for.
fn decode(entry: &Entry) -> Result<(ConfChangeV2, Batch), String> {
    use protobuf::Message as _;
    let failed = |what: String| format!("entry {} of the log cannot be decoded: {what}", entry.index);
    let mut configuration = ConfChangeV2::default();
    configuration.merge_from_bytes(&entry.data).map_err(|e| failed(e.to_string()))?;
    let batch = Batch::decode(configuration.get_context()).map_err(|e| failed(e.to_string()))?;
    Ok((configuration, batch))
}

/// What a leader keeps about changes: those that wait, and who was heard of when.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// One request each, with when to forget it.
    queue: VecDeque<(Duration, Batch)>,
    /// Ticks since the start, and at which of them each peer was last heard.
    ticks: u64,
    heard: BTreeMap<u64, u64>,
}

impl Changes {
    pub(super) fn tick(&mut self, now: Duration) {
        self.ticks += 1;
        self.queue.retain(|(deadline, _)| *deadline > now);
    }

    pub(super) fn heard(&mut self, peer: u64) {
        self.heard.insert(peer, self.ticks);
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Takes the changes out of a batch, to be proposed in their own way.
    pub(super) fn take_from(&mut self, batch: &mut Batch, deadline: Duration) {
        if !batch.requests.iter().any(|request| matches!(request.body, Some(Body::Change(_)))) {
            return;
        }
        let (changes, others) = std::mem::take(&mut batch.requests)
            .into_iter()
            .partition::<Vec<_>, _>(|request| matches!(request.body, Some(Body::Change(_))));
        batch.requests = others;
        for request in changes {
            let same = |(_, waiting): &(Duration, Batch)| {
                waiting.session == batch.session && waiting.requests[0].number == request.number
            };
            if self.queue.len() < QUEUE_MAX && !self.queue.iter().any(same) {
                let (session, floor) = (batch.session, batch.floor);
                self.queue.push_back((deadline, Batch { session, floor, requests: vec![request] }));
            }
        }
    }

    /// The change that is to be dealt with next.
    fn front(&self) -> Option<&Change> {
        self.queue.front().and_then(|(_, batch)| match &batch.requests[0].body {
            Some(Body::Change(change)) => Some(change),
            _ => None,
        })
    }

    fn pop(&mut self) -> Option<Batch> {
        self.queue.pop_front().map(|(_, batch)| batch)
    }
}

/// What a leader does with a change.
enum Decision {
    /// Raft is to be configured otherwise.
    Configure(Box<ConfChangeV2>),
    /// The state decides.
    Entry,
    Refuse(Refusal),
    /// This member is to leave: another must lead first.
    HandOver,
}

impl Replica {
    /// Deals with the changes that wait, and gives learners that have caught up their vote. Before `propose`, which
    /// sends out what comes of it.
    pub(super) fn propose_changes(&mut self) {
        while self.may_configure() {
            let Some(change) = self.changes.front() else {
                self.give_votes();
                return;
            };
            let decision = self.decide(change);
            if matches!(decision, Decision::HandOver) {
                self.step_aside();
                return;
            }
            let Some(mut batch) = self.changes.pop() else { return };
            match decision {
                Decision::Configure(configuration) => {
                    self.configure(*configuration, &batch);
                    return;
                }
                Decision::Refuse(refusal) => {
                    batch.requests[0].body = Some(Body::Refusal(refusal));
                    self.enqueue_plain(batch);
                }
                Decision::Entry | Decision::HandOver => self.enqueue_plain(batch),
            }
        }
    }

    /// Raft passes over a change that comes while another is under way, without a word.
    fn may_configure(&self) -> bool {
        let raft = &self.raw.raft;
        self.clock.in_office() && raft.lead_transferee.is_none() && !raft.has_pending_conf()
    }

    fn configure(&mut self, mut configuration: ConfChangeV2, batch: &Batch) {
        configuration.set_context(batch.encode_to_vec().into());
        // An error means that it is on its way out of office: the origin sends the request again.
        let _ = self.raw.propose_conf_change(vec![], configuration);
    }

    fn decide(&self, change: &Change) -> Decision {
        let Some(configuration) = configuration(change) else { return Decision::Entry };
        if self.state.check(change).is_err() {
            // It will be refused when it is applied, for the reason that holds then.
            return Decision::Configure(Box::new(configuration));
        }
        if change.kind() != ChangeKind::Remove || !self.state.membership.voters.contains(&change.member) {
            return Decision::Configure(Box::new(configuration));
        }
        let left = self.state.membership.voters.iter().copied().filter(|id| *id != change.member);
        if let Err(refusal) = self.quorum_of(left) {
            return Decision::Refuse(refusal);
        }
        if change.member == self.config.id {
            return Decision::HandOver;
        }
        Decision::Configure(Box::new(configuration))
    }

    /// Whether these voters would have a quorum in reach.
    fn quorum_of(&self, voters: impl Iterator<Item = u64>) -> Result<(), Refusal> {
        let (mut count, mut in_reach) = (0, 0);
        for id in voters {
            count += 1;
            in_reach += u32::from(self.in_reach(id));
        }
        if count == 0 {
            return Err(Refusal { reason: RefusalReason::LastVoter.into(), ..Refusal::default() });
        }
        if self.config.strict_reconfig && in_reach <= count / 2 {
            return Err(Refusal { reason: RefusalReason::NoQuorum.into(), voters: count, in_reach });
        }
        Ok(())
    }

    /// Whether a member answered this leader within the last election timeout.
    fn in_reach(&self, id: u64) -> bool {
        let Changes { ticks, heard, .. } = &self.changes;
        let recent = |at: &u64| ticks - at <= self.config.election_ticks as u64;
        id == self.config.id || heard.get(&id).is_some_and(recent)
    }

    /// Proposes the vote of one learner that has caught up and is not meant to stay without.
    fn give_votes(&mut self) {
        if self.raw.raft.state != StateRole::Leader {
            return;
        }
        let log_end = self.raw.raft.raft_log.last_index();
        let membership = &self.state.membership;
        let ready = membership.learners.iter().copied().find(|id| {
            let wanted = self.state.members.get(id).is_some_and(|info| !info.standby);
            let caught_up = self.raw.raft.prs().get(*id).is_some_and(|progress| {
                progress.state == ProgressState::Replicate && progress.matched + CAUGHT_UP_ENTRIES >= log_end
            });
            let voters = membership.voters.iter().copied().chain([*id]);
            wanted && caught_up && self.in_reach(*id) && self.quorum_of(voters).is_ok()
        });
        let Some(member) = ready else { return };
        let change = Change { kind: ChangeKind::Vote.into(), member, ..Change::default() };
        let Some(configuration) = configuration(&change) else { return };
        // The leader's own idea: nobody waits for an answer, and it does no harm twice.
        let request = Request { number: 0, body: Some(Body::Change(change)) };
        self.configure(
            configuration,
            &Batch { session: codec::NO_SESSION, floor: 0, requests: vec![request] },
        );
    }

    /// Applies a raft configuration change with the change of members that it is made for.
    pub(super) fn change_membership(&mut self, entry: &Entry) -> Result<(), String> {
        let (configuration, batch) = decode(entry)?;
        let [Request { number, body: Some(Body::Change(change)) }] = &batch.requests[..] else {
            return Err(format!("entry {} of the log changes no member", entry.index));
        };
        let applied = self.state.configure(entry.index, &batch, *number, change);
        self.state.applied = LogPosition::of(entry);
        let Some(result) = applied else { return Ok(()) };
        if result.is_ok() {
            let mut membership = self.raw.apply_conf_change(&configuration).map_err(|e| e.to_string())?;
            // Raft lists them in the order of its hash tables, which depends on what a member has been through; the
            // state is to be the same everywhere, to the byte.
            membership.voters.sort_unstable();
            membership.learners.sort_unstable();
            self.raw.mut_store().set_membership(membership.clone());
            self.state.membership = membership;
        }
        let removed =
            change.kind() == ChangeKind::Remove && change.member == self.config.id && result.is_ok();
        self.answer_change(Changed { session: batch.session, number: *number, result });
        if removed {
            self.leave();
        }
        Ok(())
    }

    pub(super) fn answer_change(&mut self, changed: Changed) {
        if changed.session == self.pending.session()
            && let Some(token) = self.pending.applied(changed.number)
        {
            self.effects.replies.push(Reply::Changed { token, result: changed.result });
        }
    }

    /// This member was removed: it takes no more part, and its clients are told so.
    pub(super) fn leave(&mut self) {
        if self.removed {
            return;
        }
        self.removed = true;
        self.effects.removed = true;
        self.standing.leader = 0;
        self.standing.leads = false;
        let mut tokens = Vec::new();
        self.pending.drain(|token| tokens.push(token));
        self.reads.drain(|token| tokens.push(token));
        for token in tokens {
            self.fail(token, Failure::Removed);
        }
    }
}

impl State {
    /// Applies what a log holds beyond this state, without raft: for a member that goes on alone. Who votes is left as
    /// it was.
    ///
    /// # Errors
    /// An entry is not one that any version of this program writes.
    pub fn replay(&mut self, entries: &[Entry]) -> Result<(), String> {
        for entry in entries.iter().filter(|entry| entry.index > self.applied.index).collect::<Vec<_>>() {
            if entry.get_entry_type() == EntryType::EntryNormal {
                self.apply(entry)?;
            } else {
                let (_, batch) = decode(entry)?;
                if let [Request { number, body: Some(Body::Change(change)) }] = &batch.requests[..] {
                    let _ = self.configure(entry.index, &batch, *number, change);
                }
                self.applied = LogPosition::of(entry);
            }
        }
        Ok(())
    }

    /// The change of members that a raft configuration change brings; `None` if it was applied before.
    pub(super) fn configure(
        &mut self,
        index: u64,
        batch: &Batch,
        number: u64,
        change: &Change,
    ) -> Option<Result<(u64, MemberInfo), ChangeError>> {
        if batch.session != codec::NO_SESSION {
            self.sessions.open(batch.session, batch.floor, index);
            if !self.sessions.admit(batch.session, number) {
                return None;
            }
        }
        Some(self.change(change))
    }
}
