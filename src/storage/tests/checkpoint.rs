use std::fs;
use std::path::PathBuf;

use super::{at, copy_dir, damaged_path, flip, state, tree};
use crate::proto::state::{Node, Page, Record, record::Body};
use crate::storage::{Checkpoints, LoadedCheckpoint};

fn saved(positions: &[(u64, u64)]) -> (tempfile::TempDir, Checkpoints) {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path()).unwrap();
    for &(index, term) in positions {
        checkpoints.save(at(index, term), state(at(index, term), 3).into_iter()).unwrap();
    }
    (dir, checkpoints)
}

fn names(dir: &tempfile::TempDir) -> Vec<String> {
    crate::storage::files::names(dir.path()).unwrap()
}

#[test]
fn none_is_none() {
    let (_dir, checkpoints) = saved(&[]);
    assert_eq!(checkpoints.load_newest().unwrap(), None);
    assert_eq!(checkpoints.oldest_kept(), None);
}

#[test]
fn records_of_any_size_come_back_in_order() {
    let (dir, checkpoints) = saved(&[]);
    let mut records = state(at(0x1f, 2), 60);
    for len in [0, 1, 32_700, 32_767, 32_768, 32_769, 65_536, 3_000_000] {
        let node = Node { key: "/large".into(), value: vec![9; len].into(), ..Node::default() };
        records.push(Record { body: Some(Body::Page(Page { nodes: vec![node] })) });
    }
    // An empty message encodes to nothing.
    records.insert(2, Record { body: Some(Body::Page(Page::default())) });
    checkpoints.save(at(0x1f, 2), records.clone().into_iter()).unwrap();
    assert_eq!(names(&dir), ["000000000000001f"]);
    let blobs = dir.path().join("000000000000001f/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0, "items stay below sled's blob threshold");
    for _ in 0..2 {
        let loaded = Checkpoints::open(dir.path()).unwrap().load_newest().unwrap();
        let expected = LoadedCheckpoint { at: at(0x1f, 2), records: records.clone(), damaged: Vec::new() };
        assert_eq!(loaded, Some(expected));
    }
}

#[test]
fn one_of_an_older_format_is_refused_and_left_alone() {
    let (dir, checkpoints) = saved(&[(5, 1)]);
    let path = dir.path().join("0000000000000005/MANIFEST");
    let manifest = crate::storage::files::read_sealed(&path, "").unwrap().unwrap();
    let older = String::from_utf8(manifest).unwrap().replace("\"format\":2", "\"format\":1");
    crate::storage::files::write_sealed(&path, older.as_bytes()).unwrap();
    let error = checkpoints.load_newest().unwrap_err();
    assert!(error.to_string().contains("of format 1, from before the first release"), "{error}");
    assert_eq!(names(&dir), ["0000000000000005"]);
}

#[test]
fn loading_changes_nothing() {
    let (dir, checkpoints) = saved(&[(5, 1), (9, 1)]);
    let before = tree(dir.path());
    checkpoints.load_newest().unwrap().unwrap();
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn the_newest_two_are_kept() {
    let (dir, checkpoints) = saved(&[(5, 1), (9, 1), (300, 2)]);
    assert_eq!(names(&dir), ["0000000000000009", "000000000000012c"]);
    assert_eq!(checkpoints.oldest_kept(), Some(at(9, 1)));
    let reopened = Checkpoints::open(dir.path()).unwrap();
    assert_eq!(reopened.oldest_kept(), Some(at(9, 1)));
    assert_eq!(reopened.load_newest().unwrap().unwrap().at, at(300, 2));
}

/// What is there while another is written.
#[test]
fn while_one_is_written_there_is_one_more_and_that_is_whole() {
    let (dir, checkpoints) = saved(&[(5, 1), (9, 1)]);
    let mut seen = Vec::new();
    let looking = state(at(12, 1), 3).into_iter().inspect(|_| seen = names(&dir));
    checkpoints.save(at(12, 1), looking).unwrap();
    assert_eq!(seen, ["0000000000000009", "000000000000000c.tmp"]);
    // One that has been damaged meanwhile is not the one that stays.
    flip(&dir.path().join("000000000000000c/db"), 1000);
    let looking = state(at(15, 1), 3).into_iter().inspect(|_| seen = names(&dir));
    checkpoints.save(at(15, 1), looking).unwrap();
    assert_eq!(seen, ["0000000000000009", "000000000000000c.damaged", "000000000000000f.tmp"]);
    assert_eq!(checkpoints.oldest_kept(), Some(at(9, 1)));
    assert_eq!(checkpoints.load_newest().unwrap().unwrap().at, at(15, 1));
}

#[test]
fn saving_again_at_the_same_place_changes_nothing() {
    let (dir, checkpoints) = saved(&[(5, 1)]);
    let before = tree(dir.path());
    checkpoints.save(at(5, 1), state(at(5, 1), 1).into_iter()).unwrap();
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn what_a_crash_left_unfinished_is_removed() {
    let (dir, checkpoints) = saved(&[(5, 1)]);
    copy_dir(&dir.path().join("0000000000000005"), &dir.path().join("0000000000000009.tmp"));
    fs::create_dir(dir.path().join("quorate-77.tmp")).unwrap();
    drop(checkpoints);
    let reopened = Checkpoints::open(dir.path()).unwrap();
    assert_eq!(names(&dir), ["0000000000000005"]);
    assert_eq!(reopened.load_newest().unwrap().unwrap().at, at(5, 1));
}

#[test]
fn damage_in_any_file_falls_back_to_the_older_one() {
    let (dir, _) = saved(&[(5, 1), (9, 1)]);
    let newest = dir.path().join("0000000000000009");
    let files: Vec<(PathBuf, usize)> =
        tree(&newest).into_iter().map(|(path, bytes)| (path, bytes.len())).collect();
    assert!(files.iter().any(|(path, _)| path.ends_with("MANIFEST")));
    assert!(files.iter().any(|(path, _)| path.ends_with("db")));
    for (path, len) in files {
        for offset in [0, len / 2, len.saturating_sub(1)] {
            let crashed = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), crashed.path());
            let copy = crashed.path().join(path.strip_prefix(dir.path()).unwrap());
            if len == 0 {
                fs::remove_file(&copy).unwrap();
            } else {
                flip(&copy, offset);
            }
            let checkpoints = Checkpoints::open(crashed.path()).unwrap();
            let loaded = checkpoints.load_newest().unwrap().unwrap();
            assert_eq!(loaded.at, at(5, 1), "{} at {offset}", path.display());
            assert_eq!(loaded.records, state(at(5, 1), 3));
            assert_eq!(loaded.damaged, [crashed.path().join("0000000000000009.damaged")]);
            assert_eq!(checkpoints.oldest_kept(), Some(at(5, 1)));
            checkpoints.save(at(9, 1), state(at(9, 1), 3).into_iter()).unwrap();
            assert_eq!(checkpoints.load_newest().unwrap().unwrap().at, at(9, 1));
        }
    }
}

#[test]
fn a_cut_or_missing_file_is_damage_that_is_named() {
    for break_it in [
        |db: &PathBuf| fs::remove_file(db).unwrap(),
        |db: &PathBuf| fs::OpenOptions::new().write(true).open(db).unwrap().set_len(100).unwrap(),
        |db: &PathBuf| fs::write(db, b"").unwrap(),
    ] {
        let (dir, checkpoints) = saved(&[(5, 1)]);
        let place = dir.path().join("0000000000000005");
        break_it(&place.join("db"));
        assert_eq!(damaged_path(checkpoints.load(&place, 5)), place.join("db"));
        assert_eq!(checkpoints.load_newest().unwrap(), None);
    }
}

#[test]
fn damaged_ones_do_not_pile_up() {
    let (dir, checkpoints) = saved(&[]);
    for index in 1..=5 {
        checkpoints.save(at(index, 1), state(at(index, 1), 1).into_iter()).unwrap();
        flip(&dir.path().join(format!("{index:016x}/db")), 10);
        checkpoints.load_newest().unwrap();
    }
    drop(checkpoints);
    Checkpoints::open(dir.path()).unwrap();
    assert_eq!(names(&dir), ["0000000000000004.damaged", "0000000000000005.damaged"]);
}

#[test]
fn a_checkpoint_under_a_wrong_name_is_damaged() {
    let (dir, checkpoints) = saved(&[(5, 1)]);
    fs::rename(dir.path().join("0000000000000005"), dir.path().join("0000000000000006")).unwrap();
    assert_eq!(checkpoints.load_newest().unwrap(), None);
}

#[test]
fn space_is_left_for_the_log() {
    let (dir, mut checkpoints) = saved(&[(5, 1)]);
    checkpoints.set_reserve_bytes(u64::MAX);
    let error = checkpoints.save(at(9, 1), state(at(9, 1), 3).into_iter()).unwrap_err();
    assert!(error.is_out_of_space(), "{error}");
    assert_eq!(names(&dir), ["0000000000000005"]);
    checkpoints.set_reserve_bytes(0);
    checkpoints.save(at(9, 1), state(at(9, 1), 3).into_iter()).unwrap();
    assert_eq!(checkpoints.load_newest().unwrap().unwrap().at, at(9, 1));
}
