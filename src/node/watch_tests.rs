use super::*;
use crate::http::backend::Summary;
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
    View::of(store, Summary::of(store, 1, 1, Arc::default()))
}

/// Without a core to ask: a state is always there.
fn published(store: &Store) -> Arc<Published> {
    Published::new(view_of(store), tokio::sync::mpsc::channel(1).0)
}

fn publish(published: &Published, store: &Store) {
    published.put(Arc::new(view_of(store)));
}

/// What a watcher has seen moves on with what others do, but never past what it has not been given yet.
#[tokio::test]
async fn what_was_seen() {
    let mut store = Store::new(HistoryLimits { events: 100, bytes: 1 << 20 });
    let view = published(&store);
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

/// Nobody is woken for what concerns nobody, unless something before it is still on its way.
#[tokio::test]
async fn what_concerns_nobody_counts_as_told() {
    let mut store = Store::new(HistoryLimits { events: 100, bytes: 1 << 20 });
    let view = published(&store);
    let watches = Watches::new(Arc::clone(&view));
    let mut happens = |key| {
        let outcome = set(&mut store, key);
        publish(&view, &store);
        (watches.concerns_anyone(std::slice::from_ref(&outcome)), outcome)
    };
    assert!(!happens("/c").0, "nobody is there");
    let request = WatchRequest { key: Key::parse(b"/a"), recursive: true, stream: true, since: 0 };
    let mut watch = watches.watch(request, CLOCK).unwrap();
    assert!(waits(&mut watch));
    assert!(!happens("/b").0 && !happens("/b").0);
    assert_eq!(watch.seen(), 3);
    let (concerns, event) = happens("/a/b");
    let (follows, next) = happens("/b");
    assert!(concerns && follows);
    assert_eq!(watch.seen(), 3, "the event is not delivered yet");
    watches.deliver(&[event, next], CLOCK);
    assert!(matches!(watch.next().await, Some(WatchItem::Event(_))));
    assert!(!happens("/b").0);
    assert_eq!(watch.seen(), 6);
    let busy = watches.live();
    assert!(happens("/b").0, "who tells others must not hold up the driver");
    drop(busy);
}

#[tokio::test]
async fn a_live_watcher_is_told_of_a_gap_that_a_snapshot_left() {
    let mut store = Store::new(HistoryLimits { events: 3, bytes: 1 << 20 });
    let view = published(&store);
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
