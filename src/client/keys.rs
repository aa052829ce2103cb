//! The requests about keys.

use super::error::{ApiError, Error};
use super::transport::{Answer, Request, query};
use super::types::{Condition, DeleteOptions, GetOptions, Response, SetOptions, WatchOptions};
use super::watch::Watcher;
use super::{Client, escape};
use futures_util::Stream;
use reqwest::Method;

const FORM: &str = "application/x-www-form-urlencoded";

impl Client {
    /// Reads a key or lists a directory.
    pub async fn get(&self, key: &str, options: &GetOptions) -> Result<Response, Error> {
        let mut pairs = Vec::new();
        pairs.extend(options.quorum.map(|quorum| ("quorum", quorum.to_string())));
        pairs.push(("recursive", options.recursive.to_string()));
        pairs.push(("sorted", options.sorted.to_string()));
        let request = Request { query: query(pairs), ..Request::get(self.key(key)) };
        response(&self.transport.execute(&request).await?)
    }

    /// Writes a key under the options' conditions; with `dir`, the value is not sent.
    pub async fn set(
        &self,
        key: &str,
        value: impl AsRef<[u8]>,
        options: &SetOptions,
    ) -> Result<Response, Error> {
        let mut pairs = Vec::new();
        if options.dir {
            pairs.push(("dir", "true".to_owned()));
        }
        pairs.extend(options.prev_exist.map(|exist| ("prevExist", exist.to_string())));
        pairs.extend(given_index(options.prev_index));
        pairs.extend(given_value(options.prev_value.as_deref()));
        let ttl = options.ttl.map(|ttl| ttl.to_string());
        let mut form: Vec<(&str, &[u8])> = Vec::new();
        if options.refresh {
            form.push(("refresh", b"true"));
        }
        form.extend(ttl.as_ref().map(|ttl| ("ttl", ttl.as_bytes())));
        if !options.dir && !options.refresh {
            form.push(("value", value.as_ref()));
        }
        let request = Request {
            method: Method::PUT,
            path: self.key(key),
            query: query(pairs),
            body: Some((FORM, escape::form(form))),
            wait: false,
            // Sent twice, a creation that succeeded would be reported as "exists already".
            once: options.prev_exist == Some(false),
        };
        response(&self.transport.execute(&request).await?)
    }

    /// Creates a key that must not exist yet. `ttl` in seconds.
    pub async fn create(
        &self,
        key: &str,
        value: impl AsRef<[u8]>,
        ttl: Option<u64>,
    ) -> Result<Response, Error> {
        self.set(key, value, &SetOptions { ttl, prev_exist: Some(false), ..SetOptions::default() }).await
    }

    /// Creates a key in the directory `dir`, named by the index of its creation, so that names sort in order of
    /// creation. `ttl` in seconds.
    pub async fn create_in_order(
        &self,
        dir: &str,
        value: impl AsRef<[u8]>,
        ttl: Option<u64>,
    ) -> Result<Response, Error> {
        let ttl = ttl.map(|ttl| ttl.to_string());
        let ttl = ttl.as_ref().map(|ttl| ("ttl", ttl.as_bytes()));
        let form = escape::form(ttl.into_iter().chain([("value", value.as_ref())]));
        let request = Request {
            method: Method::POST,
            path: self.key(dir),
            query: String::new(),
            body: Some((FORM, form)),
            wait: false,
            once: true,
        };
        response(&self.transport.execute(&request).await?)
    }

    /// Changes a key that must exist. Its TTL becomes `ttl` seconds, or none.
    pub async fn update(
        &self,
        key: &str,
        value: impl AsRef<[u8]>,
        ttl: Option<u64>,
    ) -> Result<Response, Error> {
        self.set(key, value, &SetOptions { ttl, prev_exist: Some(true), ..SetOptions::default() }).await
    }

    /// Changes a key if the condition holds; otherwise error 101. `ttl` in seconds.
    pub async fn compare_and_swap(
        &self,
        key: &str,
        value: impl AsRef<[u8]>,
        condition: &Condition,
        ttl: Option<u64>,
    ) -> Result<Response, Error> {
        let Condition { value: prev_value, index: prev_index } = condition.clone();
        self.set(key, value, &SetOptions { ttl, prev_value, prev_index, ..SetOptions::default() }).await
    }

    /// Creates a directory that must not exist yet. `ttl` in seconds.
    pub async fn mkdir(&self, key: &str, ttl: Option<u64>) -> Result<Response, Error> {
        let options = SetOptions { ttl, prev_exist: Some(false), dir: true, ..SetOptions::default() };
        self.set(key, "", &options).await
    }

    /// Removes a key, or with the options' permission a directory.
    pub async fn delete(&self, key: &str, options: &DeleteOptions) -> Result<Response, Error> {
        let mut pairs = Vec::new();
        if options.dir {
            pairs.push(("dir", "true".to_owned()));
        }
        pairs.extend(given_index(options.prev_index));
        pairs.extend(given_value(options.prev_value.as_deref()));
        if options.recursive {
            pairs.push(("recursive", "true".to_owned()));
        }
        // Sent twice, a removal that succeeded would be reported as "not found".
        let request = Request {
            method: Method::DELETE,
            query: query(pairs),
            once: true,
            ..Request::get(self.key(key))
        };
        response(&self.transport.execute(&request).await?)
    }

    /// Removes a key if the condition holds; otherwise error 101.
    pub async fn compare_and_delete(&self, key: &str, condition: &Condition) -> Result<Response, Error> {
        let Condition { value: prev_value, index: prev_index } = condition.clone();
        self.delete(key, &DeleteOptions { prev_value, prev_index, ..DeleteOptions::default() }).await
    }

    /// Waits for one event. It has no timeout: drop the future to give up.
    pub async fn watch(&self, key: &str, options: &WatchOptions) -> Result<Response, Error> {
        self.watcher(key, options).next().await
    }

    /// A watch that goes from event to event without a gap.
    #[must_use]
    pub fn watcher(&self, key: &str, options: &WatchOptions) -> Watcher {
        Watcher::new(self.clone(), key, options)
    }

    /// The events as a stream. It ends after the first error; with error 401 (`event_index_cleared`) the reader is too
    /// far behind: it has to read the key again and watch after that answer's `etcd_index`.
    pub fn watch_stream(
        &self,
        key: &str,
        options: &WatchOptions,
    ) -> impl Stream<Item = Result<Response, Error>> + Send + use<> {
        futures_util::stream::unfold(Some(self.watcher(key, options)), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(event) => Some((Ok(event), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    pub(super) fn key(&self, key: &str) -> String {
        let path = escape::key_path(key);
        if path == "/" && self.prefix.is_empty() { path } else { format!("{}{path}", self.prefix) }
    }
}

fn given_index(index: Option<u64>) -> Option<(&'static str, String)> {
    index.filter(|&index| index != 0).map(|index| ("prevIndex", index.to_string()))
}

fn given_value(value: Option<&str>) -> Option<(&'static str, String)> {
    value.filter(|value| !value.is_empty()).map(|value| ("prevValue", value.to_owned()))
}

/// An answer of the keys API: a response, or its error.
pub(super) fn response(answer: &Answer) -> Result<Response, Error> {
    if !matches!(answer.status.as_u16(), 200 | 201) {
        let error: ApiError = serde_json::from_slice(&answer.body).map_err(|error| answer.invalid(&error))?;
        return Err(Error::Api(error));
    }
    let mut response: Response =
        serde_json::from_slice(&answer.body).map_err(|error| answer.invalid(&error))?;
    response.etcd_index = answer.number("x-etcd-index");
    response.raft_index = answer.number("x-raft-index");
    response.raft_term = answer.number("x-raft-term");
    answer.text("x-etcd-cluster-id").clone_into(&mut response.cluster_id);
    Ok(response)
}
