//! Transports that talk to each other over real sockets.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::get;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::{Request, Response, Status, Streaming};

mod guests;
mod hostile;
mod links;
mod snapshots;

use super::*;
use crate::proto::peer::peer_client::PeerClient;
use crate::proto::peer::{Closed, Receipt, SnapshotChunk, SnapshotHeld, SnapshotOffer, peer_server};
use crate::proto::state::{Node, Page, record::Body};

const CLUSTER: u64 = 0xc1;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, PartialEq)]
enum Told {
    Frame(u64, Frame),
    Snapshot(u64, Bytes, Vec<Record>),
    Unreachable(u64),
    Connected(u64),
    SnapshotSent(u64, bool),
    Disowned(u64, Disowned),
}

/// An inbox that passes on what it is told.
struct Recorder {
    told: UnboundedSender<Told>,
    barred: Mutex<HashMap<u64, String>>,
    /// Who is known by what it says of itself, only.
    guests: Mutex<BTreeSet<u64>>,
    url: String,
}

impl Recorder {
    fn tell(&self, told: Told) {
        // A test that is over does not listen any more.
        let _ = self.told.send(told);
    }
}

impl Inbox for Recorder {
    fn frame(&self, from: u64, frame: Frame) {
        self.tell(Told::Frame(from, frame));
    }
    fn gather(&self) -> Result<Box<dyn Gathering>, String> {
        Ok(Box::new(Gathered { told: self.told.clone(), records: Vec::new() }))
    }
    fn unreachable(&self, peer: u64) {
        self.tell(Told::Unreachable(peer));
    }
    fn connected(&self, peer: u64) {
        self.tell(Told::Connected(peer));
    }
    fn snapshot_sent(&self, peer: u64, ok: bool) {
        self.tell(Told::SnapshotSent(peer, ok));
    }
    fn admits(&self, member: u64, _: u64) -> Result<Known, Barred> {
        let known = if lock(&self.guests).contains(&member) { Known::BySelf } else { Known::AsMember };
        let barred = lock(&self.barred).get(&member).cloned();
        barred.map_or(Ok(known), |reason| Err(Barred { reason, disowned: Some(Disowned::Removed) }))
    }
    fn own_urls(&self) -> Vec<String> {
        vec![self.url.clone()]
    }
    fn expected(&self, _: u64) -> u64 {
        0
    }
    fn disowned(&self, by: u64, how: Disowned) {
        self.tell(Told::Disowned(by, how));
    }
}

/// Gathers in memory.
struct Gathered {
    told: UnboundedSender<Told>,
    records: Vec<Record>,
}

impl Gathering for Gathered {
    fn add(&mut self, records: &[Bytes]) -> Result<(), String> {
        for record in records {
            self.records.push(Record::decode(record.clone()).map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    fn complete(self: Box<Self>, from: u64, raft: Bytes) -> Result<(), String> {
        let _ = self.told.send(Told::Snapshot(from, raft, self.records));
        Ok(())
    }
}

/// A member that is nothing but its transport.
struct Member {
    transport: Transport,
    told: UnboundedReceiver<Told>,
    recorder: Arc<Recorder>,
    address: SocketAddr,
}

impl Member {
    async fn start(id: u64) -> Self {
        Self::start_with(CLUSTER, id, "127.0.0.1:0", TransportConfig::default()).await
    }

    async fn start_with(cluster_id: u64, member_id: u64, address: &str, config: TransportConfig) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, told) = unbounded_channel();
        let url = format!("http://{address}");
        let recorder =
            Arc::new(Recorder { told: sender, barred: Mutex::default(), guests: Mutex::default(), url });
        let extra = Router::new().route("/version", get(|| async { "2" }));
        let identity = PeerIdentity { cluster_id, member_id, incarnation: 0 };
        let transport = Transport::start(identity, vec![listener], recorder.clone(), extra, config);
        Self { transport, told, recorder, address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn knows(&self, peers: &[(u64, &Member)]) {
        self.transport.set_peers(peers.iter().map(|(id, member)| (*id, vec![member.url()])).collect());
    }

    async fn next(&mut self) -> Told {
        timeout(PATIENCE, self.told.recv()).await.expect("nothing was told").expect("the recorder lives")
    }

    /// Skips what comes before it.
    async fn expect(&mut self, told: Told) {
        while self.next().await != told {}
    }

    /// Everything raft that arrives, until `count` messages did; and in how many frames.
    async fn raft(&mut self, count: usize) -> (Vec<Bytes>, usize) {
        let (mut messages, mut frames) = (Vec::new(), 0);
        while messages.len() < count {
            if let Told::Frame(_, frame) = self.next().await {
                messages.extend(frame.raft);
                frames += 1;
            }
        }
        (messages, frames)
    }

    /// Waits until the given peer's last error contains a text.
    async fn error(&self, peer: u64, text: &str) {
        let seen = || self.transport.peer_stats()[&peer].last_error.clone().unwrap_or_default();
        let wait = async {
            while !seen().contains(text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(PATIENCE, wait).await.is_ok(), "{text:?} is not in {:?}", seen());
    }

    fn hears_nothing(&mut self) {
        assert!(self.told.try_recv().is_err());
    }
}

fn raft(messages: impl IntoIterator<Item = Bytes>) -> Outgoing {
    Outgoing { raft: messages.into_iter().collect(), ..Outgoing::default() }
}

fn numbered(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn record(size: usize) -> Record {
    let node = Node { value: vec![7; size].into(), ..Node::default() };
    Record { body: Some(Body::Page(Page { nodes: vec![node] })) }
}

/// Makes these records, each time.
fn source(records: Vec<Record>) -> Source {
    Box::new(move || Box::new(records.clone().into_iter()))
}

/// Two members, a knowing b and connected to it.
async fn pair() -> (Member, Member) {
    let (mut a, b) = (Member::start(0xa).await, Member::start(0xb).await);
    a.knows(&[(0xb, &b)]);
    a.expect(Told::Connected(0xb)).await;
    (a, b)
}

/// A client that knows the handshake; `stamp` does its part.
async fn stranger(to: &Member) -> PeerClient<tonic::transport::Channel> {
    PeerClient::new(dial::dial(&to.url(), &TransportConfig::default()).await.unwrap())
}

fn stamp(metadata: &mut tonic::metadata::MetadataMap) {
    handshake::stamp(metadata, PeerIdentity { cluster_id: CLUSTER, member_id: 0xe, incarnation: 0 }, 0xb, 0);
}
