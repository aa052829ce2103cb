use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{at, copy_dir, damaged_path, entries, entry, flip, hard_state, tree};
use crate::storage::{Log, RecoveredLog, StorageError};

fn reopen(dir: &Path) -> RecoveredLog {
    Log::open(dir).unwrap().1
}

/// The one file that small logs have.
fn log_file(dir: &Path) -> PathBuf {
    let name = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "raftlog");
    let mut found: Vec<PathBuf> =
        fs::read_dir(dir).unwrap().map(|item| item.unwrap().path()).filter(name).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_new_log_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (log, found) = Log::open(&dir.path().join("log")).unwrap();
    assert_eq!(found, RecoveredLog::default());
    drop(log);
    assert_eq!(reopen(&dir.path().join("log")), RecoveredLog::default());
}

#[test]
fn entries_and_hard_state_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path()).unwrap();
    log.append(&entries(1, 3, 1), Some(&hard_state(1, 7, 0)), true).unwrap();
    log.append(&[], Some(&hard_state(1, 7, 3)), false).unwrap();
    log.append(&entries(4, 5, 1), None, false).unwrap();
    log.append(&[], None, true).unwrap();
    drop(log);
    let expected =
        RecoveredLog { base: at(0, 0), entries: entries(1, 5, 1), hard_state: hard_state(1, 7, 3) };
    assert_eq!(reopen(dir.path()), expected);
}

#[test]
fn an_append_replaces_a_conflicting_tail() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path()).unwrap();
    log.append(&entries(1, 9, 1), Some(&hard_state(1, 1, 2)), true).unwrap();
    log.append(&entries(5, 6, 2), Some(&hard_state(2, 2, 2)), true).unwrap();
    drop(log);
    let found = reopen(dir.path());
    assert_eq!(found.entries, [entries(1, 4, 1), entries(5, 6, 2)].concat());
    assert_eq!(found.hard_state, hard_state(2, 2, 2));
}

#[test]
fn a_compacted_log_remembers_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path()).unwrap();
    log.append(&entries(1, 9, 1), Some(&hard_state(1, 1, 9)), true).unwrap();
    log.compact(at(4, 1)).unwrap();
    log.compact(at(3, 1)).unwrap();
    drop(log);
    let (log, found) = Log::open(dir.path()).unwrap();
    assert_eq!((found.base, &found.entries), (at(4, 1), &entries(5, 9, 1)));
    log.compact(at(9, 1)).unwrap();
    log.append(&entries(10, 11, 2), None, true).unwrap();
    drop(log);
    assert_eq!(reopen(dir.path()).entries, entries(10, 11, 2));
}

#[test]
fn a_reset_drops_everything_wherever_the_snapshot_is() {
    for base in [at(5, 3), at(9, 3), at(50, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(dir.path()).unwrap();
        log.append(&entries(1, 9, 1), Some(&hard_state(1, 1, 2)), true).unwrap();
        log.reset(base, &hard_state(3, 0, base.index)).unwrap();
        let crashed = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), crashed.path());
        assert_eq!(
            reopen(crashed.path()),
            RecoveredLog { base, entries: Vec::new(), hard_state: hard_state(3, 0, base.index) }
        );
        log.append(&entries(base.index + 1, base.index + 2, 3), None, true).unwrap();
        drop(log);
        let found = reopen(dir.path());
        assert_eq!((found.base, found.entries), (base, entries(base.index + 1, base.index + 2, 3)));
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path()).unwrap();
    log.append(&entries(1, 9, 2), Some(&hard_state(2, 1, 9)), true).unwrap();
    log.compact(at(4, 2)).unwrap();
    let gap = [entry(10, 2, b""), entry(12, 2, b"")];
    let back_in_time = [entry(10, 3, b""), entry(11, 2, b"")];
    for refused in [&entries(4, 5, 2)[..], &entries(11, 12, 2), &gap, &back_in_time] {
        let error = log.append(refused, None, true).unwrap_err();
        assert!(error.to_string().contains("appending"), "{error}");
    }
    assert!(log.compact(at(10, 2)).is_err());
    log.append(&entries(10, 10, 2), None, true).unwrap();
    drop(log);
    assert_eq!(reopen(dir.path()).entries, entries(5, 10, 2));
}

/// Five acknowledged batches and a sixth that a crash tears.
struct Torn {
    dir: tempfile::TempDir,
    /// Length of the file before and after the sixth.
    whole: usize,
    end: usize,
    /// `synced` before the sixth.
    synced: Vec<u8>,
}

fn torn() -> Torn {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path()).unwrap();
    for index in 1..=5 {
        log.append(&entries(index, index, 1), Some(&hard_state(1, 1, index - 1)), true).unwrap();
    }
    drop(log);
    let whole = fs::metadata(log_file(dir.path())).unwrap().len() as usize;
    let synced = fs::read(dir.path().join("synced")).unwrap();
    let (log, _) = Log::open(dir.path()).unwrap();
    log.append(&entries(6, 7, 1), Some(&hard_state(1, 1, 6)), true).unwrap();
    drop(log);
    let end = fs::metadata(log_file(dir.path())).unwrap().len() as usize;
    Torn { dir, whole, end, synced }
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_and_nothing_before_it_is_lost() {
    let Torn { dir, whole, end, synced } = torn();
    assert!(end > whole + 80);
    for len in whole..end {
        // Some file systems leave the zeros of preallocation behind it.
        for zeros in if len % 8 == 0 { vec![0, 4096] } else { vec![0] } {
            let crashed = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), crashed.path());
            let path = log_file(crashed.path());
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate(len);
            bytes.resize(len + zeros, 0);
            fs::write(&path, bytes).unwrap();
            fs::write(crashed.path().join("synced"), &synced).unwrap();
            let (log, found) = Log::open(crashed.path()).unwrap();
            assert_eq!(found.entries, entries(1, 5, 1), "cut at {len}");
            assert_eq!(found.hard_state, hard_state(1, 1, 4), "cut at {len}");
            log.append(&entries(6, 6, 2), Some(&hard_state(2, 1, 4)), true).unwrap();
            drop(log);
            if len % 8 == 0 {
                assert_eq!(reopen(crashed.path()).last(), at(6, 2), "cut at {len}");
            }
            assert!(!tree(crashed.path()).iter().any(|(path, _)| path.to_string_lossy().ends_with(".cut")));
        }
    }
}

#[test]
fn an_acknowledged_tail_that_is_gone_is_damage_and_stays_so() {
    let Torn { dir, whole, end, .. } = torn();
    for len in [whole, whole + 1, end - 1] {
        let crashed = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), crashed.path());
        let path = log_file(crashed.path());
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len as u64).unwrap();
        for _ in 0..2 {
            let error = Log::open(crashed.path()).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("1 writes that were acknowledged are missing after entry 5 (term 1)"),
                "{text}"
            );
            assert_eq!(damaged_path(Err::<(), _>(error)), path);
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_an_acknowledged_log_is_damage_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path()).unwrap();
    for index in 1..=2 {
        log.append(&entries(index, index, 1), Some(&hard_state(1, 1, index - 1)), true).unwrap();
    }
    drop(log);
    let expected = reopen(dir.path());
    let len = fs::metadata(log_file(dir.path())).unwrap().len() as usize;
    let mut unnoticed = Vec::new();
    for offset in 0..len {
        let crashed = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), crashed.path());
        let path = log_file(crashed.path());
        flip(&path, offset);
        match Log::open(crashed.path()) {
            Ok((_, found)) => {
                assert_eq!(found, expected, "offset {offset}");
                unnoticed.push(offset);
            }
            error => assert_eq!(damaged_path(error), path, "offset {offset}"),
        }
    }
    // The file's header: how batches are aligned, which is a hint and says nothing of what they hold.
    assert_eq!(unnoticed, (61..69).collect::<Vec<_>>(), "of {len}");
}

#[test]
fn damage_in_an_older_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open_sized(dir.path(), 64 << 10).unwrap();
    for index in 1..=20 {
        log.append(&[entry(index, 1, &[7; 10_000])], Some(&hard_state(1, 1, 0)), true).unwrap();
    }
    drop(log);
    let oldest = dir.path().join("0000000000000001.raftlog");
    let len = fs::metadata(&oldest).unwrap().len() as usize;
    for offset in [3, 100, len / 2, len - 5] {
        let crashed = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), crashed.path());
        let copy = crashed.path().join(oldest.file_name().unwrap());
        flip(&copy, offset);
        let path = damaged_path(Log::open_sized(crashed.path(), 64 << 10).map(|_| ()));
        assert_eq!(path, copy, "offset {offset}");
    }
}

#[test]
fn a_failed_fsync_is_an_error_and_nothing_is_believed_or_deleted_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open_sized(dir.path(), 64 << 10).unwrap();
    for index in 1..=20 {
        log.append(&[entry(index, 1, &[7; 10_000])], Some(&hard_state(1, 1, 0)), true).unwrap();
    }
    let synced = fs::read(dir.path().join("synced")).unwrap();
    let files = tree(dir.path()).len();
    log.health().faults.sync.store(true, Ordering::Relaxed);
    let error = log.append(&entries(21, 21, 1), None, true).unwrap_err();
    assert!(matches!(error, StorageError::Io { verb: "flushing to disk", .. }), "{error:?}");
    log.health().faults.sync.store(false, Ordering::Relaxed);
    assert!(log.append(&entries(21, 21, 1), None, true).is_err());
    assert!(log.append(&[], None, false).is_err());
    assert!(log.compact(at(20, 1)).is_err());
    assert!(log.reset(at(30, 1), &hard_state(1, 1, 30)).is_err());
    assert_eq!(tree(dir.path()).len(), files);
    assert_eq!(fs::read(dir.path().join("synced")).unwrap(), synced);
}

#[test]
fn a_full_disk_is_an_error_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(dir.path()).unwrap();
    log.append(&entries(1, 3, 1), Some(&hard_state(1, 1, 0)), true).unwrap();
    log.health().faults.no_space.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let error = log.append(&entries(4, 4, 1), None, true).unwrap_err();
        assert!(error.is_out_of_space(), "{error:?}");
    }
    log.health().faults.no_space.store(false, Ordering::Relaxed);
    log.append(&entries(4, 5, 1), None, true).unwrap();
    drop(log);
    assert_eq!(reopen(dir.path()).entries, entries(1, 5, 1));
}

#[test]
fn a_log_that_is_compacted_stays_small_on_disk() {
    const FILE_SIZE: u64 = 2 << 20;
    const WRITTEN: u64 = 300 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open_sized(dir.path(), FILE_SIZE).unwrap();
    let data = vec![5; 64 << 10];
    let mut largest = 0;
    for index in 1..=WRITTEN / data.len() as u64 {
        log.append(&[entry(index, 1, &data)], Some(&hard_state(1, 1, index - 1)), false).unwrap();
        if index % 32 == 0 {
            // What two checkpoints need stays.
            log.compact(at(index.saturating_sub(64).max(1), 1)).unwrap();
            log.free_space().unwrap();
            largest = largest.max(log.size_on_disk());
        }
    }
    assert!(largest < 10 * FILE_SIZE, "{} MiB", largest >> 20);
    drop(log);
    let (_, found) = Log::open_sized(dir.path(), FILE_SIZE).unwrap();
    assert_eq!(found.last(), at(WRITTEN / data.len() as u64, 1));
}

/// What is allocated and was never written is a hole, and slow to be written to.
#[test]
fn there_are_zeros_ahead_of_the_log_and_none_after_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let written_up_to = || {
        let file = fs::File::open(log_file(dir.path())).unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap() as usize
    };
    let mut next = 1;
    for _ in 0..2 {
        let (log, _) = Log::open(dir.path()).unwrap();
        for _ in 0..20 {
            let added = [entry(next, 1, &vec![b'v'; 100_000])];
            log.append(&added, Some(&hard_state(1, 1, 0)), true).unwrap();
            let end = usize::try_from(next).unwrap() * 100_000;
            assert!(written_up_to() > end + 4096, "{next}: {}", written_up_to());
            next += 1;
        }
        drop(log);
        let end = usize::try_from(next - 1).unwrap() * 100_000;
        assert!(written_up_to() < end + 100_000, "{}", written_up_to());
    }
    assert_eq!(reopen(dir.path()).entries.len(), 40);
}

#[test]
fn a_second_opening_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _log = Log::open(dir.path()).unwrap();
    assert!(Log::open(dir.path()).is_err());
}
