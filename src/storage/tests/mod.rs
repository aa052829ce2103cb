//! Real files in temporary directories: what is written is there after any crash, and damage is noticed and named.

mod checkpoint;
mod data_dir;
mod log;
mod log_model;
mod recovery;

use std::fs;
use std::path::{Path, PathBuf};

use raft::eraftpb::{Entry, HardState};

use super::{LogPosition, StorageError};
use crate::proto::state::{Head, History, Node, Page, Record, record::Body};

pub(super) fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry { index, term, data: data.to_vec().into(), ..Entry::default() }
}

/// Entries `from..=to` of `term`, each with its index as data.
pub(super) fn entries(from: u64, to: u64, term: u64) -> Vec<Entry> {
    (from..=to).map(|index| entry(index, term, format!("entry {index} of {term}").as_bytes())).collect()
}

pub(super) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit, ..HardState::default() }
}

pub(super) fn at(index: u64, term: u64) -> LogPosition {
    LogPosition { index, term }
}

pub(super) const CLUSTER_ID: u64 = 0xc1;

/// A head, `pages` pages and some history: the state at `at`.
pub(super) fn state(at: LogPosition, pages: usize) -> Vec<Record> {
    let head =
        Head { cluster_id: CLUSTER_ID, applied_index: at.index, applied_term: at.term, ..Head::default() };
    let mut records = vec![Record { body: Some(Body::Head(head)) }];
    for page in 0..pages {
        let node = |n: usize| Node {
            key: format!("/page{page}/key{n}").into_bytes().into(),
            value: vec![page as u8; 100].into(),
            created_index: at.index,
            ..Node::default()
        };
        records.push(Record { body: Some(Body::Page(Page { nodes: (0..50).map(node).collect() })) });
    }
    records.push(Record { body: Some(Body::History(History::default())) });
    records
}

/// What a crash at this moment would leave behind (a kill: everything written so far is in the file system).
pub(super) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for found in fs::read_dir(from).unwrap() {
        let found = found.unwrap();
        let target = to.join(found.file_name());
        if found.file_type().unwrap().is_dir() {
            copy_dir(&found.path(), &target);
        } else {
            fs::copy(found.path(), target).unwrap();
        }
    }
}

pub(super) fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

/// All files under a directory, with their bytes.
pub(super) fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The file that a `Corrupt` names; fails the test for anything else.
pub(super) fn damaged_path<T: std::fmt::Debug>(result: Result<T, StorageError>) -> PathBuf {
    match result {
        Err(StorageError::Corrupt { path, .. }) => path,
        other => panic!("expected damage, got {other:?}"),
    }
}
