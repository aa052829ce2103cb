//! The listener: accepting, bounding, shutting down. What becomes of a connection says `client`.

use super::backend::Backend;
use super::{App, client};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// What the server grants its clients.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// How many clients may be connected at once; each wait for an event is one. Further ones get 503.
    pub max_connections: u32,
    /// The largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// How long the head of a request may take from its first byte, and the first request from the connection on.
    pub header_timeout: Duration,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
    /// How long a connection may be silent between requests. Generous, since a client that reuses a connection in the
    /// moment in which it is closed sees an error.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub write_stall_timeout: Duration,
    /// How long `/health` waits for a quorum.
    pub health_timeout: Duration,
    /// So often a quiet stream of server-sent events shows that it is alive; below what proxies grant the silent.
    pub keep_alive: Duration,
    /// How long requests in flight may take once the server shuts down.
    pub shutdown_grace: Duration,
    /// Origins (`https://host:port`, or `*`) whose pages may use the API from a browser.
    pub cors: Vec<String>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            max_connections: 50_000,
            max_body_bytes: 3 << 19, // 1.5 MiB, as etcd's default for a request
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
            write_stall_timeout: Duration::from_secs(60),
            health_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(15),
            shutdown_grace: Duration::from_secs(3),
            cors: Vec::new(),
        }
    }
}

/// How the server is doing; connections follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Running,
    /// Requests in flight are finished, and no more are taken.
    Closing,
    /// Time is up.
    Aborting,
}

/// Serves clients of all these addresses until `shutdown` is ready; then stops accepting, ends waits, finishes the requests in flight for as long
/// as [`ServeConfig::shutdown_grace`] grants, and returns. Needs a tokio runtime with time and IO.
pub fn serve<B: Backend>(
    listeners: Vec<TcpListener>,
    backend: B,
    config: ServeConfig,
    shutdown: impl Future<Output = ()>,
) -> impl Future<Output = ()> {
    let grace = config.shutdown_grace;
    let max_connections = config.max_connections;
    let app = Arc::new(App::new(backend, config));
    let closing = Arc::clone(&app.closing);
    async move {
        let slots = Arc::new(Semaphore::new(max_connections as usize));
        let (stage, follow) = watch::channel(Stage::Running);
        {
            let accepting = listeners.iter().map(|listener| accept(listener, &app, &slots, &follow));
            let accepting = futures_util::future::join_all(accepting);
            let shutdown = pin!(shutdown);
            futures_util::future::select(accepting, shutdown).await;
        }
        drop((listeners, app));
        closing.store(true, Ordering::Relaxed);
        stage.send_replace(Stage::Closing);
        let all_closed = slots.acquire_many(max_connections);
        if tokio::time::timeout(grace, all_closed).await.is_err() {
            let left = max_connections as usize - slots.available_permits();
            tracing::info!(connections = left, "clients are cut off: their requests did not end in time");
            stage.send_replace(Stage::Aborting);
        }
    }
}

/// Accepts connections for ever.
async fn accept<B: Backend>(
    listener: &TcpListener,
    app: &Arc<App<B>>,
    slots: &Arc<Semaphore>,
    follow: &watch::Receiver<Stage>,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        match Arc::clone(slots).try_acquire_owned() {
            Ok(slot) => _ = tokio::spawn(client::serve(stream, Arc::clone(app), slot, follow.clone())),
            Err(_) => turn_away(&stream),
        }
    }
}

/// Waits before the next attempt to accept. Errors of the one connection that could not be accepted need no wait; if the
/// process is short of descriptors or memory, trying at once would only burn a core until some are free.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    const PAUSE: Duration = Duration::from_millis(100);
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        return;
    }
    tracing::warn!(%error, "no client can be accepted");
    tokio::time::sleep(PAUSE).await;
}

/// Answers a client for whom there is no place.
fn turn_away(stream: &TcpStream) {
    const FULL: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    if stream.try_write(FULL).is_err() {
        tracing::debug!("a client was turned away without an answer");
    }
}
