//! A sequence of records as a sled database that is written once, closed, and only ever read as a copy.
//!
//! The records, each behind its length, are one stream of bytes that is cut into large items, and every few items are a
//! tree of their own. sled writes an item that is inserted to its log, and writes the whole leaf again after ten
//! insertions or when it splits: trees too small for either are written once. With all items of 4 KiB in one tree,
//! 330 MiB of records were 1.1 GiB of writes, a file of 584 MiB and 3.5 s of processor time; so they are 352 MiB and 0.9 s.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use rustix::fs::FlockOperation;
use xxhash_rust::xxh3::Xxh3;

use super::error::{Doing, StorageError};
use super::files;
use super::manifest::CURE_CHECKPOINT;
use crate::proto::state::{Record, Tail, record::Body};

/// Bytes of an item. sled writes a leaf of more than a quarter of a segment (131,052 bytes) to a file of its own, so an
/// item must be smaller; with smaller ones than this there are many trees, of which sled keeps a list.
const ITEM_LEN: usize = 32 << 10;

/// Items in a tree: fewer than the insertions after which sled writes a leaf again.
const TREE_ITEMS: u64 = 8;

/// How often a tree that is complete is looked at. sled looks for what to drop from its cache only when a shard of it was
/// used 64 times: without this the cache would hold hundreds of megabytes.
const LOOKS: usize = 64;

/// sled takes about ten times this much memory.
const CACHE_BYTES: u64 = 4 << 20;

/// Bytes of the length before each record.
const LENGTH_LEN: usize = 4;

/// How often the free space is looked at while writing.
const SPACE_CHECK_BYTES: u64 = 1 << 20;

/// sled's threads let go of the files a moment after the last handle is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

fn config(dir: &Path) -> sled::Config {
    sled::Config::default()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(None)
        .use_compression(false)
}

/// Writes the records and a tail into a new database in `dir` and closes it. Stops with `Full` when less than
/// `reserve_bytes` would be left: what the log needs is not taken from it. Nothing is durable yet.
pub(crate) fn write(
    dir: &Path,
    records: impl Iterator<Item = Record>,
    reserve_bytes: u64,
) -> Result<(), StorageError> {
    let failed = |e| sled_error("writing", dir, e);
    let db = config(dir).open().map_err(failed)?;
    let mut sums = Sums::default();
    let mut items = Items { db: &db, dir, number: 0, tree: None };
    let mut unchecked_bytes = SPACE_CHECK_BYTES;
    let mut stream: Vec<u8> = Vec::with_capacity(2 * ITEM_LEN);
    for record in records {
        let begin = put(dir, &mut stream, &record)?;
        sums.add(&stream[begin..]);
        let whole = stream.len() - stream.len() % ITEM_LEN;
        for item in stream[..whole].chunks(ITEM_LEN) {
            unchecked_bytes += ITEM_LEN as u64;
            if unchecked_bytes >= SPACE_CHECK_BYTES {
                unchecked_bytes = 0;
                check_space("writing a checkpoint in", dir, reserve_bytes)?;
            }
            items.push(item)?;
        }
        stream.drain(..whole);
    }
    put(dir, &mut stream, &Record { body: Some(Body::Tail(sums.tail())) })?;
    check_space("writing a checkpoint in", dir, reserve_bytes)?;
    for item in stream.chunks(ITEM_LEN) {
        items.push(item)?;
    }
    drop(items);
    db.flush().map_err(failed)?;
    drop(db);
    wait_until_closed(dir)
}

/// Puts items into trees.
struct Items<'a> {
    db: &'a sled::Db,
    dir: &'a Path,
    /// Of the next item.
    number: u64,
    tree: Option<sled::Tree>,
}

impl Items<'_> {
    fn push(&mut self, item: &[u8]) -> Result<(), StorageError> {
        let failed = |e| sled_error("writing", self.dir, e);
        let tree = match self.tree.take() {
            Some(tree) => tree,
            None => self.db.open_tree((self.number / TREE_ITEMS).to_be_bytes()).map_err(failed)?,
        };
        tree.insert(self.number.to_be_bytes(), item).map_err(failed)?;
        self.number += 1;
        if self.number.is_multiple_of(TREE_ITEMS) {
            for _ in 0..LOOKS {
                tree.contains_key([]).map_err(failed)?;
            }
        } else {
            self.tree = Some(tree);
        }
        Ok(())
    }
}

/// Reads a database back; without its tail, which is checked. sled writes to the directory in doing so.
pub(crate) fn read(dir: &Path) -> Result<Vec<Record>, StorageError> {
    let failed = |e| sled_error("reading", dir, e);
    let damaged = |what: &str| StorageError::corrupt(dir, format!("{what}; {CURE_CHECKPOINT}"));
    let db = config(dir).open().map_err(failed)?;
    // The tree that sled makes by itself is empty.
    let mut names: Vec<sled::IVec> = db.tree_names().into_iter().filter(|name| name.len() == 8).collect();
    names.sort_unstable();
    let mut records = Vec::new();
    let mut sums = Sums::default();
    let mut stream = BytesMut::new();
    let mut number: u64 = 0;
    for name in names {
        let tree = db.open_tree(name).map_err(failed)?;
        for item in &tree {
            let (key, value) = item.map_err(failed)?;
            if *key != number.to_be_bytes() {
                return Err(damaged("an item is missing"));
            }
            number += 1;
            stream.extend_from_slice(&value);
            while let Some(bytes) = take(&mut stream) {
                let record = Record::decode(bytes.clone()).map_err(|_| damaged("a record makes no sense"))?;
                // The tail does not count for itself.
                if !matches!(record.body, Some(Body::Tail(_))) {
                    sums.add(&bytes);
                }
                records.push(record);
            }
        }
    }
    let tail = records.pop().and_then(|record| record.body);
    if tail != Some(Body::Tail(sums.tail())) || !stream.is_empty() {
        return Err(damaged("it does not end in the right checksum"));
    }
    drop(db);
    wait_until_closed(dir)?;
    Ok(records)
}

/// Appends a record behind its length. Gives where it begins.
fn put(dir: &Path, stream: &mut Vec<u8>, record: &Record) -> Result<usize, StorageError> {
    let too_long =
        |e| StorageError::io("writing a record in", dir, io::Error::new(io::ErrorKind::FileTooLarge, e));
    let len = u32::try_from(record.encoded_len()).map_err(too_long)?;
    stream.extend_from_slice(&len.to_be_bytes());
    let begin = stream.len();
    record.encode(stream).expect("a vector has room for whatever comes");
    Ok(begin)
}

/// The first record of the stream, if it is whole.
fn take(stream: &mut BytesMut) -> Option<Bytes> {
    let len = u32::from_be_bytes(stream.get(..LENGTH_LEN)?.try_into().ok()?) as usize;
    if stream.len() - LENGTH_LEN < len {
        return None;
    }
    stream.advance(LENGTH_LEN);
    Some(stream.split_to(len).freeze())
}

/// Count and checksum of the records so far.
#[derive(Default)]
struct Sums {
    records: u64,
    hash: Xxh3,
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        self.records += 1;
        self.hash.update(bytes);
    }

    fn tail(&self) -> Tail {
        Tail { records: self.records, checksum: self.hash.digest() }
    }
}

/// Fails when less than `reserve_bytes` of the disk are left; `verb` is what was being done.
pub(super) fn check_space(verb: &'static str, dir: &Path, reserve_bytes: u64) -> Result<(), StorageError> {
    let free = files::disk_space(dir)?.free;
    if free >= reserve_bytes {
        return Ok(());
    }
    let what = format!("{} MiB are free, and {} MiB are kept for the log", free >> 20, reserve_bytes >> 20);
    Err(StorageError::Full { verb, path: dir.to_path_buf(), what })
}

/// sled locks its file; when the lock can be had, it has written all that it ever will.
fn wait_until_closed(dir: &Path) -> Result<(), StorageError> {
    let path = dir.join("db");
    let file = OpenOptions::new().read(true).write(true).open(&path).doing("opening", &path)?;
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(errno) => return Err(StorageError::io("waiting for the closing of", &path, errno.into())),
        }
    }
}

fn sled_error(verb: &'static str, dir: &Path, error: sled::Error) -> StorageError {
    match error {
        sled::Error::Io(source) => StorageError::io(verb, dir, source),
        sled::Error::Corruption { .. } => StorageError::corrupt(dir, format!("{error}; {CURE_CHECKPOINT}")),
        other => {
            StorageError::Io { verb, path: dir.to_path_buf(), source: io::Error::other(other.to_string()) }
        }
    }
}
