//! Snapshots on the wire: cutting one into chunks, and checking that what arrives is one.
//!
//! A snapshot is a sequence of records, ended by a tail with their count and checksum. It is sent from any record on: what
//! a receiver has already it is not sent again. What arrives goes on to where it is gathered as it comes; the tail says at
//! last whether all of it is sound.

use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;
use xxhash_rust::xxh3::Xxh3Default;

use super::{Gathering, Records};
use crate::proto::peer::SnapshotChunk;
use crate::proto::state::record::Body;
use crate::proto::state::{Record, Tail};

/// Count and checksum over encoded records: what a tail says.
#[derive(Default)]
struct Digest {
    records: u64,
    hash: Xxh3Default,
}

impl Digest {
    fn add(&mut self, encoded: &[u8]) {
        self.records += 1;
        self.hash.update(encoded);
    }

    fn tail(&self) -> Tail {
        Tail { records: self.records, checksum: self.hash.digest() }
    }
}

/// What a snapshot begins with.
#[derive(Clone, Debug)]
pub(super) struct Title {
    /// Names it.
    pub snapshot: u64,
    /// The raft message that announces it.
    pub raft: Bytes,
}

/// Cuts what comes after a snapshot's first `skip` records into chunks and gives them to `put`, which says whether more are
/// wanted.
pub(super) fn cut(
    title: Title,
    records: Records,
    skip: u64,
    chunk_bytes: usize,
    mut put: impl FnMut(SnapshotChunk) -> bool,
) {
    let Title { snapshot, raft } = title;
    let mut digest = Digest::default();
    let raft = if skip == 0 { raft } else { Bytes::new() };
    let mut chunk = SnapshotChunk { raft, snapshot, first: skip, ..SnapshotChunk::default() };
    let mut bytes = 0;
    for record in records {
        if matches!(record.body, Some(Body::Tail(_))) {
            tracing::error!("a snapshot's records contain a tail: it is not sent");
            return;
        }
        let encoded = Bytes::from(record.encode_to_vec());
        let before = digest.records;
        digest.add(&encoded);
        if before < skip {
            continue;
        }
        if bytes > 0 && bytes + encoded.len() > chunk_bytes {
            bytes = 0;
            let next = SnapshotChunk { snapshot, first: before, ..SnapshotChunk::default() };
            if !put(std::mem::replace(&mut chunk, next)) {
                return;
            }
        }
        bytes += encoded.len();
        chunk.records.push(encoded);
    }
    let tail = Record { body: Some(Body::Tail(digest.tail())) };
    chunk.records.push(tail.encode_to_vec().into());
    chunk.last = true;
    crash_point!("snapshot.sending");
    put(chunk);
}

/// A snapshot that arrives, over one stream or several.
pub(super) struct Arrival {
    raft: Option<Bytes>,
    digest: Digest,
    bytes: u64,
    bytes_max: u64,
    complete: bool,
    /// Where the records go; `None`: handed over.
    gathering: Option<Box<dyn Gathering>>,
    /// When the last of it came.
    pub(super) touched: Instant,
}

impl Arrival {
    pub(super) fn new(gathering: Box<dyn Gathering>, bytes_max: u64) -> Self {
        Self {
            raft: None,
            digest: Digest::default(),
            bytes: 0,
            bytes_max,
            complete: false,
            gathering: Some(gathering),
            touched: Instant::now(),
        }
    }

    /// How many records have come.
    pub(super) fn records(&self) -> u64 {
        self.digest.records
    }

    /// Takes the next chunk; an error ends the snapshot.
    pub(super) fn add(&mut self, chunk: SnapshotChunk) -> Result<(), String> {
        self.touched = Instant::now();
        if self.complete {
            return Err("it goes on after its last chunk".to_owned());
        }
        let SnapshotChunk { raft, mut records, last, first, .. } = chunk;
        if first != self.records() {
            return Err(format!("a chunk stands after record {first}, but {} have come", self.records()));
        }
        match (&self.raft, raft.is_empty()) {
            (None, true) => return Err("its first chunk has no raft message".to_owned()),
            (None, false) => self.raft = Some(raft),
            (Some(_), true) => {}
            (Some(_), false) => return Err("it has a second raft message".to_owned()),
        }
        let tail = if last { records.pop().map(Record::decode) } else { None };
        for encoded in &records {
            self.bytes += encoded.len() as u64;
            self.digest.add(encoded);
        }
        if self.bytes > self.bytes_max {
            return Err(format!("it is larger than {} bytes", self.bytes_max));
        }
        if last {
            let Some(Ok(Record { body: Some(Body::Tail(tail)) })) = tail else {
                return Err("it ends without a tail".to_owned());
            };
            self.verify(tail)?;
            self.complete = true;
        }
        let Some(gathering) = &mut self.gathering else { return Err("nobody gathers it".to_owned()) };
        gathering.add(&records)
    }

    /// Hands over what was gathered, with the raft message, once; `None` unless all has come.
    pub(super) fn take_whole(&mut self) -> Option<(Bytes, Box<dyn Gathering>)> {
        if !self.complete {
            return None;
        }
        Some((self.raft.take()?, self.gathering.take()?))
    }

    fn verify(&self, tail: Tail) -> Result<(), String> {
        let here = self.digest.tail();
        if tail == here {
            return Ok(());
        }
        Err(format!(
            "its tail says {} records with checksum {:016x}, but {} with {:016x} arrived",
            tail.records, tail.checksum, here.records, here.checksum
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::proto::state::{Node, Page};

    fn record(size: usize) -> Record {
        let node =
            Node { key: Bytes::from_static(b"/k"), value: vec![size as u8; size].into(), ..Node::default() };
        Record { body: Some(Body::Page(Page { nodes: vec![node] })) }
    }

    fn title() -> Title {
        Title { snapshot: 7, raft: Bytes::from_static(b"raft") }
    }

    fn chunks_after(skip: u64, sizes: &[usize], chunk_bytes: usize) -> Vec<SnapshotChunk> {
        let records: Vec<_> = sizes.iter().map(|&size| record(size)).collect();
        let mut chunks = Vec::new();
        cut(title(), Box::new(records.into_iter()), skip, chunk_bytes, |chunk| {
            chunks.push(chunk);
            true
        });
        chunks
    }

    fn chunks(sizes: &[usize], chunk_bytes: usize) -> Vec<SnapshotChunk> {
        chunks_after(0, sizes, chunk_bytes)
    }

    /// Gathers in memory.
    #[derive(Clone, Default)]
    struct Gathered(Arc<Mutex<Vec<Bytes>>>);

    impl Gathering for Gathered {
        fn add(&mut self, records: &[Bytes]) -> Result<(), String> {
            self.0.lock().unwrap().extend_from_slice(records);
            Ok(())
        }
        fn complete(self: Box<Self>, _: u64, _: Bytes) -> Result<(), String> {
            Ok(())
        }
    }

    fn assemble(chunks: Vec<SnapshotChunk>) -> Result<(Bytes, Vec<Record>), String> {
        let gathered = Gathered::default();
        let mut arrival = Arrival::new(Box::new(gathered.clone()), 100_000);
        for chunk in chunks {
            arrival.add(chunk)?;
        }
        let (raft, _) = arrival.take_whole().ok_or("it is not whole")?;
        let records = gathered.0.lock().unwrap().iter().map(|r| Record::decode(r.clone()).unwrap()).collect();
        Ok((raft, records))
    }

    proptest! {
        #[test]
        fn what_was_cut_is_put_together(sizes in prop::collection::vec(0_usize..600, 0..40), chunk in 1_usize..2000) {
            let cut = chunks(&sizes, chunk);
            for part in &cut {
                let bytes: usize = part.records.iter().map(Bytes::len).sum();
                prop_assert!(bytes <= chunk + 20 || part.records.len() <= 2, "only a tail may come on top");
            }
            let (raft, records) = assemble(cut).unwrap();
            prop_assert_eq!(raft, Bytes::from_static(b"raft"));
            prop_assert_eq!(records, sizes.iter().map(|&size| record(size)).collect::<Vec<_>>());
        }

        #[test]
        fn what_was_cut_again_goes_on_where_the_first_ended(sizes in prop::collection::vec(1_usize..600, 1..40),
                                                            at in any::<prop::sample::Index>(), chunk in 1_usize..2000) {
            let mut parts = chunks(&sizes, chunk);
            parts.truncate(at.index(parts.len()));
            let held = parts.iter().map(|part| part.records.len() as u64).sum();
            parts.extend(chunks_after(held, &sizes, chunk / 2 + 1));
            let (_, records) = assemble(parts).unwrap();
            prop_assert_eq!(records, sizes.iter().map(|&size| record(size)).collect::<Vec<_>>());
        }

        #[test]
        fn no_single_damage_goes_unnoticed(sizes in prop::collection::vec(60_usize..300, 4..20),
                                           at in any::<prop::sample::Index>(), how in 0..4) {
            let mut parts = chunks(&sizes, 200);
            let at = at.index(parts.len() - 1);
            match how {
                0 => parts.swap(at, at + 1),
                1 => { parts.remove(at); }
                2 => parts.truncate(at + 1),
                _ => {
                    let mut bytes = parts[at].records[0].to_vec();
                    let last = bytes.len() - 1;
                    bytes[last] ^= 1;
                    parts[at].records[0] = bytes.into();
                }
            }
            // Chunks that happen to be equal may be swapped.
            prop_assume!(how != 0 || parts != chunks(&sizes, 200));
            prop_assert!(assemble(parts).is_err());
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        type Damage = fn(&mut Vec<SnapshotChunk>);
        let table: [(&str, Damage); 8] = [
            ("no raft message", |parts| parts[0].raft = Bytes::new()),
            ("second raft message", |parts| parts[1].raft = Bytes::from_static(b"x")),
            ("larger than", |parts| parts[0].records.push(record(100_000).encode_to_vec().into())),
            ("not whole", |parts| parts.truncate(1)),
            ("without a tail", |parts| parts[0].last = true),
            ("its tail says", |parts| parts[1].records[0] = Bytes::from_static(b"x")),
            ("stands after record", |parts| parts[1].first += 1),
            ("after its last chunk", |parts| parts.push(parts[1].clone())),
        ];
        for (text, damage) in table {
            let mut parts = chunks(&[100, 100], 150);
            damage(&mut parts);
            let error = assemble(parts).unwrap_err();
            assert!(error.contains(text), "{text:?} in {error:?}");
        }
    }

    #[test]
    fn cutting_stops_when_nobody_wants_more() {
        let endless = std::iter::repeat_with(|| record(100));
        let mut count = 0;
        cut(title(), Box::new(endless), 0, 1000, |_| {
            count += 1;
            count < 3
        });
        assert_eq!(count, 3);
    }

    #[test]
    fn records_that_contain_a_tail_never_make_a_whole_snapshot() {
        let records = [record(1), Record { body: Some(Body::Tail(Tail::default())) }, record(2)];
        let mut last = false;
        cut(title(), Box::new(records.into_iter()), 0, 10, |chunk| {
            last |= chunk.last;
            true
        });
        assert!(!last);
    }
}
