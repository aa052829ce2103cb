//! Those who use the cluster: announcers, those who look services up, a probe that writes, and one who asks the
//! members how they are.
//!
//! Each is a task that writes what it learns on the [`Board`] and runs until it is aborted. The announcers are tasks of
//! this process and nothing listens at the addresses that they announce: it is the store that is on show.

use super::api::{Api, Ask};
use super::board::{Board, Service, State, Track};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Everything that the demonstration writes is below this.
pub(super) const ROOT: &str = "/announce";
/// Where services are announced.
pub(super) const SERVICES: &str = "/announce/services";
const PULSE: &str = "/announce/pulse";

/// Seconds that an announcement lasts.
pub(super) const TTL: u64 = 3;
/// How often it is refreshed.
pub(super) const REFRESH: Duration = Duration::from_secs(2);

/// From one look-up or probing write to the next.
const STEP: Duration = Duration::from_millis(20);
/// From one question to a member about itself to the next.
const ASK_STATUS: Duration = Duration::from_millis(50);
/// A request that no member answered for so long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Tasks that end when dropped.
#[derive(Debug, Default)]
pub(super) struct Actors(Vec<(String, JoinHandle<()>)>);

impl Actors {
    pub(super) fn start(
        &mut self,
        name: impl Into<String>,
        actor: impl Future<Output = ()> + Send + 'static,
    ) {
        self.0.push((name.into(), tokio::spawn(actor)));
    }

    /// One that has ended though it should not have.
    pub(super) fn fallen(&self) -> Option<&str> {
        self.0.iter().find(|(_, task)| task.is_finished()).map(|(name, _)| name.as_str())
    }

    /// Ends those of this name.
    pub(super) fn end(&mut self, name: &str) {
        self.0.retain(|(of, task)| {
            if of == name {
                task.abort();
            }
            of != name
        });
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        for (_, task) in &self.0 {
            task.abort();
        }
    }
}

/// Announces a service until told to stop, through the member `home` while that answers. It stops between two
/// refreshes, so that the last one is known.
pub(super) async fn announce(
    api: Api,
    board: Arc<Board>,
    name: &'static str,
    home: usize,
    stop: Arc<Notify>,
) {
    let Some(address) = board.state().services.get(name).map(|service| service.address) else { return };
    let ask = Ask::Put(format!("/v2/keys{SERVICES}/{name}"), format!("value={address}&ttl={TTL}"));
    let mut first = home;
    loop {
        match api.ask(first, &ask, PATIENCE).await {
            Ok(answered) => {
                let mut state = board.state();
                state.acknowledged.push(answered.reply.node.modified_index);
                if let Some(service) = state.services.get_mut(name) {
                    service.refreshed = Some(answered.sent);
                    service.refreshes += 1;
                    service.through = answered.by;
                    service.detours += u64::from(answered.retries > 0);
                }
                first = answered.by;
            }
            Err(error) => return board.trouble(format!("{name} could not be announced: {error}")),
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            () = stop.notified() => {
                if let Some(service) = board.state().services.get_mut(name) {
                    service.silent = true;
                }
                // The others of its kind are watched for falling silent by themselves.
                return std::future::pending().await;
            }
        }
    }
}

/// Looks the services up, again and again, at each member in turn: linearizable, or in the member's own state.
pub(super) async fn look_up(api: Api, board: Arc<Board>, linearizable: bool) {
    let query = if linearizable { "" } else { "&quorum=false" };
    let ask = Ask::Get(format!("/v2/keys{SERVICES}?recursive=true{query}"));
    let track = move |state: &mut State, change: &dyn Fn(&mut Track)| {
        change(if linearizable { &mut state.reads } else { &mut state.local_reads });
    };
    let mut member = 0;
    loop {
        let expected = announced(&board);
        match api.ask(member, &ask, PATIENCE).await {
            Ok(answered) => {
                let mut state = board.state();
                track(&mut state, &|track| track.succeed(Instant::now()));
                if linearizable {
                    compare(&mut state, &expected, &answered.reply.node.nodes);
                }
            }
            Err(_) => track(&mut board.state(), &|track| track.failed += 1),
        }
        member = (member + 1) % api.members();
        tokio::time::sleep(STEP).await;
    }
}

/// The services that every look-up from now on must find.
fn announced(board: &Board) -> Vec<&'static str> {
    let state = board.state();
    let known = |service: &Service| service.refreshed.is_some() && !service.silent;
    state.services.iter().filter(|(_, service)| known(service)).map(|(name, _)| *name).collect()
}

fn compare(state: &mut State, expected: &[&'static str], found: &[super::api::KeyNode]) {
    let ttl_of = |name: &str| {
        let is_it =
            |key: &str| key.strip_prefix(SERVICES).and_then(|key| key.strip_prefix('/')) == Some(name);
        found.iter().find(|node| is_it(&node.key)).map(|node| node.ttl)
    };
    // One that was told to stop meanwhile is missing by right.
    let missing =
        expected.iter().filter(|name| state.services.get(*name).is_some_and(|service| !service.silent));
    state.misses += missing.filter(|name| ttl_of(name).is_none()).count() as u64;
    for (name, service) in &mut state.services {
        service.ttl = ttl_of(name).flatten();
    }
}

/// Writes one small key, again and again: when that pauses, writes pause.
pub(super) async fn probe(api: Api, board: Arc<Board>) {
    let mut member = 0;
    for count in 0_u64.. {
        let ask = Ask::Put(format!("/v2/keys{PULSE}"), format!("value={count}"));
        match api.ask(member, &ask, PATIENCE).await {
            Ok(answered) => {
                let mut state = board.state();
                state.writes.succeed(Instant::now());
                state.acknowledged.push(answered.reply.node.modified_index);
            }
            Err(_) => board.state().writes.failed += 1,
        }
        member = (member + 1) % api.members();
        tokio::time::sleep(STEP).await;
    }
}

/// Asks a member about itself, again and again.
pub(super) async fn examine(api: Api, board: Arc<Board>, member: usize) {
    loop {
        let status = api.status(member).await.ok();
        if let Some(seen) = board.state().members.get_mut(member) {
            seen.status = status;
        }
        tokio::time::sleep(ASK_STATUS).await;
    }
}

/// Hears of every change below [`ROOT`], at this member first: one answer that does not end, and when it breaks, another
/// member's from the event on that is next.
pub(super) async fn watch(api: Api, board: Arc<Board>, watcher: usize, mut member: usize) {
    loop {
        let next = board.state().watchers.get(watcher).map_or(1, |seen| seen.last() + 1);
        if let Ok(response) = api.stream(member, ROOT, next).await
            && let Err(fault) = follow(response, &board, watcher).await
            && let Some(seen) = board.state().watchers.get_mut(watcher)
        {
            seen.faults.push(fault);
        }
        member = (member + 1) % api.members();
        if let Some(seen) = board.state().watchers.get_mut(watcher) {
            seen.at = member;
            seen.moves += 1;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Takes down events until the stream breaks; an error if it says what an event stream must not.
async fn follow(mut response: reqwest::Response, board: &Board, watcher: usize) -> Result<(), String> {
    let mut lines = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        lines.extend_from_slice(&chunk);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            let event = serde_json::from_slice(&line)
                .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&line)))?;
            take(board, watcher, &event);
        }
        if lines.len() > super::api::ANSWER_BYTES_MAX {
            return Err("an event of more than a megabyte".to_owned());
        }
    }
    Ok(())
}

fn take(board: &Board, watcher: usize, event: &super::api::Reply) {
    let mut state = board.state();
    let Some(seen) = state.watchers.get_mut(watcher) else { return };
    let first = seen.take(event, Instant::now());
    if event.node.key == PULSE {
        return;
    }
    seen.remember(event);
    let member = format!("m{}", seen.at + 1);
    drop(state);
    let tells = watcher == 0 && (first || event.action != "set");
    if tells {
        let value = event.node.value.as_deref().map(|value| format!(" = {value}")).unwrap_or_default();
        let (action, key, index) = (&event.action, &event.node.key, event.node.modified_index);
        board.say(format!("watch at {member}: {action} {key}{value} [{index}]"));
    }
}
