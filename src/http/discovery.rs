//! The discovery service: `GET /new?size=3` answers a URL under which that many machines find each other.
//!
//! What discovery.etcd.io was, on every member. A token's data are ordinary keys below [`REGISTRY`], and the rest of
//! the protocol is the keys API under the token's URL (see `route`): a member registers with a PUT and waits for the
//! others. Whoever knows a token may use it, so tokens are drawn from the operating system's random numbers.
//!
//! Not as in discovery.etcd.io: a `size` that is no positive number is refused.

use super::App;
use super::answer::{self, Answer};
use super::backend::Backend;
use super::form;
use super::route::REGISTRY;
use crate::store::{Command, Key};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use rand::TryRng;

/// How many machines a cluster has if nobody says.
const DEFAULT_SIZE: u32 = 3;

/// Makes a new token.
pub(crate) async fn new_token<B: Backend>(app: &App<B>, request: Request<Incoming>) -> Answer<B::Watch> {
    let size = match size(request.uri().query().unwrap_or("")) {
        Ok(size) => size,
        Err(text) => return answer::plain_error(StatusCode::BAD_REQUEST, text),
    };
    let Some(base) = base_url(app, &request) else {
        let text = "the request names no host, and this member knows no URL of its own\n";
        return answer::plain_error(StatusCode::BAD_REQUEST, text);
    };
    drop(request);
    match create(app, size).await {
        Ok(token) => answer::text(StatusCode::OK, format!("{base}/{token}")),
        Err(text) => answer::plain_error(StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

/// Stores a new token with its size.
async fn create<B: Backend>(app: &App<B>, size: u32) -> Result<String, String> {
    let mut random = [0; 16];
    rand::rngs::SysRng
        .try_fill_bytes(&mut random)
        .map_err(|error| format!("no random numbers: {error}\n"))?;
    let token = format!("{:032x}", u128::from_be_bytes(random));
    let command = Command::Create {
        key: Key::parse(format!("{REGISTRY}{token}/_config/size").as_bytes()),
        value: Bytes::from(size.to_string()),
        dir: false,
        ttl: None,
        refresh: false,
    };
    match app.backend.write(command).await {
        Ok(_) => Ok(token),
        Err(error) => Err(format!("unable to generate token: {error}\n")),
    }
}

/// The size that a query asks for.
fn size(query: &str) -> Result<u32, String> {
    let mut size = None;
    let read = form::pairs(query.as_bytes(), |name, value| {
        if &name[..] == b"size" {
            size.get_or_insert(value);
        }
    });
    read.map_err(|error| format!("{error}\n"))?;
    let Some(size) = size else { return Ok(DEFAULT_SIZE) };
    let text = String::from_utf8_lossy(&size);
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("size must be a positive number of machines, not {text:?}\n")),
    }
}

/// Where the client reached this member, or else where the member says that clients do.
fn base_url<B: Backend>(app: &App<B>, request: &Request<Incoming>) -> Option<String> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(hyper::http::uri::Authority::as_str));
    let is_host = |host: &&str| {
        let of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]%".contains(&byte);
        !host.is_empty() && host.bytes().all(of_host)
    };
    if let Some(host) = host.filter(is_host) {
        return Some(format!("http://{host}"));
    }
    let summary = app.backend.summary();
    let own = summary.members.get(&app.backend.status().id)?;
    own.client_urls.first().map(|url| url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (query, expected) in [
            ("", Ok(3)),
            ("other=1", Ok(3)),
            ("size=1", Ok(1)),
            ("size=5&size=x", Ok(5)),
            ("size=0", Err("size must be a positive number of machines, not \"0\"\n")),
            ("size=-1", Err("size must be a positive number of machines, not \"-1\"\n")),
            ("size=", Err("size must be a positive number of machines, not \"\"\n")),
            ("size=three", Err("size must be a positive number of machines, not \"three\"\n")),
            ("size=99999999999", Err("size must be a positive number of machines, not \"99999999999\"\n")),
            ("size=%zz", Err("invalid URL escape \"%zz\"\n")),
        ] {
            assert_eq!(size(query), expected.map_err(str::to_owned), "{query}");
        }
    }
}
