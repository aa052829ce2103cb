//! Changes of the membership: who replicates, who votes, and where they are.
//!
//! A member is added as a learner, which replicates and has no vote; the leader gives it its vote when it has caught
//! up, so that no change makes a quorum wait for a member that is still empty. A standby stays a learner until somebody
//! promotes it. Each change is one step of raft's simple protocol: one member at a time, one change under way.
//!
//! What a leader does about a change before it is in the log is in `changes`.
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
use super::{LogPosition, State};
use crate::proto::command::{Batch, Change, ChangeKind, Refusal, RefusalReason, Request, request::Body};
use crate::replica::state::MemberInfo;
use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType};
use std::sync::Arc;

/// More members than this are not added: each costs every leader a stream and a place in every snapshot.
pub(super) const MEMBERS_MAX: usize = 64;

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

    pub(super) fn check(&self, change: &Change) -> Result<(), ChangeError> {
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
pub(super) fn configuration(change: &Change) -> Option<ConfChangeV2> {
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
pub(super) fn decode(entry: &Entry) -> Result<(ConfChangeV2, Batch), String> {
    use protobuf::Message as _;
    let failed = |what: String| format!("entry {} of the log cannot be decoded: {what}", entry.index);
    let mut configuration = ConfChangeV2::default();
    configuration.merge_from_bytes(&entry.data).map_err(|e| failed(e.to_string()))?;
    let batch = Batch::decode(configuration.get_context()).map_err(|e| failed(e.to_string()))?;
    Ok((configuration, batch))
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
