//! What each side does in every round after the rows: ten thousand watchers, writes beside a large listing, and the memory
//! that is taken after all of it.

use crate::figures::{Figures, Unit};
use crate::http::{self, Connection};
use crate::load::{self, Kind, Row, Shape, Workload};
use crate::process::{Cluster, Member, Product};
use crate::{Failure, machine};
use std::cell::Cell;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How large the steps are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) watchers: u32,
    pub(crate) listed_keys: u32,
    pub(crate) value_size: usize,
    pub(crate) length: Duration,
}

const PUT16: Row = Row { name: "put16", title: "", kind: Kind::Put, connections: 16 };
/// How often the watchers are told.
const TELLINGS: u32 = 3;
/// How long the last watcher may take: beyond this the member has lost it.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// All steps, on a cluster that has been through the rows.
pub(crate) async fn run(
    product: Product,
    cluster: &Cluster,
    scale: Scale,
    figures: &mut Figures,
) -> Result<(), Failure> {
    watchers(product, cluster.members(), scale, figures).await?;
    listing(product, cluster.members(), scale, figures).await?;
    let most = cluster.members().iter().map(|member| machine::memory(member.pid(), "VmRSS")).max();
    figures.add(
        product,
        "resident memory of the largest member after all of it",
        Unit::Bytes,
        most.unwrap_or(0) as f64,
    );
    Ok(())
}

/// Opens so many waits for one path at a member.
pub(crate) async fn watch(member: &Member, path: &str, count: u32) -> Result<Vec<Connection>, Failure> {
    const AT_ONCE: u32 = 100;
    let request = http::get(&format!("{path}?wait=true"));
    let mut watching = Vec::new();
    for begin in (0..count).step_by(AT_ONCE as usize) {
        let mut opening = JoinSet::new();
        for _ in begin..count.min(begin + AT_ONCE) {
            let (address, request) = (member.client.clone(), request.clone());
            opening.spawn(async move {
                let mut connection = Connection::open(&address).await?;
                connection.begin(&request).await?;
                Ok::<Connection, Failure>(connection)
            });
        }
        while let Some(opened) = opening.join_next().await {
            watching.push(opened??);
        }
    }
    Ok(watching)
}

/// Watchers of one key at one member: what each costs, and when the last is told.
async fn watchers(
    product: Product,
    members: &[Member],
    scale: Scale,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let Some(member) = members.last() else { return Ok(()) };
    let key = "/v2/keys/watched";
    let mut writer = Connection::open(&members[0].client).await?;
    writer.exchange(&http::put(key, "value=0")).await?;
    let before = machine::memory(member.pid(), "VmRSS");
    let mut watching = watch(member, key, scale.watchers).await?;
    let after = machine::memory(member.pid(), "VmRSS");
    let each = after.saturating_sub(before) as f64 / f64::from(scale.watchers.max(1));
    let title = format!("{} watchers of one key on one member", scale.watchers);
    figures.add(product, format!("{title}: memory each"), Unit::Bytes, each);
    let again = http::get(&format!("{key}?wait=true"));
    let (mut worst, mut processor) = (Duration::ZERO, 0.0);
    for telling in 1..=TELLINGS {
        let mut tasks = JoinSet::new();
        for mut connection in watching.drain(..) {
            tasks.spawn(async move {
                connection.finish().await?;
                Ok::<_, Failure>((connection, Instant::now()))
            });
        }
        let (started, cpu) = (Instant::now(), machine::cpu_time_of(member.pid()));
        writer.exchange(&http::put(key, &format!("value={telling}"))).await?;
        while let Some(done) = tokio::time::timeout(TOLD_WITHIN, tasks.join_next()).await? {
            let (connection, told) = done??;
            worst = worst.max(told - started);
            watching.push(connection);
        }
        processor += machine::cpu_time_of(member.pid()) - cpu;
        if telling == TELLINGS {
            break;
        }
        // All are told before the first asks again: what that costs is not what is measured here.
        for connection in &mut watching {
            connection.begin(&again).await?;
        }
    }
    figures.add(
        product,
        format!("{title}: last told after (worst of {TELLINGS})"),
        Unit::Time,
        worst.as_nanos() as f64,
    );
    let each = processor * 1e9 / f64::from(TELLINGS);
    figures.add(product, format!("{title}: processor time of the member for one telling"), Unit::Time, each);
    Ok(())
}

/// Writes at 16 connections while one client lists a large directory, again and again.
async fn listing(
    product: Product,
    members: &[Member],
    scale: Scale,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let work = Workload { keys: scale.listed_keys, value_size: scale.value_size, shape: Shape::Deep };
    load::fill(product, members, work).await?;
    let address = members[0].client.clone();
    let done = Cell::new(0u32);
    let listings = async {
        let request = http::get("/v2/keys/deep?recursive=true");
        let mut connection = Connection::open(&address).await?;
        loop {
            let (status, _) = connection.drain(&request).await?;
            if status != 200 {
                return Err::<(), Failure>(format!("status {status} to a listing").into());
            }
            done.set(done.get() + 1);
        }
    };
    let outcome = tokio::select! {
        outcome = load::run(PUT16, product, members, work, scale.length) => outcome?,
        ended = listings => return Err(ended.err().unwrap_or_else(|| "the listings ended".into())),
    };
    let title = format!("PUT at 16 connections while one client lists {} keys in a loop", scale.listed_keys);
    figures.add(product, title.clone(), Unit::PerSecond, outcome.per_second());
    figures.add(product, format!("{title}: p99"), Unit::Time, outcome.latencies.quantile(0.99) as f64);
    let listings = f64::from(done.get()) / (load::WARM_UP + scale.length).as_secs_f64();
    figures.add(product, "listings beside them, a second", Unit::Ratio, listings);
    Ok(())
}
