//! `/v2/members` and `/v2/machines`.
//!
//! Reading only: membership is not changed through this API yet, and requests to do so are told that with 501.

use super::App;
use super::answer::{self, Answer};
use super::backend::{Backend, Member};
use super::route::MembersRoute;
use super::{json, render};
use bytes::{BufMut, BytesMut};
use hyper::StatusCode;

/// Answers what is asked about members.
pub(crate) fn handle<B: Backend>(app: &App<B>, route: MembersRoute) -> Answer<B::Watch> {
    let mut answer = match route {
        MembersRoute::List => list(app),
        MembersRoute::Leader => leader(app),
        MembersRoute::Unknown => answer::json(StatusCode::NOT_FOUND, render::message("Not found")),
        MembersRoute::ChangeAll => answer::not_allowed(),
        MembersRoute::Change => {
            let text = "changing the cluster's membership is not supported yet";
            answer::closing(answer::json(StatusCode::NOT_IMPLEMENTED, render::message(text)))
        }
    };
    if let Some(id) = app.cluster_id() {
        answer.headers_mut().insert(answer::CLUSTER_ID, id);
    }
    answer
}

/// Every client URL, as etcd 0.4's clients look for the cluster.
pub(crate) fn machines<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let view = app.backend.view();
    let mut urls: Vec<&str> =
        view.members.values().flat_map(|member| &member.client_urls).map(String::as_str).collect();
    urls.sort_unstable();
    answer::text(StatusCode::OK, urls.join(", "))
}

fn list<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let mut out = BytesMut::new();
    out.put_slice(b"{\"members\":[");
    for (at, member) in app.backend.view().members.values().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        put(&mut out, member);
    }
    out.put_slice(b"]}\n");
    answer::json(StatusCode::OK, out.freeze())
}

fn leader<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    match app.backend.view().members.get(&app.backend.status().leader) {
        Some(member) => {
            let mut out = BytesMut::new();
            put(&mut out, member);
            out.put_u8(b'\n');
            answer::json(StatusCode::OK, out.freeze())
        }
        None => answer::json(StatusCode::SERVICE_UNAVAILABLE, render::message("During election")),
    }
}

fn put(out: &mut BytesMut, member: &Member) {
    out.put_slice(b"{\"id\":");
    json::string(out, format!("{:x}", member.id).as_bytes());
    out.put_slice(b",\"name\":");
    json::string(out, member.name.as_bytes());
    out.put_slice(b",\"peerURLs\":");
    json::strings(out, &member.peer_urls);
    out.put_slice(b",\"clientURLs\":");
    json::strings(out, &member.client_urls);
    out.put_u8(b'}');
}
