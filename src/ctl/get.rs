//! `get`: the value of a key.

use super::app::{Action, Context, QUORUM, Spec};
use super::failure::{BAD_ARGS, Failure};
use super::flags::Flag;
use crate::client::GetOptions;

pub(super) const SPEC: Spec = Spec::new("get", "retrieve the value of a key", "<key>", Action::Get)
    .flags(&[Flag::bool(&["sort"], "returns result in sorted order"), QUORUM]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.key()?;
    let options = GetOptions {
        recursive: false,
        sorted: context.command.bool("sort"),
        quorum: context.command.given_bool("quorum"),
    };
    let response = context.client().await?.get(key, &options).await?;
    if response.node.dir {
        return Err(Failure::bare(BAD_ARGS, format_args!("{}: is a directory", response.node.key)));
    }
    context.print(&response)
}
