//! Power cuts under load: nothing that was acknowledged is lost, and every member starts again by itself.

use crate::cluster::Cluster;
use crate::load::Load;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// Checkpoints, compaction and snapshots to members that were down, all within a second.
const EXTRA: [&str; 4] = ["--snapshot-count", "40", "--history-bytes", "1000000"];

/// What a run came to.
#[derive(Debug, Default)]
pub struct Figures {
    pub cuts: u64,
    pub during_start: u64,
    pub of_all: u64,
    pub acknowledged: u64,
    pub snapshots: u64,
}

/// Cuts the power `cuts` times; panics over anything that is lost. The same seed makes the same choices, but the
/// processes' timing is their own.
pub fn run(members: usize, cuts: u64, seed: u64) -> Figures {
    let begun = Instant::now();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cluster = Cluster::new(members, &EXTRA);
    for member in &cluster.members {
        // A sync that takes its time leaves more to lose.
        member.mount.behaviour().sync_us = 1500;
    }
    let mut figures = Figures::default();
    let everybody: Vec<usize> = (0..members).collect();
    start_through_cuts(&mut cluster, &everybody, &mut figures, &mut rng);
    let ports: Vec<u16> = cluster.members.iter().map(|member| member.client_port).collect();
    let load = Load::start(&ports, 4);
    loop {
        std::thread::sleep(Duration::from_millis(rng.random_range(50..900)));
        let victims = draw_victims(members, &mut rng);
        if rng.random_range(0..2) == 0 {
            // In the midst of whatever they write then: the log, a checkpoint, a snapshot, the removal of either.
            set_off_at(&cluster, &victims, 80, &mut rng);
            std::thread::sleep(Duration::from_millis(300));
        }
        let fates = cluster.cut(&victims, &mut rng);
        figures.cuts += 1;
        figures.of_all += u64::from(victims.len() == members);
        // Meanwhile the others go on, and their log runs away from whoever is down.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..500)));
        start_through_cuts(&mut cluster, &victims, &mut figures, &mut rng);
        for (at, port) in ports.iter().enumerate() {
            if let Err(wrong) = load.check(*port) {
                let cut = figures.cuts;
                panic!("seed {seed}, cut {cut} ({fates:?}): member {at} lost what was acknowledged: {wrong}");
            }
        }
        if figures.cuts >= cuts {
            break;
        }
    }
    figures.acknowledged = load.stop();
    for member in &cluster.members {
        let log = std::fs::read_to_string(&member.log).unwrap();
        figures.snapshots += log.matches("sending it the whole state").count() as u64;
        // sled panics over a failing disk, which is known and caught.
        let panic = log.lines().find(|line| line.contains("panicked at") && !line.contains("/sled-"));
        assert_eq!(panic, None, "member {}", member.log.display());
    }
    cluster.discard();
    println!("{members} members, seed {seed}: {figures:?} in {:.0} s", begun.elapsed().as_secs_f64());
    figures
}

fn draw_victims(members: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    match rng.random_range(0..10) {
        0..5 => vec![rng.random_range(0..members)],
        5..7 if members > 2 => {
            let spared = rng.random_range(0..members);
            (0..members).filter(|at| *at != spared).collect()
        }
        _ => (0..members).collect(),
    }
}

/// Starts members; now and then the power goes again while they start.
fn start_through_cuts(cluster: &mut Cluster, which: &[usize], figures: &mut Figures, rng: &mut ChaCha8Rng) {
    loop {
        for &at in which {
            cluster.members[at].start();
        }
        if rng.random_range(0..3) > 0 {
            break;
        }
        if rng.random_range(0..2) == 0 {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..150)));
        } else {
            // At some operation of the disk, wherever that falls.
            set_off_at(cluster, which, 60, rng);
            std::thread::sleep(Duration::from_millis(200));
        }
        cluster.cut(which, rng);
        figures.cuts += 1;
        figures.during_start += 1;
        figures.of_all += u64::from(which.len() == cluster.members.len());
    }
    cluster.wait_healthy();
}

/// Each loses power at some operation of its disk from now on, among so many.
fn set_off_at(cluster: &Cluster, which: &[usize], among: u64, rng: &mut ChaCha8Rng) {
    for &at in which {
        let mount = &cluster.members[at].mount;
        let from = mount.disk().operations();
        mount.behaviour().off_at = Some(from + rng.random_range(0..among));
    }
}
