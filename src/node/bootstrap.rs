//! How a member comes to its cluster: from its data directory if it has been in one, else by founding one.
//!
//! Founding is resumable: nothing is durable but the notes until the first checkpoint and the log's base are, and the
//! identity is written last. A member that is killed anywhere before that begins again and comes to the same result,
//! since ids are made from URLs and tokens, and a discovery service knows its own.

use super::config::{Bootstrap, ClusterState, Config, InitialMember};
use super::quarantine::refuse_diverged;
use super::{StartError, force, ids, join};
use crate::discovery::{self, DiscoveryError, DiscoveryRequest};
use crate::replica::{LogPosition, MemberInfo, Recovered, State};
use crate::storage::{DataDir, Identity, Storage};
use crate::store::{ClusterTime, HistoryLimits};
use raft::eraftpb::HardState;
use std::collections::BTreeMap;

/// The format of everything in the data directory.
const FORMAT: u32 = 1;

/// Names, in a note, what the cluster was founded from: a start that names something else is a mistake.
const ORIGIN_NOTE: &str = "origin";

/// A member that is ready to run.
pub(super) struct Member {
    pub identity: Identity,
    pub storage: Storage,
    pub recovered: Recovered,
}

/// Opens what is there, or founds what is not.
pub(super) async fn open(
    config: &Config,
    bootstrap: &Bootstrap,
    dir: &DataDir,
) -> Result<Member, StartError> {
    let limits = limits(config);
    match dir.identity()? {
        Some(identity) => {
            refuse_other_member(config, bootstrap, dir, &identity)?;
            refuse_diverged(config, dir)?;
            let member = resume(dir, identity, limits)?;
            refuse_other_cluster(config, bootstrap, &member)?;
            if config.force_new_cluster { force::alone(member) } else { Ok(member) }
        }
        None => found(config, bootstrap, dir, limits).await,
    }
}

pub(super) fn limits(config: &Config) -> HistoryLimits {
    HistoryLimits { events: config.history_events, bytes: config.history_bytes }
}

/// A start with the data directory of another member or cluster changes nothing and says so.
fn refuse_other_member(
    config: &Config,
    bootstrap: &Bootstrap,
    dir: &DataDir,
    identity: &Identity,
) -> Result<(), StartError> {
    let path = config.data_dir().display().to_string();
    if identity.name != config.name {
        return Err(StartError::OtherMember {
            path,
            found: identity.name.clone(),
            name: config.name.clone(),
        });
    }
    // A member that is started with nothing but its name and data directory goes on with whatever it is.
    if matches!(bootstrap, Bootstrap::Single { .. }) {
        return Ok(());
    }
    let found = dir.note(ORIGIN_NOTE)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let asked = origin(bootstrap);
    if let Some(found) = found.filter(|found| *found != asked) {
        return Err(StartError::OtherCluster { path, found, asked });
    }
    Ok(())
}

/// Clusters that kept the default token are told apart by their addresses.
fn refuse_other_cluster(config: &Config, bootstrap: &Bootstrap, member: &Member) -> Result<(), StartError> {
    let Bootstrap::Static { members: asked, token, state: ClusterState::New } = bootstrap else {
        return Ok(());
    };
    if found_cluster_id(asked, token) == member.identity.cluster_id {
        return Ok(());
    }
    let members = &member.recovered.state.members;
    let known = |url: &String| {
        member.identity.peer_urls.contains(url) || members.values().any(|info| info.peer_urls.contains(url))
    };
    if asked.iter().any(|one| plain(one).1.iter().any(known)) {
        // Not an error: members come and go, and units are brought up to date.
        tracing::warn!(
            "-initial-cluster names other members than those that this member's cluster was founded with; it is ignored"
        );
        return Ok(());
    }
    Err(StartError::OtherCluster {
        path: config.data_dir().display().to_string(),
        found: initial_cluster(members.values().map(|info| (info.name.clone(), info.peer_urls.clone()))),
        asked: initial_cluster(asked.iter().map(plain)),
    })
}

/// Members as the flag has them.
fn initial_cluster(members: impl Iterator<Item = (String, Vec<String>)>) -> String {
    let pairs = members.flat_map(|(name, urls)| urls.into_iter().map(move |url| format!("{name}={url}")));
    format!("-initial-cluster {}", pairs.collect::<Vec<_>>().join(","))
}

fn found_cluster_id(members: &[InitialMember], token: &str) -> u64 {
    let ids: Vec<u64> = members.iter().map(|m| ids::member_id(&plain(m).1, token)).collect();
    ids::cluster_id(&ids)
}

/// What a cluster is founded from.
fn origin(bootstrap: &Bootstrap) -> String {
    match bootstrap {
        Bootstrap::Single { .. } => "a single member".into(),
        Bootstrap::Static { token, .. } => format!("-initial-cluster-token {token}"),
        Bootstrap::Discovery { url } => format!("-discovery {url}"),
    }
}

fn resume(dir: &DataDir, identity: Identity, limits: HistoryLimits) -> Result<Member, StartError> {
    let mut storage = dir.open_storage()?;
    let found = std::mem::take(&mut storage.recovered);
    for path in &found.damaged {
        tracing::error!(path = %path.display(), "a checkpoint was damaged and is moved aside; going on from another");
    }
    let Some((at, records)) = found.checkpoint else {
        return Err(StartError::Damaged("there is an identity but no checkpoint".into()));
    };
    let state = State::from_records(&records, limits).map_err(|what| {
        StartError::Damaged(format!("the checkpoint at {} cannot be used: {what}", at.index))
    })?;
    let recovered = Recovered {
        state,
        base: found.base,
        entries: found.entries,
        hard_state: found.hard_state,
        clock: dir.load_clock().map(|(term, ms)| (term, ClusterTime(ms))),
    };
    Ok(Member { identity, storage, recovered })
}

async fn found(
    config: &Config,
    bootstrap: &Bootstrap,
    dir: &DataDir,
    limits: HistoryLimits,
) -> Result<Member, StartError> {
    let own_urls: Vec<String> = config.initial_advertise_peer_urls.iter().map(ToString::to_string).collect();
    let (members, token) = match bootstrap {
        Bootstrap::Single { member, token } => (vec![plain(member)], token.clone()),
        Bootstrap::Static { members, state: ClusterState::Existing, .. } => {
            let others: Vec<String> = members.iter().flat_map(|m| plain(m).1).collect();
            let joined = join::added(&config.name, &own_urls, &others).await?;
            crash_point!("join.found");
            return begin_joining(config, bootstrap, dir, limits, joined);
        }
        Bootstrap::Static { members, token, .. } => (members.iter().map(plain).collect(), token.clone()),
        Bootstrap::Discovery { url } => {
            let request = DiscoveryRequest {
                url: url.clone(),
                name: config.name.clone(),
                peer_urls: own_urls.clone(),
                member_id: ids::member_id(&own_urls, url),
            };
            tracing::info!(url, "looking for the other members");
            match discovery::join(&request).await {
                Ok(found) => (found.members, url.clone()),
                Err(DiscoveryError::Full { holders, .. }) if config.standby => {
                    let joined = join::standby(&config.name, &own_urls, &holders).await?;
                    return begin_joining(config, bootstrap, dir, limits, joined);
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    let mut founders = BTreeMap::new();
    for (name, peer_urls) in members {
        let id = ids::member_id(&peer_urls, &token);
        founders.insert(id, MemberInfo { name, peer_urls, ..MemberInfo::default() });
    }
    let cluster_id = ids::cluster_id(&founders.keys().copied().collect::<Vec<_>>());
    let identity = Identity {
        format: FORMAT,
        cluster_id,
        member_id: ids::member_id(&own_urls, &token),
        name: config.name.clone(),
        peer_urls: own_urls,
        incarnation: new_incarnation(),
    };
    dir.save_note(ORIGIN_NOTE, origin(bootstrap).as_bytes())?;
    let state = State::founding(cluster_id, founders, limits);
    begin(dir, identity, state, founding_hard_state())
}

/// A member that was added to a running cluster begins with nothing: the leader sends it the state.
fn begin_joining(
    config: &Config,
    bootstrap: &Bootstrap,
    dir: &DataDir,
    limits: HistoryLimits,
    joined: join::Joined,
) -> Result<Member, StartError> {
    let join::Joined { cluster_id, member_id, members } = joined;
    let identity = Identity {
        format: FORMAT,
        cluster_id,
        member_id,
        name: config.name.clone(),
        peer_urls: config.initial_advertise_peer_urls.iter().map(ToString::to_string).collect(),
        incarnation: new_incarnation(),
    };
    dir.save_note(ORIGIN_NOTE, origin(bootstrap).as_bytes())?;
    let state = State::joining(cluster_id, members, limits);
    begin(dir, identity, state, HardState::default())
}

/// Never 0, which stands for a directory without one.
fn new_incarnation() -> u64 {
    rand::random_range(1..=u64::MAX)
}

fn plain(member: &InitialMember) -> (String, Vec<String>) {
    (member.name.clone(), member.peer_urls.iter().map(ToString::to_string).collect())
}

fn founding_hard_state() -> HardState {
    let at = LogPosition::FOUNDING;
    HardState { term: at.term, commit: at.index, ..HardState::default() }
}

/// The first state as the first checkpoint, a log that begins after it, and only then the identity.
fn begin(
    dir: &DataDir,
    identity: Identity,
    state: State,
    hard_state: HardState,
) -> Result<Member, StartError> {
    crash_point!("begin.noted");
    let mut storage = dir.open_storage()?;
    storage.recovered = crate::storage::Recovered::default();
    storage.checkpoints.save(state.applied, state.clone().into_records())?;
    crash_point!("begin.checkpointed");
    storage.log.reset(state.applied, &hard_state)?;
    crash_point!("begin.reset");
    dir.create_identity(&identity)?;
    crash_point!("begin.identified");
    let recovered = Recovered { base: state.applied, state, entries: Vec::new(), hard_state, clock: None };
    Ok(Member { identity, storage, recovered })
}
