use std::fs;
use std::path::Path;

use super::{CLUSTER_ID, at, copy_dir, entries, flip, hard_state, state};
use crate::storage::{DataDir, Identity, LogPosition, Recovered, Storage, StorageError, check};

fn identity(cluster_id: u64) -> Identity {
    Identity {
        format: Identity::FORMAT,
        cluster_id,
        member_id: 7,
        name: "one".to_owned(),
        peer_urls: vec!["http://127.0.0.1:7001".to_owned()],
        incarnation: 9,
    }
}

fn save(storage: &Storage, position: LogPosition) {
    storage.checkpoints.save(position, state(position, 2).into_iter()).unwrap();
}

fn recovered(dir: &Path) -> Result<Recovered, StorageError> {
    Ok(DataDir::open(dir)?.open_storage()?.recovered)
}

/// A member with two checkpoints, 10 and 20, and a log of 11..=30 in term 2.
fn member(dir: &Path) -> Storage {
    let data_dir = DataDir::open(dir).unwrap();
    data_dir.create_identity(&identity(CLUSTER_ID)).unwrap();
    let storage = data_dir.open_storage().unwrap();
    assert_eq!(storage.recovered, Recovered::default());
    save(&storage, at(10, 1));
    storage.log.reset(at(10, 1), &hard_state(1, 7, 10)).unwrap();
    storage.log.append(&entries(11, 30, 2), Some(&hard_state(2, 7, 25)), true).unwrap();
    save(&storage, at(20, 2));
    storage
}

/// What is recovered from a copy of the directory as it is now.
fn crash(dir: &Path) -> Result<Recovered, StorageError> {
    let crashed = tempfile::tempdir().unwrap();
    copy_dir(dir, crashed.path());
    let first = recovered(crashed.path());
    if let Ok(first) = &first {
        // Recovery mends once, and then finds the same.
        assert_eq!(&Recovered { damaged: Vec::new(), ..first.clone() }, &recovered(crashed.path()).unwrap());
    }
    first
}

#[test]
fn the_newest_checkpoint_and_the_log_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let storage = member(dir.path());
    let expected = Recovered {
        checkpoint: Some((at(20, 2), state(at(20, 2), 2))),
        base: at(10, 1),
        entries: entries(11, 30, 2),
        hard_state: hard_state(2, 7, 25),
        damaged: Vec::new(),
    };
    assert_eq!(crash(dir.path()).unwrap(), expected);
    storage.log.compact(at(20, 2)).unwrap();
    assert_eq!(
        crash(dir.path()).unwrap(),
        Recovered { base: at(20, 2), entries: entries(21, 30, 2), ..expected }
    );
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_the_older_and_the_log() {
    let dir = tempfile::tempdir().unwrap();
    drop(member(dir.path()));
    flip(&dir.path().join("member/state/0000000000000014/db"), 100);
    let found = crash(dir.path()).unwrap();
    assert_eq!(found.checkpoint, Some((at(10, 1), state(at(10, 1), 2))));
    assert_eq!(found.entries, entries(11, 30, 2));
    assert_eq!(found.damaged.len(), 1);
}

#[test]
fn founding_may_stop_after_the_first_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DataDir::open(dir.path()).unwrap().open_storage().unwrap();
    save(&storage, at(1, 1));
    let found = crash(dir.path()).unwrap();
    assert_eq!((found.base, found.hard_state), (at(1, 1), hard_state(1, 0, 1)));
}

#[test]
fn a_snapshot_may_be_saved_before_the_log_is_reset() {
    // Ahead of the log; within it, in place of a history that was not committed.
    for snapshot in [at(40, 3), at(28, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let storage = member(dir.path());
        save(&storage, snapshot);
        let expected = Recovered {
            checkpoint: Some((snapshot, state(snapshot, 2))),
            base: snapshot,
            entries: Vec::new(),
            hard_state: hard_state(3, 0, snapshot.index),
            damaged: Vec::new(),
        };
        assert_eq!(crash(dir.path()).unwrap(), expected);
        storage.log.reset(snapshot, &expected.hard_state).unwrap();
        assert_eq!(crash(dir.path()).unwrap(), expected);
        storage.log.append(&entries(snapshot.index + 1, snapshot.index + 3, 3), None, true).unwrap();
        assert_eq!(crash(dir.path()).unwrap().entries.len(), 3);
    }
}

#[test]
fn a_commit_behind_the_checkpoint_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let storage = member(dir.path());
    storage.log.append(&[], Some(&hard_state(2, 7, 12)), true).unwrap();
    assert_eq!(crash(dir.path()).unwrap().hard_state, hard_state(2, 7, 20));
}

#[test]
fn what_cannot_be_is_refused_with_a_cure() {
    type Break = fn(&Path, &Storage);
    let cases: [(Break, &str); 5] = [
        (
            |_, storage| storage.log.append(&[], Some(&hard_state(2, 7, 31)), true).unwrap(),
            "31 is committed, but the last",
        ),
        (
            |_, storage| storage.log.append(&[], Some(&hard_state(1, 7, 20)), true).unwrap(),
            "the term is 1, but the last",
        ),
        (|_, storage| save(storage, at(24, 3)), "the log has committed 24 (term 2)"),
        (
            |dir, storage| {
                storage.log.compact(at(20, 2)).unwrap();
                flip(&dir.join("member/state/0000000000000014/db"), 100);
            },
            "the newest sound checkpoint is 10 (term 1), but the log begins only after 20 (term 2)",
        ),
        (|dir, _| fs::remove_dir_all(dir.join("member/state")).unwrap(), "no sound checkpoint is left"),
    ];
    for (break_it, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let storage = member(dir.path());
        break_it(dir.path(), &storage);
        let error = crash(dir.path()).unwrap_err();
        assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("add it again"), "{text}");
    }
}

#[test]
fn the_state_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(member(dir.path()));
    fs::remove_file(dir.path().join("member/identity")).unwrap();
    DataDir::open(dir.path()).unwrap().create_identity(&identity(0xbad)).unwrap();
    let error = crash(dir.path()).unwrap_err();
    assert!(matches!(error, StorageError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains("cluster c1"), "{error}");
}

#[test]
fn a_check_tells_what_is_there_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(check(dir.path()).is_err());
    drop(member(dir.path()));
    let before = super::tree(dir.path());
    let report = check(dir.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let lines = [
        "identity: member 7 (one) of cluster c1",
        "log: 20 entries after 10 (term 1), last 30 (term 2), term 2, commit 25",
        "checkpoint: 10 (term 1), 4 records",
        "checkpoint: 20 (term 2), 4 records",
    ];
    assert_eq!(report.lines, lines);
    assert_eq!(super::tree(dir.path()), before);
}

#[test]
fn a_check_names_what_is_damaged() {
    let files = [
        "identity",
        "log/0000000000000001.raftlog",
        "state/0000000000000014/db",
        "state/000000000000000a/MANIFEST",
    ];
    for file in files {
        let dir = tempfile::tempdir().unwrap();
        drop(member(dir.path()));
        let path = dir.path().join("member").join(file);
        flip(&path, 50);
        let before = super::tree(dir.path());
        let report = check(dir.path()).unwrap();
        assert_eq!(report.problems.len(), 1, "{report:?}");
        assert!(report.problems[0].starts_with(&format!("{} is damaged", path.display())), "{report:?}");
        assert_eq!(super::tree(dir.path()), before);
    }
}

#[test]
fn a_check_keeps_its_hands_off_a_running_member() {
    let dir = tempfile::tempdir().unwrap();
    let _data_dir = DataDir::open(dir.path()).unwrap();
    assert!(matches!(check(dir.path()), Err(StorageError::Locked { .. })));
}
