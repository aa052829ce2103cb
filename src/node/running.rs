//! A member from start to shutdown.

use super::backend::Handle;
use super::bootstrap;
use super::config::{Config, HttpUrl};
use super::core_thread::adopt;
use super::driver::DriverInput;
use super::listen::listen;
use super::parts::Parts;
use super::wire::{MemberInbox, Peers};
use super::{StartError, peer_routes};
use crate::http;
use crate::http::backend::Status;
use crate::replica::Input;
use crate::storage::DataDir;
use crate::transport::{PeerIdentity, Transport, TransportConfig};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
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
            entrance: started.entrance,
            driver: started.driver.clone(),
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
            let summary = self.handle.summary();
            let me = self.handle.status().id;
            if summary.members.get(&me).is_some_and(|member| !member.client_urls.is_empty()) {
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
        if !leads(&status) || self.handle.summary().members.len() < 2 {
            return;
        }
        let _ = self.driver.send(DriverInput::Input(Input::StepAside)).await;
        crash_point!("stop.handing-over");
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
