//! Members as processes: this test program again, in which crash points are.

use super::super::DIR_VARIABLE;
use super::http::{Answer, Connection};
use super::load::Load;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Carries a member's flags, one a line.
pub const MEMBER_VARIABLE: &str = "QUORATE_CRASH_MEMBER";

/// Below the ports that the system hands out, which a connection could take while a member is down.
const PORTS: std::ops::Range<u16> = 22_000..22_900;

/// For whatever a member is waited for. On a machine that does something else it is to be long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Members that there may be; one of them is not in the cluster.
pub const SLOTS: usize = 4;

pub struct Slot {
    pub client_port: u16,
    pub peer_url: String,
    dir: PathBuf,
    /// It joins a cluster that is there.
    pub joins: bool,
    process: Option<Child>,
}

pub struct Cluster {
    pub slots: Vec<Slot>,
    /// Which of them are members now.
    pub members: Vec<usize>,
    /// The URL by which they find each other; without one they are told.
    pub discovery: Option<String>,
    scratch: TempDir,
    pub load: Option<Load>,
    pub crashes: u64,
    /// Whose turn it is among the followers.
    pub turn: usize,
}

impl Cluster {
    /// Members that are not started yet.
    pub fn new() -> Self {
        let scratch = tempfile::Builder::new().prefix("quorate-crash-").tempdir().unwrap();
        let slot = |at: usize| {
            let dir = scratch.path().join(format!("m{at}"));
            fs::create_dir(&dir).unwrap();
            let peer_url = format!("http://127.0.0.1:{}", free_port());
            Slot { client_port: free_port(), peer_url, dir, joins: false, process: None }
        };
        let slots = (0..SLOTS).map(slot).collect();
        Self { slots, members: vec![0, 1, 2], discovery: None, scratch, load: None, crashes: 0, turn: 0 }
    }

    /// The place that is not in the cluster.
    pub fn vacant(&self) -> usize {
        (0..SLOTS).find(|at| !self.members.contains(at)).unwrap()
    }

    fn arguments(&self, at: usize, extra: &[&str]) -> String {
        let slot = &self.slots[at];
        let url = format!("http://127.0.0.1:{}", slot.client_port);
        let everybody = if slot.joins { &[0, 1, 2, 3][..] } else { &[0, 1, 2] };
        let initial = everybody.iter().map(|n| format!("m{n}={}", self.slots[*n].peer_url));
        let mut lines = vec![
            format!("--name=m{at}"),
            format!("--data-dir={}", slot.dir.join("data").display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={}", slot.peer_url),
            format!("--initial-advertise-peer-urls={}", slot.peer_url),
            "--heartbeat-interval=50".to_owned(),
            "--election-timeout=500".to_owned(),
            // Checkpoints and compaction several times a second.
            "--snapshot-count=50".to_owned(),
            "--history-bytes=200000".to_owned(),
        ];
        if let Some(url) = &self.discovery {
            lines.push(format!("--discovery={url}"));
        } else {
            lines.push(format!("--initial-cluster={}", initial.collect::<Vec<_>>().join(",")));
            lines.push(format!("--initial-cluster-state={}", if slot.joins { "existing" } else { "new" }));
        }
        lines.extend(extra.iter().map(ToString::to_string));
        lines.join("\n")
    }

    /// Starts it. It ends with the thread that called this.
    pub fn start(&mut self, at: usize, extra: &[&str]) {
        let arguments = self.arguments(at, extra);
        let slot = &mut self.slots[at];
        assert!(slot.process.is_none(), "m{at} runs");
        let log: File = OpenOptions::new().create(true).append(true).open(slot.dir.join("log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "crash::tests::member", "--ignored", "--nocapture"])
            .env_clear()
            .env(DIR_VARIABLE, &slot.dir)
            .env(MEMBER_VARIABLE, arguments)
            .current_dir(&slot.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        slot.process = Some(child.unwrap());
    }

    pub fn signal(&self, at: usize, signal: Signal) {
        let child = self.slots[at].process.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.slots[at].process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Nothing is left of it.
    pub fn wipe(&mut self, at: usize) {
        self.kill(at);
        fs::remove_dir_all(self.slots[at].dir.join("data")).unwrap();
        self.slots[at].joins = true;
    }

    /// The member dies when it comes to the point.
    pub fn arm(&mut self, at: usize, point: &str) {
        let dir = &self.slots[at].dir;
        fs::write(dir.join("arming"), point).unwrap();
        fs::rename(dir.join("arming"), dir.join("armed")).unwrap();
    }

    /// Waits until it has died at the point that was armed, doing `meanwhile` now and then.
    pub fn await_crash(&mut self, at: usize, point: &str, mut meanwhile: impl FnMut(&mut Self)) {
        let deadline = Instant::now() + PATIENCE;
        while self.runs(at) {
            let said = || format!("m{at} does not come to {point}: {}", self.said(at));
            assert!(Instant::now() < deadline, "{}", said());
            meanwhile(self);
            std::thread::sleep(Duration::from_millis(3));
        }
        self.slots[at].process = None;
        let crashed = fs::read_to_string(self.slots[at].dir.join("crashed")).unwrap_or_default();
        assert_eq!(crashed, point, "m{at} ended otherwise: {}", self.said(at));
        fs::remove_file(self.slots[at].dir.join("crashed")).unwrap();
        self.crashes += 1;
    }

    pub fn runs(&mut self, at: usize) -> bool {
        self.slots[at].process.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn log(&self, at: usize) -> String {
        fs::read_to_string(self.slots[at].dir.join("log")).unwrap_or_default()
    }

    /// The end of its log.
    pub fn said(&self, at: usize) -> String {
        let text = self.log(at);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    pub fn get(&self, at: usize, path: &str) -> Option<Answer> {
        Connection::new(self.slots[at].client_port, Duration::from_secs(2)).get(path)
    }

    /// Waits for something to be so; `at` is whose log says why it is not.
    pub fn until<T>(&mut self, at: usize, what: &str, mut found: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            let said = || format!("{what}: not after {PATIENCE:?}; m{at} says: {}", self.said(at));
            assert!(Instant::now() < deadline, "{}", said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn leader(&mut self) -> usize {
        let members = self.members.clone();
        self.until(members[0], "a leader", |cluster| {
            members.iter().copied().find(|at| {
                let answer = cluster.get(*at, "/v2/stats/self");
                answer.is_some_and(|answer| answer.body["state"] == "StateLeader")
            })
        })
    }

    /// A member that does not lead; another one every time.
    pub fn follower(&mut self) -> usize {
        let leader = self.leader();
        let others: Vec<usize> = self.members.iter().copied().filter(|at| *at != leader).collect();
        self.turn += 1;
        others[self.turn % others.len()]
    }

    /// Every member takes writes, has all that was acknowledged, and the same as the others.
    pub fn check(&mut self, after: &str) {
        for at in self.members.clone() {
            self.until(at, &format!("after {after}: m{at} takes writes"), |cluster| {
                let mut connection = Connection::new(cluster.slots[at].client_port, Duration::from_secs(2));
                let answer =
                    connection.put(&format!("/v2/keys/well/m{at}"), &cluster.crashes.to_string()).ok()?;
                matches!(answer.status, 200 | 201).then_some(())
            });
            if let Some(Err(wrong)) = self.load.as_ref().map(|load| load.check(self.slots[at].client_port)) {
                panic!("after {after}: m{at} lost what was acknowledged: {wrong}; {}", self.said(at));
            }
            self.until(at, &format!("after {after}: m{at} is healthy"), |cluster| {
                cluster.get(at, "/health").filter(|answer| answer.body["health"] == "true").map(drop)
            });
        }
        self.load.iter().for_each(|load| load.pause(true));
        self.agree(after);
        self.load.iter().for_each(|load| load.pause(false));
    }

    /// All members hold the same, once nobody writes.
    pub fn agree(&mut self, after: &str) {
        let members = self.members.clone();
        self.until(members[0], &format!("after {after}: the members agree"), |cluster| {
            let mut states = members.iter().map(|at| {
                let keys = cluster.get(*at, "/v2/keys/?recursive=true&quorum=false")?.body;
                Some((keys, cluster.get(*at, "/v2/members")?.body))
            });
            let first = states.next()??;
            states.all(|state| state.is_some_and(|state| state == first)).then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..SLOTS).for_each(|at| self.kill(at));
        if std::thread::panicking() {
            self.scratch.disable_cleanup(true);
            eprintln!("logs and data are kept in {}", self.scratch.path().display());
        }
    }
}

/// One that nobody listens on now; none is given twice.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 90) as u16 * 10;
    let count = PORTS.end - PORTS.start;
    (0..count)
        .map(|_| PORTS.start + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % count)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}
