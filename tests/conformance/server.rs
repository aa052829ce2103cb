//! Starting and stopping the servers: fresh processes on fresh data, gone when they are dropped.

use crate::wire::{Connection, Request};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// As etcd keeps it, so that waits at past indexes can be compared.
const HISTORY_EVENTS: &str = "1000";

const READY_WITHIN: Duration = Duration::from_secs(30);

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    Etcd,
    Quorate,
}

/// A member alone.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    process: Child,
    dir: TempDir,
}

impl Server {
    /// Starts a server and waits until it serves.
    pub(crate) fn start(product: Product) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let addresses = [(); 2].map(|()| free_address());
        let (client, peer) = (format!("http://{}", addresses[0]), format!("http://{}", addresses[1]));
        let mut command = match product {
            Product::Etcd => Command::new("etcd"),
            Product::Quorate => Command::new(env!("CARGO_BIN_EXE_quorate")),
        };
        command.args(["--name", "m1", "--data-dir"]).arg(dir.path().join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("m1={peer}"), "--initial-cluster-state", "new"]);
        match product {
            Product::Etcd => command.args(["--enable-v2=true", "--logger", "zap", "--log-level", "error"]),
            Product::Quorate => command.args(["--history-events", HISTORY_EVENTS, "--cors", "*"]),
        };
        for (variable, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_"))
        {
            command.env_remove(variable);
        }
        let log = File::create(dir.path().join("log")).expect("a log");
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {product:?}: {error}"));
        let mut server = Self { address: addresses[0], process, dir };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_ready() {
            let ended = self.process.try_wait().expect("a process");
            assert!(ended.is_none() && Instant::now() < deadline, "no start ({ended:?}): {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has done all that it writes to its own keyspace at the start.
    fn is_ready(&self) -> bool {
        let ask = |target| Connection::to(self.address).ask(&Request::get(target)).ok();
        let has = |target, text: &str| {
            ask(target).is_some_and(|answer| String::from_utf8_lossy(&answer.body).contains(text))
        };
        has("/health", "true")
            && has("/version", "cluster\":\"")
            && !has("/version", "not_decided")
            && has("/v2/machines", "http")
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned()
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.process.try_wait().expect("a process").map(|status| format!("{status}: {}", self.log()))
    }
}

/// One that nobody listens on now. Of those that the system hands out, a connection of another script's could take it
/// before the server does; and of these none is given again before all others were.
fn free_address() -> SocketAddr {
    const PORTS: std::ops::Range<u16> = 23_000..26_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 30) as u16 * 100;
    let count = PORTS.end - PORTS.start;
    (0..count)
        .map(|_| PORTS.start + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % count) % count)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a free port")
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Makes writes until the server's index is `index`, and leaves no key behind.
pub(crate) fn advance(connection: &mut Connection, index: u64) {
    let key = "/v2/keys/_before";
    let ask = |connection: &mut Connection, request| connection.ask(&request).expect("an answer");
    let mut at = ask(connection, Request::get("/v2/keys/")).index().expect("an index");
    assert!(at == index || at + 2 <= index, "cannot get from index {at} to {index}");
    while at < index {
        let request =
            if at + 1 == index { Request::new("DELETE", key) } else { Request::put(key, "value=x") };
        at = ask(connection, request).index().expect("an index");
    }
}

/// Whether a real etcd is there to compare with. If it is not, that is a failure, unless it is said to be wanted so.
pub(crate) fn etcd_is_installed() -> bool {
    use std::io::Write as _;
    let version = Command::new("etcd").arg("--version").stdin(Stdio::null()).output();
    if version.is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(
        std::env::var("QUORATE_WITHOUT_ETCD").is_ok_and(|value| value == "1"),
        "there is no etcd to compare with: apt-get install etcd-server, or set QUORATE_WITHOUT_ETCD=1 to do without"
    );
    // Past the test harness, which hides what passing tests print.
    let warning = "\n*** WITHOUT A REAL ETCD: nothing was compared with one (QUORATE_WITHOUT_ETCD=1) ***\n";
    _ = std::io::stderr().write_all(warning.as_bytes());
    false
}
