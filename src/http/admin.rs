//! What is left of etcd 0.4's own endpoints: `/v2/leader`, `/v2/admin/config` and `/v2/admin/machines`. Later versions
//! dropped them; 0.4's tools ask for them still, the latter two at the peer port, where `node` answers them too.
//!
//! `/v2/admin/config` governed how 0.4 made members standbys and back, by itself. Nothing here does that: `activeSize` is
//! the number of members that vote, and the two times are 0.4's defaults. A change that would change nothing is granted,
//! as it would have been; another is refused with 501 rather than stored and ignored, since whoever asks for three
//! active members would believe that there are never more.

use super::answer::{self, Answer};
use super::backend::{Backend, Member};
use super::body;
use super::route::AdminRoute;
use super::{App, json, render};
use crate::store::{ErrorCode, StoreError};
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;

const REMOVE_DELAY_SECONDS: f64 = 1800.0;
const SYNC_INTERVAL_SECONDS: f64 = 5.0;

/// `/v2/leader`: the URL at which the leader's peers reach it.
pub(crate) fn leader<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let view = app.backend.view();
    let leader = view.members.get(&app.backend.status().leader);
    match leader.and_then(|member| member.peer_urls.first()) {
        Some(url) => answer::text(StatusCode::OK, url.clone()),
        None => answer::error(&StoreError::new(ErrorCode::LeaderElect, "", view.store.index())),
    }
}

/// Answers what is asked of `/v2/admin`.
pub(crate) async fn handle<B: Backend>(
    app: &App<B>,
    route: AdminRoute,
    request: Request<Incoming>,
) -> Answer<B::Watch> {
    match route {
        AdminRoute::Config => answer::json(StatusCode::OK, config_json(&app.backend)),
        AdminRoute::ChangeConfig => {
            let body =
                body::read(request.into_body(), app.config.max_body_bytes, app.config.body_timeout).await;
            match body.ok().and_then(|body| serde_json::from_slice::<Wanted>(&body).ok()) {
                Some(wanted) => change(app, &wanted),
                None => answer::closing(refused(StatusCode::BAD_REQUEST, "Invalid json body")),
            }
        }
        AdminRoute::Machines => answer::json(StatusCode::OK, machines_json(&app.backend, None)),
        AdminRoute::Machine(name) => answer::json(StatusCode::OK, machines_json(&app.backend, Some(&name))),
        AdminRoute::Remove => {
            refused(StatusCode::NOT_IMPLEMENTED, "members are removed with DELETE /v2/members/<id>")
        }
    }
}

/// A configuration that is wanted: any subset of the fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    active_size: Option<f64>,
    remove_delay: Option<f64>,
    sync_interval: Option<f64>,
}

fn change<B: Backend>(app: &App<B>, wanted: &Wanted) -> Answer<B::Watch> {
    let same = |wanted: Option<f64>, is: f64| wanted.is_none_or(|wanted| (wanted - is).abs() < 1e-9);
    if same(wanted.active_size, active_size(&app.backend) as f64)
        && same(wanted.remove_delay, REMOVE_DELAY_SECONDS)
        && same(wanted.sync_interval, SYNC_INTERVAL_SECONDS)
    {
        return answer::json(StatusCode::OK, config_json(&app.backend));
    }
    let text = "the cluster does not change its size by itself: members are added and removed at /v2/members";
    refused(StatusCode::NOT_IMPLEMENTED, text)
}

fn refused<W>(status: StatusCode, text: &str) -> Answer<W> {
    answer::json(status, render::message(text))
}

fn active_size(backend: &impl Backend) -> usize {
    backend.view().members.values().filter(|member| !member.learner).count()
}

/// `/v2/admin/config`.
pub fn config_json(backend: &impl Backend) -> Bytes {
    let active = active_size(backend);
    let config = format!(
        "{{\"activeSize\":{active},\"removeDelay\":{REMOVE_DELAY_SECONDS},\"syncInterval\":{SYNC_INTERVAL_SECONDS}}}\n"
    );
    config.into()
}

/// `/v2/admin/machines`, or one of them by its name: `null` if there is none.
pub fn machines_json(backend: &impl Backend, name: Option<&[u8]>) -> Bytes {
    let view = backend.view();
    let leader = backend.status().leader;
    let mut out = BytesMut::new();
    if let Some(name) = name {
        match view.members.values().find(|member| member.name.as_bytes() == name) {
            Some(member) => put(&mut out, member, leader),
            None => out.put_slice(b"null"),
        }
        return out.freeze();
    }
    out.put_u8(b'[');
    for (at, member) in view.members.values().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        put(&mut out, member, leader);
    }
    out.put_u8(b']');
    out.freeze()
}

fn put(out: &mut BytesMut, member: &Member, leader: u64) {
    let first = |urls: &[String]| urls.first().cloned().unwrap_or_default();
    let state = if member.id == leader { "leader" } else { "follower" };
    for (name, value) in [
        ("{\"name\":", &member.name),
        (",\"state\":", &state.to_owned()),
        (",\"clientURL\":", &first(&member.client_urls)),
        (",\"peerURL\":", &first(&member.peer_urls)),
    ] {
        out.put_slice(name.as_bytes());
        json::string(out, value.as_bytes());
    }
    out.put_u8(b'}');
}
