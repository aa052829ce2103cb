//! One blocking keep-alive connection, with a time limit: all that the load and the checks ask of a member.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub struct Connection {
    address: SocketAddr,
    timeout: Duration,
    stream: Option<TcpStream>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unanswered {
    /// Nobody took the request: it has no effect.
    Refused,
    /// It was sent, and may have taken effect or still do.
    Unknown,
}

pub struct Answer {
    pub status: u16,
    pub body: serde_json::Value,
}

impl Connection {
    pub fn new(port: u16, timeout: Duration) -> Connection {
        Connection { address: SocketAddr::from(([127, 0, 0, 1], port)), timeout, stream: None }
    }

    pub fn get(&mut self, path: &str) -> Option<Answer> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).ok()
    }

    pub fn delete(&mut self, path: &str) -> Result<Answer, Unanswered> {
        self.ask(&format!("DELETE {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    pub fn put(&mut self, path: &str, value: &str) -> Result<Answer, Unanswered> {
        self.send("PUT", path, "application/x-www-form-urlencoded", &format!("value={value}"))
    }

    pub fn send(&mut self, method: &str, path: &str, kind: &str, body: &str) -> Result<Answer, Unanswered> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Type: {kind}");
        self.ask(&format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    fn ask(&mut self, request: &str) -> Result<Answer, Unanswered> {
        if self.stream.is_none() {
            self.stream = Some(self.connect().map_err(|_| Unanswered::Refused)?);
        }
        let answer = self.exchange(request);
        if answer.is_none() {
            self.stream = None;
        }
        answer.ok_or(Unanswered::Unknown)
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn exchange(&mut self, request: &str) -> Option<Answer> {
        let stream = self.stream.as_mut()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut bytes = Vec::new();
        let body = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            fill(stream, &mut bytes)?;
        };
        let head = String::from_utf8_lossy(&bytes[..body]).to_ascii_lowercase();
        let status: u16 = head.get(9..12)?.parse().ok()?;
        let len = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let text = if status == 204 {
            Vec::new()
        } else if let Some(len) = len {
            let len: usize = len.trim().parse().ok()?;
            while bytes.len() < body + len {
                fill(stream, &mut bytes)?;
            }
            bytes[body..body + len].to_vec()
        } else {
            read_chunks(stream, &mut bytes, body)?
        };
        Some(Answer { status, body: serde_json::from_slice(&text).unwrap_or_default() })
    }
}

fn read_chunks(stream: &mut TcpStream, bytes: &mut Vec<u8>, mut at: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let Some(line) = bytes[at..].windows(2).position(|window| window == b"\r\n") else {
            fill(stream, bytes)?;
            continue;
        };
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?.trim(), 16).ok()?;
        let from = at + line + 2;
        while bytes.len() < from + size + 2 {
            fill(stream, bytes)?;
        }
        if size == 0 {
            return Some(text);
        }
        text.extend_from_slice(&bytes[from..from + size]);
        at = from + size + 2;
    }
}

fn fill(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = vec![0; 65536];
    match stream.read(&mut buffer).ok()? {
        0 => None,
        read => {
            bytes.extend_from_slice(&buffer[..read]);
            Some(())
        }
    }
}
