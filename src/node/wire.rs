//! Between the core's plain types and the peer protocol.

use super::StartError;
use super::driver::DriverInput;
use super::incoming::Entrance;
use super::traffic::AppendCounter;
use crate::http::backend::{PeerTraffic, Traffic};
use crate::proto::peer;
use crate::replica::{Input, Outgoing, Refused, Roster, State};
use crate::transport::{self, Barred, Disowned, Gathering, Inbox, Known, PeerStats, RoundTrips, Transport};
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::{self, error::TrySendError};

/// The way to the other members, for the threads of this one. Empty until the transport has started.
#[derive(Clone, Default)]
pub(super) struct Peers {
    transport: Arc<ArcSwapOption<Transport>>,
    /// Who they are and where, as was said last: perhaps before the transport has started. Held while it is passed on.
    named: Arc<Mutex<BTreeMap<u64, Vec<String>>>>,
    sent: Arc<AppendCounter>,
    received: Arc<AppendCounter>,
}

impl Peers {
    pub(super) fn set(&self, transport: Transport) {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        transport.set_peers(named.clone());
        self.transport.store(Some(Arc::new(transport)));
    }

    pub(super) fn take(&self) -> Option<Arc<Transport>> {
        self.transport.swap(None)
    }

    pub(super) fn send(&self, to: u64, outgoing: Outgoing) {
        let Some(transport) = &*self.transport.load() else { return };
        let encoded = |message| {
            let bytes = encode(message)?;
            if message.msg_type == MessageType::MsgAppend {
                self.sent.add(bytes.len());
            }
            Some(bytes)
        };
        let raft = outgoing.messages.iter().filter_map(encoded).collect();
        let outgoing = transport::Outgoing { raft, forwarded: outgoing.forwarded, beacon: outgoing.beacon };
        transport.send(to, outgoing);
    }

    /// Sends each message to the peer it names.
    pub(super) fn send_messages(&self, messages: Vec<Message>) {
        let mut by_peer = BTreeMap::<u64, Outgoing>::new();
        for message in messages {
            by_peer.entry(message.to).or_default().messages.push(message);
        }
        for (to, outgoing) in by_peer {
            self.send(to, outgoing);
        }
    }

    pub(super) fn send_snapshot(&self, to: u64, message: &Message, state: State) {
        let Some(transport) = &*self.transport.load() else { return };
        let Some(message) = encode(message) else { return };
        // A clone costs nothing.
        transport.send_snapshot(to, message, Box::new(move || Box::new(state.clone().into_records())));
    }

    /// This member does not lead any more.
    pub(super) fn stop_snapshots(&self) {
        if let Some(transport) = &*self.transport.load() {
            transport.stop_snapshots();
        }
    }

    /// How many peers there is a connection to.
    pub(super) fn connected(&self) -> usize {
        let transport = self.transport.load();
        transport
            .as_ref()
            .map_or(0, |t| t.peer_stats().values().filter(|s| s.connected_since.is_some()).count())
    }

    /// What was exchanged with the peers.
    pub(super) fn traffic(&self) -> Traffic {
        let transport = self.transport.load();
        let stats = transport.as_ref().map(|transport| transport.peer_stats()).unwrap_or_default();
        Traffic {
            peers: stats.into_iter().map(|(id, stats)| (id, traffic_of(&stats))).collect(),
            received: self.received.appends(),
            sent: self.sent.appends(),
        }
    }

    /// Where messages with log entries are counted when they come.
    pub(super) fn received(&self) -> Arc<AppendCounter> {
        Arc::clone(&self.received)
    }

    pub(super) fn set_peers(&self, peers: BTreeMap<u64, Vec<String>>) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.clone_from(&peers);
        if let Some(transport) = &*self.transport.load() {
            transport.set_peers(peers);
        }
    }
}

fn traffic_of(stats: &PeerStats) -> PeerTraffic {
    let RoundTrips { count, last, mean, deviation, min, max } = stats.round_trips;
    PeerTraffic {
        connected: stats.connected_since.is_some(),
        receipts: count,
        latency: [last, mean, deviation, min, max],
        failures: stats.failures,
        bytes_sent: stats.bytes_out,
        bytes_received: stats.bytes_in,
    }
}

/// Encoding fails only for a message with a required field unset, and raft's have none.
fn encode(message: &Message) -> Option<Bytes> {
    message.write_to_bytes().ok().map(Bytes::from)
}

pub(super) fn decode(bytes: &Bytes) -> Option<Message> {
    Message::parse_from_carllerche_bytes(bytes).ok()
}

/// What arrives from the other members.
pub(super) struct MemberInbox {
    pub driver: mpsc::Sender<DriverInput>,
    pub entrance: Entrance,
    pub roster: Arc<ArcSwap<Roster>>,
    /// This member's own id, for what it is told about itself.
    pub id: u64,
    /// Messages with log entries.
    pub received: Arc<AppendCounter>,
}

impl MemberInbox {
    /// Drops what does not fit into the driver's queue: everything that peers send is sent again when it is lost.
    fn push(&self, input: Input) {
        let _ = self.driver.try_send(DriverInput::Input(input));
    }
}

impl Inbox for MemberInbox {
    fn frame(&self, from: u64, frame: peer::Frame) {
        let mut messages = Vec::with_capacity(frame.raft.len());
        for bytes in &frame.raft {
            if let Some(message) = decode(bytes) {
                if message.msg_type == MessageType::MsgAppend {
                    self.received.add(bytes.len());
                }
                messages.push(message);
            } else {
                tracing::warn!(peer = format_args!("{from:x}"), "a raft message cannot be decoded; dropped");
            }
        }
        self.push(Input::Frame { from, messages, forwarded: frame.forwarded, beacon: frame.beacon });
    }

    fn gather(&self) -> Result<Box<dyn Gathering>, String> {
        Ok(Box::new(self.entrance.open()?))
    }

    fn unreachable(&self, peer: u64) {
        self.push(Input::Unreachable { peer });
    }

    fn connected(&self, peer: u64) {
        self.push(Input::Connected { peer });
    }

    fn snapshot_sent(&self, peer: u64, ok: bool) {
        let input = DriverInput::Input(Input::SnapshotSent { peer, ok });
        // This one nobody sends again, and without it raft sends that peer nothing more.
        if let Err(TrySendError::Full(input)) = self.driver.try_send(input) {
            let driver = self.driver.clone();
            let wait = move || drop(driver.blocking_send(input));
            if let Err(error) = std::thread::Builder::new().name("snapshot-sent".into()).spawn(wait) {
                tracing::error!(%error, "could not start a thread to tell of a snapshot that was sent");
            }
        }
    }

    fn admits(&self, member: u64, incarnation: u64) -> Result<Known, Barred> {
        let roster = self.roster.load();
        let (reason, disowned) = match roster.admits(member, incarnation) {
            Ok(()) if roster.members.contains_key(&member) => return Ok(Known::AsMember),
            Ok(()) => return Ok(Known::BySelf),
            Err(Refused::Removed) => ("it was removed from this cluster", Disowned::Removed),
            Err(Refused::Wiped) => {
                ("it was here before with another data directory, and must join anew", Disowned::Wiped)
            }
        };
        Err(Barred { reason: reason.to_owned(), disowned: Some(disowned) })
    }

    fn own_urls(&self) -> Vec<String> {
        self.roster.load().members.get(&self.id).map(|info| info.peer_urls.clone()).unwrap_or_default()
    }

    fn expected(&self, peer: u64) -> u64 {
        self.roster.load().members.get(&peer).map_or(0, |info| info.incarnation)
    }

    fn disowned(&self, by: u64, how: Disowned) {
        match how {
            Disowned::Removed => self.push(Input::Removed),
            Disowned::Wiped => {
                let error = StartError::Wiped { id: self.id, by }.to_string();
                let _ = self.driver.try_send(DriverInput::Fatal(error));
            }
        }
    }
}
