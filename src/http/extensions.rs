//! What `/v2/keys` can do beyond etcd. All of it must be asked for: a client that does not know of it sees no difference.
//!
//! # `waitTimeout=SECONDS` (with `wait=true`)
//! Ends the wait after so long (`2`, `0.5`; `0` looks and does not wait; more than a day is a day). The answer is then
//! `{"action":"timeout","index":N}` with status 200: up to index N nothing happened that was waited for, so the next wait is for
//! `waitIndex=N+1` (or the same `waitIndex`, if that is later). With a stream that line comes last.
//!
//! A wait with a timeout holds its head back until there is an answer, so that `X-Etcd-Index` is that of the moment in
//! which it returns. Without one the head leaves as soon as the wait is armed, as in etcd, and its `X-Etcd-Index` is of
//! that moment; it is the same moment if the event was in the history already. A client that sends `TE: trailers` gets the
//! fresh index as a trailer. After an event, the next wait is for its `modifiedIndex` + 1, whatever the headers say:
//! between that and `X-Etcd-Index` may be events that were not delivered yet.
//!
//! # `limit=N`, `start=KEY` (reads of a directory)
//! Shows a piece of a directory: at most N nodes (10,000 if N is more) and about a megabyte, from KEY on, which is a key as in
//! the answers, or a path relative to the directory. The order is that of `sorted=true`; with `recursive=true` it is
//! parents before children, and directories that were shown on an earlier page are shown again around what is left of
//! them, without counting. If there is more, the header `Link: <...>; rel="next"` says where.
//!
//! All pages that are reached by `Link` show one moment, that of the first page, and carry its `X-Etcd-Index`: a client
//! that has read them all and waits from that index + 1 on has missed nothing. The link names the index (`atIndex`). A
//! member keeps the states that it began to show for a minute after they were last asked for (`pages`); one that
//! does not have it, perhaps because it is another member, shows its present state if nothing in the directory has changed
//! since, and otherwise answers error 401: begin anew. `start` without `atIndex` shows the present.
//!
//! # `keysOnly=true` (reads)
//! Leaves `value` out.
//!
//! # `Accept: text/event-stream` (with `wait=true`)
//! The watch as server-sent events, for a browser's `EventSource`: each event's JSON as `data`, its index as `id`. It always is
//! a stream. A client that comes back with `Last-Event-ID: N` goes on at N + 1, whatever `waitIndex` says. While it is quiet there is a
//! comment every 15 seconds, together with an `id` that moves on with the store, so that a watcher of a
//! quiet key does not fall out of the history. What went wrong comes as an event of type `error`, with the JSON of the error as `data`:
//! after 401 or 400 events were missed, and the stream that the browser opens next begins at the present. A request that makes no
//! sense is answered with a plain error, on which `EventSource` gives up.

use super::params::{Fields, number, refuse};
use crate::store::{ErrorCode, Key, StoreError};
use std::time::Duration;

/// The longest wait with a timeout.
const WAIT_SECONDS_MAX: f64 = 86_400.0;
/// The most nodes on one page.
const LIMIT_MAX: usize = 10_000;

/// A piece of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// The first key that may be on it.
    pub(crate) start: Key,
    /// How many nodes there are on it at the most.
    pub(crate) limit: usize,
    /// Which state it shows; `None`: the present.
    pub(crate) at: Option<u64>,
}

/// Reads `limit`, `start` and `atIndex`.
pub(super) fn page(dir: &Key, fields: &Fields<'_>) -> Result<Option<PageRequest>, StoreError> {
    let limit = number(ErrorCode::InvalidField, "limit", fields.limit.as_deref())?;
    let at = number(ErrorCode::IndexNaN, "atIndex", fields.at_index.as_deref())?;
    if limit.is_none() && fields.start.is_none() {
        return Ok(None);
    }
    if limit == Some(0) {
        return Err(refuse(ErrorCode::InvalidField, "invalid value for \"limit\""));
    }
    let limit = limit.map_or(LIMIT_MAX, |limit| usize::try_from(limit).unwrap_or(LIMIT_MAX).min(LIMIT_MAX));
    let start = match fields.start.as_deref() {
        None | Some(b"") => dir.clone(),
        Some(full @ [b'/', ..]) => Key::parse(full),
        Some(relative) => Key::parse(&[dir.as_bytes(), b"/", relative].concat()),
    };
    if !dir.contains(&start) {
        return Err(refuse(ErrorCode::InvalidField, "\"start\" is not in the directory"));
    }
    Ok(Some(PageRequest { start, limit, at }))
}

/// Reads `waitTimeout`.
pub(super) fn wait_timeout(fields: &Fields<'_>) -> Result<Option<Duration>, StoreError> {
    let Some(text) = fields.wait_timeout.as_deref() else { return Ok(None) };
    let is_plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = std::str::from_utf8(text).ok().filter(is_plain).and_then(|text| text.parse::<f64>().ok());
    match seconds {
        Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds.min(WAIT_SECONDS_MAX)))),
        None => Err(refuse(ErrorCode::InvalidField, "invalid value for \"waitTimeout\"")),
    }
}
