//! Reading a directory page by page: all pages show the state that the first one was taken from.
//!
//! A state costs nothing to keep but what has been overwritten since (`store`), so [`Pages`] keeps those that pages are
//! being read of, by index: two members' states at one index are the same, and so are two clients'. It keeps at most
//! [`KEPT_MAX`], each for [`KEPT_FOR`] after it was last asked for, and none that is older than the history: what is kept for
//! paging is bounded by what is kept for watchers.

use super::App;
use super::answer::{self, Answer};
use super::backend::{Backend, BackendError, ClockReading, View};
use super::body::Kind;
use super::extensions::PageRequest;
use super::listing::Listing;
use super::params::ReadRequest;
use super::render::Moment;
use crate::store::{ErrorCode, Key, Node, StoreError};
use hyper::StatusCode;
use hyper::header::{HeaderValue, LINK};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many states are kept.
const KEPT_MAX: usize = 16;
/// How long after its last use.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How often is looked whether one is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How much history is searched before other tasks get their turn.
const SCAN_EVENTS: u64 = 2_000;

/// The states that pages are being read of.
#[derive(Debug, Default)]
pub(crate) struct Pages(Mutex<BTreeMap<Name, Kept>>);

/// What a state is kept under: its index, and the only directory in which it is that of the index, if it is a later one.
type Name = (u64, Option<Key>);

#[derive(Debug)]
struct Kept {
    state: PageState,
    used: Instant,
}

/// A state, and the time that its `ttl`s count from.
#[derive(Clone, Debug)]
pub(crate) struct PageState {
    view: Arc<View>,
    clock: ClockReading,
    /// X-Etcd-Index of its pages. The state of a later index stands in for it if they do not differ in the directory.
    index: u64,
    /// The directory, if this is such a later one.
    only_in: Option<Key>,
}

impl Pages {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Name, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, index: u64, dir: &Key) -> Option<PageState> {
        let mut kept = self.kept();
        let everywhere = (index, None);
        let name = if kept.contains_key(&everywhere) { everywhere } else { (index, Some(dir.clone())) };
        let found = kept.get_mut(&name)?;
        found.used = Instant::now();
        Some(found.state.clone())
    }

    /// Keeps a state; `true` if there was none before, so that somebody must see to its end.
    fn keep(&self, state: PageState) -> bool {
        let mut kept = self.kept();
        let first = kept.is_empty();
        let name = (state.index, state.only_in.clone());
        kept.entry(name).or_insert(Kept { state, used: Instant::now() });
        if kept.len() > KEPT_MAX {
            let unused = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(name, _)| name.clone());
            unused.and_then(|name| kept.remove(&name));
        }
        first
    }

    /// Drops what is due; whether something is left.
    fn prune(&self, oldest_event: u64, now: Instant) -> bool {
        let mut kept = self.kept();
        kept.retain(|(index, _), kept| index + 1 >= oldest_event && now.duration_since(kept.used) < KEPT_FOR);
        !kept.is_empty()
    }
}

/// Answers a read of a page: the node as it is in the state, and the state; or why not.
pub(crate) async fn state<B: Backend>(
    app: &App<B>,
    request: &ReadRequest,
    page: &PageRequest,
) -> Result<PageState, BackendError> {
    if let Some(kept) = page.at.and_then(|index| app.pages.find(index, &request.key)) {
        return Ok(kept);
    }
    let view = app.backend.read(request.consistency).await?;
    let present = PageState { clock: app.backend.clock(), index: view.store.index(), view, only_in: None };
    match page.at {
        Some(index) if !is_unchanged(&present.view, &request.key, index).await => {
            let now = present.index;
            let cause =
                format!("the state at index {index} is not kept any more, and the directory has changed");
            Err(StoreError::new(ErrorCode::EventIndexCleared, cause, now).into())
        }
        Some(index) if index != present.index => {
            Ok(PageState { index, only_in: Some(request.key.clone()), ..present })
        }
        Some(_) | None => Ok(present),
    }
}

/// Whether nothing has happened in a directory since an index, as far as the history tells.
async fn is_unchanged(view: &View, dir: &Key, since: u64) -> bool {
    let (first, last) = (view.store.history().first_index(), view.store.index());
    if since > last || since.saturating_add(1) < first {
        return false;
    }
    let mut from = since + 1;
    while from <= last {
        let until = last.min(from + SCAN_EVENTS);
        let mut events = view.store.history().iter_from(from).take_while(|event| event.index <= until);
        if events.any(|event| dir.contains(&event.node.key) || event.node.key.contains(dir)) {
            return false;
        }
        from = until + 1;
        tokio::task::yield_now().await;
    }
    true
}

impl PageState {
    /// The state itself.
    pub(crate) fn into_view(self) -> Arc<View> {
        self.view
    }

    /// The key in this state.
    pub(crate) fn get(&self, key: &Key) -> Result<Node, StoreError> {
        self.view.store.get(key)
    }

    /// Shows a page of a directory of this state; keeps the state if there are more.
    pub(crate) async fn show<B: Backend>(
        self,
        app: &App<B>,
        node: &Node,
        request: &ReadRequest,
        page: &PageRequest,
        target: (&str, &str),
    ) -> Answer<B::Watch> {
        let moment = Moment::of(self.clock);
        let listing =
            Listing::new(Arc::clone(&self.view), node, request.recursive, request.keys_only, moment);
        let mut listing = listing.page(&page.start, page.limit);
        listing.fill();
        while !listing.is_written() {
            tokio::task::yield_now().await;
            listing.fill();
        }
        let body = Kind::Full(listing.next_chunk().unwrap_or_default());
        let mut answer =
            answer::keys(StatusCode::OK, answer::Position::of(&self.view.summary, self.index), body);
        if let Some(link) = listing.more().and_then(|more| link(target, more, self.index)) {
            answer.headers_mut().insert(LINK, link);
            if app.pages.keep(self) {
                forget_in_time(app);
            }
        }
        answer
    }
}

/// Sees to it that what is kept goes when nobody asks for it any more.
fn forget_in_time<B: Backend>(app: &App<B>) {
    let (pages, backend) = (Arc::downgrade(&app.pages), app.backend.clone());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let oldest = backend.summary().oldest;
            if !pages.upgrade().is_some_and(|pages| pages.prune(oldest, Instant::now())) {
                return;
            }
        }
    });
}

/// Where the next page is: the same request with another `start`, at the same index.
fn link((path, query): (&str, &str), start: &Key, index: u64) -> Option<HeaderValue> {
    let mut link = format!("<{path}?start=");
    for &byte in start.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            link.push(char::from(byte));
        } else {
            _ = write!(link, "%{byte:02X}");
        }
    }
    _ = write!(link, "&atIndex={index}");
    let is_own = |pair: &&str| pair.starts_with("start=") || pair.starts_with("atIndex=");
    for pair in query.split('&').filter(|pair| !pair.is_empty() && !is_own(pair)) {
        link.push('&');
        link.push_str(pair);
    }
    link.push_str(">; rel=\"next\"");
    HeaderValue::from_str(&link).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::backend::Summary;
    use crate::store::{ClusterTime, Command, HistoryLimits, Store};
    use std::time::SystemTime;

    fn set(store: &mut Store, key: &str) {
        let key = Key::parse(key.as_bytes());
        let command = Command::Set { key, value: "v".into(), dir: false, ttl: None, refresh: false };
        store.apply(ClusterTime(0), &command).unwrap();
    }

    fn view(store: &Store) -> Arc<View> {
        Arc::new(View::of(store, Summary::of(store, 0, 0, Arc::default())))
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut store = Store::new(HistoryLimits { events: 1000, bytes: 1 << 20 });
        let clock = ClockReading { cluster: ClusterTime(0), wall: SystemTime::UNIX_EPOCH };
        let (pages, dir) = (Pages::default(), Key::parse(b"/d"));
        for index in 1..=2 * KEPT_MAX as u64 {
            set(&mut store, "/d/a");
            let state = PageState { view: view(&store), clock, index, only_in: None };
            assert_eq!(pages.keep(state), index == 1);
            assert!(pages.find(1, &dir).is_some(), "what is used stays");
        }
        assert_eq!(pages.kept().len(), KEPT_MAX);
        let last = 2 * KEPT_MAX as u64;
        assert!(pages.find(last, &dir).is_some() && pages.find(2, &dir).is_none());
        let now = Instant::now();
        assert!(pages.prune(1, now));
        assert!(pages.prune(last, now));
        assert_eq!(
            pages.kept().keys().map(|(index, _)| *index).collect::<Vec<_>>(),
            [last - 1, last],
            "as far as the history reaches"
        );
        assert!(!pages.prune(1, now + KEPT_FOR));
    }

    #[tokio::test]
    async fn a_later_state_stands_in_only_if_it_is_the_same() {
        let mut store = Store::new(HistoryLimits { events: 6, bytes: 1 << 20 });
        set(&mut store, "/d/a");
        for _ in 0..3 {
            set(&mut store, "/e/a");
        }
        let dir = Key::parse(b"/d");
        for (since, expected) in [(4, true), (1, true), (0, false), (5, false)] {
            assert_eq!(is_unchanged(&view(&store), &dir, since).await, expected, "{since}");
        }
        assert!(!is_unchanged(&view(&store), &Key::root(), 3).await);
        for _ in 0..9 {
            set(&mut store, "/e/a");
        }
        assert!(!is_unchanged(&view(&store), &dir, 4).await, "the history does not tell");
    }

    #[test]
    fn links() {
        let key = Key::parse(b"/d/a b&\xff");
        let link = link(("/v2/keys/d", "recursive=true&start=/x&limit=5&&atIndex=3"), &key, 7).unwrap();
        let expected = "</v2/keys/d?start=/d/a%20b%26%FF&atIndex=7&recursive=true&limit=5>; rel=\"next\"";
        assert_eq!(link.to_str().unwrap(), expected);
    }
}
