//! A member without its sockets: its threads and the ways to them.

use super::alarms::Alarms;
use super::backend::{Handle, Shared};
use super::bootstrap;
use super::checkpoints::CheckpointPolicy;
use super::clock::ClockCell;
use super::config::Config;
use super::core_thread::CoreRuntime;
use super::disk::{BackgroundThread, DiskStats, LogThread};
use super::driver::{self, Driver, DriverInput};
use super::incoming::Entrance;
use super::links::{KnownStatus, Links, Settings};
use super::published::Published;
use super::space::{Space, SpaceWatch};
use super::view::view_of;
use super::watch::Watches;
use super::wire::Peers;
use super::{StartError, quarantine};
use crate::http::backend::Status;
use crate::replica::{Replica, ReplicaConfig, Roster};
use crate::storage::DataDir;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle as RuntimeHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// A member without its sockets: its threads and the ways to them.
pub(super) struct Parts {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
    pub(super) incarnation: u64,
    pub(super) handle: Handle,
    pub(super) driver: mpsc::Sender<DriverInput>,
    /// The runtime of the driver's thread.
    pub(super) core: RuntimeHandle,
    pub(super) linger: oneshot::Sender<()>,
    pub(super) roster: Arc<ArcSwap<Roster>>,
    pub(super) peers: Peers,
    pub(super) entrance: Entrance,
    pub(super) ended: watch::Receiver<Option<Result<(), String>>>,
    pub(super) threads: Vec<JoinHandle<()>>,
}

/// What is sent in well under a second.
const LOG_HELD_BYTES: u64 = 32 << 20;

impl Parts {
    pub(super) fn start(
        config: &Config,
        member: bootstrap::Member,
        data_dir: &Arc<DataDir>,
    ) -> Result<Self, StartError> {
        let bootstrap::Member { identity, storage, recovered } = member;
        let clock = Arc::new(ClockCell::new());
        let replica_config = ReplicaConfig {
            id: identity.member_id,
            session: rand::random(),
            seed: rand::random(),
            election_ticks: election_ticks(config),
            request_timeout: Duration::from_secs(5) + 2 * config.election_timeout,
            incarnation: identity.incarnation,
            strict_reconfig: config.strict_reconfig_check,
            log_held_bytes: LOG_HELD_BYTES,
            quota_bytes: config.quota_backend_bytes,
        };
        tracing::info!(
            name = identity.name,
            member = format_args!("{:x}", identity.member_id),
            cluster = format_args!("{:x}", identity.cluster_id),
            seed = replica_config.seed,
            applied = recovered.state.applied.index,
            log_entries = recovered.entries.len(),
            "starting"
        );
        let others = recovered.state.members.iter();
        let others = others.filter(|(id, _)| **id != identity.member_id);
        let peers = Peers::default();
        // Before the driver runs: it says anew who they are when it applies what is in the log.
        peers.set_peers(others.map(|(id, info)| (*id, info.peer_urls.clone())).collect());
        let view = view_of(&recovered.state);
        let roster = Arc::new(ArcSwap::from_pointee(recovered.state.roster()));
        let replica = Replica::new(replica_config, recovered, clock.now()).map_err(StartError::Damaged)?;
        let status = Status {
            id: identity.member_id,
            name: identity.name.clone(),
            cluster_id: identity.cluster_id,
            ..Status::default()
        };
        let status = Arc::new(ArcSwap::from_pointee(KnownStatus { status, leader_since: Instant::now() }));
        let (driver_in, driver_out) = mpsc::channel(driver::QUEUE_MAX);
        let published = Published::new(view, driver_in.clone());
        let watches = Watches::new(Arc::clone(&published));
        let (disk_in, disk_out) = mpsc::unbounded_channel();
        let (news_in, news_out) = crossbeam_channel::bounded(driver::NEWS_MAX);
        let (stop_in, stop_out) = crossbeam_channel::bounded(0);
        let (space, alarms) = (Arc::new(Space::default()), Arc::new(Alarms::default()));
        let space_watch = SpaceWatch {
            dir: storage.log.dir().to_path_buf(),
            space: Arc::clone(&space),
            reserve: config.disk_reserve_bytes,
            quota: config.quota_backend_bytes,
            published: Arc::clone(&published),
            alarms: Arc::clone(&alarms),
            driver: driver_in.clone(),
            stopped: stop_out.clone(),
        };
        space_watch.begin();
        let mut storage = storage;
        // What is written in the background leaves this much to the log.
        let reserve_bytes = space.figures().1 / 2;
        storage.checkpoints.set_reserve_bytes(reserve_bytes);
        let limits = bootstrap::limits(config);
        let entrance =
            Entrance::new(data_dir, driver_in.clone(), limits, Arc::clone(&published), reserve_bytes);
        let (ended_in, ended) = watch::channel(None);
        let checkpoints = Arc::new(storage.checkpoints);
        let disk_stats = Arc::new(DiskStats::default());
        let log_thread = LogThread {
            log: Arc::new(storage.log),
            freeing: BackgroundThread::default(),
            checkpoints: Arc::clone(&checkpoints),
            jobs: disk_out,
            driver: driver_in.clone(),
            stats: Arc::clone(&disk_stats),
            space: Arc::clone(&space),
            alarms: Arc::clone(&alarms),
            stopped: stop_out.clone(),
        };
        let stats = Arc::clone(&disk_stats);
        let (clock_dir, alarm_dir) = (Arc::clone(data_dir), Arc::clone(data_dir));
        let links = Links {
            inputs: driver_out,
            inputs_back: driver_in.clone(),
            disk: disk_in,
            news: news_in,
            watches: Arc::clone(&watches),
            peers: peers.clone(),
            published: Arc::clone(&published),
            status: Arc::clone(&status),
            roster: Arc::clone(&roster),
            clock: Arc::clone(&clock),
            checkpoints,
            disk_stats,
            alarms: Arc::clone(&alarms),
            keep_alarm: Box::new(move |index| quarantine::keep(&alarm_dir, index)),
            _running: stop_in,
            stopped: stop_out,
            keep_clock: Box::new(move |term, ms| {
                if let Err(error) = clock_dir.save_clock(term, ms) {
                    tracing::warn!(%error, "could not note the cluster's time; keys may live longer after a restart");
                }
            }),
        };
        let checkpoints = CheckpointPolicy {
            entries: config.snapshot_count,
            log_bytes_min: config.log_bytes_min,
            log_bytes_max: config.log_bytes_max,
        };
        let settings = Settings { tick: config.heartbeat_interval, checkpoints };
        let driver = Driver::new(replica, links, settings);
        let (runtime, core) = CoreRuntime::new().map_err(StartError::Thread)?;
        let (linger, lingers) = oneshot::channel();
        let teller = Arc::clone(&watches);
        let threads = vec![
            spawn("log", move || log_thread.run())?,
            spawn("space", move || space_watch.run())?,
            spawn("watches", move || teller.run(&news_out))?,
            spawn("core", move || runtime.run(driver, &ended_in, lingers))?,
        ];
        let shared = Shared {
            driver: driver_in.clone(),
            published: Arc::clone(&published),
            status,
            watches,
            clock,
            disk: stats,
            space,
            alarms,
            peers: peers.clone(),
        };
        Ok(Self {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            incarnation: identity.incarnation,
            handle: Handle::new(shared),
            driver: driver_in,
            core,
            linger,
            roster,
            peers,
            entrance,
            ended,
            threads,
        })
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(StartError::Thread)
}

fn election_ticks(config: &Config) -> usize {
    let ticks = config.election_timeout.as_millis() / config.heartbeat_interval.as_millis().max(1);
    usize::try_from(ticks).unwrap_or(usize::MAX).max(2)
}
