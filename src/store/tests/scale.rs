//! Shapes that break trees which recurse: very deep, very wide.

use super::*;

/// Runs on a stack so small that anything which recurses per level or per node overflows it.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(test).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_store_can_be_shared_among_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Store>();
    shared::<WatcherHub>();
    shared::<Outcome>();
}

#[test]
fn eight_thousand_levels() {
    on_a_small_stack(|| {
        let deep = "/a".repeat(8000);
        let mut store = store();
        let mut hub = WatcherHub::new();
        hub.insert(key(&deep), false);
        hub.insert(Key::root(), true);
        ok(&mut store, &set(&deep, "v"));
        ok(&mut store, &set_ttl(&format!("{deep}b"), 5));
        assert_eq!((store.node_count(), store.descendants(&Key::root()).count()), (8001, 8001));
        assert_eq!(store.children(&Key::root()).count(), 1);
        let missing = format!("{}/b", "/a".repeat(4000));
        let error = store.get(&key(&format!("{missing}{}", "/a".repeat(4000)))).unwrap_err();
        assert_eq!(error.cause, missing.as_bytes());
        let outcome = ok(&mut store, &remove("/a"));
        assert_eq!((store.node_count(), store.ttl_count(), store.byte_count()), (0, 0, 0));
        let mut told = 0;
        hub.matching(&outcome, |_| told += 1);
        assert_eq!(told, 2);
    });
}

#[test]
fn a_directory_of_two_hundred_thousand() {
    on_a_small_stack(|| {
        let node = |path: String, value: Option<Bytes>, deadline| Node {
            key: key(&path),
            dir: value.is_none(),
            value,
            deadline,
            created: 1,
            modified: 1,
        };
        let below = (0..100).flat_map(|part| {
            let file = move |number: u64| {
                let deadline = number.is_multiple_of(10).then_some(ClusterTime(number % 7));
                node(format!("/wide/{part:02}/{number:04}"), Some(Bytes::from_static(b"v")), deadline)
            };
            [node(format!("/wide/{part:02}"), None, None)].into_iter().chain((0..2000).map(file))
        });
        let nodes = [node("/wide".to_owned(), None, None)].into_iter().chain(below);
        let mut store = Store::from_parts(LIMITS, 1, 0, nodes, []).expect("they keep the invariants");
        ok(&mut store, &set("/wide!", "stays"));
        assert_eq!(store.children(&key("/wide")).count(), 100);
        // Part of it, then what is most of the store.
        ok(&mut store, &remove("/wide/07"));
        assert_eq!((store.node_count(), store.ttl_count()), (198_101, 19_800));
        let outcome = ok(&mut store, &remove("/wide"));
        assert_eq!((store.node_count(), store.ttl_count(), store.byte_count()), (1, 0, 11));
        let before = outcome.removed_from.expect("it was not empty");
        assert_eq!((before.node_count(), before.ttl_count()), (198_101, 19_800));
        check_invariants(&store);
    });
}
