//! Real members on hosts of their own, under faults, with clients and watchers whose histories are judged.
//!
//! Clusters of three and of five members of the real program, each in a network namespace with an address of its own, are
//! killed (`kill -9`: one, the leader, most, all, and while they start), stopped and continued, cut apart (in halves, the
//! leader alone, a bridge, a ring, in one direction), made to lose packets, to send them late, out of order or twice, given
//! wall clocks that jump by months, started with monotonic clocks that say anything, and their disks are filled to the last
//! byte: of one, of the leader, of most. Meanwhile clients read, write, swap, create, delete, append, list, keep
//! keys alive and let them go, and watchers follow everything. Then, and meanwhile, this must be true:
//!
//! - Every register and every queue is linearizable (`checker`); a call without an answer may have happened or not, once.
//! - `X-Etcd-Index` never goes back, on whichever member; a member's own state never goes back while it runs.
//! - Each watcher gets each event once, in order, with the node as it was before; all get the same; the events replayed are
//!   what is listed in the end, and what was acknowledged is among them.
//! - No key dies before its time, by anybody's clock, or lives a second longer than that and the time without a leader.
//! - No member ends by itself. As long as a majority is whole, somebody can write within some election timeouts
//!   (`progress`); when all is healed, every member serves.
//!
//! Needs root (namespaces) and Debian's iproute2, nftables, libfaketime; `tests/run` sees to it. By the environment:
//!
//!     CLUSTER_SEED=7 CLUSTER_SECONDS=600 CLUSTER_MEMBERS=5 cargo test --release --test cluster faults -- --nocapture
//!
//! The seed decides what is done, in which order and for how long; the processes decide how it interleaves. Half of the
//! seconds go to each of the sizes in CLUSTER_MEMBERS (3,5).
//!
//! It is known to find what it looks for: CLUSTER_BUG=LocalReads (members answer default reads from their own state),
//! CLUSTER_BUG=UnsyncedDisk (a killed member comes back with its disk as it was long before) and CLUSTER_BUG=WatchGap (a
//! watcher that comes back misses an index; this one is a test) put a bug in, and the run must fail; as it did with
//! CLUSTER_PROGRAM=PATH of a build whose members answered default reads at once, from what they had applied: registers that
//! are not linearizable and keys that are not there a moment after they were made, within seconds.
//! (A member whose disk went back ends by itself and says why, or is not let in again: that is how the second is found.)
//!
//! What it does not do: power cuts; damage packets; ask anything of a cluster under the faults that `progress` leaves out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a program of its own")]

mod checker;
#[cfg(test)]
mod checker_tests;
mod clients;
mod detour;
mod faults;
mod history;
mod hosts;
mod leases;
mod members;
mod nemesis;
mod partitions;
mod progress;
mod replacement;
mod verdict;
mod watchers;
mod wire;

use clients::Client;
use faults::Fault;
use history::History;
use leases::Leases;
use nemesis::Nemesis;
use reqwest::Method;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use verdict::Tree;
use wire::{Bug, Wire};

/// For a cluster to start, and to be whole again when everything is healed.
const RECOVERY: Duration = Duration::from_secs(30);

fn setting<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .map_or(default, |text| text.parse().ok().unwrap_or_else(|| panic!("{name}={text}: what is that?")))
}

struct Options {
    size: usize,
    seconds: u64,
    seed: u64,
    bug: Option<Bug>,
}

fn bug() -> Option<Bug> {
    match setting("CLUSTER_BUG", String::new()).as_str() {
        "" => None,
        "LocalReads" => Some(Bug::LocalReads),
        "UnsyncedDisk" => Some(Bug::UnsyncedDisk),
        "WatchGap" => Some(Bug::WatchGap),
        other => panic!("CLUSTER_BUG={other}: LocalReads, UnsyncedDisk or WatchGap"),
    }
}

/// What one run found wrong, and where the logs are if anything.
struct Outcome {
    violations: Vec<String>,
    dir: PathBuf,
}

/// There is one network for the hosts of this process.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watchers' checks are worth something.
#[test]
fn a_gap_in_what_watchers_are_told_is_found() {
    let _alone = alone();
    let options =
        Options { size: 3, seconds: ENDING + 6, seed: setting("CLUSTER_SEED", 1), bug: Some(Bug::WatchGap) };
    let Outcome { violations, dir } = play(&options);
    let told = |violation: &String| violation.contains("its event is") || violation.contains("elsewhere");
    assert!(violations.iter().any(told), "nobody noticed: {violations:?}");
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn faults() {
    let _alone = alone();
    let sizes = setting("CLUSTER_MEMBERS", "3,5".to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(|size| size.parse().expect("CLUSTER_MEMBERS")).collect();
    let seconds = setting("CLUSTER_SECONDS", 60) / sizes.len() as u64;
    let seed = setting("CLUSTER_SEED", 1);
    for size in sizes {
        let outcome = play(&Options { size, seconds, seed, bug: bug() });
        let Outcome { violations, dir } = &outcome;
        assert!(
            violations.is_empty(),
            "{} violations with {size} members, CLUSTER_SEED={seed}; logs and data are in {}:\n{}",
            violations.len(),
            dir.display(),
            violations.join("\n")
        );
    }
}

fn play(options: &Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dir = tempfile::Builder::new().prefix("cluster-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let history = Arc::new(History::new());
    runtime.block_on(run(options, &history, dir.path()));
    let violations = history.violations();
    let kept = if violations.is_empty() { dir.path().to_owned() } else { dir.keep() };
    Outcome { violations, dir: kept }
}

async fn run(options: &Options, history: &Arc<History>, dir: &std::path::Path) {
    let Options { size, seconds, seed, bug } = *options;
    let until = seconds.saturating_sub(ENDING) * 1_000_000;
    let wire = Wire::new(Arc::clone(history), size, bug);
    let starts: Arc<Vec<AtomicU64>> = Arc::new((0..size).map(|_| AtomicU64::new(0)).collect());
    let hosts = hosts::Hosts::new(size);
    let mut nemesis = Nemesis::new(hosts, members::Member::cluster(size, dir), &wire, seed, &starts, bug);
    nemesis.heal();
    if !all_serve(&wire).await {
        return history.violation("the cluster does not start".to_owned());
    }
    let (stop_leases, stop_clients, stop_watchers) =
        <(Arc<AtomicBool>, Arc<AtomicBool>, Arc<AtomicBool>)>::default();
    let mut clients = JoinSet::new();
    for number in 0..size + 2 {
        clients.spawn(Client::new(&wire, "register", number, seed, &stop_clients).registers());
    }
    for number in size..size + 2 {
        clients.spawn(Client::new(&wire, "queue", number, seed, &stop_clients).queue());
    }
    clients.spawn(Client::new(&wire, "own", size, seed, &stop_clients).own_state(Arc::clone(&starts)));
    let mut watchers = JoinSet::new();
    for member in 0..size {
        watchers.spawn(watchers::stream(wire.clone(), member, Arc::clone(&stop_watchers)));
    }
    watchers.spawn(watchers::roaming(wire.clone(), Arc::clone(&stop_watchers)));
    let leases = Arc::new(Leases::default());
    let leasing =
        tokio::spawn(leases::run(wire.clone(), seed, Arc::clone(&leases), Arc::clone(&stop_leases)));

    let mut nemesis = tokio::task::spawn_blocking(move || {
        nemesis.run(until);
        nemesis
    })
    .await
    .expect("the nemesis");
    if !all_serve(&wire).await {
        history.violation("everything is healed, and some member does not serve".to_owned());
    }
    stop_leases.store(true, Ordering::Relaxed);
    leasing.await.expect("no panic");
    stop_clients.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no panic");
    }
    let trees = the_end(&wire).await;
    stop_watchers.store(true, Ordering::Relaxed);
    watchers.abort_all();
    nemesis.look_after_processes();
    for log in nemesis.logs() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.contains("panicked")) {
            history.violation(format!("{}: {line}", log.display()));
        }
    }
    let leases = std::mem::take(&mut *leases.0.lock().unwrap());
    if !trees.is_empty() {
        verdict::judge(history, &leases, &trees);
    }
    report(history, &nemesis, &leases, size, seed);
}

/// What is needed after the faults, in seconds.
const ENDING: u64 = 7;

/// Every member answers a write, soon.
async fn all_serve(wire: &Wire) -> bool {
    let deadline = tokio::time::Instant::now() + RECOVERY;
    for member in 0..wire.size {
        loop {
            let rest = format!("/v2/keys/serves/m{}?", member + 1);
            let form = format!("value={}", wire.history.new_value());
            let answer = wire.ask(Method::PUT, member, &rest, &form, Duration::from_secs(2)).await;
            if answer.is_ok_and(|answer| matches!(answer.status, 200 | 201)) {
                break;
            }
            if tokio::time::Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    true
}

/// Waits until every watcher has been told everything, and lists every member's keys.
async fn the_end(wire: &Wire) -> Vec<Tree> {
    let history = &wire.history;
    let form = format!("value={}", history.new_value());
    let last = wire.ask(Method::PUT, 0, "/v2/keys/end", &form, Duration::from_secs(5)).await;
    let Some(last) = last.ok().and_then(|answer| answer.modified()) else {
        history.violation("the last write of all was not answered".to_owned());
        return Vec::new();
    };
    // One that misses an index may miss the last.
    let patience = if wire.bug == Some(Bug::WatchGap) { Duration::from_secs(2) } else { RECOVERY };
    let deadline = tokio::time::Instant::now() + patience;
    for watcher in
        (0..wire.size).map(|member| format!("stream@m{}", member + 1)).chain(["roaming".to_owned()])
    {
        while history.last_told(&watcher) < last {
            if tokio::time::Instant::now() > deadline {
                let told = history.last_told(&watcher);
                history.violation(format!(
                    "{watcher} was told everything up to {told}, and then nothing; {last} was last"
                ));
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut trees = Vec::new();
    for member in 0..wire.size {
        let mut tree = Tree::new();
        let answer = wire.read(member, "/", "recursive=true", Duration::from_secs(10)).await;
        match answer {
            Ok(answer) => verdict::leaves(answer.node(), &mut tree),
            Err(_) => history.violation(format!("m{} does not list its keys", member + 1)),
        }
        trees.push(tree);
    }
    trees
}

fn report(history: &History, nemesis: &Nemesis, leases: &[leases::Lease], size: usize, seed: u64) {
    let calls = history.calls();
    let unknown = calls.iter().filter(|call| call.returned.is_none()).count();
    let writes = calls.iter().filter(|call| call.wrote.is_some()).count();
    let events = history.watchers().values().map(Vec::len).max().unwrap_or(0);
    let mut acks: Vec<u64> = calls.iter().filter_map(|call| call.wrote.and(call.returned)).collect();
    acks.sort_unstable();
    let (pause, before) = acks.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max().unwrap_or_default();
    let late = nemesis.hosts.late_packets().load(Ordering::Relaxed);
    eprintln!(
        "{size} members, seed {seed}, {:.0} s: {} calls, {writes} acknowledged writes, {unknown} of unknown end, {events} \
         events, {} keys with a time to live, {} faults {:?}, the longest time without an acknowledged write {:.1} s, from {:.1} s on, the longest recovery {:.1} s, {} promises \
         of progress kept, {late} packets late",
        history.now() as f64 / 1e6,
        calls.len(),
        leases.len(),
        history.faults().iter().filter(|(_, what)| what != "heal").count(),
        nemesis.dealt,
        pause as f64 / 1e6,
        before as f64 / 1e6,
        nemesis.longest_recovery.as_secs_f64(),
        nemesis.promises_kept,
    );
    let dealt = |fault: Fault| nemesis.dealt.contains_key(&format!("{fault:?}"));
    assert!(late > 0 || !(dealt(Fault::Late) || dealt(Fault::Disorder)), "no packet was late");
    assert!(writes > 100 && events > 100, "so little happened that it says nothing");
}
