//! What runs a command line through one of the tools, and what makes two outcomes comparable.

use crate::lines::Reply;
use quorate::client::Client;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A real etcd, stopped when dropped.
pub(crate) struct Etcd {
    process: Child,
    pub(crate) client: String,
    pub(crate) peer: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    pub(crate) fn start() -> Self {
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
    pub(crate) async fn ready(&self) -> String {
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

impl Etcd {
    /// How many watches it holds.
    fn watchers(&self) -> u64 {
        let mut stream = TcpStream::connect(self.client.trim_start_matches("http://")).unwrap();
        stream.write_all(b"GET /v2/stats/store HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, count) = answer.split_once("\"watchers\":").unwrap();
        count.trim_end_matches(['}', '\n']).parse().unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits for something that is about to happen.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !happened() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// A server that answers from a table of paths, and 404 to all else. It ends with the test's process.
pub(crate) fn scripted(replies: &'static [Reply]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let own = url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(&stream, &own, replies);
        }
    });
    url
}

pub(crate) fn answer(stream: &TcpStream, own: &str, replies: &[Reply]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
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
    let mut out = stream;
    write!(out, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// One of the two tools with its own etcd.
pub(crate) struct Side<'a> {
    pub(crate) tool: &'a str,
    pub(crate) etcd: &'a Etcd,
    pub(crate) member: &'a str,
}

impl Side<'_> {
    pub(crate) fn command(&self, line: &str, env: &[(&str, &str)], endpoint: Option<&str>) -> Command {
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

    pub(crate) fn run(&self, mut command: Command, stdin: &str) -> Outcome {
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A tool that does not read its stdin may be gone already.
        let _ = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        self.outcome(&wait(child, Duration::from_secs(10)))
    }

    /// Starts a watch, changes something, and interrupts the watch when it has said something and is still there.
    pub(crate) fn run_live(&self, line: &str, change: &str) -> Outcome {
        let endpoint = Some(self.etcd.client.as_str());
        let capture = tempfile::tempdir().unwrap();
        let paths = ["stdout", "stderr"].map(|name| capture.path().join(name));
        let [stdout, stderr] = paths.each_ref().map(|path| std::fs::File::create(path).unwrap());
        let mut command = self.command(line, &[], endpoint);
        until("the last watch is gone", || self.etcd.watchers() == 0);
        let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
        until("the watch stands", || self.etcd.watchers() > 0);
        self.run(self.command(change, &[], endpoint), "");
        let said = || paths.each_ref().map(|path| std::fs::metadata(path).unwrap().len());
        until("the watch says something", || said() != [0, 0]);
        // What it says may be written in several pieces.
        let (mut before, mut quiet_since) = (said(), Instant::now());
        while quiet_since.elapsed() < Duration::from_millis(150) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(10));
            if said() != before {
                (before, quiet_since) = (said(), Instant::now());
            }
        }
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
        // With its colon: the digits alone may stand in any large number.
        let port = |url: &str| url[url.rfind(':').unwrap()..].to_owned();
        let text = text
            .replace(&port(&self.etcd.client), ":CLIENT")
            .replace(&port(&self.etcd.peer), ":PEER")
            .replace(self.member, "MEMBER")
            .replace("quorum=false&", "");
        let text = replace_after(&text, "\"expiration\":\"", '"');
        // A minute's TTL may have lost some seconds on one side and not on the other.
        (50..60).fold(text, |text, left| {
            text.replace(&format!("\"ttl\":{left}}}"), "\"ttl\":60}")
                .replace(&format!("TTL: {left}\n"), "TTL: 60\n")
        })
    }
}

/// What a tool did, made comparable.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

/// Help is laid out as each tool likes; that it is shown, and for which command, must be the same.
pub(crate) fn only_comparable(stdout: &str) -> String {
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
pub(crate) fn replace_after(text: &str, start: &str, end: char) -> String {
    let mut parts = text.split(start);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let _ = write!(out, "{start}*{}", &part[part.find(end).unwrap_or(part.len())..]);
    }
    out
}

pub(crate) fn wait(mut child: Child, limit: Duration) -> Output {
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
pub(crate) fn words(line: &str) -> Vec<String> {
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
