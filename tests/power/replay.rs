//! Rebuilds the disk as it was at every operation of a recording, with and without what was not synced, and looks at
//! what a member recovers from it.

use crate::disk::{Disk, Fate, Mark, Op};
use crate::record::{KEYS, Recording};
use quorate::replica::{Input, Recovered, Replica, ReplicaConfig, State};
use quorate::storage::DataDir;
use quorate::store::{HistoryLimits, Key};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use xxhash_rust::xxh3::Xxh3;

const THREADS: usize = 2;

/// What may be asked of a member at one point of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Expected {
    asked: u64,
    acknowledged: u64,
    applied: u64,
}

/// How much was looked at.
#[derive(Debug, Default)]
pub struct Figures {
    pub operations: usize,
    pub states: usize,
    pub opened: usize,
}

/// Looks at every state of the disk in a recording; gives what is wrong, if anything is.
pub fn every_state(recording: &Recording) -> Result<Figures, String> {
    let seen = Mutex::new(HashSet::new());
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|at| {
                scope.spawn({
                    let seen = &seen;
                    move || work(recording, at, seen)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let mut figures = Figures { operations: recording.ops.len(), ..Figures::default() };
    for result in results {
        let (states, opened) = result?;
        figures.states += states;
        figures.opened += opened;
    }
    Ok(figures)
}

fn work(
    recording: &Recording,
    part: usize,
    seen: &Mutex<HashSet<(u64, Expected)>>,
) -> Result<(usize, usize), String> {
    let mut disk = recording.base.clone();
    let mut expected =
        Expected { asked: recording.known, acknowledged: recording.known, ..Expected::default() };
    let (mut states, mut opened) = (0, 0);
    for (at, op) in recording.ops.iter().enumerate() {
        disk.apply(op.clone());
        match op {
            Op::Mark(Mark::Asked(number)) => expected.asked = *number,
            Op::Mark(Mark::Acknowledged(number)) => expected.acknowledged = *number,
            Op::Mark(Mark::Applied(index)) => expected.applied = *index,
            _ => {}
        }
        if at % THREADS != part {
            continue;
        }
        // What is left out is as it was an operation ago.
        let torn = Fate::Prefix(disk.pending().saturating_sub(1));
        let fates: &[Fate] = match op {
            Op::Mark(_) => &[Fate::Lost],
            Op::Sync { .. } => &[Fate::Lost, Fate::Scattered],
            Op::Write { .. } => &[Fate::Kept, torn, Fate::Scattered],
            Op::Create { .. } | Op::Remove { .. } | Op::Rename { .. } | Op::Resize { .. } => {
                &[Fate::Kept, Fate::Scattered]
            }
        };
        for &fate in fates {
            let mut rng = ChaCha8Rng::seed_from_u64(at as u64);
            let mut crashed = disk.clone();
            crashed.cut(fate, &mut rng);
            states += 1;
            if !seen.lock().unwrap().insert((hash(&crashed), expected)) {
                continue;
            }
            opened += 1;
            let dir = materialise(&crashed);
            // What recovery itself changes must do as well.
            for attempt in 1..=2 {
                recover(&dir.path().join("data"), expected)
                    .map_err(|wrong| {
                        let kept = dir.path().display();
                        let name = recording.name;
                        format!(
                            "{name}, operation {at} ({}), {fate:?}, start {attempt}: {wrong}; see {kept}",
                            short(op)
                        )
                    })
                    .inspect_err(|_| keep(&dir))?;
            }
        }
    }
    Ok((states, opened))
}

fn short(op: &Op) -> String {
    match op {
        Op::Write { ino, at, data } => format!("write of {} bytes at {at} of {ino}", data.len()),
        other => format!("{other:?}"),
    }
}

/// For a look at it after the test.
fn keep(dir: &TempDir) {
    let kept = std::env::temp_dir().join(dir.path().file_name().unwrap());
    let _ = std::process::Command::new("cp").arg("-a").args([dir.path(), &kept]).status();
}

fn hash(disk: &Disk) -> u64 {
    let mut hash = Xxh3::new();
    for (path, data) in disk.contents() {
        hash.update(path.as_bytes());
        hash.update(&data.map_or(u64::MAX, |data| data.len() as u64).to_le_bytes());
        hash.update(data.unwrap_or_default());
    }
    hash.digest()
}

/// Writes a disk's files into a directory in memory.
fn materialise(disk: &Disk) -> TempDir {
    let parent = if Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    let dir = TempDir::with_prefix_in("quorate-replay-", parent).unwrap();
    for (path, data) in disk.contents() {
        let path = dir.path().join(path.trim_start_matches('/'));
        let Some(data) = data else {
            fs::create_dir_all(&path).unwrap();
            continue;
        };
        let file = File::create(&path).unwrap();
        file.set_len(data.len() as u64).unwrap();
        // Most of a log's file is the zeros of preallocation.
        for (page, bytes) in data.chunks(4096).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                file.write_all_at(bytes, page as u64 * 4096).unwrap();
            }
        }
    }
    dir
}

/// Starts from a data directory as a member does, without its sockets.
fn recover(path: &Path, expected: Expected) -> Result<(), String> {
    let dir = DataDir::open(path).map_err(|e| e.to_string())?;
    let identity = dir.identity().map_err(|e| e.to_string())?;
    let storage = dir.open_storage().map_err(|e| e.to_string())?;
    let Some(identity) = identity else {
        // It was not founded yet, and begins anew.
        let nothing = expected.acknowledged == 0 && expected.applied == 0;
        return if nothing { Ok(()) } else { Err(format!("there is no identity, but {expected:?}")) };
    };
    let found = storage.recovered;
    let (_, records) = found.checkpoint.ok_or("there is an identity, but no checkpoint")?;
    let limits = HistoryLimits { events: 20, bytes: 1 << 20 };
    let state = State::from_records(&records, limits)?;
    let last = found.entries.last().map_or(found.base.index, |entry| entry.index);
    if found.hard_state.commit > last || state.applied.index > found.hard_state.commit {
        return Err(format!("applied {}, {:?}, last {last}", state.applied, found.hard_state));
    }
    if last < expected.applied {
        return Err(format!("the log ends at {last}, but {expected:?}"));
    }
    let alone = state.members.len() == 1;
    let recovered = Recovered {
        state,
        base: found.base,
        entries: found.entries,
        hard_state: found.hard_state,
        clock: dir.load_clock().map(|(term, ms)| (term, quorate::store::ClusterTime(ms))),
    };
    let replica_config = ReplicaConfig {
        quota_bytes: 0,
        log_held_bytes: 32 << 20,
        id: identity.member_id,
        incarnation: identity.incarnation,
        strict_reconfig: true,
        session: 1,
        seed: 1,
        election_ticks: 10,
        request_timeout: Duration::from_secs(1),
    };
    let mut replica = Replica::new(replica_config, recovered, Duration::ZERO)?;
    if !alone {
        // Others may have more, and would have to be asked.
        return Ok(());
    }
    while replica.state().applied.term < replica.standing().term || !replica.standing().leads {
        let effects = replica.flush(Duration::ZERO)?;
        for write in effects.writes {
            replica.step(Duration::ZERO, Input::Persisted { number: write.number });
        }
    }
    check_store(replica.state(), expected)
}

/// The state is that after some write `n`, with `acknowledged <= n <= asked`, and nothing of any other.
fn check_store(state: &State, expected: Expected) -> Result<(), String> {
    let mut values = Vec::new();
    for slot in 0..KEYS {
        let node = state.store.get(&Key::parse(format!("/{slot}").as_bytes()));
        let value = node.ok().and_then(|node| node.value).unwrap_or_default();
        let text = String::from_utf8_lossy(&value);
        values.push(text.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0));
    }
    let newest: u64 = values.iter().copied().max().unwrap_or(0);
    if newest < expected.acknowledged || newest > expected.asked {
        return Err(format!("the last write is {newest}, but {expected:?}"));
    }
    let of_slot = |slot: u64| (1..=newest).rev().find(|number| number % KEYS == slot).unwrap_or(0);
    let wanted: Vec<u64> = (0..KEYS).map(of_slot).collect();
    if values == wanted { Ok(()) } else { Err(format!("the state is {values:?}, not {wanted:?}")) }
}
