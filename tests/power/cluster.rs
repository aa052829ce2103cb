//! Members as real processes, each with its data on a disk of its own that can lose power.

use crate::disk::{Disk, Fate};
use crate::http::Connection;
use crate::mount::{Mount, unmount_abandoned};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Below the ports that the system hands out, which a connection could take while a member is down.
const PORTS: std::ops::Range<u16> = 24_000..24_900;

/// Longest time from a start until a member of a whole cluster serves.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Member {
    pub mount: Mount,
    pub client_port: u16,
    pub peer_url: String,
    pub log: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

pub struct Cluster {
    pub members: Vec<Member>,
    scratch: TempDir,
    /// So that the logs of a failed run can be looked at.
    keep: bool,
}

impl Cluster {
    /// Members that are not started yet.
    pub fn new(size: usize, extra: &[&str]) -> Cluster {
        unmount_abandoned();
        let scratch = TempDir::new().unwrap();
        let ports: Vec<(u16, u16)> = (0..size).map(|_| (free_port(), free_port())).collect();
        let peers = ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}"));
        let initial = peers.collect::<Vec<_>>().join(",");
        let member = |(n, (client, peer)): (usize, &(u16, u16))| {
            let mount = Mount::new(&scratch.path().join(format!("m{n}")), Disk::new());
            let (client_url, peer_url) =
                (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let flags = [
                ("--name", format!("m{n}")),
                ("--data-dir", mount.path().join("data").display().to_string()),
                ("--listen-client-urls", client_url.clone()),
                ("--advertise-client-urls", client_url),
                ("--listen-peer-urls", peer_url.clone()),
                ("--initial-advertise-peer-urls", peer_url.clone()),
                ("--initial-cluster", initial.clone()),
                ("--initial-cluster-state", "new".to_owned()),
            ];
            let mut arguments: Vec<String> =
                flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
            arguments.extend(extra.iter().map(ToString::to_string));
            let log = scratch.path().join(format!("m{n}.log"));
            Member { mount, client_port: *client, peer_url, log, arguments, process: None }
        };
        let members = ports.iter().enumerate().map(member).collect();
        Cluster { members, scratch, keep: true }
    }

    /// The power of these members goes, at one moment; and is back for a start.
    pub fn cut(&mut self, victims: &[usize], rng: &mut ChaCha8Rng) -> Vec<(usize, Fate)> {
        for &at in victims {
            self.members[at].mount.behaviour().off = true;
        }
        victims.iter().map(|&at| (at, self.members[at].lose_power(rng))).collect()
    }

    /// Waits until each member serves; a member that ended instead fails the test with what it said.
    pub fn wait_healthy(&mut self) {
        for at in 0..self.members.len() {
            assert!(self.serves(at), "member {at} ended: {}", self.members[at].said());
        }
    }

    /// Waits until this member serves reads that a leader confirmed, or has ended; gives whether it serves.
    pub fn serves(&mut self, at: usize) -> bool {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut connection = Connection::new(self.members[at].client_port, Duration::from_secs(2));
        loop {
            if connection.get("/v2/keys/").is_some_and(|answer| answer.status == 200) {
                return true;
            }
            let member = &mut self.members[at];
            if !member.runs() {
                return false;
            }
            assert!(Instant::now() < deadline, "member {at} does not serve: {}", member.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All is well: nothing needs to be kept.
    pub fn discard(mut self) {
        self.keep = false;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill();
        }
        self.members.clear();
        if self.keep {
            self.scratch.disable_cleanup(true);
            eprintln!("the members' logs are kept in {}", self.scratch.path().display());
        }
    }
}

impl Member {
    /// Starts it. It ends with the thread that called this.
    pub fn start(&mut self) {
        assert!(self.process.is_none());
        let log: File = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", &server()])
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.process = Some(child.unwrap());
    }

    /// From now on it is a member that joins the cluster, not one of its founders.
    pub fn joins(&mut self) {
        for argument in &mut self.arguments {
            if argument == "new" {
                "existing".clone_into(argument);
            }
        }
    }

    /// Where its data is.
    pub fn data(&self) -> PathBuf {
        self.mount.path().join("data")
    }

    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// What a power cut leaves, with a fate that is drawn.
    pub fn lose_power(&mut self, rng: &mut ChaCha8Rng) -> Fate {
        self.mount.behaviour().off = true;
        let fate = match rng.random_range(0..4) {
            0 => Fate::Lost,
            1 => Fate::Prefix(rng.random_range(0..=self.mount.disk().pending())),
            2 => Fate::Scattered,
            _ => [Fate::Lost, Fate::Kept][rng.random_range(0..2)],
        };
        self.lose_power_to(fate, rng);
        fate
    }

    /// What a power cut leaves, with this fate.
    pub fn lose_power_to(&mut self, fate: Fate, rng: &mut ChaCha8Rng) {
        self.mount.behaviour().off = true;
        self.kill();
        self.mount.disk().cut(fate, rng);
        self.mount.power_is_back();
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// `POWER_SERVER` is another build of it: one with a bug, to see whether it is found.
pub fn server() -> String {
    std::env::var("POWER_SERVER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_quorate").to_owned())
}

/// One that nobody listens on now; none is given twice.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 90) as u16 * 10;
    let count = PORTS.end - PORTS.start;
    (0..count)
        .map(|_| PORTS.start + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % count)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}
