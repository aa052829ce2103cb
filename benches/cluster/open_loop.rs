//! The open loop: requests are due at a steady rate whether earlier ones were answered or not, and each one's latency
//! counts from when it was due. So a stall is seen by every request that fell into it, not by one for each connection
//! (coordinated omission), as users would see it who do not wait for each other.

use crate::Failure;
use crate::http::Connection;
use crate::load::{self, Kind, Outcome, Workload};
use crate::process::{Member, Product};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What is due, where and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) per_second: f64,
    /// More requests than this are never under way at once; further ones wait, and their wait counts.
    pub(crate) connections: u32,
    pub(crate) length: Duration,
}

/// Long enough for connections to open and caches to fill.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long after the end an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The thread that says what is due sleeps no shorter, so that it takes little from the members.
const NAP: Duration = Duration::from_micros(200);

/// Says to the connections in turn that a request is due, at a steady rate. On a thread of its own: the runtime's timers are of
/// whole milliseconds, and later than that, by the same for all requests of a run, which is as much as an idle cluster's answer takes.
fn pace(turns: &[mpsc::UnboundedSender<Instant>], start: Instant, load: Load) {
    let gap = 1.0 / load.per_second;
    for (number, turn) in (0u32..).zip(turns.iter().cycle()) {
        let after = Duration::from_secs_f64(f64::from(number) * gap);
        let due = start + after;
        let early = due.saturating_duration_since(Instant::now());
        if after >= load.length {
            return;
        }
        if !early.is_zero() {
            std::thread::sleep(early.max(NAP));
        }
        if turn.send(due).is_err() {
            return;
        }
    }
}

/// Runs a load. Everything that was due is counted, however late it was answered.
pub(crate) async fn run(
    load: Load,
    product: Product,
    members: &[Member],
    work: Workload,
) -> Result<Outcome, Failure> {
    let form = Arc::new(work.form());
    let start = Instant::now() + WARM_UP;
    let mut tasks = JoinSet::new();
    let mut turns = Vec::new();
    for index in 0..load.connections {
        let connection = Connection::open(&members[index as usize % members.len()].client).await?;
        let (turn, mut due) = mpsc::unbounded_channel::<Instant>();
        turns.push(turn);
        let form = Arc::clone(&form);
        tasks.spawn(async move {
            let mut connection = connection;
            let mut random = SmallRng::seed_from_u64(u64::from(index));
            let mut seen = Outcome::default();
            while let Some(due) = due.recv().await {
                let request = load::request(load.kind, product, work, &form, &mut random);
                let status = connection.exchange(&request).await?;
                if status < 300 {
                    seen.latencies.record(due.elapsed().as_nanos() as u64);
                } else {
                    seen.failed += 1;
                }
            }
            Ok::<Outcome, Failure>(seen)
        });
    }
    std::thread::Builder::new().name("pace".into()).spawn(move || pace(&turns, start, load))?;
    let everyone = async {
        let mut sum = Outcome::default();
        while let Some(done) = tasks.join_next().await {
            sum.merge(&done??);
        }
        Ok::<Outcome, Failure>(sum)
    };
    let mut sum = tokio::time::timeout_at((start + load.length + PATIENCE).into(), everyone)
        .await
        .map_err(|_| format!("requests unanswered for {} s", PATIENCE.as_secs()))??;
    // Where the load was too much, the answers to it took longer than it lasted.
    sum.measured = start.elapsed().max(load.length);
    Ok(sum)
}
