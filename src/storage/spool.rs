//! A file for what arrives and is not whole yet: encoded records, one after the other, each with its length before it.
//!
//! It lives as long as its value. What a crash leaves of one is removed when the data directory is opened (its name says
//! that it is unfinished), and nothing in it is ever counted on after a restart: so it is never fsynced. Reading it back
//! checks that it holds what was put into it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use xxhash_rust::xxh3::Xxh3Default;

use super::database::check_space;
use super::error::{Doing, StorageError};
use super::files;
use crate::proto::state::Record;

/// Written and read in steps of this size.
const BUFFER_BYTES: usize = 256 << 10;

/// A file to append to.
#[derive(Debug)]
pub struct Spool {
    file: Removed<BufWriter<File>>,
    written: Sum,
    reserve_bytes: u64,
}

/// What was written, or read.
#[derive(Default)]
struct Sum {
    records: u64,
    hash: Box<Xxh3Default>,
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} records", self.records)
    }
}

impl Sum {
    fn add(&mut self, record: &[u8]) {
        self.records += 1;
        self.hash.update(record);
    }

    fn is(&self, other: &Self) -> bool {
        self.records == other.records && self.hash.digest() == other.hash.digest()
    }
}

/// A file that is removed when its value goes.
#[derive(Debug)]
struct Removed<F> {
    file: F,
    path: PathBuf,
}

impl<F> Drop for Removed<F> {
    fn drop(&mut self) {
        if let Err(error) = files::remove_any(&self.path) {
            tracing::warn!(%error, "a file of what arrived stays until the next start");
        }
    }
}

impl Spool {
    /// Makes the file; there must be none of that name. It takes no more of the disk when less than `reserve_bytes` are left.
    pub(super) fn create(path: &Path, reserve_bytes: u64) -> Result<Self, StorageError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(path).doing("creating", path)?;
        let file = Removed { file: BufWriter::with_capacity(BUFFER_BYTES, file), path: path.to_path_buf() };
        Ok(Self { file, written: Sum::default(), reserve_bytes })
    }

    /// Puts records behind those that are there.
    pub fn append(&mut self, records: &[Bytes]) -> Result<(), StorageError> {
        let dir = self.file.path.parent().unwrap_or(Path::new("."));
        check_space("keeping a snapshot in", dir, self.reserve_bytes)?;
        for record in records {
            let length = u32::try_from(record.len()).map_err(io::Error::other);
            let written = length.and_then(|length| {
                self.file.file.write_all(&length.to_le_bytes())?;
                self.file.file.write_all(record)
            });
            written.doing("writing", &self.file.path)?;
            self.written.add(record);
        }
        Ok(())
    }

    /// Reads all of it, one record after the other.
    pub fn read(mut self) -> Result<Spooled, StorageError> {
        let Removed { file, path } = &mut self.file;
        file.flush().doing("writing", path)?;
        let mut file = file.get_ref().try_clone().doing("reading", path)?;
        file.seek(SeekFrom::Start(0)).doing("reading", path)?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Spooled { file, spool: self, read: Sum::default(), failed: false })
    }
}

/// The records of a [`Spool`]; an error is the last item.
#[derive(Debug)]
pub struct Spooled {
    file: BufReader<File>,
    spool: Spool,
    read: Sum,
    failed: bool,
}

impl Spooled {
    fn next_record(&mut self) -> Result<Record, StorageError> {
        let path = &self.spool.file.path;
        let mut length = [0; 4];
        self.file.read_exact(&mut length).doing("reading", path)?;
        let length = u64::from(u32::from_le_bytes(length));
        // Not made as long as it says: a wrong length must not take memory that is not there.
        let mut record = Vec::new();
        Read::by_ref(&mut self.file).take(length).read_to_end(&mut record).doing("reading", path)?;
        if record.len() as u64 != length {
            return Err(StorageError::corrupt(path, "it ends in the middle of a record"));
        }
        self.read.add(&record);
        let message = Record::decode(Bytes::from(record));
        let message = message
            .map_err(|error| StorageError::corrupt(path, format!("a record of it is damaged: {error}")))?;
        if self.read.records == self.spool.written.records && !self.read.is(&self.spool.written) {
            return Err(StorageError::corrupt(path, "it does not hold what was written to it"));
        }
        Ok(message)
    }
}

impl Iterator for Spooled {
    type Item = Result<Record, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.read.records == self.spool.written.records {
            return None;
        }
        let next = self.next_record();
        self.failed = next.is_err();
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::proto::state::{Node, Page, record::Body};

    fn record(number: u64) -> Record {
        let node = Node { modified_index: number, value: vec![7; 3000].into(), ..Node::default() };
        Record { body: Some(Body::Page(Page { nodes: vec![node] })) }
    }

    /// A spool with a hundred records, and its file once more.
    fn filled(dir: &Path) -> (Spool, File) {
        let path = dir.join("incoming.tmp");
        let mut spool = Spool::create(&path, 0).unwrap();
        let records: Vec<_> = (0..100).map(|number| Bytes::from(record(number).encode_to_vec())).collect();
        for chunk in records.chunks(7) {
            spool.append(chunk).unwrap();
        }
        spool.file.file.flush().unwrap();
        (spool, OpenOptions::new().write(true).open(path).unwrap())
    }

    fn read(spool: Spool) -> Result<Vec<Record>, String> {
        spool.read().unwrap().collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_put_in_is_read_back_and_the_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = filled(dir.path());
        assert!(Spool::create(&dir.path().join("incoming.tmp"), 0).is_err(), "nobody takes it from another");
        assert_eq!(read(spool).unwrap(), (0..100).map(record).collect::<Vec<_>>());
        drop(filled(dir.path()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let empty = Spool::create(&dir.path().join("incoming.tmp"), 0).unwrap();
        assert_eq!(read(empty).unwrap(), []);
    }

    #[test]
    fn the_reserve_is_left_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(&dir.path().join("incoming.tmp"), u64::MAX).unwrap();
        let refused = spool.append(&[Bytes::from_static(b"x")]);
        assert!(matches!(refused, Err(StorageError::Full { .. })), "{refused:?}");
    }

    #[test]
    fn damage_is_noticed() {
        type Damage = fn(&File);
        let table: [(&str, Damage); 4] = [
            ("in the middle of a record", |file| file.set_len(150_000).unwrap()),
            ("does not hold what was written", |file| file.write_all_at(b"x", 200_000).unwrap()),
            ("in the middle of a record", |file| file.write_all_at(&[0xff; 4], 0).unwrap()),
            ("a record of it is damaged", |file| file.write_all_at(b"\xff\xff", 4).unwrap()),
        ];
        for (text, damage) in table {
            let dir = tempfile::tempdir().unwrap();
            let (spool, file) = filled(dir.path());
            damage(&file);
            let error = read(spool).unwrap_err();
            assert!(error.contains(text), "{text:?} in {error:?}");
        }
    }
}
