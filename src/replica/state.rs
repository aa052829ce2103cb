//! The replicated state: the keyspace and what the cluster must agree on beside it.
//!
//! [`State::apply`] is a function of the state and the entry alone. Cloning costs next to nothing, so a checkpoint or
//! a snapshot is written from a clone while the member goes on.

use super::membership::Changed;
use super::sessions::Sessions;
use super::{LogPosition, codec};
use crate::proto::command::{Entry, Publish, request::Body};
use crate::store::{ClusterTime, ErrorCode, HistoryLimits, Outcome, Store, StoreError};
use prost::Message as _;
use raft::eraftpb::{self, ConfState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the cluster knows of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberInfo {
    /// Empty until the member has published it.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until the member has published them.
    pub client_urls: Vec<String>,
    /// It follows without a vote until somebody promotes it.
    pub standby: bool,
    /// Names the data directory that it published itself with; 0: it has not yet.
    pub incarnation: u64,
}

/// Why a member is not to be listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was removed, and does not come back.
    Removed,
    /// It was here before with another data directory: what it acknowledged then is lost.
    Wiped,
}

/// Who belongs to the cluster, and who has ceased to.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// The members by id.
    pub members: Arc<BTreeMap<u64, MemberInfo>>,
    /// Ids that have left.
    pub removed: BTreeSet<u64>,
}

impl Roster {
    /// Whether a member that comes with this data directory (0: it does not say) may speak.
    ///
    /// One that was never heard of may: it was added while this member was away, and perhaps leads, so that nobody else
    /// could tell of it. Raft asks no more of a sender than its term and log; what counts towards a quorum is only what
    /// those say that are in the configuration here.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, member: u64, incarnation: u64) -> Result<(), Refused> {
        match self.members.get(&member) {
            Some(info) if info.incarnation != 0 && incarnation != info.incarnation => Err(Refused::Wiped),
            None if self.removed.contains(&member) => Err(Refused::Removed),
            _ => Ok(()),
        }
    }
}

/// Everything that is derived from the log, up to one position of it.
#[derive(Clone, Debug)]
pub struct State {
    /// The cluster it belongs to.
    pub cluster_id: u64,
    /// The position up to which it is applied.
    pub applied: LogPosition,
    /// Cluster time of the last entry.
    pub time: ClusterTime,
    /// The keyspace.
    pub store: Store,
    /// The members by id, those that have left not counted.
    pub members: Arc<BTreeMap<u64, MemberInfo>>,
    /// Ids that have left; they never come back.
    pub removed: BTreeSet<u64>,
    /// Who votes.
    pub membership: ConfState,
    pub(super) sessions: Sessions,
}

/// What one request came to.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    pub session: u64,
    pub number: u64,
    pub result: Result<Outcome, StoreError>,
}

/// What one entry did.
#[derive(Debug, Default)]
pub(super) struct EntryOutcome {
    /// Everything that watchers may want to hear of, in the order of indexes.
    pub events: Vec<Outcome>,
    /// The requests in it that were applied, for whoever waits for them. `Publish` is among them without an event.
    pub answered: Vec<Applied>,
    /// Requests of `Publish` that were applied.
    pub published: Vec<(u64, u64)>,
    /// Changes of the membership that were applied or refused.
    pub changed: Vec<Changed>,
    /// How far its proposer had applied the log; 0 for an entry of raft's own.
    pub proposed_at: u64,
}

impl State {
    /// The state that every founding member of a cluster starts from.
    #[must_use]
    pub fn founding(cluster_id: u64, members: BTreeMap<u64, MemberInfo>, limits: HistoryLimits) -> Self {
        let membership = ConfState::from((members.keys().copied().collect::<Vec<_>>(), vec![]));
        Self {
            cluster_id,
            applied: LogPosition::FOUNDING,
            time: ClusterTime::default(),
            store: Store::new(limits),
            members: Arc::new(members),
            removed: BTreeSet::new(),
            membership,
            sessions: Sessions::default(),
        }
    }

    /// Applies a normal entry.
    ///
    /// # Errors
    /// The entry is not one that any version of this program writes; the member must stop.
    pub(super) fn apply(&mut self, entry: &eraftpb::Entry) -> Result<EntryOutcome, String> {
        assert_eq!(entry.index, self.applied.index + 1, "entries are applied in order, each once");
        let mut done = EntryOutcome::default();
        if !entry.data.is_empty() {
            let decoded = Entry::decode(entry.data.clone())
                .map_err(|e| format!("entry {} of the log cannot be decoded: {e}", entry.index))?;
            self.apply_decoded(entry.index, decoded, &mut done);
        }
        self.applied = LogPosition::of(entry);
        Ok(done)
    }

    fn apply_decoded(&mut self, index: u64, entry: Entry, done: &mut EntryOutcome) {
        done.proposed_at = entry.applied;
        self.time = self.time.max(ClusterTime(entry.time_ms));
        // A reading is the last full millisecond. The one that a deadline was made from may have been most of one behind, so
        // a deadline has passed for certain only when the reading is beyond it.
        if let Some(passed) = self.time.0.checked_sub(1) {
            done.events = self.store.expire(ClusterTime(passed), entry.expire_limit as usize);
        }
        for batch in entry.batches {
            self.sessions.open(batch.session, batch.floor, index);
            for request in batch.requests {
                if !self.sessions.admit(batch.session, request.number) {
                    continue;
                }
                match request.body {
                    Some(Body::Write(write)) => {
                        let result = match codec::decode(&write) {
                            Some(command) => self.store.apply(self.time, &command),
                            None => Err(self.unknown_operation()),
                        };
                        if let Ok(outcome) = &result {
                            done.events.push(outcome.clone());
                        }
                        done.answered.push(Applied {
                            session: batch.session,
                            number: request.number,
                            result,
                        });
                    }
                    Some(Body::Publish(publish)) => {
                        self.publish(publish);
                        done.published.push((batch.session, request.number));
                    }
                    None => done.published.push((batch.session, request.number)),
                    Some(about_members) => {
                        if let Some(result) = self.change_in_entry(&about_members) {
                            done.changed.push(Changed {
                                session: batch.session,
                                number: request.number,
                                result,
                            });
                        }
                    }
                }
            }
        }
    }

    fn unknown_operation(&self) -> StoreError {
        StoreError::new(ErrorCode::InvalidField, "operation", self.store.index())
    }

    fn publish(&mut self, publish: Publish) {
        if let Some(info) = Arc::make_mut(&mut self.members).get_mut(&publish.member) {
            info.name = publish.name;
            info.client_urls = publish.client_urls;
            info.incarnation = publish.incarnation;
        }
    }

    /// Who belongs to the cluster, to be asked while the state goes on.
    #[must_use]
    pub fn roster(&self) -> Roster {
        Roster { members: Arc::clone(&self.members), removed: self.removed.clone() }
    }

    /// What a member begins with that joins a running cluster: whom to listen to, and nothing else. The leader's
    /// snapshot replaces it.
    #[must_use]
    pub fn joining(cluster_id: u64, members: BTreeMap<u64, MemberInfo>, limits: HistoryLimits) -> Self {
        Self {
            applied: LogPosition::default(),
            membership: ConfState::default(),
            ..Self::founding(cluster_id, members, limits)
        }
    }
}
