//! The text of `quorate help`, from the table.

use super::rows::FLAGS;
use super::table::{Effect, Flag, Group};
use std::fmt::Write;

const HEAD: &str = "\
quorate: a replicated key-value store that speaks the etcd v2 API

Usage:
  quorate [FLAGS]          run a member
  quorate demo [ARGS]      run a cluster of three on this machine and show what it does
  quorate check DATA-DIR   examine a data directory
  quorate help | version

A flag takes one dash or two, and its value behind a space or \"=\". Each can be set in the environment as
well, as the name in brackets; the flag wins, and what is empty counts as not set. Lists take commas.
";

const TAIL: &str = "
Other flags of etcd are refused if quorate cannot do what they ask for, or ignored with a warning if that
changes nothing that matters.
";

/// Columns.
const WIDTH: usize = 110;
const INDENT: usize = 6;

pub(super) fn text() -> String {
    let mut out = HEAD.to_owned();
    for (group, title) in Group::SHOWN {
        line(&mut out, &format!("\n{title}:"));
        FLAGS.iter().filter(|flag| flag.group == group).for_each(|flag| describe(&mut out, flag));
    }
    let ignored = names(|effect| matches!(effect, Effect::Dropped | Effect::Moot));
    let refused = names(|effect| matches!(effect, Effect::Refused(_)));
    out.push_str(TAIL);
    for (title, names) in [("Ignored", ignored), ("Refused", refused)] {
        line(&mut out, &format!("\n{title}:"));
        wrap(&mut out, &names.join(", "));
    }
    out
}

fn describe(out: &mut String, flag: &Flag) {
    let value = if flag.is_boolean() { String::new() } else { format!(" {}", flag.value) };
    let variables: Vec<String> = flag.variable_names().collect();
    line(out, &format!("  -{}{value}  [{}]", flag.name, variables.join(", ")));
    let since = if flag.since == "quorate" { String::new() } else { format!("; since etcd {}", flag.since) };
    wrap(out, &format!("{} (default: {}{since})", flag.help, flag.default));
}

fn names(is: impl Fn(Effect) -> bool) -> Vec<String> {
    FLAGS.iter().filter(|flag| is(flag.effect)).map(|flag| format!("-{}", flag.name)).collect()
}

fn wrap(out: &mut String, text: &str) {
    let mut current = String::new();
    for word in text.split(' ') {
        if !current.is_empty() && INDENT + current.len() + 1 + word.len() > WIDTH {
            line(out, &format!("{:INDENT$}{current}", ""));
            current.clear();
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    line(out, &format!("{:INDENT$}{current}", ""));
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}
