//! Where events wait for a live watcher.
//!
//! A stream has a short queue. Who wants one event has room for that, in far less memory, as there may be very many of
//! them; and it is taken off by whoever tells it, so that many thousands who are told at once need not come back for that,
//! one by one, while the rest is being told.

use crate::http::backend::Notice;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Events that may wait for a stream before it has to read them from the history.
const QUEUE_EVENTS: usize = 32;

pub(super) enum Sender {
    Once(oneshot::Sender<Arc<Notice>>),
    Stream(mpsc::Sender<Arc<Notice>>),
}

pub(super) enum Queue {
    Once(oneshot::Receiver<Arc<Notice>>),
    Stream(mpsc::Receiver<Arc<Notice>>),
}

/// A queue for one event, or for a stream of them.
pub(super) fn channel(once: bool) -> (Sender, Queue) {
    if once {
        let (sender, queue) = oneshot::channel();
        (Sender::Once(sender), Queue::Once(queue))
    } else {
        let (sender, queue) = mpsc::channel(QUEUE_EVENTS);
        (Sender::Stream(sender), Queue::Stream(queue))
    }
}

impl Sender {
    /// Tells a stream. `false`: it is full, or is to be told with [`Sender::send_last`].
    pub(super) fn send_on(&self, notice: &Arc<Notice>) -> bool {
        match self {
            Self::Once(_) => false,
            Self::Stream(queue) => queue.try_send(Arc::clone(notice)).is_ok(),
        }
    }

    /// Tells who wants one event. A stream is told nothing, and sees what is in its queue and then its end.
    pub(super) fn send_last(self, notice: &Arc<Notice>) {
        if let Self::Once(queue) = self {
            let _ = queue.send(Arc::clone(notice)); // or it has gone away
        }
    }
}

impl Queue {
    /// The next event; `None` if there will be none.
    pub(super) async fn recv(&mut self) -> Option<Arc<Notice>> {
        match self {
            Self::Once(queue) => queue.await.ok(),
            Self::Stream(queue) => queue.recv().await,
        }
    }

    /// Nothing waits in it, as long as its watcher is registered.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Once(_) => true,
            Self::Stream(queue) => queue.is_empty(),
        }
    }
}
