//! The same requests to a fresh etcd and to a fresh Quorate, side by side.

use crate::compare;
use crate::differences;
use crate::generate::{Generator, Step};
use crate::server::{Product, Server, advance};
use crate::wire::{Answer, Connection, Request};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

/// How much later than the other one server may say something.
const PATIENCE: Duration = Duration::from_secs(3);
/// Waits that are on at once.
const WAITS_MAX: usize = 8;
/// A wait that has not been answered after this many further requests is given up.
const WAIT_STEPS: usize = 200;
/// After this many differences the rest is not worth reading.
const REPORTED_MAX: usize = 25;

/// The two servers, with a connection to each.
pub(crate) struct Pair {
    pub(crate) etcd: Server,
    pub(crate) quorate: Server,
    theirs: Connection,
    ours: Connection,
}

impl Pair {
    /// Starts both.
    pub(crate) fn start() -> Self {
        let (etcd, quorate) = (Server::start(Product::Etcd), Server::start(Product::Quorate));
        let (theirs, ours) = (Connection::to(etcd.address), Connection::to(quorate.address));
        Self { etcd, quorate, theirs, ours }
    }

    /// Brings both to the same index, and says to which.
    fn level(&mut self) -> u64 {
        let request = Request::get("/v2/keys/");
        let index = |connection: &mut Connection| {
            connection.ask(&request).expect("an answer").index().expect("an index")
        };
        let (theirs, ours) = (index(&mut self.theirs), index(&mut self.ours));
        if theirs == ours {
            return ours;
        }
        let level = theirs.max(ours) + 2;
        advance(&mut self.theirs, level);
        advance(&mut self.ours, level);
        level
    }

    /// What both answer.
    pub(crate) fn ask(&mut self, request: &Request) -> (Answer, Answer) {
        let sent = (self.theirs.send(request), self.ours.send(request));
        let (theirs, ours) = (self.theirs.answer(), self.ours.answer());
        (said(theirs, sent.0, &mut self.etcd), said(ours, sent.1, &mut self.quorate))
    }

    /// The two command lines with the two answers.
    fn show(&self, request: &Request, theirs: &Answer, ours: &Answer) -> String {
        let side = |server: &Server, answer: &Answer| {
            format!("  {}\n{}", request.curl(server.address), indented(answer))
        };
        format!("{}{}", side(&self.etcd, theirs), side(&self.quorate, ours))
    }
}

/// An answer; a connection that ends without one is one too, if the server still runs.
fn said(answer: io::Result<Answer>, sent: io::Result<()>, server: &mut Server) -> Answer {
    match sent.and(answer) {
        Ok(answer) => answer,
        Err(error) => {
            if let Some(ended) = server.ended() {
                panic!("a server ended: {ended}");
            }
            assert!(error.kind() != io::ErrorKind::TimedOut, "no answer from {}", server.address);
            let body = format!("no answer: {error}").into_bytes();
            Answer { body, complete: true, ..Answer::default() }
        }
    }
}

fn indented(answer: &Answer) -> String {
    let headers: Vec<String> =
        answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let body = String::from_utf8_lossy(&answer.body);
    let cut: String = body.chars().take(1500).collect();
    format!(
        "    {}  [{}]\n    {}\n",
        answer.status,
        headers.join(", "),
        cut.trim_end().replace('\n', "\n    ")
    )
}

/// A wait that is on at both.
struct Wait {
    request: Request,
    theirs: Connection,
    ours: Connection,
    since: usize,
}

/// One seed's requests, and how they compare.
pub(crate) struct Run {
    pair: Pair,
    generator: Generator,
    waits: Vec<Wait>,
    step: usize,
    pub(crate) tally: Tally,
}

/// What was found.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) requests: usize,
    /// By status.
    pub(crate) statuses: BTreeMap<u16, usize>,
    pub(crate) waits_answered: usize,
    /// How often each meant difference was met.
    pub(crate) meant: BTreeMap<&'static str, usize>,
    pub(crate) differences: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, statuses, waits_answered, meant, differences } = self;
        write!(f, "{requests} requests, statuses {statuses:?}, {waits_answered} waits answered")?;
        for (what, count) in meant {
            write!(f, "\n  meant, {count} times: {what}")?;
        }
        differences.iter().try_for_each(|difference| write!(f, "\n\n{difference}"))
    }
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let mut pair = Pair::start();
        let generator = Generator::new(seed, pair.level());
        Self { pair, generator, waits: Vec::new(), step: 0, tally: Tally::default() }
    }

    /// Plays this many requests.
    pub(crate) fn play(mut self, requests: usize) -> Tally {
        while self.step < requests && self.tally.differences.len() < REPORTED_MAX {
            self.step += 1;
            self.tally.requests += 1;
            match self.generator.step() {
                Step::Ask(request) => self.ask(&request),
                Step::Wait(request) => self.wait(request),
            }
            if self.step.is_multiple_of(10) {
                self.poll_waits(Duration::ZERO);
            }
        }
        self.poll_waits(Duration::from_millis(200));
        self.tally
    }

    fn ask(&mut self, request: &Request) {
        let (theirs, ours) = self.pair.ask(request);
        *self.tally.statuses.entry(theirs.status).or_default() += 1;
        if matches!(theirs.status, 200 | 201) && request.method != "GET" && request.method != "HEAD" {
            if let Some(index) = theirs.index() {
                self.generator.learn(request, index, &value(&theirs));
            }
        }
        if !self.compare(request, &theirs, &ours) {
            self.pair.level();
        }
    }

    /// Compares two answers, and files a difference; whether there was none.
    fn compare(&mut self, request: &Request, theirs: &Answer, ours: &Answer) -> bool {
        let Some(what) = compare::difference(request, theirs, ours) else { return true };
        if let Some(meant) = differences::explain(request, theirs, ours) {
            *self.tally.meant.entry(meant.what).or_default() += 1;
        } else {
            let shown = self.pair.show(request, theirs, ours);
            self.tally.differences.push(format!("request {}: {what}\n{shown}", self.step));
        }
        false
    }

    fn wait(&mut self, request: Request) {
        if self.waits.len() == WAITS_MAX {
            self.waits.remove(0);
        }
        let mut theirs = Connection::to(self.pair.etcd.address);
        let mut ours = Connection::to(self.pair.quorate.address);
        let sent = (theirs.send(&request), ours.send(&request));
        let (their_head, our_head) = (theirs.head(), ours.head());
        let their_head = said(their_head, sent.0, &mut self.pair.etcd);
        let our_head = said(our_head, sent.1, &mut self.pair.quorate);
        let heads = |answer: &Answer| Answer { body: Vec::new(), complete: false, ..answer.clone() };
        if self.compare(&request, &heads(&their_head), &heads(&our_head)) {
            self.waits.push(Wait { request, theirs, ours, since: self.step });
        }
    }

    /// Compares what waits have been told so far, given some time.
    fn poll_waits(&mut self, patience: Duration) {
        for mut wait in std::mem::take(&mut self.waits) {
            let (theirs, ours) = wait.so_far(patience, &mut self.pair);
            let same = compare::difference(&wait.request, &theirs, &ours).is_none()
                || self.compare(&wait.request, &theirs, &ours);
            self.tally.waits_answered += usize::from(same && theirs.complete);
            if same && !theirs.complete && self.step < wait.since + WAIT_STEPS {
                self.waits.push(wait);
            }
        }
    }
}

impl Wait {
    /// What both have said; if it is not the same, the one that has said less gets more time.
    fn so_far(&mut self, patience: Duration, pair: &mut Pair) -> (Answer, Answer) {
        let mut both = |patience| {
            let (theirs, ours) = (self.theirs.within(patience), self.ours.within(patience));
            (said(theirs, Ok(()), &mut pair.etcd), said(ours, Ok(()), &mut pair.quorate))
        };
        let mut said = both(patience);
        let started = std::time::Instant::now();
        let settled = |theirs: &Answer, ours: &Answer| {
            compare::difference(&self.request, theirs, ours).is_none()
                || differences::explain(&self.request, theirs, ours).is_some()
        };
        while !settled(&said.0, &said.1) && started.elapsed() < PATIENCE {
            said = both(Duration::from_millis(10));
        }
        said
    }
}

/// The value that a write left, as a parameter.
fn value(answer: &Answer) -> String {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let value = body["node"]["value"].as_str().unwrap_or_default();
    value.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
