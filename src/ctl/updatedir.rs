//! `updatedir`: changes the TTL of a directory that must exist.

use super::app::{Action, Context, Spec, TTL};
use super::failure::Failure;
use crate::client::SetOptions;

pub(super) const SPEC: Spec =
    Spec::new("updatedir", "update an existing directory", "<key> <value>", Action::Updatedir).flags(&[TTL]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.key()?;
    let options =
        SetOptions { ttl: context.command.ttl(), prev_exist: Some(true), dir: true, ..SetOptions::default() };
    let response = context.client().await?.set(key, "", &options).await?;
    context.print_unless_silent(&response)
}
