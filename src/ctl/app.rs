//! Which commands there are, and the way from a command line to one of them.

use super::endpoints::{self, Environment};
use super::failure::{BAD_ARGS, Failure, NO_SUCH_COMMAND};
use super::flags::{Flag, Kind, Parsed, parse_command, parse_global};
use super::{
    cluster_health, exec_watch, get, help, ls, member, mk, mkdir, rm, rmdir, set, setdir, update, updatedir,
    watch,
};
use crate::client::{Client, Response};
use std::io::Read as _;

pub(super) const GLOBAL_FLAGS: &[Flag] = &[
    Flag::bool(&["debug"], "output cURL commands which can be used to reproduce the request"),
    Flag::bool(&["no-sync"], "don't synchronize cluster information before sending request"),
    Flag {
        names: &["output", "o"],
        kind: Kind::Text,
        help: "output response in the given format (simple, extended or json)",
        default: "simple",
    },
    Flag::text(&["discovery-srv", "D"], "not supported"),
    Flag::bool(&["insecure-discovery"], "not supported"),
    Flag::text(&["peers", "C"], "DEPRECATED - \"--endpoints\" should be used instead"),
    Flag::text(&["endpoint"], "DEPRECATED - \"--endpoints\" should be used instead"),
    Flag {
        names: &["endpoints"],
        kind: Kind::Text,
        help: "a comma-delimited list of machine addresses in the cluster",
        default: "http://127.0.0.1:4001,http://127.0.0.1:2379",
    },
    Flag::text(&["cert-file"], "identify HTTPS client using this SSL certificate file"),
    Flag::text(&["key-file"], "identify HTTPS client using this SSL key file"),
    Flag::text(&["ca-file"], "verify certificates of HTTPS-enabled servers using this CA bundle"),
    Flag::text(&["username", "u"], "provide username:password"),
    Flag { names: &["timeout"], kind: Kind::Duration, help: "connection timeout per request", default: "2s" },
    Flag {
        names: &["total-timeout"],
        kind: Kind::Duration,
        help: "timeout for the command execution (except watch)",
        default: "5s",
    },
    Flag::bool(&["version", "v"], "print the version"),
];

/// What carries a command out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    ClusterHealth,
    ExecWatch,
    Get,
    Ls,
    Mk,
    Mkdir,
    Rm,
    Rmdir,
    Set,
    Setdir,
    Update,
    Updatedir,
    Watch,
    MemberAdd,
    MemberList,
    MemberRemove,
    MemberUpdate,
    MemberPromote,
    /// Only its subcommands do something.
    Group(&'static [Spec]),
    /// Known from etcd's tool, and refused.
    Refused,
}

/// A command: what its help says and what it accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// As it is typed; for a subcommand only its own word.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) arguments: &'static str,
    pub(super) description: &'static str,
    pub(super) flags: &'static [Flag],
    pub(super) action: Action,
}

impl Spec {
    /// A command without flags.
    pub(super) const fn new(
        name: &'static str,
        about: &'static str,
        arguments: &'static str,
        action: Action,
    ) -> Self {
        Self { name, about, arguments, description: "", flags: &[], action }
    }

    pub(super) const fn flags(self, flags: &'static [Flag]) -> Self {
        Self { flags, ..self }
    }

    pub(super) const fn description(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    const fn refused(name: &'static str, about: &'static str) -> Self {
        Self::new(name, about, "", Action::Refused)
    }
}

/// `--ttl`, which all commands that write have.
pub(super) const TTL: Flag = Flag::int(&["ttl"], "key time-to-live in seconds");
/// `--quorum`, of the commands that read.
pub(super) const QUORUM: Flag = Flag::bool(&["quorum", "q"], "require quorum for get request");

pub(super) const COMMANDS: &[Spec] = &[
    Spec::refused("backup", "backup an etcd directory (not supported)"),
    cluster_health::SPEC,
    mk::SPEC,
    mkdir::SPEC,
    rm::SPEC,
    rmdir::SPEC,
    get::SPEC,
    ls::SPEC,
    set::SPEC,
    setdir::SPEC,
    update::SPEC,
    updatedir::SPEC,
    watch::SPEC,
    exec_watch::SPEC,
    member::SPEC,
    Spec::refused("import", "import a snapshot to a cluster (not supported)"),
    Spec::refused("user", "user add, grant and revoke subcommands (not supported)"),
    Spec::refused("role", "role add, grant and revoke subcommands (not supported)"),
    Spec::refused("auth", "overall auth controls (not supported)"),
];

/// All that a command works with.
pub(super) struct Context<'a> {
    pub(super) globals: &'a Parsed,
    /// The command's own flags and arguments.
    pub(super) command: Parsed,
    env: Environment<'a>,
}

impl Context<'_> {
    /// The key, which is the first argument.
    pub(super) fn key(&self) -> Result<&str, Failure> {
        self.command.args.first().map(String::as_str).ok_or_else(|| Failure::text(BAD_ARGS, "key required"))
    }

    /// The value: the second argument, or else all of stdin, with its newline if it has one.
    pub(super) fn value(&self) -> Result<Vec<u8>, Failure> {
        if let Some(value) = self.command.args.get(1) {
            return Ok(value.clone().into_bytes());
        }
        let mut value = Vec::new();
        match std::io::stdin().lock().read_to_end(&mut value) {
            Ok(bytes) if bytes > 0 => Ok(value),
            _ => Err(Failure::text(BAD_ARGS, "value required")),
        }
    }

    /// The value of `--output`.
    pub(super) fn format(&self) -> &str {
        self.globals.text("output").unwrap_or("simple")
    }

    /// A client that knows the members' endpoints.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        endpoints::synced_client(self.globals, self.env).await
    }

    /// A client of the endpoints that were given.
    pub(super) fn unsynced_client(&self) -> Result<Client, Failure> {
        let client = endpoints::client(self.globals, self.env)?;
        if self.globals.bool("debug") {
            endpoints::print_endpoints(&client);
        }
        Ok(client)
    }

    /// Prints a response about a key in the wanted format.
    pub(super) fn print(&self, response: &Response) -> Result<(), Failure> {
        Ok(super::output::print(&mut std::io::stdout().lock(), response, self.format())?)
    }

    /// Prints a response that may be about a directory.
    pub(super) fn print_unless_silent(&self, response: &Response) -> Result<(), Failure> {
        Ok(super::output::print_unless_silent(&mut std::io::stdout().lock(), response, self.format())?)
    }
}

/// Carries out a command line.
pub(super) async fn dispatch(args: &[String], env: Environment<'_>) -> Result<(), Failure> {
    let globals = match parse_global(GLOBAL_FLAGS, args) {
        Ok(globals) => globals,
        Err(error) => {
            help::print(&format!("Incorrect Usage. {error}\n\n{}", help::app()))?;
            return Err(Failure::bare(BAD_ARGS, error));
        }
    };
    if globals.help {
        return help::print(&help::app());
    }
    if globals.bool("version") {
        let text = format!("etcdctl version: {}\nAPI version: 2\n", env!("CARGO_PKG_VERSION"));
        return help::print(&text);
    }
    match globals.args.split_first() {
        None => help::print(&help::app()),
        Some((name, rest)) if name == "help" || name == "h" => match rest.first() {
            None => help::print(&help::app()),
            Some(topic) => help::print(&help::command("", find(COMMANDS, topic)?)),
        },
        Some((name, rest)) => run_command("", find(COMMANDS, name)?, &globals, rest, env).await,
    }
}

fn find<'a>(commands: &'a [Spec], name: &str) -> Result<&'a Spec, Failure> {
    let unknown = || Failure::bare(NO_SUCH_COMMAND, format_args!("No help topic for '{name}'"));
    commands.iter().find(|spec| spec.name == name).ok_or_else(unknown)
}

async fn run_command(
    parent: &str,
    mut spec: &Spec,
    globals: &Parsed,
    mut args: &[String],
    env: Environment<'_>,
) -> Result<(), Failure> {
    let mut parent = parent.to_owned();
    if let Action::Group(subcommands) = spec.action {
        let group = parse_global(spec.flags, args);
        match (group, args.split_first()) {
            (Ok(group), Some((name, rest))) if !group.help => {
                parent = format!("{} ", spec.name);
                spec = find(subcommands, name)?;
                args = rest;
            }
            (Err(error), _) => return usage_error(&parent, spec, &error),
            _ => return help::print(&help::command(&parent, spec)),
        }
    }
    if matches!(spec.action, Action::Refused) {
        return Err(Failure::text(BAD_ARGS, format_args!("{} is not supported", spec.name)));
    }
    let command = match parse_command(spec.flags, args) {
        Ok(command) => command,
        Err(error) => return usage_error(&parent, spec, &error),
    };
    if command.help {
        return help::print(&help::command(&parent, spec));
    }
    carry_out(spec.action, &Context { globals, command, env }).await
}

fn usage_error(parent: &str, spec: &Spec, error: &str) -> Result<(), Failure> {
    help::print(&format!("Incorrect Usage: {error}\n\n{}", help::command(parent, spec)))?;
    Err(Failure::bare(BAD_ARGS, error))
}

async fn carry_out(action: Action, context: &Context<'_>) -> Result<(), Failure> {
    match action {
        Action::ClusterHealth => cluster_health::run(context).await,
        Action::ExecWatch => exec_watch::run(context).await,
        Action::Get => get::run(context).await,
        Action::Ls => ls::run(context).await,
        Action::Mk => mk::run(context).await,
        Action::Mkdir => mkdir::run(context).await,
        Action::Rm => rm::run(context).await,
        Action::Rmdir => rmdir::run(context).await,
        Action::Set => set::run(context).await,
        Action::Setdir => setdir::run(context).await,
        Action::Update => update::run(context).await,
        Action::Updatedir => updatedir::run(context).await,
        Action::Watch => watch::run(context).await,
        Action::MemberAdd => member::add(context).await,
        Action::MemberList => member::list(context).await,
        Action::MemberRemove => member::remove(context).await,
        Action::MemberUpdate => member::update(context).await,
        Action::MemberPromote => member::promote(context).await,
        // Neither comes here: groups go on to a subcommand, refusals have been answered.
        Action::Group(_) | Action::Refused => Err(Failure::silent(BAD_ARGS)),
    }
}
