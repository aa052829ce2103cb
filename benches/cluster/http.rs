//! Just enough HTTP/1.1 for a load generator: one keep-alive connection, hand-written requests, answers read for their
//! status and length and thrown away. A full client would take more of the two cores than the servers do.

use crate::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection, with what was read beyond the last answer.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer: its status and its body, if it was asked to be kept.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1024) })
    }

    /// Sends one request and reads its answer; gives the status.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<u16, Failure> {
        self.stream.write_all(request).await?;
        let (status, end, _) = self.read_answer().await?;
        self.buffer.drain(..end);
        Ok(status)
    }

    /// The same, for the few requests whose answer is looked at.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        self.stream.write_all(request).await?;
        let (status, end, body) = self.read_answer().await?;
        let answer = Answer { status, body: self.buffer[body..end].to_vec() };
        self.buffer.drain(..end);
        Ok(answer)
    }

    /// Sends a request and reads the head of its answer only; the body may be long in coming.
    pub(crate) async fn begin(&mut self, request: &[u8]) -> Result<u16, Failure> {
        self.stream.write_all(request).await?;
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                let (status, _) = parse_head(&self.buffer[..at + 4])?;
                return Ok(status);
            }
            self.fill().await?;
        }
    }

    /// Reads the rest of the answer that was begun.
    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        let (_, end, _) = self.read_answer().await?;
        self.buffer.drain(..end);
        Ok(())
    }

    /// Sends a request and reads its answer without keeping it; gives the status and the number of bytes.
    pub(crate) async fn drain(&mut self, request: &[u8]) -> Result<(u16, u64), Failure> {
        // Read in large pieces: the generator is not what is measured.
        self.buffer.reserve(64 * 1024);
        let status = self.begin(request).await?;
        let at = find(&self.buffer, b"\r\n\r\n").ok_or("the head is gone")? + 4;
        let (_, framing) = parse_head(&self.buffer[..at])?;
        let mut bytes = 0;
        if let Framing::Length(length) = framing {
            while self.buffer.len() < at + length {
                self.fill().await?;
            }
            self.buffer.drain(..at + length);
            return Ok((status, length as u64));
        }
        self.buffer.drain(..at);
        loop {
            let Some(line) = find(&self.buffer, b"\r\n") else {
                self.fill().await?;
                continue;
            };
            let size = chunk_size(&self.buffer[..line])?;
            let mut left = line + 2 + size + 2;
            while left > self.buffer.len() {
                left -= self.buffer.len();
                self.buffer.clear();
                self.fill().await?;
            }
            self.buffer.drain(..left);
            bytes += size as u64;
            if size == 0 {
                return Ok((status, bytes));
            }
        }
    }

    /// Status, end of the answer in the buffer, start of its body (chunk marks included).
    async fn read_answer(&mut self) -> Result<(u16, usize, usize), Failure> {
        let body = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let (status, framing) = parse_head(&self.buffer[..body])?;
        let end = match framing {
            Framing::Length(length) => {
                while self.buffer.len() < body + length {
                    self.fill().await?;
                }
                body + length
            }
            Framing::Chunked => self.read_chunks(body).await?,
        };
        Ok((status, end, body))
    }

    async fn read_chunks(&mut self, mut at: usize) -> Result<usize, Failure> {
        loop {
            let Some(line) = find(&self.buffer[at..], b"\r\n") else {
                self.fill().await?;
                continue;
            };
            let size = chunk_size(&self.buffer[at..at + line])?;
            let end = at + line + 2 + size + 2;
            while self.buffer.len() < end {
                self.fill().await?;
            }
            at = end;
            if size == 0 {
                return Ok(end);
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, Failure> {
    let size = std::str::from_utf8(line)?;
    Ok(usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16)?)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(head: &[u8]) -> Result<(u16, Framing), Failure> {
    let status = head
        .get(9..12)
        .filter(|_| head.starts_with(b"HTTP/1."))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("not an HTTP answer: {}", String::from_utf8_lossy(head)))?;
    for line in head.split(|&byte| byte == b'\n').skip(1) {
        if let Some(value) = header(line, b"content-length:") {
            return Ok((status, Framing::Length(value.parse()?)));
        }
        if header(line, b"transfer-encoding:").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok((status, Framing::Chunked));
        }
    }
    Err(format!("an answer without a length: {}", String::from_utf8_lossy(head)).into())
}

fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let (start, rest) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| std::str::from_utf8(rest).ok().map(str::trim)).flatten()
}

/// A GET of a path and query.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes()
}

/// A PUT of a form.
pub(crate) fn put(path: &str, form: &str) -> Vec<u8> {
    format!(
        "PUT {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
    .into_bytes()
}
