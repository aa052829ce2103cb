//! A disk that keeps through a power cut only what was synced: the model behind the mounted file system.
//!
//! Every change is an [`Op`]. Until an fsync of its file (or of its directory, for names) it is pending, and a
//! [`Disk::cut`] decides its fate. What POSIX does not promise is not given: the name of a file is not synced with the
//! file, nor a file with its name; `sync_file_range` never gets here, since it syncs nothing.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

pub type Ino = u64;
pub const ROOT: Ino = 1;

const PAGE: usize = 4096;

/// One change of the disk, or a note of what the program's user knows by then.
#[derive(Clone, Debug)]
pub enum Op {
    Create {
        dir: Ino,
        name: String,
        ino: Ino,
        is_dir: bool,
        mode: u32,
    },
    Remove {
        dir: Ino,
        name: String,
    },
    Rename {
        from: (Ino, String),
        to: (Ino, String),
    },
    Write {
        ino: Ino,
        at: usize,
        data: Vec<u8>,
    },
    Resize {
        ino: Ino,
        len: usize,
    },
    /// Makes what was pending for a file or a directory before the operation of this number durable.
    Sync {
        ino: Ino,
        before: u64,
    },
    Mark(Mark),
}

/// What the user of the program knows; it is no change of the disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    /// A write of this number was asked for.
    Asked(u64),
    /// It was acknowledged.
    Acknowledged(u64),
    /// The member has applied, and so must hold, its log up to here.
    Applied(u64),
}

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// All of it is lost.
    Lost,
    /// All of it is there: as after a kill.
    Kept,
    /// So many of the operations are there, in order, and the one after them is torn somewhere.
    Prefix(usize),
    /// Any 4 KiB pages, lengths and names of it, in no order.
    Scattered,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Resize(usize),
}

#[derive(Clone, Debug, Default)]
pub struct Node {
    pub is_dir: bool,
    pub mode: u32,
    /// As programs see it.
    pub data: Vec<u8>,
    pub names: BTreeMap<String, Ino>,
    pub opened: u32,
    durable: Vec<u8>,
    durable_names: BTreeMap<String, Ino>,
    pending: Vec<(u64, Change)>,
}

/// Changes of names that happen together or not at all: `(directory, name, what it names)`.
#[derive(Clone, Debug)]
struct Naming {
    number: u64,
    changes: Vec<(Ino, String, Option<Ino>)>,
}

#[derive(Clone, Debug)]
pub struct Disk {
    nodes: BTreeMap<Ino, Node>,
    namings: Vec<Naming>,
    /// Numbers operations.
    next: u64,
    next_ino: Ino,
    pub trace: Option<Vec<Op>>,
}

impl Disk {
    pub fn new() -> Disk {
        let root = Node { is_dir: true, mode: 0o755, ..Node::default() };
        let nodes = BTreeMap::from([(ROOT, root)]);
        Disk { nodes, namings: Vec::new(), next: 0, next_ino: ROOT + 1, trace: None }
    }

    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub fn node_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    pub fn fresh_ino(&mut self) -> Ino {
        self.next_ino += 1;
        self.next_ino
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.next
    }

    pub fn bytes(&self) -> u64 {
        self.nodes.values().map(|node| node.data.len() as u64).sum()
    }

    /// Carries out an operation that is known to be possible.
    pub fn apply(&mut self, op: Op) {
        if let Some(trace) = &mut self.trace {
            trace.push(op.clone());
        }
        self.next += 1;
        match op {
            Op::Create { dir, name, ino, is_dir, mode } => {
                self.next_ino = self.next_ino.max(ino);
                self.nodes.insert(ino, Node { is_dir, mode, ..Node::default() });
                self.rename_all(vec![(dir, name, Some(ino))]);
            }
            Op::Remove { dir, name } => self.rename_all(vec![(dir, name, None)]),
            Op::Rename { from, to } => {
                let ino = self.nodes.get(&from.0).and_then(|dir| dir.names.get(&from.1)).copied();
                self.rename_all(vec![(from.0, from.1, None), (to.0, to.1, ino)]);
            }
            Op::Write { ino, at, data } => self.change(ino, Change::Write { at, data }),
            Op::Resize { ino, len } => self.change(ino, Change::Resize(len)),
            Op::Sync { ino, before } => self.sync(ino, before),
            Op::Mark(_) => {}
        }
    }

    fn rename_all(&mut self, changes: Vec<(Ino, String, Option<Ino>)>) {
        for (dir, name, ino) in &changes {
            if let Some(dir) = self.nodes.get_mut(dir) {
                set_name(&mut dir.names, name, *ino);
            }
        }
        self.namings.push(Naming { number: self.next, changes });
    }

    fn change(&mut self, ino: Ino, change: Change) {
        let number = self.next;
        if let Some(node) = self.nodes.get_mut(&ino) {
            write(&mut node.data, &change, usize::MAX);
            node.pending.push((number, change));
        }
    }

    fn sync(&mut self, ino: Ino, before: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let later = node.pending.partition_point(|(number, _)| *number <= before);
        for (_, change) in node.pending.drain(..later) {
            write(&mut node.durable, &change, usize::MAX);
        }
        if node.is_dir {
            let (synced, rest) = std::mem::take(&mut self.namings).into_iter().partition(|naming| {
                naming.number <= before && naming.changes.iter().any(|(dir, _, _)| *dir == ino)
            });
            self.namings = rest;
            let synced: Vec<Naming> = synced;
            for naming in &synced {
                self.name_durably(naming);
            }
            self.forget_unreachable();
        }
    }

    fn name_durably(&mut self, naming: &Naming) {
        for (dir, name, ino) in &naming.changes {
            if let Some(dir) = self.nodes.get_mut(dir) {
                set_name(&mut dir.durable_names, name, *ino);
            }
        }
    }

    /// The power goes, and comes back. `rng` decides what the fate leaves open.
    pub fn cut(&mut self, fate: Fate, rng: &mut ChaCha8Rng) {
        match fate {
            Fate::Lost => {}
            Fate::Kept => self.keep_prefix(usize::MAX, rng),
            Fate::Prefix(count) => self.keep_prefix(count, rng),
            Fate::Scattered => self.keep_some(rng),
        }
        self.namings.clear();
        for node in self.nodes.values_mut() {
            node.pending.clear();
            node.opened = 0;
            node.data.clone_from(&node.durable);
            node.names.clone_from(&node.durable_names);
        }
        self.forget_unreachable();
        if let Some(trace) = &mut self.trace {
            trace.clear();
        }
    }

    /// How many operations a cut would decide about.
    pub fn pending(&self) -> usize {
        self.namings.len() + self.nodes.values().map(|node| node.pending.len()).sum::<usize>()
    }

    fn keep_prefix(&mut self, count: usize, rng: &mut ChaCha8Rng) {
        let mut order: Vec<(u64, Option<Ino>)> = self.namings.iter().map(|n| (n.number, None)).collect();
        for (ino, node) in &self.nodes {
            order.extend(node.pending.iter().map(|(number, _)| (*number, Some(*ino))));
        }
        order.sort_unstable();
        for (at, (number, ino)) in order.into_iter().enumerate().take(count.saturating_add(1)) {
            match ino.and_then(|ino| self.nodes.get_mut(&ino)) {
                Some(node) => {
                    let Some((_, change)) = node.pending.iter().find(|(n, _)| *n == number) else { continue };
                    let torn_at = match change {
                        _ if at < count => usize::MAX,
                        Change::Write { data, .. } => rng.random_range(0..=data.len()),
                        Change::Resize(_) => continue,
                    };
                    write(&mut node.durable, change, torn_at);
                }
                None if at < count => {
                    if let Some(naming) = self.namings.iter().find(|n| n.number == number).cloned() {
                        self.name_durably(&naming);
                    }
                }
                None => {}
            }
        }
    }

    fn keep_some(&mut self, rng: &mut ChaCha8Rng) {
        for naming in std::mem::take(&mut self.namings) {
            if rng.random_range(0..2) == 0 {
                self.name_durably(&naming);
            }
        }
        for node in self.nodes.values_mut().filter(|node| !node.pending.is_empty()) {
            let mut dirty = BTreeSet::new();
            for (_, change) in &node.pending {
                if let Change::Write { at, data } = change {
                    dirty.extend(at / PAGE..(at + data.len()).div_ceil(PAGE));
                }
            }
            let len = [node.durable.len(), node.data.len()][rng.random_range(0..2)];
            // Of a file that was cut and has grown again, there are zeros between.
            let cuts = node.pending.iter().filter_map(|(_, change)| match change {
                Change::Resize(len) => Some(*len),
                Change::Write { .. } => None,
            });
            let floor = cuts.min().unwrap_or(usize::MAX).min(len);
            if floor < node.durable.len() && len == node.data.len() {
                node.durable.truncate(floor);
                dirty.extend(floor / PAGE..len.div_ceil(PAGE));
            }
            node.durable.resize(len, 0);
            for page in dirty.into_iter().filter(|_| rng.random_range(0..2) == 0) {
                let range = page * PAGE..((page + 1) * PAGE).min(len).min(node.data.len());
                if !range.is_empty() {
                    node.durable[range.clone()].copy_from_slice(&node.data[range]);
                }
            }
        }
    }

    /// Frees what neither a program nor a power cut can bring back.
    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            reached.extend(node.names.values().chain(node.durable_names.values()));
        }
        reached.extend(self.namings.iter().flat_map(|n| n.changes.iter().filter_map(|(_, _, ino)| *ino)));
        self.nodes.retain(|ino, node| node.opened > 0 || reached.contains(ino));
    }

    /// All files by path, and directories as `None`: what a program finds.
    pub fn contents(&self) -> BTreeMap<String, Option<&[u8]>> {
        let mut found = BTreeMap::new();
        let mut left = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = left.pop() {
            let Some(node) = self.nodes.get(&ino) else { continue };
            for (name, child) in &node.names {
                left.push((format!("{path}/{name}"), *child));
            }
            found.insert(path, (!node.is_dir).then_some(&node.data[..]));
        }
        found
    }
}

fn set_name(names: &mut BTreeMap<String, Ino>, name: &str, ino: Option<Ino>) {
    match ino {
        Some(ino) => names.insert(name.to_owned(), ino),
        None => names.remove(name),
    };
}

/// Applies a change, of a write only what is before `torn_at`.
fn write(bytes: &mut Vec<u8>, change: &Change, torn_at: usize) {
    match change {
        Change::Write { at, data } => {
            let data = &data[..data.len().min(torn_at)];
            if data.is_empty() {
                return;
            }
            let end = at + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(data);
        }
        Change::Resize(len) => bytes.resize(*len, 0),
    }
}
