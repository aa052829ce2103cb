//! The decision tables of the v2 API, row by row: the answers are those of a real etcd 3.4.

use super::*;

fn update(path: &str, value: &str, ttl: Option<u64>, refresh: bool) -> Command {
    Command::Update { key: key(path), value: Bytes::copy_from_slice(value.as_bytes()), ttl, refresh }
}

fn create(path: &str, dir: bool) -> Command {
    Command::Create { key: key(path), value: Bytes::from("c"), dir, ttl: None, refresh: false }
}

fn post(path: &str) -> Command {
    Command::CreateInOrder { key: key(path), value: Bytes::from("p"), dir: false, ttl: None }
}

fn compare(prev_value: &'static str, prev_index: u64) -> Compare {
    Compare { prev_value: Bytes::from(prev_value), prev_index }
}

fn swap(path: &str, prev_value: &'static str, prev_index: u64) -> Command {
    let compare = compare(prev_value, prev_index);
    Command::CompareAndSwap { key: key(path), compare, value: Bytes::from("s"), ttl: None, refresh: false }
}

fn refresh(path: &str, dir: bool) -> Command {
    Command::Set { key: key(path), value: Bytes::new(), dir, ttl: Some(9), refresh: true }
}

fn delete(path: &str, dir: bool, recursive: bool) -> Command {
    Command::Delete { key: key(path), dir, recursive }
}

fn compare_delete(path: &str, prev_value: &'static str, prev_index: u64) -> Command {
    Command::CompareAndDelete { key: key(path), compare: compare(prev_value, prev_index) }
}

/// `/f`: a file with value `v` made at 1 and modified at 2; `/d`: a directory made at 3 with the hidden file `_h` in
/// it; `/e`: an empty directory made at 4.
fn furnished() -> Store {
    let mut store = store();
    ok(&mut store, &set("/f", "u"));
    ok(&mut store, &update("/f", "v", None, false));
    ok(&mut store, &set("/d/_h", "v"));
    ok(&mut store, &mkdir("/e", None));
    assert_eq!(store.index(), 4);
    store
}

#[test]
fn what_is_refused_and_why() {
    use ErrorCode::*;
    for (command, code, cause) in [
        (set("/", "x"), RootReadOnly, "/"),
        (mkdir("/", None), RootReadOnly, "/"),
        (refresh("/", false), RootReadOnly, "/"),
        (create("/", true), RootReadOnly, "/"),
        (update("/", "", None, false), RootReadOnly, "/"),
        (swap("/", "", 1), RootReadOnly, "/"),
        (delete("/", true, true), RootReadOnly, "/"),
        (compare_delete("/", "", 1), NotFile, ""),
        (set("/d", "x"), NotFile, "/d"),
        (mkdir("/d", None), NotFile, "/d"),
        (set("/f/x/y", "x"), NotDir, "/f"),
        (refresh("/d", false), NotFile, "/d"),
        (refresh("/d", true), NotFile, "/d"),
        (refresh("/no/x/y", false), KeyNotFound, "/no"),
        (refresh("/d/x/y", false), KeyNotFound, "/d/x"),
        (refresh("/f/x", false), NotDir, "/f"),
        (create("/f", false), NodeExist, "/f"),
        (create("/d", true), NodeExist, "/d"),
        (create("/f/x/y", false), NotDir, "/f"),
        (post("/f"), NotDir, "/f"),
        (post("/f/x"), NotDir, "/f"),
        (update("/no/x", "", None, false), KeyNotFound, "/no"),
        (update("/f/x", "", None, false), NotDir, "/f"),
        (update("/d", "x", None, false), NotFile, "/d"),
        (update("/d", "x", Some(1), true), NotFile, "/d"),
        (swap("/no/x", "v", 0), KeyNotFound, "/no"),
        (swap("/d", "", 99), NotFile, "/d"),
        (swap("/f", "x", 0), TestFailed, "[x != v]"),
        (swap("/f", "", 1), TestFailed, "[1 != 2]"),
        (swap("/f", "x", 1), TestFailed, "[x != v] [1 != 2]"),
        (swap("/f", "v", 1), TestFailed, "[1 != 2]"),
        (swap("/f", "x", 2), TestFailed, "[x != v]"),
        (delete("/d", false, false), NotFile, "/d"),
        (delete("/d", true, false), DirNotEmpty, "/d"),
        (delete("/e", false, false), NotFile, "/e"),
        (delete("/no/x", true, true), KeyNotFound, "/no"),
        (delete("/f/x", true, true), NotDir, "/f"),
        (compare_delete("/d", "v", 0), NotFile, "/d"),
        (compare_delete("/no/x", "v", 0), KeyNotFound, "/no"),
        (compare_delete("/f", "x", 9), TestFailed, "[x != v] [9 != 2]"),
    ] {
        let mut store = furnished();
        let before: Vec<Node> = store.nodes().collect();
        let digest = store.digest();
        let error = store.apply(ClusterTime(0), &command).expect_err("it is refused");
        assert_eq!(error, StoreError::new(code, cause, 4), "{command:?}");
        let after: Vec<Node> = store.nodes().collect();
        assert_eq!((before, digest, 4), (after, store.digest(), store.index()), "{command:?}");
    }
}

/// What an event says, in short: action, key, value or `/` for a directory, created, modified, and whether there was a
/// node before, with its value or `/`.
fn told(event: &Event) -> String {
    let content = |node: &Node| match &node.value {
        Some(value) => format!("={}", String::from_utf8_lossy(value)),
        None if node.dir => "/".to_owned(),
        None => String::new(),
    };
    let node = &event.node;
    let before = event.prev_node.as_ref().map_or_else(String::new, |node| format!(" was{}", content(node)));
    let content = content(node);
    let (name, deadline) = (event.action.name(), node.deadline.map_or(0, |at| at.0));
    format!("{name} {}{content} {}..{} ttl {deadline}{before}", node.key, node.created, node.modified)
}

#[test]
fn what_is_done_and_told() {
    for (command, expected) in [
        (set("/f", "x"), "set /f=x 5..5 ttl 0 was=v"),
        (set("/n/m", "x"), "set /n/m=x 5..5 ttl 0"),
        (set_ttl("/f", 9), "set /f=v 5..5 ttl 109 was=v"),
        (set_ttl("/f", u64::MAX), "set /f=v 5..5 ttl 18446744073709551615 was=v"),
        (mkdir("/f", None), "set /f/ 5..5 ttl 0 was=v"),
        (mkdir("/n", Some(0)), "set /n/ 5..5 ttl 100"),
        (refresh("/f", false), "set /f=v 5..5 ttl 109 was=v"),
        (refresh("/f", true), "set /f/ 5..5 ttl 109 was=v"),
        (create("/n/m", false), "create /n/m=c 5..5 ttl 0"),
        (create("/n", true), "create /n/ 5..5 ttl 0"),
        (post("/"), "create /00000000000000000005=p 5..5 ttl 0"),
        (post("/n/q"), "create /n/q/00000000000000000005=p 5..5 ttl 0"),
        (update("/f", "", None, false), "update /f= 1..5 ttl 0 was=v"),
        (update("/f", "x", Some(1), true), "update /f=v 1..5 ttl 101 was=v"),
        (update("/d", "", Some(1), false), "update /d/ 3..5 ttl 101 was/"),
        (swap("/f", "v", 2), "compareAndSwap /f=s 1..5 ttl 0 was=v"),
        (swap("/f", "", 2), "compareAndSwap /f=s 1..5 ttl 0 was=v"),
        (swap("/f", "v", 0), "compareAndSwap /f=s 1..5 ttl 0 was=v"),
        (delete("/f", false, false), "delete /f 1..5 ttl 0 was=v"),
        (delete("/f", true, true), "delete /f 1..5 ttl 0 was=v"),
        (delete("/e", true, false), "delete /e/ 4..5 ttl 0 was/"),
        (delete("/d", false, true), "delete /d/ 3..5 ttl 0 was/"),
        (compare_delete("/f", "v", 2), "compareAndDelete /f 1..5 ttl 0 was=v"),
    ] {
        let mut store = furnished();
        let event = store.apply(ClusterTime(100), &command).expect("it succeeds").event;
        assert_eq!(told(&event), expected, "{command:?}");
        assert_eq!((event.index, event.time, store.index()), (5, ClusterTime(100), 5));
        assert_eq!(store.history().last(), Some(&event));
        check_invariants(&store);
        let stored = store.get(&event.node.key);
        match &command {
            _ if event.action.removes() => assert!(stored.is_err(), "{command:?}"),
            // The stored directory keeps its index.
            Command::Update { key: dir, .. } if *dir == key("/d") => {
                assert_eq!(stored.unwrap(), Node { modified: 3, ..Node::clone(&event.node) });
            }
            _ => assert_eq!(stored.unwrap(), *event.node, "{command:?}"),
        }
    }
}

#[test]
fn parents_appear_silently_at_the_index_of_the_event() {
    let mut store = furnished();
    ok(&mut store, &set("/d/x/y/z", "v"));
    assert_eq!(store.index(), 5);
    for dir in ["/d/x", "/d/x/y"] {
        let node = store.get(&key(dir)).unwrap();
        assert_eq!((node.dir, node.created, node.modified, node.deadline), (true, 5, 5, None));
    }
    assert_eq!(store.get(&key("/d")).unwrap().modified, 3, "an existing parent is not touched");
}

#[test]
fn a_write_without_ttl_makes_permanent_and_a_swap_replaces_the_ttl() {
    let mut store = store();
    for command in [set("/k", ""), update("/k", "", None, false), swap("/k", "v", 0)] {
        ok(&mut store, &set_ttl("/k", 5));
        assert_eq!(store.ttl_count(), 1);
        ok(&mut store, &command);
        assert_eq!((store.ttl_count(), store.next_deadline()), (0, None), "{command:?}");
    }
}

#[test]
fn only_refreshes_that_keep_a_node_are_marked() {
    let mut store = furnished();
    assert!(ok(&mut store, &refresh("/f", false)).event.refresh);
    assert!(ok(&mut store, &update("/f", "", Some(1), true)).event.refresh);
    let create =
        Command::Create { key: key("/n"), value: Bytes::new(), dir: false, ttl: Some(1), refresh: true };
    assert!(!ok(&mut store, &create).event.refresh, "etcd tells watchers of this one");
}

#[test]
fn an_in_order_name_may_be_taken() {
    let mut store = store();
    ok(&mut store, &set("/q/00000000000000000002", "mine"));
    let error = store.apply(ClusterTime(0), &post("/q")).unwrap_err();
    assert_eq!((error.code, &error.cause[..]), (ErrorCode::NodeExist, &b"/q/00000000000000000002"[..]));
}

#[test]
fn reads_find_the_node_or_say_where_the_way_ends() {
    let store = furnished();
    let root = store.get(&Key::root()).unwrap();
    assert_eq!((root.key.is_root(), root.dir, root.created, root.modified), (true, true, 0, 0));
    for (path, code, cause) in [
        ("/no", ErrorCode::KeyNotFound, "/no"),
        ("/no/x/y", ErrorCode::KeyNotFound, "/no"),
        ("/d/x/y", ErrorCode::KeyNotFound, "/d/x"),
        ("/f/x/y", ErrorCode::NotDir, "/f"),
    ] {
        assert_eq!(store.get(&key(path)), Err(StoreError::new(code, cause, 4)), "{path}");
    }
    let names = |dir: &str| store.children(&key(dir)).map(|node| node.key.to_string()).collect::<Vec<_>>();
    assert_eq!(names("/"), ["/d", "/e", "/f"]);
    assert_eq!(names("/d"), ["/d/_h"]);
    for childless in ["/e", "/f", "/no"] {
        assert_eq!(names(childless), [""; 0], "{childless}");
    }
}

#[test]
fn nodes_expire_in_order_of_deadline_and_never_early() {
    let mut store = store();
    ok(&mut store, &set_ttl("/late", 30));
    ok(&mut store, &set_ttl("/now", 0));
    ok(&mut store, &mkdir("/dir", Some(20)));
    ok(&mut store, &set_ttl("/dir/own", 25));
    ok(&mut store, &set_ttl("/dir/first", 10));
    ok(&mut store, &set("/dir/x/y", ""));
    let mut expired = |time, limit| {
        let outcomes = store.expire(ClusterTime(time), limit);
        outcomes.iter().map(|outcome| told(&outcome.event)).collect::<Vec<_>>()
    };
    assert_eq!(expired(0, 9), ["expire /now 2..7 ttl 0 was=v"]);
    assert_eq!(expired(9, 9), [""; 0]);
    assert_eq!(expired(30, 1), ["expire /dir/first 5..8 ttl 0 was=v"]);
    // `/dir/own` goes with its directory.
    assert_eq!(expired(30, 9), ["expire /dir/ 3..9 ttl 0 was/", "expire /late 1..10 ttl 0 was=v"]);
    assert_eq!((store.node_count(), store.ttl_count(), store.byte_count()), (0, 0, 0));
}
