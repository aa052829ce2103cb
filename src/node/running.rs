//! A member from start to shutdown.

use super::alarms::Alarms;
use super::backend::{Handle, Shared};
use super::bootstrap;
use super::checkpoints::CheckpointPolicy;
use super::clock::ClockCell;
use super::config::{Config, HttpUrl};
use super::core_thread::{CoreRuntime, adopt};
use super::disk::{DiskStats, LogThread};
use super::driver::{self, Driver, DriverInput, KnownStatus, Links, Settings};
use super::listen::listen;
use super::space::{Space, SpaceWatch};
use super::view::view_of;
use super::watch::Watches;
use super::wire::{MemberInbox, Peers};
use super::{StartError, peer_routes, quarantine};
use crate::http;
use crate::http::backend::Status;
use crate::replica::{Input, Replica, ReplicaConfig, Roster};
use crate::storage::DataDir;
use crate::transport::{PeerIdentity, Transport, TransportConfig};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle as RuntimeHandle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How long requests in flight may take to end when the member stops.
const DRAIN: Duration = Duration::from_secs(3);

/// How long a leader that stops waits for another to take over.
const HAND_OVER: Duration = Duration::from_secs(1);

/// A running member of a cluster.
///
/// It serves clients on the tokio runtime on which it was started, which the caller owns; its core with the connections
/// to the other members, and its disk, have threads of their own. [`Node::shutdown`] stops it in an orderly way; dropping it stops it too, without waiting.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let (client_port, peer_port) = {
/// #     let (a, b) = (std::net::TcpListener::bind("127.0.0.1:0")?, std::net::TcpListener::bind("127.0.0.1:0")?);
/// #     (a.local_addr()?.port(), b.local_addr()?.port())
/// # };
/// use quorate::{Backend as _, Config, Node, Watch as _, WatchItem};
/// use std::time::Duration;
///
/// let runtime = tokio::runtime::Runtime::new()?;
/// runtime.block_on(async {
///     let mut config = Config { data_dir: Some(scratch.path().join("n1")), ..Config::default() };
///     config.set_addresses(&format!("127.0.0.1:{client_port}"), &format!("127.0.0.1:{peer_port}"))?;
///     let node = Node::start(config).await?;
///     let handle = node.handle();
///
///     let mut watch = handle.watch_all("/services", 0)?;
///     handle.set("/services/web", "10.0.0.7:80", Some(Duration::from_secs(60))).await?;
///     let found = handle.get("/services/web").await?;
///     assert_eq!(found.value.as_deref(), Some(&b"10.0.0.7:80"[..]));
///     let Some(WatchItem::Event(news)) = watch.next().await else { panic!("no event") };
///     assert_eq!(news.event.node.key.as_bytes(), b"/services/web");
///
///     node.shutdown().await?;
///     Ok(())
/// })
/// # }
/// ```
pub struct Node {
    handle: Handle,
    driver: mpsc::Sender<DriverInput>,
    peers: Peers,
    /// Dropped when the peers were told all; until then their connections are kept up.
    linger: Option<oneshot::Sender<()>>,
    http: JoinSet<()>,
    stop_http: watch::Sender<bool>,
    /// Why the member stopped, once it has.
    ended: watch::Receiver<Option<Result<(), String>>>,
    threads: Vec<JoinHandle<()>>,
    /// Held, and with it the directory's lock, until every thread is gone.
    data_dir: Option<Arc<DataDir>>,
}

impl Node {
    /// Starts a member: founds or joins its cluster if its data directory is empty, else goes on where it was.
    ///
    /// Returns when it serves; with a discovery service, that is when all members have registered. Whether there is a
    /// leader already is another matter: [`Node::ready`].
    ///
    /// # Errors
    /// Why it cannot start; nothing is left running, and nothing in the data directory is harmed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let bootstrap = config.validate()?;
        // Addresses first: a port in use is the commonest mistake, and should not leave a registration behind.
        let client_listeners = listen(&config.listen_client_urls, "clients").await?;
        let peer_listeners = listen(&config.listen_peer_urls, "peers").await?;
        let data_dir = Arc::new(DataDir::open(&config.data_dir())?);
        let member = bootstrap::open(&config, &bootstrap, &data_dir).await?;
        let started = Parts::start(&config, member, &data_dir)?;
        let identity = PeerIdentity {
            cluster_id: started.cluster_id,
            member_id: started.member_id,
            incarnation: started.incarnation,
        };
        let inbox = MemberInbox {
            driver: started.driver.clone(),
            limits: bootstrap::limits(&config),
            roster: Arc::clone(&started.roster),
            id: started.member_id,
            received: started.peers.received(),
        };
        let handle = started.handle;
        let routes = peer_routes::routes(handle.clone());
        let transport = {
            let _core = started.core.enter();
            let listeners = adopt(peer_listeners).map_err(StartError::Thread)?;
            Transport::start(identity, listeners, Arc::new(inbox), routes, TransportConfig::default())
        };
        started.peers.set(transport);
        started.peers.set_peers(started.others);

        let (stop_http, stopped) = watch::channel(false);
        let mut http = JoinSet::new();
        let serve_config = http::ServeConfig {
            max_body_bytes: config.max_request_bytes,
            cors: config.cors.clone(),
            shutdown_grace: DRAIN,
            ..http::ServeConfig::default()
        };
        let mut stop = stopped.clone();
        let shutdown = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        http.spawn(http::serve(client_listeners, handle.clone(), serve_config, shutdown));
        http.spawn(handle.clone().keep_publishing(
            config.name.clone(),
            urls(&config.advertise_client_urls),
            stopped,
        ));
        Ok(Self {
            handle,
            driver: started.driver,
            peers: started.peers,
            linger: Some(started.linger),
            http,
            stop_http,
            ended: started.ended,
            threads: started.threads,
            data_dir: Some(data_dir),
        })
    }

    /// What requests are made with.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until the member takes writes: it has a leader and has published itself.
    ///
    /// # Errors
    /// The member stopped instead; why.
    pub async fn ready(&self) -> Result<(), String> {
        use crate::http::backend::Backend as _;
        loop {
            let view = self.handle.view();
            let me = self.handle.status().id;
            if view.members.get(&me).is_some_and(|member| !member.client_urls.is_empty()) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
                ended = self.ended() => return ended.and(Err("the member was stopped".into())),
            }
        }
    }

    /// Waits until the member has stopped, which it does by itself only when it must.
    ///
    /// # Errors
    /// Its disk failed, or an invariant was broken: the text says what.
    pub async fn ended(&self) -> Result<(), String> {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        match ended {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err("the core panicked; its message is in this log".into()),
        }
    }

    /// Stops the member: hands leadership over, ends requests in flight and watches, and closes its files.
    ///
    /// # Errors
    /// It had failed before; why.
    pub async fn shutdown(mut self) -> Result<(), String> {
        self.hand_over().await;
        self.stop_http.send_replace(true);
        let drained = async { while self.http.join_next().await.is_some() {} };
        // Serving has a deadline of its own; this one is for a runtime that does not get to it.
        let _ = tokio::time::timeout(DRAIN + Duration::from_secs(1), drained).await;
        let _ = self.driver.send(DriverInput::Stop).await;
        let result = self.ended().await;
        if let Some(transport) = self.peers.take() {
            Transport::clone(&transport).shutdown().await;
        }
        self.linger = None;
        let threads = std::mem::take(&mut self.threads);
        let data_dir = self.data_dir.take();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
            drop(data_dir);
        });
        let _ = joined.await;
        result
    }

    /// A leader that goes away without a word costs the cluster an election timeout.
    async fn hand_over(&self) {
        use crate::http::backend::Backend as _;
        let leads = |status: &Status| status.leader == status.id;
        let status = self.handle.status();
        if !leads(&status) || self.handle.view().members.len() < 2 {
            return;
        }
        let _ = self.driver.send(DriverInput::Input(Input::StepAside)).await;
        let handed = async {
            while leads(&self.handle.status()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(HAND_OVER, handed).await.is_err() {
            tracing::warn!("no other member took over in time; stopping as the leader");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_http.send_replace(true);
        let _ = self.driver.try_send(DriverInput::Stop);
    }
}

fn urls(urls: &[HttpUrl]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

/// A member without its sockets: its threads and the ways to them.
struct Parts {
    cluster_id: u64,
    member_id: u64,
    incarnation: u64,
    handle: Handle,
    driver: mpsc::Sender<DriverInput>,
    /// The runtime of the driver's thread.
    core: RuntimeHandle,
    linger: oneshot::Sender<()>,
    roster: Arc<ArcSwap<Roster>>,
    peers: Peers,
    others: std::collections::BTreeMap<u64, Vec<String>>,
    ended: watch::Receiver<Option<Result<(), String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Parts {
    fn start(
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
        let others = others.map(|(id, info)| (*id, info.peer_urls.clone())).collect();
        let view = Arc::new(ArcSwap::from_pointee(view_of(&recovered.state, 0)));
        let roster = Arc::new(ArcSwap::from_pointee(recovered.state.roster()));
        let replica = Replica::new(replica_config, recovered, clock.now()).map_err(StartError::Damaged)?;
        let status = Status {
            id: identity.member_id,
            name: identity.name.clone(),
            cluster_id: identity.cluster_id,
            ..Status::default()
        };
        let status = Arc::new(ArcSwap::from_pointee(KnownStatus { status, leader_since: Instant::now() }));
        let watches = Watches::new(Arc::clone(&view));
        let peers = Peers::default();
        let (driver_in, driver_out) = mpsc::channel(driver::QUEUE_MAX);
        let (disk_in, disk_out) = mpsc::unbounded_channel();
        let (news_in, news_out) = crossbeam_channel::bounded(driver::NEWS_MAX);
        let (stop_in, stop_out) = crossbeam_channel::bounded(0);
        let (space, alarms) = (Arc::new(Space::default()), Arc::new(Alarms::default()));
        let space_watch = SpaceWatch {
            dir: storage.log.dir().to_path_buf(),
            space: Arc::clone(&space),
            reserve: config.disk_reserve_bytes,
            quota: config.quota_backend_bytes,
            view: Arc::clone(&view),
            alarms: Arc::clone(&alarms),
            driver: driver_in.clone(),
            stopped: stop_out.clone(),
        };
        space_watch.begin();
        let mut storage = storage;
        storage.checkpoints.set_reserve_bytes(space.figures().1 / 2);
        let (ended_in, ended) = watch::channel(None);
        let checkpoints = Arc::new(storage.checkpoints);
        let disk_stats = Arc::new(DiskStats::default());
        let log_thread = LogThread {
            log: storage.log,
            checkpoints: Arc::clone(&checkpoints),
            jobs: disk_out,
            driver: driver_in.clone(),
            stats: Arc::clone(&disk_stats),
            space: Arc::clone(&space),
            alarms: Arc::clone(&alarms),
            stopped: stop_out,
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
            view: Arc::clone(&view),
            status: Arc::clone(&status),
            roster: Arc::clone(&roster),
            clock: Arc::clone(&clock),
            checkpoints,
            disk_stats,
            alarms: Arc::clone(&alarms),
            keep_alarm: Box::new(move |index| quarantine::keep(&alarm_dir, index)),
            _running: stop_in,
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
            view: Arc::clone(&view),
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
            others,
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
