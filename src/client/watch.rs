//! Watching without gaps: one long poll after the other, each from the index after the last event.
//!
//! A poll that ends without an event (the server stops, a proxy loses patience, the connection breaks) is repeated. The
//! headers of its answer said at which index the watch stood, so nothing that happened meanwhile is missed, even if no
//! event has come yet to count from.

use super::error::Error;
use super::keys::response;
use super::transport::{Request, query};
use super::types::{Response, WatchOptions};
use super::{Client, escape};
use std::time::{Duration, Instant};

/// A poll that ends without an event in less time than this makes the next one wait.
const SHORT_POLL: Duration = Duration::from_millis(200);
/// The longest wait between two polls.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// A watch that goes from event to event. Made by [`Client::watcher`].
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    key: String,
    recursive: bool,
    /// The index to wait from; 0: from now on.
    wait_index: u64,
    pause: Duration,
}

impl Watcher {
    pub(super) fn new(client: Client, key: &str, options: &WatchOptions) -> Self {
        let wait_index = match options.after_index {
            0 => 0,
            after => after.saturating_add(1),
        };
        let (key, recursive) = (key.to_owned(), options.recursive);
        Self { client, key, recursive, wait_index, pause: Duration::ZERO }
    }

    /// The next event. It has no timeout; it may be dropped and called again without missing or repeating an event.
    ///
    /// # Errors
    /// [`Error::Api`] with code 401 if the wanted events are no longer in the server's history; [`Error::Cluster`] if no
    /// endpoint can be reached. After either, it may be called again.
    pub async fn next(&mut self) -> Result<Response, Error> {
        loop {
            tokio::time::sleep(self.pause).await;
            let started = Instant::now();
            let answer = self.client.transport.execute(&self.request()).await?;
            if !answer.status.is_success() || !answer.body.is_empty() {
                let event = response(&answer)?;
                self.wait_index = event.node.modified_index.saturating_add(1);
                self.pause = Duration::ZERO;
                return Ok(event);
            }
            if self.wait_index == 0 {
                self.wait_index = match answer.number("x-etcd-index") {
                    0 => 0,
                    registered_at => registered_at.saturating_add(1),
                };
            }
            self.pause = if started.elapsed() < SHORT_POLL {
                (self.pause * 2).clamp(Duration::from_millis(20), MAX_PAUSE)
            } else {
                Duration::ZERO
            };
        }
    }

    fn request(&self) -> Request {
        let pairs = [
            ("recursive", self.recursive.to_string()),
            ("wait", true.to_string()),
            ("waitIndex", self.wait_index.to_string()),
        ];
        let path = format!("{}{}", self.client.prefix, escape::key_path(&self.key));
        Request { query: query(pairs), wait: true, ..Request::get(path) }
    }
}
