//! Runs the same command lines through this `etcdctl` and through the real one of etcd 3.4, each against its own real
//! etcd, and compares stdout, stderr and exit codes.
//!
//! The two etcds start empty and see the same lines in the same order, so that even indexes must be the same. Only what
//! cannot be the same is made so before comparing: ports, member ids, points in time, the tools' versions, the layout of
//! help texts, and the one query parameter that ours leaves to the server.

use quorate::client::Client;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const OURS: &str = env!("CARGO_BIN_EXE_etcdctl");
const REAL: &str = "etcdctl";
/// Says that a machine without a real etcd is meant to be one.
const WITHOUT: &str = "QUORATE_WITHOUT_ETCD";

/// Lines that need no more than the cluster. `{E}` is its endpoint; `{ID}` its member's id. Single quotes group words.
const LINES: &[&str] = &[
    // Writing and reading values.
    "set /a 1",
    "set /a 2 --ttl 60",
    "set --ttl 60 /a 3",
    "set -ttl=60 /a 4",
    "set /announce/services/apache80 104.131.15.192:80 --ttl 60",
    "get /announce/services/apache80",
    "get /a",
    "get a",
    "get //a/",
    "get /b/../a",
    "get --sort --quorum /a",
    "get -q=true /a",
    "get --sort=false /a extra arguments",
    "get -- /a",
    "get /a --bogus",
    "get /nokey",
    "get /a/below",
    "get /",
    "get ''",
    "set /a ''",
    "get /a",
    "set / x",
    "set '/sp ace?x#y%2F' 'v&=+ %'",
    "get '/sp ace?x#y%2F'",
    "set /ünï 'ä<>&\"\\'",
    "-o json get /ünï",
    "set /neg -v",
    "get /neg",
    "set -- /neg --ttl",
    "set /neg -- -w",
    "set /neg -",
    "set /multi 'line 1\nline 2'",
    "get /multi",
    "set /a b --ttl 0",
    "set /a b --ttl -5",
    "set /a b --ttl 0x10",
    "set /a b --ttl=1_0",
    // Formats.
    "-o extended set /f 1",
    "-o extended set /f 2 --ttl 60",
    "-o extended get /f",
    "-o json set /f 3 --ttl 60",
    "-output=json set /f 4",
    "--output json get /f",
    "-o bogus get /f",
    "-o bogus get /nokey",
    "-o '' get /f",
    "-o json get /nokey",
    "-o extended get /nokey",
    "get /f -o json",
    // Conditions.
    "set /c one",
    "set /c two --swap-with-value one",
    "set /c three --swap-with-value one",
    "set /c three --swap-with-index 1",
    "set /c three --swap-with-index -1",
    "set /c three --swap-with-value one --swap-with-index 1",
    "set /nokey x --swap-with-value one",
    "-o json set /c three --swap-with-value two",
    "rm /c --with-value one",
    "rm /c --with-index 1",
    "-o extended rm /c --with-value three",
    "mk /c new",
    "mk /c newer",
    "rm /c --with-value new",
    "rm /c",
    "update /c x",
    "mk /u 1 --ttl 60",
    "update /u 2",
    "-o json update --ttl 60 /u 3",
    "mk --in-order /queue job",
    "mk --in-order --ttl 60 /queue job2",
    "-o extended mk --in-order /queue job3",
    "-o json mk --in-order /queue job4",
    // Directories.
    "mkdir /d",
    "mkdir /d",
    "mkdir /a",
    "mkdir --ttl 60 /d/ttl",
    "-o json mkdir /d/json",
    "-o extended mkdir /d/extended",
    "set /d x",
    "set /d/file x",
    "get /d",
    "-o json get /d",
    "setdir /d",
    "setdir /s",
    "-o json setdir --ttl 60 /s2",
    "updatedir /s --ttl 60",
    "-o json updatedir /s",
    "updatedir /nokey",
    "ls --sort",
    "ls --sort /d",
    "ls -p --sort -r /d",
    "ls --sort --recursive /",
    "ls -pr",
    "ls /d/file",
    "ls d/file -p",
    "ls /d/json",
    "ls /nokey",
    "ls --quorum --sort /d",
    "-o json ls --sort /queue",
    "-o extended ls --sort /d",
    "rm /d",
    "rm --dir /d",
    "rmdir /d",
    "rmdir /d/json",
    "-o json rmdir /d/extended",
    "rmdir /d/file",
    "rm --dir /d/ttl",
    "rm --recursive=true /queue",
    "-o extended rm -r /s",
    "rm -r /nokey",
    "rm /",
    "rm -r /",
    "setdir /a",
    // What has already happened.
    "watch --after-index 1 /a",
    "watch --after-index 1 -r /queue",
    "-o extended watch --after-index 1 --recursive /queue",
    "-o json watch --after-index 1 /f",
    // Wrong usage.
    "get",
    "set",
    "set /a",
    "mk",
    "mk /nokey",
    "update",
    "update /a",
    "mkdir",
    "setdir",
    "updatedir",
    "rm",
    "rmdir",
    "watch",
    "exec-watch",
    "exec-watch /a",
    "bogus",
    "-",
    "help bogus",
    "set --bogus /a b",
    "set --ttl=abc /a b",
    "set --ttl 99999999999999999999 /a b",
    "get --sort=maybe /a",
    "get ---x /a",
    "get --=x /a",
    "watch --after-index",
    "--bogus get /a",
    "--no-sync=x get /a",
    "--output",
    "--timeout 1 get /a",
    "member bogus",
    "member add",
    "member add x",
    "member remove",
    "member update x",
    "member list x",
    "",
    "help",
    "h get",
    "--help",
    "-h set /a b",
    "get --help",
    "set /a -h",
    "member",
    "member --help",
    "member list -h",
    "--version",
    "-v get /a",
    // Endpoints and global options.
    "--endpoints {E} get /a",
    "--endpoint {E} get /a",
    "--peers {E} get /a",
    "-C {E} get /a",
    "-C={E} get /a",
    "-C {E}/ get /a",
    "--endpoints http://127.0.0.1:1 --peers {E} get /a",
    "--endpoints http://127.0.0.1:1,{E} get /a",
    "--endpoints http://127.0.0.1:1,http://127.0.0.1:1 get /a",
    "--endpoints http://127.0.0.1:1 member list",
    "--endpoints http://127.0.0.1:1 --no-sync member list",
    "--endpoints http://127.0.0.1:1 cluster-health",
    "--no-sync --endpoints http://127.0.0.1:1 get /a",
    "--no-sync --endpoints http://127.0.0.1:1 watch /a",
    "--endpoints {E}/base get /a",
    "--timeout 1h2m3.5s --total-timeout 5s get /a",
    "--timeout 0 get /a",
    "--timeout -1s get /a",
    "--timeout=1ns get /a",
    "--timeout=1ns --no-sync rm /a",
    "--total-timeout=0 get /a",
    "--total-timeout 1ns --no-sync get /a",
    "--cert-file /nonexistent get /a",
    "-u user:password get /a",
    // What is sent.
    "--debug get /a",
    "--debug --no-sync get /a --quorum --sort",
    "--debug ls -r --sort",
    "--debug set '/deb ug' 'a b&c' --ttl 5 --swap-with-value 'x y' --swap-with-index 7",
    "--debug mk /dbg v",
    "--debug mk --in-order --ttl 60 /dbgq v",
    "--debug mkdir /dbgd --ttl 60",
    "--debug setdir /dbgd2",
    "--debug updatedir /dbgd --ttl 60",
    "--debug update /dbg w",
    "--debug rm /dbg",
    "--debug rm -r --with-value x --with-index 5 --dir /dbg",
    "--debug rmdir /dbgd2",
    "--debug watch --after-index 1 --recursive /dbgq",
    "--debug member list",
    "--debug member update xyz http://127.0.0.1:4",
    "--debug cluster-health",
    // Members.
    "member list",
    "member remove abc",
    "member remove m1",
    "member update {ID} http://127.0.0.1:4,http://127.0.0.1:5",
    "member update {ID} nonsense",
    "cluster-health",
    "cluster-health --forever=false extra",
];

/// The value comes from stdin.
const STDIN: &[(&str, &str)] = &[
    ("set /in", "from stdin\n"),
    ("get /in", ""),
    ("mk /in2", "no newline"),
    ("-o json get /in2", ""),
    ("update /in2 --ttl 60", "x\ny\n"),
    ("set /in argument", "ignored"),
    ("set /in", ""),
];

/// The endpoint comes from the environment.
const ENVIRONMENTS: &[(&[(&str, &str)], &str)] = &[
    (&[("ETCDCTL_ENDPOINTS", "{E}")], "get /in"),
    (&[("ETCDCTL_ENDPOINT", "{E}")], "get /in"),
    (&[("ETCDCTL_PEERS", "{E}")], "get /in"),
    (&[("ETCDCTL_PEERS", "http://127.0.0.1:1"), ("ETCDCTL_ENDPOINT", "{E}")], "get /in"),
    (&[("ETCDCTL_ENDPOINT", "http://127.0.0.1:1"), ("ETCDCTL_ENDPOINTS", "{E}")], "get /in"),
    (&[("ETCDCTL_ENDPOINT", "http://127.0.0.1:1")], "--peers {E} get /in"),
    (&[("ETCDCTL_ENDPOINTS", "http://127.0.0.1:1")], "--endpoint {E} get /in"),
    (&[("ETCDCTL_ENDPOINTS", "http://127.0.0.1:1")], "--endpoints {E} get /in"),
    (&[("ETCDCTL_ENDPOINTS", "{E}"), ("ETCDCTL_KEY_FILE", "/nonexistent")], "get /in"),
    (&[("ETCDCTL_ENDPOINTS", "{E}"), ("ETCDCTL_USERNAME", "user:password")], "get /in"),
];

/// Watches that are running when the second line changes something; they are interrupted when they have said something.
const LIVE: &[(&str, &str)] = &[
    ("watch /live", "set /live 1"),
    ("watch --forever /live", "set /live 2"),
    ("watch -f --recursive /livedir", "set /livedir/x 3"),
    ("-o extended watch -r -f /", "rm /live"),
    ("exec-watch --recursive /live -- sh -c 'env | grep ^ETCD_WATCH_ | sort; echo .'", "set /live 4"),
    ("exec-watch sh -c 'echo $ETCD_WATCH_ACTION; echo .' /live", "rm /live"),
    ("exec-watch -- sh -c 'echo $ETCD_WATCH_VALUE; echo .' /live", "set /live 'a b'"),
    ("exec-watch --recursive /livedir -- true", "mkdir /livedir/d"),
    ("exec-watch --recursive /live -- /nonexistent/command", "set /live 5"),
];

/// Answers of servers that a healthy etcd does not give, and what both tools are to make of them. `{S}` is the server.
const SCRIPTED: &[(&[(&str, u16, &str)], &[&str])] = &[
    (
        // One member is fine, one ill, one gone, one was never started.
        &[
            (
                "/v2/members",
                200,
                r#"{"members":[{"id":"1","name":"a","peerURLs":["http://p:1"],"clientURLs":["{S}"]},
                    {"id":"2","name":"b","peerURLs":["http://p:2"],"clientURLs":["http://127.0.0.1:1","{S}/ill"]},
                    {"id":"3","name":"c","peerURLs":["http://p:3"],"clientURLs":["http://127.0.0.1:1"]},
                    {"id":"4","name":"","peerURLs":["http://p:4"],"clientURLs":[]}]}"#,
            ),
            ("/v2/members/leader", 503, r#"{"message":"During election"}"#),
            ("/health", 200, r#"{"health": true}"#),
            ("/ill/health", 503, r#"{"health": "false"}"#),
        ],
        &["cluster-health", "--no-sync member list", "--no-sync get /a"],
    ),
    (
        &[
            (
                "/v2/members",
                200,
                r#"{"members":[{"id":"4","name":"","peerURLs":["http://p:4"],"clientURLs":[]}]}"#,
            ),
            ("/v2/members/leader", 200, r#"{"id":"9","name":"x","peerURLs":[],"clientURLs":[]}"#),
        ],
        &["cluster-health", "get /a", "--no-sync member list", "--no-sync member remove 4"],
    ),
    (
        // As 0.4 does, it does not know of members; its keys are served all the same.
        &[(
            "/v2/keys/a",
            200,
            r#"{"action":"get","node":{"key":"/a","value":"old","modifiedIndex":3,"createdIndex":3}}"#,
        )],
        &["get /a", "-o json get /a", "member list"],
    ),
    (
        &[
            ("/v2/members", 500, "Internal Server Error"),
            ("/v2/keys/a", 500, r#"{"errorCode":300,"message":"Raft Internal Error","index":0}"#),
            ("/v2/keys/b", 502, "Bad Gateway"),
            ("/v2/keys/c", 400, "nonsense"),
            (
                "/v2/keys/d",
                401,
                r#"{"errorCode":110,"message":"The request requires user authentication","cause":"Insufficient credentials","index":0}"#,
            ),
            (
                "/v2/keys/e",
                400,
                r#"{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [5/2]","index":2000}"#,
            ),
        ],
        &[
            "get /a",
            "get /b",
            "get /c",
            "get /d",
            "set /a x",
            "rm /a",
            "mk /b x",
            "watch --after-index 1 /e",
            "member list",
            "cluster-health",
        ],
    ),
];

/// A real etcd, stopped when dropped.
struct Etcd {
    process: Child,
    client: String,
    peer: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let [client, peer] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
        let data = tempfile::tempdir().unwrap();
        let process = Command::new("etcd")
            .args(["--enable-v2=true", "--name", "m1", "--data-dir"])
            .arg(data.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m1={peer}"), "--initial-cluster-state", "new"])
            .args(["--logger", "zap", "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd was found a moment ago");
        Self { process, client, peer, _data: data }
    }

    /// Until the cluster's version is decided: from then on, only requests move the index.
    async fn ready(&self) -> String {
        let client = Client::new([&self.client]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Ok(version) = client.version().await
                && version.cluster.starts_with("3.")
            {
                return client.members().await.unwrap()[0].id.clone();
            }
            assert!(Instant::now() < deadline, "etcd at {} does not start", self.client);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// A server that answers from a table of paths, and 404 to all else. It ends with the test's process.
fn scripted(replies: &'static [(&'static str, u16, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let own = url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &own, replies);
        }
    });
    url
}

fn answer(stream: TcpStream, own: &str, replies: &[(&str, u16, &str)]) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first)?;
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    let path = first.split([' ', '?']).nth(1).unwrap_or_default();
    let found = replies.iter().find(|(known, ..)| *known == path);
    let (status, body) = found.map_or((404, "404 page not found\n"), |&(_, status, body)| (status, body));
    let body = body.replace("{S}", own);
    write!(
        &stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// One of the two tools with its own etcd.
struct Side<'a> {
    tool: &'a str,
    etcd: &'a Etcd,
    member: &'a str,
}

impl Side<'_> {
    fn command(&self, line: &str, env: &[(&str, &str)], endpoint: Option<&str>) -> Command {
        let mut command = Command::new(self.tool);
        let ours = std::env::vars().filter(|(name, _)| !name.starts_with("ETCDCTL_"));
        let mut vars: HashMap<String, String> = ours.collect();
        vars.insert("ETCDCTL_API".to_owned(), "2".to_owned());
        if let Some(endpoint) = endpoint {
            vars.insert("ETCDCTL_ENDPOINTS".to_owned(), endpoint.to_owned());
        }
        for (name, value) in env {
            vars.insert((*name).to_owned(), self.fill(value));
        }
        command.env_clear().envs(vars).args(words(&self.fill(line)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{E}", &self.etcd.client).replace("{ID}", self.member)
    }

    fn run(&self, mut command: Command, stdin: &str) -> Outcome {
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A tool that does not read its stdin may be gone already.
        let _ = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        self.outcome(&wait(child, Duration::from_secs(10)))
    }

    /// Starts a watch, changes something, and interrupts the watch when it has said something and is still there.
    fn run_live(&self, line: &str, change: &str) -> Outcome {
        let endpoint = Some(self.etcd.client.as_str());
        let capture = tempfile::tempdir().unwrap();
        let paths = ["stdout", "stderr"].map(|name| capture.path().join(name));
        let [stdout, stderr] = paths.each_ref().map(|path| std::fs::File::create(path).unwrap());
        let mut command = self.command(line, &[], endpoint);
        let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(400));
        self.run(self.command(change, &[], endpoint), "");
        let said = || paths.iter().any(|path| std::fs::metadata(path).unwrap().len() > 0);
        let deadline = Instant::now() + Duration::from_secs(5);
        while child.try_wait().unwrap().is_none() && !said() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        // What it says is written in several pieces.
        std::thread::sleep(Duration::from_millis(100));
        if child.try_wait().unwrap().is_none() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        }
        let mut output = wait(child, Duration::from_secs(5));
        [output.stdout, output.stderr] = paths.map(|path| std::fs::read(path).unwrap());
        self.outcome(&output)
    }

    fn outcome(&self, output: &Output) -> Outcome {
        let text = |bytes: &[u8]| self.normalise(&String::from_utf8_lossy(bytes));
        Outcome {
            stdout: only_comparable(&text(&output.stdout)),
            stderr: text(&output.stderr),
            code: output.status.code(),
        }
    }

    fn normalise(&self, text: &str) -> String {
        let port = |url: &str| url.rsplit(':').next().unwrap().to_owned();
        let text = text
            .replace(&port(&self.etcd.client), "CLIENT")
            .replace(&port(&self.etcd.peer), "PEER")
            .replace(self.member, "MEMBER")
            .replace("quorum=false&", "");
        replace_after(&text, "\"expiration\":\"", '"')
    }
}

/// What a tool did, made comparable.
#[derive(Debug, PartialEq)]
struct Outcome {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

/// Help is laid out as each tool likes; that it is shown, and for which command, must be the same.
fn only_comparable(stdout: &str) -> String {
    if stdout.starts_with("Incorrect Usage") {
        return stdout.lines().next().unwrap_or_default().to_owned();
    }
    if let Some(help) = stdout.strip_prefix("NAME:\n   ") {
        let name = help.split(" - ").next().unwrap_or_default();
        return format!("help for {name}");
    }
    replace_after(stdout, "etcdctl version: ", '\n')
}

/// Replaces what stands between each `start` and the following `end`.
fn replace_after(text: &str, start: &str, end: char) -> String {
    let mut parts = text.split(start);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let _ = write!(out, "{start}*{}", &part[part.find(end).unwrap_or(part.len())..]);
    }
    out
}

fn wait(mut child: Child, limit: Duration) -> Output {
    let deadline = Instant::now() + limit;
    let pid = rustix::process::Pid::from_child(&child);
    drop(child.stdin.take());
    let waiter = std::thread::spawn(move || child.wait_with_output().unwrap());
    while !waiter.is_finished() {
        if Instant::now() > deadline {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    waiter.join().unwrap()
}

/// A line's words; single quotes group.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut started) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, started) = (!quoted, true),
            ' ' if !quoted => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

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
