//! Streams between members: order, merging, outages, shutdown.

use super::*;

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
    let beacon = Beacon {
        term: 3,
        time_ms: 4,
        digest_index: 5,
        digest: 6,
        short_of_space: true,
        refuses: 1,
        session: 7,
        left_out: vec![8, 9],
    };
    let outgoing = Outgoing { raft: vec![], forwarded: vec![batch.clone()], beacon: Some(beacon.clone()) };
    a.transport.send(0xb, outgoing);
    let Told::Frame(0xa, frame) = b.next().await else { panic!("not a frame of a's") };
    assert_eq!((frame.forwarded, frame.beacon), (vec![batch], Some(beacon)));

    // What b answers comes by itself.
    let answered = async {
        loop {
            let stats = a.transport.peer_stats().remove(&0xb).unwrap();
            if stats.round_trip.is_some() {
                break stats;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let stats = tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    assert!(stats.inbound && stats.connected_since.is_some());
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
        Box::new(|| Box::new(std::iter::repeat_with(|| record(9999)))),
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
    kept.send_snapshot(0xb, Bytes::from_static(b"m"), source(Vec::new()));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_from_before_its_member_was_listed_is_counted() {
    let (a, b) = pair().await;
    b.knows(&[(0xa, &a)]);
    let wait = async {
        while !b.transport.peer_stats()[&0xa].inbound {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the stream that is up is not counted");
}
