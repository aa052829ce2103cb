use super::answer::{Answer, KeyNode, Verdict};
use super::join::join_patiently;
use super::registry::{Joining, Registry, Standing, parse_size, registration_value};
use super::service::{Patience, Service};
use super::*;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const URL: &str = "http://127.0.0.1:1/v2/keys/token";

fn node(id: &str, value: &str, created: u64) -> KeyNode {
    KeyNode { key: format!("/token/{id}"), value: value.to_owned(), created, ..KeyNode::default() }
}

fn registry(size: usize, nodes: Vec<KeyNode>) -> Registry {
    Registry::new(URL, size, KeyNode { key: "/token".to_owned(), dir: true, nodes, ..KeyNode::default() })
}

fn found(members: &[(&str, &[&str])]) -> Standing {
    let owned = |(name, urls): &(&str, &[&str])| {
        ((*name).to_owned(), urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>())
    };
    Standing::Found(members.iter().map(owned).collect())
}

const ME: Joining<'_> = Joining { id: 0xb, name: "b", value: "b=http://b:1" };

#[test]
fn members_are_read_in_the_notation_of_initial_cluster() {
    let read = |text| parse_members(text);
    let member =
        |name: &str, urls: &[&str]| (name.to_owned(), urls.iter().map(|&url| url.to_owned()).collect());
    assert_eq!(
        read("a=http://a:1, b=http://b:1,a=http://a:2,"),
        Ok(vec![member("a", &["http://a:1", "http://a:2"]), member("b", &["http://b:1"])])
    );
    assert_eq!(read(""), Ok(vec![]));
    assert_eq!(read("a=x=y"), Ok(vec![member("a", &["x=y"])]));
    assert_eq!(read("a"), Err("Empty URL given for \"a\"".to_owned()));
    assert_eq!(read("a=,b=http://b:1"), Err("Empty URL given for \"a\"".to_owned()));
    assert_eq!(read("=http://b:1"), Err("Empty name given for \"http://b:1\"".to_owned()));
}

#[test]
fn sizes() {
    for (text, size) in [
        ("3", Some(3)),
        ("1", Some(1)),
        ("0", None),
        ("-1", None),
        ("three", None),
        ("", None),
        ("1.5", None),
    ] {
        assert_eq!(parse_size(text), size, "{text:?}");
    }
}

#[test]
fn the_first_registrations_in_order_of_creation_are_the_cluster() {
    let hidden = KeyNode { key: "/token/_config".to_owned(), dir: true, ..KeyNode::default() };
    let late = node("1", "not even valid", 50);
    let nodes = vec![
        late,
        node("c", "c=http://c:1", 9),
        hidden,
        node("B", "b=http://b:1", 10),
        node("a", "a=http://a:1", 8),
    ];
    assert_eq!(
        registry(3, nodes).standing(ME),
        Ok(found(&[("a", &["http://a:1"]), ("c", &["http://c:1"]), ("b", &["http://b:1"])]))
    );
}

#[test]
fn a_member_is_told_how_it_stands() {
    let a = || node("a", "a=http://a:1", 8);
    let b = || node("b", "b=http://b:1", 9);
    assert_eq!(registry(2, vec![]).standing(ME), Ok(Standing::Absent));
    assert_eq!(registry(2, vec![a()]).standing(ME), Ok(Standing::Absent));
    assert_eq!(registry(3, vec![a(), b()]).standing(ME), Ok(Standing::Waiting { present: 2 }));
    assert_eq!(registry(1, vec![b()]).standing(ME), Ok(found(&[("b", &["http://b:1"])])));
    let full =
        DiscoveryError::Full { url: URL.to_owned(), size: 1, holders: vec!["a=http://a:1".to_owned()] };
    assert_eq!(registry(1, vec![a()]).standing(ME), Err(full.clone()), "not registered");
    assert_eq!(registry(1, vec![a(), b()]).standing(ME), Err(full), "registered too late");
}

#[test]
fn its_own_registration_is_known_by_id_and_value() {
    let two_urls = Joining { value: "b=http://b:1,b=http://b:2", ..ME };
    let other_order = node("b", "b=http://b:2,b=http://b:1", 1);
    assert_eq!(registry(2, vec![other_order]).standing(two_urls), Ok(Standing::Waiting { present: 1 }));
    let error = registry(2, vec![node("b", "x=http://b:1", 1)]).standing(ME).unwrap_err();
    assert_eq!(
        error.to_string(),
        "discovery: found duplicate id b: it is registered as \"x=http://b:1\" and this member is \"b=http://b:1\"; \
         start it with the name and the peer URLs that it registered, or use a new discovery URL"
    );
}

/// Each of these would otherwise take a slot of a cluster that cannot form.
#[test]
fn what_cannot_be_one_cluster_is_refused_before_registering() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[("a", "b=http://a:1")],
            "discovery: found duplicate name \"b\": \"b=http://a:1\" is registered as a, and this member is \
             \"b=http://b:1\" (b); give each member a -name of its own and, if both are registered, use a new \
             discovery URL",
        ),
        (
            &[("a", "a=http://a:1"), ("c", "a=http://c:1")],
            "discovery: registrations \"a=http://a:1\" and \"a=http://c:1\" at http://127.0.0.1:1/v2/keys/token have \
             name a in common; use a new discovery URL",
        ),
        (
            &[("a", "a=http://a:1"), ("c", "c=http://a:1")],
            "discovery: registrations \"a=http://a:1\" and \"c=http://a:1\" at http://127.0.0.1:1/v2/keys/token have \
             http://a:1 in common; use a new discovery URL",
        ),
        // A member of 0.4 registers under its name.
        (
            &[("node1", "http://a:7001")],
            "discovery: invalid registration node1 = \"http://a:7001\": Empty URL given for \"http://a:7001\"",
        ),
        (&[("a", "a=a:1")], "discovery: invalid registration a = \"a=a:1\": invalid URL \"a:1\""),
        (
            &[("a", "a=http://a:1,c=http://c:1")],
            "discovery: invalid registration a = \"a=http://a:1,c=http://c:1\": it is not of the form <name>=<peer url>",
        ),
    ];
    for (nodes, expected) in cases {
        let nodes = nodes.iter().zip(1..).map(|((id, value), created)| node(id, value, created)).collect();
        let error = registry(4, nodes).standing(ME).expect_err(expected);
        assert_eq!(error.to_string(), *expected);
    }
}

proptest! {
    /// Whatever order the service lists them in, all members find the same cluster, or none does.
    #[test]
    fn all_members_agree(size in 1usize..5, order in Just((0..6u64).collect::<Vec<_>>()).prop_shuffle()) {
        let nodes: Vec<KeyNode> =
            order.iter().map(|i| node(&format!("{i:x}"), &format!("n{i}=http://n{i}:1"), 100 - i)).collect();
        let registry = registry(size, nodes);
        let standings: Vec<_> = (0..6u64)
            .filter_map(|i| {
                let (name, value) = (format!("n{i}"), format!("n{i}=http://n{i}:1"));
                registry.standing(Joining { id: i, name: &name, value: &value }).ok()
            })
            .collect();
        prop_assert_eq!(standings.len(), size);
        prop_assert!(standings.iter().all(|standing| standing == &standings[0]));
    }

    #[test]
    fn no_answer_makes_it_panic(status in 100u16..600, body in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Answer { status, index: None, body }.verdict();
    }
}

#[test]
fn answers_are_understood() {
    let verdict = |status, body: &str| Answer { status, index: None, body: body.into() }.verdict();
    let key =
        r#"{"action":"get","node":{"key":"/t/_config/size","value":"3","modifiedIndex":4,"createdIndex":4}}"#;
    let size = KeyNode {
        key: "/t/_config/size".to_owned(),
        value: "3".to_owned(),
        created: 4,
        ..KeyNode::default()
    };
    assert_eq!(verdict(200, key), Verdict::Node(size));
    let error = |code| format!("{{\"errorCode\":{code},\"message\":\"m\",\"cause\":\"/c\",\"index\":3}}\n");
    assert_eq!(verdict(404, &error(100)), Verdict::Missing);
    assert_eq!(verdict(412, &error(105)), Verdict::Exists);
    assert_eq!(verdict(400, &error(401)), Verdict::Unwell("401: m (/c)".to_owned()));
    assert_eq!(verdict(500, &error(300)), Verdict::Unwell("300: m (/c)".to_owned()));
    assert_eq!(verdict(401, &error(110)), Verdict::Refused("110: m (/c)".to_owned()));
    assert_eq!(verdict(403, &error(102)), Verdict::Refused("102: m (/c)".to_owned()));
    assert_eq!(verdict(200, ""), Verdict::Unwell("an empty answer".to_owned()));
    assert_eq!(verdict(503, "<p>no</p>"), Verdict::Unwell("503 \"<p>no</p>\"".to_owned()));
    assert_eq!(
        verdict(404, "404 page\n not found"),
        Verdict::Foreign("404 \"404 page not found\"".to_owned())
    );
    assert_eq!(verdict(200, "{}"), Verdict::Foreign("200 \"{}\"".to_owned()));
}

/// Patience for a test: the same course of events in a hundredth of the time.
fn hasty() -> Patience {
    let ms = Duration::from_millis;
    Patience {
        first_contact: ms(300),
        request: ms(2000),
        watch: ms(2000),
        backoff_min: ms(5),
        backoff_max: ms(40),
        pause: ms(5),
    }
}

fn request(url: String) -> DiscoveryRequest {
    DiscoveryRequest { url, name: "b".to_owned(), peer_urls: vec!["http://b:1".to_owned()], member_id: 0xb }
}

/// A service that gives these answers, one a connection, the last one again and again; and the URL of a token there.
async fn scripted(answers: Vec<(u16, String)>) -> (String, tokio::task::JoinHandle<()>) {
    let (url, server, _) = recorded(answers).await;
    (url, server)
}

/// The same, and the requests that it was sent: method, path below the token, body.
async fn recorded(
    answers: Vec<(u16, String)>,
) -> (String, tokio::task::JoinHandle<()>, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v2/keys/token", listener.local_addr().unwrap());
    let serve = async move {
        for turn in 0.. {
            let (status, body) = &answers[turn.min(answers.len() - 1)];
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            let mut request = String::new();
            // The head, and the body if there is one: a form's ends with its only value.
            while !request.contains("\r\n\r\n") || request.starts_with("PUT") && !request.contains("value=") {
                let read = socket.read(&mut bytes).await.unwrap();
                request.push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
            let (head, form) = request.split_once("\r\n\r\n").unwrap();
            let line =
                head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").replace("/v2/keys/token", "");
            log.lock().unwrap().push(format!("{line} {form}").trim_end().to_owned());
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} x\r\nX-Etcd-Index: 9\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
        }
    };
    (url, tokio::spawn(serve), requests)
}

fn size_is(size: &str) -> (u16, String) {
    (
        200,
        format!(
            r#"{{"action":"get","node":{{"key":"/token/_config/size","value":"{size}","createdIndex":1}}}}"#
        ),
    )
}

fn listing(registered: &[(&str, &str)]) -> (u16, String) {
    let nodes: Vec<String> = registered
        .iter()
        .zip(2..)
        .map(|((id, value), at)| format!(r#"{{"key":"/token/{id}","value":"{value}","createdIndex":{at}}}"#))
        .collect();
    (200, format!(r#"{{"action":"get","node":{{"key":"/token","dir":true,"nodes":[{}]}}}}"#, nodes.join(",")))
}

fn nothing(status: u16) -> (u16, String) {
    (status, String::new())
}

#[tokio::test]
async fn a_service_that_is_not_there_is_given_up_after_a_while() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = join_patiently(&request(format!("http://{closed}/v2/keys/t")), hasty()).await.unwrap_err();
    assert!(
        matches!(&error, DiscoveryError::Unreachable { reason, .. } if reason.contains("refused")),
        "{error}"
    );

    let unknown = "http://no-such-host.invalid/v2/keys/t".to_owned();
    let error = join_patiently(&request(unknown), hasty()).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_discovery_service_is_an_error_at_once() {
    for (status, body) in [(404, "404 page not found"), (200, "<html>hello</html>")] {
        let (url, server) = scripted(vec![(status, body.to_owned())]).await;
        let error = join_patiently(&request(url), hasty()).await.unwrap_err();
        assert!(
            matches!(&error, DiscoveryError::BadEndpoint { answer, .. } if answer.contains(body)),
            "{error}"
        );
        server.abort();
    }
}

#[tokio::test]
async fn what_is_no_discovery_url_is_never_asked() {
    for (url, reason) in [
        ("discovery.example/t", "relative URL without a base"),
        ("ftp://d/t", "it must begin with http:// or https:// and a host"),
        ("http://d/", "it names no token"),
        ("http://d/t?x=1", "it must not have a query or a fragment"),
    ] {
        let error = join_patiently(&request(url.to_owned()), hasty()).await.unwrap_err();
        assert_eq!(error, DiscoveryError::BadUrl { url: url.to_owned(), reason: reason.to_owned() });
    }
}

#[tokio::test]
async fn a_password_is_not_shown() {
    let service = Service::new("http://u:secret@d/v2/keys/t/", hasty()).unwrap();
    assert_eq!(service.shown(), "http://u:xxxxx@d/v2/keys/t");
}

#[tokio::test]
async fn bad_and_missing_sizes_are_errors_that_say_so() {
    for size in ["0", "-1", "many"] {
        let (url, server) = scripted(vec![size_is(size)]).await;
        let error = join_patiently(&request(url), hasty()).await.unwrap_err();
        assert!(matches!(&error, DiscoveryError::SizeBad { size: shown, .. } if shown == size), "{error}");
        server.abort();
    }
    let missing = r#"{"errorCode":100,"message":"Key not found","cause":"/token/_config","index":5}"#;
    let (url, server) = scripted(vec![(404, missing.to_owned())]).await;
    let error = join_patiently(&request(url.clone()), hasty()).await.unwrap_err();
    assert_eq!(error, DiscoveryError::SizeMissing { url });
    server.abort();
}

/// Outages, empty waits and error pages in the middle; after the first sensible answer they only cost time.
#[tokio::test]
async fn a_service_that_fails_now_and_then_is_waited_for() {
    let own = ("b", "b=http://b:1");
    let created = r#"{"action":"create","node":{"key":"/token/b","value":"b=http://b:1","createdIndex":3}}"#;
    let script = vec![
        nothing(503),
        size_is("2"),
        nothing(502),
        (404, "<html>the proxy has lost its backend</html>".to_owned()),
        listing(&[]),
        // The registration succeeds, its answer is lost, and the repetition finds it there.
        nothing(504),
        (412, r#"{"errorCode":105,"message":"Key already exists","cause":"/token/b","index":3}"#.to_owned()),
        size_is("2"),
        listing(&[own]),
        // Waits: an empty end, a cleared history, an event.
        nothing(200),
        size_is("2"),
        listing(&[own]),
        (400, r#"{"errorCode":401,"message":"cleared","cause":"","index":3000}"#.to_owned()),
        size_is("2"),
        listing(&[own]),
        (200, created.to_owned()),
        size_is("2"),
        listing(&[own, ("c", "c=http://c:1")]),
    ];
    let (url, server) = scripted(script).await;
    let cluster = join_patiently(&request(url.clone()), hasty()).await.unwrap();
    let member = |name: &str| (name.to_owned(), vec![format!("http://{name}:1")]);
    assert_eq!(cluster, FoundCluster { members: vec![member("b"), member("c")], size: 2, token: url });
    server.abort();
}

/// The sequence of a 2.x member, which also makes it through caches and proxies that were set up for one.
#[tokio::test]
async fn the_requests_are_those_of_the_protocol() {
    let own = ("b", "b=http://b:1");
    let created = r#"{"action":"create","node":{"key":"/token/b","value":"b=http://b:1","createdIndex":3}}"#;
    let event = || (200, created.to_owned());
    let full = || listing(&[own, ("c", "c=http://c:1")]);
    let script = vec![
        size_is("2"),
        listing(&[]),
        event(),
        event(),
        size_is("2"),
        listing(&[own]),
        event(),
        size_is("2"),
        full(),
    ];
    let (url, server, requests) = recorded(script).await;
    join_patiently(&request(url), hasty()).await.unwrap();
    server.abort();
    let size = "GET /_config/size?quorum=true&recursive=false&sorted=false";
    let list = "GET ?quorum=true&recursive=false&sorted=false";
    assert_eq!(
        *requests.lock().unwrap(),
        [
            size,
            list,
            "PUT /b?prevExist=false value=b%3Dhttp%3A%2F%2Fb%3A1",
            "GET /b?recursive=false&wait=true&waitIndex=3",
            size,
            list,
            "GET ?recursive=true&wait=true&waitIndex=10",
            size,
            list,
        ]
    );
}

#[test]
fn a_registration_names_every_url() {
    let urls = ["http://b:1".to_owned(), "http://b:2".to_owned()];
    assert_eq!(registration_value("b", &urls), "b=http://b:1,b=http://b:2");
}
