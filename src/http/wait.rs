//! Begins a wait: finds out which of its forms is asked for, and arms it. What the forms are says `extensions`.

use super::answer::{self, Answer, Position};
use super::backend::{Backend, Watch as _};
use super::body::Kind;
use super::params::{self, WaitRequest};
use super::stats::WatcherCount;
use super::watch::{self, Extras, Form, Outcome, WatchBody};
use super::{App, event_stream};
use crate::store::{ErrorCode, StoreError};
use hyper::header::{HeaderValue, TE, TRAILER};
use hyper::{HeaderMap, StatusCode};
use std::sync::Arc;
use tokio::time::Instant;

/// Answers `wait=true`.
pub(crate) async fn wait<B: Backend>(
    app: &App<B>,
    mut request: WaitRequest,
    headers: &HeaderMap,
) -> Answer<B::Watch> {
    let as_events = event_stream::is_wanted(headers);
    if as_events {
        request.watch.stream = true;
        match last_event_id(headers) {
            Ok(Some(seen)) => request.watch.since = seen.saturating_add(1),
            Ok(None) => {}
            Err(error) => return answer::error(&error),
        }
    }
    let deadline = request.timeout.map(|timeout| Instant::now() + timeout);
    let (stream, since) = (request.watch.stream, request.watch.since);
    let watch = match app.backend.watch(request.watch) {
        Ok(watch) => watch,
        Err(error) if as_events => return refuse_events(app, &error),
        Err(error) => return answer::error(&error),
    };
    let count = WatcherCount::new(&app.stats);
    let form = match (as_events, stream) {
        (true, _) => Form::EventStream,
        (false, true) => Form::Lines,
        (false, false) => Form::Once,
    };
    match deadline {
        Some(deadline) if form == Form::Once => {
            let answer = held(app, watch, deadline).await;
            drop(count);
            answer
        }
        deadline => {
            flushed(app, watch, count, form, Asked { since, deadline, trailers: takes_trailers(headers) })
        }
    }
}

/// What shapes an answer whose head goes out at once.
#[derive(Clone, Copy)]
struct Asked {
    since: u64,
    deadline: Option<Instant>,
    trailers: bool,
}

fn flushed<B: Backend>(
    app: &App<B>,
    watch: B::Watch,
    count: WatcherCount,
    form: Form,
    Asked { since, deadline, trailers }: Asked,
) -> Answer<B::Watch> {
    let registered = watch.registered_index();
    let position = Position::of(&app.backend.summary(), registered);
    let as_events = form == Form::EventStream;
    let with_trailer = trailers && form == Form::Once;
    let extras = (as_events || with_trailer || deadline.is_some()).then(|| {
        let seen = if since == 0 { registered } else { since - 1 };
        let backend = app.backend.clone();
        let trailer = move || backend.summary().index;
        Box::new(Extras {
            greeting: as_events.then(|| event_stream::greeting(seen)),
            deadline,
            keep_alive: as_events.then_some(app.config.keep_alive),
            trailer: with_trailer.then(|| Box::new(trailer) as Box<_>),
        })
    });
    let body = WatchBody::new(watch, form, extras, Arc::clone(&app.closing), count);
    if as_events {
        return answer::event_stream(position, Kind::Watch(body));
    }
    let mut answer = answer::keys(StatusCode::OK, position, Kind::Watch(body));
    if with_trailer {
        answer.headers_mut().insert(TRAILER, HeaderValue::from_static("X-Etcd-Index"));
    }
    answer
}

/// Waits for the event before anything is answered, so that the headers are of the moment of the answer.
async fn held<B: Backend>(app: &App<B>, watch: B::Watch, deadline: Instant) -> Answer<B::Watch> {
    let outcome = watch::within(watch, deadline, &app.closing).await;
    let summary = app.backend.summary();
    let (index, body) = match outcome {
        Outcome::Event(line) => (summary.index, line),
        Outcome::Nothing(seen) => (seen, super::render::timeout(seen)),
        Outcome::Ended(error) => return answer::error(&error),
    };
    answer::keys(StatusCode::OK, Position::of(&summary, index), Kind::Full(body))
}

/// Tells a browser what went wrong in the one way in which a page can read it; it comes back for what happens from now on.
fn refuse_events<B: Backend>(app: &App<B>, error: &StoreError) -> Answer<B::Watch> {
    let body = Kind::Full(event_stream::error(error));
    answer::event_stream(Position::of(&app.backend.summary(), error.index), body)
}

/// The index that a browser has come to. It gives back what it was given, so that anything else is a mistake.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, StoreError> {
    let id = headers.get(event_stream::LAST_EVENT_ID).filter(|id| !id.is_empty());
    params::number(ErrorCode::IndexNaN, "Last-Event-ID", id.map(HeaderValue::as_bytes))
}

/// Whether the client says that it takes trailers.
fn takes_trailers(headers: &HeaderMap) -> bool {
    let named = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').any(|item| item.trim().eq_ignore_ascii_case("trailers"))
    };
    headers.contains_key(TE) && headers.get_all(TE).iter().any(named)
}
