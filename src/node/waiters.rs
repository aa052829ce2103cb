//! Who waits for what the core was asked, by the tokens that name the requests to it.

use super::alarms::error_of;
use super::view::member;
use crate::http::backend::{BackendError, Member, MembersError, View, Written};
use crate::replica::{ChangeError, MemberInfo, Replica, Reply, Token};
use crate::store::{Event, StoreError};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

pub(super) type WriteReply = oneshot::Sender<Result<Written, BackendError>>;
pub(super) type ChangeReply = oneshot::Sender<Result<Member, MembersError>>;
pub(super) type ReadReply = oneshot::Sender<Result<Arc<View>, BackendError>>;

pub(super) enum Waiter {
    Write(WriteReply),
    Read(ReadReply),
    Publish(oneshot::Sender<bool>),
    Change(ChangeReply),
}

#[derive(Default)]
pub(super) struct Waiters {
    by_token: HashMap<Token, Waiter>,
    next_token: u64,
}

impl Waiters {
    pub(super) fn add(&mut self, waiter: Waiter) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.by_token.insert(token, waiter);
        token
    }

    /// Passes an answer on; what it speaks of must be published already, and `view` gives it. A waiter that has gone away (a client that hung up)
    /// is nobody to tell.
    pub(super) fn answer(&mut self, reply: Reply, replica: &Replica, view: impl FnOnce() -> Arc<View>) {
        match reply {
            Reply::Write { token, result } => {
                if let Some(Waiter::Write(reply)) = self.by_token.remove(&token) {
                    let _ = reply.send(written(result, replica));
                }
            }
            Reply::Read { token } => {
                if let Some(Waiter::Read(reply)) = self.by_token.remove(&token) {
                    let _ = reply.send(Ok(view()));
                }
            }
            Reply::Published { token } => {
                if let Some(Waiter::Publish(reply)) = self.by_token.remove(&token) {
                    let _ = reply.send(true);
                }
            }
            Reply::Changed { token, result } => {
                if let Some(Waiter::Change(reply)) = self.by_token.remove(&token) {
                    let _ = reply.send(changed(result, replica));
                }
            }
            Reply::Failed { token, reason } => {
                if let Some(waiter) = self.by_token.remove(&token) {
                    waiter.fail(error_of(reason));
                }
            }
        }
    }

    /// Nobody is served any more.
    pub(super) fn fail_all(&mut self, error: &BackendError) {
        for (_, waiter) in self.by_token.drain() {
            waiter.fail(error.clone());
        }
    }
}

impl Waiter {
    fn fail(self, error: BackendError) {
        match self {
            Self::Write(reply) => drop(reply.send(Err(error))),
            Self::Read(reply) => drop(reply.send(Err(error))),
            Self::Publish(reply) => drop(reply.send(false)),
            Self::Change(reply) => drop(reply.send(Err(error.into()))),
        }
    }
}

fn changed(
    result: Result<(u64, MemberInfo), ChangeError>,
    replica: &Replica,
) -> Result<Member, MembersError> {
    let (id, info) = result?;
    Ok(member(id, &info, replica.state().membership.learners.contains(&id)))
}

fn written(result: Result<Arc<Event>, StoreError>, replica: &Replica) -> Result<Written, BackendError> {
    let raft_index = replica.state().applied.index;
    let raft_term = replica.standing().term;
    Ok(Written { event: result?, raft_index, raft_term })
}
