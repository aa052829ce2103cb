//! What clients and operators ask about the member itself: `/version`, `/health`, `/v2/stats`, `/debug/vars`.
//!
//! Where etcd counts requests between members, this counts what there is instead: `sendAppendRequestCnt` and
//! `recvAppendRequestCnt` are messages with log entries, several of which may travel together; a follower's `latency` is that
//! of the messages whose receipt was timed, its `success` their number, and its `fail` the connections that were lost
//! or could not be made. `memstats` of `/debug/vars` is the process's memory as the system sees it.

use super::App;
use super::answer::{self, Answer};
use super::backend::{Appends, Backend, Consistency, PeerTraffic, Status};
use super::process::Process;
use super::{calendar, json, render};
use bytes::{BufMut, BytesMut};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
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
    out.put_slice(b"\"}");
    let traffic = app.backend.traffic();
    put_appends(&mut out, "recv", traffic.received);
    put_appends(&mut out, "send", traffic.sent);
    out.put_u8(b'}');
    answer::json(StatusCode::OK, out.freeze())
}

/// Writes `,"sendAppendRequestCnt":5,"sendPkgRate":9.5,"sendBandwidthRate":1200.5`; rates only if there are any.
fn put_appends(out: &mut BytesMut, prefix: &str, appends: Appends) {
    let Appends { count, per_second, bytes_per_second } = appends;
    _ = write!(out, ",\"{prefix}AppendRequestCnt\":{count}");
    if per_second > 0.0 {
        _ = write!(out, ",\"{prefix}PkgRate\":{per_second},\"{prefix}BandwidthRate\":{bytes_per_second}");
    }
}

/// `/v2/stats/leader`: only the leader answers.
pub(crate) fn stats_leader<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let status = app.backend.status();
    if status.leader != status.id {
        return answer::json(StatusCode::FORBIDDEN, render::message("not current leader"));
    }
    let mut out = BytesMut::with_capacity(1024);
    _ = write!(out, "{{\"leader\":\"{:x}\",\"followers\":{{", status.id);
    for (at, (id, peer)) in app.backend.traffic().peers.iter().enumerate() {
        let separator = if at > 0 { "," } else { "" };
        _ = write!(out, "{separator}\"{id:x}\":{{\"latency\":{{");
        put_latency(&mut out, peer);
        let PeerTraffic { failures, receipts, .. } = peer;
        _ = write!(out, "}},\"counts\":{{\"fail\":{failures},\"success\":{receipts}}}}}");
    }
    out.put_slice(b"}}");
    answer::json(StatusCode::OK, out.freeze())
}

/// A follower's latencies in milliseconds; a minimum of nothing is as large as can be, as in etcd.
fn put_latency(out: &mut BytesMut, peer: &PeerTraffic) {
    let [last, mean, deviation, min, max] = peer.latency.map(|time| (time.as_secs_f64() * 1e9).round() / 1e6);
    _ = write!(out, "\"current\":{last},\"average\":{mean},\"standardDeviation\":{deviation},");
    if peer.receipts == 0 {
        out.put_slice(b"\"minimum\":9223372036854776000");
    } else {
        _ = write!(out, "\"minimum\":{min}");
    }
    _ = write!(out, ",\"maximum\":{max}");
}

/// `/debug/vars`.
pub(crate) fn debug_vars<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let status = app.backend.status();
    let command_line: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut out = BytesMut::from(&b"{\n\"cmdline\": "[..]);
    json::strings(&mut out, &command_line);
    let process = Process::read();
    _ = write!(
        out,
        ",\n\"file_descriptor_limit\": {},\n\"memstats\": {{\"Alloc\":{},\"Sys\":{}}}",
        process.max_files.unwrap_or(u64::MAX),
        process.resident.unwrap_or(0),
        process.virtual_size.unwrap_or(0),
    );
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

pub(crate) fn state(status: &Status) -> &'static str {
    if status.leader != 0 && status.leader == status.id { "StateLeader" } else { "StateFollower" }
}

fn hex_or_empty(id: u64) -> String {
    if id == 0 { String::new() } else { format!("{id:x}") }
}
