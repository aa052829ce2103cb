//! What a member knows about its traffic with each peer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::lock;

/// Traffic with one peer, since it was first listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Since when this member's stream to the peer is up; `None`: it is not.
    pub connected_since: Option<SystemTime>,
    /// The URL at which the peer was last reached.
    pub url: Option<String>,
    /// Whether the peer's stream to this member is up.
    pub inbound: bool,
    /// The version that the peer last said it runs.
    pub version: Option<String>,
    /// Why the last attempt to connect failed, or the last connection ended; `None` once connected again.
    pub last_error: Option<String>,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes of the frames sent.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Bytes of the frames received.
    pub bytes_in: u64,
    /// Bytes that wait to be sent.
    pub queued_bytes: u64,
    /// Time between a recent frame and the peer's receipt, waiting in buffers included.
    pub round_trip: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) frames_out: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) frames_in: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connected_since: Option<SystemTime>,
    url: Option<String>,
    inbound: u32,
    version: Option<String>,
    last_error: Option<String>,
    /// The different errors since the last connection.
    errors: Vec<String>,
    round_trip: Option<Duration>,
}

/// How many different errors of one outage are told apart.
const ERRORS_MAX: usize = 16;

impl Counters {
    pub(super) fn connected(&self, url: &str) {
        let mut state = lock(&self.state);
        state.connected_since = Some(SystemTime::now());
        state.url = Some(url.to_owned());
        state.last_error = None;
        state.errors.clear();
    }

    /// Notes why there is no connection. `true`: the reason is new in this outage.
    pub(super) fn failed(&self, error: &str) -> bool {
        let mut state = lock(&self.state);
        state.connected_since = None;
        state.round_trip = None;
        state.last_error = Some(error.to_owned());
        let new = state.errors.len() < ERRORS_MAX && !state.errors.iter().any(|known| known == error);
        if new {
            state.errors.push(error.to_owned());
        }
        new
    }

    pub(super) fn round_trip(&self, time: Duration) {
        lock(&self.state).round_trip = Some(time);
    }

    pub(super) fn inbound_begins(&self, version: String) {
        let mut state = lock(&self.state);
        state.inbound += 1;
        state.version = Some(version);
    }

    pub(super) fn inbound_ends(&self) {
        let mut state = lock(&self.state);
        state.inbound = state.inbound.saturating_sub(1);
    }

    pub(super) fn snapshot(&self, queued_bytes: usize) -> PeerStats {
        let state = lock(&self.state);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerStats {
            connected_since: state.connected_since,
            url: state.url.clone(),
            inbound: state.inbound > 0,
            version: state.version.clone(),
            last_error: state.last_error.clone(),
            frames_out: load(&self.frames_out),
            bytes_out: load(&self.bytes_out),
            frames_in: load(&self.frames_in),
            bytes_in: load(&self.bytes_in),
            queued_bytes: queued_bytes as u64,
            round_trip: state.round_trip,
        }
    }
}
