//! A real member loses power at each operation of its disk while it is founded, makes a checkpoint and compacts its log, or
//! installs a snapshot. Any step of persisting ends in such an operation, so these are all the points there are, also of
//! steps that are added later. What a member does between them, for others and with others (sending its state, joining,
//! leaving), has named points in the source (`src/crash`).

use crate::cluster::Cluster;
use crate::disk::Fate;
use crate::http::{Answer, Connection};
use crate::load::Load;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// Operations of a member alone from its beginning: it is founded, makes three checkpoints and compacts its log twice.
const ALONE: u64 = 400;

const EXTRA: [&str; 2] = ["--snapshot-count", "15"];

/// Each `stride`-th operation of founding, of writing, of checkpoints and of compaction. Gives how many.
pub fn alone(seed: u64, stride: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut points, mut at) = (0, rng.random_range(1..=stride));
    while at < ALONE {
        let mut cluster = Cluster::new(1, &EXTRA);
        cluster.members[0].mount.behaviour().off_at = Some(at);
        cluster.members[0].start();
        let load = Load::start(&[cluster.members[0].client_port], 1);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_off(&cluster, 0) && cluster.members[0].runs() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        maybe_kill_first(&mut cluster, 0, &mut rng);
        let fate = cluster.cut(&[0], &mut rng);
        cluster.members[0].start();
        cluster.wait_healthy();
        let checked = load.check(cluster.members[0].client_port);
        assert!(checked.is_ok(), "seed {seed}, operation {at}, {fate:?}: {checked:?}");
        load.stop();
        cluster.discard();
        points += 1;
        at += stride;
    }
    points
}

/// Operations of founding, from the first on: the member is killed there, starts again, and then all is lost that nobody
/// synced. What it found when it started, and did not make, must be on the disk as well. Gives how many.
pub fn founding(seed: u64, stride: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut points, mut at, mut founded) = (0, 1, false);
    while !founded {
        let mut cluster = Cluster::new(1, &[]);
        cluster.members[0].mount.behaviour().off_at = Some(at);
        cluster.members[0].start();
        let mut connection = Connection::new(cluster.members[0].client_port, Duration::from_secs(1));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_off(&cluster, 0) && !founded && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            founded = connection.get("/v2/keys/").is_some_and(|answer| answer.status == 200);
        }
        cluster.members[0].kill();
        cluster.members[0].mount.power_is_back();
        cluster.members[0].start();
        cluster.wait_healthy();
        let load = Load::start(&[cluster.members[0].client_port], 1);
        std::thread::sleep(Duration::from_millis(50));
        cluster.members[0].lose_power_to(Fate::Lost, &mut rng);
        cluster.members[0].start();
        cluster.wait_healthy();
        let checked = load.check(cluster.members[0].client_port);
        assert!(checked.is_ok(), "killed at operation {at}, and the power went later: {checked:?}");
        load.stop();
        cluster.discard();
        points += 1;
        at += (stride / 8).max(1);
    }
    points
}

/// Each `stride`-th operation of a member that starts and is sent a snapshot. Gives how many.
pub fn install(seed: u64, stride: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cluster = Cluster::new(3, &EXTRA);
    cluster.members.iter_mut().for_each(crate::cluster::Member::start);
    cluster.wait_healthy();
    let (mut points, mut at) = (0, rng.random_range(1..=stride));
    let (mut keys, mut whole) = (0, 0);
    // Until it has started and installed the snapshot before the power went, twice.
    while whole < 2 {
        cluster.members[2].kill();
        keys = write_behind_its_back(&cluster, keys);
        let from = cluster.members[2].mount.disk().operations();
        cluster.members[2].mount.behaviour().off_at = Some(from + at);
        cluster.members[2].start();
        let deadline = Instant::now() + Duration::from_secs(3);
        while !is_off(&cluster, 2) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        whole += u64::from(!is_off(&cluster, 2));
        maybe_kill_first(&mut cluster, 2, &mut rng);
        let fate = cluster.cut(&[2], &mut rng);
        cluster.members[2].start();
        cluster.wait_healthy();
        let mut connection = Connection::new(cluster.members[2].client_port, Duration::from_secs(10));
        let listed = connection.get("/v2/keys/install?recursive=true").map(|answer| answer.body);
        let there = listed.as_ref().and_then(|body| body["node"]["nodes"].as_array()).map_or(0, Vec::len);
        assert_eq!(there as u64, keys, "seed {seed}, operation {at} of the start, {fate:?}");
        points += 1;
        at += stride;
    }
    let sent: usize =
        (0..2).map(|at| log_of(&cluster, at).matches("sending it the whole state").count()).sum();
    assert!(sent as u64 >= points, "{sent} snapshots sent at {points} points");
    let log = log_of(&cluster, 2);
    let panic = log.lines().find(|line| line.contains("panicked at") && !line.contains("/sled-"));
    assert_eq!(panic, None);
    cluster.discard();
    points
}

/// Half of them are killed at that operation, start again, and lose power later: what they found when they started
/// was then never synced by anybody, unless they did it.
fn maybe_kill_first(cluster: &mut Cluster, at: usize, rng: &mut ChaCha8Rng) {
    if rng.random_range(0..2) == 0 {
        cluster.members[at].kill();
        cluster.members[at].mount.power_is_back();
        cluster.members[at].start();
        cluster.wait_healthy();
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_off(cluster: &Cluster, at: usize) -> bool {
    cluster.members[at].mount.behaviour().off
}

fn log_of(cluster: &Cluster, at: usize) -> String {
    std::fs::read_to_string(&cluster.members[at].log).unwrap()
}

/// So much that the others no longer have the log that the third would need: it reaches back to the older of two
/// checkpoints, and the one that is running when this begins may be of before.
fn write_behind_its_back(cluster: &Cluster, from: u64) -> u64 {
    let mut connection = Connection::new(cluster.members[0].client_port, Duration::from_secs(5));
    let checkpoints = |at| log_of(cluster, at).matches("wrote a checkpoint").count();
    let mut number = from;
    for _ in 0..3 {
        let before = [checkpoints(0), checkpoints(1)];
        let enough = number + 20;
        let deadline = Instant::now() + Duration::from_secs(20);
        while number < enough || (0..2).any(|at| checkpoints(at) == before[at]) {
            assert!(Instant::now() < deadline, "no checkpoint in 20 s, at key {number}");
            let written = number < enough && {
                let written = connection.put(&format!("/v2/keys/install/{number}"), "v");
                matches!(written, Ok(Answer { status: 200 | 201, .. }))
            };
            if written {
                number += 1;
            } else {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    number
}
