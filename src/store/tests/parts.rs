//! Taking a store apart for a checkpoint and putting it together again.

use super::*;
use std::sync::Arc;

struct Parts {
    index: u64,
    digest: u64,
    nodes: Vec<Node>,
    history: Vec<Arc<Event>>,
}

fn parts(store: &Store) -> Parts {
    let history = store.history().iter_from(0).cloned().collect();
    Parts { index: store.index(), digest: store.digest(), nodes: store.nodes().collect(), history }
}

fn rebuilt(parts: &Parts, limits: HistoryLimits) -> Result<Store, String> {
    Store::from_parts(limits, parts.index, parts.digest, parts.nodes.clone(), parts.history.clone())
}

fn sample() -> Parts {
    let mut store = store();
    ok(&mut store, &set("/a/b/c", "v"));
    ok(&mut store, &set_ttl("/a/d", 5));
    ok(&mut store, &set("/e", ""));
    parts(&store)
}

#[test]
fn parts_that_break_an_invariant_are_refused() {
    type Spoil = fn(&mut Parts);
    let cases: [(&str, Spoil); 16] = [
        ("out of order", |parts| parts.nodes.swap(2, 3)),
        ("out of order", |parts| parts.nodes.insert(1, parts.nodes[0].clone())),
        ("out of order", |parts| parts.nodes[0].key = Key::root()),
        ("not in a directory", |parts| drop(parts.nodes.remove(1))),
        ("not in a directory", |parts| parts.nodes.push(Node { key: key("/e/x"), ..parts.nodes[4].clone() })),
        ("file or a directory", |parts| parts.nodes[4].value = None),
        ("file or a directory", |parts| parts.nodes[0].value = Some(Bytes::new())),
        ("created at 3", |parts| parts.nodes[4].modified = 2),
        ("modified at 4", |parts| parts.nodes[4].modified = 4),
        ("created at 0", |parts| parts.nodes[4].created = 0),
        ("event 3 stands where 2", |parts| drop(parts.history.remove(1))),
        ("event 1 stands where 2", |parts| parts.history.insert(0, parts.history[0].clone())),
        ("event 0 stands where 1", |parts| {
            let event = Event { index: 0, ..Event::clone(&parts.history[0]) };
            parts.history.insert(0, Arc::new(event));
        }),
        ("ends at 2", |parts| drop(parts.history.pop())),
        ("event 3 stands where 3 belongs, of 2", |parts| {
            parts.nodes.truncate(3);
            parts.index = 2;
        }),
        ("event 3 is about a change at 9", |parts| {
            let mut event = Event::clone(&parts.history[2]);
            event.node = Arc::new(Node { modified: 9, ..Node::clone(&event.node) });
            parts.history[2] = Arc::new(event);
        }),
    ];
    for (expected, spoil) in cases {
        let mut parts = sample();
        spoil(&mut parts);
        let error = rebuilt(&parts, LIMITS).expect_err(expected);
        assert!(error.contains(expected), "{error:?} is not {expected:?}");
    }
}

#[test]
fn what_is_the_same_in_a_known_store_is_shared_with_it() {
    let mut known = store();
    ok(&mut known, &set("/a/b", "same"));
    ok(&mut known, &set("/c", "old"));
    let mut newer = known.clone();
    ok(&mut newer, &set("/c", "new"));
    ok(&mut newer, &set("/d", "more"));
    let wanted = parts(&newer);
    let mut builder = StoreBuilder::new(LIMITS, wanted.index, wanted.digest).sharing(Some(known.clone()));
    for node in &wanted.nodes {
        builder.add_node(&node.compact()).unwrap();
    }
    for event in &wanted.history {
        let event = builder.share_event(Event::clone(event));
        builder.add_event(event).unwrap();
    }
    let built = builder.build().unwrap();
    assert_eq!(built.nodes().collect::<Vec<_>>(), wanted.nodes);
    assert_eq!(built.history().iter_from(0).cloned().collect::<Vec<_>>(), wanted.history);
    let shared = |path: &str| {
        let (a, b) = (known.nodes.get(&key(path)), built.nodes.get(&key(path)));
        a.zip(b).is_some_and(|(a, b)| Arc::ptr_eq(a, b))
    };
    assert_eq!(["/a", "/a/b", "/c", "/d"].map(shared), [true, true, false, false]);
    let same = (1..=4).map(|index| {
        let (a, b) = (known.history().get(index), built.history().get(index));
        a.zip(b).is_some_and(|(a, b)| Arc::ptr_eq(a, b))
    });
    assert_eq!(same.collect::<Vec<_>>(), [true, true, false, false]);
    // Nothing is taken from a store that has something else of the same name.
    let mut other = store();
    ok(&mut other, &set("/a/b", "other"));
    let mut builder = StoreBuilder::new(LIMITS, wanted.index, wanted.digest).sharing(Some(other));
    wanted.nodes.iter().try_for_each(|node| builder.add_node(node)).unwrap();
    assert_eq!(
        builder.node(&key("/a/b")).map(Arc::as_ref),
        wanted.nodes.iter().find(|node| node.key == key("/a/b"))
    );
}

/// Members of different versions compare digests, so this number may never change.
#[test]
fn the_digest_is_the_one_it_has_always_been() {
    let mut store = store();
    ok(&mut store, &set_ttl("/a/b", 5));
    ok(
        &mut store,
        &Command::Create { key: key("/c"), value: Bytes::new(), dir: true, ttl: None, refresh: false },
    );
    ok(&mut store, &Command::Update { key: key("/a"), value: Bytes::new(), ttl: Some(9), refresh: true });
    let compare = Compare { prev_value: Bytes::from("v"), prev_index: 1 };
    let value = Bytes::from("w");
    let swap = Command::CompareAndSwap { key: key("/a/b"), compare, value, ttl: None, refresh: false };
    ok(&mut store, &swap);
    let compare = Compare { prev_value: Bytes::from("w"), prev_index: 0 };
    ok(&mut store, &Command::CompareAndDelete { key: key("/a/b"), compare });
    ok(&mut store, &remove("/c"));
    assert_eq!(store.expire(ClusterTime(10), 9).len(), 1);
    assert_eq!(store.digest(), 4_442_353_778_900_136_130);
}

#[test]
fn a_history_beyond_the_limits_is_cut() {
    let store = rebuilt(&sample(), HistoryLimits { events: 2, ..LIMITS }).unwrap();
    assert_eq!((store.history().first_index(), store.history().last_index()), (2, 3));
    let store = rebuilt(&Parts { history: vec![], ..sample() }, LIMITS).unwrap();
    assert_eq!((store.history().first_index(), store.history().last_index()), (4, 3));
    check_invariants(&store);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_rebuilt_store_goes_on_like_the_first(
        before in prop::collection::vec(any_command(), 0..60),
        after in prop::collection::vec(any_command(), 0..30),
    ) {
        let mut store = Store::new(HistoryLimits { events: 30, ..LIMITS });
        for command in &before {
            let _ = store.apply(ClusterTime(1), command);
        }
        let mut again = rebuilt(&parts(&store), store.history().limits()).unwrap();
        check_invariants(&again);
        for command in &after {
            let (first, second) = (store.apply(ClusterTime(9), command), again.apply(ClusterTime(9), command));
            prop_assert_eq!(first.map(|outcome| outcome.event), second.map(|outcome| outcome.event));
        }
        let expired = |store: &mut Store| {
            store.expire(ClusterTime(30), 5).into_iter().map(|outcome| outcome.event).collect::<Vec<_>>()
        };
        prop_assert_eq!(expired(&mut store), expired(&mut again));
        prop_assert_eq!(store.digest(), again.digest());
        prop_assert_eq!(store.nodes().collect::<Vec<_>>(), again.nodes().collect::<Vec<_>>());
        prop_assert_eq!(store.history().bytes(), again.history().bytes());
        prop_assert_eq!(store.byte_count(), again.byte_count());
    }
}
