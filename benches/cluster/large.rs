//! Many keys: whether anything but memory grows with them.

use crate::figures::{Figures, Unit};
use crate::http::{self, Connection};
use crate::load::{self, Kind, Row, Shape, Workload};
use crate::open_loop::{self, Load};
use crate::process::{Cluster, Member, Product};
use crate::scenarios::Sizes;
use crate::{Failure, machine};

const PUT64: Row = Row { name: "put64", title: "", kind: Kind::Put, connections: 64 };
const GET64: Row = Row { name: "get64", title: "", kind: Kind::Get, connections: 64 };

/// Throughput with more and more keys, all in one directory, then in a deep tree beside it.
pub(crate) async fn growth(
    product: Product,
    members: &[Member],
    sizes: Sizes,
    figures: &mut Figures,
) -> Result<(), Failure> {
    for (shape, name) in [(Shape::Flat, "one directory"), (Shape::Deep, "a deep tree")] {
        for &keys in sizes.growth {
            let work = Workload { keys, value_size: sizes.value_size, shape };
            load::fill(product, members, work).await?;
            for (row, verb) in [(PUT64, "PUT"), (GET64, "GET linearizable")] {
                let outcome = load::run(row, product, members, work, sizes.length).await?;
                let title = format!("{verb}, 64 connections, {keys} keys in {name}");
                figures.add(product, title, Unit::PerSecond, outcome.per_second());
            }
        }
    }
    Ok(())
}

/// A figure of a member's `/metrics`.
async fn metric(member: &Member, name: &str) -> Result<Option<f64>, Failure> {
    let mut connection = Connection::open(&member.client).await?;
    let answer = connection.ask(&http::get("/metrics")).await?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    Ok(text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()))
}

pub(crate) async fn million(
    product: Product,
    cluster: &mut Cluster,
    sizes: Sizes,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let keys = sizes.many_keys;
    let work = Workload { keys, value_size: sizes.value_size, shape: Shape::Deep };
    load::fill(product, cluster.members(), work).await?;
    let bytes = f64::from(keys)
        * (load::path(product, Kind::Put, work.shape, 0).len() - "/v2/keys".len() + work.value_size) as f64;
    let resident = cluster.members().iter().map(|member| machine::memory(member.pid(), "VmRSS")).max();
    let title = format!("{keys} keys: resident memory to bytes of keys and values");
    figures.add(product, title, Unit::Ratio, resident.unwrap_or(0) as f64 / bytes);
    checkpoints(product, cluster.members(), work, sizes, figures).await?;
    listing(product, cluster.members(), keys, figures).await?;
    let took = cluster.restart_last().await?;
    figures.add(
        product,
        format!("{keys} keys: a member restarts and serves"),
        Unit::Time,
        took.as_nanos() as f64,
    );
    Ok(())
}

/// A steady load of writes, in turns that are told apart by whether a checkpoint was written in them. One that ended in a
/// turn may have begun in the turn before.
async fn checkpoints(
    product: Product,
    members: &[Member],
    work: Workload,
    sizes: Sizes,
    figures: &mut Figures,
) -> Result<(), Failure> {
    /// So many turns of each kind are enough.
    const ENOUGH: usize = 3;
    let load = Load { kind: Kind::Put, per_second: 1_000.0, connections: 32, length: sizes.length };
    let mut turns: Vec<(load::Outcome, bool)> = Vec::new();
    let with = |turns: &[(load::Outcome, bool)], at: usize| {
        turns[at].1 || turns.get(at + 1).is_some_and(|(_, ended)| *ended)
    };
    let most = if product == Product::Quorate { sizes.turns as usize } else { 1 };
    while turns.len() < most {
        let before = written(members).await?;
        let outcome = open_loop::run(load, product, members, work).await?;
        turns.push((outcome, written(members).await? != before));
        // The last is not known for what it is before the next.
        let busy = (0..turns.len() - 1).filter(|at| with(&turns, *at)).count();
        if busy >= ENOUGH && turns.len() - 1 - busy >= ENOUGH {
            break;
        }
    }
    let (mut quiet, mut busy) = (load::Outcome::default(), load::Outcome::default());
    for at in 0..turns.len() {
        let side = if with(&turns, at) { &mut busy } else { &mut quiet };
        side.merge(&turns[at].0);
    }
    for (outcome, when) in [(quiet, "without a checkpoint"), (busy, "with one")] {
        if outcome.latencies.total() > 0 {
            let title = format!("{} keys, 1000 PUT/s {when}: p99.9", work.keys);
            figures.add(product, title, Unit::Time, outcome.latencies.quantile(0.999) as f64);
        }
    }
    Ok(())
}

/// How many checkpoints each member has written.
async fn written(members: &[Member]) -> Result<Vec<Option<f64>>, Failure> {
    let mut counts = Vec::new();
    for member in members {
        counts.push(metric(member, "quorate_checkpoints_total").await?);
    }
    Ok(counts)
}

/// Reads the whole tree in one answer: how long it takes, and how much more memory the member has at most meanwhile.
async fn listing(
    product: Product,
    members: &[Member],
    keys: u32,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let member = &members[0];
    machine::reset_memory_peak(member.pid());
    let before = machine::memory(member.pid(), "VmRSS");
    let mut connection = Connection::open(&member.client).await?;
    let started = std::time::Instant::now();
    let (status, bytes) = connection.drain(&http::get("/v2/keys/deep?recursive=true")).await?;
    if status != 200 {
        return Err(format!("status {status} to a listing").into());
    }
    figures.add(
        product,
        format!("listing of {keys} keys: takes"),
        Unit::Time,
        started.elapsed().as_nanos() as f64,
    );
    figures.add(product, format!("listing of {keys} keys: its size"), Unit::Bytes, bytes as f64);
    let more = machine::memory(member.pid(), "VmHWM").saturating_sub(before);
    figures.add(product, format!("listing of {keys} keys: memory taken for it"), Unit::Bytes, more as f64);
    Ok(())
}
