//! `member list`, `add`, `remove`, `update`, `promote`. Their errors stand on stderr without the word `Error`.

use super::app::{Action, Context, Spec};
use super::failure::{BAD_ARGS, Failure, note};
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

pub(super) const SPEC: Spec =
    Spec::new("member", "member add, remove and list subcommands", "", Action::Group(SUBCOMMANDS));

const SUBCOMMANDS: &[Spec] = &[
    Spec::new("list", "enumerate existing cluster members", "", Action::MemberList),
    Spec::new("add", "add a new member to the etcd cluster", "<name> <peerURL>", Action::MemberAdd),
    Spec::new(
        "remove",
        "remove an existing member from the etcd cluster",
        "<memberID>",
        Action::MemberRemove,
    ),
    Spec::new(
        "update",
        "update an existing member in the etcd cluster",
        "<memberID> <peerURLs>",
        Action::MemberUpdate,
    ),
    Spec::new(
        "promote",
        "give a member that follows as a standby its vote",
        "<memberID>",
        Action::MemberPromote,
    ),
];

/// How long a standby may take to catch up while somebody waits.
const PROMOTION: Duration = Duration::from_secs(30);

fn bare(error: impl std::fmt::Display) -> Failure {
    Failure::bare(BAD_ARGS, error)
}

pub(super) async fn list(context: &Context<'_>) -> Result<(), Failure> {
    if !context.command.args.is_empty() {
        return Err(bare("No arguments accepted"));
    }
    let client = context.client().await?;
    let members = client.members().await.map_err(bare)?;
    let leader =
        client.leader().await.map_err(|error| bare(format_args!("Failed to get leader:  {error}")))?;
    let mut out = io::stdout();
    for member in members {
        let peer_urls = member.peer_urls.join(",");
        if member.name.is_empty() {
            writeln!(out, "{}[unstarted]: peerURLs={peer_urls}", member.id)?;
        } else {
            writeln!(
                out,
                "{}: name={} peerURLs={peer_urls} clientURLs={} isLeader={}{}",
                member.id,
                member.name,
                member.client_urls.join(","),
                member.id == leader.id,
                if member.is_learner { " isLearner=true" } else { "" }
            )?;
        }
    }
    Ok(())
}

pub(super) async fn add(context: &Context<'_>) -> Result<(), Failure> {
    let [name, url] = context.command.args.as_slice() else {
        return Err(bare("Provide a name and a single member peerURL"));
    };
    let client = context.client().await?;
    let added = client.member_add(std::slice::from_ref(url)).await.map_err(bare)?;
    let mut out = io::stdout();
    writeln!(out, "Added member named {name} with ID {} to cluster", added.id)?;
    let members = client.members().await.map_err(bare)?;
    let cluster: Vec<String> = members
        .iter()
        .flat_map(|member| {
            let name = if member.id == added.id { name } else { &member.name };
            member.peer_urls.iter().map(move |url| format!("{name}={url}"))
        })
        .collect();
    writeln!(out, "\nETCD_NAME={name:?}")?;
    writeln!(out, "ETCD_INITIAL_CLUSTER={:?}", cluster.join(","))?;
    writeln!(out, "ETCD_INITIAL_CLUSTER_STATE=\"existing\"")?;
    Ok(())
}

pub(super) async fn remove(context: &Context<'_>) -> Result<(), Failure> {
    let [id] = context.command.args.as_slice() else {
        return Err(bare("Provide a single member ID"));
    };
    let client = context.client().await?;
    let members = client
        .members()
        .await
        .map_err(|error| bare(format_args!("Error while verifying ID against known members: {error}")))?;
    if let Some(named) = members.iter().find(|member| member.name == *id) {
        note(format_args!(
            "Found a member named {}; if this is correct, please use its ID, eg:\n\tetcdctl member remove {}\n\
             For more details, read the documentation at https://github.com/etcd-io/etcd/blob/master/\
             Documentation/runtime-configuration.md#remove-a-member\n",
            named.name, named.id
        ));
    }
    if members.iter().all(|member| member.id != *id) {
        return Err(bare(format_args!("Couldn't find a member in the cluster with an ID of {id}.")));
    }
    client.member_remove(id).await.map_err(|error| Failure {
        code: BAD_ARGS,
        stderr: format!("Received an error trying to remove member {id}: {error}"),
    })?;
    Ok(writeln!(io::stdout(), "Removed member {id} from cluster")?)
}

pub(super) async fn update(context: &Context<'_>) -> Result<(), Failure> {
    let [id, urls] = context.command.args.as_slice() else {
        let usage = "Provide an ID and a list of comma separated peerURL \
                     (0xabcd http://example.com,http://example1.com)";
        return Err(bare(usage));
    };
    let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
    context.client().await?.member_update(id, &urls).await.map_err(bare)?;
    Ok(writeln!(io::stdout(), "Updated member with ID {id} in cluster")?)
}

/// Waits until the member votes: an operator goes on to the next machine when this returns.
pub(super) async fn promote(context: &Context<'_>) -> Result<(), Failure> {
    let [id] = context.command.args.as_slice() else {
        return Err(bare("Provide a single member ID"));
    };
    let client = context.client().await?;
    client.member_promote(id).await.map_err(bare)?;
    let until = Instant::now() + PROMOTION;
    while client.members().await.map_err(bare)?.iter().any(|member| member.id == *id && member.is_learner) {
        if Instant::now() >= until {
            return Err(bare(format_args!(
                "Member {id} is to be promoted, but has not caught up yet: it votes when it has"
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(writeln!(io::stdout(), "Promoted member {id}")?)
}
