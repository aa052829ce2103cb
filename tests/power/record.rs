//! Records what a member does to its disk, operation by operation: a real one, inside this process, on a mounted disk.

use crate::cluster::free_port;
use crate::disk::{Disk, Fate, Mark, Op};
use crate::mount::Mount;
use quorate::http::backend::Backend as _;
use quorate::node::config::InitialMember;
use quorate::{Config, Node};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A disk, and what was done to it from then on.
pub struct Recording {
    pub name: &'static str,
    pub base: Disk,
    pub ops: Vec<Op>,
    /// What had been asked for and acknowledged before.
    pub known: u64,
}

/// Keys that are written in turn, with the number of the write for a value.
pub const KEYS: u64 = 7;

/// A disk that records, mounted; and a directory for what need not be recorded.
struct Recorder {
    scratch: TempDir,
    mount: Mount,
    base: Disk,
}

impl Recorder {
    fn new(mut disk: Disk) -> Recorder {
        let scratch = TempDir::new().unwrap();
        let base = disk.clone();
        disk.trace = Some(Vec::new());
        let mount = Mount::new(&scratch.path().join("disk"), disk);
        Recorder { scratch, mount, base }
    }

    fn mark(&self, mark: Mark) {
        self.mount.disk().apply(Op::Mark(mark));
    }

    fn config(&self) -> Config {
        config("lone", self.mount.path(), (free_port(), free_port()))
    }

    /// Writes `numbers`, one after the other, with a few bytes or many.
    async fn write(&self, node: &Node, numbers: std::ops::RangeInclusive<u64>, len: usize) {
        for number in numbers {
            self.mark(Mark::Asked(number));
            write_one(node, number, len).await;
            self.mark(Mark::Acknowledged(number));
        }
    }

    fn finish(self, name: &'static str, known: u64) -> (Recording, Disk) {
        let mut disk = self.mount.disk().clone();
        let ops = disk.trace.take().unwrap();
        (Recording { name, base: self.base, ops, known }, disk)
    }
}

fn config(name: &str, dir: &std::path::Path, (client, peer): (u16, u16)) -> Config {
    let mut config = Config {
        name: name.to_owned(),
        data_dir: Some(dir.join("data")),
        heartbeat_interval: Duration::from_millis(20),
        election_timeout: Duration::from_millis(200),
        snapshot_count: 12,
        history_events: 20,
        ..Config::default()
    };
    config.set_addresses(&format!("127.0.0.1:{client}"), &format!("127.0.0.1:{peer}")).unwrap();
    config
}

async fn write_one(node: &Node, number: u64, len: usize) {
    let value = format!("{number}.{}", "x".repeat(len));
    node.handle().set(&format!("/{}", number % KEYS), value, None).await.unwrap();
}

async fn start(config: Config) -> Node {
    let node = Node::start(config).await.unwrap();
    node.ready().await.unwrap();
    node
}

/// A member alone: it is founded, writes, makes checkpoints, compacts its log, is stopped and started, and fills its
/// first file of the log, which is then removed. Then the same from a disk that lost power in the middle of it.
pub async fn lone_member(writes: u64) -> Vec<Recording> {
    let recorder = Recorder::new(Disk::new());
    let node = start(recorder.config()).await;
    recorder.write(&node, 1..=writes, 30).await;
    node.shutdown().await.unwrap();
    let node = start(recorder.config()).await;
    let mut end = writes + 20;
    recorder.write(&node, writes + 1..=end, 5_000).await;
    node.shutdown().await.unwrap();
    let (founded, mut disk) = recorder.finish("a member alone", 0);

    disk.cut(Fate::Scattered, &mut ChaCha8Rng::seed_from_u64(1));
    let recorder = Recorder::new(disk);
    let node = start(recorder.config()).await;
    let known = end;
    recorder.write(&node, end + 1..=end + 20, 1 << 20).await;
    end += 20;
    recorder.write(&node, end + 1..=end + 20, 30).await;
    drop(node);
    let (after, _) = recorder.finish("after a power cut, with a new file of the log", known);
    vec![founded, after]
}

/// One of three, which was away for so long that it is sent the whole state.
pub async fn snapshot_install() -> Recording {
    let recorder = Recorder::new(Disk::new());
    let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
    let member = |at: usize| InitialMember {
        name: format!("m{at}"),
        peer_urls: vec![format!("http://127.0.0.1:{}", ports[at].1).parse().unwrap()],
    };
    let configs: Vec<Config> = (0..3)
        .map(|at| {
            let other = recorder.scratch.path().join(format!("m{at}"));
            let dir = if at == 2 { recorder.mount.path() } else { &other };
            let mut config = config(&format!("m{at}"), dir, ports[at]);
            config.initial_cluster = (0..3).map(member).collect();
            config
        })
        .collect();
    let mut nodes = Vec::new();
    for config in &configs {
        nodes.push(Node::start(config.clone()).await.unwrap());
    }
    for node in &nodes {
        node.ready().await.unwrap();
    }
    let mut number = 0;
    for _ in 0..3 {
        for _ in 0..8 {
            number += 1;
            recorder.mark(Mark::Asked(number));
            write_one(&nodes[0], number, 100).await;
            let applied = await_applied(&nodes[0], &nodes[2]).await;
            recorder.mark(Mark::Applied(applied));
        }
        nodes.remove(2).shutdown().await.unwrap();
        for _ in 0..60 {
            number += 1;
            recorder.mark(Mark::Asked(number));
            write_one(&nodes[0], number, 100).await;
        }
        nodes.push(Node::start(configs[2].clone()).await.unwrap());
        // A state that the leader sent is shown before it is on the member's own disk: a quorum has it. What is applied after
        // it is there only if it is.
        await_applied(&nodes[0], &nodes[2]).await;
    }
    for node in nodes {
        node.shutdown().await.unwrap();
    }
    recorder.finish("a member that is sent snapshots", 0).0
}

/// Waits until one member has applied what another has, and gives how far it has come.
async fn await_applied(ahead: &Node, behind: &Node) -> u64 {
    let wanted = ahead.handle().status().applied;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let applied = behind.handle().status().applied;
        if applied >= wanted {
            return applied;
        }
        assert!(Instant::now() < deadline, "a follower stays behind: {applied} of {wanted}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
