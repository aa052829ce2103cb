//! One peer as this member sees it: what waits for it, and the connection on which that is sent.
//!
//! A task for each peer (`run`) dials its URLs in turn, opens the `Exchange`, and hands the queue over to it as a
//! stream of frames. Nothing is sent before the peer has accepted. A frame is put together only when HTTP/2 has room
//! for it, so what a slow network holds up is merged; on an idle one a message leaves at once.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::Stream;
use prost::Message as _;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tonic::{Request, Status, Streaming};

use super::deliver::Current;
use super::dial::dial;
use super::handshake::status_text;
use super::queue::Queue;
use super::stats::{Counters, PeerStats};
use super::{Core, Outgoing, handshake, lock};
use crate::proto::peer::peer_client::PeerClient;
use crate::proto::peer::{Frame, Receipt};

/// How often a frame asks for a receipt, which gives the round trip.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The largest answer that is accepted on an exchange, in bytes.
const RECEIPT_BYTES_MAX: usize = 1024;
/// A connection that lived this long was a good one: back-off starts over.
const GOOD_CONNECTION: Duration = Duration::from_secs(1);

/// Whether a peer is still wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Keep a connection up.
    Yes,
    /// Send what waits if there is a connection, then end.
    Drain,
    /// End at once.
    No,
}

pub(super) struct Peer {
    pub(super) id: u64,
    core: Arc<Core>,
    outbox: Mutex<Outbox>,
    urls: watch::Sender<Vec<String>>,
    wanted: watch::Sender<Wanted>,
    /// Something waits for the connection.
    traffic: Notify,
    /// The peer called: it is up.
    called: Notify,
    pub(super) counters: Counters,
    pub(super) snapshot: Current,
}

struct Outbox {
    queue: Queue,
    /// Counts connections: the stream of an older one, which HTTP/2 may still hold, gets nothing.
    connection: u64,
    /// The stream that waits for something to send.
    waker: Option<Waker>,
    probed: Option<Instant>,
    /// Once nothing waits, the stream ends.
    ending: bool,
}

/// How a session with a peer ended.
struct Ended {
    reason: String,
    /// When the peer accepted, if it did.
    accepted: Option<Instant>,
    refused: bool,
}

impl Ended {
    fn failed(reason: String) -> Self {
        Self { reason, accepted: None, refused: false }
    }
}

impl Peer {
    pub(super) fn new(core: Arc<Core>, id: u64, urls: Vec<String>) -> Arc<Self> {
        let outbox =
            Outbox { queue: Queue::default(), connection: 0, waker: None, probed: None, ending: false };
        Arc::new(Self {
            id,
            core,
            outbox: Mutex::new(outbox),
            urls: watch::Sender::new(urls),
            wanted: watch::Sender::new(Wanted::Yes),
            traffic: Notify::new(),
            called: Notify::new(),
            counters: Counters::default(),
            snapshot: Current::default(),
        })
    }

    /// Queues; never blocks beyond the queue's own lock.
    pub(super) fn send(&self, outgoing: Outgoing) {
        let (lost, connected, waker) = {
            let mut outbox = lock(&self.outbox);
            let lost = outbox.queue.push(Instant::now(), outgoing, &self.core.config);
            (lost, outbox.queue.is_connected(), outbox.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if !connected {
            self.traffic.notify_one();
        }
        if lost {
            tracing::debug!(peer = format_args!("{:x}", self.id), "messages to a peer do not fit its queue");
            self.core.inbox.unreachable(self.id);
        }
    }

    pub(super) fn set_urls(&self, urls: Vec<String>) {
        self.urls.send_if_modified(|current| {
            let changed = *current != urls;
            *current = urls;
            changed
        });
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.urls.borrow().clone()
    }

    /// The peer called, so it is worth calling it now.
    pub(super) fn called(&self) {
        if !lock(&self.outbox).queue.is_connected() {
            self.called.notify_one();
        }
    }

    /// Ends the connection; what it was sending as a snapshot too.
    pub(super) fn end(&self, wanted: Wanted) {
        lock(&self.outbox).ending = true;
        self.wanted.send_replace(wanted);
        self.snapshot.stop();
        self.wake();
    }

    pub(super) fn stats(&self) -> PeerStats {
        let queued = lock(&self.outbox).queue.bytes();
        self.counters.snapshot(queued)
    }

    /// Keeps the connection up until the peer is not wanted any more.
    pub(super) async fn run(self: Arc<Self>) {
        let mut wanted = self.wanted.subscribe();
        let mut turn = 0_usize;
        let mut backoff = self.core.config.backoff_min;
        while *wanted.borrow_and_update() == Wanted::Yes {
            let urls = self.urls();
            let url = urls.get(turn % urls.len().max(1)).cloned().unwrap_or_default();
            let ended = tokio::select! {
                ended = self.session(&url) => ended,
                // A drain lets an accepted session come to its own end.
                _ = wanted.wait_for(|wanted| {
                    *wanted == Wanted::No || (*wanted == Wanted::Drain && !self.is_connected())
                }) => break,
            };
            self.note(&url, &ended);
            if ended.accepted.is_some_and(|accepted| accepted.elapsed() >= GOOD_CONNECTION) {
                backoff = self.core.config.backoff_min;
            }
            if ended.accepted.is_none() {
                turn = turn.wrapping_add(1);
                if urls.len() > 1 && !turn.is_multiple_of(urls.len()) {
                    continue;
                }
            }
            tokio::select! {
                () = self.pause(backoff, ended.refused) => {}
                _ = wanted.wait_for(|wanted| *wanted != Wanted::Yes) => break,
            }
            backoff = (backoff * 2).min(self.core.config.backoff_max);
        }
        let _ = self.disconnect();
    }

    /// Waits before the next attempt. Traffic or a call of the peer's cut the wait short, but never below the least
    /// time between attempts; one that was refused is not repeated for traffic's sake.
    async fn pause(&self, backoff: Duration, refused: bool) {
        let least = self.core.config.backoff_min.min(backoff).mul_f64(rand::random_range(0.5..1.0));
        sleep(least).await;
        let rest = backoff.saturating_sub(least).mul_f64(rand::random_range(0.5..1.0));
        tokio::select! {
            () = sleep(rest) => {}
            () = self.called.notified() => {}
            () = self.traffic.notified(), if !refused => {}
        }
    }

    /// One connection, from dialling to its end.
    async fn session(self: &Arc<Self>, url: &str) -> Ended {
        let channel = match dial(url, &self.core.config).await {
            Ok(channel) => channel,
            Err(reason) => return Ended::failed(reason),
        };
        let mut client = PeerClient::new(channel).max_decoding_message_size(RECEIPT_BYTES_MAX);
        let connection = {
            let mut outbox = lock(&self.outbox);
            outbox.connection += 1;
            outbox.connection
        };
        let mut request = Request::new(Frames { peer: self.clone(), connection });
        self.core.stamp(request.metadata_mut(), self.id);
        let receipts = match timeout(self.core.config.handshake_timeout, client.exchange(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                let refused = handshake::is_refusal(&status);
                self.hear_refusal(&status);
                return Ended { refused, ..Ended::failed(status_text(&status)) };
            }
            Err(_) => return Ended::failed("the peer does not answer the handshake".to_owned()),
        };
        let accepted = Instant::now();
        self.connect(url);
        let reason = self.read_receipts(receipts, url).await;
        Ended { reason, accepted: Some(accepted), refused: false }
    }

    /// Reads what comes back until the stream ends; says why it did.
    async fn read_receipts(&self, mut receipts: Streaming<Receipt>, url: &str) -> String {
        let mut urls = self.urls.subscribe();
        loop {
            let receipt = tokio::select! {
                receipt = receipts.message() => receipt,
                _ = urls.wait_for(|urls| urls.iter().all(|listed| listed != url)) => {
                    return "the peer's address changed".to_owned();
                }
            };
            match receipt {
                Ok(Some(Receipt { probe })) => {
                    let now = self.core.nanos();
                    self.counters.round_trip(Duration::from_nanos(now.saturating_sub(probe)));
                }
                Ok(None) => return "the peer closed the stream".to_owned(),
                Err(status) => {
                    self.hear_refusal(&status);
                    return status_text(&status);
                }
            }
        }
    }

    /// The peer may say that this member is not of the cluster any more.
    fn hear_refusal(&self, status: &Status) {
        if let Some(how) = handshake::disowned(status) {
            self.core.inbox.disowned(self.id, how);
        }
    }

    fn is_connected(&self) -> bool {
        lock(&self.outbox).queue.is_connected()
    }

    /// The peer accepted: what waits may go.
    fn connect(&self, url: &str) {
        tracing::info!(peer = format_args!("{:x}", self.id), url, "connected to peer");
        self.counters.connected(url);
        if lock(&self.outbox).queue.connect(Instant::now(), &self.core.config) {
            self.core.inbox.unreachable(self.id);
        }
        self.core.inbox.connected(self.id);
        self.wake();
    }

    /// `true`: there was a connection.
    fn disconnect(&self) -> bool {
        let mut outbox = lock(&self.outbox);
        outbox.connection += 1;
        outbox.waker = None;
        outbox.queue.disconnect()
    }

    /// Tells of an end: the log once for each change of the reason, the member if there was a connection.
    fn note(&self, url: &str, ended: &Ended) {
        let lost = self.disconnect();
        if *self.wanted.borrow() != Wanted::Yes {
            return;
        }
        if self.counters.failed(&ended.reason) {
            let (peer, reason) = (format_args!("{:x}", self.id), &ended.reason);
            match (ended.accepted, ended.refused) {
                (Some(_), _) => tracing::warn!(peer, url, %reason, "lost the connection to a peer"),
                (None, true) => tracing::warn!(peer, url, %reason, "a peer refuses this member"),
                (None, false) => tracing::warn!(peer, url, %reason, "cannot connect to a peer"),
            }
        }
        if lost {
            self.core.inbox.unreachable(self.id);
        }
    }

    fn wake(&self) {
        let waker = lock(&self.outbox).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next frame for the given connection; `None` ends its stream.
    fn poll_frame(&self, connection: u64, context: &Context<'_>) -> Poll<Option<Frame>> {
        let mut outbox = lock(&self.outbox);
        if outbox.connection != connection {
            return Poll::Ready(None);
        }
        let frame =
            if outbox.queue.is_connected() { outbox.queue.next_frame(&self.core.config) } else { None };
        let Some(mut frame) = frame else {
            if outbox.ending {
                return Poll::Ready(None);
            }
            outbox.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let now = Instant::now();
        if outbox.probed.is_none_or(|probed| now.duration_since(probed) >= PROBE_INTERVAL) {
            outbox.probed = Some(now);
            frame.probe = self.core.nanos();
        }
        drop(outbox);
        self.counters.frames_out.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_out.fetch_add(frame.encoded_len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(frame))
    }
}

/// What waits for a peer, as the body of one request.
struct Frames {
    peer: Arc<Peer>,
    connection: u64,
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.peer.poll_frame(self.connection, context)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Barred, Disowned, Gathering, Inbox, Known, PeerIdentity, TransportConfig};
    use super::*;

    /// An inbox that nobody reads.
    struct Nobody;

    impl Inbox for Nobody {
        fn frame(&self, _: u64, _: Frame) {}
        fn gather(&self) -> Result<Box<dyn Gathering>, String> {
            Err("nobody gathers".to_owned())
        }
        fn unreachable(&self, _: u64) {}
        fn connected(&self, _: u64) {}
        fn snapshot_sent(&self, _: u64, _: bool) {}
        fn admits(&self, _: u64, _: u64) -> Result<Known, Barred> {
            Ok(Known::AsMember)
        }
        fn own_urls(&self) -> Vec<String> {
            Vec::new()
        }
        fn expected(&self, _: u64) -> u64 {
            0
        }
        fn disowned(&self, _: u64, _: Disowned) {}
    }

    fn peer() -> Arc<Peer> {
        let config = TransportConfig::default();
        let identity = PeerIdentity { cluster_id: 1, member_id: 2, incarnation: 0 };
        let core = Core { identity, inbox: Arc::new(Nobody), config, started: Instant::now() };
        Peer::new(Arc::new(core), 3, Vec::new())
    }

    /// How long a peer that backs off for long waits, at most a second.
    async fn pause(peer: &Peer, refused: bool) -> Option<Duration> {
        let start = Instant::now();
        let pause = peer.pause(Duration::from_secs(60), refused);
        timeout(Duration::from_secs(1), pause).await.ok().map(|()| start.elapsed())
    }

    #[tokio::test]
    async fn what_cuts_a_pause_short() {
        type Wake = fn(&Peer);
        let send: Wake = |peer| peer.send(Outgoing { raft: vec![Bytes::new()], ..Outgoing::default() });
        let call: Wake = |peer| peer.called();
        let nothing: Wake = |_| {};
        let table = [(nothing, false, false), (send, false, true), (send, true, false), (call, true, true)];
        for (case, (wake, refused, short)) in table.into_iter().enumerate() {
            let peer = peer();
            wake(&peer);
            let paused = pause(&peer, refused).await;
            assert_eq!(paused.is_some(), short, "case {case}");
            // Never less than the least time between attempts (with its jitter).
            assert!(
                paused.is_none_or(|paused| paused >= Duration::from_millis(25)),
                "case {case}: {paused:?}"
            );
            // A wake counts once.
            assert_eq!(pause(&peer, refused).await, None, "case {case}");
        }
    }

    #[tokio::test]
    async fn only_the_current_connection_gets_frames() {
        let peer = peer();
        let context = Context::from_waker(Waker::noop());
        let send = || peer.send(Outgoing { raft: vec![Bytes::from_static(b"m")], ..Outgoing::default() });
        lock(&peer.outbox).connection = 7;
        send();
        assert!(peer.poll_frame(7, &context).is_pending(), "nothing leaves before the peer accepts");
        peer.connect("http://peer");
        assert!(matches!(peer.poll_frame(6, &context), Poll::Ready(None)));
        assert!(matches!(peer.poll_frame(7, &context), Poll::Ready(Some(_))));
        assert!(peer.poll_frame(7, &context).is_pending());
        send();
        peer.end(Wanted::Drain);
        assert!(matches!(peer.poll_frame(7, &context), Poll::Ready(Some(_))), "what waits is still sent");
        assert!(matches!(peer.poll_frame(7, &context), Poll::Ready(None)));
    }
}
