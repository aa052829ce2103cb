//! Where a request goes: method and path in, route or refusal out. Pure.
//!
//! Paths are matched in decoded form, as etcd's router does: `%2F` is a separator like any other, and a path that is
//! not clean (`//`, `.`, `..`) is answered with a redirect to the clean one before anything is looked up.

use super::form::hex_pair;
use crate::store::Key;
use bytes::Bytes;
use hyper::Method;
use std::borrow::Cow;

/// Who handles a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/keys`, and the discovery service's view of it.
    Keys(Key),
    /// `/v2/members`: all members, or changes of membership.
    Members(MembersRoute),
    /// `/v2/machines`.
    Machines,
    /// `/v2/leader` of etcd 0.4.
    Leader,
    /// `/v2/admin` of etcd 0.4.
    Admin(AdminRoute),
    /// `/v2/stats/store`.
    StatsStore,
    /// `/v2/stats/self`.
    StatsSelf,
    /// `/v2/stats/leader`.
    StatsLeader,
    /// `/version`.
    Version,
    /// `/health`.
    Health,
    /// `/metrics`.
    Metrics,
    /// `/debug/vars`.
    DebugVars,
    /// `/new`: a new discovery token.
    NewToken,
}

/// What 0.4's tools ask of `/v2/admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminRoute {
    /// The cluster's configuration.
    Config,
    /// A change of it.
    ChangeConfig,
    /// All members.
    Machines,
    /// The member of this name.
    Machine(Vec<u8>),
    /// The removal of the member of this name.
    Remove(Vec<u8>),
}

/// What is asked about members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MembersRoute {
    /// All of them.
    List,
    /// The one that leads.
    Leader,
    /// A path below `/v2/members` that names nothing that can be read.
    Unknown,
    /// A change of membership.
    Change,
    /// A change of the collection as a whole, which there is not.
    ChangeAll,
}

/// An answer that needs no handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 200 without a body: `OPTIONS`, wherever it is sent.
    Options,
    /// 400: an escape in the path that is none.
    BadPath,
    /// 301 to the clean form of the path, query kept.
    Moved(String),
    /// 404.
    NotFound,
    /// 405 with these methods as `Allow`.
    NotAllowed(&'static str),
}

/// Below this directory the discovery service keeps its tokens.
pub(crate) const REGISTRY: &str = "/_etcd/registry/";

/// Finds the handler of a request.
pub(crate) fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, Refusal> {
    let path = decode(path).ok_or(Refusal::BadPath)?;
    if method == Method::OPTIONS {
        return Err(Refusal::Options);
    }
    if !path.starts_with(b"/") {
        return Err(Refusal::BadPath);
    }
    if let Some(clean) = clean(&path) {
        return Err(Refusal::Moved(location(&clean, query)));
    }
    if let Some(key) = path.strip_prefix(b"/v2/keys").filter(|key| key.is_empty() || key[0] == b'/') {
        allow(method, "HEAD,GET,PUT,POST,DELETE")?;
        return key_of(b"", key).map(Route::Keys);
    }
    match &path[..] {
        b"/v2/machines" => allow(method, "GET,HEAD").map(|()| Route::Machines),
        b"/v2/leader" => allow(method, "GET,HEAD").map(|()| Route::Leader),
        b"/v2/admin/config" => {
            allow(method, "GET,PUT")?;
            let change = method == Method::PUT;
            Ok(Route::Admin(if change { AdminRoute::ChangeConfig } else { AdminRoute::Config }))
        }
        b"/v2/admin/machines" | b"/v2/admin/machines/" => {
            allow(method, "GET").map(|()| Route::Admin(AdminRoute::Machines))
        }
        b"/v2/stats/store" => allow(method, "GET").map(|()| Route::StatsStore),
        b"/v2/stats/self" => allow(method, "GET").map(|()| Route::StatsSelf),
        b"/v2/stats/leader" => allow(method, "GET").map(|()| Route::StatsLeader),
        b"/version" => allow(method, "GET").map(|()| Route::Version),
        b"/health" => allow(method, "GET").map(|()| Route::Health),
        b"/metrics" => Ok(Route::Metrics),
        b"/debug/vars" => allow(method, "GET").map(|()| Route::DebugVars),
        b"/new" => Ok(Route::NewToken),
        other => {
            if let Some(rest) =
                other.strip_prefix(b"/v2/members").filter(|rest| rest.first().is_none_or(|&b| b == b'/'))
            {
                return members(method, rest).map(Route::Members);
            }
            match other.strip_prefix(b"/v2/admin/machines/") {
                Some(name) => {
                    allow(method, "GET,DELETE")?;
                    let removes = method == Method::DELETE;
                    Ok(Route::Admin(if removes {
                        AdminRoute::Remove(name.to_vec())
                    } else {
                        AdminRoute::Machine(name.to_vec())
                    }))
                }
                None => registry(method, other),
            }
        }
    }
}

/// Routes what comes after `/v2/members`.
fn members(method: &Method, rest: &[u8]) -> Result<MembersRoute, Refusal> {
    allow(method, "GET,POST,DELETE,PUT")?;
    Ok(match (method == Method::GET, rest) {
        (true, b"" | b"/") => MembersRoute::List,
        (true, b"/leader") => MembersRoute::Leader,
        (true, _) => MembersRoute::Unknown,
        (false, b"" | b"/") if method != Method::POST => MembersRoute::ChangeAll,
        (false, _) => MembersRoute::Change,
    })
}

/// Routes the discovery service: `/<token>`, `/<token>/<machine>` and `/<token>/_config/size`, as views of the keys
/// that the registry keeps for the token.
fn registry(method: &Method, path: &[u8]) -> Result<Route, Refusal> {
    const TOKEN_LEN: usize = 32;
    let is_token = |token: &[u8]| token.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (token, rest) = path[1..].split_at_checked(TOKEN_LEN).ok_or(Refusal::NotFound)?;
    if !is_token(token) {
        return Err(Refusal::NotFound);
    }
    match rest {
        b"" | b"/" => allow(method, "GET,HEAD,PUT")?,
        b"/_config/size" => allow(method, "GET,HEAD")?,
        [b'/', machine @ ..] if !machine.contains(&b'/') => allow(method, "GET,HEAD,PUT,DELETE")?,
        _ => return Err(Refusal::NotFound),
    }
    key_of(REGISTRY.as_bytes(), &path[1..]).map(Route::Keys)
}

/// The key that a clean path names, with or without a trailing slash.
fn key_of(prefix: &[u8], path: &[u8]) -> Result<Key, Refusal> {
    let mut key = [prefix, path].concat();
    if key.len() > 1 && key.ends_with(b"/") {
        key.pop();
    }
    if key.is_empty() {
        key.push(b'/');
    }
    Key::from_clean(Bytes::from(key)).ok_or(Refusal::NotFound)
}

fn allow(method: &Method, allowed: &'static str) -> Result<(), Refusal> {
    if allowed.split(',').any(|allowed| allowed == method.as_str()) {
        return Ok(());
    }
    Err(Refusal::NotAllowed(allowed))
}

/// Decodes `%XX`; `+` is itself in paths. `None`: a `%` without two hexadecimal digits.
fn decode(path: &str) -> Option<Cow<'_, [u8]>> {
    let bytes = path.as_bytes();
    if !bytes.contains(&b'%') {
        return Some(Cow::Borrowed(bytes));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            decoded.push(hex_pair(tail)?);
            rest = &tail[2..];
        } else {
            decoded.push(*first);
            rest = tail;
        }
    }
    Some(Cow::Owned(decoded))
}

/// The clean form of an absolute path, if it is another: no empty, `.` or `..` segment. A trailing slash stays.
fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let inner = path.strip_suffix(b"/").unwrap_or(path);
    let mut segments = inner.split(|&byte| byte == b'/').skip(1);
    if !segments.any(|segment| matches!(segment, b"" | b"." | b"..")) {
        return None;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => _ = kept.pop(),
            name => kept.push(name),
        }
    }
    let mut cleaned = vec![b'/'];
    cleaned.extend(kept.join(&b'/'));
    if path.ends_with(b"/") && cleaned.len() > 1 {
        cleaned.push(b'/');
    }
    Some(cleaned)
}

/// Writes a path and query as a `Location`, escaping what Go's `net/url` escapes in a path.
fn location(path: &[u8], query: Option<&str>) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut location = String::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            location.push(char::from(byte));
        } else {
            location.push('%');
            location.push(char::from(HEX[usize::from(byte >> 4)]));
            location.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        location.push('?');
        location.push_str(query);
    }
    location
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
