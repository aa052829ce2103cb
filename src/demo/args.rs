//! The command line of `quorate demo`.

use clap::Parser;
use clap::error::ErrorKind;

/// How many members the demonstration has.
pub(super) const MEMBERS: u16 = 3;

/// What the demonstration was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(
    name = "quorate demo",
    disable_version_flag = true,
    about = "Run a cluster of three on this machine and show, in about 20 seconds, what it does: members find each \
             other by a discovery token, services announce themselves and are watched, one falls silent and \
             expires, the leader is killed and comes back. All is measured and checked.",
    after_help = "Needs no network and no configuration: everything is on the loopback, in a temporary directory that \
                  is removed in the end.\n\nExit status: 0 all went as promised, 1 it did not, 2 wrong arguments, \
                  130 interrupted."
)]
pub(super) struct Args {
    /// Print plain lines, also when standard output is a terminal
    #[arg(long)]
    pub(super) plain: bool,
    /// Leave the cluster serving after the show, until Ctrl-C
    #[arg(long)]
    pub(super) keep: bool,
    /// First of the three ports for clients
    #[arg(long, value_name = "PORT", default_value_t = 4001, value_parser = base_port())]
    pub(super) client_port_base: u16,
    /// First of the three ports for members
    #[arg(long, value_name = "PORT", default_value_t = 7001, value_parser = base_port())]
    pub(super) peer_port_base: u16,
    /// How the demonstration starts its members: as this process, bound to the life of the process given.
    #[arg(long, hide = true, value_name = "PID", requires = "inner")]
    pub(super) member_of: Option<i32>,
    /// The member's own arguments.
    #[arg(last = true, hide = true, requires = "member_of")]
    pub(super) inner: Vec<String>,
}

fn base_port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(u16::MAX - MEMBERS + 1))
}

/// What is to be printed instead of a demonstration.
#[derive(Debug)]
pub(super) struct Instead {
    pub(super) text: String,
    /// It was asked for; else it is an error.
    pub(super) help: bool,
}

/// Reads the arguments behind `quorate demo`.
pub(super) fn parse(args: &[String]) -> Result<Args, Instead> {
    let words = std::iter::once("quorate demo").chain(args.iter().map(String::as_str));
    let args = Args::try_parse_from(words)
        .map_err(|error| Instead { text: error.to_string(), help: error.kind() == ErrorKind::DisplayHelp })?;
    if args.client_port_base.abs_diff(args.peer_port_base) < MEMBERS {
        let text = format!(
            "error: --client-port-base {} and --peer-port-base {} overlap: each takes {MEMBERS} ports\n",
            args.client_port_base, args.peer_port_base
        );
        return Err(Instead { text, help: false });
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Args, Instead> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn defaults_and_settings() {
        let args = of("").unwrap();
        assert_eq!(
            (args.client_port_base, args.peer_port_base, args.plain, args.keep),
            (4001, 7001, false, false)
        );
        let args = of("--plain --keep --client-port-base 5001 --peer-port-base=5004").unwrap();
        assert_eq!(
            (args.client_port_base, args.peer_port_base, args.plain, args.keep),
            (5001, 5004, true, true)
        );
        let member = of("--member-of 17 -- -name m1").unwrap();
        assert_eq!((member.member_of, member.inner), (Some(17), vec!["-name".to_owned(), "m1".to_owned()]));
    }

    #[test]
    fn what_makes_no_sense() {
        for line in [
            "--colour",
            "extra",
            "--client-port-base",
            "--client-port-base 0",
            "--client-port-base 65534",
            "--peer-port-base 4003",
            "--client-port-base 7002",
            "--member-of 17",
        ] {
            let instead = of(line).expect_err(line);
            assert!(!instead.help && instead.text.starts_with("error: "), "{line}: {}", instead.text);
        }
    }

    #[test]
    fn help_is_no_error_and_shows_no_inner_flags() {
        let instead = of("--help").unwrap_err();
        assert!(instead.help && instead.text.contains("--client-port-base <PORT>"), "{}", instead.text);
        assert!(!instead.text.contains("member-of"), "{}", instead.text);
    }
}
