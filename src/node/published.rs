//! The state as those see it who do not ask the core: a summary at any time, the state itself while somebody looks.
//!
//! A state that is published shares its pages with the one that the core goes on with, so each page that the core writes
//! to next must be copied first, which is most of what a write costs the store. So the core takes a state back while
//! it applies what is next, if nobody has looked at it; who looks just then asks the core, which answers when it has
//! applied that.
//!
//! What is published is never older than the summary beside it, and the summary never older than an answer that the
//! core gave before.

use super::driver::DriverInput;
use crate::http::backend::{BackendError, Summary, View};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

/// The reader's side.
pub(super) struct Published {
    summary: ArcSwap<Summary>,
    view: ArcSwapOption<View>,
    /// Somebody has looked since the core asked last.
    looked: AtomicBool,
    driver: mpsc::Sender<DriverInput>,
}

impl Published {
    /// At first, the state that a member starts with.
    pub(super) fn new(view: View, driver: mpsc::Sender<DriverInput>) -> Arc<Self> {
        Arc::new(Self {
            summary: ArcSwap::new(Arc::clone(&view.summary)),
            view: ArcSwapOption::from_pointee(view),
            looked: AtomicBool::new(false),
            driver,
        })
    }

    /// What is known of the state.
    pub(super) fn summary(&self) -> Arc<Summary> {
        self.summary.load_full()
    }

    /// The index of its last change.
    pub(super) fn index(&self) -> u64 {
        self.summary.load().index
    }

    /// The state: at once, but for those who are the first to look and come while the next is made.
    ///
    /// # Errors
    /// The member stops, or has too much to do.
    pub(super) async fn view(&self) -> Result<Arc<View>, BackendError> {
        match self.at_once() {
            Some(view) => Ok(view),
            None => self.ask()?.await.unwrap_or(Err(BackendError::Stopped)),
        }
    }

    /// [`Self::view`] for a thread that may wait.
    pub(super) fn blocking_view(&self) -> Result<Arc<View>, BackendError> {
        match self.at_once() {
            Some(view) => Ok(view),
            None => self.ask()?.blocking_recv().unwrap_or(Err(BackendError::Stopped)),
        }
    }

    fn at_once(&self) -> Option<Arc<View>> {
        // Read first: readers on many processors would take the line from each other.
        if !self.looked.load(Ordering::Relaxed) {
            self.looked.store(true, Ordering::Relaxed);
        }
        self.view.load_full()
    }

    fn ask(&self) -> Result<oneshot::Receiver<Result<Arc<View>, BackendError>>, BackendError> {
        let (reply, answer) = oneshot::channel();
        match self.driver.try_send(DriverInput::Look { reply }) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(BackendError::Overloaded),
            Err(TrySendError::Closed(_)) => Err(BackendError::Stopped),
        }
    }

    /// For the core: whether anybody has looked since this was asked last.
    pub(super) fn was_looked_at(&self) -> bool {
        self.looked.load(Ordering::Relaxed) && self.looked.swap(false, Ordering::Relaxed)
    }

    /// For the core: a state and its summary.
    pub(super) fn put(&self, view: Arc<View>) {
        let summary = Arc::clone(&view.summary);
        // In this order: see above.
        self.view.store(Some(view));
        self.summary.store(summary);
    }

    /// For the core: the state of the present summary, or none.
    pub(super) fn put_view(&self, view: Option<Arc<View>>) {
        self.view.store(view);
    }
}
