//! What is asked about growth and quiet rather than speed: each scenario once a side, on a fresh cluster of its own.

use crate::figures::{Figures, Unit};
use crate::http::{self, Connection};
use crate::load::{self, Kind, Row, Shape, Workload};
use crate::open_loop::{self, Load};
use crate::plot::Point;
use crate::process::{Cluster, Member, Product};
use crate::{Failure, large, machine, steps};
use clap::ValueEnum;
use std::time::{Duration, Instant};

/// Which there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Latency against load, open loop; makes the plots
    Load,
    /// Live TTL keys, refreshed and untouched, and a burst of expiries
    Heartbeats,
    /// Writes with idle watchers elsewhere
    Fanout,
    /// The first request after a start, and one on an idle cluster
    Cold,
    /// Throughput as the number of keys grows, flat and deep
    Growth,
    /// A million keys: checkpoints (every 90,000 entries), memory, restart, listing
    Million,
}

impl Scenario {
    /// What the members of both sides are started with for it.
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            // So that checkpoints fall into the time that is measured.
            Scenario::Million => &["--snapshot-count", "90000"],
            _ => &[],
        }
    }
}

/// How large they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) ttl_keys: u32,
    pub(crate) burst_keys: u32,
    pub(crate) watchers: u32,
    pub(crate) many_keys: u32,
    pub(crate) growth: &'static [u32],
    pub(crate) rates: &'static [f64],
    pub(crate) value_size: usize,
    /// How often a load is run at the most, to see it with and without a checkpoint.
    pub(crate) turns: u32,
    /// How long each figure is measured.
    pub(crate) length: Duration,
}

pub(crate) const FULL: Sizes = Sizes {
    ttl_keys: 100_000,
    burst_keys: 50_000,
    watchers: 10_000,
    many_keys: 1_000_000,
    growth: &[10_000, 100_000, 1_000_000],
    rates: &[500.0, 1_000.0, 2_000.0, 4_000.0, 8_000.0, 12_000.0, 16_000.0],
    value_size: 256,
    turns: 12,
    length: Duration::from_secs(8),
};

/// Shows that everything works, and measures nothing.
pub(crate) const QUICK: Sizes = Sizes {
    ttl_keys: 500,
    burst_keys: 200,
    watchers: 100,
    many_keys: 2_000,
    growth: &[500, 1_000],
    rates: &[200.0, 400.0],
    value_size: 256,
    turns: 1,
    length: Duration::from_millis(500),
};

/// What a scenario gives.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) figures: Figures,
    /// Latency against load, by kind of request.
    pub(crate) puts: Vec<Point>,
    pub(crate) gets: Vec<Point>,
    /// Scenarios that etcd did not get through, and why.
    pub(crate) unfinished: Vec<String>,
}

pub(crate) async fn run(
    scenario: Scenario,
    product: Product,
    cluster: &mut Cluster,
    sizes: Sizes,
    found: &mut Found,
) -> Result<(), Failure> {
    match scenario {
        Scenario::Load => curve(product, cluster.members(), sizes, found).await,
        Scenario::Heartbeats => heartbeats(product, cluster.members(), sizes, &mut found.figures).await,
        Scenario::Fanout => fanout(product, cluster.members(), sizes, &mut found.figures).await,
        Scenario::Cold => cold(product, cluster.members(), sizes, &mut found.figures).await,
        Scenario::Growth => large::growth(product, cluster.members(), sizes, &mut found.figures).await,
        Scenario::Million => large::million(product, cluster, sizes, &mut found.figures).await,
    }
}

/// Latencies at each load, until the cluster cannot keep up.
async fn curve(product: Product, members: &[Member], sizes: Sizes, found: &mut Found) -> Result<(), Failure> {
    const CONNECTIONS: u32 = 128;
    /// A load that is answered at less than this share of its rate was too much.
    const KEPT_UP: f64 = 0.9;
    let work = Workload { keys: 1_000, value_size: sizes.value_size, shape: Shape::Flat };
    load::fill(product, members, work).await?;
    for (kind, name) in [(Kind::Put, "PUT"), (Kind::Get, "GET linearizable")] {
        for &per_second in sizes.rates {
            let load = Load { kind, per_second, connections: CONNECTIONS, length: sizes.length / 2 };
            let outcome = open_loop::run(load, product, members, work).await?;
            let quantile = |q| outcome.latencies.quantile(q) as f64;
            let point = Point { product, per_second, p50: quantile(0.5), p99: quantile(0.99) };
            let title = format!("{name}, open loop, {per_second:.0}/s due");
            found.figures.add(product, format!("{title}: p50"), Unit::Time, point.p50);
            found.figures.add(product, format!("{title}: p99"), Unit::Time, point.p99);
            if kind == Kind::Put {
                found.puts.push(point);
            } else {
                found.gets.push(point);
            }
            if outcome.per_second() < per_second * KEPT_UP {
                break;
            }
        }
    }
    Ok(())
}

/// CPU and bytes to disk of the members over a time in which `work` is done: of the one that used most.
async fn cost<T>(members: &[Member], length: Duration, work: impl Future<Output = T>) -> (f64, f64, T) {
    let look = || members.iter().map(|m| (machine::cpu_time_of(m.pid()), machine::written_bytes(m.pid())));
    let before: Vec<_> = look().collect();
    let done = work.await;
    let used = look().zip(before).map(|(after, before)| (after.0 - before.0, after.1 - before.1));
    let (mut cores, mut bytes) = (0.0f64, 0u64);
    for (seconds, written) in used {
        cores = cores.max(seconds / length.as_secs_f64());
        bytes = bytes.max(written);
    }
    (cores, bytes as f64, done)
}

async fn heartbeats(
    product: Product,
    members: &[Member],
    sizes: Sizes,
    figures: &mut Figures,
) -> Result<(), Failure> {
    const REFRESH_EVERY: f64 = 45.0;
    /// Longer than the whole scenario takes.
    const LIVE: u32 = 3_600;
    let keys = sizes.ttl_keys;
    let paths = (0..keys).map(|key| format!("/v2/keys/bench/{key:08}")).collect();
    load::write_all(members, paths, &format!("value=alive&ttl={LIVE}")).await?;
    // What the writes left to do (checkpoints) is not what is measured.
    tokio::time::sleep(sizes.length / 2).await;

    let (cores, bytes, ()) = cost(members, sizes.length, tokio::time::sleep(sizes.length)).await;
    figures.add(product, format!("{keys} TTL keys untouched: busiest member"), Unit::Cores, cores);
    let each_second = bytes / sizes.length.as_secs_f64();
    figures.add(product, format!("{keys} TTL keys untouched: to disk, a second"), Unit::Bytes, each_second);

    let work = Workload { keys, value_size: 0, shape: Shape::Flat };
    let per_second = f64::from(keys) / REFRESH_EVERY;
    let load = Load { kind: Kind::Refresh, per_second, connections: 64, length: sizes.length };
    let (cores, _, outcome) = cost(members, sizes.length, open_loop::run(load, product, members, work)).await;
    let title = format!("{keys} TTL keys refreshed every 45 s");
    figures.add(product, format!("{title}: busiest member"), Unit::Cores, cores);
    figures.add(product, format!("{title}: p99"), Unit::Time, outcome?.latencies.quantile(0.99) as f64);
    burst(product, members, sizes, figures).await
}

/// Keys that all expire within one second, and what other writers see of that.
async fn burst(
    product: Product,
    members: &[Member],
    sizes: Sizes,
    figures: &mut Figures,
) -> Result<(), Failure> {
    const PORTIONS: u32 = 20;
    // Enough to write them all before, even with etcd under load.
    let ahead = Duration::from_secs(2) + Duration::from_micros(500) * sizes.burst_keys;
    let begun = Instant::now();
    for portion in 0..PORTIONS {
        let of = sizes.burst_keys / PORTIONS;
        let keys = portion * of..(portion + 1) * of;
        let paths = keys.map(|key| format!("/v2/keys/burst/{key:08}")).collect();
        let left = ahead.saturating_sub(begun.elapsed()).as_secs().max(1);
        load::write_all(members, paths, &format!("value=short&ttl={left}")).await?;
    }
    let until = ahead.saturating_sub(begun.elapsed()).saturating_sub(sizes.length / 4);
    tokio::time::sleep(until).await;
    let work = Workload { keys: 1_000, value_size: sizes.value_size, shape: Shape::Deep };
    let load = Load { kind: Kind::Put, per_second: 500.0, connections: 16, length: sizes.length / 2 };
    let outcome = open_loop::run(load, product, members, work).await?;
    let title = format!("500 PUT/s while {} keys expire within about a second: p99", sizes.burst_keys);
    figures.add(product, title, Unit::Time, outcome.latencies.quantile(0.99) as f64);
    Ok(())
}

/// Writes with and without watchers that have nothing to do with them.
async fn fanout(
    product: Product,
    members: &[Member],
    sizes: Sizes,
    figures: &mut Figures,
) -> Result<(), Failure> {
    const ROW: Row = Row { name: "fanout", title: "", kind: Kind::Put, connections: 64 };
    const TURNS: u32 = 3;
    let turn = sizes.length / 4;
    let Some(member) = members.last() else { return Ok(()) };
    let work = Workload { keys: 10_000, value_size: sizes.value_size, shape: Shape::Flat };
    load::fill(product, members, work).await?;
    let (mut without, mut with) = (0.0, 0.0);
    // Each turn comes after the same rest: what the one before left to be written would count against it.
    let measured = async || {
        tokio::time::sleep(turn / 2).await;
        load::run(ROW, product, members, work, turn).await.map(|outcome| outcome.per_second())
    };
    for _ in 0..TURNS {
        // Twice with, between two without: checkpoints come at their own pace, and must not favour one side.
        without += measured().await?;
        let watching = steps::watch(member, "/v2/keys/elsewhere", sizes.watchers).await?;
        for _ in 0..2 {
            with += measured().await?;
        }
        drop(watching);
        without += measured().await?;
    }
    let title = format!("PUT, 64 connections, {} idle watchers elsewhere to none", sizes.watchers);
    figures.add(product, title, Unit::Ratio, with / without);
    Ok(())
}

/// A cluster that has just started, and one that has been idle.
async fn cold(
    product: Product,
    members: &[Member],
    sizes: Sizes,
    figures: &mut Figures,
) -> Result<(), Failure> {
    const WARM: usize = 200;
    let request = http::put("/v2/keys/cold", "value=1");
    let put = async || {
        let mut connection = Connection::open(&members[0].client).await?;
        let started = Instant::now();
        connection.exchange(&request).await?;
        Ok::<f64, Failure>(started.elapsed().as_nanos() as f64)
    };
    figures.add(product, "first PUT after the start", Unit::Time, put().await?);
    let mut warm = Vec::new();
    for _ in 0..WARM {
        warm.push(put().await?);
    }
    warm.sort_by(f64::total_cmp);
    figures.add(product, "the next 200: p50", Unit::Time, warm[WARM / 2]);
    figures.add(product, "the next 200: p99", Unit::Time, warm[WARM * 99 / 100]);
    let mut idle = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(sizes.length / 4).await;
        idle.push(put().await?);
    }
    idle.sort_by(f64::total_cmp);
    figures.add(product, "one PUT after seconds of silence (median of 5)", Unit::Time, idle[2]);
    Ok(())
}
