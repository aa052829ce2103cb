//! `set`: writes a key, whatever was there, or only if it is as expected.

use super::app::{Action, Context, Spec, TTL};
use super::failure::Failure;
use super::flags::Flag;
use crate::client::SetOptions;

pub(super) const SPEC: Spec = Spec::new("set", "set the value of a key", "<key> <value>", Action::Set)
    .description(
        "Set sets the value of a key.\n\n   \
         When <value> begins with '-', <value> is interpreted as a flag.\n   \
         Insert '--' for workaround:\n\n   \
         $ set -- <key> <value>",
    )
    .flags(&[
        TTL,
        Flag::text(&["swap-with-value"], "previous value"),
        Flag::int(&["swap-with-index"], "previous index"),
    ]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.key()?;
    let value = context.value()?;
    let options = SetOptions {
        ttl: context.command.ttl(),
        prev_value: context.command.text("swap-with-value").map(str::to_owned),
        prev_index: Some(context.command.index("swap-with-index")),
        ..SetOptions::default()
    };
    let response = context.client().await?.set(key, value, &options).await?;
    context.print(&response)
}
