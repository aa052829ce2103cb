//! `setdir`: makes a directory, in place of a key if there is one. Whatever its help has always said, an existing
//! directory is an error (102).

use super::app::{Action, Context, Spec, TTL};
use super::failure::Failure;
use crate::client::SetOptions;

pub(super) const SPEC: Spec = Spec::new(
    "setdir",
    "create a new directory or update an existing directory TTL",
    "<key>",
    Action::Setdir,
)
.flags(&[TTL]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.key()?;
    let options = SetOptions { ttl: context.command.ttl(), dir: true, ..SetOptions::default() };
    let response = context.client().await?.set(key, "", &options).await?;
    context.print_unless_silent(&response)
}
