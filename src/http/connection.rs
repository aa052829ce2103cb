//! A client's socket, with a bound on how long the client may keep it waiting.
//!
//! The HTTP library reads and writes through [`TimedStream`], which knows from [`Phase`] what the connection is at:
//! - *idle*: between requests, for as long as [`Limits::idle`], since clients keep connections for later;
//! - *reading a head*: from the first byte of a request until it is complete, and from the start of the connection
//!   on, [`Limits::header`] in all, however the bytes trickle in;
//! - *answering*: no bound on reads, since a wait may last for ever; the body of a request has its own (`body`).
//!
//! At its end the stream reads on for [`LINGER`], so that an answer to a request that was not read to its end (too long,
//! no HTTP) is not lost: closing a socket with unread bytes resets it, and the peer may drop what it has received.
//!
//! Between two users of the stream, what the one has read and not used is given to the next.
//!
//! A write that makes no progress for [`Limits::write_stall`] ends the connection in any phase.
//!
//! A request costs a reading of the clock and no timer: the one timer of the connection's reads is left alone as long as it
//! does not go off after the deadline, and when it goes off too early it is set anew. One that goes off while an event is
//! waited for is given up, so that such a connection has none.

use bytes::{Buf as _, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// For the head of a request.
    pub(crate) header: Duration,
    /// Between requests.
    pub(crate) idle: Duration,
    /// To take any byte of an answer.
    pub(crate) write_stall: Duration,
}

/// How long a client may take to notice the end of the connection.
const LINGER: Duration = Duration::from_secs(1);

/// What is read at once while it is only of interest whether something comes.
const EARLY_BYTES: usize = 1024;

/// What a client may send behind a wait before it is read no further, and not seen to go away.
const EARLY_BYTES_MAX: usize = 16 * 1024;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const ANSWERING: u8 = 2;

/// What a connection is at; shared between its socket and the answers that it gives.
#[derive(Clone, Debug)]
pub(crate) struct Phase(Arc<PhaseState>);

#[derive(Debug)]
struct PhaseState {
    at: AtomicU8,
    /// What was to be written last has not been, or not all of it.
    unsent: AtomicBool,
}

impl Phase {
    /// A new connection: its first request is due.
    pub(crate) fn new() -> Self {
        Self(Arc::new(PhaseState { at: AtomicU8::new(HEAD), unsent: AtomicBool::new(false) }))
    }

    /// A request is complete: until the turn is dropped, with its answer, the client may be silent.
    pub(crate) fn turn(&self) -> Turn {
        self.0.at.store(ANSWERING, Ordering::Relaxed);
        Turn(self.clone())
    }

    /// Whether the socket has taken all that it was given.
    pub(crate) fn is_sent(&self) -> bool {
        !self.0.unsent.load(Ordering::Relaxed)
    }
}

/// The time from a request to the end of its answer.
#[derive(Debug)]
pub(crate) struct Turn(Phase);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.at.store(IDLE, Ordering::Relaxed);
    }
}

/// A stream that fails with `TimedOut` where its peer is too slow.
#[derive(Debug)]
pub(crate) struct TimedStream<S> {
    stream: S,
    phase: Phase,
    limits: Limits,
    /// Read, and not used yet.
    early: BytesMut,
    /// The phase that the stream was last seen in, and when that will have lasted too long.
    read_phase: u8,
    read_deadline: Instant,
    /// Goes off at the deadline or before.
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    linger_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedStream<S> {
    /// Watches over a stream.
    pub(crate) fn new(stream: S, phase: Phase, limits: Limits) -> Self {
        Self {
            stream,
            phase,
            limits,
            early: BytesMut::new(),
            read_phase: ANSWERING,
            read_deadline: Instant::now(),
            read_timer: None,
            write_timer: None,
            linger_timer: None,
        }
    }

    /// Gives back what was read and not used; the next reader gets it first.
    pub(crate) fn unread(&mut self, data: &[u8]) {
        let since = std::mem::take(&mut self.early);
        self.early.reserve(data.len() + since.len());
        self.early.extend_from_slice(data);
        self.early.extend_from_slice(&since);
    }

    /// Takes note that bytes came, or that the stream waits for some; ready when it has waited too long.
    fn poll_reader(&mut self, received: bool, context: &mut Context<'_>) -> Poll<()> {
        let mut phase = self.phase.0.at.load(Ordering::Relaxed);
        if received && phase == IDLE {
            phase = HEAD;
            self.phase.0.at.store(HEAD, Ordering::Relaxed);
            // Each head has its own time, whatever was seen since the last.
            self.read_phase = IDLE;
        }
        if phase != self.read_phase {
            self.read_phase = phase;
            self.read_deadline =
                Instant::now() + if phase == IDLE { self.limits.idle } else { self.limits.header };
        }
        if received { Poll::Pending } else { self.poll_read_timer(phase, context) }
    }

    fn poll_read_timer(&mut self, phase: u8, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.read_deadline;
        if phase == ANSWERING {
            if let Some(timer) = &mut self.read_timer
                && timer.as_mut().poll(context).is_ready()
            {
                self.read_timer = None;
            }
            return Poll::Pending;
        }
        let timer = self.read_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    /// Takes note of the outcome of a write of so many bytes.
    fn poll_written(
        &mut self,
        outcome: Poll<io::Result<usize>>,
        offered: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let all = matches!(outcome, Poll::Ready(Ok(written)) if written == offered);
        self.phase.0.unsent.store(!all, Ordering::Relaxed);
        self.poll_writer(outcome, context)
    }

    /// Passes on the outcome of a write, unless it has been pending for too long.
    fn poll_writer<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_timer = None;
            return outcome;
        }
        let limit = self.limits.write_stall;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> TimedStream<S> {
    /// Ready as soon as there are bytes that nobody has used.
    ///
    /// # Errors
    /// The client is gone, or took too long for what the connection is at.
    pub(crate) fn poll_early(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            let mut bytes = [0; EARLY_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *self).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.early.extend_from_slice(buffer.filled());
        }
        Poll::Ready(Ok(()))
    }

    /// Reads ahead while there is nothing to be written; ready when the client is gone.
    pub(crate) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while self.early.len() < EARLY_BYTES_MAX {
            let mut bytes = [0; EARLY_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
                }
                Poll::Ready(Ok(())) => self.early.extend_from_slice(buffer.filled()),
                Poll::Pending => break,
            }
        }
        self.poll_reader(false, context).map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Reads and forgets, until the client closes its side too or its time is up.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.linger_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut forgotten = [0; 1024];
        while timer.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut forgotten);
            let outcome = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
            if outcome.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = if self.early.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let length = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..length]);
            self.early.advance(length);
            if self.early.is_empty() {
                self.early = BytesMut::new();
            }
            Poll::Ready(Ok(()))
        };
        match self.poll_reader(outcome.is_ready(), context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => outcome,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, data);
        self.poll_written(outcome, data.len(), context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.poll_written(outcome, slices.iter().map(|slice| slice.len()).sum(), context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.poll_writer(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger_timer.is_none() {
            let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.poll_writer(outcome, context))?;
        }
        self.poll_linger(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    const LIMITS: Limits = Limits {
        header: Duration::from_millis(80),
        idle: Duration::from_millis(400),
        write_stall: Duration::from_millis(80),
    };

    fn pair() -> (DuplexStream, Phase, TimedStream<DuplexStream>) {
        let (client, server) = tokio::io::duplex(8);
        let phase = Phase::new();
        (client, phase.clone(), TimedStream::new(server, phase, LIMITS))
    }

    #[tokio::test]
    async fn a_head_that_trickles_in_is_cut_off() {
        let (mut client, _phase, mut server) = pair();
        let trickle = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(LIMITS.header / 4).await;
            }
        });
        let started = Instant::now();
        let error = loop {
            if let Err(error) = server.read_u8().await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((LIMITS.header..LIMITS.idle).contains(&started.elapsed()));
        drop(server);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn silence_is_bounded_between_requests_only() {
        let (mut client, phase, mut server) = pair();
        client.write_all(b"x").await.unwrap();
        server.read_u8().await.unwrap();
        let turn = phase.turn();
        let answering = tokio::time::timeout(LIMITS.idle * 2, server.read_u8()).await;
        assert!(answering.is_err(), "still waiting");
        drop(turn);
        let started = Instant::now();
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= LIMITS.idle);
    }

    #[tokio::test]
    async fn each_request_has_its_own_time() {
        let (mut client, phase, mut server) = pair();
        for _ in 0..4 {
            client.write_all(b"x").await.unwrap();
            server.read_u8().await.unwrap();
            drop(phase.turn());
            assert!(tokio::time::timeout(LIMITS.header * 3 / 4, server.read_u8()).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let (_client, phase, mut server) = pair();
        let _turn = phase.turn();
        let error = server.write_all(b"more than fits in there").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
