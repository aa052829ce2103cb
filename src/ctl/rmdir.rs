//! `rmdir`: removes an empty directory, or a key.

use super::app::{Action, Context, Spec};
use super::failure::Failure;
use crate::client::DeleteOptions;

pub(super) const SPEC: Spec = Spec::new(
    "rmdir",
    "removes the key if it is an empty directory or a key-value pair",
    "<key>",
    Action::Rmdir,
);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.key()?;
    let options = DeleteOptions { dir: true, ..DeleteOptions::default() };
    let response = context.client().await?.delete(key, &options).await?;
    context.print_unless_silent(&response)
}
