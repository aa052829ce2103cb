//! The script: five acts, each of which waits for what it shows and measures it.

use super::Failure;
use super::actors::{self, REFRESH, SERVICES, TTL};
use super::board::{MemberSeen, Service, State};
use super::place::free_ports;
use super::process::Process;
use super::sightings::Sightings;
use super::stage::Stage;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What should take a second or two, on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(30);
/// The services, of which the last will fall silent.
const CAST: [(&str, &str); 4] = [
    ("apache80", "10.0.0.11:80"),
    ("apache81", "10.0.0.12:81"),
    ("redis6379", "10.0.0.13:6379"),
    ("mail25", "10.0.0.14:25"),
];
/// The one that will.
pub(super) const DOOMED: &str = CAST[CAST.len() - 1].0;

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Findings {
    /// From the first start to a leader that all know.
    pub(super) formed: Duration,
    /// From the last refresh of the silent service until the watchers heard, each.
    pub(super) expired: Vec<Duration>,
    /// Name of the leader that was killed, and of the next.
    pub(super) leaders: [String; 2],
    /// From the kill until the next was seen to lead.
    pub(super) elected: Duration,
    /// Without an acknowledged write, around the kill.
    pub(super) pause: Duration,
    /// From the start of the killed member until it had everything.
    pub(super) caught_up: Duration,
    /// The log position up to which.
    pub(super) caught_up_to: u64,
}

/// Plays all acts.
pub(super) async fn play(stage: &mut Stage) -> Result<Findings, Failure> {
    let formed = gather(stage).await?;
    let stop = announce(stage).await?;
    let expired = fall_silent(stage, &stop).await?;
    let (victim, leaders, elected, pause) = kill_leader(stage).await?;
    let (caught_up, caught_up_to) = come_back(stage, victim).await?;
    settle(stage).await?;
    Ok(Findings { formed, expired, leaders, elected, pause, caught_up, caught_up_to })
}

/// Act 1: a cluster out of nothing but a token.
async fn gather(stage: &mut Stage) -> Result<Duration, Failure> {
    let board = Arc::clone(&stage.board);
    board.act(
        "Three machines find each other",
        "All that they are told is a discovery URL, as with `quorate -discovery URL` on three machines.",
    );
    let mut service = Process::new("discovery", free_ports()?, None, &stage.dir);
    let base = service.ports.client_url();
    service.start()?;
    stage.discovery = Some(service);
    let token = new_token(stage, &base).await?;
    board.say(format!("a fourth member, a cluster of its own, serves discovery: GET {base}/new?size=3"));
    board.say(format!("-> {token}"));
    let began = Instant::now();
    for i in 0..stage.members.len() {
        let process = &stage.members[i];
        stage.members[i] = Process::new(&process.name, process.ports, Some(token.clone()), &stage.dir);
        stage.start(i)?;
        let process = &stage.members[i];
        let (pid, ports) = (process.pid().unwrap_or(0), process.ports);
        board.say(format!(
            "{} starts: process {pid}, clients {}, peers {}",
            process.name, ports.client, ports.peer
        ));
        stage.actors.start(
            format!("the watch over m{}", i + 1),
            actors::examine(stage.api.clone(), Arc::clone(&board), i),
        );
    }
    let leader = stage.until("the members form a cluster", LIMIT, leader_of_all).await?;
    let formed = began.elapsed();
    board.say(format!("one cluster, led by m{}, {} after the first start", leader + 1, seconds(formed)));
    if let Some(mut service) = stage.discovery.take() {
        service.terminate();
        service.finish().await;
    }
    board.say("the discovery service is stopped: it is needed no more");
    Ok(formed)
}

async fn new_token(stage: &mut Stage, base: &str) -> Result<String, Failure> {
    let began = Instant::now();
    loop {
        match stage.api.new_token(base, stage.members.len()).await {
            Ok(token) => return Ok(token),
            Err(error) if began.elapsed() > LIMIT => {
                return Err(Failure(format!("the discovery service gives no token: {error}")));
            }
            Err(_) => stage.pass(Duration::from_millis(50)).await?,
        }
    }
}

/// Who leads, if all members know and are as one.
fn leader_of_all(state: &State) -> Option<usize> {
    let leader = leader(state)?;
    let id = &state.members[leader].status.as_ref()?.id;
    let agrees = |member: &MemberSeen| member.status.as_ref().is_some_and(|status| status.lead == *id);
    state.members.iter().all(agrees).then_some(leader)
}

/// Who leads; of two that think so, the one of the later term.
fn leader(state: &State) -> Option<usize> {
    let leaders = state.members.iter().enumerate().filter(|(_, member)| member.leads());
    leaders.max_by_key(|(_, member)| member.status.as_ref().map(|status| status.term)).map(|(i, _)| i)
}

/// Act 2: announcements, look-ups and watchers. Returns what stops the doomed service's announcer.
async fn announce(stage: &mut Stage) -> Result<Arc<Notify>, Failure> {
    let board = Arc::clone(&stage.board);
    board.act(
        "Services announce themselves",
        "A key each, that lasts 3 s and is renewed every 2 s (in earnest: ttl=60, every 45 s); two watch them all.",
    );
    let leader = leader(&board.state()).ok_or_else(|| Failure("the leader is gone".to_owned()))?;
    let members = stage.members.len();
    let follower = (leader + 1) % members;
    for (watcher, member) in [follower, leader].into_iter().enumerate() {
        board.state().watchers.push(Sightings::new(member));
        board.say(format!(
            "watcher {} at m{} ({}): GET /v2/keys{}?wait=true&recursive=true&stream=true",
            watcher + 1,
            member + 1,
            if member == leader { "the leader" } else { "a follower" },
            actors::ROOT,
        ));
        let watch = actors::watch(stage.api.clone(), Arc::clone(&board), watcher, member);
        stage.actors.start(format!("watcher {}", watcher + 1), watch);
    }
    let stop = Arc::new(Notify::new());
    board.say(format!("{} services: PUT /v2/keys{SERVICES}/NAME -d value=ADDRESS -d ttl={TTL}", CAST.len()));
    for (i, (name, address)) in CAST.into_iter().enumerate() {
        // One at each member, and the doomed one where nobody is going to be killed.
        let home = if name == DOOMED { follower } else { (leader + i) % members };
        board.state().services.insert(name, Service::new(address, home));
        let stop = if name == DOOMED { Arc::clone(&stop) } else { Arc::new(Notify::new()) };
        let announcer = actors::announce(stage.api.clone(), Arc::clone(&board), name, home, stop);
        stage.actors.start(format!("the announcer of {name}"), announcer);
    }
    let all_known =
        |state: &State| state.services.values().all(|service| service.refreshes > 0).then_some(());
    stage.until("the services are announced", LIMIT, all_known).await?;
    for (name, linearizable) in [("linearizable look-ups", true), ("local look-ups", false)] {
        stage.actors.start(name, actors::look_up(stage.api.clone(), Arc::clone(&board), linearizable));
    }
    stage.actors.start("the probe", actors::probe(stage.api.clone(), Arc::clone(&board)));
    board.say("look-ups go on from here, linearizable and local (quorum=false), as do writes that probe for a pause");
    let all_seen = |state: &State| {
        let seen = state.watchers.iter().all(|seen| seen.last() > 0);
        (seen && state.services.values().all(|service| service.refreshes > 1)).then_some(())
    };
    stage.until("every service is refreshed and watched", LIMIT, all_seen).await?;
    let refreshes: u64 = board.state().services.values().map(|service| service.refreshes).sum();
    board.say(format!("{refreshes} announcements so far, all services are found"));
    Ok(stop)
}

/// Act 3: a service dies without a word.
async fn fall_silent(stage: &mut Stage, stop: &Notify) -> Result<Vec<Duration>, Failure> {
    let board = Arc::clone(&stage.board);
    board.act("A service dies", "Nobody takes its key away: it expires, and who watches hears of it.");
    stop.notify_one();
    let of_doomed = |state: &State| state.services.get(DOOMED).filter(|service| service.silent).cloned();
    let service = stage.until("the announcer stops", LIMIT, of_doomed).await?;
    let last = service.refreshed.ok_or_else(|| Failure("the service was never announced".to_owned()))?;
    board.say(format!("{DOOMED} refreshes no more; its last refresh was {} ago", seconds(last.elapsed())));
    let key = format!("{SERVICES}/{DOOMED}");
    let heard = |state: &State| -> Option<Vec<Duration>> {
        let at = state.watchers.iter().map(|seen| seen.expired.get(&key));
        at.map(|at| at.map(|at| at.duration_since(last))).collect()
    };
    let expired = stage.until("both watchers hear that the key expired", LIMIT, heard).await?;
    for (i, after) in expired.iter().enumerate() {
        board.say(format!("watcher {} heard {} after that refresh, with ttl={TTL}", i + 1, seconds(*after)));
    }
    Ok(expired)
}

/// Act 4: the leader is killed. Returns who it was.
async fn kill_leader(stage: &mut Stage) -> Result<(usize, [String; 2], Duration, Duration), Failure> {
    let board = Arc::clone(&stage.board);
    board.act(
        "The leader dies",
        "kill -9. The others elect a new one; announcers, look-ups and the second watcher go on through them.",
    );
    let victim = stage.until("there is a leader", LIMIT, leader).await?;
    let (term, before) = {
        let mut state = board.state();
        state.writes.measure_anew();
        (state.members[victim].status.as_ref().map_or(0, |status| status.term), state.writes.ok)
    };
    let killed = Instant::now();
    stage.kill(victim)?;
    board.say(format!("m{} is killed", victim + 1));
    let next = move |state: &State| {
        let found = leader(state).filter(|found| *found != victim)?;
        (state.members[found].status.as_ref()?.term > term).then_some(found)
    };
    let next = stage.until("a new leader is elected", LIMIT, next).await?;
    let elected = killed.elapsed();
    board.say(format!("m{} leads, {} after the kill", next + 1, seconds(elected)));
    stage.until("writes go on", LIMIT, |state| (state.writes.ok > before + 10).then_some(())).await?;
    let pause = board.state().writes.longest_gap(Instant::now());
    board.say(format!("writes go on; the longest time without one was {}", seconds(pause)));
    board.say("now for longer than an announcement lasts: those services must still be there");
    let over = Duration::from_secs(TTL) + Duration::from_millis(500);
    stage.pass(over.saturating_sub(killed.elapsed().saturating_sub(elected))).await?;
    let refreshed = |state: &State| {
        let mut live = state.services.values().filter(|service| !service.silent);
        live.all(|service| service.refreshed.is_some_and(|at| at.elapsed() < REFRESH * 2)).then_some(())
    };
    stage.until("every live service is refreshed", LIMIT, refreshed).await?;
    let detours: u64 = board.state().services.values().map(|service| service.detours).sum();
    board.say(format!("they are; {detours} refreshes went through another member than at first"));
    let name = |member: usize| format!("m{}", member + 1);
    Ok((victim, [name(victim), name(next)], elected, pause))
}

/// Act 5: the killed member is started again.
async fn come_back(stage: &mut Stage, member: usize) -> Result<(Duration, u64), Failure> {
    let board = Arc::clone(&stage.board);
    board.act(
        "The dead member comes back",
        "Same command, same directory; it recovers and fetches what it missed.",
    );
    let applied =
        |state: &State| state.members.iter().filter_map(|seen| Some(seen.status.as_ref()?.applied)).max();
    let target = applied(&board.state()).unwrap_or(0);
    let began = Instant::now();
    stage.start(member)?;
    let process = &stage.members[member];
    board.say(format!("{} starts again: process {}", process.name, process.pid().unwrap_or(0)));
    let there = move |state: &State| {
        let seen = &state.members[member];
        let applied = seen.status.as_ref()?.applied;
        (applied >= target && seen.follows_or_leads()).then_some(applied)
    };
    let reached = stage.until("the member catches up", LIMIT, there).await?;
    let caught_up = began.elapsed();
    board.say(format!(
        "m{} has applied log position {reached}, {} after its start",
        member + 1,
        seconds(caught_up)
    ));
    stage.pass(Duration::from_millis(1500)).await?;
    Ok((caught_up, reached))
}

/// The end: no more writes, and the watchers hear of the last ones.
async fn settle(stage: &mut Stage) -> Result<(), Failure> {
    for actor in ["the probe", "linearizable look-ups", "local look-ups"] {
        stage.actors.end(actor);
    }
    let all_heard = |state: &State| {
        let last = state.acknowledged.iter().max().copied().unwrap_or(0);
        state.watchers.iter().all(|seen| seen.last() >= last).then_some(())
    };
    stage.until("the watchers hear of the last writes", LIMIT, all_heard).await?;
    // A cluster that is kept has only its announcers left.
    stage.actors.end("watcher 1");
    stage.actors.end("watcher 2");
    Ok(())
}

/// `1.234 s`, or `12 ms`.
pub(super) fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.3} s", time.as_secs_f64())
    }
}
