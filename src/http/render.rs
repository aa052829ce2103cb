//! Answers of `/v2/keys` as JSON: field order, omissions and escapes exactly as etcd's. Pure.
//!
//! A node's deadline is cluster time. What clients see of it is made here and nowhere kept: `ttl` counts from the moment
//! that the answer speaks of (an event's own time, or now for a read), `expiration` is the wall clock's reading that
//! belongs to the deadline.

use super::view::ClockReading;
use super::{calendar, json};
use crate::store::{ClusterTime, ErrorCode, Event, Node, StoreError};
use bytes::{BufMut, Bytes, BytesMut};
use hyper::StatusCode;
use std::time::{Duration, SystemTime};

/// The status that belongs to an error.
pub(crate) fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::KeyNotFound => StatusCode::NOT_FOUND,
        ErrorCode::TestFailed | ErrorCode::NodeExist => StatusCode::PRECONDITION_FAILED,
        ErrorCode::NotFile | ErrorCode::DirNotEmpty => StatusCode::FORBIDDEN,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::RaftInternal | ErrorCode::LeaderElect => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::NotDir
        | ErrorCode::RootReadOnly
        | ErrorCode::PrevValueRequired
        | ErrorCode::TtlNaN
        | ErrorCode::IndexNaN
        | ErrorCode::InvalidField
        | ErrorCode::InvalidForm
        | ErrorCode::RefreshValue
        | ErrorCode::RefreshTtlRequired
        | ErrorCode::WatcherCleared
        | ErrorCode::EventIndexCleared => StatusCode::BAD_REQUEST,
    }
}

/// An error, newline included.
pub(crate) fn error(error: &StoreError) -> Bytes {
    let mut out = BytesMut::with_capacity(96 + error.cause.len());
    out.put_slice(b"{\"errorCode\":");
    json::unsigned(&mut out, u64::from(error.code.number()));
    out.put_slice(b",\"message\":");
    json::string(&mut out, error.code.message().as_bytes());
    if !error.cause.is_empty() {
        out.put_slice(b",\"cause\":");
        json::string(&mut out, &error.cause);
    }
    out.put_slice(b",\"index\":");
    json::unsigned(&mut out, error.index);
    out.put_slice(b"}\n");
    out.freeze()
}

/// What ends a wait in which nothing happened up to `index`, newline included.
pub(crate) fn timeout(index: u64) -> Bytes {
    format!("{{\"action\":\"timeout\",\"index\":{index}}}\n").into()
}

/// `{"message":"..."}`, the shape of errors outside `/v2/keys`.
pub(crate) fn message(text: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(16 + text.len());
    out.put_slice(b"{\"message\":");
    json::string(&mut out, text.as_bytes());
    out.put_u8(b'}');
    out.freeze()
}

/// An event, newline included; without its nodes if the writer asked for that.
pub(crate) fn event(event: &Event, clock: &ClockReading, without_nodes: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(if without_nodes { 32 } else { size_hint(event) });
    out.put_slice(b"{\"action\":\"");
    out.put_slice(event.action.name().as_bytes());
    out.put_u8(b'"');
    if !without_nodes {
        let moment = Moment { now: event.time, clock: *clock };
        out.put_slice(b",\"node\":");
        moment.node(&mut out, &event.node);
        if let Some(prev_node) = &event.prev_node {
            out.put_slice(b",\"prevNode\":");
            moment.node(&mut out, prev_node);
        }
    }
    out.put_slice(b"}\n");
    out.freeze()
}

/// About as many bytes as an event takes, so that writing it seldom has to grow the buffer.
fn size_hint(event: &Event) -> usize {
    const AROUND_NODE: usize = 160;
    let node =
        |node: &Node| AROUND_NODE + node.key.as_bytes().len() + node.value.as_ref().map_or(0, Bytes::len);
    node(&event.node) + event.prev_node.as_ref().map_or(0, |before| node(before))
}

/// The moment that an answer speaks of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// `ttl` counts from here.
    pub(crate) now: ClusterTime,
    /// `expiration` is derived from this.
    pub(crate) clock: ClockReading,
}

impl Moment {
    /// The moment of a clock reading.
    pub(crate) fn of(clock: ClockReading) -> Self {
        Self { now: clock.cluster, clock }
    }

    /// Writes a node without children.
    pub(crate) fn node(&self, out: &mut BytesMut, node: &Node) {
        let has_fields = self.node_head(out, node);
        node_tail(out, has_fields, node.modified, node.created);
    }

    /// Writes a node up to where `nodes` stands; returns whether it has a field so far.
    pub(crate) fn node_head(&self, out: &mut BytesMut, node: &Node) -> bool {
        self.node_fields(out, node, false)
    }

    /// The same, perhaps without the value.
    pub(crate) fn node_fields(&self, out: &mut BytesMut, node: &Node, keys_only: bool) -> bool {
        let mut opening = b'{';
        let mut field = |out: &mut BytesMut, name: &[u8]| {
            out.put_u8(opening);
            out.put_slice(name);
            opening = b',';
        };
        if !node.key.is_root() {
            field(out, b"\"key\":");
            json::string(out, node.key.as_bytes());
        }
        if let Some(value) = node.value.as_ref().filter(|_| !keys_only) {
            field(out, b"\"value\":");
            json::string(out, value);
        }
        if node.dir {
            field(out, b"\"dir\":true");
        }
        if let Some(deadline) = node.deadline {
            field(out, b"\"expiration\":\"");
            calendar::rfc3339(out, self.expiration(deadline));
            out.put_u8(b'"');
            let ttl = self.ttl(deadline);
            if ttl != 0 {
                field(out, b"\"ttl\":");
                json::signed(out, ttl);
            }
        }
        if opening == b'{' {
            out.put_u8(b'{');
            return false;
        }
        true
    }

    /// Seconds that are left, begun ones counted whole; negative if the deadline is past.
    fn ttl(&self, deadline: ClusterTime) -> i64 {
        match deadline.0.checked_sub(self.now.0) {
            Some(left) => left.div_ceil(1000).cast_signed(),
            None => -((self.now.0 - deadline.0) / 1000).cast_signed(),
        }
    }

    /// What a wall clock will show at the deadline; one that is out of its range gives the nearest it can say.
    fn expiration(&self, deadline: ClusterTime) -> SystemTime {
        let ClockReading { cluster, wall } = self.clock;
        let ahead = Duration::from_millis(deadline.0.saturating_sub(cluster.0));
        let behind = Duration::from_millis(cluster.0.saturating_sub(deadline.0));
        let far_future =
            || SystemTime::UNIX_EPOCH + Duration::from_millis(super::params::MAX_TTL_SECONDS * 1000);
        wall.checked_add(ahead)
            .unwrap_or_else(far_future)
            .checked_sub(behind)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// Writes what follows `nodes` in a node, and closes it. The root has no indexes.
pub(crate) fn node_tail(out: &mut BytesMut, has_fields: bool, modified: u64, created: u64) {
    let mut separate = has_fields;
    for (name, index) in [("\"modifiedIndex\":", modified), ("\"createdIndex\":", created)] {
        if index == 0 {
            continue;
        }
        if separate {
            out.put_u8(b',');
        }
        out.put_slice(name.as_bytes());
        json::unsigned(out, index);
        separate = true;
    }
    out.put_u8(b'}');
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
