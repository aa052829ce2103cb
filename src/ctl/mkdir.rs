//! `mkdir`: creates a directory that must not exist.

use super::app::{Action, Context, Spec, TTL};
use super::failure::Failure;

pub(super) const SPEC: Spec =
    Spec::new("mkdir", "make a new directory", "<key>", Action::Mkdir).flags(&[TTL]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.key()?;
    let response = context.client().await?.mkdir(key, context.command.ttl()).await?;
    context.print_unless_silent(&response)
}
