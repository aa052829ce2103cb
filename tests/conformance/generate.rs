//! Random requests from a seed: few keys, so that they collide, every parameter, good and odd values of each, and
//! paths, bodies and methods that are wrong in every way known.

use crate::wire::Request;
use crate::words::{
    BOOLS, CHUNKS, CONTENT_TYPES, METHODS, NUMBERS, ODD_HEADERS, ODD_SEGMENTS, ODD_TARGETS, SEGMENTS, VALUES,
    VERSIONS,
};
use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// How many past events conditions are taken from.
const REMEMBERED: usize = 60;

/// How many events the servers keep (`server`).
const HISTORY: u64 = 1000;

/// What happened, as far as conditions are made of it.
#[derive(Clone, Debug)]
struct Seen {
    target: Vec<u8>,
    value: String,
    index: u64,
}

/// Makes requests.
pub(crate) struct Generator {
    rng: ChaCha8Rng,
    seen: VecDeque<Seen>,
    index: u64,
    /// Before this one, the two servers have different pasts.
    first_index: u64,
}

/// A request, and what it is for.
pub(crate) enum Step {
    /// Asked and answered.
    Ask(Request),
    /// Answered when something happens.
    Wait(Request),
}

impl Generator {
    /// Begins with servers that are both at an index.
    pub(crate) fn new(seed: u64, index: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), seen: VecDeque::new(), index, first_index: index + 1 }
    }

    /// Takes note of a write's outcome: requests to come are made to meet it.
    pub(crate) fn learn(&mut self, request: &Request, index: u64, value: &str) {
        self.index = index;
        let target = request.target.split(|&byte| byte == b'?').next().unwrap_or_default().to_vec();
        self.seen.push_front(Seen { target, value: value.to_owned(), index });
        self.seen.truncate(REMEMBERED);
    }

    /// The next request.
    pub(crate) fn step(&mut self) -> Step {
        Step::Ask(match self.rng.random_range(0..100) {
            0..38 => self.put(),
            38..50 => self.swap(),
            50..57 => self.post(),
            57..69 => self.delete(),
            69..86 => self.get(),
            86..92 => self.odd(),
            92..94 => self.odd_form(),
            94 => self.odd_head(),
            _ => return Step::Wait(self.wait()),
        })
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_range(0..n) == 0
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.rng.random_range(0..of.len())]
    }

    fn key(&mut self) -> String {
        let depth = match self.rng.random_range(0..40) {
            0 => 0,
            1..22 => 1,
            22..34 => 2,
            34..39 => 3,
            _ => self.rng.random_range(4..30),
        };
        let mut target = "/v2/keys".to_owned();
        for _ in 0..depth {
            target.push('/');
            let segment = if self.one_in(12) { self.pick(&ODD_SEGMENTS) } else { self.pick(&SEGMENTS) };
            target.push_str(segment);
        }
        if depth == 0 || self.one_in(15) {
            target.push('/');
        }
        target
    }

    fn bool(&mut self) -> &'static str {
        if self.one_in(10) { self.pick(&BOOLS) } else { self.pick(&BOOLS[..5]) }
    }

    /// A long time to live, mostly: what expires is not for random comparison.
    fn ttl(&mut self) -> String {
        const ODD: [&str; 9] = ["", "-1", "x", "1.5", "+5", "18446744073709551616", "1%20", "0x5", "1_000"];
        if self.one_in(8) {
            self.pick(&ODD).to_owned()
        } else {
            self.rng.random_range(5_000..9_000_000).to_string()
        }
    }

    /// An index near those that were seen.
    fn number(&mut self) -> String {
        match self.rng.random_range(0..10) {
            0 => self.pick(&NUMBERS).to_owned(),
            1..6 if !self.seen.is_empty() => {
                let at = self.rng.random_range(0..self.seen.len());
                self.seen[at].index.to_string()
            }
            _ => (self.index + 2).saturating_sub(self.rng.random_range(0..6)).to_string(),
        }
    }

    fn param(&mut self, name: &str) -> String {
        let value = match name {
            "value" => self.pick(&VALUES).to_owned(),
            "prevValue" if self.one_in(3) => self.pick(&VALUES).to_owned(),
            "prevValue" => self.pick(&VALUES[..2]).to_owned(),
            "ttl" => self.ttl(),
            "prevIndex" | "waitIndex" => self.number(),
            _ => self.bool().to_owned(),
        };
        if self.one_in(150) { name.to_owned() } else { format!("{name}={value}") }
    }

    /// Some of these parameters, each with its chance in a hundred.
    fn params(&mut self, chances: &[(&str, u32)]) -> Vec<String> {
        let mut params = Vec::new();
        for (name, chance) in chances {
            if self.rng.random_range(0..100) < *chance {
                params.push(self.param(name));
                if self.one_in(40) {
                    params.push(self.param(name));
                }
            }
        }
        if params.len() > 1 && self.one_in(2) {
            let last = params.len() - 1;
            let other = self.rng.random_range(0..last);
            params.swap(other, last);
        }
        params
    }

    /// Spreads parameters over query and form, with a little that is wrong.
    fn request(&mut self, method: &str, target: impl Into<Vec<u8>>, params: Vec<String>) -> Request {
        const ODD: [&str; 14] = [
            "",
            "=",
            "==",
            "&",
            "x",
            "x=y",
            "%zz=1",
            "x=%",
            "value=%4",
            "a;b",
            "ttl=5000;",
            "consistent=true",
            "%76alue=v",
            "VALUE=v",
        ];
        let writes = matches!(method, "PUT" | "POST");
        let (mut query, mut form) = (Vec::new(), Vec::new());
        let all_in_query = !writes || self.one_in(5);
        for param in params {
            let in_query = all_in_query || (!param.starts_with("value") && self.one_in(3));
            if in_query { &mut query } else { &mut form }.push(param);
        }
        if self.one_in(60) {
            let odd = self.pick(&ODD).to_owned();
            if writes && self.one_in(2) { &mut form } else { &mut query }.push(odd);
        }
        let mut target = target.into();
        if !query.is_empty() || self.one_in(100) {
            target.push(b'?');
            target.extend(query.join("&").as_bytes());
        }
        let mut request = Request::new(method, target);
        if writes && !(form.is_empty() && self.one_in(2)) {
            request = request.form(form.join("&"));
        }
        if self.one_in(300) {
            request.version = "HTTP/1.0";
        }
        request
    }

    fn put(&mut self) -> Request {
        let chances = match self.rng.random_range(0..6) {
            0 => &[("value", 90), ("prevExist", 100), ("ttl", 30), ("dir", 10)][..],
            1 => &[
                ("ttl", 100),
                ("refresh", 100),
                ("prevExist", 60),
                ("value", 5),
                ("prevValue", 15),
                ("dir", 10),
            ],
            2 => &[("dir", 100), ("ttl", 30), ("value", 20), ("prevExist", 30)],
            3 => &[
                ("value", 80),
                ("ttl", 20),
                ("dir", 10),
                ("recursive", 10),
                ("sorted", 10),
                ("quorum", 10),
                ("stream", 10),
                ("wait", 5),
                ("prevValue", 10),
                ("prevIndex", 10),
                ("waitIndex", 10),
                ("prevExist", 10),
                ("refresh", 10),
                ("noValueOnSuccess", 30),
            ],
            _ => &[("value", 98), ("ttl", 25), ("noValueOnSuccess", 5)],
        };
        let (key, params) = (self.key(), self.params(chances));
        self.request("PUT", key, params)
    }

    /// A compare-and-swap or compare-and-delete of something that was there lately.
    fn swap(&mut self) -> Request {
        let recent = self.seen.len().min(12);
        if recent == 0 {
            return self.put();
        }
        let at = self.rng.random_range(0..recent);
        let Seen { target, value, index } = self.seen[at].clone();
        let chances = [
            ("value", 90),
            ("ttl", 20),
            ("noValueOnSuccess", 5),
            ("dir", 3),
            ("prevExist", 10),
            ("refresh", 5),
        ];
        let mut params = self.params(&chances);
        match self.rng.random_range(0..4) {
            0 if !value.is_empty() => params.push(format!("prevValue={value}")),
            1 => params.extend([format!("prevIndex={index}"), self.param("prevValue")]),
            2 => params.push(self.param("prevIndex")),
            _ => params.push(format!("prevIndex={index}")),
        }
        let method = if self.one_in(4) { "DELETE" } else { "PUT" };
        self.request(method, target, params)
    }

    fn post(&mut self) -> Request {
        let key = self.key();
        let params = self.params(&[
            ("value", 90),
            ("ttl", 20),
            ("dir", 10),
            ("prevExist", 5),
            ("noValueOnSuccess", 5),
            ("refresh", 4),
        ]);
        self.request("POST", key, params)
    }

    fn delete(&mut self) -> Request {
        if self.one_in(3) {
            // Lest the tree only grows, and all that is short is a directory.
            let target = format!("/v2/keys/{}?recursive=true", self.pick(&SEGMENTS));
            return Request::new("DELETE", target);
        }
        let key = self.key();
        let params = self.params(&[
            ("recursive", 35),
            ("dir", 30),
            ("prevValue", 5),
            ("prevIndex", 5),
            ("prevExist", 5),
            ("wait", 2),
            ("ttl", 3),
            ("value", 3),
        ]);
        let request = self.request("DELETE", key, params);
        if self.one_in(20) { request.form("dir=true&recursive=true") } else { request }
    }

    fn get(&mut self) -> Request {
        let method = if self.one_in(8) { "HEAD" } else { "GET" };
        let key = self.key();
        let mut params = self.params(&[
            ("recursive", 40),
            ("quorum", 20),
            ("stream", 3),
            ("waitIndex", 4),
            ("dir", 3),
            ("ttl", 2),
            ("prevIndex", 2),
            ("refresh", 2),
            ("prevExist", 2),
            ("prevValue", 2),
            ("noValueOnSuccess", 2),
            ("value", 2),
        ]);
        if !self.one_in(10) {
            params.push(if self.one_in(30) { self.param("sorted") } else { "sorted=true".to_owned() });
        }
        if self.one_in(30) {
            // First come, first served: a quorum read it is, and no wait.
            params.splice(0..0, ["wait=true".to_owned(), "quorum=true".to_owned()]);
        }
        self.request(method, key, params)
    }

    fn wait(&mut self) -> Request {
        let key = match self.rng.random_range(0..4) {
            0 => self.key(),
            1 => "/v2/keys/".to_owned(),
            _ => format!("/v2/keys/{}", self.pick(&SEGMENTS)),
        };
        let mut target = format!("{key}?wait=true");
        if self.one_in(2) {
            target.push_str("&recursive=true");
        }
        if self.one_in(3) {
            target.push_str("&stream=true");
        }
        if self.one_in(2) {
            let index = match self.rng.random_range(0..9) {
                0 => self.first_index,
                8 if self.index > self.first_index + HISTORY + 10 => {
                    // About where the history ends.
                    self.index - HISTORY - 5 + self.rng.random_range(0..10)
                }
                1 => self.index + self.rng.random_range(0..20),
                2 => 0,
                _ => self.index.saturating_sub(self.rng.random_range(0..40)).max(self.first_index),
            };
            _ = write!(target, "&waitIndex={index}");
        }
        if self.one_in(8) {
            let more =
                ["quorum=false", "sorted=true", "dir=true", "ttl=5", "prevExist=true", "value=x", "x=y"];
            target.push('&');
            target.push_str(self.pick(&more));
        }
        Request::get(&target)
    }

    /// A plain request with a head that is not.
    fn odd_head(&mut self) -> Request {
        let mut request = match self.rng.random_range(0..4) {
            0 => Request::get(&format!("{}?sorted=true", self.key())),
            1 => Request::new("DELETE", self.key()),
            _ => Request::put(&self.key(), "value=1"),
        };
        match self.rng.random_range(0..10) {
            0 => {
                // Nothing that leaves a trace: a version that one of them takes and the other does not is meant.
                request = Request::get(&format!("{}?sorted=true", self.key()));
                request.version = VERSIONS[self.rng.random_range(0..VERSIONS.len())];
            }
            1 => request.without_host = true,
            2 | 3 if request.method == "PUT" => {
                request.body = self.pick(&CHUNKS).as_bytes().to_vec();
                return request.header("Transfer-Encoding", "chunked");
            }
            _ => {
                let (name, value) = ODD_HEADERS[self.rng.random_range(0..ODD_HEADERS.len())];
                return request.header(name, value);
            }
        }
        request
    }

    fn odd(&mut self) -> Request {
        let target = match self.rng.random_range(0..3) {
            0 => self.key(),
            _ => self.pick(&ODD_TARGETS).to_owned(),
        };
        let method = if self.one_in(2) {
            self.pick(&METHODS)
        } else {
            self.pick(&["GET", "HEAD", "PUT", "POST", "DELETE"])
        };
        let mut request = self.request(method, target, vec!["value=odd".to_owned()]);
        if self.one_in(4) {
            request.target = request.target.split(|&byte| byte == b'?').next().unwrap_or_default().to_vec();
        }
        if request.target.contains(&b'#') {
            // What we write then is another key: a meant difference, but not one to go on from.
            request = Request::new("GET", request.target);
        }
        if self.one_in(20) && matches!(&request.method[..], "GET" | "HEAD" | "OPTIONS") {
            request.target.push(0xe9); // no UTF-8, and not escaped
        }
        request
    }

    /// A write whose body is not a plain form.
    fn odd_form(&mut self) -> Request {
        let target = self.key();
        let method = if self.one_in(4) { "POST" } else { "PUT" };
        let body = format!("value={}", self.pick(&VALUES));
        let mut request = Request::new(method, target);
        if !self.one_in(6) {
            let content_type = self.pick(&CONTENT_TYPES);
            request = request.header("Content-Type", content_type);
        }
        if self.one_in(5) {
            let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
            request = request.header("Transfer-Encoding", "chunked");
            return Request { body: chunks.into_bytes(), ..request };
        }
        Request { body: body.into_bytes(), ..request }
    }
}
