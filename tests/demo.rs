//! `quorate demo`, as one runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

fn demo(args: &[&str], client: u16, peer: u16, temp: &std::path::Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("demo").args(args).env("TMPDIR", temp);
    command.args(["--client-port-base", &client.to_string(), "--peer-port-base", &peer.to_string()]);
    // What must not reach the members.
    command.env("ETCD_NAME", "other").env("ETCD_DISCOVERY", "http://127.0.0.1:1/none");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The first of so many ports in a row that are free.
fn free_ports(from: u16) -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (from..from + 400).step_by(10).find(|base| (*base..*base + 3).all(free)).unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn answers(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

#[test]
fn the_show_goes_as_promised() {
    let temp = tempfile::tempdir().unwrap();
    let (client, peer) = (free_ports(21_100), free_ports(21_600));
    let output = demo(&["--plain"], client, peer, temp.path()).output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in [
        "1. Three machines find each other",
        &format!("clients {}, peers {}", client + 2, peer + 2),
        "2. Services announce themselves",
        "set /announce/services/apache80 = 10.0.0.11:80",
        "3. A service dies",
        "expire /announce/services/mail25",
        "4. The leader dies",
        "5. The dead member comes back",
        "late at most, never early",
        "3 live services",
        "0 of them expired",
        "two watchers heard the same",
        "resumed at another member 1 time(s); 0 out of order, twice or with a gap",
        "0 are missing",
        "All went as promised.",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    assert_eq!(text.matches("  ok  ").count(), 9, "{text}");
    assert!(!text.contains('\u{1b}'), "plain lines have no escape sequences");
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "its directory is removed");
    assert!((client..client + 3).all(|port| !answers(port)), "its members are stopped");
}

#[test]
fn a_port_that_is_taken_is_named_before_anything_starts() {
    let temp = tempfile::tempdir().unwrap();
    let (client, peer) = (free_ports(21_130), free_ports(21_630));
    let _taken = TcpListener::bind(("127.0.0.1", peer + 1)).unwrap();
    let output = demo(&["--plain"], client, peer, temp.path()).output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("port {} (m2, for other members)", peer + 1)), "{text}");
    assert!(
        text.contains(&format!("--client-port-base {} --peer-port-base {}", client + 1000, peer + 1000)),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn help_and_wrong_arguments() {
    let run = |args: &[&str]| Command::new(PROGRAM).arg("demo").args(args).output().unwrap();
    let help = run(&["--help"]);
    assert!(help.status.success() && text(&help).contains("--peer-port-base <PORT>"), "{}", text(&help));
    let wrong = run(&["--fast"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong).contains("--fast"), "{}", text(&wrong));
}

/// Starts a show, reads until the first member has started, and sends a signal.
fn interrupted_by(signal: &str, client: u16, peer: u16) -> (Option<i32>, usize) {
    let temp = tempfile::tempdir().unwrap();
    let mut show = demo(&["--plain"], client, peer, temp.path()).spawn().unwrap();
    let mut lines = BufReader::new(show.stdout.take().unwrap());
    read_until(&mut lines, "m3 starts");
    let sent = Command::new("kill").args([signal, &show.id().to_string()]).status().unwrap();
    assert!(sent.success());
    lines.read_to_string(&mut String::new()).unwrap();
    let status = show.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while (client..client + 3).any(answers) {
        assert!(Instant::now() < until, "members outlive the show");
        std::thread::sleep(Duration::from_millis(20));
    }
    (status.code(), std::fs::read_dir(temp.path()).unwrap().count())
}

/// Reads a show's lines until one contains this.
fn read_until(lines: &mut impl std::io::BufRead, what: &str) -> String {
    let mut line = String::new();
    while !line.contains(what) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before {what:?}");
    }
    line
}

#[test]
fn a_show_that_goes_wrong_says_so_and_keeps_the_evidence() {
    let temp = tempfile::tempdir().unwrap();
    let mut show = demo(&["--plain"], free_ports(21_220), free_ports(21_720), temp.path()).spawn().unwrap();
    let mut lines = BufReader::new(show.stdout.take().unwrap());
    let line = read_until(&mut lines, "m2 starts: process ");
    let pid: String =
        line.rsplit("process ").next().unwrap().chars().take_while(char::is_ascii_digit).collect();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let output = show.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(rest.contains("NOT AS PROMISED: in act 1") && rest.contains("m2 has ended by itself"), "{rest}");
    let errors = String::from_utf8_lossy(&output.stderr);
    let kept = std::fs::read_dir(temp.path()).unwrap().next().unwrap().unwrap().path();
    assert!(
        errors.contains(&format!("kept in {}", kept.display())) && kept.join("m2.log").exists(),
        "{errors}"
    );
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let ended = interrupted_by("-INT", free_ports(21_160), free_ports(21_660));
    assert_eq!(ended, (Some(130), 0));
}

/// Nobody is left to stop the members then, but the kernel.
#[test]
fn members_do_not_outlive_a_show_that_is_killed() {
    let (code, directories) = interrupted_by("-KILL", free_ports(21_190), free_ports(21_690));
    assert_eq!((code, directories), (None, 1));
}
