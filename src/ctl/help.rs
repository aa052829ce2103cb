//! The help texts, in the layout of etcd's tool.

use super::app::{Action, COMMANDS, GLOBAL_FLAGS, Spec};
use super::failure::Failure;
use super::flags::{Flag, Kind};
use std::fmt::Write as _;
use std::io::Write as _;

/// Writes a text to stdout.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// The help for the whole tool.
pub(super) fn app() -> String {
    let mut text = format!(
        "NAME:\n   etcdctl - A simple command line client for the etcd v2 API.\n\n\
         USAGE:\n   etcdctl [global options] command [command options] [arguments...]\n\n\
         VERSION:\n   {}\n",
        env!("CARGO_PKG_VERSION")
    );
    commands(&mut text, COMMANDS, &[("help, h", "Shows a list of commands or help for one command")]);
    text.push_str("\nGLOBAL OPTIONS:\n");
    flags(&mut text, GLOBAL_FLAGS);
    text
}

/// The help for one command; `parent` is empty, or the group's name and a space.
pub(super) fn command(parent: &str, spec: &Spec) -> String {
    let name = format!("{parent}{}", spec.name);
    let mut text = format!("NAME:\n   etcdctl {name} - {}\n\nUSAGE:\n   etcdctl {name}", spec.about);
    if let Action::Group(subcommands) = spec.action {
        text.push_str(" command [command options] [arguments...]\n");
        commands(&mut text, subcommands, &[]);
        return text;
    }
    if !spec.flags.is_empty() {
        text.push_str(" [command options]");
    }
    let _ = writeln!(text, " {}", spec.arguments);
    if !spec.description.is_empty() {
        let _ = writeln!(text, "\nDESCRIPTION:\n   {}", spec.description);
    }
    if !spec.flags.is_empty() {
        text.push_str("\nOPTIONS:\n");
        flags(&mut text, spec.flags);
    }
    text
}

fn commands(text: &mut String, specs: &[Spec], more: &[(&str, &str)]) {
    text.push_str("\nCOMMANDS:\n");
    let rows = specs.iter().map(|spec| (spec.name, spec.about)).chain(more.iter().copied());
    let rows: Vec<_> = rows.map(|(name, about)| (name.to_owned(), about.to_owned())).collect();
    columns(text, &rows);
}

fn flags(text: &mut String, flags: &[Flag]) {
    let rows: Vec<_> = flags
        .iter()
        .map(|flag| {
            let value = if flag.kind == Kind::Bool { "" } else { " value" };
            let names = flag.names.iter().map(|name| format!("{}{name}{value}", dashes(name)));
            let default = match flag.default {
                "" => String::new(),
                default => format!(" (default: {default})"),
            };
            (names.collect::<Vec<_>>().join(", "), format!("{}{default}", flag.help))
        })
        .chain([("--help, -h".to_owned(), "show help".to_owned())])
        .collect();
    columns(text, &rows);
}

fn dashes(name: &str) -> &'static str {
    if name.len() == 1 { "-" } else { "--" }
}

fn columns(text: &mut String, rows: &[(String, String)]) {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    for (left, right) in rows {
        let _ = writeln!(text, "   {left:width$}  {right}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_listed_and_explains_itself() {
        let whole = app();
        for spec in COMMANDS {
            assert!(whole.contains(&format!("   {}", spec.name)), "{}", spec.name);
            let own = command("", spec);
            assert!(own.starts_with(&format!("NAME:\n   etcdctl {} - ", spec.name)), "{own}");
            for flag in spec.flags {
                assert!(own.contains(&format!("{}{}", dashes(flag.names[0]), flag.names[0])), "{own}");
            }
        }
    }

    #[test]
    fn the_layout() {
        let spec = COMMANDS.iter().find(|spec| spec.name == "ls").unwrap();
        assert_eq!(
            command("", spec),
            "NAME:\n   etcdctl ls - retrieve a directory\n\n\
             USAGE:\n   etcdctl ls [command options] [key]\n\n\
             OPTIONS:\n   \
             --sort           returns result in sorted order\n   \
             --recursive, -r  returns all key names recursively for the given path\n   \
             -p               append slash (/) to directories\n   \
             --quorum, -q     require quorum for get request\n   \
             --help, -h       show help\n"
        );
    }
}
