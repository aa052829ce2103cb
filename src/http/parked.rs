//! Waits for events without the HTTP library.
//!
//! The library keeps two buffers for a connection, of which a page each is in use as soon as it has read a request and written the
//! head of an answer. Of waits there may be tens of thousands, for days. So once the head of such an answer has gone out and the
//! events have yet to come, the connection is taken from the library; what remains is the socket and the watch. The
//! events are written here, and when the answer is over and the client sends the next request, the library is given the
//! socket again, with what was read meanwhile.
//!
//! Only requests that leave no doubt of how the answer is framed, and where the next request begins, are taken over
//! ([`may_park`]): in chunks (RFC 9112, 7.1) without a trailer, on a connection that stays.

use super::backend::Watch;
use super::body::CutOff;
use super::connection::TimedStream;
use super::watch::WatchBody;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::CONNECTION;
use hyper::{HeaderMap, Method, Request, Version};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};

/// So much of a stream is put together before it is written.
const WRITE_BYTES: usize = 64 * 1024;

/// Where the connection finds the watch whose answer the library has begun.
#[derive(Debug)]
pub(crate) struct Parking<W>(Arc<Mutex<Place<W>>>);

#[derive(Debug)]
struct Place<W> {
    watch: Option<WatchBody<W>>,
    /// The library has written the head, and all that the watch has said.
    waits: bool,
}

impl<W> Clone for Parking<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Default for Parking<W> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Place { watch: None, waits: false })))
    }
}

impl<W: Watch> Parking<W> {
    fn place(&self) -> MutexGuard<'_, Place<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a watch there whose answer begins.
    pub(crate) fn put(&self, watch: WatchBody<W>) {
        *self.place() = Place { watch: Some(watch), waits: false };
    }

    /// Takes it away if nothing of it is under way.
    pub(crate) fn take(&self) -> Option<WatchBody<W>> {
        let mut place = self.place();
        if place.waits { place.watch.take() } else { None }
    }

    /// The next piece, for the library.
    pub(crate) fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let mut place = self.place();
        let said = match &mut place.watch {
            Some(watch) => watch.poll_frame(context),
            None => Poll::Ready(Some(Err(CutOff))), // the library asks for nothing any more
        };
        place.waits = said.is_pending();
        if matches!(said, Poll::Ready(None | Some(Err(_)))) {
            place.watch = None; // it counts no longer, however long the connection stays
        }
        said
    }
}

/// Whether the answer to this request may be taken over if it is a wait: it has no body, wants one answer after the
/// other, and understands chunks.
pub(crate) fn may_park(request: &Request<Incoming>) -> bool {
    let stays = |headers: &HeaderMap| {
        headers.get_all(CONNECTION).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
    };
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.body().is_end_stream()
        && stays(request.headers())
}

/// Writes what a watch says, to its end; then waits for the client's next bytes.
///
/// # Errors
/// The connection is over: the answer is cut off, the client is gone or too slow.
pub(crate) async fn tell<S, W>(stream: &mut TimedStream<S>, mut watch: WatchBody<W>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    W: Watch,
{
    let mut out = BytesMut::new();
    let mut over = false;
    std::future::poll_fn(|context| {
        loop {
            while !over && out.len() < WRITE_BYTES {
                match watch.poll_frame(context) {
                    Poll::Ready(Some(Ok(piece))) => {
                        put_chunk(&mut out, &piece.into_data().unwrap_or_default());
                    }
                    Poll::Ready(Some(Err(CutOff))) => {
                        return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
                    }
                    Poll::Ready(None) => {
                        out.put_slice(b"0\r\n\r\n");
                        over = true;
                    }
                    Poll::Pending => break,
                }
            }
            if out.is_empty() {
                if over {
                    return Poll::Ready(Ok(()));
                }
                // The client may go away meanwhile. It may also send its next requests.
                return stream.poll_gone(context).map(Err);
            }
            while !out.is_empty() {
                let written = ready!(Pin::new(&mut *stream).poll_write(context, &out))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                out.advance(written);
            }
            out = BytesMut::new();
        }
    })
    .await
}

/// Appends a piece as a chunk. One without content would be the end of the body.
fn put_chunk(out: &mut BytesMut, piece: &[u8]) {
    if piece.is_empty() {
        return;
    }
    let digits = (usize::BITS - piece.len().leading_zeros()).div_ceil(4) as usize;
    out.reserve(digits + piece.len() + 4 + 5);
    for digit in (0..digits).rev() {
        out.put_u8(b"0123456789ABCDEF"[(piece.len() >> (4 * digit)) & 15]);
    }
    out.put_slice(b"\r\n");
    out.put_slice(piece);
    out.put_slice(b"\r\n");
}
