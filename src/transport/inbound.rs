//! What peers send to this member: the gRPC service.
//!
//! A stream is heard only after its handshake. Whenever something changes that may end one (peers, a newer stream of
//! the same member, shutdown) `Hub::changes` moves and each stream looks again whether it is still wanted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use axum::extract::ConnectInfo;
use futures_util::Stream;
use futures_util::stream::unfold;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status, Streaming};

use super::dial::one_line;
use super::handshake::Caller;
use super::peer::{Peer, status_text};
use super::snapshot::Assembly;
use super::{Core, Peers, handshake, lock};
use crate::proto::peer::peer_server;
use crate::proto::peer::{Closed, Frame, Receipt, SnapshotChunk};

/// How many members' last refusals are remembered, to log each once.
const REFUSALS_MAX: usize = 64;

/// What all inbound streams share.
pub(super) struct Hub {
    core: Arc<Core>,
    pub(super) peers: ArcSwap<Peers>,
    /// Moves when streams are to look whether they are still wanted.
    changes: watch::Sender<u64>,
    stopping: AtomicBool,
    /// The number of each member's current stream.
    exchanges: Mutex<HashMap<u64, u64>>,
    /// The number of the current install: one at a time, the newest wins, so that one state at most is gathered.
    install: AtomicU64,
    numbers: AtomicU64,
    refusals: Mutex<HashMap<u64, String>>,
}

impl Hub {
    pub(super) fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self {
            core,
            peers: ArcSwap::default(),
            changes: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
            exchanges: Mutex::default(),
            install: AtomicU64::new(0),
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
        self.peers.load().get(&id).cloned()
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Why a member's stream is not wanted, if so.
    fn unwanted(&self, from: &Caller) -> Option<Status> {
        if self.stopping.load(Ordering::SeqCst) {
            return Some(Status::unavailable("this member is shutting down"));
        }
        let barred = self.core.inbox.admits(from.member, from.incarnation).err()?;
        Some(handshake::refusal(self.core.identity.member_id, from.member, &barred))
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
                Ok((caller, address))
            }
            Err(status) => {
                let from = handshake::claimed(request.metadata());
                if handshake::knows_another(request.metadata(), self.core.identity)
                    && self.peers.load().contains_key(&from)
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
        let number = self.number();
        self.install.store(number, Ordering::SeqCst);
        self.changed();
        let mut changes = self.changes.subscribe();
        changes.mark_changed();
        let mut assembly = Assembly::new(&self.core.config);
        let broken = |reason| Status::data_loss(format!("the snapshot is broken: {reason}"));
        loop {
            let chunk = tokio::select! {
                biased;
                _ = changes.changed() => {
                    if self.install.load(Ordering::SeqCst) != number {
                        return Err(Status::aborted("a newer snapshot took over"));
                    }
                    self.unwanted(from).map_or(Ok(()), Err)?;
                    continue;
                }
                chunk = timeout(self.core.config.snapshot_stall, chunks.message()) => chunk,
            };
            match chunk {
                Ok(Ok(Some(chunk))) => {
                    assembly.add(chunk).map_err(broken)?;
                    crash_point!("snapshot.receiving");
                }
                Ok(Ok(None)) => break,
                Ok(Err(status)) => return Err(status),
                Err(_) => return Err(Status::deadline_exceeded("the snapshot makes no progress")),
            }
        }
        let (raft, records) = assembly.finish().map_err(broken)?;
        crash_point!("snapshot.received");
        self.core.inbox.snapshot(from.member, raft, records);
        Ok(())
    }
}
