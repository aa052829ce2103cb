//! Command lines as Go's `flag` package and the library around it in etcd's own tool read them, which is what people's
//! scripts rely on:
//!
//! - one dash or two, `--ttl 60`, `--ttl=60`, `-ttl 60`;
//! - a command's flags may stand before, between and after its arguments; the global ones stand before the command;
//! - what looks like a flag but is none is an error before the first argument, and an argument after it
//!   (`set /key -v` stores `-v`);
//! - after `--` everything is an argument;
//! - the last of several values counts.
//!
//! A general argument parser reads the same lines in other ways, so this one is written out; it is small.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Text,
    Duration,
}

/// A flag that a command knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    /// The long name and, if there is one, the short one, without dashes.
    pub(super) names: &'static [&'static str],
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    /// Shown in the help.
    pub(super) default: &'static str,
}

impl Flag {
    pub(super) const fn bool(names: &'static [&'static str], help: &'static str) -> Self {
        Self { names, kind: Kind::Bool, help, default: "" }
    }

    pub(super) const fn int(names: &'static [&'static str], help: &'static str) -> Self {
        Self { names, kind: Kind::Int, help, default: "0" }
    }

    pub(super) const fn text(names: &'static [&'static str], help: &'static str) -> Self {
        Self { names, kind: Kind::Text, help, default: "" }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    Duration(Duration),
}

/// A command line that was understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parsed {
    values: BTreeMap<&'static str, Value>,
    /// The arguments, in order.
    pub(super) args: Vec<String>,
    /// How many arguments stand before a `--`, if there is one.
    pub(super) before_separator: Option<usize>,
    /// `-h` or `--help` was among the flags.
    pub(super) help: bool,
}

impl Parsed {
    /// A switch; off if not given.
    pub(super) fn bool(&self, name: &str) -> bool {
        self.given_bool(name).unwrap_or(false)
    }

    /// A switch, if it was given.
    pub(super) fn given_bool(&self, name: &str) -> Option<bool> {
        match self.values.get(name) {
            Some(Value::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// A number; 0 if not given.
    pub(super) fn int(&self, name: &str) -> i64 {
        match self.values.get(name) {
            Some(Value::Int(value)) => *value,
            _ => 0,
        }
    }

    /// An index: a number; a negative one wraps to one that no index has, as it does in etcd's tool.
    pub(super) fn index(&self, name: &str) -> u64 {
        self.int(name).cast_unsigned()
    }

    /// `--ttl`: seconds, if it was given and is positive; other values mean none, as they do in etcd's tool.
    pub(super) fn ttl(&self) -> Option<u64> {
        u64::try_from(self.int("ttl")).ok().filter(|&ttl| ttl > 0)
    }

    /// A text, if it was given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some(Value::Text(value)) => Some(value),
            _ => None,
        }
    }

    /// A time span, if it was given. Negative ones count as zero.
    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        match self.values.get(name) {
            Some(Value::Duration(value)) => Some(*value),
            _ => None,
        }
    }
}

/// Reads the global options: up to the command, which is the first of the returned arguments.
pub(super) fn parse_global(flags: &[Flag], args: &[String]) -> Result<Parsed, String> {
    parse(flags, args, false)
}

/// Reads what stands after the command's name.
pub(super) fn parse_command(flags: &[Flag], args: &[String]) -> Result<Parsed, String> {
    parse(flags, args, true)
}

fn parse(flags: &[Flag], args: &[String], interspersed: bool) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            parsed.before_separator = Some(parsed.args.len());
            parsed.args.extend(args.cloned());
            break;
        }
        let body = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).unwrap_or("");
        if body.is_empty() {
            // Not a flag, or a lone dash.
            parsed.args.push(arg.clone());
            if !interspersed {
                parsed.args.extend(args.cloned());
                break;
            }
            continue;
        }
        let (name, inline) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        if let Some(flag) = flags.iter().find(|flag| flag.names.contains(&name)) {
            let value = match (inline, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true",
                (None, _) => args.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
            };
            parsed.values.insert(flag.names[0], convert(flag.kind, name, value)?);
        } else if matches!(name, "h" | "help") {
            parsed.help = true;
        } else if !parsed.args.is_empty() {
            parsed.args.push(arg.clone());
        } else if name.is_empty() || name.starts_with('-') {
            return Err(format!("bad flag syntax: {arg}"));
        } else {
            return Err(format!("flag provided but not defined: -{name}"));
        }
    }
    Ok(parsed)
}

fn convert(kind: Kind, name: &str, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Text => Ok(Value::Text(text.to_owned())),
        Kind::Bool => match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(format!("invalid boolean value {text:?} for -{name}: parse error")),
        },
        Kind::Int => parse_int(text)
            .map(Value::Int)
            .map_err(|why| format!("invalid value {text:?} for flag -{name}: {why}")),
        Kind::Duration => parse_duration(text)
            .map(Value::Duration)
            .ok_or_else(|| format!("invalid value {text:?} for flag -{name}: parse error")),
    }
}

/// Decimal, `0x`, `0o` or plain `0` octal, `0b`; `_` may group the digits.
fn parse_int(text: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let digits = digits.replace('_', "");
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err("parse error");
    }
    let sign = if negative { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| "value out of range")
}

/// As Go writes time spans: `300ms`, `1.5h`, `2h45m`; `0` needs no unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(unit_at);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * scale;
        rest = next;
    }
    if negative { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(nanos / 1e9).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::int(&["ttl"], ""),
        Flag::bool(&["recursive", "r"], ""),
        Flag::text(&["with-value"], ""),
        Flag { names: &["timeout"], kind: Kind::Duration, help: "", default: "2s" },
    ];

    fn line(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_stand_anywhere_and_in_every_spelling() {
        for text in [
            "--ttl 60 -r /k v",
            "/k --ttl=60 --recursive v",
            "/k v -ttl 60 -recursive=true",
            "-ttl=60 /k -r=1 v",
            "--ttl 1 /k v --ttl 0x3c -r",
            "-r --ttl 60 -- /k v",
            "/k -r --ttl 60 -- v",
        ] {
            let parsed = parse_command(FLAGS, &line(text)).unwrap();
            assert_eq!(parsed.args, ["/k", "v"], "{text}");
            assert_eq!((parsed.ttl(), parsed.bool("recursive")), (Some(60), true), "{text}");
        }
    }

    #[test]
    fn arguments_that_look_like_flags() {
        for (text, args) in [
            ("/k -v", vec!["/k", "-v"]),
            ("/k --bogus", vec!["/k", "--bogus"]),
            ("-- -k -v", vec!["-k", "-v"]),
            ("/k -- --ttl", vec!["/k", "--ttl"]),
            ("- x", vec!["-", "x"]),
        ] {
            assert_eq!(parse_command(FLAGS, &line(text)).unwrap().args, args, "{text}");
        }
        let parsed = parse_command(FLAGS, &line("--with-value --ttl /k")).unwrap();
        assert_eq!(parsed.text("with-value"), Some("--ttl"));
    }

    #[test]
    fn errors_are_worded_as_go_words_them() {
        for (text, error) in [
            ("--bogus /k", "flag provided but not defined: -bogus"),
            ("---x /k", "bad flag syntax: ---x"),
            ("--=x", "bad flag syntax: --=x"),
            ("/k --ttl", "flag needs an argument: -ttl"),
            ("--ttl=abc", "invalid value \"abc\" for flag -ttl: parse error"),
            (
                "--ttl=99999999999999999999",
                "invalid value \"99999999999999999999\" for flag -ttl: value out of range",
            ),
            ("-r=x", "invalid boolean value \"x\" for -r: parse error"),
            ("--timeout 1", "invalid value \"1\" for flag -timeout: parse error"),
        ] {
            assert_eq!(parse_command(FLAGS, &line(text)), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn global_options_end_at_the_command() {
        let parsed = parse_global(FLAGS, &line("-r set /k --ttl 5")).unwrap();
        assert_eq!(parsed.args, ["set", "/k", "--ttl", "5"]);
        assert_eq!(parsed.ttl(), None);
    }

    #[test]
    fn numbers_and_spans() {
        for (text, value) in [("0", 0), ("-5", -5), ("010", 8), ("0b11", 3), ("1_000", 1000), ("+7", 7)] {
            assert_eq!(parse_int(text), Ok(value), "{text}");
        }
        for text in ["", "-", "0x", "1.5", "5s", "--1"] {
            assert!(parse_int(text).is_err(), "{text}");
        }
        for (text, millis) in
            [("2s", 2000), ("1h2m3.5s", 3_723_500), ("300ms", 300), ("0", 0), ("-1s", 0), (".5s", 500)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "1", "s", "1x", "1s2", "1.2.3s", "-"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
