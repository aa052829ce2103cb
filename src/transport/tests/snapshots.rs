//! Snapshots between members.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_arrives_intact() {
    let (mut a, mut b) = pair().await;
    let records: Vec<_> = (0..400).map(|i| record(50_000 + i)).chain([record(1 << 20)]).collect();
    a.transport.send_snapshot(0xb, Bytes::from_static(b"message"), source(records.clone()));
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
    a.transport.send_snapshot(0xb, Bytes::from_static(b"m"), source(records.to_vec()));
    a.expect(Told::SnapshotSent(0xb, false)).await;
    let dies =
        || (0..).map(|i| if i < 20 { record(100_000) } else { panic!("the iterator dies, as it should") });
    a.transport.send_snapshot(0xb, Bytes::from_static(b"m"), Box::new(move || Box::new(dies())));
    a.expect(Told::SnapshotSent(0xb, false)).await;

    let mut client = stranger(&b).await;
    let chunk = SnapshotChunk { raft: Bytes::from_static(b"m"), last: true, ..SnapshotChunk::default() };
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

    async fn offer(&self, _: Request<SnapshotOffer>) -> Result<Response<SnapshotHeld>, Status> {
        Ok(Response::new(SnapshotHeld::default()))
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
    let records = move || {
        let count = count.clone();
        (0..4000).map(move |_| {
            count.fetch_add(100_000, Ordering::Relaxed);
            record(100_000)
        })
    };
    a.transport.send_snapshot(0xb, Bytes::from_static(b"m"), Box::new(move || Box::new(records())));
    a.expect(Told::SnapshotSent(0xb, false)).await;
    let pulled = pulled.load(Ordering::Relaxed);
    assert!((1 << 20..12 << 20).contains(&pulled), "{pulled} bytes were pulled");
    serving.abort();
}

/// Passes bytes to a member. The connection over which `limit` bytes have gone is cut in the middle; later ones are not.
async fn cutting_relay(to: SocketAddr, limit: u64) -> (SocketAddr, Arc<Mutex<Vec<u64>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let passed = Arc::new(Mutex::new(Vec::new()));
    let counts = passed.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(to).await.unwrap();
            let counts = counts.clone();
            tokio::spawn(async move {
                let number = {
                    let mut counts = lock(&counts);
                    counts.push(0);
                    counts.len() - 1
                };
                let (mut from, mut back) = client.split();
                let (mut answers, mut on) = server.split();
                let there = async {
                    let mut buffer = vec![0; 64 << 10];
                    loop {
                        let bytes = from.read(&mut buffer).await.unwrap_or(0);
                        if bytes == 0 || on.write_all(&buffer[..bytes]).await.is_err() {
                            return;
                        }
                        let mut counts = lock(&counts);
                        let cut_before = counts.iter().any(|count| *count >= limit);
                        counts[number] += bytes as u64;
                        if !cut_before && counts[number] >= limit {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = there => {}
                    _ = tokio::io::copy(&mut answers, &mut back) => {}
                }
            });
        }
    });
    (address, passed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_whose_connection_breaks_goes_on_where_it_was() {
    const SIZE: u64 = 24 << 20;
    const CUT: u64 = 16 << 20;
    let (mut a, mut b) = (Member::start(0xa).await, Member::start(0xb).await);
    let (relay, passed) = cutting_relay(b.address, CUT).await;
    a.transport.set_peers(BTreeMap::from([(0xb, vec![format!("http://{relay}")])]));
    a.expect(Told::Connected(0xb)).await;
    let records: Vec<_> = (0..SIZE / 60_000).map(|i| record(60_000 + i as usize)).collect();
    a.transport.send_snapshot(0xb, Bytes::from_static(b"message"), source(records.clone()));
    let Told::Snapshot(0xa, raft, received) = b.next().await else { panic!("not a snapshot of a's") };
    assert_eq!(raft, Bytes::from_static(b"message"));
    assert!(received == records, "the records differ");
    a.expect(Told::SnapshotSent(0xb, true)).await;

    // The exchange, the connection that was cut, and the one that brought the rest: what was on its way when the first was
    // cut, a window of HTTP/2 and a few chunks, goes twice.
    let passed = lock(&passed).clone();
    let twice = passed[1] + passed[2] - SIZE.min(passed[1] + passed[2]);
    assert!(passed.len() == 3 && passed[1] >= CUT, "{passed:?}");
    assert!(twice < 8 << 20, "{twice} of {SIZE} bytes went twice: {passed:?}");
}

/// A member that loses its connection whenever it has got something.
struct Stumbler(Arc<AtomicUsize>);

#[tonic::async_trait]
impl peer_server::Peer for Stumbler {
    type ExchangeStream = futures_util::stream::Pending<Result<Receipt, Status>>;

    async fn exchange(&self, _: Request<Streaming<Frame>>) -> Result<Response<Self::ExchangeStream>, Status> {
        Ok(Response::new(futures_util::stream::pending()))
    }

    async fn offer(&self, _: Request<SnapshotOffer>) -> Result<Response<SnapshotHeld>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(SnapshotHeld::default()))
    }

    async fn install(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<Closed>, Status> {
        let _ = request.into_inner().message().await;
        Err(Status::unavailable("fell over"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_keeps_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (_stop, stop) = watch::channel(false);
    let config = TransportConfig { snapshot_stall: Duration::from_secs(1), ..TransportConfig::default() };
    let offers = Arc::new(AtomicUsize::new(0));
    let service = peer_server::PeerServer::new(Stumbler(offers.clone()));
    let router = Router::new().route_service("/quorate.peer.Peer/{*m}", service);
    let port = Port { router, config: config.clone(), permits: Arc::new(Semaphore::new(9)), stop };
    let serving = tokio::spawn(port.serve(listener));

    let mut a = Member::start_with(CLUSTER, 0xa, "127.0.0.1:0", config).await;
    a.transport.set_peers(BTreeMap::from([(0xb, vec![url])]));
    a.expect(Told::Connected(0xb)).await;
    a.transport.send_snapshot(0xb, Bytes::from_static(b"m"), source(vec![record(1000); 9]));
    a.expect(Told::SnapshotSent(0xb, false)).await;
    assert!(offers.load(Ordering::Relaxed) > 1, "it was not tried again");
    serving.abort();
}
