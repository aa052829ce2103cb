//! What goes into the core and what comes out. Plain data: the order in which effects may happen is part of it.

use super::LogPosition;
use super::membership::{ChangeError, MemberChange};
use super::room::Shortage;
use super::state::{MemberInfo, State};
use crate::proto::command::Batch;
use crate::proto::peer::Beacon;
use crate::store::{Command, Event, Outcome, StoreError};
use raft::eraftpb::{Entry, HardState, Message};
use std::sync::Arc;
use std::time::Duration;

/// Names a request of a local client until it is answered; chosen by the caller, unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// A heartbeat interval has passed.
    Tick,
    /// A local client wants this applied.
    Write {
        /// Names the request in [`Reply::Write`].
        token: Token,
        /// What to apply.
        command: Command,
    },
    /// A local client wants to read what is at least as new as every write acknowledged by now.
    Read {
        /// Names the request in [`Reply::Read`].
        token: Token,
    },
    /// This member's name and client URLs, to be made known to the cluster.
    Publish {
        /// Names the request in [`Reply::Published`].
        token: Token,
        /// The member's name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
    },
    /// A local client wants the membership changed.
    Change {
        /// Names the request in [`Reply::Changed`].
        token: Token,
        /// What to change.
        change: MemberChange,
    },
    /// A peer says that this member was removed from the cluster.
    Removed,
    /// A peer sent messages.
    Frame {
        /// The peer.
        from: u64,
        /// Raft messages.
        messages: Vec<Message>,
        /// Requests of its clients, for the leader to propose.
        forwarded: Vec<Batch>,
        /// A leader's clock and digest.
        beacon: Option<Beacon>,
    },
    /// A leader sent its whole state, which raft's message announces.
    Snapshot {
        /// Raft's `MsgSnapshot`.
        message: Box<Message>,
        /// The state at the snapshot's position.
        state: Box<State>,
    },
    /// The log write of this number, and all before it, are on disk.
    Persisted {
        /// [`LogWrite::number`].
        number: u64,
    },
    /// The disk is full: what is not on it waits, nobody knows how long. Said again now and then, until a write is
    /// persisted. Every `then_send` is kept back as before.
    Stalled,
    /// A checkpoint makes the log up to this position unnecessary for a restart of this member.
    Compactable {
        /// Where the older of the two kept checkpoints stands.
        upto: LogPosition,
    },
    /// The connection to a peer is up; what was sent to it before may be lost.
    Connected {
        /// The peer.
        peer: u64,
    },
    /// What was sent to a peer was lost.
    Unreachable {
        /// The peer.
        peer: u64,
    },
    /// A snapshot was delivered to a peer or not.
    SnapshotSent {
        /// The peer.
        peer: u64,
        /// Whether it arrived whole.
        ok: bool,
    },
    /// This member's disk is nearly full, or has room again.
    Space {
        /// Whether it is.
        short: bool,
    },
    /// Hand leadership to the best follower, if leading: the member is about to stop.
    StepAside,
}

/// What to send to one peer.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Raft messages, in order.
    pub messages: Vec<Message>,
    /// Requests for the leader to propose. May be lost, but not come twice: how often they were sent is counted.
    pub forwarded: Vec<Batch>,
    /// The leader's clock and digest.
    pub beacon: Option<Beacon>,
}

impl Outgoing {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.forwarded.is_empty() && self.beacon.is_none()
    }
}

/// What to put into the log, atomically and in the order of `number`.
#[derive(Debug)]
pub struct LogWrite {
    /// Counts up; to be given back in [`Input::Persisted`].
    pub number: u64,
    /// A snapshot that replaces the whole log: to be made durable as a checkpoint, then to be the log's base.
    pub install: Option<Box<State>>,
    /// Entries to append; the first may replace a tail.
    pub entries: Vec<Entry>,
    /// Term, vote and commit index.
    pub hard_state: Option<HardState>,
    /// Whether it must be on disk before `then_send`.
    pub sync: bool,
    /// To be sent to the peers they name when this write is on disk and [`Input::Persisted`] is on its way, not before.
    pub then_send: Vec<Message>,
}

/// A whole state for a peer that is behind the log.
#[derive(Debug)]
pub struct SnapshotToSend {
    /// The peer.
    pub to: u64,
    /// Raft's message that announces it.
    pub message: Box<Message>,
    /// The state.
    pub state: Box<State>,
}

/// An answer to a local client.
#[derive(Debug)]
pub enum Reply {
    /// A write was applied on this member, or refused by the store.
    Write {
        /// The request.
        token: Token,
        /// What came of it.
        result: Result<Arc<Event>, StoreError>,
    },
    /// The member's name and URLs are known to the cluster.
    Published {
        /// The request.
        token: Token,
    },
    /// The membership was changed, or the change was refused.
    Changed {
        /// The request.
        token: Token,
        /// The member and its id, or why nothing was changed.
        result: Result<(u64, MemberInfo), ChangeError>,
    },
    /// The published state is new enough for this read.
    Read {
        /// The request.
        token: Token,
    },
    /// The request came to nothing in time.
    Failed {
        /// The request.
        token: Token,
        /// Why.
        reason: Failure,
    },
}

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was on its way when its time was over: a write may still be applied.
    Timeout,
    /// There was no leader to give it to; it will not be applied.
    NoLeader,
    /// Too many requests wait; it will not be applied.
    Overloaded,
    /// This member was removed from the cluster. A write that was on its way may still be applied.
    Removed,
    /// It needs room that there is not; it will not be applied.
    NoRoom(Shortage),
    /// The leader was given it and left it out for want of room; it will not be applied.
    LeftOut(Shortage),
}

/// A member's place in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The current term.
    pub term: u64,
    /// The leader's id, 0: none known.
    pub leader: u64,
    /// Whether this member leads.
    pub leads: bool,
    /// The highest log position known to be committed.
    pub commit: u64,
    /// Why requests that need room are refused, if they are; on a follower, as far as its leader has told.
    pub refuses: Option<Shortage>,
}

/// What must be done now, in the order of the fields.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be sent at once, by peer; may be lost.
    pub send: Vec<(u64, Outgoing)>,
    /// To be written to the log, in order, while everything else goes on.
    pub writes: Vec<LogWrite>,
    /// Whether the state has changed and is to be published before any reply goes out.
    pub publish: bool,
    /// What was applied, for watchers, in the order of indexes.
    pub events: Vec<Outcome>,
    /// A snapshot was installed whose history does not reach back to what watchers have seen.
    pub watchers_cleared: bool,
    /// Answers to local clients.
    pub replies: Vec<Reply>,
    /// States to be sent to peers that are behind the log.
    pub snapshots: Vec<SnapshotToSend>,
    /// The log on disk is to forget everything up to this position.
    pub compact: Option<LogPosition>,
    /// This member was removed from the cluster: it takes no more part, and is to tell its clients so.
    pub removed: bool,
    /// This member's state differs from the leader's at the same position: it must stop serving.
    pub diverged: Option<LogPosition>,
    /// When the core wants to be stepped again even if nothing happens, by the monotonic clock.
    pub wake_at: Option<Duration>,
}
