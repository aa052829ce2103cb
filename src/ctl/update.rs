//! `update`: changes a key that must exist.

use super::app::{Action, Context, Spec, TTL};
use super::failure::Failure;

pub(super) const SPEC: Spec =
    Spec::new("update", "update an existing key with a given value", "<key> <value>", Action::Update)
        .flags(&[TTL]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.key()?;
    let value = context.value()?;
    let response = context.client().await?.update(key, value, context.command.ttl()).await?;
    context.print(&response)
}
