//! What a leader does about changes of the membership before they are in the log: who is in reach, whose turn it is, and
//! when a learner gets its vote. What a change does is in `membership`.

use super::codec;
use super::membership::{Changed, configuration, decode};
use super::{Failure, LogPosition, Replica, Reply};
use crate::proto::command::{Batch, Change, ChangeKind, Refusal, RefusalReason, Request, request::Body};
use prost::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry};
use raft::{ProgressState, StateRole};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Changes that wait for a leader's attention; more are not taken, and come again from their origins.
const QUEUE_MAX: usize = 64;

/// A learner that lacks no more entries than this has caught up.
const CAUGHT_UP_ENTRIES: u64 = 128;

/// What a leader keeps about changes: those that wait, and who was heard of when.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// One request each, with when to forget it.
    queue: VecDeque<(Duration, Batch)>,
    /// Ticks since the start, and at which of them each peer was last heard.
    ticks: u64,
    heard: BTreeMap<u64, u64>,
    /// The tick at which this member took office the last time.
    in_office_since: u64,
}

impl Changes {
    pub(super) fn tick(&mut self, now: Duration) {
        self.ticks += 1;
        self.queue.retain(|(deadline, _)| *deadline > now);
    }

    pub(super) fn heard(&mut self, peer: u64) {
        self.heard.insert(peer, self.ticks);
    }

    pub(super) fn took_office(&mut self) {
        self.in_office_since = self.ticks;
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
    /// Who is in reach will be known when this leader has led for an election timeout.
    Wait,
    /// This member is to leave: another must lead first.
    HandOver,
}

impl Replica {
    /// Deals with the changes that wait, and gives learners that have caught up their vote. Before `propose`, which
    /// sends out what comes of it.
    pub(super) fn propose_changes(&mut self, now: Duration) {
        while self.may_configure() {
            let Some(change) = self.changes.front() else {
                self.give_votes();
                return;
            };
            match self.decide(change) {
                Decision::Wait => return,
                Decision::HandOver => {
                    self.step_aside();
                    return;
                }
                Decision::Configure(configuration) => {
                    let Some(batch) = self.changes.pop() else { return };
                    self.configure(*configuration, &batch);
                    return;
                }
                Decision::Refuse(refusal) => {
                    let Some(mut batch) = self.changes.pop() else { return };
                    batch.requests[0].body = Some(Body::Refusal(refusal));
                    self.queue.push(batch, now);
                }
                Decision::Entry => {
                    let Some(batch) = self.changes.pop() else { return };
                    self.queue.push(batch, now);
                }
            }
        }
    }

    /// Raft passes over a change that comes while another is under way, without a word.
    fn may_configure(&self) -> bool {
        self.clock.in_office() && self.may_propose() && !self.raw.raft.has_pending_conf()
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
            let new = self.changes.ticks - self.changes.in_office_since <= self.config.election_ticks as u64;
            let may_pass = new && refusal.reason() == RefusalReason::NoQuorum;
            return if may_pass { Decision::Wait } else { Decision::Refuse(refusal) };
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
    pub(super) fn in_reach(&self, id: u64) -> bool {
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
        let changed = Changed { session: batch.session, number: *number, result };
        if changed.result.is_ok() && change.kind() == ChangeKind::Remove {
            self.note_removal(entry.index, changed);
        } else {
            self.answer_change(changed);
        }
        Ok(())
    }

    /// Whether this entry would remove this member. It is not applied here then: those who stay say so when they have
    /// applied it (`Input::Removed`), and until then they may need this member's vote and log. Of two voters that become
    /// one, the one that stays has to hear from the other that the change is committed.
    pub(super) fn removes_this_member(&self, entry: &Entry) -> Result<bool, String> {
        let (_, batch) = decode(entry)?;
        let [Request { number, body: Some(Body::Change(change)) }] = &batch.requests[..] else {
            return Ok(false);
        };
        if change.kind() != ChangeKind::Remove || change.member != self.config.id {
            return Ok(false);
        }
        // It may be refused, or be there for the second time.
        let applied = self.state.clone().configure(entry.index, &batch, *number, change);
        Ok(matches!(applied, Some(Ok(_))))
    }

    pub(super) fn answer_change(&mut self, changed: Changed) {
        if changed.session == self.pending.session()
            && let Some(token) = self.pending.remove(changed.number)
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
