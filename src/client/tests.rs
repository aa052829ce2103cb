//! The client against a server that answers from a script.

use super::*;
use futures_util::StreamExt as _;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the scripted server does with one request.
#[derive(Clone, Copy)]
enum Reply {
    /// Status, extra headers (each ended by CRLF), body.
    Answer(u16, &'static str, &'static str),
    /// The headers of an answer, and then the end of the connection.
    Cut(&'static str),
    /// The end of the connection, without an answer.
    Drop,
    /// Nothing, for longer than any test waits.
    Silence,
}
use Reply::{Answer, Cut, Drop, Silence};

const FOUND: Reply = Answer(
    200,
    "X-Etcd-Index: 9\r\nX-Raft-Index: 99\r\nX-Raft-Term: 3\r\nX-Etcd-Cluster-Id: cdf8\r\n",
    r#"{"action":"get","node":{"key":"/a","value":"1","modifiedIndex":7,"createdIndex":5}}"#,
);
const NO_LEADER: Reply = Answer(503, "", r#"{"message":"During election"}"#);

struct Server {
    url: String,
    /// Request line and body of each request.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    /// Answers the first request with the first reply, and so on; the last reply answers all that follow.
    async fn start(replies: &'static [Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(converse(stream, Arc::clone(&log), replies));
            }
        });
        Self { url, seen }
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }
}

/// One request a connection.
async fn converse(mut stream: TcpStream, log: Arc<Mutex<Vec<(String, String)>>>, replies: &'static [Reply]) {
    let mut request = String::new();
    let (head, body) = loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        request.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        if let Some((head, body)) = request.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break (head, body);
            }
        }
    };
    let nth = {
        let mut log = log.lock().unwrap();
        log.push((head.lines().next().unwrap().replace(" HTTP/1.1", ""), body.to_owned()));
        log.len() - 1
    };
    let text = match replies[nth.min(replies.len() - 1)] {
        Answer(status, headers, body) => {
            format!(
                "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
        }
        Cut(headers) => format!("HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"),
        Drop => return,
        Silence => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            return;
        }
    };
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// An endpoint where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn get() -> GetOptions {
    GetOptions::default()
}

#[tokio::test]
async fn an_answer_carries_its_headers() {
    let server = Server::start(&[FOUND]).await;
    let response = Client::new([&server.url]).unwrap().get("a", &get()).await.unwrap();
    assert_eq!(
        (response.etcd_index, response.raft_index, response.raft_term, response.cluster_id.as_str()),
        (9, 99, 3, "cdf8")
    );
    assert_eq!((response.node.value.as_deref(), response.node.modified_index), (Some("1"), 7));
    assert_eq!(server.lines(), ["GET /v2/keys/a?recursive=false&sorted=false"]);
}

#[tokio::test]
async fn requests_are_spelled_as_servers_expect_them() {
    let server = Server::start(&[FOUND]).await;
    let client = Client::new([format!("{}/base/", server.url)]).unwrap();
    let read = GetOptions { recursive: true, sorted: true, quorum: Some(false) };
    client.get("/", &read).await.unwrap();
    let condition = Condition { value: Some("a b&c".to_owned()), index: Some(7) };
    client.compare_and_swap("/k y", "x=1 ", &condition, Some(60)).await.unwrap();
    client.create("k", "v", None).await.unwrap();
    client.update("k", [0xff], Some(0)).await.unwrap();
    client.mkdir("d", None).await.unwrap();
    client.create_in_order("q", "v", Some(5)).await.unwrap();
    client.compare_and_delete("k", &Condition::index(3)).await.unwrap();
    client
        .delete("k", &DeleteOptions { dir: true, recursive: true, ..DeleteOptions::default() })
        .await
        .unwrap();
    let renew = SetOptions { ttl: Some(9), prev_exist: Some(true), refresh: true, ..SetOptions::default() };
    client.set("k", "", &renew).await.unwrap();
    // 0 and "" are no conditions.
    let none = SetOptions { prev_index: Some(0), prev_value: Some(String::new()), ..SetOptions::default() };
    client.set("k", "v", &none).await.unwrap();
    let expected = [
        ("GET /base/v2/keys/?quorum=false&recursive=true&sorted=true", ""),
        ("PUT /base/v2/keys/k%20y?prevIndex=7&prevValue=a+b%26c", "ttl=60&value=x%3D1+"),
        ("PUT /base/v2/keys/k?prevExist=false", "value=v"),
        ("PUT /base/v2/keys/k?prevExist=true", "ttl=0&value=%FF"),
        ("PUT /base/v2/keys/d?dir=true&prevExist=false", ""),
        ("POST /base/v2/keys/q", "ttl=5&value=v"),
        ("DELETE /base/v2/keys/k?prevIndex=3", ""),
        ("DELETE /base/v2/keys/k?dir=true&recursive=true", ""),
        ("PUT /base/v2/keys/k?prevExist=true", "refresh=true&ttl=9"),
        ("PUT /base/v2/keys/k", "value=v"),
    ];
    let seen = server.seen.lock().unwrap().clone();
    let expected: Vec<_> = expected.iter().map(|&(line, body)| (line.to_owned(), body.to_owned())).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_and_then_left_alone() {
    let server = Server::start(&[FOUND]).await;
    let leaderless = Server::start(&[NO_LEADER]).await;
    let client = Client::new([nobody().await, leaderless.url.clone(), server.url.clone()]).unwrap();
    client.get("a", &get()).await.unwrap();
    client.get("a", &get()).await.unwrap();
    assert_eq!((leaderless.lines().len(), server.lines().len()), (1, 2));
}

#[tokio::test]
async fn when_all_fail_each_says_why() {
    let server = Server::start(&[NO_LEADER]).await;
    let broken = Server::start(&[Answer(502, "", "")]).await;
    let cut = Server::start(&[Drop]).await;
    let silent = Server::start(&[Silence]).await;
    let dead = nobody().await;
    let all = [&server.url, &broken.url, &cut.url, &silent.url, &dead];
    let client = Client::builder().timeout(Duration::from_millis(200)).build(all).unwrap();
    let error = client.get("a", &get()).await.unwrap_err();
    let Error::Cluster(failures) = &error else { panic!("{error:?}") };
    let kinds: Vec<_> = failures.iter().map(|failure| failure.kind).collect();
    assert_eq!(
        kinds,
        [
            FailureKind::NoLeader,
            FailureKind::Status(502),
            FailureKind::Broken,
            FailureKind::Timeout,
            FailureKind::Connect
        ]
    );
    assert!(!error.is_connection());
    let address = dead.trim_start_matches("http://");
    assert_eq!(failures[4].text, format!("dial tcp {address}: connect: connection refused"));
    assert_eq!(failures[0].text, format!("client: etcd member {} has no leader", server.url));
    assert_eq!(failures.iter().map(|f| &f.endpoint).collect::<Vec<_>>(), all);
}

#[tokio::test]
async fn the_total_timeout_ends_a_call() {
    let silent = Server::start(&[Silence]).await;
    let client = Client::builder()
        .timeout(None)
        .total_timeout(Duration::from_millis(100))
        .build([&silent.url])
        .unwrap();
    assert_eq!(client.get("a", &get()).await, Err(Error::Timeout));
}

#[tokio::test]
async fn what_cannot_be_repeated_is_not_repeated() {
    let server = Server::start(&[FOUND]).await;
    for reply in [&[Drop], &[NO_LEADER]] {
        let failing = Server::start(reply).await;
        let client = Client::new([&failing.url, &server.url]).unwrap();
        let before = server.lines().len();
        for outcome in [
            client.create("k", "v", None).await,
            client.create_in_order("k", "v", None).await,
            client.delete("k", &DeleteOptions::default()).await,
        ] {
            assert!(matches!(outcome, Err(Error::Uncertain(_))), "{outcome:?}");
        }
        assert_eq!(server.lines().len(), before);
        client.set("k", "v", &SetOptions::default()).await.unwrap();
        assert_eq!(server.lines().len(), before + 1);
    }
    // It was certainly not sent.
    let client = Client::new([nobody().await, server.url.clone()]).unwrap();
    client.create("k", "v", None).await.unwrap();
}

#[tokio::test]
async fn errors_of_the_api_and_of_the_members() {
    const MISSING: Reply =
        Answer(404, "", r#"{"errorCode":100,"message":"Key not found","cause":"/a","index":7}"#);
    const REFUSED: Reply = Answer(409, "", r#"{"message":"membership: peerURL exists"}"#);
    let server = Server::start(&[MISSING, REFUSED, Answer(404, "", "404 page not found\n")]).await;
    let client = Client::new([&server.url]).unwrap();
    let error = client.get("a", &get()).await.unwrap_err();
    assert_eq!((error.api_code(), error.to_string().as_str()), (Some(100), "100: Key not found (/a) [7]"));
    let error = client.member_add(&["http://h:1".to_owned()]).await.unwrap_err();
    assert_eq!(error, Error::Refused { status: 409, message: "membership: peerURL exists".to_owned() });
    assert!(matches!(client.get("a", &get()).await, Err(Error::InvalidAnswer { .. })));
    assert_eq!(server.seen.lock().unwrap()[1].1, r#"{"peerURLs":["http://h:1"]}"#);
}

#[tokio::test]
async fn redirects_keep_method_and_body() {
    let server = Server::start(&[Answer(307, "Location: /v2/keys/elsewhere?x=y\r\n", ""), FOUND]).await;
    let client = Client::new([&server.url]).unwrap();
    client.set("k", "v", &SetOptions::default()).await.unwrap();
    let seen = server.seen.lock().unwrap().clone();
    assert_eq!(seen[1], ("PUT /v2/keys/elsewhere?x=y".to_owned(), "value=v".to_owned()));
    let circle = Server::start(&[Answer(307, "Location: /v2/keys/k\r\n", "")]).await;
    let outcome = Client::new([&circle.url]).unwrap().get("k", &get()).await;
    assert!(matches!(outcome, Err(Error::Cluster(_))), "{outcome:?}");
    assert_eq!(circle.lines().len(), 11);
}

#[tokio::test]
async fn a_watch_outlives_polls_without_an_event() {
    let server = Server::start(&[
        Answer(200, "X-Etcd-Index: 41\r\n", ""),
        Cut("X-Etcd-Index: 50\r\n"),
        Answer(200, "", r#"{"action":"set","node":{"key":"/a","modifiedIndex":60}}"#),
        Answer(200, "", r#"{"action":"set","node":{"key":"/a","modifiedIndex":77}}"#),
        Answer(400, "", r#"{"errorCode":401,"message":"gone","cause":"[80/78]","index":99}"#),
    ])
    .await;
    let client = Client::new([&server.url]).unwrap();
    let events: Vec<_> = client.watch_stream("/a", &WatchOptions::default()).collect().await;
    let indexes: Vec<_> = events.iter().flatten().map(|event| event.node.modified_index).collect();
    assert_eq!(indexes, [60, 77]);
    assert_eq!(events.last().unwrap().as_ref().unwrap_err().api_code(), Some(401));
    let waits: Vec<_> =
        server.lines().iter().map(|line| line.rsplit_once('=').unwrap().1.to_owned()).collect();
    assert_eq!(waits, ["0", "42", "42", "61", "78"]);
}

#[tokio::test]
async fn a_watch_after_an_index_waits_from_the_next() {
    let server = Server::start(&[FOUND]).await;
    let client = Client::new([&server.url]).unwrap();
    client.watch("/a", &WatchOptions { after_index: 6, recursive: true }).await.unwrap();
    assert_eq!(server.lines(), ["GET /v2/keys/a?recursive=true&wait=true&waitIndex=7"]);
}

#[tokio::test]
async fn sync_takes_over_what_members_publish() {
    const MEMBERS: Reply = Answer(
        200,
        "",
        r#"{"members":[{"id":"a1","name":"m1","peerURLs":["http://p:1"],"clientURLs":["http://c:1","http://c:2"]},
            {"id":"b2","name":"","peerURLs":["http://p:2"],"clientURLs":null}]}"#,
    );
    let server = Server::start(&[MEMBERS, MEMBERS, Answer(200, "", r#"{"members":[]}"#)]).await;
    let client = Client::new([&server.url]).unwrap();
    let members = client.members().await.unwrap();
    assert_eq!((members[0].id.as_str(), members[1].client_urls.len()), ("a1", 0));
    client.sync().await.unwrap();
    assert_eq!(client.endpoints(), ["http://c:1", "http://c:2"]);
    let client = Client::new([&server.url]).unwrap();
    assert_eq!(client.sync().await, Err(Error::NoEndpoints));
    assert_eq!(client.endpoints(), [server.url]);
}

#[tokio::test]
async fn version_machines_and_health_in_their_old_and_new_forms() {
    let server = Server::start(&[
        Answer(200, "", "etcd 0.4.6"),
        Answer(200, "", r#"{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}"#),
        Answer(200, "", "http://a:4001, http://b:4001"),
        Answer(200, "", r#"{"health": "true"}"#),
        Answer(503, "", r#"{"health":"false"}"#),
        Answer(200, "", r#"{"health":true}"#),
        Answer(200, "", "fine"),
    ])
    .await;
    let client = Client::new([&server.url]).unwrap();
    assert_eq!(client.version().await.unwrap().server, "0.4.6");
    assert_eq!(client.version().await.unwrap().cluster, "3.4.0");
    assert_eq!(client.machines().await.unwrap(), ["http://a:4001", "http://b:4001"]);
    for healthy in [true, false, true] {
        assert_eq!(client.health(&server.url).await, Ok(healthy));
    }
    assert!(matches!(client.health(&server.url).await, Err(Error::InvalidAnswer { .. })));
    assert!(
        matches!(client.health(&nobody().await).await, Err(Error::Cluster(failures)) if failures.len() == 1)
    );
}

#[tokio::test]
async fn a_discovery_service_has_no_prefix() {
    let server = Server::start(&[FOUND]).await;
    let client = Client::builder().keys_prefix("").build([&server.url]).unwrap();
    client.get("/token/_config/size", &get()).await.unwrap();
    client.watch("/token", &WatchOptions::default()).await.unwrap();
    client.get("/", &get()).await.unwrap();
    let paths: Vec<_> =
        server.lines().iter().map(|line| line.split('?').next().unwrap().to_owned()).collect();
    assert_eq!(paths, ["GET /token/_config/size", "GET /token", "GET /"]);
}

#[test]
fn endpoints_that_are_none() {
    for bad in ["", "ftp://h:1", "http://", "http://[::1", "http://h:99999"] {
        assert!(matches!(Client::new([bad]), Err(Error::InvalidEndpoint { .. })), "{bad}");
    }
    assert_eq!(Client::new([""; 0]).unwrap_err(), Error::NoEndpoints);
    let client = Client::new(["h", "https://h:2/base/"]).unwrap();
    assert_eq!(client.endpoints(), ["http://h", "https://h:2/base"]);
}

#[tokio::test]
async fn https_fails_as_a_connection_not_as_a_panic() {
    let address = nobody().await.replace("http://", "https://");
    let outcome = Client::new([address]).unwrap().get("a", &get()).await;
    assert!(matches!(outcome, Err(Error::Cluster(_) | Error::InvalidConfig(_))), "{outcome:?}");
}
