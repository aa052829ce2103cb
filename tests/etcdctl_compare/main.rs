//! Runs the same command lines through this `etcdctl` and through the real one of etcd 3.4, each against its own real
//! etcd, and compares stdout, stderr and exit codes.
//!
//! The two etcds start empty and see the same lines in the same order, so that even indexes must be the same. Only what
//! cannot be the same is made so before comparing: ports, member ids, points in time, the tools' versions, the layout of
//! help texts, and the one query parameter that ours leaves to the server.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests too

mod lines;
mod side;

use lines::{ENVIRONMENTS, LINES, LIVE, SCRIPTED, STDIN};
use side::{Etcd, Outcome, Side, replace_after, scripted, until, wait};
use std::process::{Command, Stdio};
use std::time::Duration;

const OURS: &str = env!("CARGO_BIN_EXE_etcdctl");
const REAL: &str = "etcdctl";
/// Says that a machine without a real etcd is meant to be one.
const WITHOUT: &str = "QUORATE_WITHOUT_ETCD";

/// All that one side does, in order, with a label for each line.
fn all_outcomes(side: &Side<'_>, servers: &[String]) -> Vec<(String, Outcome)> {
    let endpoint = Some(side.etcd.client.as_str());
    let mut outcomes = Vec::new();
    for line in LINES {
        // A line that names its endpoint must not find another one in the environment.
        let endpoint = if line.contains("{E}") { None } else { endpoint };
        outcomes.push(((*line).to_owned(), side.run(side.command(line, &[], endpoint), "")));
    }
    for (line, stdin) in STDIN {
        let outcome = side.run(side.command(line, &[], endpoint), stdin);
        outcomes.push((format!("{line} < {stdin:?}"), outcome));
    }
    for (env, line) in ENVIRONMENTS {
        outcomes.push((format!("{env:?} {line}"), side.run(side.command(line, env, None), "")));
    }
    for (line, change) in LIVE {
        outcomes.push((format!("{line} | {change}"), side.run_live(line, change)));
    }
    for (server, (_, lines)) in servers.iter().zip(SCRIPTED) {
        for line in *lines {
            let outcome = side.run(side.command(line, &[], Some(server)), "");
            outcomes.push((format!("scripted: {line}"), outcome));
        }
    }
    // The last one: it costs the single member its quorum.
    let line = "member add m2 http://127.0.0.1:9";
    let mut outcome = side.run(side.command(line, &[], endpoint), "");
    outcome.stdout = replace_after(&outcome.stdout, "with ID ", ' ');
    // Members are listed by their ids, and the new one's depends on the time.
    let mut cluster: Vec<&str> = outcome.stdout.split([',', '"']).collect();
    cluster.sort_unstable();
    outcome.stdout = cluster.join(" ");
    outcomes.push((line.to_owned(), outcome));
    outcomes
}

/// Whether there is a real etcd to compare with. If not, that is a failure, unless it is known.
fn real_etcd_is_here() -> bool {
    let runs = |tool: &str, arg: &str| {
        let output = Command::new(tool).arg(arg).env("ETCDCTL_API", "2").output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("ersion: 3.4"))
    };
    if runs("etcd", "--version") && runs(REAL, "--version") {
        return true;
    }
    assert!(
        std::env::var_os(WITHOUT).is_some_and(|value| value == "1"),
        "no etcd and etcdctl 3.4 in PATH to compare with. On Debian: apt-get install etcd-server etcd-client. \
         To leave this test out: {WITHOUT}=1"
    );
    eprintln!("LEFT OUT: etcdctl was NOT compared with a real one ({WITHOUT}=1)");
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_tools_do_the_same() {
    if !real_etcd_is_here() {
        return;
    }
    let (for_real, for_ours) = (Etcd::start(), Etcd::start());
    let (real_member, our_member) = (for_real.ready().await, for_ours.ready().await);
    let servers: Vec<String> = SCRIPTED.iter().map(|(replies, _)| scripted(replies)).collect();
    let real = Side { tool: REAL, etcd: &for_real, member: &real_member };
    let ours = Side { tool: OURS, etcd: &for_ours, member: &our_member };
    let (expected, got) = std::thread::scope(|scope| {
        let real = scope.spawn(|| all_outcomes(&real, &servers));
        let ours = scope.spawn(|| all_outcomes(&ours, &servers));
        (real.join().unwrap(), ours.join().unwrap())
    });
    let differences: Vec<String> = expected
        .iter()
        .zip(&got)
        .filter(|(expected, got)| expected != got)
        .map(|((line, expected), (_, got))| format!("etcdctl {line}\n  real: {expected:?}\n  ours: {got:?}"))
        .collect();
    let total = expected.len();
    assert!(differences.is_empty(), "{} of {total} differ:\n{}", differences.len(), differences.join("\n"));
    println!("{total} command lines compared");
}

/// On purpose, ours takes endpoints without a scheme, which the real one no longer does.
#[tokio::test]
async fn an_endpoint_needs_no_scheme() {
    let server = scripted(SCRIPTED[2].0);
    let bare = server.trim_start_matches("http://");
    let output = Command::new(OURS).args(["--peers", bare, "get", "/a"]).output().unwrap();
    assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), output.status.code()), ("old\n", Some(0)));
}

/// A reader that goes away ends the tool quietly.
#[test]
fn a_closed_pipe_is_no_panic() {
    let server = scripted(SCRIPTED[2].0);
    let mut child = Command::new(OURS)
        .args(["-C", &server, "get", "/a"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.stderr.as_slice(), output.status.code()), (&b""[..], Some(1)));
}

/// A command that never ends must not make exec-watch start commands without bound, nor outlive it.
#[test]
fn exec_watch_bounds_its_commands_and_takes_them_along() {
    // Every watch is answered at once, so changes come as fast as they are asked for.
    let server = scripted(SCRIPTED[2].0);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("pids");
    let child = Command::new(OURS)
        .args(["-C", &server, "exec-watch", "/a", "--", "sh", "-c", "echo $$; exec sleep 1000"])
        .stdout(std::fs::File::create(&path).unwrap())
        .spawn()
        .unwrap();
    let pids = || std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    until("64 commands run", || pids().len() >= 64);
    std::thread::sleep(Duration::from_millis(200));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = wait(child, Duration::from_secs(10));
    assert_eq!((pids().len(), output.status.code()), (64, Some(0)));
    let left: Vec<_> =
        pids().into_iter().filter(|pid| std::path::Path::new("/proc").join(pid).exists()).collect();
    assert_eq!(left, [""; 0]);
}
