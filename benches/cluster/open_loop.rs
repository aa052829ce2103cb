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

/// Runs a load. Everything that was due is counted, however late it was answered.
pub(crate) async fn run(
    load: Load,
    product: Product,
    members: &[Member],
    work: Workload,
) -> Result<Outcome, Failure> {
    let form = Arc::new(work.form());
    let gap = Duration::from_secs_f64(f64::from(load.connections) / load.per_second);
    let start = Instant::now() + WARM_UP;
    let mut tasks = JoinSet::new();
    for index in 0..load.connections {
        let connection = Connection::open(&members[index as usize % members.len()].client).await?;
        let first = start + gap.mul_f64(f64::from(index) / f64::from(load.connections));
        let form = Arc::clone(&form);
        tasks.spawn(async move {
            let mut connection = connection;
            let mut random = SmallRng::seed_from_u64(u64::from(index));
            let mut seen = Outcome::default();
            let mut due = first;
            while due < start + load.length {
                tokio::time::sleep_until(due.into()).await;
                let request = load::request(load.kind, product, work, &form, &mut random);
                let status = connection.exchange(&request).await?;
                if status < 300 {
                    seen.latencies.record(due.elapsed().as_nanos() as u64);
                } else {
                    seen.failed += 1;
                }
                due += gap;
            }
            Ok::<Outcome, Failure>(seen)
        });
    }
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
