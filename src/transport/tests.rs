//! Transports that talk to each other over real sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::proto::peer::peer_client::PeerClient;
use crate::proto::peer::{Closed, Receipt, SnapshotChunk, peer_server};
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
}

/// An inbox that passes on what it is told.
struct Recorder {
    told: UnboundedSender<Told>,
    barred: Mutex<HashMap<u64, String>>,
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
    fn snapshot(&self, from: u64, raft: Bytes, records: Vec<Record>) {
        self.tell(Told::Snapshot(from, raft, records));
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
    fn admits(&self, member: u64) -> Result<(), String> {
        lock(&self.barred).get(&member).cloned().map_or(Ok(()), Err)
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
        let recorder = Arc::new(Recorder { told: sender, barred: Mutex::default() });
        let extra = Router::new().route("/version", get(|| async { "2" }));
        let identity = PeerIdentity { cluster_id, member_id };
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

/// Two members, a knowing b and connected to it.
async fn pair() -> (Member, Member) {
    let (mut a, b) = (Member::start(0xa).await, Member::start(0xb).await);
    a.knows(&[(0xb, &b)]);
    a.expect(Told::Connected(0xb)).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_in_order_and_whole() {
    let (mut a, mut b) = (Member::start(0xa).await, Member::start(0xb).await);
    a.knows(&[(0xa, &a), (0xb, &b)]);
    b.knows(&[(0xa, &a)]);
    a.expect(Told::Connected(0xb)).await;
    b.expect(Told::Connected(0xa)).await;
    for number in 0..2000 {
        a.transport.send(0xb, raft([numbered(number)]));
        b.transport.send(0xa, raft([numbered(number)]));
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let expected: Vec<_> = (0..2000).map(numbered).collect();
    assert_eq!(a.raft(2000).await.0, expected);
    assert_eq!(b.raft(2000).await.0, expected);

    let batch = Batch { session: 1, floor: 2, requests: Vec::new() };
    let beacon = Beacon { term: 3, time_ms: 4, digest_index: 5, digest: 6 };
    let outgoing = Outgoing { raft: vec![], forwarded: vec![batch.clone()], beacon: Some(beacon) };
    a.transport.send(0xb, outgoing);
    let Told::Frame(0xa, frame) = b.next().await else { panic!("not a frame of a's") };
    assert_eq!((frame.forwarded, frame.beacon), (vec![batch], Some(beacon)));

    let stats = &a.transport.peer_stats()[&0xb];
    assert!(stats.inbound && stats.connected_since.is_some() && stats.round_trip.is_some());
    assert!(stats.bytes_out >= 20_000 && stats.bytes_in >= 20_000 && stats.frames_out >= 2);
    assert_eq!(stats.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!((stats.queued_bytes, &stats.last_error), (0, &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_merged_into_few_frames() {
    let (a, mut b) = pair().await;
    let big = Bytes::from(vec![1; 3 << 20]);
    a.transport.send(0xb, raft([big.clone(), big.clone(), big.clone()]));
    for number in 0..10_000 {
        a.transport.send(0xb, raft([numbered(number)]));
    }
    let (messages, frames) = b.raft(10_003).await;
    assert_eq!(messages[..3], [big.clone(), big.clone(), big]);
    assert_eq!(messages[3..], (0..10_000).map(numbered).collect::<Vec<_>>());
    assert!(frames < 2000, "{frames} frames for 10,003 messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_and_told_why() {
    let mut b = Member::start(0xb).await;
    let other_cluster = Member::start_with(0xc2, 0xa, "127.0.0.1:0", TransportConfig::default()).await;
    other_cluster.knows(&[(0xb, &b)]);
    other_cluster.error(0xb, "cluster c1, member a of cluster c2").await;

    let a = Member::start(0xa).await;
    a.knows(&[(0xd, &b)]);
    a.error(0xd, "member d was called by member a, but here is member b").await;

    lock(&b.recorder.barred).insert(0xa, "it was removed".to_owned());
    a.knows(&[(0xb, &b)]);
    a.transport.send(0xb, raft([numbered(1)]));
    a.error(0xb, "member b does not admit member a: it was removed").await;
    a.transport.send_snapshot(0xb, Bytes::from_static(b"m"), Box::new(std::iter::empty()));
    let mut a = a;
    a.expect(Told::SnapshotSent(0xb, false)).await;
    b.hears_nothing();
    assert!(!b.transport.peer_stats().contains_key(&0xa));

    // Nothing has to be restarted once it is let in.
    lock(&b.recorder.barred).clear();
    a.expect(Told::Connected(0xb)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_not_admitted_any_more_is_cut_off() {
    let (mut a, mut b) = pair().await;
    b.knows(&[(0xa, &a)]);
    b.expect(Told::Connected(0xa)).await;
    lock(&b.recorder.barred).insert(0xa, "it was removed".to_owned());
    b.transport.set_peers(BTreeMap::new());
    a.expect(Told::Unreachable(0xb)).await;
    a.error(0xb, "it was removed").await;
    assert!(b.transport.peer_stats().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_peer_is_connected_again() {
    let (mut a, b) = pair().await;
    let address = b.address.to_string();
    b.transport.shutdown().await;
    a.expect(Told::Unreachable(0xb)).await;
    // Long enough for the back-off to reach its greatest pause; what is sent meanwhile goes stale.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut b = Member::start_with(CLUSTER, 0xb, &address, TransportConfig::default()).await;
    let listening = Instant::now();
    while a.told.try_recv() != Ok(Told::Connected(0xb)) {
        a.transport.send(0xb, raft([numbered(1)]));
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(listening.elapsed() < PATIENCE, "never connected again");
    }
    // 50 ms is the least time between attempts; the rest is for slow machines.
    assert!(listening.elapsed() < Duration::from_millis(400), "took {:?}", listening.elapsed());
    a.transport.send(0xb, raft([numbered(2)]));
    while b.raft(1).await.0.last() != Some(&numbered(2)) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_calls_is_called_back_at_once() {
    let config = TransportConfig { backoff_max: Duration::from_secs(60), ..TransportConfig::default() };
    let mut a = Member::start_with(CLUSTER, 0xa, "127.0.0.1:0", config).await;
    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    a.transport.set_peers(BTreeMap::from([(0xb, vec![format!("http://{vacant}")])]));
    tokio::time::sleep(Duration::from_millis(800)).await;
    let b = Member::start_with(CLUSTER, 0xb, &vacant.to_string(), TransportConfig::default()).await;
    b.knows(&[(0xa, &a)]);
    let called = Instant::now();
    a.expect(Told::Connected(0xb)).await;
    assert!(called.elapsed() < Duration::from_millis(500), "took {:?}", called.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_tried_in_turn_and_can_change() {
    let (mut a, mut b) = (Member::start(0xa).await, Member::start(0xb).await);
    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let urls = ["no url".to_owned(), "https://127.0.0.1:1".to_owned(), format!("http://{vacant}"), b.url()];
    a.transport.set_peers(BTreeMap::from([(0xb, urls.to_vec())]));
    a.expect(Told::Connected(0xb)).await;
    assert_eq!(a.transport.peer_stats()[&0xb].url, Some(b.url()));

    let moved = Member::start(0xb).await;
    a.knows(&[(0xb, &moved)]);
    a.expect(Told::Unreachable(0xb)).await;
    a.expect(Told::Connected(0xb)).await;
    assert_eq!(a.transport.peer_stats()[&0xb].url, Some(moved.url()));
    b.hears_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overflow_is_told_once() {
    let config = TransportConfig { queue_bytes: 1 << 20, ..TransportConfig::default() };
    let mut a = Member::start_with(CLUSTER, 0xa, "127.0.0.1:0", config).await;
    let mut b = Member::start(0xb).await;
    a.knows(&[(0xb, &b)]);
    a.expect(Told::Connected(0xb)).await;
    let message = Bytes::from(vec![1; 300 << 10]);
    // Sent as one: cannot be drained in between.
    a.transport.send(0xb, raft(vec![message.clone(); 4]));
    a.expect(Told::Unreachable(0xb)).await;
    a.transport.send(0xb, raft([numbered(5)]));
    assert_eq!(b.raft(1).await.0, [numbered(5)]);
    a.hears_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stops_answering_is_noticed() {
    // Takes connections, and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config =
        TransportConfig { handshake_timeout: Duration::from_millis(100), ..TransportConfig::default() };
    let a = Member::start_with(CLUSTER, 0xa, "127.0.0.1:0", config).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    a.transport.set_peers(BTreeMap::from([(0xb, vec![url])]));
    a.error(0xb, "does not answer").await;
}

/// Passes bytes between one client and one server until it is cut: then the connections stay open and silent.
async fn relay(to: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    let task = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(to).await.unwrap();
        let (client, server) = (client.into_std().unwrap(), server.into_std().unwrap());
        for stream in [&client, &server] {
            // A second handle keeps the connection open when the copy ends.
            lock(&keep).push(TcpStream::from_std(stream.try_clone().unwrap()).unwrap());
        }
        let mut client = TcpStream::from_std(client).unwrap();
        let mut server = TcpStream::from_std(server).unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    (address, task, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_cut_off_is_noticed() {
    let config = TransportConfig {
        ping_interval: Duration::from_millis(200),
        ping_timeout: Duration::from_millis(200),
        ..TransportConfig::default()
    };
    let mut a = Member::start_with(CLUSTER, 0xa, "127.0.0.1:0", config).await;
    let mut b = Member::start(0xb).await;
    let (address, relay, _kept) = relay(b.address).await;
    a.transport.set_peers(BTreeMap::from([(0xb, vec![format!("http://{address}")])]));
    a.expect(Told::Connected(0xb)).await;
    a.transport.send(0xb, raft([numbered(1)]));
    assert_eq!(b.raft(1).await.0, [numbered(1)]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    a.hears_nothing();
    relay.abort();
    let cut = Instant::now();
    a.expect(Told::Unreachable(0xb)).await;
    assert!(cut.elapsed() < Duration::from_secs(2), "took {:?}", cut.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_http_is_answered_on_the_same_port() {
    let (a, mut b) = pair().await;
    let mut client = TcpStream::connect(b.address).await.unwrap();
    client.write_all(b"GET /version HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n2"), "{answer:?}");
    a.transport.send(0xb, raft([numbered(1)]));
    assert_eq!(b.raft(1).await.0, [numbered(1)]);
}

/// A client that knows the handshake; `stamp` does its part.
async fn stranger(to: &Member) -> PeerClient<tonic::transport::Channel> {
    PeerClient::new(dial::dial(&to.url(), &TransportConfig::default()).await.unwrap())
}

fn stamp(metadata: &mut tonic::metadata::MetadataMap) {
    handshake::stamp(metadata, PeerIdentity { cluster_id: CLUSTER, member_id: 0xe }, 0xb);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_disturbs_nobody() {
    let config = TransportConfig {
        head_timeout: Duration::from_millis(300),
        message_bytes: 1 << 20,
        ..TransportConfig::default()
    };
    let mut b = Member::start_with(CLUSTER, 0xb, "127.0.0.1:0", config).await;
    let mut a = Member::start(0xa).await;
    a.knows(&[(0xb, &b)]);
    a.expect(Told::Connected(0xb)).await;

    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let garbage: [&[u8]; 6] = [
        b"\x00\xff\x17\x03garbage\r\n\r\n",
        b"PR",
        b"",
        b"GET /version HTTP/1.1\r\nhost: b\r\nno end of the head",
        b"PRI * HTTP/2.0\r\n\r\nnot quite",
        &[preface.as_slice(), &[0xff; 4096]].concat(),
    ];
    for bytes in garbage {
        let mut client = TcpStream::connect(b.address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let closed = timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "still open after {bytes:?}");
    }

    // Frames that are too large, from someone who knows the handshake.
    let mut client = stranger(&b).await;
    let large = Frame { raft: vec![vec![1; 2 << 20].into()], ..Frame::default() };
    let mut request = Request::new(tokio_stream::iter([large]).chain_pending());
    stamp(request.metadata_mut());
    let mut receipts = client.exchange(request).await.unwrap().into_inner();
    let status = timeout(PATIENCE, receipts.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");

    // Messages that are no frames: as a snapshot chunk encodes them, with the wire types of none of a frame's fields.
    let channel = dial::dial(&b.url(), &TransportConfig::default()).await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let wrong = Receipt { probe: 7 };
    let mut request = Request::new(tokio_stream::iter([wrong]).chain_pending());
    stamp(request.metadata_mut());
    let codec = tonic_prost::ProstCodec::<Receipt, Receipt>::default();
    let path = "/quorate.peer.Peer/Exchange".parse().unwrap();
    let mut receipts = grpc.streaming(request, path, codec).await.unwrap().into_inner();
    let status = timeout(PATIENCE, receipts.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Internal, "{status}");

    a.transport.send(0xb, raft([numbered(1)]));
    assert_eq!(b.raft(1).await.0, [numbered(1)]);
    a.hears_nothing();
}

/// Leaves a request's body open after what it has.
trait ChainPending: futures_util::Stream + Sized {
    fn chain_pending(self) -> futures_util::stream::Chain<Self, futures_util::stream::Pending<Self::Item>> {
        futures_util::StreamExt::chain(self, futures_util::stream::pending())
    }
}
impl<S: futures_util::Stream> ChainPending for S {}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let config = TransportConfig { connections: 2, ..TransportConfig::default() };
    let b = Member::start_with(CLUSTER, 0xb, "127.0.0.1:0", config).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(TcpStream::connect(b.address).await.unwrap());
    }
    let mut third = TcpStream::connect(b.address).await.unwrap();
    let read =
        timeout(Duration::from_secs(2), third.read(&mut [0])).await.expect("the third is closed at once");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_stream_of_a_member_ends_the_older() {
    let b = Member::start(0xb).await;
    let mut client = stranger(&b).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut request = Request::new(futures_util::stream::pending::<Frame>());
        stamp(request.metadata_mut());
        streams.push(client.exchange(request).await.unwrap().into_inner());
    }
    let status = timeout(PATIENCE, streams[0].message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Aborted);
    assert!(timeout(Duration::from_millis(50), streams[1].message()).await.is_err(), "the newer one stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_arrives_intact() {
    let (mut a, mut b) = pair().await;
    let records: Vec<_> = (0..400).map(|i| record(50_000 + i)).chain([record(1 << 20)]).collect();
    a.transport.send_snapshot(0xb, Bytes::from_static(b"message"), Box::new(records.clone().into_iter()));
    let Told::Snapshot(0xa, raft, received) = b.next().await else { panic!("not a snapshot of a's") };
    assert_eq!(raft, Bytes::from_static(b"message"));
    assert!(received == records, "the records differ");
    a.expect(Told::SnapshotSent(0xb, true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_snapshot_is_refused() {
    let (mut a, mut b) = pair().await;
    let tail = Record { body: Some(Body::Tail(crate::proto::state::Tail::default())) };
    let records = [record(1), tail, record(2)];
    a.transport.send_snapshot(0xb, Bytes::from_static(b"m"), Box::new(records.into_iter()));
    a.expect(Told::SnapshotSent(0xb, false)).await;
    let dies =
        (0..).map(|i| if i < 20 { record(100_000) } else { panic!("the iterator dies, as it should") });
    a.transport.send_snapshot(0xb, Bytes::from_static(b"m"), Box::new(dies));
    a.expect(Told::SnapshotSent(0xb, false)).await;

    let mut client = stranger(&b).await;
    let chunk = SnapshotChunk { raft: Bytes::from_static(b"m"), records: vec![], last: true };
    let mut request = Request::new(tokio_stream::iter([chunk]));
    stamp(request.metadata_mut());
    let status = client.install(request).await.unwrap_err();
    assert!(status.message().contains("without a tail"), "{status}");
    b.hears_nothing();
}

/// A member that takes a snapshot's stream and never reads it.
struct Sleeper;

#[tonic::async_trait]
impl peer_server::Peer for Sleeper {
    type ExchangeStream = futures_util::stream::Pending<Result<Receipt, Status>>;

    async fn exchange(&self, _: Request<Streaming<Frame>>) -> Result<Response<Self::ExchangeStream>, Status> {
        Ok(Response::new(futures_util::stream::pending()))
    }

    async fn install(&self, _: Request<Streaming<SnapshotChunk>>) -> Result<Response<Closed>, Status> {
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_holds_up_the_sender() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (_stop, stop) = watch::channel(false);
    let config = TransportConfig { snapshot_stall: Duration::from_millis(700), ..TransportConfig::default() };
    let router =
        Router::new().route_service("/quorate.peer.Peer/{*m}", peer_server::PeerServer::new(Sleeper));
    let port = Port { router, config: config.clone(), permits: Arc::new(Semaphore::new(9)), stop };
    let serving = tokio::spawn(port.serve(listener));

    let mut a = Member::start_with(CLUSTER, 0xa, "127.0.0.1:0", config).await;
    a.transport.set_peers(BTreeMap::from([(0xb, vec![url])]));
    a.expect(Told::Connected(0xb)).await;
    let pulled = Arc::new(AtomicUsize::new(0));
    let count = pulled.clone();
    let records = (0..4000).map(move |_| {
        count.fetch_add(100_000, Ordering::Relaxed);
        record(100_000)
    });
    a.transport.send_snapshot(0xb, Bytes::from_static(b"m"), Box::new(records));
    a.expect(Told::SnapshotSent(0xb, false)).await;
    let pulled = pulled.load(Ordering::Relaxed);
    assert!((1 << 20..12 << 20).contains(&pulled), "{pulled} bytes were pulled");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_sends_what_waits_and_ends_everything() {
    let (a, mut b) = pair().await;
    b.knows(&[(0xa, &a), (0xd, &a)]);
    b.expect(Told::Connected(0xa)).await;
    let kept = a.transport.clone();
    // Busy with a snapshot without end, too.
    a.transport.send_snapshot(
        0xb,
        Bytes::from_static(b"m"),
        Box::new(std::iter::repeat_with(|| record(9999))),
    );
    let idle = TcpStream::connect(a.address).await.unwrap();
    a.transport.send(0xb, raft((0..5000).map(numbered)));
    let began = Instant::now();
    a.transport.shutdown().await;
    assert!(began.elapsed() < Duration::from_millis(1500), "took {:?}", began.elapsed());
    assert_eq!(b.raft(5000).await.0, (0..5000).map(numbered).collect::<Vec<_>>());
    b.expect(Told::Unreachable(0xa)).await;

    TcpListener::bind(a.address).await.expect("the port is free");
    drop(idle);
    // What comes after is ignored.
    kept.send(0xb, raft([numbered(1)]));
    kept.set_peers(BTreeMap::from([(0xb, vec![b.url()])]));
    kept.send_snapshot(0xb, Bytes::from_static(b"m"), Box::new(std::iter::empty()));
    assert!(kept.peer_stats().is_empty());
    kept.shutdown().await;
}

/// `cargo test --release -- --ignored --nocapture small_frames`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn round_trip_of_small_frames() {
    let (mut a, mut b) = pair().await;
    b.knows(&[(0xa, &a)]);
    b.expect(Told::Connected(0xa)).await;
    let mut times = Vec::new();
    for number in 0..5000 {
        let start = Instant::now();
        a.transport.send(0xb, raft([numbered(number)]));
        b.raft(1).await;
        b.transport.send(0xa, raft([numbered(number)]));
        a.raft(1).await;
        times.push(start.elapsed());
    }
    times.sort();
    println!("round trip: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
}
