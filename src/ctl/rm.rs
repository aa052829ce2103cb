//! `rm`: removes a key, or a directory if told so.

use super::app::{Action, Context, Spec};
use super::failure::Failure;
use super::flags::Flag;
use crate::client::DeleteOptions;

pub(super) const SPEC: Spec = Spec::new("rm", "remove a key or a directory", "<key>", Action::Rm).flags(&[
    Flag::bool(&["dir"], "removes the key if it is an empty directory or a key-value pair"),
    Flag::bool(&["recursive", "r"], "removes the key and all child keys(if it is a directory)"),
    Flag::text(&["with-value"], "previous value"),
    Flag::int(&["with-index"], "previous index"),
]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.key()?;
    let options = DeleteOptions {
        prev_value: context.command.text("with-value").map(str::to_owned),
        prev_index: Some(context.command.index("with-index")),
        dir: context.command.bool("dir"),
        recursive: context.command.bool("recursive"),
    };
    let response = context.client().await?.delete(key, &options).await?;
    context.print_unless_silent(&response)
}
