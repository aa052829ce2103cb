//! Sending a snapshot to a peer, over as many connections as it takes.
//!
//! Each is one of its own, so that the exchange is not held up. The sender never holds more than a few chunks: records are
//! made on a blocking thread only as fast as the peer takes them. When a connection breaks, the peer is asked on the next
//! how much it has, and the rest is sent: the records are made once more from the first on, which costs processor time
//! and no memory. A peer that took nothing yet, or takes nothing for too long, is given up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::dial::dial;
use super::handshake::status_text;
use super::peer::Peer;
use super::snapshot::{Title, cut};
use super::{Core, Source, lock};
use crate::proto::peer::peer_client::PeerClient;
use crate::proto::peer::{SnapshotHeld, SnapshotOffer};

/// Chunks between the thread that encodes records and the connection.
const CHUNKS_WAITING: usize = 4;

/// The delivery that is under way to a peer, if one is.
#[derive(Default)]
pub(super) struct Current(Mutex<Option<AbortHandle>>);

impl Current {
    /// This one instead of the one before.
    pub(super) fn begin(&self, delivery: impl FnOnce() -> AbortHandle) {
        let mut current = lock(&self.0);
        if let Some(older) = current.take() {
            older.abort();
        }
        *current = Some(delivery());
    }

    pub(super) fn stop(&self) {
        if let Some(delivery) = lock(&self.0).take() {
            delivery.abort();
        }
    }
}

/// A snapshot on its way to one peer.
pub(super) struct Delivery {
    core: Arc<Core>,
    peer: Arc<Peer>,
    title: Title,
    source: Source,
    /// So many records the peer had when it was asked last.
    held: AtomicU64,
    /// Chunks that connections took, and whether the last of the present one was among them.
    taken: Arc<AtomicU64>,
    all_taken: Arc<AtomicBool>,
}

/// Why a connection did not bring it to its end.
enum Failed {
    /// The peer said so: another connection would come to the same.
    ForGood(String),
    Broken(String),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let text = status_text(&status);
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal => Self::Broken(text),
            _ => Self::ForGood(text),
        }
    }
}

impl Delivery {
    pub(super) fn new(core: Arc<Core>, peer: Arc<Peer>, raft: bytes::Bytes, source: Source) -> Self {
        let title = Title { snapshot: rand::random(), raft };
        let (held, taken, all_taken) = Default::default();
        Self { core, peer, title, source, held, taken, all_taken }
    }

    /// Sends all of it; an error says why it was given up. One that is given up in its midst is told of after a pause:
    /// another will follow, perhaps to the same end.
    pub(super) async fn run(self) -> Result<(), String> {
        let sent = self.send().await;
        if sent.is_err() && self.taken.load(Ordering::Relaxed) > 0 {
            sleep(self.core.config.backoff_max).await;
        }
        sent
    }

    async fn send(&self) -> Result<(), String> {
        let config = &self.core.config;
        let mut backoff = config.backoff_min;
        let mut furthest = 0;
        let mut failing_since = None;
        loop {
            let reason = match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(Failed::ForGood(reason)) => return Err(reason),
                Err(Failed::Broken(reason)) => reason,
            };
            // What a connection takes is no progress yet: the peer may lose it each time.
            let held = self.held.load(Ordering::Relaxed);
            if held > furthest {
                (furthest, failing_since) = (held, None);
                backoff = config.backoff_min;
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if self.taken.load(Ordering::Relaxed) == 0 || since.elapsed() >= config.snapshot_stall {
                return Err(reason);
            }
            self.log_break(&reason);
            sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            backoff = (backoff * 2).min(config.backoff_max);
        }
    }

    fn log_break(&self, reason: &str) {
        let peer = format_args!("{:x}", self.peer.id);
        tracing::info!(peer, reason, "the connection of a snapshot broke: going on with what is left of it");
    }

    async fn attempt(&self) -> Result<(), Failed> {
        let config = &self.core.config;
        let mut client = PeerClient::new(self.dial().await.map_err(Failed::Broken)?);
        let mut offer = Request::new(SnapshotOffer { snapshot: self.title.snapshot });
        self.core.stamp(offer.metadata_mut(), self.peer.id);
        let held = timeout(config.handshake_timeout, client.offer(offer)).await;
        let held = held.map_err(|_| Failed::Broken("the peer does not answer the offer".to_owned()))?;
        let SnapshotHeld { records: skip, complete } = held?.into_inner();
        self.held.store(skip, Ordering::Relaxed);
        if complete {
            return Ok(());
        }
        let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING);
        let (title, records, chunk_bytes) = (self.title.clone(), (self.source)(), config.chunk_bytes);
        tokio::task::spawn_blocking(move || {
            cut(title, records, skip, chunk_bytes, |chunk| chunks.blocking_send(chunk).is_ok());
        });
        self.all_taken.store(false, Ordering::Relaxed);
        let (taken, all_taken) = (self.taken.clone(), self.all_taken.clone());
        let counted = ReceiverStream::new(waiting).inspect(move |_| {
            taken.fetch_add(1, Ordering::Relaxed);
        });
        let body = counted.chain(poll_fn(move |_| {
            all_taken.store(true, Ordering::Relaxed);
            Poll::Ready(None)
        }));
        let mut request = Request::new(body);
        self.core.stamp(request.metadata_mut(), self.peer.id);
        tokio::select! {
            answer = client.install(request) => Ok(answer.map(|_| ())?),
            () = self.stalled() => Err(Failed::ForGood("the peer takes no more of it".to_owned())),
        }
    }

    async fn dial(&self) -> Result<Channel, String> {
        let mut failure = "the peer has no address".to_owned();
        for url in self.peer.urls() {
            match dial(&url, &self.core.config).await {
                Ok(channel) => return Ok(channel),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Ends when nothing was taken for a whole period, or the peer has had all of it for too long.
    async fn stalled(&self) {
        let mut seen = None;
        loop {
            if self.all_taken.load(Ordering::Relaxed) {
                return sleep(self.core.config.snapshot_use).await;
            }
            let now = self.taken.load(Ordering::Relaxed);
            if seen == Some(now) {
                return;
            }
            seen = Some(now);
            sleep(self.core.config.snapshot_stall).await;
        }
    }
}
