//! Joining: register, then wait for the others.

use super::registry::{Joining, Standing, registration_value};
use super::service::{Found, Patience, Service};
use super::{DiscoveryError, FoundMember};
use std::time::Duration;
use tokio::time::Instant;

/// Who joins, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryRequest {
    /// The discovery URL, token included.
    pub url: String,
    /// This member's name.
    pub name: String,
    /// Where the other members will reach this one.
    pub peer_urls: Vec<String>,
    /// This member's id: that of its peer URLs and, as the token, the whole discovery URL.
    pub member_id: u64,
}

/// The cluster that a discovery service brought together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCluster {
    /// Its members, this one among them, in the order in which they registered: the same on every member.
    pub members: Vec<FoundMember>,
    /// How many there are.
    pub size: usize,
    /// The cluster's token: the discovery URL.
    pub token: String,
}

/// Registers the member and waits until the cluster is complete, for hours if need be. Dropping the future is safe at
/// any point; another call goes on where it left off.
///
/// # Errors
/// See [`DiscoveryError`]: none of them is worth retrying.
pub async fn join(request: &DiscoveryRequest) -> Result<FoundCluster, DiscoveryError> {
    join_patiently(request, Patience::default()).await
}

/// How often a member that waits for others says so.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Each turn starts from what the service says now and takes one step, so it makes no difference whether this is the
/// first turn or the first after a crash.
pub(super) async fn join_patiently(
    request: &DiscoveryRequest,
    patience: Patience,
) -> Result<FoundCluster, DiscoveryError> {
    let value = registration_value(&request.name, &request.peer_urls);
    let me = Joining { id: request.member_id, name: &request.name, value: &value };
    let mut service = Service::new(&request.url, patience)?;
    let mut said: Option<(usize, Instant)> = None;
    loop {
        let (registry, index) = service.registry().await?;
        let (url, size) = (service.shown().to_owned(), registry.size);
        match registry.standing(me)? {
            Standing::Absent => match service.register(me.id, &value).await? {
                Found::Node(node, _) => {
                    tracing::info!(%url, size, %value, "discovery: registered as {:x}", me.id);
                    crash_point!("discover.registered");
                    service.confirm(me.id, node.created).await;
                }
                // Made since the registry was read: by an earlier attempt whose answer got lost, or by another
                // member with this id. The next turn tells.
                Found::Exists | Found::Missing => {
                    tracing::warn!(%url, "discovery: {:x} is registered already, looking again", me.id);
                    service.pause().await;
                }
            },
            Standing::Waiting { present } => {
                if said.is_none_or(|(count, when)| count != present || when.elapsed() >= SAY_EVERY) {
                    tracing::info!(%url, present, size, "discovery: waiting for {} more", size - present);
                    said = Some((present, Instant::now()));
                }
                service.changed(index).await;
            }
            Standing::Found(members) => {
                tracing::info!(%url, size, "discovery: the cluster is complete");
                crash_point!("discover.found");
                return Ok(FoundCluster { members, size, token: request.url.clone() });
            }
        }
    }
}
