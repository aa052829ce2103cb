//! Those who are not wanted, and those who speak nonsense.

use super::*;

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
    a.transport.send_snapshot(0xb, Bytes::from_static(b"m"), source(Vec::new()));
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
