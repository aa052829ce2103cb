//! Who is told: by example, and against a look at every watcher.

use super::*;

/// The paths of a hub's watchers that an outcome concerns, in the order of the calls.
fn told(watchers: &[(&str, bool)], outcome: &Outcome) -> Vec<String> {
    let mut hub = WatcherHub::new();
    let ids: Vec<WatcherId> =
        watchers.iter().map(|(path, recursive)| hub.insert(key(path), *recursive)).collect();
    let mut told = Vec::new();
    hub.matching(outcome, |id| {
        let place = ids.iter().position(|known| *known == id).expect("a known watcher");
        told.push(watchers[place].0.to_owned());
    });
    told
}

#[test]
fn from_the_root_down_to_the_path() {
    let mut store = store();
    let watchers = [
        ("/a/b/c", false),
        ("/a/b", false),
        ("/a/b", true),
        ("/a", true),
        ("/", true),
        ("/", false),
        ("/a/bc", true),
        ("/a/b/c/d", true),
        ("/a/b/c", true),
    ];
    let outcome = ok(&mut store, &set("/a/b/c", "v"));
    assert_eq!(told(&watchers, &outcome), ["/", "/a", "/a/b", "/a/b/c", "/a/b/c"]);
    let outcome = ok(&mut store, &remove("/a/b/c"));
    assert_eq!(told(&watchers, &outcome), ["/a/b/c", "/a/b/c", "/", "/a", "/a/b"]);
}

#[test]
fn a_removed_directory_tells_watchers_at_paths_that_existed() {
    let mut store = store();
    ok(&mut store, &set("/a/b/c", "v"));
    ok(&mut store, &set("/a/_h/x", "v"));
    let watchers = [
        ("/a", false),
        ("/a/b", false),
        ("/a/b/c", false),
        ("/a/b/no", true),
        ("/a/_h/x", false),
        ("/ab", true),
        ("/", true),
    ];
    let expiring = Command::Update { key: key("/a"), value: Bytes::new(), ttl: Some(0), refresh: false };
    ok(&mut store, &expiring);
    let outcome = store.expire(ClusterTime(0), 1).remove(0);
    assert_eq!(told(&watchers, &outcome), ["/a/b/c", "/a/b", "/a/_h/x", "/a", "/"]);
}

#[test]
fn hidden_changes_are_withheld_from_above_only() {
    let mut store = store();
    let outcome = ok(&mut store, &set("/a/_h/x", "v"));
    let watchers = [("/", true), ("/a", true), ("/a/_h", true), ("/a/_h/x", false), ("/a/_h", false)];
    assert_eq!(told(&watchers, &outcome), ["/a/_h", "/a/_h/x"]);
}

#[test]
fn nobody_hears_of_a_refresh() {
    let mut store = store();
    ok(&mut store, &set("/k", "v"));
    let refresh =
        Command::Set { key: key("/k"), value: Bytes::new(), dir: false, ttl: Some(1), refresh: true };
    let outcome = ok(&mut store, &refresh);
    assert_eq!(told(&[("/k", false), ("/", true)], &outcome), [""; 0]);
}

#[test]
fn watchers_come_and_go() {
    let mut store = store();
    let mut hub = WatcherHub::new();
    let outcome = ok(&mut store, &set("/k", "v"));
    let ids: Vec<_> = (0..5).map(|_| hub.insert(key("/k"), false)).collect();
    assert!(hub.remove(ids[1]) && hub.remove(ids[4]));
    assert!(!hub.remove(ids[1]), "once");
    let again = hub.insert(key("/k"), true);
    assert!(!ids.contains(&again), "ids are not used again");
    let mut told = Vec::new();
    hub.matching(&outcome, |id| told.push(id));
    assert_eq!((told, hub.len()), (vec![ids[0], ids[2], ids[3], again], 4));
    for id in [ids[0], ids[2], ids[3], again] {
        assert!(hub.remove(id));
    }
    assert!(hub.is_empty());
    hub.matching(&outcome, |id| panic!("{id:?} is gone"));
}

/// The rule for one watcher, by segments.
fn concerns(outcome: &Outcome, before: &Store, watched: &Key, recursive: bool) -> bool {
    let segments = |key: &Key| {
        key.to_string().split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let (path, watched_path) = (segments(&outcome.event.node.key), segments(watched));
    if outcome.event.refresh {
        return false;
    }
    if path == watched_path {
        return true;
    }
    if path.starts_with(&watched_path) {
        return recursive && !path[watched_path.len()..].iter().any(|name| name.starts_with('_'));
    }
    let gone = outcome.event.action.removes() && watched_path.starts_with(&path);
    gone && before.contains(watched)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_hub_tells_whom_the_rule_names(
        commands in prop::collection::vec(any_command(), 1..60),
        watchers in prop::collection::vec((any_key(), any::<bool>()), 0..20),
    ) {
        let mut store = store();
        let mut hub = WatcherHub::new();
        let ids: Vec<_> = watchers.iter().map(|(key, recursive)| hub.insert(key.clone(), *recursive)).collect();
        let check = |outcome: &Outcome, before: &Store| {
            let mut told = Vec::new();
            hub.matching(outcome, |id| told.push(id));
            told.sort_unstable();
            let concerned = |place: &usize| {
                let (key, recursive) = &watchers[*place];
                concerns(outcome, before, key, *recursive)
            };
            let expected: Vec<_> = (0..ids.len()).filter(concerned).map(|place| ids[place]).collect();
            assert_eq!(told, expected, "{:?}", outcome.event);
        };
        for command in &commands {
            let before = store.clone();
            if let Ok(outcome) = store.apply(ClusterTime(0), command) {
                check(&outcome, &before);
            }
        }
        loop {
            let before = store.clone();
            let Some(outcome) = store.expire(ClusterTime(100), 1).pop() else { break };
            check(&outcome, &before);
        }
    }
}
