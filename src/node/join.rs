//! Joining a cluster that runs: who is in it, and who this member is there.
//!
//! The cluster is asked on its members' peer ports (`GET /members`), and a standby asks to be added on a client port
//! (`POST /v2/members`). Nothing is durable here: a member that is killed asks again.

use super::StartError;
use crate::discovery::parse_members;
use crate::replica::MemberInfo;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long to go on asking when nobody answers: members may be on their way up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to go on asking when nobody knows this member: those that answer may lag a little.
const PATIENCE_UNKNOWN: Duration = Duration::from_secs(5);

/// How long one member may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Names the cluster in a peer port's answers.
pub(super) const CLUSTER_ID_HEADER: &str = "x-etcd-cluster-id";

/// The place of this member in a running cluster.
pub(super) struct Joined {
    pub cluster_id: u64,
    pub member_id: u64,
    pub members: BTreeMap<u64, MemberInfo>,
}

/// A member as the peer port lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Vec<String>,
    #[serde(rename = "clientURLs", default)]
    client_urls: Vec<String>,
}

struct Cluster {
    id: u64,
    members: Vec<Listed>,
}

/// Finds this member among those of the running cluster that these peers are of; it was added before it was started.
///
/// # Errors
/// Nobody answers for half a minute, or nobody knows this member, or it has been there before.
pub(super) async fn added(name: &str, own_urls: &[String], peers: &[String]) -> Result<Joined, StartError> {
    let mut others = peers.iter().filter(|url| !own_urls.contains(url)).peekable();
    if others.peek().is_none() {
        return Err(StartError::NoAnswer("-initial-cluster names no other member".into()));
    }
    let others: Vec<&str> = others.map(String::as_str).collect();
    let client = http_client()?;
    let begun = Instant::now();
    let mut answered = false;
    loop {
        let mut failures = Vec::new();
        for url in &others {
            match list(&client, url).await {
                Ok(cluster) => {
                    answered = true;
                    if let Some(joined) = find(cluster, own_urls)? {
                        return Ok(joined);
                    }
                }
                Err(failure) => failures.push(failure),
            }
        }
        if begun.elapsed() >= if answered { PATIENCE_UNKNOWN } else { PATIENCE } {
            return Err(if answered {
                StartError::NotAdded { name: name.to_owned(), urls: own_urls.join(",") }
            } else {
                StartError::NoAnswer(failures.join("; "))
            });
        }
        sleep(PAUSE).await;
    }
}

/// Has this member added as a standby to the running cluster whose founders (`name=url` each) are given, if it is not
/// there already, and finds it there.
///
/// # Errors
/// Nobody answers for half a minute, the cluster refuses, or this member has been there before.
pub(super) async fn standby(
    name: &str,
    own_urls: &[String],
    holders: &[String],
) -> Result<Joined, StartError> {
    let founders = holders.iter().filter_map(|holder| parse_members(holder).ok()).flatten();
    let peers: Vec<String> = founders.flat_map(|(_, urls)| urls).collect();
    let client = http_client()?;
    let until = Instant::now() + PATIENCE;
    tracing::info!("the cluster is full: joining it as a standby, which follows and has no vote");
    loop {
        let mut failure = "the discovery service names no usable peer URL".to_owned();
        for url in &peers {
            match ask_in(&client, url, own_urls).await {
                Ok(()) => {
                    crash_point!("stand-by.asked");
                    return added(name, own_urls, &peers).await;
                }
                Err(reason) => failure = reason,
            }
        }
        if Instant::now() >= until {
            return Err(StartError::NoAnswer(failure));
        }
        sleep(PAUSE).await;
    }
}

/// Asks to be added, by way of a member that knows where clients are served.
async fn ask_in(client: &reqwest::Client, peer: &str, own_urls: &[String]) -> Result<(), String> {
    let cluster = list(client, peer).await?;
    if cluster.members.iter().any(|member| same_urls(&member.peer_urls, own_urls)) {
        return Ok(());
    }
    let body = serde_json::json!({ "peerURLs": own_urls, "standby": true }).to_string();
    let mut failure = "no member has made its client URLs known yet".to_owned();
    for url in cluster.members.iter().flat_map(|member| &member.client_urls) {
        let request = client.post(format!("{}/v2/members", url.trim_end_matches('/')));
        let request = request.header("content-type", "application/json").body(body.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() || answer.status() == 409 => return Ok(()),
            Ok(answer) => failure = format!("{url} refuses it: {}", answer.status()),
            Err(error) => failure = format!("{url}: {error}"),
        }
    }
    Err(failure)
}

/// Without TLS, which peers do not speak; but the library wants a provider of it all the same.
fn http_client() -> Result<reqwest::Client, StartError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().tls_certs_only([]).build();
    client.map_err(|error| StartError::NoAnswer(error.to_string()))
}

async fn list(client: &reqwest::Client, peer: &str) -> Result<Cluster, String> {
    let failed = |error: reqwest::Error| format!("{peer}: {error}");
    let url = format!("{}/members", peer.trim_end_matches('/'));
    let mut answer =
        client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let id = answer.headers().get(CLUSTER_ID_HEADER).and_then(|value| value.to_str().ok());
    let id = id.and_then(|text| u64::from_str_radix(text, 16).ok());
    let id = id.ok_or_else(|| format!("{peer} does not say which cluster it is of: is it a Quorate?"))?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("{peer} answers more than {ANSWER_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    let members = serde_json::from_slice(&body).map_err(|error| format!("{peer}: {error}"))?;
    Ok(Cluster { id, members })
}

fn same_urls(theirs: &[String], own: &[String]) -> bool {
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort_unstable();
        urls
    };
    sorted(theirs) == sorted(own)
}

/// This member among those of the cluster; `None` if it is not there (yet).
fn find(cluster: Cluster, own_urls: &[String]) -> Result<Option<Joined>, StartError> {
    let Some(own) = cluster.members.iter().find(|member| same_urls(&member.peer_urls, own_urls)) else {
        return Ok(None);
    };
    if !own.name.is_empty() {
        let by = cluster.members.iter().find(|member| member.id != own.id).map_or(own.id, |other| other.id);
        return Err(StartError::Wiped { id: own.id, by });
    }
    let member_id = own.id;
    let info = |member: Listed| {
        let Listed { id, name, peer_urls, client_urls } = member;
        (id, MemberInfo { name, peer_urls, client_urls, ..MemberInfo::default() })
    };
    let members = cluster.members.into_iter().map(info).collect();
    Ok(Some(Joined { cluster_id: cluster.id, member_id, members }))
}
