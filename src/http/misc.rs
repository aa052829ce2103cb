//! What clients and operators ask about the member itself: `/version`, `/health`, `/v2/stats`, `/metrics`, `/debug/vars`.
//!
//! Only figures that are known are shown: etcd's counts of append requests and latencies of followers are left out.

use super::App;
use super::answer::{self, Answer};
use super::backend::{Backend, Consistency, Status};
use super::stats::Operation;
use super::{calendar, json, render};
use bytes::{BufMut, BytesMut};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::fmt::Write as _;
use std::time::SystemTime;

/// `/version`.
///
/// The version of etcd is the last one whose only API is this one: clients that choose their protocol by it (a server
/// from 3.1 on is asked for the gRPC API) choose right. What runs is in a field of its own, which others ignore.
pub(crate) fn version<W>() -> Answer<W> {
    const VERSION: &str = concat!(
        r#"{"etcdserver":"2.3.8","etcdcluster":"2.3.0","quorate":""#,
        env!("CARGO_PKG_VERSION"),
        r#""}"#
    );
    answer::json(StatusCode::OK, VERSION.into())
}

/// `/health`: whether a linearizable read succeeds in time, so whether the member has a leader and that a quorum. Alarms
/// are named; a member with an alarm that still answers reads is healthy, so that nobody stops asking it.
pub(crate) async fn health<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let read = app.backend.read(Consistency::Linearizable);
    let read = tokio::time::timeout(app.config.health_timeout, read).await;
    let healthy = matches!(read, Ok(Ok(_))) && app.backend.refusal().is_none();
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let alarms: Vec<_> = app.backend.status().alarms.iter().map(|alarm| alarm.name()).collect();
    if alarms.is_empty() {
        return answer::text(status, format!(r#"{{"health":"{healthy}"}}"#));
    }
    answer::text(status, format!(r#"{{"health":"{healthy}","reason":"ALARM {}"}}"#, alarms.join(" ")))
}

/// `/v2/stats/store`.
pub(crate) fn stats_store<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    answer::json(StatusCode::OK, app.stats.store_json(app.backend.status().expired).freeze())
}

/// `/v2/stats/self`.
pub(crate) fn stats_self<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let status = app.backend.status();
    let mut out = BytesMut::with_capacity(320);
    out.put_slice(b"{\"name\":");
    json::string(&mut out, status.name.as_bytes());
    _ = write!(out, ",\"id\":\"{:x}\",\"state\":\"{}\",\"startTime\":\"", status.id, state(&status));
    calendar::rfc3339(&mut out, app.started);
    let leader = hex_or_empty(status.leader);
    _ = write!(out, "\",\"leaderInfo\":{{\"leader\":\"{leader}\",\"uptime\":\"");
    calendar::duration(&mut out, status.leader_uptime);
    out.put_slice(b"\",\"startTime\":\"");
    let since = SystemTime::now().checked_sub(status.leader_uptime);
    calendar::rfc3339(&mut out, since.unwrap_or(SystemTime::UNIX_EPOCH));
    out.put_slice(b"\"}}");
    answer::json(StatusCode::OK, out.freeze())
}

/// `/v2/stats/leader`: only the leader answers.
pub(crate) fn stats_leader<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let status = app.backend.status();
    if status.leader != status.id {
        return answer::json(StatusCode::FORBIDDEN, render::message("not current leader"));
    }
    let body = format!("{{\"leader\":\"{:x}\",\"followers\":{{}}}}", status.id);
    answer::json(StatusCode::OK, body.into())
}

/// `/debug/vars`.
pub(crate) fn debug_vars<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let status = app.backend.status();
    let command_line: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut out = BytesMut::from(&b"{\n\"cmdline\": "[..]);
    json::strings(&mut out, &command_line);
    _ = write!(
        out,
        ",\n\"raft.status\": {{\"id\":\"{:x}\",\"term\":{},\"commit\":{},\"applied\":{},\"lead\":\"{:x}\",\"raftState\":\"{}\"}}\n}}\n",
        status.id,
        status.term,
        status.commit,
        status.applied,
        status.leader,
        state(&status),
    );
    let mut answer = answer::json(StatusCode::OK, out.freeze());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    answer
}

/// `/metrics`, in Prometheus' text format; under etcd's names where it has the same figures.
pub(crate) fn metrics<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let status = app.backend.status();
    let view = app.backend.view();
    let (watch_requests, watchers) = app.stats.watches();
    let mut out = String::with_capacity(4096);
    let is_leader = status.leader != 0 && status.leader == status.id;
    for (name, kind, help, value) in [
        ("etcd_server_has_leader", "gauge", "Whether a leader is known.", u64::from(status.leader != 0)),
        ("etcd_server_is_leader", "gauge", "Whether this member leads.", u64::from(is_leader)),
        (
            "etcd_server_proposals_committed_total",
            "gauge",
            "Highest log position known to be committed.",
            status.commit,
        ),
        ("etcd_server_proposals_applied_total", "gauge", "Highest log position applied.", status.applied),
        ("etcd_debugging_store_expires_total", "counter", "Keys that expired.", status.expired),
        ("etcd_debugging_store_watch_requests_total", "counter", "Waits that clients began.", watch_requests),
        ("etcd_debugging_store_watchers", "gauge", "Waits that are on.", watchers),
        ("quorate_raft_term", "gauge", "The current term.", status.term),
        ("quorate_store_index", "gauge", "X-Etcd-Index.", view.store.index()),
        ("quorate_store_nodes", "gauge", "Keys and directories.", view.store.node_count() as u64),
        ("quorate_store_bytes", "gauge", "Bytes of all keys and values.", view.store.byte_count()),
        (
            "quorate_store_ttl_nodes",
            "gauge",
            "Keys and directories that will expire.",
            view.store.ttl_count() as u64,
        ),
        (
            "quorate_history_events",
            "gauge",
            "Past events that a wait can begin at.",
            view.store.history().len() as u64,
        ),
        ("quorate_client_connections", "gauge", "Open connections of clients.", app.stats.connections()),
    ] {
        _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    let of_reads = |operation: &Operation| *operation == Operation::Get;
    for (name, help, reads, failed) in [
        ("etcd_debugging_store_reads_total", "Reads that clients of this member did.", true, false),
        ("etcd_debugging_store_reads_failed_total", "Such reads that failed.", true, true),
        ("etcd_debugging_store_writes_total", "Writes that clients of this member did.", false, false),
        ("etcd_debugging_store_writes_failed_total", "Such writes that failed.", false, true),
    ] {
        _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
        for operation in Operation::ALL.into_iter().filter(|operation| of_reads(operation) == reads) {
            let (succeeded, failures) = app.stats.counted(operation);
            let count = if failed { failures } else { succeeded };
            _ = writeln!(out, "{name}{{action=\"{}\"}} {count}", operation.name());
        }
    }
    app.backend.metrics(&mut out);
    let mut answer: Answer<B::Watch> = Response::new(super::body::Kind::Full(out.into()));
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

fn state(status: &Status) -> &'static str {
    if status.leader != 0 && status.leader == status.id { "StateLeader" } else { "StateFollower" }
}

fn hex_or_empty(id: u64) -> String {
    if id == 0 { String::new() } else { format!("{id:x}") }
}
