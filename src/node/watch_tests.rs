use super::*;
use crate::store::{ClusterTime, Command, HistoryLimits, Store};
use std::future::Future as _;
use std::time::SystemTime;

const CLOCK: ClockReading = ClockReading { cluster: ClusterTime(0), wall: SystemTime::UNIX_EPOCH };

fn set(store: &mut Store, key: &str) -> Outcome {
    let key = Key::parse(key.as_bytes());
    let command = Command::Set { key, value: "v".into(), dir: false, ttl: None, refresh: false };
    store.apply(ClusterTime(0), &command).unwrap()
}

fn waits(watch: &mut NodeWatch) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::pin!(watch.next()).poll(&mut context).is_pending()
}

fn view_of(store: &Store) -> View {
    View { store: store.clone(), raft_index: 1, raft_term: 1, members: Arc::default() }
}

fn publish(view: &ArcSwap<View>, store: &Store) {
    view.store(Arc::new(view_of(store)));
}

/// What a watcher has seen moves on with what others do, but never past what it has not been given yet.
#[tokio::test]
async fn what_was_seen() {
    let mut store = Store::new(HistoryLimits { events: 100, bytes: 1 << 20 });
    let view = Arc::new(ArcSwap::from_pointee(view_of(&store)));
    let watches = Watches::new(Arc::clone(&view));
    let request = |since| WatchRequest { key: Key::parse(b"/a"), recursive: false, stream: true, since };
    let mut watch = watches.watch(request(0), CLOCK).unwrap();
    let mut future = watches.watch(request(50), CLOCK).unwrap();
    assert!(waits(&mut watch) && waits(&mut future));
    let mut happens = |key, delivered| {
        let outcome = set(&mut store, key);
        publish(&view, &store);
        if delivered {
            watches.deliver(std::slice::from_ref(&outcome), CLOCK);
        }
    };
    happens("/b", true);
    assert_eq!((watch.seen(), future.seen()), (1, 1));
    happens("/b", false);
    assert_eq!(
        (watch.seen(), future.seen()),
        (1, 2),
        "it may concern the one; the other waits for later ones"
    );
    happens("/a", true);
    assert_eq!(watch.seen(), 0, "something waits for it");
    assert!(matches!(watch.next().await, Some(WatchItem::Event(_))));
    happens("/b", true);
    assert_eq!(watch.seen(), 4);
    watches.interrupt();
    happens("/a", true);
    assert_eq!(watch.seen(), 3, "it is not registered, so it was not told");
    assert!(matches!(watch.next().await, Some(WatchItem::Event(_))));
}

#[tokio::test]
async fn a_live_watcher_is_told_of_a_gap_that_a_snapshot_left() {
    let mut store = Store::new(HistoryLimits { events: 3, bytes: 1 << 20 });
    let view = Arc::new(ArcSwap::from_pointee(view_of(&store)));
    let watches = Watches::new(Arc::clone(&view));
    let key = Key::parse(b"/");
    let request = WatchRequest { key, recursive: true, stream: true, since: 0 };
    let mut watch = watches.watch(request.clone(), CLOCK).unwrap();
    let mut later = watches.watch(request, CLOCK).unwrap();
    let first = set(&mut store, "/a");
    publish(&view, &store);
    // Both become live: the first event is read from the history, and then there is nothing more.
    for watch in [&mut watch, &mut later] {
        let Some(WatchItem::Event(notice)) = watch.next().await else { panic!("no event") };
        assert_eq!(notice.event.index, first.event.index);
        assert!(waits(watch));
    }
    for _ in 0..9 {
        set(&mut store, "/a");
    }
    publish(&view, &store);
    watches.interrupt();
    let Some(WatchItem::Lagged { delivered }) = watch.next().await else { panic!("a silent gap") };
    assert_eq!(delivered, first.event.index);
    assert!(watch.next().await.is_none());
    // One that asks again does not lose its place to one that is dropped.
    let key = Key::parse(b"/");
    let request = WatchRequest { key, recursive: true, stream: true, since: 0 };
    let mut anew = watches.watch(request, CLOCK).unwrap();
    assert!(waits(&mut anew));
    drop(later);
    let last = set(&mut store, "/a");
    publish(&view, &store);
    watches.deliver(std::slice::from_ref(&last), CLOCK);
    let Some(WatchItem::Event(notice)) = anew.next().await else { panic!("no event") };
    assert_eq!(notice.event.index, last.event.index);
}
