//! Requests and answers as bytes on a socket. No HTTP library stands in between: it would refuse to send half of what
//! is sent here, and would tidy up what comes back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// One request, byte for byte but for `Host` and `Content-Length`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: Vec<u8>,
    pub(crate) version: &'static str,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// Leaves `Host` out.
    pub(crate) without_host: bool,
}

impl Request {
    pub(crate) fn new(method: &str, target: impl Into<Vec<u8>>) -> Self {
        let (method, target) = (method.to_owned(), target.into());
        Self {
            method,
            target,
            version: "HTTP/1.1",
            headers: Vec::new(),
            body: Vec::new(),
            without_host: false,
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn put(target: &str, form: &str) -> Self {
        Self::new("PUT", target).form(form)
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a body that is a form.
    pub(crate) fn form(self, form: impl Into<Vec<u8>>) -> Self {
        let request = self.header("Content-Type", "application/x-www-form-urlencoded");
        Self { body: form.into(), ..request }
    }

    /// The parameters of the target; empty if it has none.
    pub(crate) fn query(&self) -> &[u8] {
        let at = self.target.iter().position(|&byte| byte == b'?');
        at.map_or(&[][..], |at| &self.target[at + 1..])
    }

    /// The key that the target names, if it has no odd escapes.
    pub(crate) fn key(&self) -> Vec<u8> {
        let path = self.target.split(|&byte| byte == b'?').next().unwrap_or_default();
        let mut rest = path.strip_prefix(b"/v2/keys").unwrap_or(path);
        let mut key = Vec::new();
        while let [first, tail @ ..] = rest {
            let escaped =
                tail.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            key.push(byte.unwrap_or(*first));
            rest = if byte.is_some() { &tail[2..] } else { tail };
        }
        key
    }

    /// Whether a flag is set in the target.
    pub(crate) fn has_flag(&self, name: &str) -> bool {
        let set = ["true", "1", "t", "T", "TRUE", "True"].map(|value| format!("{name}={value}"));
        self.query().split(|&byte| byte == b'&').any(|pair| set.iter().any(|set| set.as_bytes() == pair))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.method.clone().into_bytes();
        bytes.push(b' ');
        bytes.extend(&self.target);
        bytes.push(b' ');
        bytes.extend(self.version.as_bytes());
        bytes.extend(b"\r\n");
        if !self.without_host {
            bytes.extend(b"Host: conformance\r\n");
        }
        for (name, value) in &self.headers {
            bytes.extend(name.as_bytes());
            bytes.extend(b": ");
            bytes.extend(value);
            bytes.extend(b"\r\n");
        }
        let framed =
            self.headers.iter().any(|(name, _)| name == "Content-Length" || name == "Transfer-Encoding");
        if !framed && (!self.body.is_empty() || matches!(&self.method[..], "PUT" | "POST")) {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// A command line that sends the same.
    pub(crate) fn curl(&self, server: SocketAddr) -> String {
        let method = if self.method == "HEAD" { "--head".to_owned() } else { format!("-X {}", self.method) };
        let target = quoted(&self.target);
        let mut command = format!("curl -is -g {method} --request-target {target} http://{server}");
        if self.version == "HTTP/1.0" {
            command.push_str(" --http1.0");
        }
        if !matches!(self.version, "HTTP/1.0" | "HTTP/1.1") {
            // curl cannot.
            command.extend([" '# as ", self.version, ":'"]);
        }
        if self.body.is_empty() && !self.headers.iter().any(|(name, _)| name == "Content-Type") {
            command.push_str(" -H 'Content-Type:'");
        }
        if self.without_host {
            command.push_str(" -H 'Host:'");
        }
        for (name, value) in &self.headers {
            command.push_str(" -H ");
            command.push_str(&quoted(&[name.as_bytes(), b": ", value].concat()));
        }
        if !self.body.is_empty() {
            command.push_str(" --data-binary ");
            command.push_str(&quoted(&self.body));
        }
        command
    }
}

/// Bytes as one word for a shell.
fn quoted(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'\'' || *byte == b' ';
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(plain) => format!("'{text}'"),
        _ => format!("$'{}'", bytes.escape_ascii()),
    }
}

/// One answer, or what has come of it so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body is there to its end.
    pub(crate) complete: bool,
    /// How many bytes of the connection it took.
    pub(crate) consumed: usize,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn index(&self) -> Option<u64> {
        self.header("X-Etcd-Index")?.parse().ok()
    }

    /// Reads what a connection has received: `None` while the head is not complete.
    fn parse(received: &[u8], ended: bool, to_head: bool) -> io::Result<Option<Self>> {
        // That the body may be sent is an answer before the answer.
        let mut rest = received;
        while rest.starts_with(b"HTTP/1.1 100 ") {
            let Some(len) = find(rest, b"\r\n\r\n") else { return Ok(None) };
            rest = &rest[len + 4..];
        }
        let before = received.len() - rest.len();
        let mut answer = Self::parse_final(rest, ended, to_head)?;
        if let Some(answer) = answer.as_mut().filter(|_| before > 0) {
            answer.consumed += before;
            answer.headers.push(("(before)".to_owned(), "100 Continue".to_owned()));
        }
        Ok(answer)
    }

    fn parse_final(received: &[u8], ended: bool, to_head: bool) -> io::Result<Option<Self>> {
        let Some(head_len) = find(received, b"\r\n\r\n") else { return Ok(None) };
        let bad = || io::Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(received).into_owned());
        let head = String::from_utf8_lossy(&received[..head_len]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(bad)?;
        let header = |line: &str| {
            Some((line.split_once(':')?.0.to_owned(), line.split_once(':')?.1.trim().to_owned()))
        };
        let headers = lines.map(header).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
        let mut answer = Self { status, headers, ..Self::default() };
        let rest = &received[head_len + 4..];
        let taken = if to_head || matches!(status, 204 | 304) {
            answer.complete = true;
            0
        } else if answer
            .header("Transfer-Encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            answer.take_chunks(rest).ok_or_else(bad)?
        } else if let Some(len) = answer.header("Content-Length") {
            let len = len.parse().map_err(|_| bad())?;
            answer.complete = rest.len() >= len;
            answer.body = rest[..len.min(rest.len())].to_vec();
            len
        } else {
            answer.complete = ended;
            answer.body = rest.to_vec();
            rest.len()
        };
        answer.consumed = head_len + 4 + taken;
        Ok(Some(answer))
    }

    /// Takes the chunks that are complete; returns their length on the wire.
    fn take_chunks(&mut self, mut rest: &[u8]) -> Option<usize> {
        let all = rest.len();
        while let Some(line) = find(rest, b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
            let Some(data) = rest.get(line + 2..line + 2 + size) else { break };
            let Some(after) = rest.get(line + 4 + size..) else { break };
            rest = after;
            if size == 0 {
                self.complete = true;
                break;
            }
            self.body.extend(data);
        }
        Some(all - rest.len())
    }
}

/// A connection to a server, opened anew whenever the server has closed it.
#[derive(Debug)]
pub(crate) struct Connection {
    server: SocketAddr,
    stream: Option<TcpStream>,
    received: Vec<u8>,
    ended: bool,
    to_head: bool,
    /// The server closes it after the answer without saying so.
    is_old: bool,
}

impl Connection {
    pub(crate) fn to(server: SocketAddr) -> Self {
        Self { server, stream: None, received: Vec::new(), ended: false, to_head: false, is_old: false }
    }

    /// Sends a request and waits for the answer to its end.
    pub(crate) fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.send(request)?;
        self.answer()
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, request: &Request) -> io::Result<()> {
        self.to_head = request.method == "HEAD";
        self.is_old = request.version == "HTTP/1.0";
        let stream = match &mut self.stream {
            Some(stream) => stream,
            slot => {
                let stream = TcpStream::connect(self.server)?;
                stream.set_nodelay(true)?;
                slot.insert(stream)
            }
        };
        stream.write_all(&request.bytes())
    }

    /// The answer to what was sent, to its end.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            if let Some(answer) = self.so_far()?.filter(|answer| answer.complete) {
                self.received.drain(..answer.consumed);
                let closes = match answer.header("Connection") {
                    Some(value) => value.eq_ignore_ascii_case("close"),
                    None => self.is_old,
                };
                if closes || self.ended {
                    *self = Self::to(self.server);
                }
                return Ok(answer);
            }
            self.receive_until(deadline)?;
        }
    }

    /// The answer as far as its head at least: for waits.
    pub(crate) fn head(&mut self) -> io::Result<Answer> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            if let Some(answer) = self.so_far()? {
                return Ok(answer);
            }
            self.receive_until(deadline)?;
        }
    }

    /// What has come of the answer until now.
    fn so_far(&mut self) -> io::Result<Option<Answer>> {
        let answer = Answer::parse(&self.received, self.ended, self.to_head)?;
        if answer.is_none() && self.ended {
            *self = Self::to(self.server);
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }

    /// What comes of the answer within a time.
    pub(crate) fn within(&mut self, patience: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + patience;
        loop {
            match self.so_far()? {
                Some(answer) if answer.complete || Instant::now() >= deadline => return Ok(answer),
                _ => {}
            }
            match self.receive_until(deadline) {
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return self.so_far()?.ok_or_else(|| ErrorKind::TimedOut.into());
                }
                outcome => outcome?,
            }
        }
    }

    /// Receives something, or the end.
    fn receive_until(&mut self, deadline: Instant) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Err(ErrorKind::NotConnected.into()) };
        if self.ended {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_nonblocking(left.is_zero())?;
        if !left.is_zero() {
            stream.set_read_timeout(Some(left))?;
        }
        let mut buffer = [0; 16 * 1024];
        let received = stream.read(&mut buffer);
        stream.set_nonblocking(false)?;
        match received {
            Ok(0) => self.ended = true,
            Ok(len) => self.received.extend(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
