//! Waiting for changes: `wait=true`, once or as a stream.
//!
//! Status and headers go out at once (but for waits with a timeout, see `extensions`); each event is one line of JSON, made
//! once for all who wait for it, or an event of a `text/event-stream`. A body ends
//! - after its event, if it was asked for one;
//! - when its time is up, if it has one, with a line that says so;
//! - when the member shuts down: a stream ends, a wait for one event is cut off, so that no client takes the empty
//!   answer for one;
//! - when the watcher did not keep up, or the member had to skip events by installing a snapshot: a stream gets a last
//!   line with error 401, or 400, whose `index` is that of the last event it was sent; a wait for one event is cut off.
//!   The client goes on from `index + 1`, or reads anew if that is too old.
//!
//! The client going away drops the body, and with it the watcher.

use super::answer::ETCD_INDEX;
use super::backend::{Notice, Watch, WatchItem};
use super::body::CutOff;
use super::stats::WatcherCount;
use super::{event_stream, render};
use crate::store::{ErrorCode, StoreError};
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::Frame;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// A watch together with what it said.
type Told<W> = (W, Said);

enum Said {
    Item(Option<WatchItem>),
    /// Nothing up to this index, and that for long enough.
    Quiet(u64),
}

/// The shape of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One event as JSON.
    Once,
    /// A line of JSON for each event.
    Lines,
    /// Server-sent events.
    EventStream,
}

/// The body of an answer to `wait=true`.
pub(crate) struct WatchBody<W> {
    /// The next item; `None` at the end.
    next: Option<Pin<Box<dyn Future<Output = Told<W>> + Send>>>,
    form: Form,
    /// Index of the last event that was sent; at first, where the watch began.
    delivered: u64,
    /// Set when the server shuts down; the connection is woken then.
    closing: Arc<AtomicBool>,
    /// What few have asked for.
    extras: Option<Box<Extras>>,
    _count: WatcherCount,
}

/// What a body does besides, if it is asked to.
#[derive(Default)]
pub(crate) struct Extras {
    /// Goes out first.
    pub(crate) greeting: Option<Bytes>,
    /// The body ends then.
    pub(crate) deadline: Option<Instant>,
    /// So often it shows that it is alive.
    pub(crate) keep_alive: Option<Duration>,
    /// Tells the store's index for the trailer.
    pub(crate) trailer: Option<Box<dyn Fn() -> u64 + Send>>,
}

impl Extras {
    /// When the body has something to say although nothing happened.
    fn alarm(&self) -> Option<Instant> {
        let keep_alive = self.keep_alive.map(|every| Instant::now() + every);
        [self.deadline, keep_alive].into_iter().flatten().min()
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

impl<W: Watch> WatchBody<W> {
    /// The body for an armed watch.
    pub(crate) fn new(
        watch: W,
        form: Form,
        extras: Option<Box<Extras>>,
        closing: Arc<AtomicBool>,
        count: WatcherCount,
    ) -> Self {
        let delivered = watch.registered_index();
        let alarm = extras.as_ref().and_then(|extras| extras.alarm());
        Self { next: Some(next(watch, alarm)), form, delivered, closing, extras, _count: count }
    }

    /// Whether all that it says is said in pieces, without a trailer.
    pub(crate) fn is_plain(&self) -> bool {
        self.extras.as_ref().is_none_or(|extras| extras.trailer.is_none())
    }

    /// The next piece.
    pub(crate) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if let Some(greeting) = self.extras.as_mut().and_then(|extras| extras.greeting.take()) {
            return Poll::Ready(Some(Ok(Frame::data(greeting))));
        }
        let Some(pending) = &mut self.next else { return Poll::Ready(self.trailer().map(Ok)) };
        let said = match pending.as_mut().poll(context) {
            Poll::Pending if self.closing.load(Ordering::Relaxed) => {
                self.next = None;
                Said::Item(None)
            }
            told => {
                let (watch, said) = ready!(told);
                let goes_on = match &said {
                    Said::Item(Some(WatchItem::Event(_))) => self.form != Form::Once,
                    Said::Item(_) => false,
                    Said::Quiet(_) => !self.extras.as_ref().is_some_and(|extras| extras.is_over()),
                };
                let alarm = self.extras.as_ref().and_then(|extras| extras.alarm());
                self.next = goes_on.then(|| next(watch, alarm));
                said
            }
        };
        Poll::Ready(self.said(said).map(|piece| piece.map(Frame::data)))
    }

    /// What an item looks like on the wire.
    fn said(&mut self, said: Said) -> Option<Result<Bytes, CutOff>> {
        match said {
            Said::Item(Some(WatchItem::Event(notice))) => {
                self.delivered = notice.event.index;
                Some(Ok(self.event(&notice)))
            }
            Said::Item(ended) => {
                self.extras = None; // no trailer
                if self.form == Form::Once {
                    Some(Err(CutOff))
                } else {
                    ended.map(|item| Ok(self.last_line(&item)))
                }
            }
            Said::Quiet(seen) => Some(Ok(match (&self.next, self.form) {
                (Some(_), _) => event_stream::keep_alive(seen),
                (None, Form::EventStream) => event_stream::timeout(seen),
                (None, Form::Once | Form::Lines) => render::timeout(seen),
            })),
        }
    }

    fn event(&self, notice: &Notice) -> Bytes {
        let line = line(notice);
        if self.form == Form::EventStream { event_stream::event(notice.event.index, &line) } else { line }
    }

    /// The trailer, once, if there is to be one.
    fn trailer(&mut self) -> Option<Frame<Bytes>> {
        let index = self.extras.as_mut()?.trailer.take()?();
        Some(Frame::trailers(HeaderMap::from_iter([(ETCD_INDEX, index.into())])))
    }

    /// Says why a stream ends.
    fn last_line(&self, item: &WatchItem) -> Bytes {
        let error = why_ended(item, self.delivered);
        if self.form == Form::EventStream { event_stream::error(&error) } else { render::error(&error) }
    }
}

/// What a watcher that cannot be served any more is told.
pub(crate) fn why_ended(item: &WatchItem, delivered: u64) -> StoreError {
    match *item {
        WatchItem::Lagged { delivered } => {
            let cause =
                format!("the watcher did not keep up; the last event delivered has index {delivered}");
            StoreError::new(ErrorCode::EventIndexCleared, cause, delivered)
        }
        WatchItem::Cleared | WatchItem::Event(_) => {
            let cause =
                format!("events were skipped by a snapshot; nothing after index {delivered} was delivered");
            StoreError::new(ErrorCode::WatcherCleared, cause, delivered)
        }
    }
}

impl<W> fmt::Debug for WatchBody<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchBody")
            .field("form", &self.form)
            .field("delivered", &self.delivered)
            .finish_non_exhaustive()
    }
}

/// Waits for the next item, until the alarm if there is one.
fn next<W: Watch>(mut watch: W, alarm: Option<Instant>) -> Pin<Box<dyn Future<Output = Told<W>> + Send>> {
    let Some(alarm) = alarm else {
        return Box::pin(async move {
            let item = watch.next().await;
            (watch, Said::Item(item))
        });
    };
    Box::pin(async move {
        let said = match tokio::time::timeout_at(alarm, watch.next()).await {
            Ok(item) => Said::Item(item),
            Err(_) => Said::Quiet(watch.seen()),
        };
        (watch, said)
    })
}

/// What a wait with a timeout came to.
pub(crate) enum Outcome {
    /// An event.
    Event(Bytes),
    /// Nothing up to this index.
    Nothing(u64),
    /// It cannot be served any more.
    Ended(StoreError),
}

/// Waits for one event until the deadline. The member shutting down ends it too: the connection is woken then.
pub(crate) async fn within<W: Watch>(watch: W, deadline: Instant, closing: &AtomicBool) -> Outcome {
    let registered = watch.registered_index();
    let mut pending = next(watch, Some(deadline));
    let said = std::future::poll_fn(|context| match pending.as_mut().poll(context) {
        Poll::Pending if closing.load(Ordering::Relaxed) => Poll::Ready(Said::Item(None)),
        told => told.map(|(_, said)| said),
    });
    match said.await {
        Said::Item(Some(WatchItem::Event(notice))) => Outcome::Event(line(&notice)),
        Said::Item(Some(item)) => Outcome::Ended(why_ended(&item, registered)),
        Said::Item(None) => {
            Outcome::Ended(StoreError::new(ErrorCode::RaftInternal, "etcdserver: server stopped", 0))
        }
        Said::Quiet(seen) => Outcome::Nothing(seen),
    }
}

/// The line of an event, shared among all its watchers.
fn line(notice: &Notice) -> Bytes {
    notice.rendered.get_or_init(|| render::event(&notice.event, &notice.clock, false)).clone()
}
