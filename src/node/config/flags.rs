//! Command line and environment.

use super::draft::Draft;
use super::rows::FLAGS;
use super::table::{self, Effect, Flag};
use super::{Config, help};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the program was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Run a member; the lines are to be shown to its user first.
    Serve(Box<Config>, Vec<String>),
    /// Run the demonstration, with these arguments.
    Demo(Vec<String>),
    /// Examine a data directory.
    Check(PathBuf),
    /// Print this text.
    Help(String),
    /// Print the version.
    Version,
}

/// What is wrong with the command line or the environment: one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// Where a setting comes from, as messages name it.
enum Source {
    Flag(String),
    Variable(String),
}

struct Setting {
    flag: &'static Flag,
    source: Source,
    value: String,
}

/// Reads the command line, without the program's name, and the environment, of which only `ETCD_*` matters.
pub fn parse<A, E>(args: A, env: E) -> Result<Invocation, UsageError>
where
    A: IntoIterator<Item = String>,
    E: IntoIterator<Item = (String, String)>,
{
    let args: Vec<String> = args.into_iter().collect();
    match args.split_first() {
        Some((word, rest)) if !word.starts_with('-') => command(word, rest).map_err(UsageError),
        _ => serve(args, env).map_err(UsageError),
    }
}

fn command(word: &str, rest: &[String]) -> Result<Invocation, String> {
    const COMMANDS: [&str; 4] = ["demo", "check", "help", "version"];
    match (word, rest) {
        ("demo", _) => Ok(Invocation::Demo(rest.to_vec())),
        ("check", [directory]) if !directory.starts_with('-') => {
            Ok(Invocation::Check(PathBuf::from(directory)))
        }
        ("check", _) => Err("check takes one argument: quorate check DATA-DIR".to_owned()),
        ("help", []) => Ok(Invocation::Help(help::text())),
        ("version", []) => Ok(Invocation::Version),
        ("help" | "version", _) => Err(format!("{word} takes no arguments")),
        _ => Err(format!("unknown command {word:?}{}; see --help", suggestion(word, "", COMMANDS))),
    }
}

fn serve<E>(args: Vec<String>, env: E) -> Result<Invocation, String>
where
    E: IntoIterator<Item = (String, String)>,
{
    let mut warnings = Vec::new();
    let mut settings: Vec<Setting> = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(name) =
            arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|name| !name.is_empty())
        else {
            return Err(format!("{arg:?} is not a flag{}", boolean_hint(&arg, settings.last())));
        };
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        match name {
            "h" | "help" => return Ok(Invocation::Help(help::text())),
            "version" => return Ok(Invocation::Version),
            _ => {}
        }
        let Some((flag, alias)) = table::find(name) else {
            let known = FLAGS.iter().map(|flag| flag.name);
            return Err(format!("unknown flag -{name}{}; see --help", suggestion(name, "-", known)));
        };
        if let Some(old) = alias {
            warnings.push(format!("[deprecated] use -{}, not -{old}", flag.name));
        }
        let value = match inline {
            Some(value) => value,
            None if flag.is_boolean() => "true".to_owned(),
            None => args.next().ok_or_else(|| format!("flag needs an argument: -{name} {}", flag.value))?,
        };
        // As ever, the last one counts.
        settings.retain(|setting| setting.flag.name != flag.name);
        settings.push(Setting { flag, source: Source::Flag(name.to_owned()), value });
    }
    add_environment(env, &mut settings, &mut warnings);
    let mut draft = Draft { warnings, ..Draft::default() };
    for setting in settings.iter().filter(|setting| !setting.value.is_empty()) {
        setting.apply(&mut draft)?;
    }
    let (config, mut warnings) = draft.resolve()?;
    config.validate().map_err(|error| error.to_string())?;
    warnings.extend(config.warnings());
    Ok(Invocation::Serve(Box::new(config), warnings))
}

/// Adds what the environment sets and the command line does not.
fn add_environment<E>(env: E, settings: &mut Vec<Setting>, warnings: &mut Vec<String>)
where
    E: IntoIterator<Item = (String, String)>,
{
    // Set by units for etcd's own build checks, for tools, or by the documentation of 0.4: not for a server to read.
    const UNREAD: [&str; 1] = ["ETCD_UNSUPPORTED_ARCH"];
    let mut env: BTreeMap<String, String> = env
        .into_iter()
        .filter(|(name, value)| name.starts_with("ETCD_") && !value.trim().is_empty())
        .filter(|(name, _)| !UNREAD.contains(&name.as_str()))
        .collect();
    for flag in FLAGS {
        let on_command_line = settings.iter().any(|setting| setting.flag.name == flag.name);
        let mut found = on_command_line;
        for name in flag.variable_names() {
            let Some(value) = env.remove(&name) else { continue };
            if !found {
                settings.push(Setting {
                    flag,
                    source: Source::Variable(name),
                    value: value.trim().to_owned(),
                });
                found = true;
            }
        }
    }
    // Not its value: it may be a secret of another program's.
    warnings.extend(env.into_keys().map(|name| format!("unrecognized environment variable {name}")));
}

impl Setting {
    fn apply(&self, draft: &mut Draft) -> Result<(), String> {
        let (flag, value) = (self.flag, self.value.as_str());
        let bad = |reason: String| match &self.source {
            Source::Flag(name) => format!("invalid value {value:?} for flag -{name}: {reason}"),
            Source::Variable(name) => format!("invalid value {value:?} for {name}: {reason}"),
        };
        // A switch that is off asks for nothing that could not be had.
        let off = flag.is_boolean() && !boolean(value).map_err(bad)?;
        match flag.effect {
            Effect::Text(set) => set(draft, value).map_err(bad)?,
            Effect::Switch(set) => set(draft, !off).map_err(bad)?,
            Effect::Refused(_) if off => {}
            Effect::Refused(why) => return Err(format!("{} cannot be set: {why}", self.source_name())),
            Effect::Dropped => {
                draft.warnings.push(format!("flag \"-{}\" is no longer supported - ignoring.", flag.name));
            }
            Effect::Moot => {
                draft.warnings.push(format!("flag \"-{}\" has no effect here - ignoring.", flag.name));
            }
        }
        Ok(())
    }

    fn source_name(&self) -> String {
        match &self.source {
            Source::Flag(name) => format!("flag \"-{name}\""),
            Source::Variable(name) => name.clone(),
        }
    }
}

/// The spellings that Go's flag package takes.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it must be true or false".to_owned()),
    }
}

/// `-flag false` is a classic: a boolean takes its value behind "=" only.
fn boolean_hint(arg: &str, before: Option<&Setting>) -> String {
    match before {
        Some(Setting { flag, .. }) if flag.is_boolean() && boolean(arg).is_ok() => {
            format!(", write -{}={arg}", flag.name)
        }
        _ => "; see --help".to_owned(),
    }
}

/// `, did you mean ...?` when something is near.
fn suggestion<'a>(word: &str, dash: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known.into_iter().map(|name| (distance(word, name), name)).min();
    match near {
        Some((far, name)) if far <= 1 + word.len() / 4 => format!(", did you mean {dash}{name}?"),
        _ => String::new(),
    }
}

/// Levenshtein's: how many characters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
