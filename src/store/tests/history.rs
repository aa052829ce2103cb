//! The history: its bounds, and scans against a search through all events.

use super::*;
use std::sync::Arc;

fn filled(events: usize, limits: HistoryLimits) -> Store {
    let mut store = Store::new(limits);
    for number in 0..events {
        ok(&mut store, &set("/k", &number.to_string()));
    }
    store
}

#[test]
fn an_empty_history_has_lost_nothing() {
    let store = store();
    let history = store.history();
    assert_eq!((history.first_index(), history.last_index(), history.len()), (1, 0, 0));
    assert!(history.is_empty() && history.last().is_none() && history.get(1).is_none());
    for since in [0, 1, 99] {
        assert_eq!(history.scan(&key("/k"), true, since), Ok(None));
    }
}

#[test]
fn the_oldest_event_is_served_and_the_one_before_is_cleared() {
    let store = filled(10, HistoryLimits { events: 4, ..LIMITS });
    let history = store.history();
    assert_eq!((history.first_index(), history.last_index(), history.len()), (7, 10, 4));
    assert_eq!(history.scan(&key("/other"), false, 6), Err(7), "whatever the key");
    assert_eq!(history.scan(&key("/k"), false, 7).unwrap().unwrap().index, 7);
    assert_eq!(history.scan(&key("/k"), false, 11), Ok(None));
    assert_eq!((history.get(6), history.get(11)), (None, None));
    assert_eq!(history.get(8).unwrap().index, 8);
    let from = |index| history.iter_from(index).map(|event| event.index).collect::<Vec<_>>();
    assert_eq!((from(0), from(9), from(11)), (vec![7, 8, 9, 10], vec![9, 10], vec![]));
}

#[test]
fn bytes_bound_it_too() {
    // Each event counts `/k`, a digit, and from the second on the digit before.
    let store = filled(9, HistoryLimits { events: 100, bytes: 13 });
    assert_eq!((store.history().len(), store.history().bytes()), (3, 12));
    let store = filled(9, HistoryLimits { events: 100, bytes: 0 });
    assert_eq!((store.history().first_index(), store.history().bytes()), (10, 0));
    assert_eq!(store.history().last_index(), 9);
}

#[test]
fn a_long_history_stays_in_step_while_clones_are_held() {
    let mut store = Store::new(HistoryLimits { events: 300, ..LIMITS });
    let mut held = store.clone();
    for number in 1..=2000u64 {
        ok(&mut store, &set("/k", "v"));
        if number % 7 == 0 {
            held = store.clone();
        }
        let indexes = store.history().iter_from(0).map(|event| event.index);
        if number % 50 == 0 {
            assert!(indexes.eq(store.history().first_index()..=number));
        }
    }
    assert!(held.history().iter_from(0).map(|event| event.index).eq(1696..=1995));
}

#[test]
fn what_a_scan_matches() {
    let mut store = store();
    ok(&mut store, &set("/d/_h/x", "v")); // 1
    ok(&mut store, &Command::Update { key: key("/d"), value: Bytes::new(), ttl: Some(1), refresh: true }); // 2
    ok(&mut store, &Command::Update { key: key("/d"), value: Bytes::new(), ttl: None, refresh: false }); // 3
    ok(&mut store, &remove("/d/_h/x")); // 4
    ok(&mut store, &remove("/d")); // 5
    for (path, recursive, since, expected) in [
        ("/", true, 1, Some(1)),
        ("/", false, 1, None),
        ("/d", true, 1, Some(1)), // hidden, but history tells
        ("/d", false, 1, Some(3)),
        ("/d", true, 2, Some(3)), // no refresh
        ("/d/_h/x", false, 2, Some(4)),
        ("/d/_h/x", false, 5, Some(5)), // its directory went
        ("/d/never/was", false, 1, Some(5)),
        ("/d/_h/x/below", false, 1, Some(5)), // a file's removal concerns nothing below
        ("/dx", true, 1, None),
        ("/d", true, 6, None),
    ] {
        let found = store.history().scan(&key(path), recursive, since).unwrap();
        assert_eq!(found.map(|event| event.index), expected, "{path} {recursive} {since}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_scan_finds_what_a_search_finds(
        commands in prop::collection::vec(any_command(), 1..60),
        watched in any_key(),
        recursive: bool,
        since in 1..40u64,
    ) {
        let mut store = Store::new(HistoryLimits { events: 20, ..LIMITS });
        let mut all: Vec<Arc<Event>> = Vec::new();
        for command in &commands {
            all.extend(store.apply(ClusterTime(0), command).ok().map(|outcome| outcome.event));
        }
        let segments = |key: &Key| key.to_string().split('/').filter(|name| !name.is_empty())
            .map(str::to_owned).collect::<Vec<_>>();
        let watched_path = segments(&watched);
        let concerned = |event: &&Arc<Event>| {
            let path = segments(&event.node.key);
            let dir_gone = event.node.dir && event.action.removes() && watched_path.starts_with(&path);
            let below = recursive && path.starts_with(&watched_path);
            event.index >= since && !event.refresh && (path == watched_path || below || dir_gone)
        };
        let oldest = (all.len() as u64).saturating_sub(20) + 1;
        let expected = if since < oldest { Err(oldest) } else { Ok(all.iter().find(concerned).cloned()) };
        prop_assert_eq!(store.history().scan(&watched, recursive, since), expected);
    }
}
