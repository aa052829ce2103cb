//! What clients can ask for beyond etcd.

use super::{Server, body, eventually, rest, status, unchunked, until, wait_request};
use quorate::http::ServeConfig;
use quorate::http::backend::WatchItem;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

async fn server() -> Server {
    Server::start(ServeConfig::default()).await
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn index(answer: &str) -> u64 {
    header(answer, "X-Etcd-Index").unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_wait_ends_in_time_with_the_index_up_to_which_nothing_happened() {
    let server = server().await;
    for value in 0..5 {
        server.send("PUT", "/v2/keys/other", &format!("value={value}")).await;
    }
    let started = Instant::now();
    let answer = server.get("/v2/keys/k?wait=true&waitTimeout=0.2").await;
    assert!((200..2000).contains(&started.elapsed().as_millis()));
    assert_eq!((status(&answer), body(&answer)), ("200", "{\"action\":\"timeout\",\"index\":5}\n"));
    assert_eq!(index(&answer), 5);
    assert_eq!(header(&answer, "Content-Type"), Some("application/json"));
    // Without waiting; from the future; and what is there already.
    assert!(server.get("/v2/keys/k?wait=true&waitTimeout=0&waitIndex=99").await.ends_with("\"index\":5}\n"));
    let past = server.get("/v2/keys/other?wait=true&waitTimeout=0&waitIndex=2").await;
    assert!(body(&past).contains("\"modifiedIndex\":2") && index(&past) == 5, "{past}");
    assert_eq!(status(&server.get("/v2/keys/k?wait=true&waitTimeout=x").await), "400");
    assert_eq!(server.member.watchers(), 0);
}

#[tokio::test]
async fn a_wait_with_a_timeout_answers_with_the_index_of_that_moment() {
    let server = server().await;
    let mut waiter = server.connect().await;
    waiter.write_all(wait_request("/v2/keys/k?wait=true&waitTimeout=60").as_bytes()).await.unwrap();
    eventually(|| server.member.watchers() == 1).await;
    server.send("PUT", "/v2/keys/other", "value=1").await;
    server.send("PUT", "/v2/keys/k", "value=1").await;
    let answer = until(&mut waiter, "}}\n").await;
    assert!(index(&answer) == 2 && answer.contains("\"modifiedIndex\":2"), "{answer}");
    assert!(header(&answer, "Content-Length").is_some(), "it is there in full");
    // The client that goes away takes its watcher with it, though no head has been sent.
    waiter.write_all(wait_request("/v2/keys/k?wait=true&waitTimeout=60").as_bytes()).await.unwrap();
    eventually(|| server.member.watchers() == 1).await;
    drop(waiter);
    eventually(|| server.member.watchers() == 0).await;
}

#[tokio::test]
async fn what_else_ends_a_wait_with_a_timeout() {
    let mut server = server().await;
    for (item, code) in [(WatchItem::Lagged { delivered: 0 }, 401), (WatchItem::Cleared, 400)] {
        let mut waiter = server.connect().await;
        waiter.write_all(wait_request("/v2/keys/k?wait=true&waitTimeout=60").as_bytes()).await.unwrap();
        eventually(|| server.member.watchers() == 1).await;
        server.member.end_watches(&item);
        let answer = until(&mut waiter, "}\n").await;
        assert!(body(&answer).starts_with(&format!("{{\"errorCode\":{code},")), "{answer}");
        assert_eq!(status(&answer), "400");
    }
    let mut waiter = server.connect().await;
    waiter.write_all(wait_request("/v2/keys/k?wait=true&waitTimeout=60").as_bytes()).await.unwrap();
    eventually(|| server.member.watchers() == 1).await;
    let started = Instant::now();
    server.shutdown.take().unwrap().send(()).unwrap();
    let answer = rest(&mut waiter).await;
    assert!(status(&answer) == "500" && answer.contains("server stopped"), "{answer}");
    assert!(started.elapsed() < ServeConfig::default().shutdown_grace);
}

#[tokio::test]
async fn a_stream_ends_in_time_too() {
    let server = server().await;
    let mut stream = server.connect().await;
    let request = "GET /v2/keys/?wait=true&stream=true&recursive=true&waitTimeout=0.4 HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = until(&mut stream, "\r\n\r\n").await;
    server.send("PUT", "/v2/keys/a", "value=1").await;
    server.send("PUT", "/v2/keys/_hidden", "value=1").await;
    let answer = head + &rest(&mut stream).await;
    let text = unchunked(&answer);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[1], json!({"action": "timeout", "index": 2}));
}

/// A client that takes trailers learns the index of the moment in which its wait returns; others see no difference.
#[tokio::test]
async fn the_fresh_index_of_an_armed_wait_is_a_trailer() {
    let server = server().await;
    let request =
        |te: &str| format!("GET /v2/keys/k?wait=true HTTP/1.1\r\nHost: m\r\n{te}Connection: close\r\n\r\n");
    let mut plain = server.connect().await;
    plain.write_all(request("").as_bytes()).await.unwrap();
    let mut aware = server.connect().await;
    aware.write_all(request("TE: trailers\r\n").as_bytes()).await.unwrap();
    let heads = (until(&mut plain, "\r\n\r\n").await, until(&mut aware, "\r\n\r\n").await);
    assert_eq!(heads.1.replace("Trailer: X-Etcd-Index\r\n", ""), heads.0);
    server.send("PUT", "/v2/keys/other", "value=1").await;
    server.send("PUT", "/v2/keys/k", "value=1").await;
    assert!(rest(&mut plain).await.ends_with("}\n\r\n0\r\n\r\n"));
    assert!(rest(&mut aware).await.ends_with("}\n\r\n0\r\nX-Etcd-Index: 2\r\n\r\n"));
}

#[tokio::test]
async fn keys_only() {
    let server = server().await;
    server.send("PUT", "/v2/keys/d/a?ttl=100", "value=secret").await;
    let file = server.get("/v2/keys/d/a?keysOnly=true").await;
    let listing = server.get("/v2/keys/?keysOnly=true&recursive=true").await;
    for answer in [&file, &listing] {
        assert!(
            !answer.contains("value")
                && answer.contains("\"key\":\"/d/a\"")
                && answer.contains("\"ttl\":100")
        );
        serde_json::from_str::<Value>(body(answer)).unwrap();
    }
    assert!(server.get("/v2/keys/d/a?keysOnly=false").await.contains("secret"));
}

/// Follows the links from a target on; the keys of the files that were shown, and the answers.
async fn follow(server: &Server, target: &str) -> (Vec<String>, Vec<String>) {
    fn collect(node: &Value, keys: &mut Vec<String>) {
        for child in node["nodes"].as_array().into_iter().flatten() {
            collect(child, keys);
        }
        if node["dir"] != true {
            keys.push(node["key"].as_str().unwrap().to_owned());
        }
    }
    let (mut keys, mut answers) = (Vec::new(), Vec::new());
    let mut next = Some(target.to_owned());
    while let Some(target) = next {
        let answer = server.get(&target).await;
        assert_eq!(status(&answer), "200", "{answer}");
        let page: Value = serde_json::from_str(body(&answer)).unwrap();
        collect(&page["node"], &mut keys);
        let link = header(&answer, "Link").map(|link| {
            link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap().to_owned()
        });
        next = link;
        answers.push(answer);
    }
    (keys, answers)
}

#[tokio::test]
async fn pages_show_one_moment() {
    let server = server().await;
    for at in 0..9 {
        server.send("PUT", &format!("/v2/keys/d/{}/x%20{at}", at / 3), "value=old").await;
    }
    let first = server.get("/v2/keys/d?recursive=true&limit=4").await;
    let next = header(&first, "Link").unwrap();
    assert_eq!(next, "</v2/keys/d?start=/d/1&atIndex=9&recursive=true&limit=4>; rel=\"next\"");
    // What happens now is not shown any more.
    server.send("DELETE", "/v2/keys/d/2?recursive=true", "").await;
    server.send("PUT", "/v2/keys/d/1/new", "value=new").await;
    let target = next.strip_prefix('<').unwrap().split('>').next().unwrap();
    let (keys, answers) = follow(&server, target).await;
    let expected: Vec<String> = (3..9).map(|at| format!("/d/{}/x {at}", at / 3)).collect();
    assert_eq!(keys, expected);
    assert!(answers.len() == 2 && answers.iter().all(|answer| index(answer) == 9));
    // From a key on, in the present; an empty rest; what is not there; what is no directory.
    let (keys, _) = follow(&server, "/v2/keys/d?recursive=true&limit=1&start=1/x").await;
    assert_eq!(keys, ["/d/1/x 3", "/d/1/x 4", "/d/1/x 5"]);
    assert_eq!(follow(&server, "/v2/keys/d?start=zzz").await.0, Vec::<String>::new());
    assert_eq!(status(&server.get("/v2/keys/none?limit=5").await), "404");
    assert!(server.get("/v2/keys/d/1/new?limit=5").await.contains("\"value\":\"new\""));
    let flat = server.get("/v2/keys/d?limit=1&keysOnly=true").await;
    assert_eq!(
        header(&flat, "Link"),
        Some("</v2/keys/d?start=/d/1&atIndex=11&limit=1&keysOnly=true>; rel=\"next\"")
    );
}

/// A member that does not have the state shows its own if it is the same in the directory, and says so if not.
#[tokio::test]
async fn a_page_of_a_state_that_is_not_kept() {
    let server = server().await;
    server.send("PUT", "/v2/keys/d/a", "value=1").await;
    server.send("PUT", "/v2/keys/e/a", "value=1").await;
    let same = server.get("/v2/keys/d?limit=5&atIndex=1").await;
    assert!(same.contains("/d/a") && index(&same) == 1);
    server.send("PUT", "/v2/keys/d/a", "value=1").await;
    let other = server.get("/v2/keys/d?limit=5&atIndex=1").await;
    let expected = "{\"errorCode\":401,\"message\":\"The event in requested index is outdated and cleared\",\"cause\":\"the state at index 1 is not kept any more, and the directory has changed\",\"index\":3}\n";
    assert_eq!((status(&other), body(&other)), ("400", expected));
    assert_eq!(status(&server.get("/v2/keys/d?limit=5&atIndex=99").await), "400");
}

/// A later state that stands in for an earlier one does so in the directory in which they are the same, and nowhere else.
#[tokio::test]
async fn a_stand_in_is_for_one_directory() {
    let server = server().await;
    for key in ["d/a", "d/b", "e/a"] {
        server.send("PUT", &format!("/v2/keys/{key}"), "value=1").await;
    }
    server.send("PUT", "/v2/keys/e/a", "value=2").await;
    let stand_in = server.get("/v2/keys/d?limit=1&atIndex=3").await;
    assert!(header(&stand_in, "Link").is_some() && index(&stand_in) == 3);
    assert_eq!(status(&server.get("/v2/keys/e?limit=1&atIndex=3").await), "400");
    // It is kept for that one.
    server.send("PUT", "/v2/keys/d/b", "value=2").await;
    let next = server.get("/v2/keys/d?limit=1&start=b&atIndex=3").await;
    assert!(next.contains("\"value\":\"1\"") && index(&next) == 3, "{next}");
}

/// A page ends at a megabyte, and the link says where the next begins.
#[tokio::test]
async fn large_values_make_short_pages() {
    let server = server().await;
    for at in 0..5 {
        server.send("PUT", &format!("/v2/keys/d/{at}"), &format!("value={}", "x".repeat(700_000))).await;
    }
    let (keys, answers) = follow(&server, "/v2/keys/d?limit=100").await;
    assert_eq!((keys.len(), answers.len()), (5, 3));
    assert!(answers.iter().all(|answer| answer.len() < 2_000_000));
}

#[tokio::test]
async fn server_sent_events() {
    let config = ServeConfig { cors: vec!["*".into()], ..ServeConfig::default() };
    let server = Server::start(config).await;
    server.send("PUT", "/v2/keys/d/a", "value=1").await;
    let open = |more: &str, query: &str| {
        format!(
            "GET /v2/keys/d?wait=true&recursive=true{query} HTTP/1.1\r\nHost: m\r\nOrigin: https://page\r\nAccept: text/event-stream\r\n{more}\r\n"
        )
    };
    let mut stream = server.connect().await;
    stream.write_all(open("", "").as_bytes()).await.unwrap();
    let head = until(&mut stream, "retry: 1000\nid: 1\n\n").await;
    for line in [
        "Content-Type: text/event-stream; charset=utf-8",
        "Cache-Control: no-store",
        "Access-Control-Allow-Origin: *",
        "Access-Control-Expose-Headers: Link, X-Etcd-Index",
        "X-Etcd-Index: 1",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    server.send("PUT", "/v2/keys/d/b", "value=line%0Abreak").await;
    let event = until(&mut stream, "\n\n").await;
    let node = r#"{"key":"/d/b","value":"line\nbreak","modifiedIndex":2,"createdIndex":2}"#;
    assert!(event.contains(&format!("id: 2\ndata: {{\"action\":\"set\",\"node\":{node}}}\n\n")), "{event}");
    drop(stream);
    // It comes back, and goes on behind what it got, whatever the URL says.
    server.send("PUT", "/v2/keys/d/c", "value=1").await;
    let mut again = server.connect().await;
    again.write_all(open("Last-Event-ID: 1\r\n", "&waitIndex=1").as_bytes()).await.unwrap();
    let events = until(&mut again, "id: 3\ndata: ").await;
    assert!(
        events.contains("\nid: 1\n\n") && events.contains("id: 2\ndata: ") && !events.contains("/d/a"),
        "{events}"
    );
    // Other forms of wait are as ever.
    let plain = server.get("/v2/keys/d?wait=true&recursive=true&waitIndex=1").await;
    assert!(plain.contains("Content-Type: application/json"), "{plain}");
    assert!(!plain.contains("Expose"));
}

#[tokio::test]
async fn what_goes_wrong_with_server_sent_events() {
    let server = Server::start(ServeConfig { cors: vec!["*".into()], ..ServeConfig::default() }).await;
    for value in 0..150 {
        server.send("PUT", "/v2/keys/k", &format!("value={value}")).await;
    }
    let ask = |query: &str, more: &str| {
        server.exchange(format!("GET /v2/keys/k?wait=true{query} HTTP/1.1\r\nHost: m\r\nAccept: text/event-stream\r\nConnection: close\r\n{more}\r\n"))
    };
    // Too old: an event that a page can read, and an id with which it comes back for the present.
    let old = ask("&waitIndex=2", "").await;
    assert_eq!(
        (status(&old), header(&old, "Content-Type")),
        ("200", Some("text/event-stream; charset=utf-8"))
    );
    assert!(
        body(&old).starts_with("event: error\nid: 150\ndata: {\"errorCode\":401,")
            && old.ends_with("\"index\":150}\n\n"),
        "{old}"
    );
    // No request at all: the browser gives up.
    assert_eq!(status(&ask("&recursive=x", "").await), "400");
    let bad_id = ask("", "Last-Event-ID: x\r\n").await;
    assert!(status(&bad_id) == "400" && bad_id.contains("\"errorCode\":203"), "{bad_id}");
    // Time is up.
    let timeout = unchunked(&ask("&waitTimeout=0.1", "").await);
    assert!(
        timeout.ends_with("event: timeout\nid: 150\ndata: {\"action\":\"timeout\",\"index\":150}\n\n"),
        "{timeout}"
    );
    // It lags.
    let mut stream = server.connect().await;
    let request = "GET /v2/keys/k?wait=true HTTP/1.1\r\nHost: m\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    until(&mut stream, "id: 150\n\n").await;
    server.member.end_watches(&WatchItem::Lagged { delivered: 150 });
    let end = rest(&mut stream).await;
    assert!(end.contains("event: error\nid: 150\ndata: {\"errorCode\":401,"), "{end}");
    let preflight = server.exchange("OPTIONS /v2/keys/k HTTP/1.1\r\nHost: m\r\nOrigin: https://p\r\nAccess-Control-Request-Headers: Last-Event-ID\r\nConnection: close\r\n\r\n").await;
    assert_eq!(
        header(&preflight, "Access-Control-Allow-Headers"),
        Some("accept, content-type, authorization, last-event-id")
    );
}

/// Nothing happens at the key, but the client's position moves on, so that it stays within the history.
#[tokio::test]
async fn a_quiet_stream_of_events_shows_that_it_is_alive() {
    let config = ServeConfig { keep_alive: Duration::from_millis(50), ..ServeConfig::default() };
    let server = Server::start(config).await;
    let mut stream = server.connect().await;
    let request = "GET /v2/keys/k?wait=true HTTP/1.1\r\nHost: m\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    until(&mut stream, ": nothing new\nid: 0\n\n").await;
    server.send("PUT", "/v2/keys/other", "value=1").await;
    until(&mut stream, ": nothing new\nid: 1\n\n").await;
    server.send("PUT", "/v2/keys/k", "value=1").await;
    until(&mut stream, "id: 2\ndata: ").await;
}
