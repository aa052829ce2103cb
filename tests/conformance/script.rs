//! Scripts: requests that somebody wrote down, one a line, in `scripts/*.txt`, and what a real etcd answered, beside them
//! in `scripts/*.answers`.
//!
//! ```text
//! # a comment
//! PUT /v2/keys/a value=1               a request; the third word is a form
//! PUT /v2/keys/a value=1 @ HTTP/1.0 @ Content-Type: text/plain      headers, instead of those it would have
//! wait w GET /v2/keys/a?wait=true      a request on a connection of its own: only the head is waited for
//! told w                               what that one has been told
//! repeat 9 PUT /v2/keys/a value=1      a request, and the last answer
//! sleep 1500                           milliseconds
//! ```
//!
//! `\xNN` is a byte. Every script begins on a fresh server at index [`FIRST_INDEX`], so the indexes in it are known.

use crate::compare;
use crate::differences;
use crate::server::{Product, Server, advance};
use crate::wire::{Answer, Connection, Request};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where every script begins.
const FIRST_INDEX: u64 = 10;
/// How long a wait may take to be told what it should be.
const TOLD_WITHIN: Duration = Duration::from_millis(1500);

/// What most answers have in common, and how it is written; the longest first.
const SHORT: [(&str, &str); 3] = [
    (
        "  Access-Control-Allow-Headers: accept, content-type, authorization\n  Access-Control-Allow-Methods: POST, GET, \
         OPTIONS, PUT, DELETE\n  Access-Control-Allow-Origin: *\n",
        "  cors\n",
    ),
    ("  cors\n  Content-Type: application/json\n  X-Etcd-Cluster-Id: *\n  X-Etcd-Index: ", "  keys "),
    ("\n  X-Raft-Index: *\n  X-Raft-Term: *\n", " raft\n"),
];

/// A line and what was answered to it.
type Said = (String, Answer);

/// All scripts, in order.
fn all() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/scripts");
    let files = fs::read_dir(dir).expect("scripts").map(|file| file.expect("a file").path());
    let mut scripts: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    scripts.sort();
    scripts
}

/// Plays a script to a fresh server.
fn play(product: Product, script: &Path) -> Vec<Said> {
    let mut server = Server::start(product);
    let mut connection = Connection::to(server.address);
    advance(&mut connection, FIRST_INDEX);
    let mut waits = BTreeMap::new();
    let mut said = Vec::new();
    let text = fs::read_to_string(script).expect("a script");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let answer = match words[..] {
            ["sleep", millis] => {
                std::thread::sleep(Duration::from_millis(millis.parse().expect("milliseconds")));
                continue;
            }
            ["wait", name, line] => {
                let mut wait = Connection::to(server.address);
                wait.send(&request(line)).expect("sent");
                let head = wait.head();
                waits.insert(name.to_owned(), wait);
                head.map(|head| Answer { body: Vec::new(), complete: true, ..head })
            }
            ["told", name] => waits.get_mut(name).expect("a wait of that name").within(TOLD_WITHIN),
            ["repeat", count, line] => {
                let request = request(line);
                for _ in 1..count.parse().expect("a count") {
                    connection.ask(&request).expect("an answer");
                }
                connection.ask(&request)
            }
            _ => {
                let request = request(line);
                connection.ask(&request)
            }
        };
        let answer = answer.unwrap_or_else(|error| match server.ended() {
            Some(ended) => panic!("{line}: the server ended: {ended}"),
            None => Answer { body: error.to_string().into_bytes(), complete: true, ..Answer::default() },
        });
        let body = compare::relative(&answer.body);
        said.push((line.to_owned(), Answer { body, ..answer }));
    }
    said
}

/// Reads a line that is a request.
fn request(line: &str) -> Request {
    let mut parts = line.split(" @ ");
    let words: Vec<&str> = parts.next().unwrap_or_default().splitn(3, ' ').collect();
    let (&[method, target], form) = (words.first_chunk().expect("method and target"), words.get(2));
    let mut request = Request::new(method, bytes(target));
    for part in parts {
        match part.split_once(": ") {
            Some((name, value)) => request = request.header(name, bytes(value)),
            None if part == "HTTP/1.0" => request.version = "HTTP/1.0",
            None => panic!("{part:?} is no header"),
        }
    }
    let Some(form) = form else { return request };
    if request.headers.iter().any(|(name, _)| name == "Content-Type") {
        request.headers.retain(|(_, value)| value != b"none");
        return Request { body: bytes(form), ..request };
    }
    request.form(bytes(form))
}

/// Text with `\xNN` in it as bytes.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut parts = text.split("\\x");
    bytes.extend(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).expect("two digits");
        bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
        bytes.extend(rest.as_bytes());
    }
    bytes
}

/// Records what a real etcd answers to all scripts.
pub(crate) fn record() {
    std::thread::scope(|scope| {
        for script in all() {
            scope.spawn(move || {
                let said = play(Product::Etcd, &script);
                fs::write(script.with_extension("answers"), written(&said)).expect("answers written");
            });
        }
    });
}

/// Plays all scripts to a real etcd and to us.
pub(crate) fn compare_live() -> (usize, Vec<String>) {
    compare_all(|script| play(Product::Etcd, script))
}

/// Plays all scripts to us, and compares with what was recorded.
pub(crate) fn compare_recorded() -> (usize, Vec<String>) {
    compare_all(|script| {
        let path = script.with_extension("answers");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        read(&text)
    })
}

/// How many answers were compared, and which differ. The scripts are played at once: they sleep, and wait for disks.
fn compare_all(theirs: impl Fn(&Path) -> Vec<Said> + Sync) -> (usize, Vec<String>) {
    let theirs = &theirs;
    std::thread::scope(|scope| {
        let compare = |script: PathBuf| {
            scope.spawn(move || {
                let (theirs, ours) = std::thread::scope(|scope| {
                    let theirs = scope.spawn(|| theirs(&script));
                    let ours = play(Product::Quorate, &script);
                    (theirs.join().expect("answers"), ours)
                });
                (ours.len(), compare_one(&script, &theirs, &ours))
            })
        };
        let scripts: Vec<_> = all().into_iter().map(compare).collect();
        let compared: Vec<_> = scripts.into_iter().map(|script| script.join().expect("a script")).collect();
        let count = compared.iter().map(|(count, _)| count).sum();
        (count, compared.into_iter().flat_map(|(_, differences)| differences).collect())
    })
}

/// Which answers to a script differ, and are not meant to.
fn compare_one(script: &Path, theirs: &[Said], ours: &[Said]) -> Vec<String> {
    let lines = |said: &[Said]| said.iter().map(|(line, _)| line.clone()).collect::<Vec<_>>();
    let name = script.file_name().unwrap_or_default().display();
    assert_eq!(lines(theirs), lines(ours), "{name} has changed since it was recorded: see main.rs");
    let mut waits = BTreeMap::new();
    let mut differences = Vec::new();
    for ((line, theirs), (_, ours)) in theirs.iter().zip(ours) {
        let request = asked(line, &mut waits);
        let Some(what) = compare::difference(&request, theirs, ours) else { continue };
        if differences::explain(&request, theirs, ours).is_none() {
            let both = written(&[(line.clone(), theirs.clone()), ("Quorate:".to_owned(), ours.clone())]);
            differences.push(format!("{name}: {line}: {what}\n{both}"));
        }
    }
    differences
}

/// The request that a line answers.
fn asked(line: &str, waits: &mut BTreeMap<String, Request>) -> Request {
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    match words[..] {
        ["wait", name, line] => {
            waits.insert(name.to_owned(), request(line));
            request(line)
        }
        ["told", name] => waits[name].clone(),
        ["repeat", _, line] => request(line),
        _ => request(line),
    }
}

/// Answers as a file.
fn written(said: &[Said]) -> String {
    let mut text = String::new();
    for (line, answer) in said {
        _ = writeln!(text, "{line}\n  {}{}", answer.status, if answer.complete { "" } else { " and more" });
        for (name, value) in compare::headers(answer) {
            _ = writeln!(text, "  {name}: {value}");
        }
        for line in String::from_utf8_lossy(&answer.body).split('\n') {
            _ = writeln!(text, "  | {line}");
        }
    }
    SHORT.iter().fold(text, |text, (long, short)| text.replace(long, short))
}

/// Reads what [`written`] wrote.
fn read(text: &str) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let text = SHORT.iter().rev().fold(text.to_owned(), |text, (long, short)| text.replace(short, long));
    for line in text.lines() {
        let Some(detail) = line.strip_prefix("  ") else {
            said.push((line.to_owned(), Answer { complete: true, ..Answer::default() }));
            continue;
        };
        let (_, answer) = said.last_mut().expect("an answer after its request");
        if let Some(body) = detail.strip_prefix('|') {
            answer.body.extend(body[1..].as_bytes());
            answer.body.push(b'\n');
        } else if let Some((name, value)) = detail.split_once(": ") {
            answer.headers.push((name.to_owned(), value.to_owned()));
        } else {
            answer.complete = !detail.ends_with(" and more");
            answer.status =
                detail.split(' ').next().and_then(|status| status.parse().ok()).expect("a status");
        }
    }
    for (_, answer) in &mut said {
        answer.body.pop(); // the last line had no end
    }
    said
}
