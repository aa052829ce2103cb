//! Members to members, on the peer port (tonic).
//!
//! Each member opens one [`Exchange`](crate::proto::peer::peer_client::PeerClient::exchange) to each peer and sends its
//! frames on it; what the peer has to say comes on the peer's own. Snapshots travel on connections of their own. The
//! same port answers plain HTTP/1.1 with the routes that the caller adds.
//!
//! Invariants:
//! - Frames of one peer are delivered in the order in which they were given to [`Transport::send`], and only after both
//!   sides agreed on the cluster and on who they are.
//! - Nothing blocks the caller, and everything that waits is bounded. What does not fit is lost, and the loss is told.
//! - Nothing that comes over a socket panics, or disturbs other connections.
//!
//! What it does not do: it guarantees no delivery (raft and the sessions of `replica` repeat what is lost), it does not
//! look into raft's messages, and it neither encrypts nor authenticates (`dial` and `serve` are where TLS will go).
//!
//! A message that is larger than a frame, and what HTTP/2 and the kernel have taken already, still hold up a heartbeat
//! behind them: up to about 2 MiB on a link that is slower than its traffic. Frames are kept small for that reason.

mod arrivals;
mod config;
mod deliver;
mod dial;
mod handshake;
mod inbound;
mod peer;
mod peers;
mod queue;
mod serve;
mod snapshot;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use config::TransportConfig;
pub use stats::{PeerStats, RoundTrips};

use crate::proto::command::Batch;
use crate::proto::peer::peer_server::PeerServer;
use crate::proto::peer::{Beacon, Frame};
use crate::proto::state::Record;
use deliver::Delivery;
use inbound::{Hub, Service};
use peer::Wanted;
use peers::Peers;
use serve::Port;

/// Room for what a frame or chunk holds besides its largest message.
const MESSAGE_OVERHEAD: usize = 4096;

/// Who this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster, the same for all its members.
    pub cluster_id: u64,
    /// This member.
    pub member_id: u64,
    /// Names its data directory; 0: it has no name.
    pub incarnation: u64,
}

/// Why a member does not belong to its cluster any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disowned {
    /// It was removed.
    Removed,
    /// It comes with another data directory than before, without what it acknowledged.
    Wiped,
}

/// How a member is known that may speak to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// As a member of the cluster.
    AsMember,
    /// Only by what it says of itself. It is answered at the URLs that it names, as one of a few guests.
    BySelf,
}

/// Why a member may not speak to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barred {
    /// In words, for both sides' logs.
    pub reason: String,
    /// Whether it is to be told that it does not belong here any more.
    pub disowned: Option<Disowned>,
}

/// The records of a snapshot, as they are made.
pub type Records = Box<dyn Iterator<Item = Record> + Send>;

/// Makes the records of one snapshot, without a tail: the same each time, as often as a connection breaks.
pub type Source = Box<dyn Fn() -> Records + Send + Sync>;

/// Where one snapshot that arrives is gathered; dropped if it is not to be whole any more. Its calls block: they are made
/// on threads for that.
pub trait Gathering: Send {
    /// Its next records, encoded.
    ///
    /// # Errors
    /// They cannot be kept; why. The snapshot is given up.
    fn add(&mut self, records: &[Bytes]) -> Result<(), String>;
    /// All of it has come and is as it was sent: it is to be made use of. With the encoded raft message that announces it.
    ///
    /// # Errors
    /// It is of no use; why.
    fn complete(self: Box<Self>, from: u64, raft: Bytes) -> Result<(), String>;
}

/// What the transport tells the member. Called on the runtime's threads: must not block.
pub trait Inbox: Send + Sync + 'static {
    /// A frame arrived.
    fn frame(&self, from: u64, frame: Frame);
    /// A snapshot begins to arrive. Called on a thread that may block.
    ///
    /// # Errors
    /// It cannot be gathered; why.
    fn gather(&self) -> Result<Box<dyn Gathering>, String>;
    /// Messages to this peer were lost. Called once for each connection that broke, each overflow of the queue, and
    /// each time without a connection that lasts too long for what waits.
    fn unreachable(&self, peer: u64);
    /// The peer accepted a new connection: what was sent before may be lost.
    fn connected(&self, peer: u64);
    /// What became of the last snapshot that was given to [`Transport::send_snapshot`] for this peer.
    fn snapshot_sent(&self, peer: u64, ok: bool);
    /// Whether a member, with the data directory of this name (0: it does not say), may speak to this one; `Err` says
    /// why not. Asked before a stream is heard, and again after each [`Transport::set_peers`].
    fn admits(&self, member: u64, incarnation: u64) -> Result<Known, Barred>;
    /// Where other members reach this one, as far as the cluster knows: for those that do not know it yet.
    fn own_urls(&self) -> Vec<String>;
    /// The name of the data directory that a peer is known to have; 0: not known.
    fn expected(&self, peer: u64) -> u64;
    /// A peer says that this member does not belong to the cluster any more.
    fn disowned(&self, by: u64, how: Disowned);
}

/// What is to be sent to a peer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outgoing {
    /// Encoded raft messages.
    pub raft: Vec<Bytes>,
    /// Requests for the leader.
    pub forwarded: Vec<Batch>,
    /// A leader's clock and digest; a later one replaces one that waits.
    pub beacon: Option<Beacon>,
}

/// Members to members. Clones share one transport; it ends with `shutdown`, or abruptly with the last clone.
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

/// What every part needs to know.
struct Core {
    identity: PeerIdentity,
    inbox: Arc<dyn Inbox>,
    config: TransportConfig,
    started: Instant,
}

impl Core {
    /// Says in a request's metadata who sends it to whom.
    fn stamp(&self, metadata: &mut tonic::metadata::MetadataMap, to: u64) {
        handshake::stamp(metadata, self.identity, to, self.inbox.expected(to));
        handshake::stamp_urls(metadata, &self.inbox.own_urls());
    }

    /// Nanoseconds since the transport started, at least 1.
    fn nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

struct Inner {
    core: Arc<Core>,
    peers: Arc<Peers>,
    hub: Arc<Hub>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    /// `None`: shut down.
    listeners: Mutex<Option<JoinSet<()>>>,
}

impl Transport {
    /// Serves `listeners` until `shutdown`, with the routes of `extra` beside the members' protocol.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(
        identity: PeerIdentity,
        listeners: Vec<TcpListener>,
        inbox: Arc<dyn Inbox>,
        extra: Router,
        config: TransportConfig,
    ) -> Self {
        let core = Arc::new(Core { identity, inbox, config: config.clone(), started: Instant::now() });
        let peers = Arc::new(Peers::new(core.clone(), Handle::current()));
        let hub = Hub::new(core.clone(), peers.clone());
        let service = PeerServer::new(Service(hub.clone()))
            .max_decoding_message_size(config.message_bytes.saturating_add(MESSAGE_OVERHEAD));
        let router = extra.route_service("/quorate.peer.Peer/{*method}", service);
        let (stop, stopped) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(config.connections));
        let port = Port { router, config, permits, stop: stopped };
        let mut serving = JoinSet::new();
        for listener in listeners {
            serving.spawn(port.clone().serve(listener));
        }
        let listeners = Mutex::new(Some(serving));
        Self(Arc::new(Inner { core, peers, hub, runtime: Handle::current(), stop, listeners }))
    }

    /// Says who the peers are and where: `http://host:port`, several are tried in turn. Streams to and from members
    /// that are no longer wanted are closed. This member itself is left out.
    pub fn set_peers(&self, peers: BTreeMap<u64, Vec<String>>) {
        self.0.peers.set(peers);
        self.0.hub.changed();
    }

    /// Queues for a peer; never blocks. What waits is merged, and bounded. For one that is no peer it does nothing.
    pub fn send(&self, to: u64, outgoing: Outgoing) {
        if let Some(peer) = self.0.peers.listed().get(to) {
            peer.send(outgoing);
        }
    }

    /// Sends a snapshot: the encoded raft message that announces it, and its records. They are pulled on a blocking thread
    /// as fast as the peer takes them; where a connection breaks, what is left goes on the next. One at a time for each
    /// peer: a newer one replaces one that is on its way, and `snapshot_sent` then tells of the newer one only.
    pub fn send_snapshot(&self, to: u64, raft: Bytes, source: Source) {
        let core = self.0.core.clone();
        let Some(peer) = self.0.peers.listed().get(to).cloned() else {
            core.inbox.snapshot_sent(to, false);
            return;
        };
        peer.snapshot.begin(|| {
            let peer = peer.clone();
            let delivery = async move {
                let sent = Delivery::new(core.clone(), peer, raft, source).run().await;
                if let Err(reason) = &sent {
                    tracing::warn!(peer = format_args!("{to:x}"), %reason, "a snapshot was not delivered");
                }
                crash_point!("snapshot.sent");
                core.inbox.snapshot_sent(to, sent.is_ok());
            };
            self.0.runtime.spawn(delivery).abort_handle()
        });
    }

    /// Gives up the snapshots that are on their way: it is not this member's turn any more to send them. Nothing is told of
    /// them.
    pub fn stop_snapshots(&self) {
        for peer in self.0.peers.listed().everybody() {
            peer.snapshot.stop();
        }
    }

    /// Traffic with each peer that was named.
    pub fn peer_stats(&self) -> BTreeMap<u64, PeerStats> {
        self.0.peers.listed().members().map(|peer| (peer.id, peer.stats())).collect()
    }

    /// Sends what is queued, ends all streams and connections, and frees the ports; takes no longer than the
    /// configured deadline, after which what is left is cut off.
    pub async fn shutdown(self) {
        let Some(mut listeners) = lock(&self.0.listeners).take() else { return };
        let Some((peers, mut sending)) = self.0.peers.close() else { return };
        let half = self.0.core.config.shutdown_deadline / 2;
        for peer in &peers {
            peer.end(Wanted::Drain);
        }
        let drained = timeout(half, async { while sending.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::info!("not everything for the peers could be sent before the end");
        }
        for peer in &peers {
            peer.end(Wanted::No);
        }
        self.0.hub.stop();
        self.0.stop.send_replace(true);
        let closed = timeout(half, async { while listeners.join_next().await.is_some() {} }).await;
        if closed.is_err() {
            tracing::info!("cutting off connections to the peer port");
        }
        sending.shutdown().await;
        listeners.shutdown().await;
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Transport").field("identity", &self.0.core.identity).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The tasks of peers and listeners end with their sets; streams that HTTP/2 still holds are told.
        if let Some((peers, _tasks)) = self.peers.close() {
            for peer in &peers {
                peer.end(Wanted::No);
            }
        }
        self.hub.stop();
    }
}

/// Locks what is consistent after every statement, so a panic elsewhere does not poison it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
