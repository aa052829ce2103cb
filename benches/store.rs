//! The state machine alone: no raft, disk or socket. One thread, seeded, in memory.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quorate::store::{ClusterTime, Command, HistoryLimits, Key, Store};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;

const LIMITS: HistoryLimits = HistoryLimits { events: 100_000, bytes: 64 << 20 };
/// How many writes the driver applies before it publishes a clone to the readers, under load.
const WRITES_PER_CLONE: u64 = 64;
const VALUE_BYTES: usize = 64;

fn key(number: u64) -> Key {
    Key::parse(format!("/service/region-{}/node-{number:08}", number % 10).as_bytes())
}

fn set(number: u64, ttl: Option<u64>) -> Command {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    Command::Set { key: key(number), value, dir: false, ttl, refresh: false }
}

fn filled(keys: u64, ttl: Option<u64>) -> Store {
    let mut store = Store::new(LIMITS);
    for number in 0..keys {
        store.apply(ClusterTime(0), &set(number, ttl)).expect("nothing is in the way");
    }
    store
}

/// Overwrites at random while a reader holds the clone of the last publish.
fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply_set");
    group.throughput(Throughput::Elements(WRITES_PER_CLONE));
    for keys in [10_000u64, 100_000] {
        let mut store = filled(keys, None);
        let mut random = ChaCha8Rng::seed_from_u64(keys);
        let mut published = store.clone();
        group.bench_function(BenchmarkId::from_parameter(keys), |b| {
            b.iter_batched(
                || (0..WRITES_PER_CLONE).map(|_| set(random.random_range(0..keys), None)).collect::<Vec<_>>(),
                |commands| {
                    for command in &commands {
                        black_box(store.apply(ClusterTime(1), command).expect("a file stays a file"));
                    }
                    published = store.clone();
                },
                BatchSize::SmallInput,
            );
        });
        black_box(published.index());
    }
    group.finish();
}

fn get(c: &mut Criterion) {
    let mut group = c.benchmark_group("get");
    for keys in [10_000u64, 100_000] {
        let store = filled(keys, None);
        let mut random = ChaCha8Rng::seed_from_u64(keys);
        group.bench_function(BenchmarkId::from_parameter(keys), |b| {
            b.iter_batched(
                || key(random.random_range(0..keys)),
                |key| black_box(store.get(&key).expect("every key was set")),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A thousand keys of a hundred thousand fall due at once.
fn expire(c: &mut Criterion) {
    const BURST: usize = 1000;
    let store = filled(100_000, Some(10));
    let mut group = c.benchmark_group("expire");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function(BenchmarkId::from_parameter(BURST), |b| {
        b.iter_batched_ref(
            || store.clone(),
            |store| assert_eq!(store.expire(ClusterTime(10), BURST).len(), BURST),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, apply, get, expire);
criterion_main!(benches);
