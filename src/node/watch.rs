//! Delivers events to watchers: every event from the asked index on, in order, once.
//!
//! A watcher is either *live*, with a short queue that the hub fills, or it *reads the history* of the published state
//! at its own pace. It begins with the history, becomes live when it has caught up, and goes back to the history when
//! its queue overflows. So a slow watcher costs a few slots and loses nothing, as long as the history reaches back to
//! where it is; if not, it is told the last index that it got.
//!
//! Why there is no gap between the two: a state is published before its events are delivered, delivering takes the
//! hub's lock, and a watcher is registered under that lock only if the state published by then holds nothing new for
//! it. What is published later is delivered later, and finds it registered.
//!
//! Nor does it need telling when nobody is live, or nobody whom it concerns: whoever registers counts itself first, under
//! the lock, and then looks at the published state, while the driver publishes first and then looks at the count, and
//! under the lock at who is there, so one of the two sees the other.

use super::published::Published;
use super::watch_queue::{self, Queue, Sender};
use crate::http::backend::{BackendError, ClockReading, Notice, View, Watch, WatchItem, WatchRequest};
use crate::store::{ErrorCode, Event, Key, Outcome, StoreError, WatcherHub, WatcherId};
use crossbeam_channel::Receiver;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How much history is searched before other tasks get their turn.
const SCAN_EVENTS: u64 = 2_000;

/// How long a watcher that wants history waits while the member has too much to do.
const WHEN_OVERLOADED: Duration = Duration::from_millis(10);

/// What was applied, for the thread that tells watchers.
pub(super) struct News {
    pub outcomes: Vec<Outcome>,
    pub clock: ClockReading,
    /// More has happened before these than is known here: watchers must look for themselves what they have missed.
    pub gap: bool,
    /// Nothing will come after these.
    pub end: bool,
}

struct Slot {
    queue: Sender,
    /// The first index that it has not seen.
    from: u64,
}

#[derive(Default)]
struct Live {
    hub: WatcherHub,
    slots: HashMap<WatcherId, Slot>,
    /// Everything up to this index was delivered to those whom it concerns.
    told: u64,
    closed: bool,
}

/// The watchers of one member.
pub(super) struct Watches {
    published: Arc<Published>,
    live: Mutex<Live>,
    /// How many are live, or about to be.
    count: AtomicUsize,
}

impl Watches {
    pub(super) fn new(published: Arc<Published>) -> Arc<Self> {
        Arc::new(Self { published, live: Mutex::default(), count: AtomicUsize::new(0) })
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A panic elsewhere leaves nothing half-done in here that matters: deliveries are retried from the history.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells watchers what was applied, until the driver is gone; then their watches end. The work of a thread.
    pub(super) fn run(&self, news: &Receiver<News>) {
        while let Ok(News { outcomes, clock, gap, end }) = news.recv() {
            if gap {
                self.interrupt();
            }
            self.deliver(&outcomes, clock);
            if end {
                break;
            }
        }
        self.close();
    }

    /// Whether there may be anybody to tell of what was published before this call.
    pub(super) fn anyone_live(&self) -> bool {
        fence(Ordering::SeqCst);
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Whether these events, which were published before this call, are to be delivered. If they concern nobody they count
    /// as told at once: writes that nobody watches wake no thread, however many watch others.
    pub(super) fn concerns_anyone(&self, outcomes: &[Outcome]) -> bool {
        let (Some(first), Some(last)) = (outcomes.first(), outcomes.last()) else { return false };
        if !self.anyone_live() {
            return false;
        }
        // Whoever tells very many holds the lock for long.
        let Ok(mut live) = self.live.try_lock() else { return true };
        // While those before are on their way, so are these: what is told has no gap.
        if first.event.index > live.told + 1 {
            return true;
        }
        let mut concerned = false;
        for outcome in outcomes {
            // A removal may take a walk over all watchers.
            concerned |= outcome.event.action.removes();
            if !concerned {
                live.hub.matching(outcome, |_| concerned = true);
            }
        }
        if !concerned {
            live.told = live.told.max(last.event.index);
        }
        concerned
    }

    /// To be called under the lock, with what is or is about to be.
    fn set_count(&self, count: usize) {
        self.count.store(count, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Tells live watchers what was applied. The state that holds it must be published already.
    pub(super) fn deliver(&self, outcomes: &[Outcome], clock: ClockReading) {
        let live = &mut *self.live();
        if let Some(last) = outcomes.last() {
            live.told = live.told.max(last.event.index);
        }
        if live.slots.is_empty() {
            return;
        }
        let mut done = Vec::new();
        for outcome in outcomes {
            let mut notice = None;
            let slots = &live.slots;
            live.hub.matching(outcome, |id| {
                let Some(slot) = slots.get(&id).filter(|slot| slot.from <= outcome.event.index) else {
                    return;
                };
                let notice = notice.get_or_insert_with(|| make_notice(&outcome.event, clock));
                if !slot.queue.send_on(notice) {
                    done.push(id);
                }
            });
            for id in done.drain(..) {
                live.hub.remove(id);
                if let (Some(slot), Some(notice)) = (live.slots.remove(&id), &notice) {
                    slot.queue.send_last(notice);
                }
            }
        }
        self.set_count(live.slots.len());
    }

    /// What happened last cannot be told event by event (a snapshot was installed that does not reach back): every
    /// watcher goes back to the history, which tells it what it may still have, or that there is a gap.
    pub(super) fn interrupt(&self) {
        let live = &mut *self.live();
        // One by one: a new hub would give their ids to others, whom they would take off when they are dropped.
        for (id, _) in live.slots.drain() {
            live.hub.remove(id);
        }
        self.set_count(0);
    }

    /// Ends every watch: the member is shutting down.
    pub(super) fn close(&self) {
        let live = &mut *self.live();
        live.closed = true;
        live.hub = WatcherHub::new();
        live.slots.clear();
        self.set_count(0);
    }

    /// Begins a watch; 401 if the history does not reach back to where it is to begin.
    pub(super) fn watch(
        self: &Arc<Self>,
        request: WatchRequest,
        clock: ClockReading,
    ) -> Result<NodeWatch, StoreError> {
        let summary = self.published.summary();
        let (index, oldest) = (summary.index, summary.oldest);
        if request.since != 0 && request.since < oldest {
            let cause = format!("the requested history has been cleared [{oldest}/{}]", request.since);
            return Err(StoreError::new(ErrorCode::EventIndexCleared, cause, index));
        }
        let next = if request.since == 0 { index + 1 } else { request.since };
        Ok(NodeWatch {
            watches: Arc::clone(self),
            key: request.key,
            recursive: request.recursive,
            stream: request.stream,
            registered_index: index,
            next,
            clock,
            mode: Mode::History,
        })
    }

    /// Registers a watcher that has seen everything below `next`, unless there is more for it to read already.
    fn register(&self, key: &Key, recursive: bool, once: bool, next: u64) -> Registration {
        let live = &mut *self.live();
        if live.closed {
            return Registration::Closed;
        }
        self.set_count(live.slots.len() + 1);
        let published = self.published.index();
        if published >= next {
            self.set_count(live.slots.len());
            return Registration::MoreToRead;
        }
        if live.slots.is_empty() {
            live.told = live.told.max(published); // it concerned nobody
        }
        let (sender, queue) = watch_queue::channel(once);
        let id = live.hub.insert(key.clone(), recursive);
        live.slots.insert(id, Slot { queue: sender, from: next });
        Registration::Live(id, queue)
    }

    fn unregister(&self, id: WatcherId) {
        let live = &mut *self.live();
        live.hub.remove(id);
        live.slots.remove(&id);
        self.set_count(live.slots.len());
    }
}

fn make_notice(event: &Arc<Event>, clock: ClockReading) -> Arc<Notice> {
    Arc::new(Notice { event: Arc::clone(event), clock, rendered: OnceLock::new() })
}

enum Registration {
    Live(WatcherId, Queue),
    MoreToRead,
    Closed,
}

enum Mode {
    History,
    Live(WatcherId, Queue),
    Over,
}

/// One watch. Dropping it removes the watcher.
pub struct NodeWatch {
    watches: Arc<Watches>,
    key: Key,
    recursive: bool,
    stream: bool,
    registered_index: u64,
    /// The first index that was not looked at yet.
    next: u64,
    clock: ClockReading,
    mode: Mode,
}

enum Scanned {
    Found(Arc<Notice>),
    Nothing,
    CaughtUp,
    Cleared,
    Closed,
}

impl NodeWatch {
    /// Looks through a piece of the history.
    fn scan(&mut self, view: &View) -> Scanned {
        let history = view.store.history();
        let last = view.store.index();
        if self.next > last {
            return Scanned::CaughtUp;
        }
        if self.next < history.first_index() {
            return Scanned::Cleared;
        }
        let until = last.min(self.next.saturating_add(SCAN_EVENTS));
        for event in history.iter_from(self.next).take_while(|event| event.index <= until) {
            self.next = event.index + 1;
            if self.wants(event) {
                return Scanned::Found(make_notice(event, self.clock));
            }
        }
        self.next = until.saturating_add(1);
        Scanned::Nothing
    }

    /// Looks whether there is more, and if so, through a piece of it.
    async fn look(&mut self) -> Scanned {
        if self.next > self.watches.published.index() {
            return Scanned::CaughtUp;
        }
        match self.watches.published.view().await {
            Ok(view) => self.scan(&view),
            Err(BackendError::Overloaded) => {
                tokio::time::sleep(WHEN_OVERLOADED).await;
                Scanned::Nothing
            }
            Err(_) => Scanned::Closed,
        }
    }

    fn register(&self) -> Registration {
        self.watches.register(&self.key, self.recursive, !self.stream, self.next)
    }

    /// etcd's rule: events from before the watch are told even if they are hidden from it, later ones are not.
    fn wants(&self, event: &Event) -> bool {
        let past = event.index <= self.registered_index;
        event.matches(&self.key, self.recursive) && (past || !event.node.key.hidden_below(&self.key))
    }

    fn found(&mut self, notice: Arc<Notice>) -> WatchItem {
        self.next = notice.event.index + 1;
        if !self.stream {
            self.finish();
        }
        WatchItem::Event(notice)
    }

    fn finish(&mut self) {
        if let Mode::Live(id, _) = std::mem::replace(&mut self.mode, Mode::Over) {
            self.watches.unregister(id);
        }
    }
}

impl Watch for NodeWatch {
    fn registered_index(&self) -> u64 {
        self.registered_index
    }

    fn seen(&self) -> u64 {
        let looked_at = self.next.saturating_sub(1);
        let live = self.watches.live();
        // Whoever is registered and has nothing waiting has been told of everything that concerns it.
        let is_told = match &self.mode {
            Mode::Live(id, queue) => queue.is_empty() && live.slots.contains_key(id),
            Mode::History | Mode::Over => false,
        };
        let seen = if is_told { looked_at.max(live.told) } else { looked_at };
        seen.min(self.watches.published.index())
    }

    async fn next(&mut self) -> Option<WatchItem> {
        loop {
            match &mut self.mode {
                Mode::Over => return None,
                Mode::Live(_, queue) => match queue.recv().await {
                    Some(notice) => {
                        if !self.stream {
                            self.mode = Mode::Over; // it was taken off as it was told
                        }
                        return Some(self.found(notice));
                    }
                    // It fell behind, or the hub was closed: the history knows.
                    None => self.mode = Mode::History,
                },
                Mode::History => match self.look().await {
                    Scanned::Found(notice) => return Some(self.found(notice)),
                    Scanned::Closed => self.finish(),
                    Scanned::Nothing => tokio::task::yield_now().await,
                    Scanned::Cleared => {
                        self.finish();
                        return Some(WatchItem::Lagged { delivered: self.next - 1 });
                    }
                    Scanned::CaughtUp => match self.register() {
                        Registration::Live(id, queue) => self.mode = Mode::Live(id, queue),
                        Registration::MoreToRead => {}
                        Registration::Closed => self.finish(),
                    },
                },
            }
        }
    }
}

impl Drop for NodeWatch {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
