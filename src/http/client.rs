//! One client, from its connection to its end: its requests one after the other, by the HTTP library, and its waits without it (`parked`).

use super::App;
use super::backend::Backend;
use super::body::AnswerBody;
use super::connection::{Limits, Phase, TimedStream};
use super::parked::{self, Parking};
use super::server::Stage;
use super::stats::ConnectionCount;
use super::watch::WatchBody;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// The most bytes of a request's head; more is answered with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves one client until it goes, or the server has to.
pub(crate) async fn serve<B: Backend>(
    stream: TcpStream,
    app: Arc<App<B>>,
    _slot: OwnedSemaphorePermit,
    mut follow: watch::Receiver<Stage>,
) {
    let _count = ConnectionCount::new(&app.stats);
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "a client's socket is gone");
        return;
    }
    let phase = Phase::new();
    let limits = Limits {
        header: app.config.header_timeout,
        idle: app.config.idle_timeout,
        write_stall: app.config.write_stall_timeout,
    };
    let mut stream = TimedStream::new(stream, phase.clone(), limits);
    loop {
        let Some(watch) = by_library(&mut stream, &app, &phase, &mut follow).await else { return };
        let turn = phase.turn();
        match until_cut_off(parked::tell(&mut stream, watch), &mut follow).await {
            Some(Ok(())) => {}
            told => {
                tracing::debug!(?told, "a connection ended with a wait");
                return;
            }
        }
        if *follow.borrow() != Stage::Running {
            _ = until_cut_off(stream.shutdown(), &mut follow).await;
            return;
        }
        drop(turn);
        tokio::select! {
            came = std::future::poll_fn(|context| stream.poll_early(context)) => if came.is_err() { return },
            _ = follow.changed() => {
                _ = until_cut_off(stream.shutdown(), &mut follow).await;
                return;
            }
        }
    }
}

/// Serves a client until it goes, or waits for events that the connection can see to without the HTTP library.
async fn by_library<S: AsyncRead + AsyncWrite + Unpin, B: Backend>(
    stream: &mut TimedStream<S>,
    app: &Arc<App<B>>,
    phase: &Phase,
    follow: &mut watch::Receiver<Stage>,
) -> Option<WatchBody<B::Watch>> {
    let parking = Parking::default();
    let service = service_fn(|request| {
        let turn = phase.turn();
        let app = Arc::clone(app);
        let parking = parked::may_park(&request).then(|| parking.clone());
        // Boxed, so that its room is given back while the answer is waited for or the connection is idle: hyper keeps that
        // of the future itself for as long as the connection lasts.
        Box::pin(async move {
            let answer = app.answer(request).await;
            Ok::<_, Infallible>(answer.map(|kind| AnswerBody::new(kind, turn, parking)))
        })
    });
    // On the heap, so that a wait without it has that room back too.
    let mut serving = Box::new(
        http1::Builder::new()
            .header_read_timeout(None) // the stream has a closer eye on it
            .max_buf_size(HEAD_BYTES_MAX)
            .writev(false) // head and body of a small answer leave in one buffer
            .title_case_headers(true) // scripts look for "X-Etcd-Index"
            .serve_connection(TokioIo::new(stream), service),
    );
    let mut closing = false;
    let watch = loop {
        let step = std::future::poll_fn(|context| match Pin::new(&mut *serving).poll(context) {
            Poll::Ready(ended) => Poll::Ready(Err(ended)),
            Poll::Pending if phase.is_sent() && !closing => {
                parking.take().map_or(Poll::Pending, |watch| Poll::Ready(Ok(watch)))
            }
            Poll::Pending => Poll::Pending,
        });
        tokio::select! {
            step = step => match step {
                Ok(watch) => break watch,
                Err(ended) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return None;
                }
            },
            changed = follow.changed() => match *follow.borrow_and_update() {
                Stage::Closing if changed.is_ok() => {
                    closing = true;
                    Pin::new(&mut *serving).graceful_shutdown();
                }
                // Without its sender nobody waits for this connection any more.
                Stage::Running | Stage::Closing | Stage::Aborting => return None,
            }
        }
    };
    let parts = serving.into_parts();
    parts.io.into_inner().unread(&parts.read_buf);
    Some(watch)
}

/// What comes of it, unless time is up before that.
async fn until_cut_off<T>(work: impl Future<Output = T>, follow: &mut watch::Receiver<Stage>) -> Option<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = work.as_mut() => return Some(done),
            changed = follow.changed() => match *follow.borrow_and_update() {
                Stage::Closing if changed.is_ok() => {} // the watch sees that itself
                Stage::Running | Stage::Closing | Stage::Aborting => return None,
            }
        }
    }
}

/// Sets up a client's socket: small answers leave at once, and a client that vanished without a word is noticed within
/// two minutes, however long its wait, unless it has sent more requests behind that than are read ahead.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
    const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
    const KEEPALIVE_PROBES: u32 = 4;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ServeConfig;
    use crate::http::testing::SingleMember;
    use crate::store::HistoryLimits;
    use tokio::io::AsyncReadExt as _;

    /// The library is not left before the client has taken the head, although the watch waits.
    #[tokio::test]
    async fn a_wait_is_taken_over_when_its_head_is_sent() {
        let member = SingleMember::start("http://m", HistoryLimits { events: 10, bytes: 1 << 20 });
        let app = Arc::new(App::new(member.clone(), ServeConfig::default()));
        let (stage, mut follow) = watch::channel(Stage::Running);
        let (mut client, socket) = tokio::io::duplex(64); // less than a head
        let second = Duration::from_secs(1);
        let limits = Limits { header: second * 60, idle: second * 60, write_stall: second * 60 };
        let phase = Phase::new();
        let mut socket = TimedStream::new(socket, phase.clone(), limits);
        let serving = tokio::spawn(async move {
            let watch = by_library(&mut socket, &app, &phase, &mut follow).await.unwrap();
            (phase.is_sent(), parked::tell(&mut socket, watch).await)
        });
        client.write_all(b"GET /v2/keys/k?wait=true HTTP/1.1\r\nHost: m\r\n\r\n").await.unwrap();
        while member.watchers() == 0 {
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(client.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        member.end_watches(&crate::http::backend::WatchItem::Cleared);
        let (sent, told) = serving.await.unwrap();
        assert!(sent && told.is_err(), "a wait for one event is cut off");
        drop(stage);
    }
}
