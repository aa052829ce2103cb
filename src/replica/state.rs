//! The replicated state: the keyspace and what the cluster must agree on beside it.
//!
//! [`State::apply`] is a function of the state and the entry alone. Cloning costs next to nothing, so a checkpoint or
//! a snapshot is written from a clone while the member goes on.

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
        self.time = self.time.max(ClusterTime(entry.time_ms));
        done.events = self.store.expire(self.time, entry.expire_limit as usize);
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
        }
    }
}
