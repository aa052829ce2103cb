//! Commands of the store as the log holds them, and back.
//!
//! Decoding copies keys and values out of the entry: a value that lives for years must not keep the whole batch alive
//! that it came in.

use crate::proto::command::{Operation, Write};
use crate::store::{Command, Compare, Key};
use bytes::Bytes;

/// The session of what a leader proposes on its own; no process draws it.
pub(super) const NO_SESSION: u64 = 0;

/// The write that stands for a command in the log.
pub(super) fn encode(command: Command) -> Write {
    let mut write = Write::default();
    let operation = match command {
        Command::Set { key, value, dir, ttl, refresh } => {
            fill(&mut write, &key, value, ttl, refresh);
            write.directory = dir;
            Operation::Set
        }
        Command::Create { key, value, dir, ttl, refresh } => {
            fill(&mut write, &key, value, ttl, refresh);
            write.directory = dir;
            Operation::Create
        }
        Command::CreateInOrder { key, value, dir, ttl } => {
            fill(&mut write, &key, value, ttl, false);
            write.directory = dir;
            Operation::CreateInOrder
        }
        Command::Update { key, value, ttl, refresh } => {
            fill(&mut write, &key, value, ttl, refresh);
            Operation::Update
        }
        Command::CompareAndSwap { key, compare, value, ttl, refresh } => {
            fill(&mut write, &key, value, ttl, refresh);
            fill_compare(&mut write, compare);
            Operation::CompareAndSwap
        }
        Command::Delete { key, dir, recursive } => {
            write.key = key.to_bytes();
            write.directory = dir;
            write.recursive = recursive;
            Operation::Delete
        }
        Command::CompareAndDelete { key, compare } => {
            write.key = key.to_bytes();
            fill_compare(&mut write, compare);
            Operation::CompareAndDelete
        }
    };
    write.operation = operation.into();
    write
}

fn fill(write: &mut Write, key: &Key, value: Bytes, ttl: Option<u64>, refresh: bool) {
    write.key = key.to_bytes();
    write.value = value;
    write.ttl_plus_one = ttl.map_or(0, |ms| ms.saturating_add(1));
    write.refresh = refresh;
}

fn fill_compare(write: &mut Write, compare: Compare) {
    write.prev_value = compare.prev_value;
    write.prev_index = compare.prev_index;
}

/// The command that a write in the log stands for; `None` for an operation that this version does not know.
pub(super) fn decode(write: &Write) -> Option<Command> {
    let key = Key::parse(&write.key);
    let value = || Bytes::copy_from_slice(&write.value);
    let ttl = write.ttl_plus_one.checked_sub(1);
    let refresh = write.refresh;
    let dir = write.directory;
    let compare =
        || Compare { prev_value: Bytes::copy_from_slice(&write.prev_value), prev_index: write.prev_index };
    Some(match write.operation() {
        Operation::Unspecified => return None,
        Operation::Set => Command::Set { key, value: value(), dir, ttl, refresh },
        Operation::Create => Command::Create { key, value: value(), dir, ttl, refresh },
        Operation::CreateInOrder => Command::CreateInOrder { key, value: value(), dir, ttl },
        Operation::Update => Command::Update { key, value: value(), ttl, refresh },
        Operation::CompareAndSwap => {
            Command::CompareAndSwap { key, compare: compare(), value: value(), ttl, refresh }
        }
        Operation::Delete => Command::Delete { key, dir, recursive: write.recursive },
        Operation::CompareAndDelete => Command::CompareAndDelete { key, compare: compare() },
    })
}
