//! Starting and stopping the two sides. A `Cluster` owns its processes and its data: dropped for whatever reason, including
//! a panic or Ctrl-C, it kills the one and removes the other.

use crate::Failure;
use crate::http::{self, Connection};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// The two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    Etcd,
    Quorate,
}

impl Product {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Product::Etcd => "etcd",
            Product::Quorate => "Quorate",
        }
    }
}

/// One running member.
#[derive(Debug)]
pub(crate) struct Member {
    name: String,
    /// `host:port` that clients connect to.
    pub(crate) client: String,
    process: Child,
    log: PathBuf,
    /// The program with its arguments, to start it again.
    command: Vec<OsString>,
}

impl Member {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// Members on one machine, each with its own data directory.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Member>,
    dir: PathBuf,
}

const READY_WITHIN: Duration = Duration::from_secs(30);
const EVIDENCE_BYTES: usize = 2_000;

/// What `--version` of that program says, in one line.
pub(crate) fn version(product: Product, program: &Path) -> Result<String, Failure> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(|error| {
        let hint = match product {
            Product::Etcd => {
                "is etcd installed? On Debian: apt-get install etcd-server (or leave it out: --quorate-only)"
            }
            Product::Quorate => "is it built? cargo build --release (or leave it out: --etcd-only)",
        };
        format!("cannot run {}: {error}; {hint}", program.display())
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Returns when the benchmark is asked to stop.
pub(crate) async fn interrupted() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    }
}

/// Ports that nobody listens on. All are held until all are chosen, so none is chosen twice.
fn free_ports(count: usize) -> Result<Vec<u16>, Failure> {
    let listeners = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<Vec<_>, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

impl Cluster {
    /// Starts `size` members on fresh data, with `flags` besides what they need to find each other, and waits until they
    /// serve. The leader comes first in `members()`.
    pub(crate) async fn start(
        product: Product,
        program: &Path,
        size: usize,
        flags: &[&str],
        root: &Path,
    ) -> Result<Self, Failure> {
        let dir =
            root.join(format!("cluster-bench-{}-{}", product.name().to_lowercase(), std::process::id()));
        fs::create_dir_all(&dir)?;
        let mut cluster = Self { members: Vec::new(), dir };
        let ports = free_ports(size * 2)?;
        let (clients, peers) = ports.split_at(size);
        let initial = peers
            .iter()
            .enumerate()
            .map(|(index, port)| format!("m{}=http://127.0.0.1:{port}", index + 1))
            .collect::<Vec<_>>()
            .join(",");
        for (index, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let mut command = command(product, program, &cluster.dir, index + 1, (*client, *peer), &initial);
            command.extend(flags.iter().map(OsString::from));
            cluster.members.push(spawn(command, &cluster.dir, index + 1, *client)?);
        }
        if let Err(error) = cluster.wait_until_ready().await {
            return Err(format!("{}: {error}\n{}", product.name(), cluster.evidence()).into());
        }
        Ok(cluster)
    }

    /// The members, the leader first.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The end of each member's log, for a failure.
    pub(crate) fn evidence(&mut self) -> String {
        let mut text = String::new();
        for member in &mut self.members {
            let state = match member.process.try_wait() {
                Ok(Some(status)) => format!("ended: {status}"),
                Ok(None) => "running".into(),
                Err(error) => error.to_string(),
            };
            let log = fs::read(&member.log).unwrap_or_default();
            let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(EVIDENCE_BYTES)..]).into_owned();
            let _ = write!(text, "--- {} ({state})\n{tail}\n", member.name);
        }
        text
    }

    /// Stops the last member in an orderly way and starts it again; gives how long it took from there until it answered a
    /// read of its own state.
    pub(crate) async fn restart_last(&mut self) -> Result<Duration, Failure> {
        let member = self.members.last_mut().ok_or("no members")?;
        let pid = rustix::process::Pid::from_child(&member.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        member.process.wait()?;
        let started = Instant::now();
        member.process = launch(&member.command, &member.log)?;
        let request = http::get("/v2/keys/?quorum=false");
        loop {
            if let Ok(mut connection) = Connection::open(&member.client).await
                && connection.begin(&request).await.is_ok_and(|status| status == 200)
            {
                return Ok(started.elapsed());
            }
            if let Some(status) = member.process.try_wait()? {
                return Err(format!("{} ended while starting: {status}", member.name).into());
            }
            if started.elapsed() > READY_WITHIN {
                return Err(format!("{} not back within {} s", member.name, READY_WITHIN.as_secs()).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            for member in &mut self.members {
                if let Some(status) = member.process.try_wait()? {
                    return Err(format!("{} ended while starting: {status}", member.name).into());
                }
            }
            if let Some(leader) = self.leader_if_ready().await {
                self.members.swap(0, leader);
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("not ready within {} s", READY_WITHIN.as_secs()).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Where the leader is in the list, once every member says that it is healthy.
    async fn leader_if_ready(&self) -> Option<usize> {
        let mut leader = None;
        for (index, member) in self.members.iter().enumerate() {
            let mut connection = Connection::open(&member.client).await.ok()?;
            let health = connection.ask(&http::get("/health")).await.ok()?;
            let healthy = health.status == 200 && String::from_utf8_lossy(&health.body).contains("true");
            let own = connection.ask(&http::get("/v2/stats/self")).await.ok()?;
            if String::from_utf8_lossy(&own.body).contains("\"StateLeader\"") {
                leader = Some(index);
            }
            if !healthy {
                return None;
            }
        }
        leader
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
        }
        for member in &mut self.members {
            let _ = member.process.wait();
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cluster: {} stays behind: {error}", self.dir.display());
        }
    }
}

/// What member `number` is started with; the ports are for clients and for peers.
fn command(
    product: Product,
    program: &Path,
    dir: &Path,
    number: usize,
    (client, peer): (u16, u16),
    initial: &str,
) -> Vec<OsString> {
    let name = format!("m{number}");
    let (client_url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command: Vec<OsString> = vec![program.into(), "--name".into(), name.clone().into()];
    command.extend(["--data-dir".into(), dir.join(&name).into_os_string()]);
    for (flag, value) in [
        ("--listen-client-urls", client_url.as_str()),
        ("--advertise-client-urls", &client_url),
        ("--listen-peer-urls", &peer_url),
        ("--initial-advertise-peer-urls", &peer_url),
        ("--initial-cluster", initial),
        ("--initial-cluster-state", "new"),
    ] {
        command.extend([flag.into(), value.into()]);
    }
    if product == Product::Etcd {
        command.extend(["--enable-v2=true", "--logger", "zap", "--log-level", "error"].map(OsString::from));
    }
    command
}

fn spawn(command: Vec<OsString>, dir: &Path, number: usize, client: u16) -> Result<Member, Failure> {
    let name = format!("m{number}");
    let log = dir.join(format!("{name}.log"));
    let process = launch(&command, &log)?;
    Ok(Member { name, client: format!("127.0.0.1:{client}"), process, log, command })
}

fn launch(line: &[OsString], log: &Path) -> Result<Child, Failure> {
    let [program, arguments @ ..] = line else { return Err("no program".into()) };
    let mut command = Command::new(program);
    command.args(arguments);
    // A setting in the caller's environment would be a setting of the members.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ETCD_") {
            command.env_remove(variable);
        }
    }
    let log = File::options().append(true).create(true).open(log)?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()).into())
}
