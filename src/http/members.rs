//! `/v2/members` and `/v2/machines`.
//!
//! Answers as etcd 3.4's, with these differences: a member that is added joins without a vote and gets it when it has
//! caught up; `"standby": true` in the body of a `POST` leaves it without, until `POST /v2/members/<id>/promote`; members
//! without a vote are listed with `"isLearner": true`; and where etcd answers a change that it refuses, or that found no
//! quorum, with a bare 500, the reason is given.

use super::App;
use super::answer::{self, Answer};
use super::backend::{Backend, BackendError, Member, MembersError};
use super::body::{self, BodyError};
use super::route::MembersRoute;
use super::{json, render};
use crate::replica::{ChangeError, MemberChange};
use bytes::{BufMut, BytesMut};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;

/// The largest body that is read; a member has a handful of URLs.
const BODY_BYTES_MAX: usize = 64 << 10;

/// More URLs than this are not taken, nor longer ones.
const URLS_MAX: usize = 16;
const URL_BYTES_MAX: usize = 1024;

/// What a change is asked with.
#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(default)]
    standby: bool,
}

/// Why a change is not even tried.
struct Refusal(StatusCode, String);

/// Answers what is asked about members.
pub(crate) async fn handle<B: Backend>(
    app: &App<B>,
    route: MembersRoute,
    request: Request<Incoming>,
) -> Answer<B::Watch> {
    let mut answer = match route {
        MembersRoute::List => list(app),
        MembersRoute::Leader => leader(app),
        MembersRoute::Unknown => message(StatusCode::NOT_FOUND, "Not found"),
        MembersRoute::ChangeAll => answer::not_allowed(),
        MembersRoute::Change => change(app, request).await,
    };
    if let Some(id) = app.cluster_id() {
        answer.headers_mut().insert(answer::CLUSTER_ID, id);
    }
    answer
}

/// Every client URL, as etcd 0.4's clients look for the cluster.
pub(crate) fn machines<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let summary = app.backend.summary();
    let mut urls: Vec<&str> =
        summary.members.values().flat_map(|member| &member.client_urls).map(String::as_str).collect();
    urls.sort_unstable();
    answer::text(StatusCode::OK, urls.join(", "))
}

fn message<W>(status: StatusCode, text: &str) -> Answer<W> {
    answer::json(status, render::message(text))
}

fn list<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let mut out = BytesMut::new();
    out.put_slice(b"{\"members\":[");
    for (at, member) in app.backend.summary().members.values().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        put(&mut out, member);
    }
    out.put_slice(b"]}\n");
    answer::json(StatusCode::OK, out.freeze())
}

fn leader<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    match app.backend.summary().members.get(&app.backend.status().leader) {
        Some(member) => one(StatusCode::OK, member),
        None => message(StatusCode::SERVICE_UNAVAILABLE, "During election"),
    }
}

fn one<W>(status: StatusCode, member: &Member) -> Answer<W> {
    let mut out = BytesMut::new();
    put(&mut out, member);
    out.put_u8(b'\n');
    answer::json(status, out.freeze())
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
    if member.learner {
        out.put_slice(b",\"isLearner\":true");
    }
    out.put_u8(b'}');
}

async fn change<B: Backend>(app: &App<B>, request: Request<Incoming>) -> Answer<B::Watch> {
    let method = request.method().clone();
    let path = request.uri().path();
    let id = path.strip_prefix("/v2/members").unwrap_or_default().trim_matches('/').to_owned();
    let content_type = request.headers().get(CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()));
    let content_type = content_type.unwrap_or_default().into_owned();
    let body = match body::read(request.into_body(), BODY_BYTES_MAX, app.config.body_timeout).await {
        Ok(body) => body,
        Err(error) => {
            let Refusal(status, text) = unread(error);
            return answer::closing(message(status, &text));
        }
    };
    let change = match change_of(app, &method, &id, &content_type, &body) {
        Ok(change) => change,
        Err(Refusal(status, text)) => return message(status, &text),
    };
    let adds = matches!(change, MemberChange::Add { .. });
    match app.backend.change_members(change).await {
        Ok(member) if adds => one(StatusCode::CREATED, &member),
        Ok(_) => answer::empty(StatusCode::NO_CONTENT),
        Err(error) => {
            let (status, text) = reason(&error, &method, &id);
            message(status, &text)
        }
    }
}

fn unread(error: BodyError) -> Refusal {
    let (status, text) = match error {
        BodyError::TooLarge => {
            let text = format!("the request body is larger than {BODY_BYTES_MAX} bytes");
            (StatusCode::PAYLOAD_TOO_LARGE, text)
        }
        BodyError::TooSlow => {
            (StatusCode::REQUEST_TIMEOUT, "the request body was not complete in time".to_owned())
        }
        BodyError::Broken => (StatusCode::BAD_REQUEST, "the request body is broken".to_owned()),
    };
    Refusal(status, text)
}

/// What is asked for, checked in etcd's order: the id, the body's type, the body. As there, a `POST` below the
/// collection adds a member too, but for the one path that promotes.
fn change_of<B: Backend>(
    app: &App<B>,
    method: &Method,
    id: &str,
    content_type: &str,
    body: &[u8],
) -> Result<MemberChange, Refusal> {
    if *method == Method::POST {
        if let Some(id) = id.strip_suffix("/promote") {
            return Ok(MemberChange::Promote { id: parse_id(id)? });
        }
        let Wanted { peer_urls, standby } = parse_body(content_type, body)?;
        let peer_urls = check_urls(peer_urls)?;
        return Ok(MemberChange::Add { id: app.backend.new_member_id(&peer_urls), peer_urls, standby });
    }
    let id = parse_id(id)?;
    if *method == Method::PUT {
        let peer_urls = check_urls(parse_body(content_type, body)?.peer_urls)?;
        return Ok(MemberChange::Update { id, peer_urls });
    }
    Ok(MemberChange::Remove { id })
}

fn parse_id(text: &str) -> Result<u64, Refusal> {
    // `from_str_radix` alone would take a sign.
    let id = u64::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'));
    id.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("No such member: {text}")))
}

fn parse_body(content_type: &str, body: &[u8]) -> Result<Wanted, Refusal> {
    if content_type.split(';').next().unwrap_or_default().trim() != "application/json" {
        let text = format!("Bad Content-Type {content_type}, accept application/json");
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    serde_json::from_slice(body).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

/// As etcd checks them: sorted, each `http(s)://host:port` and nothing else.
fn check_urls(urls: Option<Vec<String>>) -> Result<Vec<String>, Refusal> {
    let bad = |text: String| Err(Refusal(StatusCode::BAD_REQUEST, text));
    let mut urls = urls.unwrap_or_default();
    if urls.is_empty() {
        return bad("no valid URLs given".to_owned());
    }
    if urls.len() > URLS_MAX || urls.iter().any(|url| url.len() > URL_BYTES_MAX) {
        return bad(format!("more than {URLS_MAX} URLs, or one of more than {URL_BYTES_MAX} bytes"));
    }
    for url in &mut urls {
        let trimmed = url.trim().trim_end_matches('/').to_owned();
        let Some((scheme, authority)) = trimmed.split_once("://") else {
            return bad(format!("URL scheme must be http or https: {url}"));
        };
        if scheme != "http" && scheme != "https" {
            return bad(format!("URL scheme must be http or https: {url}"));
        }
        if authority.contains('/') {
            return bad(format!("URL must not contain a path: {url}"));
        }
        let port = authority.rsplit_once(':').and_then(|(host, port)| {
            port.parse::<u16>().ok().filter(|port| *port > 0 && !host.is_empty() && !host.contains('@'))
        });
        if port.is_none() || authority.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return bad(format!("URL address does not have the form \"host:port\": {url}"));
        }
        *url = trimmed;
    }
    urls.sort_unstable();
    urls.dedup();
    Ok(urls)
}

/// How a change that was not made is answered.
pub(super) fn reason(error: &MembersError, method: &Method, id: &str) -> (StatusCode, String) {
    let id = id.trim_end_matches("/promote");
    match error {
        MembersError::Refused(reason) => match reason {
            ChangeError::NotFound => (StatusCode::NOT_FOUND, format!("No such member: {id}")),
            ChangeError::Removed if *method == Method::DELETE => {
                (StatusCode::GONE, format!("Member permanently removed: {id}"))
            }
            ChangeError::Removed => (StatusCode::GONE, reason.to_string()),
            ChangeError::IdExists
            | ChangeError::UrlExists
            | ChangeError::TooMany
            | ChangeError::NoQuorum { .. }
            | ChangeError::LastVoter => (StatusCode::CONFLICT, reason.to_string()),
        },
        MembersError::Backend(BackendError::Overloaded | BackendError::Removed) => {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        MembersError::Backend(_) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_as_etcd_does() {
        type Checked = Result<&'static [&'static str], &'static str>;
        let table: [(&[&str], Checked); 9] = [
            (&["http://b:2", "http://a:1/"], Ok(&["http://a:1", "http://b:2"])),
            (&["https://[::1]:7001"], Ok(&["https://[::1]:7001"])),
            (&[], Err("no valid URLs given")),
            (&["ftp://h:1"], Err("URL scheme must be http or https: ftp://h:1")),
            (&["h:1"], Err("URL scheme must be http or https: h:1")),
            (&["http://h"], Err("URL address does not have the form \"host:port\": http://h")),
            (&["http://:1"], Err("URL address does not have the form \"host:port\": http://:1")),
            (&["http://h:0"], Err("URL address does not have the form \"host:port\": http://h:0")),
            (&["http://h:1/x"], Err("URL must not contain a path: http://h:1/x")),
        ];
        for (urls, expected) in table {
            let given = urls.iter().map(ToString::to_string).collect();
            let checked = check_urls(Some(given)).map_err(|Refusal(_, text)| text);
            match expected {
                Ok(expected) => assert_eq!(checked.unwrap(), expected),
                Err(text) => assert_eq!(checked.unwrap_err(), text),
            }
        }
        assert!(check_urls(Some(vec!["http://h:1".to_owned(); URLS_MAX + 1])).is_err());
    }
}
