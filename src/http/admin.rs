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
use super::members;
use super::route::AdminRoute;
use super::{App, json, render};
use crate::replica::MemberChange;
use crate::store::{ErrorCode, StoreError};
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;

const REMOVE_DELAY_SECONDS: f64 = 1800.0;
const SYNC_INTERVAL_SECONDS: f64 = 5.0;

/// `/v2/leader`: the URL at which the leader's peers reach it.
pub(crate) fn leader<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let summary = app.backend.summary();
    let leader = summary.members.get(&app.backend.status().leader);
    match leader.and_then(|member| member.peer_urls.first()) {
        Some(url) => answer::text(StatusCode::OK, url.clone()),
        None => answer::error(&StoreError::new(ErrorCode::LeaderElect, "", summary.index)),
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
        AdminRoute::Remove(name) => match remove_machine(&app.backend, &name).await {
            Ok(index) => answer::octets(index),
            Err((status, reason)) => answer::json(status, reason),
        },
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
    backend.summary().members.values().filter(|member| !member.learner).count()
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
    let summary = backend.summary();
    let leader = backend.status().leader;
    let mut out = BytesMut::new();
    if let Some(name) = name {
        match summary.members.values().find(|member| member.name.as_bytes() == name) {
            Some(member) => put(&mut out, member, leader),
            None => out.put_slice(b"null"),
        }
        return out.freeze();
    }
    out.put_u8(b'[');
    for (at, member) in summary.members.values().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        put(&mut out, member, leader);
    }
    out.put_u8(b']');
    out.freeze()
}

/// Removes a member by its name, under the rules of `DELETE /v2/members/<id>`. The body is the commit index as 0.4 gave
/// it: a varint in eight bytes, or nothing if there is no such member.
///
/// # Errors
/// The status and the body of the refusal.
pub async fn remove_machine(backend: &impl Backend, name: &[u8]) -> Result<Bytes, (StatusCode, Bytes)> {
    let id = backend
        .summary()
        .members
        .values()
        .find(|member| member.name.as_bytes() == name)
        .map(|member| member.id);
    let Some(id) = id else { return Ok(Bytes::new()) };
    match backend.change_members(MemberChange::Remove { id }).await {
        Ok(_) => Ok(varint_of_eight(backend.status().commit)),
        Err(error) => {
            let (status, text) = members::reason(&error, &Method::DELETE, &format!("{id:x}"));
            Err((status, render::message(&text)))
        }
    }
}

/// Go's `binary.PutUvarint` into eight bytes.
fn varint_of_eight(mut number: u64) -> Bytes {
    let mut out = [0; 8];
    for byte in &mut out {
        *byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            break;
        }
        *byte |= 0x80;
    }
    Bytes::copy_from_slice(&out)
}

#[cfg(test)]
#[test]
fn varints_are_as_go_writes_them() {
    for (number, bytes) in [
        (0, [0, 0, 0, 0, 0, 0, 0, 0]),
        (127, [0x7f, 0, 0, 0, 0, 0, 0, 0]),
        (300, [0xac, 2, 0, 0, 0, 0, 0, 0]),
        (1 << 49, [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
    ] {
        assert_eq!(varint_of_eight(number), &bytes[..]);
    }
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
