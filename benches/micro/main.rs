//! The parts of a request's way, one by one: parsing, rendering, watch matching, consensus without a network or disk,
//! and the log with its real fsync. The store has a benchmark of its own.

mod work;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quorate::storage::Log;
use raft::eraftpb::Entry;

fn http(c: &mut Criterion) {
    c.bench_function("parse_put", |b| b.iter(|| work::parse(1)));
    let event = work::event();
    c.bench_function("render_event", |b| b.iter(|| work::render(&event, 1)));
}

fn watches(c: &mut Criterion) {
    const EVENTS: u64 = 64;
    let mut group = c.benchmark_group("watch_match");
    group.throughput(Throughput::Elements(EVENTS));
    let outcomes = work::outcomes(EVENTS);
    for watchers in [100, 10_000] {
        let hub = work::hub(watchers);
        group.bench_function(BenchmarkId::from_parameter(watchers), |b| {
            b.iter(|| work::match_watchers(&hub, &outcomes));
        });
    }
    group.finish();
}

/// From proposal to applied on all three members.
fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("propose_to_applied");
    for batch in [1, 64] {
        let writes = work::overwrites(10_000, batch);
        let mut trio = work::Trio::start();
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| b.iter(|| trio.commit(&writes)));
    }
    group.finish();
}

/// One durable batch: what an acknowledgement waits for.
fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("log_append_sync");
    // Beside the build: a temporary directory may be in memory.
    let beside = std::env::current_exe().expect("this program has a path");
    let beside = beside.parent().expect("a program is in a directory");
    for bytes in [300usize, 20_000] {
        let scratch = tempfile::tempdir_in(beside).expect("the build's directory can be written");
        let (log, _) = Log::open(scratch.path()).expect("a new log opens");
        let mut index = 0;
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.iter(|| {
                index += 1;
                let entry = Entry { index, term: 1, data: vec![7; bytes].into(), ..Entry::default() };
                log.append(&[entry], None, true).expect("the disk takes it");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, http, watches, commit, append);
criterion_main!(benches);
