//! Joining through a discovery service, with a real etcd as the service.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use quorate::discovery::{DiscoveryError, DiscoveryRequest, FoundCluster, join};
use quorate::node::ids::member_id;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::timeout;

/// An etcd that is stopped when dropped.
struct Etcd {
    process: Child,
    client: u16,
    peer: u16,
    data: TempDir,
}

impl Etcd {
    /// `None` when it is not installed and that was said to be all right.
    async fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(
                std::env::var_os("QUORATE_WITHOUT_ETCD").is_some(),
                "these tests need an etcd: apt-get install etcd-server (or set QUORATE_WITHOUT_ETCD=1 to go without)"
            );
            eprintln!("NOT TESTED: there is no etcd, and QUORATE_WITHOUT_ETCD is set");
            return None;
        }
        // A port that was free may be taken by the time it is used.
        for _ in 0..3 {
            let data = TempDir::new().unwrap();
            let (client, peer) = (free_port(), free_port());
            let mut etcd = Self { process: Self::spawn(client, peer, &data), client, peer, data };
            if etcd.ready().await {
                return Some(etcd);
            }
        }
        panic!("etcd does not start");
    }

    fn spawn(client: u16, peer: u16, data: &TempDir) -> Child {
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        Command::new("etcd")
            .args(["--enable-v2=true", "--name", "d", "--logger", "zap", "--log-level", "error"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("d={peer}")])
            .arg("--data-dir")
            .arg(data.path())
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Whether it came up; `false` when it exits or takes too long.
    async fn ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline && self.process.try_wait().unwrap().is_none() {
            if self.curl(&["/health"]).contains("true") {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Runs `curl` on a path of the service, with more arguments.
    fn curl(&self, args: &[&str]) -> String {
        let url = format!("http://127.0.0.1:{}{}", self.client, args[0]);
        let output = Command::new("curl").arg("-s").args(&args[1..]).arg(url).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// A new token of this size, and its discovery URL.
    fn token(&self, size: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = format!("/v2/keys/disc/t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.curl(&[&format!("{path}/_config/size"), "-XPUT", "-d", &format!("value={size}")]);
        format!("http://127.0.0.1:{}{path}", self.client)
    }

    /// How many have registered under a token.
    fn registered(&self, url: &str) -> usize {
        let path = url.split_once("/v2").unwrap().1;
        self.curl(&[&format!("/v2{path}")]).matches("createdIndex").count().saturating_sub(1)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn request(url: &str, name: &str, peer_url: &str) -> DiscoveryRequest {
    let peer_urls = vec![peer_url.to_owned()];
    let member_id = member_id(&peer_urls, url);
    DiscoveryRequest { url: url.to_owned(), name: name.to_owned(), peer_urls, member_id }
}

fn member(url: &str, i: u32) -> DiscoveryRequest {
    request(url, &format!("n{i}"), &format!("http://10.0.0.{i}:7001"))
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), what).await.expect("it takes longer than a minute")
}

fn names(cluster: &FoundCluster) -> Vec<&str> {
    cluster.members.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_form_a_cluster_and_a_fourth_is_told_who_they_are() {
    let Some(etcd) = Etcd::start().await else { return };
    let url = etcd.token("3");
    let requests = [1, 2, 3].map(|i| member(&url, i));
    let (a, b, c) =
        soon(async { tokio::join!(join(&requests[0]), join(&requests[1]), join(&requests[2])) }).await;
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert_eq!(a, b);
    assert_eq!(b, c);
    assert_eq!((a.size, a.token.as_str()), (3, url.as_str()));
    let mut sorted = names(&a);
    sorted.sort_unstable();
    assert_eq!(sorted, ["n1", "n2", "n3"]);

    let error = soon(join(&member(&url, 4))).await.unwrap_err();
    let DiscoveryError::Full { size: 3, holders, .. } = &error else { panic!("{error}") };
    assert!(holders.contains(&"n2=http://10.0.0.2:7001".to_owned()), "{holders:?}");
    assert!(error.to_string().starts_with("discovery: cluster is full"), "{error}");
    assert_eq!(etcd.registered(&url), 3, "the fourth must not have registered");

    for request in &requests {
        assert_eq!(
            soon(join(request)).await.as_ref(),
            Ok(&a),
            "a member started again finds the same cluster"
        );
    }
}

/// Killed at moments spread over the whole course, and started again each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_killed_anywhere_goes_on() {
    let Some(etcd) = Etcd::start().await else { return };
    let url = etcd.token("2");
    let first = member(&url, 1);
    for step in 0..40 {
        let killed = timeout(Duration::from_micros(step * 500), join(&first)).await;
        assert!(killed.is_err(), "it cannot have found a cluster of two: {killed:?}");
    }
    let second = member(&url, 2);
    let (a, b) = soon(async { tokio::join!(join(&first), join(&second)) }).await;
    assert_eq!(a, b);
    assert_eq!(a.unwrap().members.len(), 2);
    assert_eq!(etcd.registered(&url), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_restarts_is_waited_for() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let url = etcd.token("2");
    let first = member(&url, 1);
    let waiting = tokio::spawn(async move { join(&first).await });
    while etcd.registered(&url) < 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    etcd.stop();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!waiting.is_finished(), "an outage must not end the wait");
    etcd.process = Etcd::spawn(etcd.client, etcd.peer, &etcd.data);
    assert!(etcd.ready().await, "etcd does not start again");
    let second = soon(join(&member(&url, 2))).await.unwrap();
    assert_eq!(soon(waiting).await.unwrap(), Ok(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_refused_and_take_no_slot() {
    let Some(etcd) = Etcd::start().await else { return };
    let url = etcd.token("3");
    let _ = timeout(Duration::from_millis(1500), join(&member(&url, 1))).await;
    assert_eq!(etcd.registered(&url), 1);

    let renamed = soon(join(&request(&url, "other", "http://10.0.0.1:7001"))).await.unwrap_err();
    assert!(
        matches!(&renamed, DiscoveryError::DuplicateId { theirs, ours, .. }
        if theirs == "n1=http://10.0.0.1:7001" && ours == "other=http://10.0.0.1:7001"),
        "{renamed}"
    );
    let moved = soon(join(&request(&url, "n1", "http://10.0.0.9:7001"))).await.unwrap_err();
    assert!(
        matches!(&moved, DiscoveryError::DuplicateName { name, theirs, .. }
        if name == "n1" && theirs == "n1=http://10.0.0.1:7001"),
        "{moved}"
    );
    assert_eq!(etcd.registered(&url), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_must_exist_and_have_a_sensible_size() {
    let Some(etcd) = Etcd::start().await else { return };
    for size in ["0", "-1", "three"] {
        let error = soon(join(&member(&etcd.token(size), 1))).await.unwrap_err();
        assert!(matches!(&error, DiscoveryError::SizeBad { size: shown, .. } if shown == size), "{error}");
    }
    let unknown = format!("http://127.0.0.1:{}/v2/keys/disc/never-made", etcd.client);
    let error = soon(join(&member(&unknown, 1))).await.unwrap_err();
    assert_eq!(error, DiscoveryError::SizeMissing { url: unknown });
    let wrong = format!("http://127.0.0.1:{}/0123456789abcdef", etcd.client);
    let error = soon(join(&member(&wrong, 1))).await.unwrap_err();
    assert!(matches!(error, DiscoveryError::BadEndpoint { .. }), "{error}");
}

/// A real etcd and a joining member of ours find each other: both sides agree on ids, values and order.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_etcd_registers_in_the_same_registry() {
    let Some(service) = Etcd::start().await else { return };
    let url = service.token("2");
    let data = TempDir::new().unwrap();
    let (client, peer) =
        (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let mut theirs = Command::new("etcd")
        .args(["--enable-v2=true", "--name", "theirs", "--discovery", &url, "--discovery-fallback", "exit"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .arg("--data-dir")
        .arg(data.path())
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let found = soon(join(&member(&url, 1))).await;
    let listed =
        service.curl(&[url.split_once("/v2").map(|(_, path)| format!("/v2{path}")).unwrap().as_str()]);
    let _ = theirs.kill();
    let _ = theirs.wait();
    let found = found.unwrap();
    assert!(found.members.contains(&("theirs".to_owned(), vec![peer.clone()])), "{found:?}");
    let their_id = format!("{:x}", member_id(&[&peer], &url));
    assert!(listed.contains(&their_id), "{their_id} is not in {listed}");
}
