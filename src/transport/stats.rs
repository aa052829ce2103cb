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
    /// All such times.
    pub round_trips: RoundTrips,
    /// How often a connection could not be made, or ended.
    pub failures: u64,
}

/// Times between frames and the peer's receipts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// How many were measured.
    pub count: u64,
    /// The last one; the others are zero, too, if there was none.
    pub last: Duration,
    /// Their mean.
    pub mean: Duration,
    /// Their standard deviation.
    pub deviation: Duration,
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

/// Sums up round trips by Welford's method, in seconds.
#[derive(Debug, Default)]
struct Measured {
    summary: RoundTrips,
    mean: f64,
    squares: f64,
}

impl Measured {
    fn add(&mut self, time: Duration) {
        let summary = &mut self.summary;
        summary.min = if summary.count == 0 { time } else { summary.min.min(time) };
        summary.max = summary.max.max(time);
        summary.last = time;
        summary.count += 1;
        let (count, seconds) = (summary.count as f64, time.as_secs_f64());
        let from_old = seconds - self.mean;
        self.mean += from_old / count;
        self.squares += from_old * (seconds - self.mean);
        summary.mean = Duration::from_secs_f64(self.mean.max(0.0));
        summary.deviation = Duration::from_secs_f64((self.squares / count).max(0.0).sqrt());
    }
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
    measured: Measured,
    failures: u64,
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
        state.failures += 1;
        state.last_error = Some(error.to_owned());
        let new = state.errors.len() < ERRORS_MAX && !state.errors.iter().any(|known| known == error);
        if new {
            state.errors.push(error.to_owned());
        }
        new
    }

    pub(super) fn round_trip(&self, time: Duration) {
        let mut state = lock(&self.state);
        state.round_trip = Some(time);
        state.measured.add(time);
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
            round_trips: state.measured.summary,
            failures: state.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_summed_up() {
        let mut measured = Measured::default();
        assert_eq!(measured.summary, RoundTrips::default());
        for millis in [4, 2, 6, 4] {
            measured.add(Duration::from_millis(millis));
        }
        let RoundTrips { count, last, mean, deviation, min, max } = measured.summary;
        let micros = |time: Duration| (time + Duration::from_nanos(500)).as_micros();
        assert_eq!((count, micros(last), micros(min), micros(max)), (4, 4000, 2000, 6000));
        assert_eq!((micros(mean), micros(deviation)), (4000, 1414));
    }
}
