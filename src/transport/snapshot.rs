//! Snapshots on the wire: cutting one into chunks, and putting one together again.
//!
//! The sender never holds more than a few chunks: records are pulled on a blocking thread only as fast as the peer
//! takes them. The receiver gathers the records (they become its state) up to a limit, and lets nothing out before the
//! tail's count and checksum agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use xxhash_rust::xxh3::Xxh3Default;

use super::dial::dial;
use super::peer::{Peer, status_text};
use super::{Core, TransportConfig};
use crate::proto::peer::SnapshotChunk;
use crate::proto::peer::peer_client::PeerClient;
use crate::proto::state::record::Body;
use crate::proto::state::{Record, Tail};

/// Chunks between the thread that encodes records and the connection.
const CHUNKS_WAITING: usize = 4;

/// The records of a snapshot, as they are pulled.
pub(super) type Records = Box<dyn Iterator<Item = Record> + Send>;

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

/// Cuts a snapshot into chunks and gives them to `put`, which says whether more are wanted.
fn cut(raft: Bytes, records: Records, chunk_bytes: usize, mut put: impl FnMut(SnapshotChunk) -> bool) {
    let mut digest = Digest::default();
    let mut chunk = SnapshotChunk { raft, ..SnapshotChunk::default() };
    let mut bytes = 0;
    for record in records {
        if matches!(record.body, Some(Body::Tail(_))) {
            tracing::error!("a snapshot's records contain a tail: it is not sent");
            return;
        }
        let encoded = Bytes::from(record.encode_to_vec());
        digest.add(&encoded);
        if bytes > 0 && bytes + encoded.len() > chunk_bytes {
            bytes = 0;
            if !put(std::mem::take(&mut chunk)) {
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

/// Sends a snapshot on a connection of its own, so that it does not hold up the exchange.
pub(super) async fn send(
    core: Arc<Core>,
    peer: Arc<Peer>,
    raft: Bytes,
    records: Records,
) -> Result<(), String> {
    let mut failure = "the peer has no address".to_owned();
    let mut channel = None;
    for url in peer.urls() {
        match dial(&url, &core.config).await {
            Ok(dialled) => {
                channel = Some(dialled);
                break;
            }
            Err(error) => failure = error,
        }
    }
    let Some(channel) = channel else { return Err(failure) };

    let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING);
    let chunk_bytes = core.config.chunk_bytes;
    tokio::task::spawn_blocking(move || {
        cut(raft, records, chunk_bytes, |chunk| chunks.blocking_send(chunk).is_ok());
    });
    let progress = Arc::new(AtomicU64::new(0));
    let counted = progress.clone();
    let body = ReceiverStream::new(waiting).inspect(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let mut request = Request::new(body);
    core.stamp(request.metadata_mut(), peer.id);
    let mut client = PeerClient::new(channel);
    tokio::select! {
        answer = client.install(request) => answer.map(|_| ()).map_err(|status| status_text(&status)),
        () = stalled(&progress, core.config.snapshot_stall) => Err("the peer takes no more of it".to_owned()),
    }
}

/// Ends when `progress` has not moved for a whole `period`.
async fn stalled(progress: &AtomicU64, period: Duration) {
    let mut seen = None;
    loop {
        let now = progress.load(Ordering::Relaxed);
        if seen == Some(now) {
            return;
        }
        seen = Some(now);
        tokio::time::sleep(period).await;
    }
}

/// A snapshot that arrives.
pub(super) struct Assembly {
    raft: Option<Bytes>,
    records: Vec<Record>,
    digest: Digest,
    bytes: usize,
    bytes_max: usize,
    complete: bool,
}

impl Assembly {
    pub(super) fn new(config: &TransportConfig) -> Self {
        Self {
            raft: None,
            records: Vec::new(),
            digest: Digest::default(),
            bytes: 0,
            bytes_max: config.snapshot_bytes,
            complete: false,
        }
    }

    /// Takes the next chunk; an error ends the snapshot.
    pub(super) fn add(&mut self, chunk: SnapshotChunk) -> Result<(), String> {
        if self.complete {
            return Err("it goes on after its last chunk".to_owned());
        }
        match (&self.raft, chunk.raft.is_empty()) {
            (None, true) => return Err("its first chunk has no raft message".to_owned()),
            (None, false) => self.raft = Some(chunk.raft),
            (Some(_), true) => {}
            (Some(_), false) => return Err("it has a second raft message".to_owned()),
        }
        let count = chunk.records.len();
        for (position, encoded) in chunk.records.into_iter().enumerate() {
            self.bytes += encoded.len();
            if self.bytes > self.bytes_max {
                return Err(format!("it is larger than {} bytes", self.bytes_max));
            }
            let record =
                Record::decode(encoded.clone()).map_err(|error| format!("a record is damaged: {error}"))?;
            if let Some(Body::Tail(tail)) = record.body {
                self.verify(tail)?;
                if !chunk.last || position + 1 != count {
                    return Err("it goes on after its tail".to_owned());
                }
                self.complete = true;
            } else {
                self.digest.add(&encoded);
                self.records.push(record);
            }
        }
        if chunk.last && !self.complete { Err("it ends without a tail".to_owned()) } else { Ok(()) }
    }

    /// The raft message and the records (without the tail), once all have arrived.
    pub(super) fn finish(self) -> Result<(Bytes, Vec<Record>), String> {
        match self.raft {
            Some(raft) if self.complete => Ok((raft, self.records)),
            _ => Err(format!("it ends after {} records, before its tail", self.records.len())),
        }
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

    use super::*;
    use crate::proto::state::{Node, Page};

    fn record(size: usize) -> Record {
        let node =
            Node { key: Bytes::from_static(b"/k"), value: vec![size as u8; size].into(), ..Node::default() };
        Record { body: Some(Body::Page(Page { nodes: vec![node] })) }
    }

    fn chunks(sizes: &[usize], chunk_bytes: usize) -> Vec<SnapshotChunk> {
        let records: Vec<_> = sizes.iter().map(|&size| record(size)).collect();
        let mut chunks = Vec::new();
        cut(Bytes::from_static(b"raft"), Box::new(records.into_iter()), chunk_bytes, |chunk| {
            chunks.push(chunk);
            true
        });
        chunks
    }

    fn assemble(chunks: Vec<SnapshotChunk>) -> Result<(Bytes, Vec<Record>), String> {
        let config = TransportConfig { snapshot_bytes: 100_000, ..TransportConfig::default() };
        let mut assembly = Assembly::new(&config);
        for chunk in chunks {
            assembly.add(chunk)?;
        }
        assembly.finish()
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
        let table: [(&str, Damage); 7] = [
            ("no raft message", |parts| parts[0].raft = Bytes::new()),
            ("second raft message", |parts| parts[1].raft = Bytes::from_static(b"x")),
            ("larger than", |parts| parts[0].records.push(record(100_000).encode_to_vec().into())),
            ("damaged", |parts| parts[1].records.push(Bytes::from_static(b"\xff\xff"))),
            ("before its tail", |parts| parts.truncate(1)),
            ("without a tail", |parts| parts[0].last = true),
            ("after its last chunk", |parts| {
                let again = SnapshotChunk { raft: Bytes::new(), ..parts[1].clone() };
                parts.push(again);
            }),
        ];
        for (text, damage) in table {
            let mut parts = chunks(&[100, 100, 100], 150);
            damage(&mut parts);
            let error = assemble(parts).unwrap_err();
            assert!(error.contains(text), "{text:?} in {error:?}");
        }
    }

    #[test]
    fn cutting_stops_when_nobody_wants_more() {
        let endless = std::iter::repeat_with(|| record(100));
        let mut count = 0;
        cut(Bytes::from_static(b"raft"), Box::new(endless), 1000, |_| {
            count += 1;
            count < 3
        });
        assert_eq!(count, 3);
    }

    #[test]
    fn records_that_contain_a_tail_never_make_a_whole_snapshot() {
        let records = [record(1), Record { body: Some(Body::Tail(Tail::default())) }, record(2)];
        let mut last = false;
        cut(Bytes::from_static(b"raft"), Box::new(records.into_iter()), 10, |chunk| {
            last |= chunk.last;
            true
        });
        assert!(!last);
    }
}
