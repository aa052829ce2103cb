//! The peer port: connections in, HTTP/2 for members and HTTP/1.1 for whoever asks with curl, on one port.
//!
//! Connections are bounded in number, and a client that connects and says nothing is not kept. The one place that will
//! know about TLS on the serving side.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use super::TransportConfig;
use super::dial::text;

/// The first bytes of every HTTP/2 connection; no HTTP/1 method starts with them.
const HTTP2_MARK: &[u8] = b"PRI";
/// How soon to look again for the rest of a mark that has arrived in part.
const MARK_POLL: Duration = Duration::from_millis(10);
/// How long to wait after a failed accept: the reasons (no descriptors left) do not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection takes this many streams at a time: a peer needs one, tools that list members a few.
const STREAMS_MAX: u32 = 64;
/// Header limits, in bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
const HTTP1_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Larger HTTP/2 frames than the usual 16 KiB: less work for each MiB, still little to wait behind.
const HTTP2_FRAME_BYTES: u32 = 64 * 1024;
/// The window of a connection, in windows of a stream.
const STREAMS_IN_WINDOW: u32 = 2;

/// What the listeners share.
#[derive(Clone)]
pub(super) struct Port {
    pub(super) router: Router,
    pub(super) config: TransportConfig,
    pub(super) permits: Arc<Semaphore>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Port {
    /// Accepts until `stop`, then waits for the connections to end. Dropping it ends them at once.
    pub(super) async fn serve(mut self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stopped(&mut self.stop) => break,
            };
            match accepted {
                Ok((stream, address)) => match self.permits.clone().try_acquire_owned() {
                    Ok(permit) => {
                        connections.spawn(self.clone().connection(stream, address, permit));
                    }
                    Err(_) => {
                        tracing::warn!(%address, "too many connections on the peer port: closed one more");
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the peer port");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // The port is free from here on.
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn connection(self, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "cannot set TCP_NODELAY");
        }
        match timeout(self.config.head_timeout, is_http2(&stream)).await {
            Ok(Ok(true)) => self.http2(stream, address).await,
            Ok(Ok(false)) => self.http1(stream, address).await,
            Ok(Err(error)) => tracing::debug!(%address, %error, "a connection ended before a request"),
            Err(_) => tracing::debug!(%address, "a connection on which nobody spoke was closed"),
        }
        drop(permit);
    }

    async fn http2(self, stream: TcpStream, address: SocketAddr) {
        let Self { router, config, mut stop, .. } = self;
        let mut server = http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            .keep_alive_interval(config.ping_interval)
            .keep_alive_timeout(config.ping_timeout)
            .initial_stream_window_size(config.stream_window)
            .initial_connection_window_size(config.stream_window.saturating_mul(STREAMS_IN_WINDOW))
            .max_frame_size(HTTP2_FRAME_BYTES)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX);
        let service = service_fn(|request| answer(router.clone(), address, request));
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        log_end(address, ended);
    }

    async fn http1(self, stream: TcpStream, address: SocketAddr) {
        let Self { router, config, mut stop, .. } = self;
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_buf_size(HTTP1_BUFFER_BYTES_MAX);
        let service = service_fn(|request| answer(router.clone(), address, request));
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        log_end(address, ended);
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could say so is gone: as good as a stop.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Whether a connection starts as HTTP/2 does; nothing is read away.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; HTTP2_MARK.len()];
    loop {
        let count = stream.peek(&mut start).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if start[..count] != HTTP2_MARK[..count] {
            return Ok(false);
        }
        if count == HTTP2_MARK.len() {
            return Ok(true);
        }
        sleep(MARK_POLL).await;
    }
}

async fn answer(
    router: Router,
    address: SocketAddr,
    mut request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(ConnectInfo(address));
    router.oneshot(request).await
}

fn log_end(address: SocketAddr, ended: hyper::Result<()>) {
    let Err(error) = ended else { return };
    let reason = text(&error);
    if error.is_parse() {
        tracing::info!(%address, %reason, "closed a connection to the peer port: it speaks no HTTP");
    } else {
        tracing::debug!(%address, %reason, "a connection to the peer port broke");
    }
}
