//! Requests to one member, and what their answers mean.

use crate::history::{Call, Done, History};
use crate::hosts;
use reqwest::{Client, Method, Response};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A bug that the run itself can put in, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Members answer every read from their own state, as if none of them knew better.
    LocalReads,
    /// A member that is killed comes back with its disk as it was long before: nothing was synced.
    UnsyncedDisk,
    /// A watcher that comes back misses one index.
    WatchGap,
}

#[derive(Clone)]
pub struct Wire {
    http: Client,
    pub history: Arc<History>,
    pub size: usize,
    pub bug: Option<Bug>,
}

/// There is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It was not sent: nobody took the connection.
    NotSent,
    Unknown,
}

pub struct Answer {
    pub status: u16,
    pub index: Option<u64>,
    pub body: Value,
}

impl Answer {
    pub fn node(&self) -> &Value {
        &self.body["node"]
    }

    pub fn modified(&self) -> Option<u64> {
        self.node()["modifiedIndex"].as_u64()
    }

    pub fn error(&self) -> Option<u64> {
        self.body["errorCode"].as_u64()
    }

    /// Of an answer that says neither yes nor no.
    fn is_unknown(&self) -> bool {
        self.status >= 500 || self.error().is_some_and(|code| code >= 300)
    }
}

/// A value of ours.
pub fn value(node: &Value) -> Option<u64> {
    node["value"].as_str()?.parse().ok()
}

impl Wire {
    pub fn new(history: Arc<History>, size: usize, bug: Option<Bug>) -> Self {
        // A provider must be there, although nothing here is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().no_proxy().connect_timeout(Duration::from_secs(1));
        Self { http: http.build().expect("a client"), history, size, bug }
    }

    pub fn url(member: usize, rest: &str) -> String {
        format!("http://{}:4001{rest}", hosts::address(member))
    }

    /// One request, for so long at the most. An error of the cluster's own is no answer.
    pub async fn ask(
        &self,
        method: Method,
        member: usize,
        rest: &str,
        form: &str,
        timeout: Duration,
    ) -> Result<Answer, Silence> {
        let mut request = self.http.request(method, Self::url(member, rest)).timeout(timeout);
        if !form.is_empty() {
            let json = form.starts_with('{');
            let kind = if json { "application/json" } else { "application/x-www-form-urlencoded" };
            request = request.header("Content-Type", kind).body(form.to_owned());
        }
        let silence =
            |error: reqwest::Error| if error.is_connect() { Silence::NotSent } else { Silence::Unknown };
        let answer = request.send().await.map_err(silence)?;
        let status = answer.status().as_u16();
        let index = answer.headers().get("X-Etcd-Index").and_then(|index| index.to_str().ok()?.parse().ok());
        let text = answer.text().await.map_err(silence)?;
        let answer =
            Answer { status, index, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) };
        if answer.is_unknown() { Err(Silence::Unknown) } else { Ok(answer) }
    }

    /// A default read, which may miss nothing.
    pub async fn read(
        &self,
        member: usize,
        key: &str,
        query: &str,
        timeout: Duration,
    ) -> Result<Answer, Silence> {
        let local = if self.bug == Some(Bug::LocalReads) { "quorum=false" } else { "" };
        self.ask(Method::GET, member, &format!("/v2/keys{key}?{query}&{local}"), "", timeout).await
    }

    /// A watch, once it is armed.
    pub async fn watch(&self, member: usize, from: u64, query: &str, timeout: Duration) -> Option<Response> {
        let from = if self.bug == Some(Bug::WatchGap) && from > 1 { from + 1 } else { from };
        let url = Self::url(member, &format!("/v2/keys/?recursive=true&wait=true&{query}&waitIndex={from}"));
        let answer = tokio::time::timeout(timeout, self.http.get(url).send()).await.ok()?.ok()?;
        (answer.status() == 200).then_some(answer)
    }
}

/// A call in the making.
pub struct Made<'a> {
    wire: &'a Wire,
    who: &'a str,
    key: String,
    invoked: u64,
}

impl<'a> Made<'a> {
    pub fn now(wire: &'a Wire, who: &'a str, key: &str) -> Self {
        Self { wire, who, key: key.to_owned(), invoked: wire.history.now() }
    }

    fn record(self, returned: Option<u64>, done: Done, index: Option<u64>, wrote: Option<(u64, u64)>) {
        let Self { wire, who, key, invoked } = self;
        wire.history.called(Call { who: who.to_owned(), key, invoked, returned, done, index, wrote });
    }

    pub fn unanswered(self, silence: Silence, done: Done) {
        if silence == Silence::Unknown {
            self.record(None, done, None, None);
        }
    }

    /// `wrote`: the value, if it was a write that went through.
    pub fn answered(self, answer: &Answer, done: Done, wrote: Option<u64>) {
        let returned = Some(self.wire.history.now());
        let wrote = answer.modified().zip(wrote);
        self.record(returned, done, answer.index, wrote);
    }
}
