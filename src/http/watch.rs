//! Waiting for changes: `wait=true`, once or as a stream.
//!
//! Status and headers go out at once; each event is one line of JSON, made once for all who wait for it. A body ends
//! - after its event, if it was asked for one;
//! - when the member shuts down: a stream ends, a wait for one event is cut off, so that no client takes the empty
//!   answer for one;
//! - when the watcher did not keep up, or the member had to skip events by installing a snapshot: a stream gets a last
//!   line with error 401, or 400, whose `index` is that of the last event it was sent; a wait for one event is cut off.
//!   The client goes on from `index + 1`, or reads anew if that is too old.
//!
//! The client going away drops the body, and with it the watcher.

use super::backend::{Notice, Watch, WatchItem};
use super::body::CutOff;
use super::render;
use super::stats::WatcherCount;
use crate::store::{ErrorCode, StoreError};
use bytes::Bytes;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

/// A watch together with what it said.
type Told<W> = (W, Option<WatchItem>);

/// The body of an answer to `wait=true`.
pub(crate) struct WatchBody<W> {
    /// The next item; `None` at the end.
    next: Option<Pin<Box<dyn Future<Output = Told<W>> + Send>>>,
    stream: bool,
    /// Index of the last event that was sent; at first, where the watch began.
    delivered: u64,
    /// Set when the server shuts down; the connection is woken then.
    closing: Arc<AtomicBool>,
    _count: WatcherCount,
}

impl<W: Watch> WatchBody<W> {
    /// The body for an armed watch.
    pub(crate) fn new(watch: W, stream: bool, closing: Arc<AtomicBool>, count: WatcherCount) -> Self {
        let delivered = watch.registered_index();
        Self { next: Some(next(watch)), stream, delivered, closing, _count: count }
    }

    /// The next line.
    pub(crate) fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutOff>>> {
        let Some(pending) = &mut self.next else { return Poll::Ready(None) };
        let item = match pending.as_mut().poll(context) {
            Poll::Pending if self.closing.load(Ordering::Relaxed) => None,
            told => {
                let (watch, item) = ready!(told);
                self.next = (self.stream && matches!(item, Some(WatchItem::Event(_)))).then(|| next(watch));
                item
            }
        };
        Poll::Ready(match item {
            Some(WatchItem::Event(notice)) => {
                self.delivered = notice.event.index;
                Some(Ok(line(&notice)))
            }
            ended => {
                self.next = None;
                if self.stream { ended.map(|item| Ok(self.last_line(&item))) } else { Some(Err(CutOff)) }
            }
        })
    }

    /// Says why a stream ends.
    fn last_line(&self, item: &WatchItem) -> Bytes {
        let (code, cause, index) = match *item {
            WatchItem::Lagged { delivered } => {
                let cause =
                    format!("the watcher did not keep up; the last event delivered has index {delivered}");
                (ErrorCode::EventIndexCleared, cause, delivered)
            }
            WatchItem::Cleared | WatchItem::Event(_) => {
                let delivered = self.delivered;
                let cause = format!(
                    "events were skipped by a snapshot; nothing after index {delivered} was delivered"
                );
                (ErrorCode::WatcherCleared, cause, delivered)
            }
        };
        render::error(&StoreError::new(code, cause, index))
    }
}

impl<W> fmt::Debug for WatchBody<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchBody")
            .field("stream", &self.stream)
            .field("delivered", &self.delivered)
            .finish_non_exhaustive()
    }
}

fn next<W: Watch>(mut watch: W) -> Pin<Box<dyn Future<Output = Told<W>> + Send>> {
    Box::pin(async move {
        let item = watch.next().await;
        (watch, item)
    })
}

/// The line of an event, shared among all its watchers.
fn line(notice: &Notice) -> Bytes {
    notice.rendered.get_or_init(|| render::event(&notice.event, &notice.clock, false)).clone()
}
