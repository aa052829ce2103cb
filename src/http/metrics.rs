//! `/metrics`, in Prometheus' text format; under etcd's names where it has the same figures, `quorate_` where not.

use super::App;
use super::answer::Answer;
use super::backend::{Backend, Consistency, Traffic};
use super::params::KeysRequest;
use super::process::Process;
use super::stats::Operation;
use crate::store::Command;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

/// The kinds of requests that are told apart.
const METHODS: [&str; 5] = ["GET", "QGET", "PUT", "POST", "DELETE"];
/// The statuses that a request for a key can fail with.
const FAILURES: [u16; 7] = [400, 401, 403, 404, 412, 500, 503];
/// The bounds of the times that are told apart, in seconds: 0.5 ms, 1 ms, ... 2 s, as in etcd.
const BUCKETS: usize = 13;
const FIRST_BUCKET_SECONDS: f64 = 0.0005;

/// What came of the requests for keys.
#[derive(Debug, Default)]
pub(crate) struct Requests([OfMethod; METHODS.len()]);

#[derive(Debug, Default)]
struct OfMethod {
    received: AtomicU64,
    failed: [AtomicU64; FAILURES.len()],
    /// Each with those that took longer than the bound before; the last ones took longer than any bound.
    took: [AtomicU64; BUCKETS + 1],
    nanos: AtomicU64,
}

/// The kind of a request, for [`Requests`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method(usize);

impl Method {
    /// That of a request.
    pub(crate) fn of(request: &KeysRequest) -> Self {
        Self(match request {
            KeysRequest::Wait(_) => 0,
            KeysRequest::Read(read) => usize::from(read.consistency == Consistency::Linearizable),
            KeysRequest::Write { command: Command::CreateInOrder { .. }, .. } => 3,
            KeysRequest::Write {
                command: Command::Delete { .. } | Command::CompareAndDelete { .. }, ..
            } => 4,
            KeysRequest::Write { .. } => 2,
        })
    }
}

impl Requests {
    /// Counts a request that makes sense.
    pub(crate) fn received(&self, method: Method) {
        self.0[method.0].received.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts its answer. How long a wait takes says nothing.
    pub(crate) fn answered(&self, method: Method, status: StatusCode, took: Option<Duration>) {
        let counts = &self.0[method.0];
        if let Some(at) = FAILURES.iter().position(|&failure| failure == status.as_u16()) {
            counts.failed[at].fetch_add(1, Ordering::Relaxed);
        } else if let Some(took) = took {
            let seconds = took.as_secs_f64();
            let bucket = (0..BUCKETS).find(|&at| seconds <= bound(at)).unwrap_or(BUCKETS);
            counts.took[bucket].fetch_add(1, Ordering::Relaxed);
            counts.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    fn write(&self, out: &mut String) {
        const NAME: &str = "etcd_http_successful_duration_seconds";
        describe(out, "etcd_http_received_total", "counter", "Requests for keys.");
        for (method, counts) in METHODS.iter().zip(&self.0) {
            let received = counts.received.load(Ordering::Relaxed);
            _ = writeln!(out, "etcd_http_received_total{{method=\"{method}\"}} {received}");
        }
        describe(out, "etcd_http_failed_total", "counter", "Such requests that failed, by status.");
        for (method, counts) in METHODS.iter().zip(&self.0) {
            for (code, failed) in FAILURES.iter().zip(&counts.failed) {
                let failed = failed.load(Ordering::Relaxed);
                if failed > 0 {
                    _ = writeln!(
                        out,
                        "etcd_http_failed_total{{code=\"{code}\",method=\"{method}\"}} {failed}"
                    );
                }
            }
        }
        describe(out, NAME, "histogram", "How long the others took, waits apart.");
        for (method, counts) in METHODS.iter().zip(&self.0) {
            let mut sum = 0;
            for (at, took) in counts.took.iter().enumerate() {
                sum += took.load(Ordering::Relaxed);
                let bound = if at < BUCKETS { bound(at).to_string() } else { "+Inf".into() };
                _ = writeln!(out, "{NAME}_bucket{{method=\"{method}\",le=\"{bound}\"}} {sum}");
            }
            let seconds = counts.nanos.load(Ordering::Relaxed) as f64 / 1e9;
            _ = writeln!(out, "{NAME}_sum{{method=\"{method}\"}} {seconds}");
            _ = writeln!(out, "{NAME}_count{{method=\"{method}\"}} {sum}");
        }
    }
}

fn bound(bucket: usize) -> f64 {
    FIRST_BUCKET_SECONDS * (1_u64 << bucket) as f64
}

fn describe(out: &mut String, name: &str, kind: &str, help: &str) {
    _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Answers `/metrics`.
pub(crate) fn handle<B: Backend>(app: &App<B>) -> Answer<B::Watch> {
    let mut out = String::with_capacity(16 * 1024);
    member(&mut out, app);
    operations(&mut out, app);
    app.stats.requests.write(&mut out);
    peers(&mut out, &app.backend.traffic());
    process(&mut out, app);
    app.backend.metrics(&mut out);
    let mut answer: Answer<B::Watch> = Response::new(super::body::Kind::Full(out.into()));
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

fn member<B: Backend>(out: &mut String, app: &App<B>) {
    let status = app.backend.status();
    let state = app.backend.summary();
    let (watch_requests, watchers) = app.stats.watches();
    let leads = status.leader != 0 && status.leader == status.id;
    let learns = state.members.get(&status.id).is_some_and(|member| member.learner);
    for (name, kind, help, value) in [
        ("etcd_server_has_leader", "gauge", "Whether a leader is known.", u64::from(status.leader != 0)),
        ("etcd_server_is_leader", "gauge", "Whether this member leads.", u64::from(leads)),
        ("etcd_server_is_learner", "gauge", "Whether this member does not vote.", u64::from(learns)),
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
        ("quorate_store_index", "gauge", "X-Etcd-Index.", state.index),
        ("quorate_store_nodes", "gauge", "Keys and directories.", state.nodes as u64),
        ("quorate_store_bytes", "gauge", "Bytes of all keys and values.", state.bytes),
        (
            "quorate_store_ttl_nodes",
            "gauge",
            "Keys and directories that will expire.",
            state.ttl_nodes as u64,
        ),
        ("quorate_history_events", "gauge", "Past events that a wait can begin at.", state.events as u64),
        ("quorate_client_connections", "gauge", "Open connections of clients.", app.stats.connections()),
    ] {
        describe(out, name, kind, help);
        _ = writeln!(out, "{name} {value}");
    }
    for (name, label, value) in [
        ("etcd_server_id", "server_id", format!("{:x}", status.id)),
        ("quorate_version", "version", env!("CARGO_PKG_VERSION").to_owned()),
    ] {
        describe(out, name, "gauge", "What runs here.");
        _ = writeln!(out, "{name}{{{label}=\"{value}\"}} 1");
    }
}

fn operations<B: Backend>(out: &mut String, app: &App<B>) {
    let of_reads = |operation: &Operation| *operation == Operation::Get;
    for (name, help, reads, failed) in [
        ("etcd_debugging_store_reads_total", "Reads that clients of this member did.", true, false),
        ("etcd_debugging_store_reads_failed_total", "Such reads that failed.", true, true),
        ("etcd_debugging_store_writes_total", "Writes that clients of this member did.", false, false),
        ("etcd_debugging_store_writes_failed_total", "Such writes that failed.", false, true),
    ] {
        describe(out, name, "counter", help);
        for operation in Operation::ALL.into_iter().filter(|operation| of_reads(operation) == reads) {
            let (succeeded, failures) = app.stats.counted(operation);
            let count = if failed { failures } else { succeeded };
            _ = writeln!(out, "{name}{{action=\"{}\"}} {count}", operation.name());
        }
    }
}

fn peers(out: &mut String, traffic: &Traffic) {
    const NETWORK: &str = "etcd_network_peer";
    for (name, label, kind, help, figure) in [
        ("sent_bytes_total", "To", "counter", "Bytes sent to a peer.", 0),
        ("received_bytes_total", "From", "counter", "Bytes received from a peer.", 1),
        ("sent_failures_total", "To", "counter", "Connections to a peer that were lost or not made.", 2),
    ] {
        describe(out, &format!("{NETWORK}_{name}"), kind, help);
        for (id, peer) in &traffic.peers {
            let value = [peer.bytes_sent, peer.bytes_received, peer.failures][figure];
            _ = writeln!(out, "{NETWORK}_{name}{{{label}=\"{id:x}\"}} {value}");
        }
    }
    describe(out, "quorate_peer_round_trip_seconds", "summary", "From a message to its receipt.");
    for (id, peer) in &traffic.peers {
        let seconds = peer.latency[1].as_secs_f64() * peer.receipts as f64;
        _ = writeln!(out, "quorate_peer_round_trip_seconds_sum{{To=\"{id:x}\"}} {seconds}");
        _ = writeln!(out, "quorate_peer_round_trip_seconds_count{{To=\"{id:x}\"}} {}", peer.receipts);
    }
}

fn process<B: Backend>(out: &mut String, app: &App<B>) {
    let Process { resident, virtual_size, cpu, open_files, max_files } = Process::read();
    let started = app.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let float = |number: Option<u64>| number.map(|number| number as f64);
    for (name, kind, help, value) in [
        ("process_resident_memory_bytes", "gauge", "Memory in RAM.", float(resident)),
        ("process_virtual_memory_bytes", "gauge", "Address space.", float(virtual_size)),
        ("process_cpu_seconds_total", "counter", "Processor time of all threads.", cpu),
        ("process_open_fds", "gauge", "Open files and sockets.", float(open_files)),
        ("process_max_fds", "gauge", "How many there may be.", float(max_files)),
        ("process_start_time_seconds", "gauge", "When it began to serve.", Some(started)),
    ] {
        if let Some(value) = value {
            describe(out, name, kind, help);
            _ = writeln!(out, "{name} {value}");
        }
    }
}
