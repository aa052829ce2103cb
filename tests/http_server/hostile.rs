//! Clients that are broken, slow or mean: each gets its answer or is cut off, and the others notice nothing.

use super::{PATIENCE, Server, rest, status, until};
use quorate::http::ServeConfig;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The best of some requests: what the member takes when the machine does not interfere.
async fn quickest(server: &Server) -> Duration {
    let mut stream = server.connect().await;
    let mut best = PATIENCE;
    for _ in 0..100 {
        let started = Instant::now();
        stream.write_all(b"GET /v2/keys/none HTTP/1.1\r\nHost: m\r\n\r\n").await.unwrap();
        until(&mut stream, "}\n").await;
        best = best.min(started.elapsed());
    }
    best
}

async fn assert_serves_at_once(server: &Server, after: &str) {
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 1 });
    let took = quickest(server).await;
    assert!(took < limit, "{took:?} after {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_without_end() {
    let config = ServeConfig {
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        ..ServeConfig::default()
    };
    let server = Server::start(config).await;
    let mut trickle = server.connect().await;
    let head = "PUT /v2/keys/k HTTP/1.1\r\nHost: m\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100000\r\n\r\nvalue=";
    trickle.write_all(head.as_bytes()).await.unwrap();
    let started = Instant::now();
    let mut answer = Vec::new();
    let mut chunk = [0; 1000];
    loop {
        assert!(started.elapsed() < PATIENCE, "it may go on for ever");
        _ = trickle.write_all(b"x").await;
        match tokio::time::timeout(Duration::from_millis(10), trickle.read(&mut chunk)).await {
            Ok(Ok(len @ 1..)) => answer.extend_from_slice(&chunk[..len]),
            Ok(_) => break,
            Err(_) => {}
        }
    }
    assert_eq!(status(&String::from_utf8_lossy(&answer)), "408");
    assert_serves_at_once(&server, "a body that trickles in").await;
    for (what, head) in [
        ("many headers", "GET /v2/keys/k HTTP/1.1\r\nHost: m\r\n".to_owned() + &"A: b\r\n".repeat(10_000)),
        (
            "a long header",
            format!("GET /v2/keys/k HTTP/1.1\r\nHost: m\r\nA: {}\r\n\r\n", "b".repeat(1 << 20)),
        ),
        ("a long target", format!("GET /v2/keys/{} HTTP/1.1\r\nHost: m\r\n\r\n", "k".repeat(1 << 20))),
        ("a million levels", format!("PUT /v2/keys{} HTTP/1.1\r\nHost: m\r\n\r\n", "/d".repeat(1_000_000))),
        ("a method without end", "G".repeat(1 << 20)),
    ] {
        let mut stream = server.connect().await;
        _ = stream.write_all(head.as_bytes()).await; // it may be cut off before it has sent all of it
        let answer = rest(&mut stream).await;
        assert!(matches!(status(&answer), "400" | "414" | "431" | "none"), "{what}: {answer}");
        assert_serves_at_once(&server, what).await;
    }
    for (len, expected) in
        [("1000000000000", "413"), ("18446744073709551615", "431"), ("99999999999999999999", "400")]
    {
        let head = format!("PUT /v2/keys/k HTTP/1.1\r\nHost: m\r\nContent-Length: {len}\r\n\r\n");
        assert_eq!(status(&server.exchange(head).await), expected, "{len}");
    }
    assert_serves_at_once(&server, "bodies that are announced to be huge").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_as_deep_as_they_can_be() {
    let server = Server::start(ServeConfig::default()).await;
    let deep = "/d".repeat(7_900);
    for (method, target, expected) in [
        ("GET", format!("/v2/keys{deep}"), "404"),
        ("PUT", format!("/v2/keys{deep}"), "400"),
        ("POST", format!("/v2/keys{deep}"), "400"),
        ("DELETE", format!("/v2/keys{deep}?recursive=true"), "400"),
        ("GET", format!("/v2/keys{deep}?wait=true&recursive=true&waitTimeout=0"), "200"),
        ("GET", format!("/v2/keys/?limit=1&recursive=true&start={deep}"), "200"),
        ("GET", format!("/v2/keys{}", "/..".repeat(5_000)), "301"),
        ("GET", format!("/v2/keys{}", "/".repeat(15_000)), "301"),
        ("GET", format!("/v2/keys{}", "%2f".repeat(5_000)), "301"),
        ("PUT", format!("/v2/keys/k?{}", "ttl=1&".repeat(2_500)), "201"),
    ] {
        let started = Instant::now();
        let answer = server.send(method, &target, "").await;
        assert_eq!(status(&answer), expected, "{method} {}: {answer}", &target[..40]);
        assert!(started.elapsed() < Duration::from_secs(2), "{method} {}", &target[..40]);
    }
    assert_serves_at_once(&server, "deep paths").await;
}

/// A directory of a hundred megabytes is sent to one client that is slow to take it, and to one that is not, while
/// others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_listing_stalls_nobody() {
    const VALUE: usize = 1 << 20;
    let server = Server::start(ServeConfig::default()).await;
    let value = format!("value={}", "x".repeat(VALUE));
    for at in 0..100 {
        assert_eq!(status(&server.send("PUT", &format!("/v2/keys/big/{at:03}"), &value).await), "201");
    }
    let request = b"GET /v2/keys/big?recursive=true HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
    let mut slow = server.connect().await;
    slow.write_all(request).await.unwrap();
    let mut first = [0; 1000];
    slow.read_exact(&mut first).await.unwrap();
    let mut quick = server.connect().await;
    quick.write_all(request).await.unwrap();
    let taken = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        let mut len = 0;
        while let Ok(read @ 1..) = quick.read(&mut buffer).await {
            len += read;
        }
        len
    });
    let mut served = 0;
    while !taken.is_finished() || served < 3 {
        assert_serves_at_once(&server, "a huge listing began").await;
        assert_eq!(status(&server.send("PUT", "/v2/keys/big/new", "value=1").await).len(), 3);
        served += 1;
    }
    assert!(taken.await.unwrap() > 100 * VALUE);
    drop(slow);
    assert_serves_at_once(&server, "a huge listing").await;
}
