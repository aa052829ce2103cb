//! The server as a process: logs, signals, and what systemd wants to hear.

use super::config::Config;
use super::running::Node;
use std::io::IsTerminal as _;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a member until it is told to stop (SIGTERM, SIGINT) or must. Blocks.
pub fn serve(config: Config) -> ExitCode {
    init_log(&config.log_level);
    raise_descriptor_limit();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().thread_name("clients").on_thread_start(interrupt_nobody);
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("cannot start the runtime: {error}")),
    };
    runtime.block_on(run(config))
}

/// Has the calling thread, one that serves clients, wait for its turn on a busy processor (`SCHED_BATCH`, sched(7)): its share of
/// it is as before, but when it is woken it takes it from nobody. Each time that it did so it took it from the core, or from
/// others with answers half written, and found less to do at once. The core and the log do interrupt others: what they do late, a cluster
/// notices.
fn interrupt_nobody() {
    use uapi::c::{SCHED_BATCH, SCHED_OTHER, sched_param};
    const CALLING_THREAD: i32 = 0;
    // An operator may have chosen another policy for the whole process.
    if uapi::sched_getscheduler(CALLING_THREAD) != Ok(SCHED_OTHER) {
        return;
    }
    if let Err(error) =
        uapi::sched_setscheduler(CALLING_THREAD, SCHED_BATCH, &sched_param { sched_priority: 0 })
    {
        tracing::debug!(%error, "a thread stays one that interrupts others");
    }
}

/// Logs go to standard error, as a daemon's do.
pub(super) fn init_log(level: &str) {
    // raft-engine tells at every start how long it took.
    let directives = format!("raft_engine=warn,{level}");
    let filter = tracing_subscriber::EnvFilter::try_new(directives).unwrap_or_else(|_| "info".into());
    let ansi = std::io::stderr().is_terminal();
    // A program that embeds a member may have set up its own.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_target(false)
        .try_init();
}

/// Each waiting client is a connection; the soft limit of most shells and units would end at a thousand of them.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

fn refuse(error: &str) -> ExitCode {
    eprintln!("quorate: {error}");
    ExitCode::FAILURE
}

async fn run(config: Config) -> ExitCode {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                return refuse(&format!("cannot listen for signals: {error}"));
            }
        };
    let clients = join(&config.listen_client_urls);
    let peers = join(&config.listen_peer_urls);
    let node = tokio::select! {
        node = Node::start(config) => match node {
            Ok(node) => node,
            Err(error) => return refuse(&error.to_string()),
        },
        _ = terminate.recv() => return ExitCode::SUCCESS,
        _ = interrupt.recv() => return ExitCode::SUCCESS,
    };
    tracing::info!(clients, peers, "serving");
    let ended = tokio::select! {
        ended = run_node(&node) => ended,
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    };
    match ended {
        Ok(signal) => tracing::info!(signal, "stopping"),
        Err(error) => {
            tracing::error!("this member must stop: {error}");
            let _ = node.shutdown().await;
            return ExitCode::FAILURE;
        }
    }
    notify("STOPPING=1");
    match node.shutdown().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

async fn run_node(node: &Node) -> Result<&'static str, String> {
    node.ready().await?;
    tracing::info!("ready: the cluster has a leader and knows this member");
    notify("READY=1");
    node.ended().await.map(|()| "request")
}

fn join(urls: &[super::config::HttpUrl]) -> String {
    urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Tells systemd, if it wants to know (sd_notify(3)).
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || -> std::io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        match path.to_str().and_then(|path| path.strip_prefix('@')) {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt as _;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(state.as_bytes(), &address)?;
            }
            None => {
                socket.send_to(state.as_bytes(), &path)?;
            }
        }
        Ok(())
    };
    if let Err(error) = send() {
        tracing::warn!(%error, "could not notify systemd");
    }
}
