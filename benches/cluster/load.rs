//! The closed loop: a number of connections, each sending its next request when the last was answered.

use crate::Failure;
use crate::histogram::Histogram;
use crate::http::{self, Connection};
use crate::machine;
use crate::process::{Member, Product};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What the connections of a row ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes.
    Put,
    /// Reads that may not miss an acknowledged write.
    Get,
    /// Reads of the member's own state.
    GetLocal,
    /// Nine linearizable reads to one write.
    Mixed,
    /// Keeps keys alive that have a time to live.
    Refresh,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
}

/// All rows, in the order of the table. A single connection goes to the leader; more are spread over the members.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "put1", title: "PUT, 1 connection", kind: Kind::Put, connections: 1 },
    Row { name: "put64", title: "PUT, 64 connections", kind: Kind::Put, connections: 64 },
    Row { name: "put256", title: "PUT, 256 connections", kind: Kind::Put, connections: 256 },
    Row { name: "get64", title: "GET linearizable, 64 connections", kind: Kind::Get, connections: 64 },
    Row { name: "get256", title: "GET linearizable, 256 connections", kind: Kind::Get, connections: 256 },
    Row {
        name: "local64",
        title: "GET of the member's own state, 64 connections",
        kind: Kind::GetLocal,
        connections: 64,
    },
    Row {
        name: "mixed64",
        title: "90% GET linearizable, 10% PUT, 64 connections",
        kind: Kind::Mixed,
        connections: 64,
    },
];

/// The row of that name, for the command line.
pub(crate) fn row_by_name(name: &str) -> Result<Row, String> {
    ROWS.iter().copied().find(|row| row.name == name).ok_or_else(|| {
        format!("no such row; there are: {}", ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", "))
    })
}

/// How the keys lie in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All in one directory.
    Flat,
    /// A hundred to a directory, four levels deep.
    Deep,
}

/// The keyspace that requests draw from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) keys: u32,
    pub(crate) value_size: usize,
    pub(crate) shape: Shape,
}

impl Workload {
    pub(crate) fn form(&self) -> String {
        format!("value={}", "v".repeat(self.value_size))
    }
}

/// What one row came to in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) latencies: Histogram,
    pub(crate) failed: u64,
    pub(crate) measured: Duration,
    /// Share of one core that the generator itself took.
    pub(crate) generator_share: f64,
}

impl Outcome {
    /// Counts what another saw at the same time.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.latencies.merge(&other.latencies);
        self.failed += other.failed;
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.total() as f64 / self.measured.as_secs_f64()
    }
}

/// Long enough for connections to open and caches to fill.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);
/// A request that takes longer than this means that the cluster stalled: the run is no measurement then.
const STALLED: Duration = Duration::from_secs(30);
const FILL_CONNECTIONS: u32 = 64;

pub(crate) fn path(product: Product, kind: Kind, shape: Shape, key: u32) -> String {
    // etcd answers a plain GET from the member's own state, Quorate with every acknowledged write.
    let query = match (kind, product) {
        (Kind::Get, Product::Etcd) => "?quorum=true",
        (Kind::GetLocal, Product::Quorate) => "?quorum=false",
        _ => "",
    };
    match shape {
        Shape::Flat => format!("/v2/keys/bench/{key:08}{query}"),
        Shape::Deep => {
            let (top, middle, low) = (key / 1_000_000, key / 10_000 % 100, key / 100 % 100);
            format!("/v2/keys/deep/{top:02}/{middle:02}/{low:02}/{key:08}{query}")
        }
    }
}

/// Writes every key once.
pub(crate) async fn fill(product: Product, members: &[Member], work: Workload) -> Result<(), Failure> {
    let paths = (0..work.keys).map(|key| path(product, Kind::Put, work.shape, key));
    write_all(members, paths.collect(), &work.form()).await
}

/// Writes one form to each of the paths, as fast as it goes.
pub(crate) async fn write_all(members: &[Member], paths: Vec<String>, form: &str) -> Result<(), Failure> {
    let paths = Arc::new(paths);
    let form = Arc::new(form.to_owned());
    let mut tasks = JoinSet::new();
    for index in 0..FILL_CONNECTIONS {
        let address = members[index as usize % members.len()].client.clone();
        let (paths, form) = (Arc::clone(&paths), Arc::clone(&form));
        tasks.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            for path in paths.iter().skip(index as usize).step_by(FILL_CONNECTIONS as usize) {
                let request = http::put(path, &form);
                let status = tokio::time::timeout(STALLED, connection.exchange(&request)).await??;
                if status >= 300 {
                    return Err(Failure::from(format!("{address}: status {status} to the write of a key")));
                }
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Runs one row for `length`, after a warm-up.
pub(crate) async fn run(
    row: Row,
    product: Product,
    members: &[Member],
    work: Workload,
    length: Duration,
) -> Result<Outcome, Failure> {
    let form = Arc::new(work.form());
    let from = Instant::now() + WARM_UP;
    let window = Window { from, until: from + length };
    let mut tasks = JoinSet::new();
    for index in 0..row.connections {
        let connection = Connection::open(&members[index % members.len()].client).await?;
        tasks.spawn(drive(connection, row.kind, product, work, Arc::clone(&form), window, index as u64));
    }
    tokio::time::sleep_until(window.from.into()).await;
    let cpu_before = machine::own_cpu_time();
    let everyone = async {
        let mut sum = Outcome { measured: length, ..Outcome::default() };
        while let Some(done) = tasks.join_next().await {
            let (latencies, failed) = done??;
            sum.latencies.merge(&latencies);
            sum.failed += failed;
        }
        Ok::<Outcome, Failure>(sum)
    };
    let mut outcome = tokio::time::timeout_at((window.until + STALLED).into(), everyone)
        .await
        .map_err(|_| format!("{}: requests unanswered for {} s", row.name, STALLED.as_secs()))??;
    outcome.generator_share = (machine::own_cpu_time() - cpu_before) / length.as_secs_f64();
    if outcome.latencies.total() == 0 {
        return Err(format!("{}: not one request was answered with success", row.name).into());
    }
    Ok(outcome)
}

#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

/// One connection's loop. Counts what was answered within the window.
async fn drive(
    mut connection: Connection,
    kind: Kind,
    product: Product,
    work: Workload,
    form: Arc<String>,
    window: Window,
    seed: u64,
) -> Result<(Histogram, u64), Failure> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut latencies = Histogram::default();
    let mut failed = 0;
    let mut now = Instant::now();
    while now < window.until {
        let request = request(kind, product, work, &form, &mut random);
        let started = Instant::now();
        let status = connection.exchange(&request).await?;
        now = Instant::now();
        if now >= window.from && now < window.until {
            if status < 300 {
                latencies.record((now - started).as_nanos() as u64);
            } else {
                failed += 1;
            }
        }
    }
    Ok((latencies, failed))
}

/// The next request of a row: its key, and in a mixed row whether it writes, drawn at random.
pub(crate) fn request(
    kind: Kind,
    product: Product,
    work: Workload,
    form: &str,
    random: &mut SmallRng,
) -> Vec<u8> {
    let write = match kind {
        Kind::Put | Kind::Refresh => true,
        Kind::Get | Kind::GetLocal => false,
        Kind::Mixed => random.random_range(0..10) == 0,
    };
    let key = random.random_range(0..work.keys);
    match (write, kind) {
        (_, Kind::Refresh) => {
            http::put(&path(product, Kind::Put, work.shape, key), "ttl=3600&refresh=true&prevExist=true")
        }
        (true, _) => http::put(&path(product, Kind::Put, work.shape, key), form),
        (false, Kind::GetLocal) => http::get(&path(product, Kind::GetLocal, work.shape, key)),
        (false, _) => http::get(&path(product, Kind::Get, work.shape, key)),
    }
}
