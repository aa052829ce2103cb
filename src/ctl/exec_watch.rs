//! `exec-watch`: runs a command for each change of a key, with the change in its environment.
//!
//! Commands may overlap, as they do with etcd's tool, but not without bound. When the watch ends, those that still run
//! are killed and waited for.

use super::app::{Action, Context, Spec};
use super::failure::{BAD_ARGS, Failure, note};
use super::flags::{Flag, Parsed};
use super::watch::{AFTER_INDEX, options};
use crate::client::{Response, Watcher};
use std::io;
use std::process::Stdio;
use tokio::process::{Child, Command};
use tokio::sync::watch as broadcast;
use tokio::task::JoinSet;

/// With so many commands running, the next change waits for one to end.
const MAX_RUNNING: usize = 64;

pub(super) const SPEC: Spec = Spec::new(
    "exec-watch",
    "watch a key for changes and exec an executable",
    "<key> -- <command> [args...]",
    Action::ExecWatch,
)
.flags(&[AFTER_INDEX, Flag::bool(&["recursive", "r"], "watch all values for key and child keys")]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let (key, command) =
        split(&context.command).ok_or_else(|| Failure::text(BAD_ARGS, "key and command to exec required"))?;
    let watcher = context.client().await?.watcher(key, &options(context));
    let mut running = JoinSet::new();
    let (stop, stopped) = broadcast::channel(());
    let outcome = tokio::select! {
        outcome = follow(watcher, command, &mut running, &stopped) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    drop(stop);
    while running.join_next().await.is_some() {}
    outcome
}

/// The key and the command. `KEY -- COMMAND...` is what the help of every version has said; without that separator
/// etcd's tool takes the last argument for the key.
fn split(parsed: &Parsed) -> Option<(&str, &[String])> {
    let (key, command) = match parsed.before_separator {
        Some(1) => parsed.args.split_first()?,
        _ => parsed.args.split_last()?,
    };
    (!command.is_empty()).then_some((key.as_str(), command))
}

async fn follow(
    mut watcher: Watcher,
    command: &[String],
    running: &mut JoinSet<()>,
    stopped: &broadcast::Receiver<()>,
) -> Result<(), Failure> {
    loop {
        let event = loop {
            tokio::select! {
                event = watcher.next() => break event?,
                Some(_) = running.join_next() => {}
            }
        };
        if event.node.dir {
            note(format_args!("Ignored dir {} change", event.node.key));
            continue;
        }
        while running.len() >= MAX_RUNNING {
            running.join_next().await;
        }
        running.spawn(attend(spawn(command, &event)?, stopped.clone()));
    }
}

/// Waits for the command to end, or ends it when the watch ends. How it ended is its own affair.
async fn attend(mut child: Child, mut stopped: broadcast::Receiver<()>) {
    tokio::select! {
        _ = child.wait() => {}
        _ = stopped.changed() => {
            let _ = child.kill().await;
        }
    }
}

fn spawn(command: &[String], event: &Response) -> Result<Child, Failure> {
    let (program, args) =
        command.split_first().ok_or_else(|| Failure::text(BAD_ARGS, "key and command to exec required"))?;
    Command::new(program)
        .args(args)
        .env("ETCD_WATCH_ACTION", &event.action)
        .env("ETCD_WATCH_MODIFIED_INDEX", event.node.modified_index.to_string())
        .env("ETCD_WATCH_KEY", &event.node.key)
        .env("ETCD_WATCH_VALUE", event.node.value.as_deref().unwrap_or(""))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            let not_found = error.kind() == io::ErrorKind::NotFound;
            let stderr = match (not_found, program.contains('/')) {
                (true, true) => format!("fork/exec {program}: no such file or directory"),
                (true, false) => format!("exec: {program:?}: executable file not found in $PATH"),
                (false, _) => format!("fork/exec {program}: {error}"),
            };
            Failure { code: BAD_ARGS, stderr }
        })
}

#[cfg(test)]
mod tests {
    use super::super::flags::parse_command;
    use super::*;

    #[test]
    fn the_key_stands_before_the_separator_or_last() {
        for (line, expected) in [
            ("/k -- cmd a b", Some(("/k", vec!["cmd", "a", "b"]))),
            ("--recursive /k -- cmd -x", Some(("/k", vec!["cmd", "-x"]))),
            ("/k --recursive -- cmd", Some(("/k", vec!["cmd"]))),
            ("/k --after-index 5 -- cmd --recursive", Some(("/k", vec!["cmd", "--recursive"]))),
            ("-- cmd a /k", Some(("/k", vec!["cmd", "a"]))),
            ("cmd a /k", Some(("/k", vec!["cmd", "a"]))),
            ("cmd -c x /k", Some(("/k", vec!["cmd", "-c", "x"]))),
            ("/k", None),
            ("/k --", None),
            ("", None),
        ] {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let parsed = parse_command(SPEC.flags, &args).unwrap();
            let got = split(&parsed);
            let got = got.map(|(key, command)| (key, command.iter().map(String::as_str).collect::<Vec<_>>()));
            assert_eq!(got, expected, "{line}");
        }
    }
}
