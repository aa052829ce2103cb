//! `mk`: creates a key that must not exist, or one with a name that sorts by the order of creation.

use super::app::{Action, Context, Spec, TTL};
use super::failure::Failure;
use super::flags::Flag;

pub(super) const SPEC: Spec =
    Spec::new("mk", "make a new key with a given value", "<key> <value>", Action::Mk)
        .flags(&[Flag::bool(&["in-order"], "create in-order key under directory <key>"), TTL]);

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let key = context.key()?;
    let value = context.value()?;
    let ttl = context.command.ttl();
    let client = context.client().await?;
    let response = if context.command.bool("in-order") {
        client.create_in_order(key, value, ttl).await?
    } else {
        client.create(key, value, ttl).await?
    };
    context.print(&response)
}
