//! A sequence of records as a sled database that is written once, closed, and only ever read as a copy.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::fs::FlockOperation;
use xxhash_rust::xxh3::Xxh3;

use super::error::{Doing, StorageError};
use super::files;
use super::manifest::CURE_CHECKPOINT;
use crate::proto::state::{Record, Tail, record::Body};

/// A record is cut into items of this size. sled holds up to 17 items in a leaf and writes a leaf of more than a quarter
/// of a segment (131,052 bytes) to a file of its own: 17 of these are 70 KiB.
const ITEM_LEN: usize = 4096;

/// sled takes about ten times this much memory.
const CACHE_BYTES: u64 = 4 << 20;

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
    let mut unchecked_bytes = SPACE_CHECK_BYTES;
    let mut put = |number: u64, bytes: &[u8]| -> Result<(), StorageError> {
        unchecked_bytes += bytes.len() as u64;
        if unchecked_bytes >= SPACE_CHECK_BYTES {
            unchecked_bytes = 0;
            check_space("writing a checkpoint in", dir, reserve_bytes)?;
        }
        for (part, item) in bytes.chunks(ITEM_LEN).enumerate() {
            db.insert(item_key(number, part as u64), item).map_err(failed)?;
        }
        Ok(())
    };
    for record in records {
        let bytes = record.encode_to_vec();
        put(sums.records, &bytes)?;
        sums.add(&bytes);
    }
    let tail = Record { body: Some(Body::Tail(sums.tail())) };
    put(sums.records, &tail.encode_to_vec())?;
    db.flush().map_err(failed)?;
    drop(db);
    wait_until_closed(dir)
}

/// Reads a database back; without its tail, which is checked. sled writes to the directory in doing so.
pub(crate) fn read(dir: &Path) -> Result<Vec<Record>, StorageError> {
    let failed = |e| sled_error("reading", dir, e);
    let damaged = |what: &str| StorageError::corrupt(dir, format!("{what}; {CURE_CHECKPOINT}"));
    let db = config(dir).open().map_err(failed)?;
    let mut records = Vec::new();
    let mut sums = Sums::default();
    let mut number = 0;
    let mut bytes: Vec<u8> = Vec::new();
    for item in db.iter() {
        let (key, value) = item.map_err(failed)?;
        let of = key.get(..8).and_then(|of| of.try_into().ok()).map(u64::from_be_bytes);
        if of != Some(number) {
            records.push(sums.take(&bytes).ok_or_else(|| damaged("a record makes no sense"))?);
            number += 1;
            bytes.clear();
        }
        if of != Some(number) {
            return Err(damaged("a record is missing"));
        }
        bytes.extend_from_slice(&value);
    }
    let tail = Record::decode(&bytes[..]).ok().and_then(|record| record.body);
    if tail != Some(Body::Tail(sums.tail())) {
        return Err(damaged("it does not end in the right checksum"));
    }
    drop(db);
    wait_until_closed(dir)?;
    Ok(records)
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

    fn take(&mut self, bytes: &[u8]) -> Option<Record> {
        self.add(bytes);
        Record::decode(bytes).ok()
    }

    fn tail(&self) -> Tail {
        Tail { records: self.records, checksum: self.hash.digest() }
    }
}

fn item_key(record: u64, part: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&record.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
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
