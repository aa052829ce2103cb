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

mod config;
mod dial;
mod handshake;
mod inbound;
mod peer;
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
use inbound::{Hub, Service};
use peer::{Peer, Wanted};
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

/// Why a member may not speak to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barred {
    /// In words, for both sides' logs.
    pub reason: String,
    /// Whether it is to be told that it does not belong here any more.
    pub disowned: Option<Disowned>,
}

/// What the transport tells the member. Called on the runtime's threads: must not block.
pub trait Inbox: Send + Sync + 'static {
    /// A frame arrived.
    fn frame(&self, from: u64, frame: Frame);
    /// A whole snapshot arrived: the encoded raft message and the records, without the tail that verified them.
    fn snapshot(&self, from: u64, raft: Bytes, records: Vec<Record>);
    /// Messages to this peer were lost. Called once for each connection that broke, each overflow of the queue, and
    /// each time without a connection that lasts too long for what waits.
    fn unreachable(&self, peer: u64);
    /// The peer accepted a new connection: what was sent before may be lost.
    fn connected(&self, peer: u64);
    /// What became of the last snapshot that was given to [`Transport::send_snapshot`] for this peer.
    fn snapshot_sent(&self, peer: u64, ok: bool);
    /// Whether a member, with the data directory of this name (0: it does not say), may speak to this one; `Err` says
    /// why not. Asked before a stream is heard, and again after each [`Transport::set_peers`].
    fn admits(&self, member: u64, incarnation: u64) -> Result<(), Barred>;
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

type Peers = BTreeMap<u64, Arc<Peer>>;

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
    }

    /// Nanoseconds since the transport started, at least 1.
    fn nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

struct Inner {
    core: Arc<Core>,
    hub: Arc<Hub>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    /// Held while the set of peers changes. `None`: shut down.
    tasks: Mutex<Option<Tasks>>,
}

#[derive(Default)]
struct Tasks {
    peers: JoinSet<()>,
    listeners: JoinSet<()>,
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
        let hub = Hub::new(core.clone());
        let service = PeerServer::new(Service(hub.clone()))
            .max_decoding_message_size(config.message_bytes.saturating_add(MESSAGE_OVERHEAD));
        let router = extra.route_service("/quorate.peer.Peer/{*method}", service);
        let (stop, stopped) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(config.connections));
        let port = Port { router, config, permits, stop: stopped };
        let mut tasks = Tasks::default();
        for listener in listeners {
            tasks.listeners.spawn(port.clone().serve(listener));
        }
        let tasks = Mutex::new(Some(tasks));
        Self(Arc::new(Inner { core, hub, runtime: Handle::current(), stop, tasks }))
    }

    /// Says who the peers are and where: `http://host:port`, several are tried in turn. Streams to and from members
    /// that are no longer wanted are closed. This member itself is left out.
    pub fn set_peers(&self, peers: BTreeMap<u64, Vec<String>>) {
        let inner = &self.0;
        let mut tasks = lock(&inner.tasks);
        let Some(tasks) = tasks.as_mut() else { return };
        while tasks.peers.try_join_next().is_some() {}
        let before = inner.hub.peers.load_full();
        let mut after = Peers::new();
        for (id, urls) in peers {
            if id == inner.core.identity.member_id {
                continue;
            }
            let peer = if let Some(peer) = before.get(&id) {
                peer.set_urls(urls);
                peer.clone()
            } else {
                let peer = Peer::new(inner.core.clone(), id, urls);
                tasks.peers.spawn_on(peer.clone().run(), &inner.runtime);
                peer
            };
            after.insert(id, peer);
        }
        let removed = before.iter().filter(|(id, _)| !after.contains_key(id));
        removed.for_each(|(_, peer)| peer.end(Wanted::No));
        inner.hub.peers.store(Arc::new(after));
        inner.hub.changed();
    }

    /// Queues for a peer; never blocks. What waits is merged, and bounded. For one that is no peer it does nothing.
    pub fn send(&self, to: u64, outgoing: Outgoing) {
        if let Some(peer) = self.0.hub.peers.load().get(&to) {
            peer.send(outgoing);
        }
    }

    /// Sends a snapshot: the encoded raft message that announces it, and its records without a tail. The records are
    /// pulled on a blocking thread as fast as the peer takes them. One at a time for each peer: a newer one replaces
    /// one that is on its way, and `snapshot_sent` then tells of the newer one only.
    pub fn send_snapshot(&self, to: u64, raft: Bytes, records: Box<dyn Iterator<Item = Record> + Send>) {
        let core = self.0.core.clone();
        let Some(peer) = self.0.hub.peers.load().get(&to).cloned() else {
            core.inbox.snapshot_sent(to, false);
            return;
        };
        let mut current = lock(&peer.snapshot);
        if let Some(older) = current.take() {
            older.abort();
        }
        let task = self.0.runtime.spawn({
            let peer = peer.clone();
            async move {
                let sent = snapshot::send(core.clone(), peer, raft, records).await;
                if let Err(reason) = &sent {
                    tracing::warn!(peer = format_args!("{to:x}"), %reason, "a snapshot was not delivered");
                }
                crash_point!("snapshot.sent");
                core.inbox.snapshot_sent(to, sent.is_ok());
            }
        });
        *current = Some(task.abort_handle());
    }

    /// Traffic with each peer.
    pub fn peer_stats(&self) -> BTreeMap<u64, PeerStats> {
        self.0.hub.peers.load().iter().map(|(id, peer)| (*id, peer.stats())).collect()
    }

    /// Sends what is queued, ends all streams and connections, and frees the ports; takes no longer than the
    /// configured deadline, after which what is left is cut off.
    pub async fn shutdown(self) {
        let Some(mut tasks) = lock(&self.0.tasks).take() else { return };
        let peers = self.0.hub.peers.swap(Arc::default());
        let half = self.0.core.config.shutdown_deadline / 2;
        peers.values().for_each(|peer| peer.end(Wanted::Drain));
        let drained = timeout(half, async { while tasks.peers.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::info!("not everything for the peers could be sent before the end");
        }
        peers.values().for_each(|peer| peer.end(Wanted::No));
        self.0.hub.stop();
        self.0.stop.send_replace(true);
        let closed = timeout(half, async { while tasks.listeners.join_next().await.is_some() {} }).await;
        if closed.is_err() {
            tracing::info!("cutting off connections to the peer port");
        }
        tasks.peers.shutdown().await;
        tasks.listeners.shutdown().await;
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
        self.hub.peers.swap(Arc::default()).values().for_each(|peer| peer.end(Wanted::No));
        self.hub.stop();
    }
}

/// Locks what is consistent after every statement, so a panic elsewhere does not poison it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
