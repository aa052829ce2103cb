//! The parameters of `/v2/keys`: query and form in, request or error out. Pure.
//!
//! Every known parameter is checked on every method, in a fixed order, and unknown ones are ignored, as clients are
//! used to; those of the extensions (`extensions`) are checked only where they mean something. Two things are deliberately not as in etcd:
//! - reads are linearizable unless they say `quorum=false`;
//! - a `ttl` beyond [`MAX_TTL_SECONDS`] is cut to it, where etcd's arithmetic wraps and makes the key permanent.

use super::extensions::{self, PageRequest};
use super::form::{self, FormError};
use super::view::{Consistency, WatchRequest};
use crate::store::{Command, Compare, ErrorCode, Key, StoreError};
use bytes::Bytes;
use std::borrow::Cow;
use std::time::Duration;

/// The longest time to live, in seconds: some 7,900 years, so that `expiration` keeps a year of four digits.
pub(crate) const MAX_TTL_SECONDS: u64 = 250_000_000_000;

/// What a client asks of a key.
#[derive(Clone, Debug)]
pub(crate) enum KeysRequest {
    /// Show it.
    Read(ReadRequest),
    /// Wait until it changes.
    Wait(WaitRequest),
    /// Change it.
    Write {
        /// How.
        command: Command,
        /// Leave the nodes out of the answer.
        no_value_on_success: bool,
    },
}

/// What is to be shown.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    /// The key or directory.
    pub(crate) key: Key,
    /// With everything below it.
    pub(crate) recursive: bool,
    /// From which state.
    pub(crate) consistency: Consistency,
    /// Without values.
    pub(crate) keys_only: bool,
    /// A piece of a directory.
    pub(crate) page: Option<PageRequest>,
}

/// What is waited for.
#[derive(Clone, Debug)]
pub(crate) struct WaitRequest {
    /// For which changes.
    pub(crate) watch: WatchRequest,
    /// For how long.
    pub(crate) timeout: Option<Duration>,
}

/// The methods of `/v2/keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the methods of HTTP
pub(crate) enum KeysMethod {
    Get,
    Head,
    Put,
    Post,
    Delete,
}

/// Reads a request. `form` is the body of a `PUT` or `POST`, empty if it was not a form; where a name stands in both,
/// the form wins.
pub(crate) fn parse(
    method: KeysMethod,
    key: Key,
    query: &str,
    form: &Bytes,
) -> Result<KeysRequest, StoreError> {
    let fields = Fields::read(query.as_bytes(), form).map_err(|error| invalid_form(&error))?;
    let options = Options::check(method, &fields)?;
    Ok(match method {
        KeysMethod::Get if options.wait && options.quorum != Some(true) => {
            let timeout = extensions::wait_timeout(&fields)?;
            let Options { recursive, stream, wait_index: since, .. } = options;
            KeysRequest::Wait(WaitRequest { watch: WatchRequest { key, recursive, stream, since }, timeout })
        }
        KeysMethod::Get | KeysMethod::Head => {
            let consistency = match options.quorum {
                Some(false) => Consistency::Local,
                Some(true) | None => Consistency::Linearizable,
            };
            let keys_only = flag("\"keysOnly\"", fields.keys_only.as_deref())?.unwrap_or(false);
            let page = extensions::page(&key, &fields)?;
            KeysRequest::Read(ReadRequest { key, recursive: options.recursive, consistency, keys_only, page })
        }
        KeysMethod::Put | KeysMethod::Post | KeysMethod::Delete => KeysRequest::Write {
            no_value_on_success: options.no_value_on_success && method != KeysMethod::Delete,
            command: command(method, key, &options, fields, form),
        },
    })
}

/// The error for a form that cannot be read.
pub(crate) fn invalid_form(error: &FormError) -> StoreError {
    refuse(ErrorCode::InvalidForm, error.to_string())
}

fn command(method: KeysMethod, key: Key, options: &Options, fields: Fields<'_>, form: &Bytes) -> Command {
    let Options { dir, ttl, refresh, prev_index, .. } = *options;
    let value = detached(fields.value, form);
    let compare = Compare { prev_value: detached(fields.prev_value, form), prev_index };
    let conditional = compare.prev_index > 0 || !compare.prev_value.is_empty();
    match (method, options.prev_exist) {
        (KeysMethod::Post, _) => Command::CreateInOrder { key, value, dir, ttl },
        (KeysMethod::Delete, _) if conditional => Command::CompareAndDelete { key, compare },
        (KeysMethod::Delete, _) => Command::Delete { key, dir, recursive: options.recursive },
        (_, Some(false)) => Command::Create { key, value, dir, ttl, refresh },
        (_, _) if conditional => Command::CompareAndSwap { key, compare, value, ttl, refresh },
        (_, Some(true)) => Command::Update { key, value, ttl, refresh },
        (_, None) => Command::Set { key, value, dir, ttl, refresh },
    }
}

/// A value of its own. A large one goes on sharing the memory of the form; a small one is copied, lest a few bytes that
/// are kept for long keep a whole receive buffer with them.
fn detached(text: Option<Cow<'_, [u8]>>, form: &Bytes) -> Bytes {
    const SHARED_MIN: usize = 16 * 1024;
    match text {
        None => Bytes::new(),
        Some(Cow::Owned(owned)) => owned.into(),
        Some(Cow::Borrowed(slice))
            if slice.len() >= SHARED_MIN && form.as_ptr_range().contains(&slice.as_ptr()) =>
        {
            form.slice_ref(slice)
        }
        Some(Cow::Borrowed(slice)) => Bytes::copy_from_slice(slice),
    }
}

/// The first occurrence of each known name.
#[derive(Default)]
pub(super) struct Fields<'a> {
    prev_index: Option<Cow<'a, [u8]>>,
    wait_index: Option<Cow<'a, [u8]>>,
    recursive: Option<Cow<'a, [u8]>>,
    sorted: Option<Cow<'a, [u8]>>,
    wait: Option<Cow<'a, [u8]>>,
    dir: Option<Cow<'a, [u8]>>,
    quorum: Option<Cow<'a, [u8]>>,
    stream: Option<Cow<'a, [u8]>>,
    prev_value: Option<Cow<'a, [u8]>>,
    no_value_on_success: Option<Cow<'a, [u8]>>,
    ttl: Option<Cow<'a, [u8]>>,
    prev_exist: Option<Cow<'a, [u8]>>,
    refresh: Option<Cow<'a, [u8]>>,
    value: Option<Cow<'a, [u8]>>,
    pub(super) wait_timeout: Option<Cow<'a, [u8]>>,
    pub(super) limit: Option<Cow<'a, [u8]>>,
    pub(super) start: Option<Cow<'a, [u8]>>,
    pub(super) at_index: Option<Cow<'a, [u8]>>,
    keys_only: Option<Cow<'a, [u8]>>,
}

impl<'a> Fields<'a> {
    fn read(query: &'a [u8], form: &'a [u8]) -> Result<Self, FormError> {
        let mut fields = Self::default();
        let of_form = form::pairs(form, |name, value| fields.offer(&name, value));
        let of_query = form::pairs(query, |name, value| fields.offer(&name, value));
        of_form.and(of_query).map(|()| fields)
    }

    fn offer(&mut self, name: &[u8], value: Cow<'a, [u8]>) {
        let field = match name {
            b"prevIndex" => &mut self.prev_index,
            b"waitIndex" => &mut self.wait_index,
            b"recursive" => &mut self.recursive,
            b"sorted" => &mut self.sorted,
            b"wait" => &mut self.wait,
            b"dir" => &mut self.dir,
            b"quorum" => &mut self.quorum,
            b"stream" => &mut self.stream,
            b"prevValue" => &mut self.prev_value,
            b"noValueOnSuccess" => &mut self.no_value_on_success,
            b"ttl" => &mut self.ttl,
            b"prevExist" => &mut self.prev_exist,
            b"refresh" => &mut self.refresh,
            b"value" => &mut self.value,
            b"waitTimeout" => &mut self.wait_timeout,
            b"limit" => &mut self.limit,
            b"start" => &mut self.start,
            b"atIndex" => &mut self.at_index,
            b"keysOnly" => &mut self.keys_only,
            _ => return,
        };
        field.get_or_insert(value);
    }
}

/// The parameters that are not text, checked.
struct Options {
    prev_index: u64,
    wait_index: u64,
    recursive: bool,
    wait: bool,
    dir: bool,
    quorum: Option<bool>,
    stream: bool,
    no_value_on_success: bool,
    /// In milliseconds.
    ttl: Option<u64>,
    prev_exist: Option<bool>,
    refresh: bool,
}

impl Options {
    /// Checks all parameters; the order decides which error a client sees.
    fn check(method: KeysMethod, fields: &Fields<'_>) -> Result<Self, StoreError> {
        let prev_index = number(ErrorCode::IndexNaN, "prevIndex", fields.prev_index.as_deref())?.unwrap_or(0);
        let wait_index = number(ErrorCode::IndexNaN, "waitIndex", fields.wait_index.as_deref())?.unwrap_or(0);
        let recursive = flag("\"recursive\"", fields.recursive.as_deref())?.unwrap_or(false);
        flag("\"sorted\"", fields.sorted.as_deref())?; // answers are always sorted
        let wait = flag("\"wait\"", fields.wait.as_deref())?.unwrap_or(false);
        let dir = flag("\"dir\"", fields.dir.as_deref())?.unwrap_or(false);
        let quorum = flag("\"quorum\"", fields.quorum.as_deref())?;
        let stream = flag("\"stream\"", fields.stream.as_deref())?.unwrap_or(false);
        if wait && method != KeysMethod::Get {
            return Err(refuse(ErrorCode::InvalidField, "\"wait\" can only be used with GET requests"));
        }
        if fields.prev_value.as_deref().is_some_and(<[u8]>::is_empty) {
            return Err(refuse(ErrorCode::PrevValueRequired, "\"prevValue\" cannot be empty"));
        }
        let no_value_on_success =
            flag("\"noValueOnSuccess\"", fields.no_value_on_success.as_deref())?.unwrap_or(false);
        let ttl = fields.ttl.as_deref().filter(|ttl| !ttl.is_empty());
        let ttl = number(ErrorCode::TtlNaN, "ttl", ttl)?.map(|seconds| seconds.min(MAX_TTL_SECONDS) * 1000);
        let prev_exist = flag("prevExist", fields.prev_exist.as_deref())?;
        let refresh = flag("refresh", fields.refresh.as_deref())?.unwrap_or(false);
        if refresh {
            if fields.value.as_deref().is_some_and(|value| !value.is_empty()) {
                return Err(refuse(ErrorCode::RefreshValue, "A value was provided on a refresh"));
            }
            if ttl.is_none() {
                return Err(refuse(ErrorCode::RefreshTtlRequired, "No TTL value set"));
            }
        }
        Ok(Self {
            prev_index,
            wait_index,
            recursive,
            wait,
            dir,
            quorum,
            stream,
            no_value_on_success,
            ttl,
            prev_exist,
            refresh,
        })
    }
}

/// An unsigned decimal number without a sign.
pub(super) fn number(code: ErrorCode, name: &str, text: Option<&[u8]>) -> Result<Option<u64>, StoreError> {
    let Some(text) = text else { return Ok(None) };
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(refuse(code, format!("invalid value for \"{name}\""))),
    }
}

/// A truth value as Go's `strconv.ParseBool` knows it.
fn flag(name: &str, text: Option<&[u8]>) -> Result<Option<bool>, StoreError> {
    match text {
        None => Ok(None),
        Some(b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True") => Ok(Some(true)),
        Some(b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False") => Ok(Some(false)),
        Some(_) => Err(refuse(ErrorCode::InvalidField, format!("invalid value for {name}"))),
    }
}

/// An error of the request itself; it never reached the store, so its index is 0.
pub(crate) fn refuse(code: ErrorCode, cause: impl Into<String>) -> StoreError {
    StoreError::new(code, cause.into(), 0)
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
