//! What the core may rely on of a member's disk, as a suite that every disk passes: the real one, the simplest one that
//! could be, which is the reference, and the simulator's, whose faults are worth nothing if it promises other things
//! than the real one.
//!
//! - Writes are there in order: after a crash all that were acknowledged, and of those under way the first few.
//! - An append replaces whatever was at its first index or after it. A snapshot replaces the whole log.
//! - Term, vote and commit belong to the entries that they were written with; the commit is never behind the checkpoint.
//! - The state is that of the newest checkpoint, or of the one before; the log reaches back to either.
#![allow(clippy::unwrap_used)] // helpers of tests

use crate::coverage::Coverage;
use crate::disk::{Disk, Job};
use quorate::replica::{LogPosition, LogWrite, MemberInfo, Recovered, State};
use quorate::storage::{DataDir, Storage};
use quorate::store::{ClusterTime, Command, HistoryLimits, Key};
use raft::eraftpb::{Entry, HardState};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const LIMITS: HistoryLimits = HistoryLimits { events: 5, bytes: 1 << 16 };

trait MemberDisk {
    /// Of a member that has just been founded.
    fn founding(state: &State) -> Self;
    /// Writes and acknowledges.
    fn write(&mut self, write: &Write);
    /// A checkpoint of the member's own state. Gives how far back the log is needed.
    fn checkpoint(&mut self, state: &State) -> LogPosition;
    fn compact(&mut self, upto: LogPosition);
    /// A crash before any of `under_way` is acknowledged; and what a start finds.
    fn crash(&mut self, under_way: &[Write], rng: &mut ChaCha8Rng) -> Recovered;
}

/// What a [`LogWrite`] is made from, again and again.
#[derive(Clone, Debug)]
struct Write {
    install: Option<LogPosition>,
    entries: Vec<Entry>,
    hard_state: HardState,
}

impl Write {
    fn log_write(&self) -> LogWrite {
        LogWrite {
            number: 1,
            install: self.install.map(|at| Box::new(state_at(at))),
            entries: self.entries.clone(),
            hard_state: Some(self.hard_state.clone()),
            sync: true,
            then_send: Vec::new(),
        }
    }
}

/// A state that tells where it is from.
fn state_at(at: LogPosition) -> State {
    let mut state = State::founding(7, BTreeMap::from([(1, MemberInfo::default())]), LIMITS);
    let value = at.to_string().into();
    let command = Command::Set { key: Key::parse(b"/at"), value, dir: false, ttl: None, refresh: false };
    state.store.apply(ClusterTime(1), &command).unwrap();
    state.applied = at;
    state
}

/// The reference: it loses nothing, and does nothing else.
#[derive(Clone)]
struct Memory {
    checkpoints: Vec<LogPosition>,
    base: LogPosition,
    entries: Vec<Entry>,
    hard_state: HardState,
}

impl Memory {
    fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.base, LogPosition::of)
    }

    fn position(&self, index: u64) -> LogPosition {
        match index - self.base.index {
            0 => self.base,
            offset => LogPosition::of(&self.entries[offset as usize - 1]),
        }
    }

    fn newest(&self) -> LogPosition {
        self.checkpoints[self.checkpoints.len() - 1]
    }

    /// With a checkpoint that the log was not made to fit yet.
    fn with_snapshot_alone(mut self, at: LogPosition) -> Memory {
        if at.index > self.last().index || self.position(at.index) != at {
            self.base = at;
            self.entries.clear();
        }
        if self.hard_state.term < at.term {
            (self.hard_state.term, self.hard_state.vote) = (at.term, 0);
        }
        self.checkpoints = vec![at];
        self
    }

    fn recovered(&self) -> Recovered {
        let mut hard_state = self.hard_state.clone();
        hard_state.commit = hard_state.commit.max(self.newest().index);
        let state = state_at(self.newest());
        Recovered { state, base: self.base, entries: self.entries.clone(), hard_state, clock: None }
    }
}

impl MemberDisk for Memory {
    fn founding(state: &State) -> Self {
        let base = state.applied;
        let hard_state = HardState { term: base.term, commit: base.index, ..HardState::default() };
        Memory { checkpoints: vec![base], base, entries: Vec::new(), hard_state }
    }

    fn write(&mut self, write: &Write) {
        if let Some(at) = write.install {
            (self.checkpoints, self.base) = (vec![at], at);
            self.entries.clear();
        }
        if let Some(first) = write.entries.first() {
            self.entries.truncate((first.index - self.base.index - 1) as usize);
            self.entries.extend(write.entries.iter().cloned());
        }
        self.hard_state = write.hard_state.clone();
    }

    fn checkpoint(&mut self, state: &State) -> LogPosition {
        let older = self.newest();
        self.checkpoints = vec![older, state.applied];
        older
    }

    fn compact(&mut self, upto: LogPosition) {
        self.entries.retain(|entry| entry.index > upto.index);
        self.base = upto;
    }

    fn crash(&mut self, under_way: &[Write], rng: &mut ChaCha8Rng) -> Recovered {
        let reached = rng.random_range(0..=under_way.len());
        under_way[..reached].iter().for_each(|write| self.write(write));
        self.recovered()
    }
}

impl MemberDisk for Disk {
    fn founding(state: &State) -> Self {
        Disk::founding(state, None)
    }

    fn write(&mut self, write: &Write) {
        self.done(&Job::Write(write.log_write()));
    }

    fn checkpoint(&mut self, state: &State) -> LogPosition {
        self.checkpointed(state, LIMITS)
    }

    fn compact(&mut self, upto: LogPosition) {
        self.done(&Job::Compact(upto));
    }

    fn crash(&mut self, under_way: &[Write], rng: &mut ChaCha8Rng) -> Recovered {
        self.queue.extend(under_way.iter().map(|write| (0, Job::Write(write.log_write()))));
        let mut coverage = Coverage::default();
        Disk::crash(self, rng, &mut coverage);
        self.recover(None, rng, &mut coverage)
    }
}

/// The data directory of a member, as its threads write it.
struct Real {
    scratch: TempDir,
    data: Option<(DataDir, Storage)>,
    lives: u32,
}

impl Real {
    fn path(&self) -> std::path::PathBuf {
        self.scratch.path().join(self.lives.to_string())
    }

    fn open(&mut self) -> &Storage {
        let dir = DataDir::open(&self.path()).unwrap();
        let storage = dir.open_storage().unwrap();
        &self.data.insert((dir, storage)).1
    }

    fn storage(&self) -> &Storage {
        &self.data.as_ref().unwrap().1
    }

    fn write_synced(&self, write: &Write, sync: bool) {
        let Storage { log, checkpoints, .. } = self.storage();
        let LogWrite { install, entries, hard_state, .. } = write.log_write();
        if let Some(state) = install {
            let at = state.applied;
            checkpoints.save(at, state.into_records()).unwrap();
            log.reset(at, &hard_state.unwrap()).unwrap();
            log.append(&entries, None, sync).unwrap();
        } else {
            log.append(&entries, hard_state.as_ref(), sync).unwrap();
        }
    }
}

impl MemberDisk for Real {
    fn founding(state: &State) -> Self {
        let mut real = Real { scratch: TempDir::new().unwrap(), data: None, lives: 0 };
        real.open();
        let at = state.applied;
        let hard_state = HardState { term: at.term, commit: at.index, ..HardState::default() };
        real.storage().checkpoints.save(at, state.clone().into_records()).unwrap();
        real.storage().log.reset(at, &hard_state).unwrap();
        real
    }

    fn write(&mut self, write: &Write) {
        self.write_synced(write, true);
    }

    fn checkpoint(&mut self, state: &State) -> LogPosition {
        let checkpoints = &self.storage().checkpoints;
        checkpoints.save(state.applied, state.clone().into_records()).unwrap();
        checkpoints.oldest_kept().unwrap()
    }

    fn compact(&mut self, upto: LogPosition) {
        self.storage().log.compact(upto).unwrap();
        self.storage().log.free_space().unwrap();
    }

    /// As after a kill: what was written is there, whoever had it open did not close it.
    fn crash(&mut self, under_way: &[Write], _: &mut ChaCha8Rng) -> Recovered {
        for write in under_way {
            self.write_synced(write, false);
        }
        let before = self.path();
        self.lives += 1;
        copy_dir(&before, &self.path());
        self.data = None;
        fs::remove_dir_all(before).unwrap();
        let found = self.open().recovered.clone();
        let (_, records) = found.checkpoint.unwrap();
        let state = State::from_records(&records, LIMITS).unwrap();
        let (base, entries, hard_state) = (found.base, found.entries, found.hard_state);
        Recovered { state, base, entries, hard_state, clock: None }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// Something that raft might write next.
fn draw_write(model: &Memory, rng: &mut ChaCha8Rng) -> Write {
    let HardState { term, vote, commit, .. } = model.hard_state;
    let commit = commit.max(model.newest().index);
    let term = term + rng.random_range(0..4) / 3;
    let vote = if term > model.hard_state.term { rng.random_range(0..4) } else { vote };
    let (install, base) = match rng.random_range(0..12) {
        0 => {
            let at = LogPosition { index: commit + rng.random_range(1..20), term };
            (Some(at), at.index)
        }
        _ => (None, rng.random_range(commit..=model.last().index)),
    };
    // Another term's entries replace a tail; the same term's only follow.
    let first = if install.is_none() && term == model.last().term { model.last().index } else { base };
    let data = |index: u64| format!("{index} of {term}").repeat(rng_len(index)).into_bytes().into();
    let entry = |index| Entry { index, term, data: data(index), ..Entry::default() };
    let entries: Vec<Entry> = (first + 1..=first + rng.random_range(0..6)).map(entry).collect();
    let last = match entries.last() {
        Some(entry) => entry.index,
        None => install.map_or(model.last().index, |at| at.index),
    };
    let commit = rng.random_range(install.map_or(commit, |at| at.index)..=last);
    Write { install, entries, hard_state: HardState { term, vote, commit, ..HardState::default() } }
}

fn rng_len(index: u64) -> usize {
    (index % 7 * 40) as usize + 1
}

/// The reference after that crash, if what was found is one that it could have come to.
fn explain(model: &Memory, under_way: &[Write], found: &Recovered) -> Option<Memory> {
    (0..=under_way.len()).find_map(|reached| {
        let mut reference = model.clone();
        under_way[..reached].iter().for_each(|write| reference.write(write));
        // A snapshot may be there before the log knows of it.
        let torn = under_way.get(reached).and_then(|write| write.install);
        let installed = torn.map(|at| reference.clone().with_snapshot_alone(at));
        let older = (reference.checkpoints.len() > 1).then(|| {
            let mut older = reference.clone();
            older.checkpoints.pop();
            older
        });
        [Some(reference), older, installed].into_iter().flatten().find(|one| agree(one, found))
    })
}

fn agree(reference: &Memory, found: &Recovered) -> bool {
    let at = reference.newest();
    let after = |base: LogPosition, entries: &[Entry]| {
        base.index <= at.index && entries.first().is_none_or(|entry| entry.index == base.index + 1)
    };
    let tail = |entries: &[Entry]| -> Vec<Entry> {
        entries.iter().filter(|entry| entry.index > at.index).cloned().collect()
    };
    let commit_matches = found.hard_state.commit == reference.hard_state.commit.max(at.index);
    let text = found.state.store.get(&Key::parse(b"/at")).ok().and_then(|node| node.value);
    found.state.applied == at
        && text.is_some_and(|text| *text == *at.to_string().as_bytes())
        && after(found.base, &found.entries)
        && tail(&found.entries) == tail(&reference.entries)
        && (found.hard_state.term, found.hard_state.vote)
            == (reference.hard_state.term, reference.hard_state.vote)
        && commit_matches
}

fn keeps_the_contract<D: MemberDisk>(seeds: std::ops::Range<u64>, steps: usize) {
    for seed in seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let founding = state_at(LogPosition::FOUNDING);
        let mut disk = D::founding(&founding);
        let mut model = Memory::founding(&founding);
        for step in 0..steps {
            match rng.random_range(0..10) {
                0..6 => {
                    let write = draw_write(&model, &mut rng);
                    disk.write(&write);
                    model.write(&write);
                }
                6..8 if model.hard_state.commit > model.newest().index => {
                    let range = model.newest().index + 1..=model.hard_state.commit;
                    let state = state_at(model.position(rng.random_range(range)));
                    let upto = disk.checkpoint(&state);
                    assert_eq!(upto, model.checkpoint(&state), "seed {seed}, step {step}");
                    disk.compact(upto);
                    model.compact(upto);
                }
                _ => {
                    let mut ahead = model.clone();
                    let under_way: Vec<Write> = (0..rng.random_range(0..4))
                        .map(|_| {
                            let write = draw_write(&ahead, &mut rng);
                            ahead.write(&write);
                            write
                        })
                        .collect();
                    let found = disk.crash(&under_way, &mut rng);
                    model = explain(&model, &under_way, &found).unwrap_or_else(|| {
                        panic!(
                            "seed {seed}, step {step}: found {} and {} to {:?} with {:?}; acknowledged was {:?}, under way {under_way:?}",
                            found.state.applied, found.base, found.entries.last(), found.hard_state, model.recovered()
                        )
                    });
                }
            }
        }
    }
}

#[test]
fn contract_of_the_reference() {
    keeps_the_contract::<Memory>(0..200, 100);
}

#[test]
fn contract_of_the_simulated_disk() {
    keeps_the_contract::<Disk>(0..200, 100);
}

#[test]
fn contract_of_the_real_disk() {
    keeps_the_contract::<Real>(0..4, 60);
}
