//! Power cuts under load: nothing that was acknowledged is lost, and every member starts again by itself.

use crate::cluster::Cluster;
use crate::load::{Load, Written};
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
    let mut written = Written::default();
    let mut round = 0;
    let everybody: Vec<usize> = (0..members).collect();
    start_through_cuts(&mut cluster, &everybody, &mut figures, &mut rng);
    while figures.cuts < cuts {
        round += 1;
        let ports: Vec<u16> = cluster.members.iter().map(|member| member.client_port).collect();
        let load = Load::start(&ports, 6, round);
        std::thread::sleep(Duration::from_millis(rng.random_range(50..900)));
        let victims = draw_victims(members, &mut rng);
        let fates = cluster.cut(&victims, &mut rng);
        figures.cuts += victims.len().min(1) as u64;
        figures.of_all += u64::from(victims.len() == members);
        // Meanwhile the others go on, and their log runs away from whoever is down.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..500)));
        start_through_cuts(&mut cluster, &victims, &mut figures, &mut rng);
        let (more, count) = load.stop();
        written.extend(more);
        figures.acknowledged += count;
        for (at, member) in cluster.members.iter().enumerate() {
            if let Err(wrong) = written.check(member.client_port) {
                panic!(
                    "seed {seed}, cut {} ({fates:?}): member {at} lost what was acknowledged: {wrong}",
                    figures.cuts
                );
            }
        }
    }
    for member in &cluster.members {
        let log = std::fs::read_to_string(&member.log).unwrap();
        figures.snapshots += log.matches("sending it the whole state").count() as u64;
        assert!(!log.contains("panicked"), "a member panicked: {}", member.log.display());
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
        which.iter().for_each(|&at| cluster.members[at].start());
        if rng.random_range(0..3) > 0 {
            break;
        }
        if rng.random_range(0..2) == 0 {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..150)));
        } else {
            // At some operation of the disk, wherever that falls.
            for &at in which {
                let member = &cluster.members[at];
                let from = member.mount.disk().operations();
                member.mount.behaviour().off_at = Some(from + rng.random_range(0..60));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        cluster.cut(which, rng);
        figures.cuts += 1;
        figures.during_start += 1;
        figures.of_all += u64::from(which.len() == cluster.members.len());
    }
    cluster.wait_healthy();
}
