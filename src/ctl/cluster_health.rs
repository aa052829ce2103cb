//! `cluster-health`: asks every member, on its own published URLs, whether it is healthy.

use super::app::{Action, Context, Spec};
use super::failure::{Failure, NOT_HEALTHY, SERVER_ERROR};
use super::flags::Flag;
use crate::client::{Client, Error, Member};
use std::io::{self, Write as _};
use std::time::Duration;

/// The pause of `--forever`.
const PAUSE: Duration = Duration::from_secs(10);

pub(super) const SPEC: Spec =
    Spec::new("cluster-health", "check the health of the etcd cluster", "", Action::ClusterHealth)
        .flags(&[Flag::bool(&["forever", "f"], "forever check the health every 10 second until CTRL+C")]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let client = context.unsynced_client()?;
    let members = match client.members().await {
        Ok(members) => members,
        Err(error) => {
            writeln!(io::stdout(), "cluster may be unhealthy: failed to list members")?;
            return Err(Failure::error(SERVER_ERROR, &error));
        }
    };
    if !context.command.bool("forever") {
        let healthy = check(&client, &members).await?;
        return if healthy { Ok(()) } else { Err(Failure::silent(NOT_HEALTHY)) };
    }
    tokio::select! {
        outcome = check_forever(&client, &members) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn check_forever(client: &Client, members: &[Member]) -> Result<(), Failure> {
    loop {
        check(client, members).await?;
        writeln!(io::stdout(), "\nnext check after 10 second...\n")?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Checks and prints; whether all are healthy.
async fn check(client: &Client, members: &[Member]) -> Result<bool, Failure> {
    let mut healthy = 0;
    for member in members {
        if is_healthy(client, member).await? {
            healthy += 1;
        }
    }
    let state = match healthy {
        all if all == members.len() => "healthy",
        0 => "unavailable",
        _ => "degraded",
    };
    writeln!(io::stdout(), "cluster is {state}")?;
    Ok(healthy == members.len())
}

/// The first of the member's URLs that answers decides.
async fn is_healthy(client: &Client, member: &Member) -> io::Result<bool> {
    let mut out = io::stdout();
    let Member { id, client_urls, .. } = member;
    if client_urls.is_empty() {
        writeln!(out, "member {id} is unreachable: no available published client urls")?;
        return Ok(false);
    }
    for url in client_urls {
        match client.health(url).await {
            Ok(true) => {
                writeln!(out, "member {id} is healthy: got healthy result from {url}")?;
                return Ok(true);
            }
            Ok(false) => {
                writeln!(out, "member {id} is unhealthy: got unhealthy result from {url}")?;
                return Ok(false);
            }
            Err(error) => {
                let reason = reason(url, &error);
                writeln!(out, "failed to check the health of member {id} on {url}: {reason}")?;
            }
        }
    }
    writeln!(out, "member {id} is unreachable: [{}] are all unreachable", client_urls.join(" "))?;
    Ok(false)
}

fn reason(url: &str, error: &Error) -> String {
    match error {
        Error::Cluster(failures) => match failures.as_slice() {
            [failure] => format!("Get \"{url}/health\": {failure}"),
            _ => error.to_string(),
        },
        Error::InvalidAnswer { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}
