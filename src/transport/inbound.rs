//! What peers send to this member: the gRPC service.
//!
//! A stream is heard only after its handshake. Whenever something changes that may end one (peers, a newer stream of
//! the same member, shutdown) `Hub::changes` moves and each stream looks again whether it is still wanted. One of a member
//! that is only known by what it says is wanted as long as it is a guest, so that nobody is heard who is not answered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::extract::ConnectInfo;
use futures_util::Stream;
use futures_util::stream::unfold;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status, Streaming};

use super::arrivals::Arrivals;
use super::dial::one_line;
use super::handshake::Caller;
use super::handshake::status_text;
use super::peer::Peer;
use super::peers::Peers;
use super::{Core, Known, handshake, lock};
use crate::proto::peer::peer_server;
use crate::proto::peer::{Closed, Frame, Receipt, SnapshotChunk, SnapshotHeld, SnapshotOffer};

/// How many members' last refusals are remembered, to log each once.
const REFUSALS_MAX: usize = 64;

/// What all inbound streams share.
pub(super) struct Hub {
    core: Arc<Core>,
    peers: Arc<Peers>,
    /// Moves when streams are to look whether they are still wanted.
    changes: watch::Sender<u64>,
    stopping: AtomicBool,
    /// The number of each member's current stream.
    exchanges: Mutex<HashMap<u64, u64>>,
    arrivals: Arc<Arrivals>,
    numbers: AtomicU64,
    refusals: Mutex<HashMap<u64, String>>,
}

impl Hub {
    pub(super) fn new(core: Arc<Core>, peers: Arc<Peers>) -> Arc<Self> {
        let arrivals = Arrivals::new(core.clone());
        Arc::new(Self {
            core,
            peers,
            arrivals,
            changes: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
            exchanges: Mutex::default(),
            numbers: AtomicU64::new(1),
            refusals: Mutex::default(),
        })
    }

    /// Streams are to look whether they are still wanted.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Ends every stream and accepts no more.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.changed();
    }

    fn peer(&self, id: u64) -> Option<Arc<Peer>> {
        self.peers.listed().get(id).cloned()
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Why a member's stream is not wanted, if so.
    fn unwanted(&self, from: &Caller) -> Option<Status> {
        if self.stopping.load(Ordering::SeqCst) {
            return Some(Status::unavailable("this member is shutting down"));
        }
        match self.core.inbox.admits(from.member, from.incarnation) {
            Ok(Known::AsMember) => None,
            Ok(Known::BySelf) if self.peer(from.member).is_some() => None,
            Ok(Known::BySelf) => {
                Some(Status::unavailable("too many call that are not known here; call again"))
            }
            Err(barred) => Some(handshake::refusal(self.core.identity.member_id, from.member, &barred)),
        }
    }

    /// The member that a request is from, once it is checked, and where it is.
    fn greet<T>(&self, request: &Request<T>) -> Result<(Caller, SocketAddr), Status> {
        let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        let address = address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        if self.stopping.load(Ordering::SeqCst) {
            return Err(Status::unavailable("this member is shutting down"));
        }
        let admits = |from, incarnation| self.core.inbox.admits(from, incarnation);
        match handshake::check(request.metadata(), self.core.identity, admits) {
            Ok(caller) => {
                lock(&self.refusals).remove(&caller.member);
                if caller.known == Known::BySelf {
                    self.peers.welcome(caller.member, caller.urls.clone());
                    self.changed();
                }
                Ok((caller, address))
            }
            Err(status) => {
                let from = handshake::claimed(request.metadata());
                if handshake::knows_another(request.metadata(), self.core.identity)
                    && self.peers.listed().member(from).is_some()
                {
                    self.core.inbox.disowned(from, super::Disowned::Wiped);
                }
                self.log_refusal(request, address, &status);
                Err(status)
            }
        }
    }

    fn log_refusal<T>(&self, request: &Request<T>, address: SocketAddr, status: &Status) {
        let reason = one_line(status.message());
        let from = handshake::claimed(request.metadata());
        let mut refusals = lock(&self.refusals);
        if refusals.get(&from) == Some(&reason) {
            return;
        }
        if refusals.len() >= REFUSALS_MAX {
            refusals.clear();
        }
        tracing::warn!(%address, %reason, "refused a peer's stream");
        refusals.insert(from, reason);
    }
}

/// The service that `proto/peer.proto` defines.
#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Hub>);

#[tonic::async_trait]
impl peer_server::Peer for Service {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Receipt, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (caller, address) = self.0.greet(&request)?;
        let exchange = Exchange::begin(self.0.clone(), caller, address, request.into_inner());
        let receipts = unfold(Some(exchange), |exchange| async {
            let mut exchange = exchange?;
            match exchange.next_receipt().await {
                Ok(Some(receipt)) => Some((Ok(receipt), Some(exchange))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(receipts)))
    }

    async fn offer(&self, request: Request<SnapshotOffer>) -> Result<Response<SnapshotHeld>, Status> {
        let (caller, _) = self.0.greet(&request)?;
        self.0.arrivals.begin();
        self.0.changed();
        let (arrivals, snapshot) = (self.0.arrivals.clone(), request.into_inner().snapshot);
        let held = on_a_thread(move || arrivals.held(caller.member, snapshot)).await?;
        Ok(Response::new(held))
    }

    async fn install(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<Closed>, Status> {
        let (caller, address) = self.0.greet(&request)?;
        let from = caller.member;
        let received = self.0.receive_snapshot(&caller, request.into_inner()).await;
        if let Err(status) = &received {
            let reason = status_text(status);
            tracing::warn!(peer = format_args!("{from:x}"), %address, %reason, "a snapshot did not arrive");
        }
        received.map(|()| Response::new(Closed {}))
    }
}

/// A peer's stream of frames. Driven by HTTP/2 asking for receipts; dropped when the connection is gone.
struct Exchange {
    hub: Arc<Hub>,
    caller: Caller,
    from: u64,
    number: u64,
    address: SocketAddr,
    frames: Streaming<Frame>,
    changes: watch::Receiver<u64>,
    /// Whose counters count this stream.
    counted: Option<Arc<Peer>>,
}

impl Exchange {
    fn begin(hub: Arc<Hub>, caller: Caller, address: SocketAddr, frames: Streaming<Frame>) -> Self {
        let (number, from) = (hub.number(), caller.member);
        lock(&hub.exchanges).insert(from, number);
        // An older stream of the same member ends now.
        hub.changed();
        let mut changes = hub.changes.subscribe();
        // What happened between the check and here is looked at, too.
        changes.mark_changed();
        Self { hub, caller, from, number, address, frames, changes, counted: None }
    }

    /// Delivers frames until one wants a receipt. `None`: the stream is over.
    async fn next_receipt(&mut self) -> Result<Option<Receipt>, Status> {
        loop {
            tokio::select! {
                biased;
                _ = self.changes.changed() => self.look_again()?,
                frame = self.frames.message() => match frame {
                    Ok(Some(frame)) => {
                        let probe = frame.probe;
                        self.deliver(frame);
                        if probe != 0 {
                            return Ok(Some(Receipt { probe }));
                        }
                    }
                    Ok(None) => return Ok(None),
                    Err(status) => return Err(self.broken(status)),
                },
            }
        }
    }

    fn look_again(&mut self) -> Result<(), Status> {
        if lock(&self.hub.exchanges).get(&self.from) != Some(&self.number) {
            return Err(Status::aborted("a newer stream of the same member took over"));
        }
        self.hub.unwanted(&self.caller).map_or(Ok(()), Err)?;
        let peer = self.hub.peer(self.from);
        if peer.as_ref().map(Arc::as_ptr) != self.counted.as_ref().map(Arc::as_ptr) {
            self.count_for(peer);
        }
        Ok(())
    }

    /// Counts the stream for a peer, which was perhaps not listed yet when the stream began, and lets it be called.
    fn count_for(&mut self, peer: Option<Arc<Peer>>) {
        if let Some(peer) = &peer {
            peer.counters.inbound_begins(self.caller.version.clone());
            peer.called();
        }
        if let Some(before) = std::mem::replace(&mut self.counted, peer) {
            before.counters.inbound_ends();
        }
    }

    fn deliver(&self, frame: Frame) {
        if let Some(peer) = &self.counted {
            peer.counters.frames_in.fetch_add(1, Ordering::Relaxed);
            peer.counters.bytes_in.fetch_add(frame.encoded_len() as u64, Ordering::Relaxed);
        }
        self.hub.core.inbox.frame(self.from, frame);
    }

    /// Tells a peer that sends what is no frame from one whose connection is gone.
    fn broken(&self, status: Status) -> Status {
        let reason = status_text(&status);
        let (peer, address) = (format_args!("{:x}", self.from), self.address);
        if matches!(status.code(), Code::Cancelled | Code::Unavailable | Code::Unknown) {
            tracing::debug!(peer, %address, %reason, "a peer's stream ended");
        } else {
            tracing::warn!(peer, %address, %reason, "closed a peer's stream: what it sends is no frame");
        }
        status
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut exchanges = lock(&self.hub.exchanges);
        if exchanges.get(&self.from) == Some(&self.number) {
            exchanges.remove(&self.from);
        }
        if let Some(peer) = &self.counted {
            peer.counters.inbound_ends();
        }
    }
}

impl Hub {
    async fn receive_snapshot(
        &self,
        from: &Caller,
        mut chunks: Streaming<SnapshotChunk>,
    ) -> Result<(), Status> {
        let number = self.arrivals.begin();
        self.changed();
        let mut changes = self.changes.subscribe();
        changes.mark_changed();
        let mut snapshot = None;
        loop {
            let chunk = tokio::select! {
                biased;
                _ = changes.changed() => {
                    self.arrivals.check_current(number)?;
                    self.unwanted(from).map_or(Ok(()), Err)?;
                    continue;
                }
                chunk = timeout(self.core.config.snapshot_stall, chunks.message()) => chunk,
            };
            let (arrivals, from) = (self.arrivals.clone(), from.member);
            match chunk {
                Ok(Ok(Some(chunk))) => {
                    snapshot = Some((from, chunk.snapshot));
                    // The next chunk is not asked for before this one is kept: that holds up a sender that is faster.
                    if on_a_thread(move || arrivals.add(number, from, chunk)).await? {
                        crash_point!("snapshot.received");
                        return Ok(());
                    }
                    crash_point!("snapshot.receiving");
                }
                Ok(Ok(None)) => {
                    if let Some(id) = snapshot {
                        on_a_thread(move || {
                            arrivals.discard(id);
                            Ok(())
                        })
                        .await?;
                    }
                    return Err(Status::data_loss("the snapshot is broken: it ends before its tail"));
                }
                Ok(Err(status)) => return Err(status),
                Err(_) => return Err(Status::deadline_exceeded("the snapshot makes no progress")),
            }
        }
    }
}

/// Does what blocks.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::aborted(format!("a thread ended: {error}"))))
}
