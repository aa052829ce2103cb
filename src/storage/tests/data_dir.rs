use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{damaged_path, flip};
use crate::storage::{DataDir, Identity, StorageError};

fn identity() -> Identity {
    Identity {
        format: Identity::FORMAT,
        cluster_id: 0xc1,
        member_id: 7,
        name: "one".to_owned(),
        peer_urls: vec!["http://127.0.0.1:7001".to_owned()],
        incarnation: 9,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_new_one_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/data");
    let data_dir = DataDir::open(&path).unwrap();
    assert_eq!((mode(&path), mode(&path.join("member"))), (0o700, 0o700));
    assert_eq!(data_dir.identity().unwrap(), None);
    drop(data_dir);
    fs::set_permissions(path.join("member"), Permissions::from_mode(0o755)).unwrap();
    DataDir::open(&path).unwrap();
    assert_eq!(mode(&path.join("member")), 0o700);
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    type Fill = fn(&Path);
    let cases: [(Fill, &str); 5] = [
        (|dir| fs::create_dir_all(dir.join("member/wal")).unwrap(), "the data directory of an etcd (wal/"),
        (|dir| fs::create_dir_all(dir.join("member/snap")).unwrap(), "the data directory of an etcd (snap/"),
        (|dir| fs::write(dir.join("log"), "etcd 0.4").unwrap(), "files of something else (log)"),
        (|dir| fs::write(dir.join("member"), "").unwrap(), "not a directory"),
        (
            |dir| {
                fs::create_dir(dir.join("member")).unwrap();
                fs::write(dir.join("member/photos"), "").unwrap();
            },
            "nothing that this program makes",
        ),
    ];
    for (fill, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let before = super::tree(dir.path());
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, StorageError::Foreign { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(super::tree(dir.path()), before);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(DataDir::open(file.path()), Err(StorageError::Foreign { .. })));
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    DataDir::open(dir.path()).unwrap();
}

/// Set for a child that runs one of the tests below: the directory that it is to work on.
const CHILD_DIR: &str = "QUORATE_TEST_CHILD_DIR";

fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("storage::tests::data_dir::{test}"), "--exact", "--ignored", "--nocapture"]);
    command.env(CHILD_DIR, dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
#[ignore = "runs in a child of one_process_owns_it"]
fn child_that_holds_the_lock() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let _data_dir = DataDir::open(Path::new(&dir)).unwrap();
    println!("\nlocked");
    let _ = io::stdin().read(&mut [0]);
}

#[test]
fn one_process_owns_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = child("child_that_holds_the_lock", dir.path()).spawn().unwrap();
    let output = BufReader::new(holder.stdout.take().unwrap());
    assert!(output.lines().map_while(Result::ok).any(|line| line == "locked"));
    let error = DataDir::open(dir.path()).unwrap_err();
    assert!(
        error.to_string().contains(&format!("in use by another running member (process {})", holder.id())),
        "{error}"
    );
    assert!(matches!(error, StorageError::Locked { pid: Some(pid), .. } if pid == holder.id()));
    // However it ends, the lock ends with it.
    holder.kill().unwrap();
    holder.wait().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    assert!(matches!(DataDir::open(dir.path()), Err(StorageError::Locked { .. })));
    drop(data_dir);
    DataDir::open(dir.path()).unwrap();
}

#[test]
#[ignore = "runs in a child of a_directory_that_cannot_be_written_is_named"]
fn child_without_rights() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let error = DataDir::open(Path::new(&dir)).unwrap_err();
    println!("\n{error}");
    assert!(matches!(error, StorageError::Permission { .. }), "{error:?}");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let denied = dir.path().join("denied");
    fs::create_dir(&denied).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&denied, Permissions::from_mode(0o555)).unwrap();
    // Root may do anything, so the child becomes nobody; it may then not be able to run, which is not what is tested.
    let mut command = child("child_without_rights", &denied);
    if rustix::process::geteuid().is_root() {
        command.uid(65534);
    }
    match command.stderr(Stdio::null()).spawn().and_then(std::process::Child::wait_with_output) {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{text}");
            assert!(text.contains(&format!("creating {}/member", denied.display())), "{text}");
        }
        Err(e) => assert_eq!(e.kind(), io::ErrorKind::PermissionDenied, "{e}"),
    }
}

#[test]
fn the_systems_errors_are_sorted() {
    let sort = |kind: io::ErrorKind| StorageError::io("reading", Path::new("/data"), kind.into());
    assert!(matches!(sort(io::ErrorKind::PermissionDenied), StorageError::Permission { .. }));
    assert!(matches!(sort(io::ErrorKind::ReadOnlyFilesystem), StorageError::ReadOnly { .. }));
    assert!(matches!(sort(io::ErrorKind::StorageFull), StorageError::Full { .. }));
    assert!(matches!(sort(io::ErrorKind::QuotaExceeded), StorageError::Full { .. }));
    assert!(matches!(sort(io::ErrorKind::NotFound), StorageError::Io { .. }));
}

#[test]
fn an_identity_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    data_dir.create_identity(&identity()).unwrap();
    data_dir.create_identity(&identity()).unwrap();
    let other = Identity { member_id: 8, ..identity() };
    let error = data_dir.create_identity(&other).unwrap_err();
    assert!(error.to_string().contains("it says member 7 of cluster c1, not member 8"), "{error}");
    drop(data_dir);
    assert_eq!(DataDir::open(dir.path()).unwrap().identity().unwrap(), Some(identity()));
}

#[test]
fn a_damaged_or_cut_identity_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    data_dir.create_identity(&identity()).unwrap();
    let path = data_dir.identity_path();
    let whole = fs::read(&path).unwrap();
    for offset in 0..whole.len() {
        flip(&path, offset);
        assert_eq!(damaged_path(data_dir.identity()), path, "offset {offset}");
        fs::write(&path, &whole[..offset]).unwrap();
        assert_eq!(damaged_path(data_dir.identity()), path, "cut at {offset}");
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(data_dir.identity().unwrap(), Some(identity()));
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    crate::storage::files::write_sealed(&data_dir.identity_path(), br#"{"format":2,"shape":"unknown"}"#)
        .unwrap();
    let error = data_dir.identity().unwrap_err();
    assert!(matches!(error, StorageError::Newer { found: 2, supported: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("start the version that wrote it"), "{error}");
}

#[test]
fn a_crash_while_writing_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    data_dir.create_identity(&identity()).unwrap();
    data_dir.save_note("discovery", b"old").unwrap();
    drop(data_dir);
    for unfinished in ["identity.tmp", "notes/discovery.tmp"] {
        fs::write(dir.path().join("member").join(unfinished), b"half").unwrap();
    }
    let data_dir = DataDir::open(dir.path()).unwrap();
    assert_eq!(data_dir.identity().unwrap(), Some(identity()));
    assert_eq!(data_dir.note("discovery").unwrap().as_deref(), Some(&b"old"[..]));
    assert!(!dir.path().join("member/identity.tmp").exists());
    data_dir.save_note("discovery", b"new").unwrap();
    assert_eq!(data_dir.note("discovery").unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn notes_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    assert_eq!(data_dir.note("token").unwrap(), None);
    data_dir.save_note("token", b"").unwrap();
    assert_eq!(data_dir.note("token").unwrap().as_deref(), Some(&b""[..]));
    data_dir.remove_note("token").unwrap();
    data_dir.remove_note("token").unwrap();
    assert_eq!(data_dir.note("token").unwrap(), None);
    for name in ["", "../identity", "a/b", "A"] {
        assert!(data_dir.save_note(name, b"").is_err(), "{name}");
    }
}

#[test]
fn the_clock_is_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    assert_eq!(data_dir.load_clock(), None);
    for ms in [0, 1, u64::MAX, 1_700_000_000_000] {
        data_dir.save_clock(7, ms).unwrap();
        assert_eq!(data_dir.load_clock(), Some((7, ms)));
    }
    let path = dir.path().join("member/clock");
    flip(&path, 3);
    assert_eq!(data_dir.load_clock(), None);
    fs::File::create(&path).unwrap().write_all(b"short").unwrap();
    assert_eq!(data_dir.load_clock(), None);
}
