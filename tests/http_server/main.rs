//! The HTTP layer over real sockets, with a member of its own: what it grants clients, and what it does not.
#![allow(clippy::unwrap_used)] // helpers of tests, which `allow-unwrap-in-tests` does not know for such

mod endpoints;
mod extensions;
mod hostile;
mod parked;

use quorate::http::backend::{BackendError, WatchItem};
use quorate::http::testing::SingleMember;
use quorate::http::{ServeConfig, serve};
use quorate::store::HistoryLimits;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    member: SingleMember,
    shutdown: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(config: ServeConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = HistoryLimits { events: 100, bytes: 1 << 20 };
        let member = SingleMember::start(&format!("http://{address}"), limits);
        let (shutdown, until) = oneshot::channel();
        let serving = tokio::spawn(serve(vec![listener], member.clone(), config, async { _ = until.await }));
        Self { address, member, shutdown: Some(shutdown), serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes the connection.
    async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        rest(&mut stream).await
    }

    /// A request on a connection of its own.
    async fn send(&self, method: &str, path: &str, body: &str) -> String {
        let form = "Content-Type: application/x-www-form-urlencoded";
        let len = body.len();
        self.exchange(format!(
            "{method} {path} HTTP/1.1\r\nHost: m\r\n{form}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
        ))
        .await
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")).await
    }
}

/// What comes until the end of the connection, however it ends.
async fn rest(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    let read = async {
        while let Ok(len @ 1..) = stream.read(&mut chunk).await {
            received.extend_from_slice(&chunk[..len]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the server ends the connection");
    String::from_utf8_lossy(&received).into_owned()
}

/// What comes until it contains a text.
async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut received = String::new();
    let mut chunk = [0; 4096];
    let read = async {
        while !received.contains(text) {
            let len = stream.read(&mut chunk).await.unwrap();
            assert!(len > 0, "closed after {received}");
            received.push_str(&String::from_utf8_lossy(&chunk[..len]));
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it comes");
    received
}

async fn eventually(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "it does not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// Takes a chunked body apart.
fn unchunked(answer: &str) -> String {
    let mut rest = body(answer);
    let mut whole = String::new();
    while let Some((len, tail)) = rest.split_once("\r\n") {
        let len = usize::from_str_radix(len, 16).unwrap();
        whole.push_str(&tail[..len]);
        rest = tail.get(len + 2..).unwrap_or("");
    }
    whole
}

fn wait_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: m\r\n\r\n")
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(ServeConfig::default()).await;
    let mut requests = String::new();
    for value in 0..20 {
        write!(requests, "PUT /v2/keys/k?value={value} HTTP/1.1\r\nHost: m\r\n\r\n").unwrap();
    }
    requests.push_str("GET /v2/keys/k HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n");
    let answers = server.exchange(requests).await;
    assert_eq!(answers.matches("HTTP/1.1 20").count(), 21);
    assert!(answers.ends_with(
        "{\"action\":\"get\",\"node\":{\"key\":\"/k\",\"value\":\"19\",\"modifiedIndex\":20,\"createdIndex\":20}}\n"
    ));
    assert!(answers.contains("\r\nX-Etcd-Index: 20\r\n") && answers.contains("\r\nX-Raft-Term: 2\r\n"));
}

#[tokio::test]
async fn a_slow_client_is_cut_off() {
    let header_timeout = Duration::from_millis(200);
    let body_timeout = Duration::from_millis(200);
    let server = Server::start(ServeConfig { header_timeout, body_timeout, ..ServeConfig::default() }).await;
    let mut slow_head = server.connect().await;
    let started = Instant::now();
    for byte in "GET /v2/keys/an-endless-head".bytes().cycle() {
        if slow_head.write_all(&[byte]).await.is_err() {
            break;
        }
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut slow_body = server.connect().await;
    let head = "PUT /v2/keys/k HTTP/1.1\r\nHost: m\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\nva";
    slow_body.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut slow_body).await;
    assert_eq!(status(&answer), "408");
    assert!(answer.contains("\"errorCode\":210"), "{answer}");
    assert_eq!(status(&server.get("/v2/keys/k").await), "404");
}

#[tokio::test]
async fn sizes_are_bounded() {
    let server = Server::start(ServeConfig { max_body_bytes: 1000, ..ServeConfig::default() }).await;
    let fits = format!("value={}", "x".repeat(994));
    assert_eq!(status(&server.send("PUT", "/v2/keys/k", &fits).await), "201");
    let answer = server.send("PUT", "/v2/keys/k", &(fits + "x")).await;
    assert_eq!(status(&answer), "413");
    let expected = "{\"errorCode\":210,\"message\":\"Invalid POST form\",\"cause\":\"the request body is larger than 1000 bytes\",\"index\":0}\n";
    assert_eq!(body(&answer), expected);
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    let chunked = server
        .exchange(format!(
            "POST /v2/keys/k HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"
        ))
        .await;
    assert_eq!(status(&chunked), "413");
    let long_head = format!("GET /v2/keys/k HTTP/1.1\r\nHost: m\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(status(&server.exchange(long_head).await), "431");
    let deep = format!("/v2/keys{}", "/d".repeat(513));
    assert_eq!(status(&server.send("PUT", &deep, "value=1").await), "400");
    assert_eq!(status(&server.get(&deep).await), "404");
}

#[tokio::test]
async fn the_number_of_connections_is_bounded() {
    let server = Server::start(ServeConfig { max_connections: 1, ..ServeConfig::default() }).await;
    let mut first = server.connect().await;
    first.write_all(wait_request("/version").as_bytes()).await.unwrap();
    until(&mut first, "2.3.8").await;
    assert_eq!(status(&rest(&mut server.connect().await).await), "503");
    drop(first);
    let started = Instant::now();
    while status(&server.get("/version").await) != "200" {
        assert!(started.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn a_wait_flushes_its_head_and_ends_with_one_event() {
    let server = Server::start(ServeConfig::default()).await;
    let mut waiter = server.connect().await;
    waiter.write_all(wait_request("/v2/keys/d?wait=true&recursive=true").as_bytes()).await.unwrap();
    let head = until(&mut waiter, "\r\n\r\n").await;
    assert!(
        head.contains("\r\nX-Etcd-Index: 0\r\n") && head.contains("\r\nTransfer-Encoding: chunked\r\n"),
        "{head}"
    );
    server.send("PUT", "/v2/keys/d/x", "value=1").await;
    let event = "{\"action\":\"set\",\"node\":{\"key\":\"/d/x\",\"value\":\"1\",\"modifiedIndex\":1,\"createdIndex\":1}}\n";
    let answer = until(&mut waiter, "0\r\n\r\n").await;
    assert_eq!(answer, format!("{:X}\r\n{event}\r\n0\r\n\r\n", event.len()));
    assert_eq!(server.member.watchers(), 0);
    waiter.write_all(wait_request("/v2/keys/d/x").as_bytes()).await.unwrap();
    until(&mut waiter, "\"value\":\"1\"").await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_watcher_with_it() {
    let server = Server::start(ServeConfig::default()).await;
    let mut waiter = server.connect().await;
    waiter.write_all(wait_request("/v2/keys/k?wait=true&stream=true").as_bytes()).await.unwrap();
    until(&mut waiter, "\r\n\r\n").await;
    assert_eq!(server.member.watchers(), 1);
    assert!(server.get("/v2/stats/store").await.ends_with("\"watchers\":1}"));
    drop(waiter);
    eventually(|| server.member.watchers() == 0).await;
    assert!(server.get("/v2/stats/store").await.ends_with("\"watchers\":0}"));
}

#[tokio::test]
async fn a_stream_that_lost_events_says_so_and_a_wait_is_cut_off() {
    let server = Server::start(ServeConfig::default()).await;
    for (item, expected) in [
        (
            WatchItem::Lagged { delivered: 7 },
            "{\"errorCode\":401,\"message\":\"The event in requested index is outdated and cleared\",\"cause\":\"the watcher did not keep up; the last event delivered has index 7\",\"index\":7}\n",
        ),
        (
            WatchItem::Cleared,
            "{\"errorCode\":400,\"message\":\"watcher is cleared due to etcd recovery\",\"cause\":\"events were skipped by a snapshot; nothing after index 0 was delivered\",\"index\":0}\n",
        ),
    ] {
        let mut stream = server.connect().await;
        let close = "GET /v2/keys/k?wait=true&stream=true HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
        stream.write_all(close.as_bytes()).await.unwrap();
        let mut once = server.connect().await;
        once.write_all(wait_request("/v2/keys/k?wait=true").as_bytes()).await.unwrap();
        let head = until(&mut stream, "\r\n\r\n").await;
        until(&mut once, "\r\n\r\n").await;
        server.member.end_watches(&item);
        assert_eq!(unchunked(&(head + &rest(&mut stream).await)), expected);
        assert_eq!(rest(&mut once).await, "", "without the chunk that ends a body");
    }
}

#[tokio::test]
async fn shutdown_ends_waits_and_idle_connections() {
    let mut server = Server::start(ServeConfig::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(wait_request("/version").as_bytes()).await.unwrap();
    until(&mut idle, "2.3.8").await;
    let mut stream = server.connect().await;
    stream.write_all(wait_request("/v2/keys/k?wait=true&stream=true").as_bytes()).await.unwrap();
    until(&mut stream, "\r\n\r\n").await;
    let mut once = server.connect().await;
    once.write_all(wait_request("/v2/keys/k?wait=true").as_bytes()).await.unwrap();
    until(&mut once, "\r\n\r\n").await;
    let started = Instant::now();
    server.shutdown.take().unwrap().send(()).unwrap();
    assert_eq!(rest(&mut stream).await, "0\r\n\r\n");
    assert_eq!(rest(&mut once).await, "");
    assert_eq!(rest(&mut idle).await, "");
    tokio::time::timeout(PATIENCE, &mut server.serving).await.unwrap().unwrap();
    assert!(started.elapsed() < ServeConfig::default().shutdown_grace, "nothing was left to cut off");
    assert_eq!(server.member.watchers(), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_large_listing_is_complete() {
    let server = Server::start(ServeConfig::default()).await;
    let mut writer = server.connect().await;
    let mut expected = Vec::new();
    for dir in 0..20 {
        for file in 0..200 {
            let key = format!("/l/d{dir:02}/f{file:03}");
            let request = format!("PUT /v2/keys{key}?value={} HTTP/1.1\r\nHost: m\r\n\r\n", "v".repeat(20));
            writer.write_all(request.as_bytes()).await.unwrap();
            until(&mut writer, "}}\n").await;
            expected.push(key);
        }
        server.send("PUT", &format!("/v2/keys/l/d{dir:02}/_hidden/x"), "value=1").await;
        server.send("PUT", &format!("/v2/keys/l/e{dir:02}?dir=true"), "").await;
    }
    let answer = server.get("/v2/keys/l?recursive=true").await;
    assert!(answer.contains("Transfer-Encoding: chunked"));
    let listing: serde_json::Value = serde_json::from_str(&unchunked(&answer)).unwrap();
    let dirs = listing["node"]["nodes"].as_array().unwrap();
    assert_eq!(dirs.len(), 40);
    let files = dirs.iter().filter_map(|dir| dir["nodes"].as_array()).flatten();
    let found: Vec<_> = files.map(|file| file["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, expected);
    let flat: serde_json::Value = serde_json::from_str(body(&server.get("/v2/keys/l").await)).unwrap();
    assert_eq!(flat["node"]["nodes"].as_array().unwrap().len(), 40);
    assert!(flat["node"]["nodes"][0].get("nodes").is_none());
}

#[tokio::test]
async fn what_the_member_cannot_do_is_said() {
    let server = Server::start(ServeConfig::default()).await;
    assert_eq!(body(&server.get("/health").await), "{\"health\":\"true\"}");
    for (failure, expected) in [
        (BackendError::Timeout, ("500", "etcdserver: request timed out")),
        (BackendError::NoLeader, ("500", "etcdserver: no leader")),
        (BackendError::Stopped, ("500", "etcdserver: server stopped")),
        (BackendError::Overloaded, ("503", "etcdserver: too many requests")),
        (BackendError::NoSpace, ("507", "etcdserver: no space: the disks of the members are nearly full")),
        (BackendError::Quota, ("507", "etcdserver: mvcc: database space exceeded")),
    ] {
        server.member.fail_with(Some(failure));
        let text = format!(
            "{{\"errorCode\":300,\"message\":\"Raft Internal Error\",\"cause\":\"{}\",\"index\":0}}\n",
            expected.1
        );
        for answer in [server.send("PUT", "/v2/keys/k", "value=1").await, server.get("/v2/keys/k").await] {
            assert_eq!((status(&answer), body(&answer)), (expected.0, text.as_str()));
        }
        let health = server.get("/health").await;
        assert_eq!((status(&health), body(&health)), ("503", "{\"health\":\"false\"}"));
        assert_eq!(
            status(&server.get("/v2/keys/k?quorum=false").await),
            "404",
            "the member's own state is there"
        );
    }
}

#[tokio::test]
async fn discovery_makes_tokens_that_machines_register_under() {
    let server = Server::start(ServeConfig::default()).await;
    let url = server.get("/new?size=5").await;
    let token = body(&url).strip_prefix("http://m/").expect("a URL on the host that was asked").to_owned();
    assert!(token.len() == 32 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let size = server.get(&format!("/{token}/_config/size")).await;
    assert!(body(&size).starts_with(&format!(
        "{{\"action\":\"get\",\"node\":{{\"key\":\"/_etcd/registry/{token}/_config/size\",\"value\":\"5\""
    )));
    let path = format!("/{token}/a1?prevExist=false");
    let register = || server.send("PUT", &path, "value=m%3Dhttp");
    assert_eq!(status(&register().await), "201");
    assert_eq!(status(&register().await), "412");
    let all: serde_json::Value = serde_json::from_str(body(&server.get(&format!("/{token}")).await)).unwrap();
    let nodes = all["node"]["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1, "the configuration is hidden: {all}");
    assert_eq!(status(&server.get("/new?size=0").await), "400");
    assert_ne!(body(&server.get("/new").await), body(&url));
}

#[tokio::test]
async fn origins_are_allowed_only_if_configured() {
    let request = "GET /v2/keys HTTP/1.1\r\nHost: m\r\nOrigin: https://a\r\nConnection: close\r\n\r\n";
    let cors = |origins: &[&str]| ServeConfig {
        cors: origins.iter().map(ToString::to_string).collect(),
        ..ServeConfig::default()
    };
    for (config, expected) in [
        (cors(&[]), None),
        (cors(&["https://b"]), None),
        (cors(&["https://a"]), Some("\r\nAccess-Control-Allow-Origin: https://a\r\n")),
        (cors(&["*"]), Some("\r\nAccess-Control-Allow-Origin: *\r\n")),
    ] {
        let answer = Server::start(config).await.exchange(request).await;
        assert_eq!(answer.contains("Access-Control"), expected.is_some(), "{answer}");
        assert!(answer.contains(expected.unwrap_or("")));
    }
}

/// Whatever the bytes, the server answers or closes, and goes on serving others.
#[tokio::test]
async fn bytes_that_are_no_request() {
    let server =
        Server::start(ServeConfig { header_timeout: Duration::from_millis(100), ..ServeConfig::default() })
            .await;
    let head = "GET /v2/keys/a HTTP/1.1\r\nHost: m\r\n";
    for bytes in [
        &b"\0\0\0\0"[..],
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"PUT /a<b HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\n\r\nabc",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PUT /v2/keys/a HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"PUT /v2/keys/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
        format!("{head}{}", "A: b\r\n".repeat(500)).as_bytes(),
    ] {
        let answer = server.exchange(bytes).await;
        assert!(
            matches!(status(&answer), "none" | "400" | "431" | "505"),
            "{}: {answer}",
            bytes.escape_ascii()
        );
    }
    assert_eq!(status(&server.get("/v2/keys/a").await), "404");
}
