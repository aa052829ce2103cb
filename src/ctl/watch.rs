//! `watch`: prints the next change of a key, or with `--forever` each one until it is interrupted.

use super::app::{Action, Context, Spec};
use super::failure::Failure;
use super::flags::Flag;
use crate::client::{WatchOptions, Watcher};
use std::io::Write as _;

pub(super) const AFTER_INDEX: Flag = Flag::int(&["after-index"], "watch after the given index");

pub(super) const SPEC: Spec = Spec::new("watch", "watch a key for changes", "<key>", Action::Watch).flags(&[
    Flag::bool(&["forever", "f"], "forever watch a key until CTRL+C"),
    AFTER_INDEX,
    Flag::bool(&["recursive", "r"], "returns all values for key and child keys"),
]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let options = options(context);
    let watcher = context.client().await?.watcher(context.key()?, &options);
    tokio::select! {
        outcome = follow(context, watcher, options.recursive) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

pub(super) fn options(context: &Context<'_>) -> WatchOptions {
    WatchOptions {
        after_index: context.command.index("after-index"),
        recursive: context.command.bool("recursive"),
    }
}

async fn follow(context: &Context<'_>, mut watcher: Watcher, recursive: bool) -> Result<(), Failure> {
    loop {
        let event = watcher.next().await?;
        if event.node.dir {
            continue;
        }
        if recursive {
            writeln!(std::io::stdout(), "[{}] {}", event.action, event.node.key)?;
        }
        context.print(&event)?;
        if !context.command.bool("forever") {
            return Ok(());
        }
    }
}
