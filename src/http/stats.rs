//! What this member's clients asked of it, counted. `/v2/stats/store` and `/metrics` show it.
//!
//! Counts begin with the process and cover the requests that came to this member, not those that others took.

use super::json;
use super::metrics::Requests;
use crate::store::Command;
use bytes::{BufMut, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An operation on the keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A read.
    Get,
    /// [`Command::Set`].
    Set,
    /// [`Command::Delete`].
    Delete,
    /// [`Command::Update`].
    Update,
    /// [`Command::Create`] and [`Command::CreateInOrder`].
    Create,
    /// [`Command::CompareAndSwap`].
    CompareAndSwap,
    /// [`Command::CompareAndDelete`].
    CompareAndDelete,
}

impl Operation {
    /// In the order of `/v2/stats/store`.
    pub(crate) const ALL: [Self; 7] = [
        Self::Get,
        Self::Set,
        Self::Delete,
        Self::Update,
        Self::Create,
        Self::CompareAndSwap,
        Self::CompareAndDelete,
    ];

    /// What a command counts as.
    pub(crate) fn of(command: &Command) -> Self {
        match command {
            Command::Set { .. } => Self::Set,
            Command::Create { .. } | Command::CreateInOrder { .. } => Self::Create,
            Command::Update { .. } => Self::Update,
            Command::CompareAndSwap { .. } => Self::CompareAndSwap,
            Command::Delete { .. } => Self::Delete,
            Command::CompareAndDelete { .. } => Self::CompareAndDelete,
        }
    }

    /// Its prefix in `/v2/stats/store`.
    fn stats_name(self) -> &'static str {
        match self {
            Self::Get => "gets",
            Self::Set => "sets",
            other => other.name(),
        }
    }

    /// As an action.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Update => "update",
            Self::Create => "create",
            Self::CompareAndSwap => "compareAndSwap",
            Self::CompareAndDelete => "compareAndDelete",
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    succeeded: [AtomicU64; Operation::ALL.len()],
    failed: [AtomicU64; Operation::ALL.len()],
    watch_requests: AtomicU64,
    watchers: AtomicU64,
    connections: AtomicU64,
    /// What `/metrics` alone shows.
    pub(crate) requests: Requests,
}

impl Stats {
    /// Counts one operation.
    pub(crate) fn count(&self, operation: Operation, success: bool) {
        let counts = if success { &self.succeeded } else { &self.failed };
        counts[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often an operation succeeded and failed.
    pub(crate) fn counted(&self, operation: Operation) -> (u64, u64) {
        let at = operation as usize;
        (self.succeeded[at].load(Ordering::Relaxed), self.failed[at].load(Ordering::Relaxed))
    }

    /// How many waits were begun, and how many are on.
    pub(crate) fn watches(&self) -> (u64, u64) {
        (self.watch_requests.load(Ordering::Relaxed), self.watchers.load(Ordering::Relaxed))
    }

    /// How many clients are connected.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// `/v2/stats/store`.
    pub(crate) fn store_json(&self, expired: u64) -> BytesMut {
        let mut out = BytesMut::with_capacity(512);
        out.put_u8(b'{');
        for operation in Operation::ALL {
            let (succeeded, failed) = self.counted(operation);
            for (outcome, count) in [("Success", succeeded), ("Fail", failed)] {
                out.put_u8(b'"');
                out.put_slice(operation.stats_name().as_bytes());
                out.put_slice(outcome.as_bytes());
                out.put_slice(b"\":");
                json::unsigned(&mut out, count);
                out.put_u8(b',');
            }
        }
        out.put_slice(b"\"expireCount\":");
        json::unsigned(&mut out, expired);
        out.put_slice(b",\"watchers\":");
        json::unsigned(&mut out, self.watches().1);
        out.put_u8(b'}');
        out
    }
}

/// One watcher that is counted as long as it lives.
#[derive(Debug)]
pub(crate) struct WatcherCount(Arc<Stats>);

impl WatcherCount {
    /// Counts one more.
    pub(crate) fn new(stats: &Arc<Stats>) -> Self {
        stats.watch_requests.fetch_add(1, Ordering::Relaxed);
        stats.watchers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(stats))
    }
}

impl Drop for WatcherCount {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One client's connection that is counted as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionCount(Arc<Stats>);

impl ConnectionCount {
    /// Counts one more.
    pub(crate) fn new(stats: &Arc<Stats>) -> Self {
        stats.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(stats))
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_names_is_that_of_the_counts() {
        for (at, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, at);
        }
    }

    /// The shape is that of etcd 3.4.23.
    #[test]
    fn as_json() {
        let stats = Arc::new(Stats::default());
        stats.count(Operation::Get, false);
        stats.count(Operation::CompareAndDelete, true);
        let watchers = [WatcherCount::new(&stats), WatcherCount::new(&stats)];
        let shown = |expired| String::from_utf8(stats.store_json(expired).to_vec()).unwrap();
        assert_eq!(
            shown(7),
            "{\"getsSuccess\":0,\"getsFail\":1,\"setsSuccess\":0,\"setsFail\":0,\"deleteSuccess\":0,\"deleteFail\":0,\
             \"updateSuccess\":0,\"updateFail\":0,\"createSuccess\":0,\"createFail\":0,\"compareAndSwapSuccess\":0,\
             \"compareAndSwapFail\":0,\"compareAndDeleteSuccess\":1,\"compareAndDeleteFail\":0,\"expireCount\":7,\"watchers\":2}"
        );
        drop(watchers);
        assert!(shown(0).ends_with("\"watchers\":0}"));
        assert_eq!(stats.watches(), (2, 0));
    }
}
