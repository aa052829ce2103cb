//! Request bodies, bounded in size and time; and the bodies of answers.

use super::listing::Listing;
use super::parked::Parking;
use super::watch::WatchBody;
use super::{backend::Watch, connection::Turn};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// Why a request's body was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Longer than the limit.
    TooLarge,
    /// Not there in time.
    TooSlow,
    /// The client broke off, or what it sent is not HTTP.
    Broken,
}

/// Reads a whole body of at most `limit` bytes within `timeout`.
pub(crate) async fn read(body: Incoming, limit: usize, timeout: Duration) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    tokio::time::timeout(timeout, collect(body, limit)).await.unwrap_or(Err(BodyError::TooSlow))
}

/// Puts the parts of a body together; a body that comes in one part is not copied.
async fn collect(mut body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(BodyError::TooLarge);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(
                (body.size_hint().lower() as usize).saturating_add(first.len() + data.len()).min(limit),
            );
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The body of an answer. While it lives, its connection is not idle.
#[derive(Debug)]
pub(crate) struct AnswerBody<W> {
    kind: Kind<W>,
    /// Others had their turn since the last chunk of a listing.
    rested: bool,
    _turn: Turn,
}

/// What an answer consists of.
#[derive(Debug)]
pub(crate) enum Kind<W> {
    /// Bytes that are there, or were.
    Full(Bytes),
    /// A directory that is written while it is sent.
    Listing(Box<Listing>),
    /// Events, as they come.
    Watch(WatchBody<W>),
    /// The same, where the connection may take them from the HTTP library.
    Parked(Parking<W>),
}

/// Why an answer is cut off in the middle: the client notices, and asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watch ended without an event")]
pub(crate) struct CutOff;

impl<W: Watch> AnswerBody<W> {
    /// The body of the answer to the request whose turn it is; a wait goes where the connection may take it over, if there is
    /// such a place.
    pub(crate) fn new(kind: Kind<W>, turn: Turn, parking: Option<Parking<W>>) -> Self {
        let kind = match (kind, parking) {
            (Kind::Watch(watch), Some(parking)) if watch.is_plain() => {
                parking.put(watch);
                Kind::Parked(parking)
            }
            (kind, _) => kind,
        };
        Self { kind, rested: true, _turn: turn }
    }
}

/// Lets those who wait for this thread, sockets among them, go before the next chunk: a socket on the same machine may take
/// megabytes before it has enough.
fn others_first<T>(context: &mut Context<'_>) -> Poll<T> {
    // Woken at once, the task would go on before anybody looks at the sockets.
    _ = pin!(tokio::task::yield_now()).poll(context);
    Poll::Pending
}

impl<W: Watch> Body for AnswerBody<W> {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let Self { kind, rested, .. } = &mut *self;
        match kind {
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Listing(listing) => {
                if !std::mem::replace(rested, true) {
                    return others_first(context);
                }
                let chunk = listing.next_chunk();
                if chunk.as_ref().is_some_and(Bytes::is_empty) {
                    return others_first(context); // then on with the walk
                }
                *rested = false;
                Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
            Kind::Watch(watch) => watch.poll_frame(context),
            Kind::Parked(parking) => parking.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, Kind::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Listing(_) | Kind::Watch(_) | Kind::Parked(_) => SizeHint::default(),
        }
    }
}
