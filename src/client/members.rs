//! The requests about the cluster itself.

use super::error::{EndpointError, Error};
use super::transport::{Answer, Request};
use super::types::{Member, Version};
use super::{Client, escape, parse_endpoint};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

const JSON: &str = "application/json";

impl Client {
    /// The members, as the cluster lists them.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            members: Vec<Member>,
        }
        let answer = self.transport.execute(&Request::get("/v2/members")).await?;
        Ok(decode::<List>(&answer)?.members)
    }

    /// The member that leads.
    pub async fn leader(&self) -> Result<Member, Error> {
        decode(&self.transport.execute(&Request::get("/v2/members/leader")).await?)
    }

    /// Adds a member that is reached at these peer URLs; it has still to be started.
    pub async fn member_add(&self, peer_urls: &[String]) -> Result<Member, Error> {
        let request = Request { once: true, ..with_urls(Method::POST, "/v2/members".to_owned(), peer_urls) };
        decode(&self.transport.execute(&request).await?)
    }

    /// Removes the member with this id (hexadecimal).
    pub async fn member_remove(&self, id: &str) -> Result<(), Error> {
        let path = format!("/v2/members{}", escape::key_path(id));
        let request = Request { method: Method::DELETE, once: true, ..Request::get(path) };
        accepted(&self.transport.execute(&request).await?)
    }

    /// Changes the peer URLs of the member with this id (hexadecimal).
    pub async fn member_update(&self, id: &str, peer_urls: &[String]) -> Result<(), Error> {
        let path = format!("/v2/members{}", escape::key_path(id));
        accepted(&self.transport.execute(&with_urls(Method::PUT, path, peer_urls)).await?)
    }

    /// Has a standby with this id (hexadecimal) get a vote as soon as it has caught up. An extension: etcd has none.
    pub async fn member_promote(&self, id: &str) -> Result<(), Error> {
        let path = format!("/v2/members{}/promote", escape::key_path(id));
        let request = Request { method: Method::POST, once: true, ..Request::get(path) };
        accepted(&self.transport.execute(&request).await?)
    }

    /// The client URLs of all members, as the older `/v2/machines` lists them.
    pub async fn machines(&self) -> Result<Vec<String>, Error> {
        let answer = self.transport.execute(&Request::get("/v2/machines")).await?;
        if !answer.status.is_success() {
            return Err(refused(&answer));
        }
        let text = std::str::from_utf8(&answer.body).map_err(|error| answer.invalid(&error))?;
        Ok(text.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect())
    }

    /// What the server that is asked first says of its version.
    pub async fn version(&self) -> Result<Version, Error> {
        let answer = self.transport.execute(&Request::get("/version")).await?;
        if !answer.status.is_success() {
            return Err(refused(&answer));
        }
        let text = std::str::from_utf8(&answer.body).map_err(|error| answer.invalid(&error))?;
        // 0.4 and 2.0 answer `etcd 0.4.6`, without JSON.
        match text.trim().strip_prefix("etcd ") {
            Some(server) => Ok(Version { server: server.to_owned(), cluster: String::new() }),
            None => serde_json::from_str(text).map_err(|error| answer.invalid(&error)),
        }
    }

    /// Whether the member at this endpoint, and no other, says that it is healthy.
    ///
    /// # Errors
    /// [`Error::Cluster`] with one entry if it cannot be reached, [`Error::InvalidAnswer`] if it answers something else.
    pub async fn health(&self, endpoint: &str) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Health {
            health: Flag,
        }
        // Old servers write the text "true", some the boolean.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Flag {
            Text(String),
            Truth(bool),
        }
        let endpoint = parse_endpoint(endpoint)?;
        let alone = |failure: EndpointError| Error::Cluster(vec![failure]);
        let answer = self.transport.probe(&endpoint, &Request::get("/health")).await?.map_err(alone)?;
        let health: Health = serde_json::from_slice(&answer.body).map_err(|error| answer.invalid(&error))?;
        Ok(match health.health {
            Flag::Text(text) => text == "true",
            Flag::Truth(truth) => truth,
        })
    }

    /// Asks the cluster for its members and uses the client URLs that they publish from now on.
    ///
    /// # Errors
    /// As [`Client::members`], and [`Error::NoEndpoints`] if no member publishes any; then the endpoints stay as they
    /// are.
    pub async fn sync(&self) -> Result<(), Error> {
        let urls: Vec<String> = self.members().await?.into_iter().flat_map(|m| m.client_urls).collect();
        if urls.is_empty() {
            return Err(Error::NoEndpoints);
        }
        let fresh = urls.iter().map(|url| parse_endpoint(url)).collect::<Result<Vec<_>, _>>()?;
        self.transport.set_endpoints(fresh.into());
        Ok(())
    }
}

fn with_urls(method: Method, path: String, peer_urls: &[String]) -> Request {
    let body = serde_json::json!({ "peerURLs": peer_urls }).to_string();
    Request { method, body: Some((JSON, body)), ..Request::get(path) }
}

fn decode<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    accepted(answer)?;
    serde_json::from_slice(&answer.body).map_err(|error| answer.invalid(&error))
}

fn accepted(answer: &Answer) -> Result<(), Error> {
    if answer.status.is_success() { Ok(()) } else { Err(refused(answer)) }
}

/// These endpoints explain themselves as `{"message": "..."}`; what answers otherwise does not know them.
fn refused(answer: &Answer) -> Error {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let status = answer.status.as_u16();
    let message = serde_json::from_slice::<Message>(&answer.body)
        .map_or_else(|_| format!("unexpected status code {status}"), |said| said.message);
    Error::Refused { status, message }
}
