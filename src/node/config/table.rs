//! What a flag is. One row of the table, see [`super::rows`], feeds the parser, the environment and the help.

use super::draft::Draft;
use super::rows::FLAGS;

/// One flag and its environment variable.
pub(super) struct Flag {
    /// Without dashes.
    pub(super) name: &'static str,
    /// Variable names besides `ETCD_<NAME>`.
    pub(super) variables: &'static [&'static str],
    /// What a value looks like; empty: the flag is a boolean.
    pub(super) value: &'static str,
    /// As the help shows it.
    pub(super) default: &'static str,
    /// The etcd version that introduced it, or `quorate`.
    pub(super) since: &'static str,
    pub(super) group: Group,
    pub(super) help: &'static str,
    pub(super) effect: Effect,
}

/// What a flag does.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    /// Sets something.
    Text(fn(&mut Draft, &str) -> Result<(), String>),
    /// Sets something.
    Switch(fn(&mut Draft, bool) -> Result<(), String>),
    /// Once did something in etcd; warned about as etcd does.
    Dropped,
    /// Tunes what does not exist here; warned about.
    Moot,
    /// Asks for something that cannot be had, and that must not be taken for done.
    Refused(&'static str),
}

/// The sections of the help.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Member,
    Cluster,
    Old,
    Tuning,
    /// Not in the help but for its name.
    Hidden,
}

impl Group {
    pub(super) const SHOWN: [(Self, &'static str); 4] = [
        (Self::Member, "Member"),
        (Self::Cluster, "Cluster"),
        (Self::Old, "Addresses in the manner of etcd 0.4"),
        (Self::Tuning, "Limits and tuning"),
    ];
}

impl Flag {
    pub(super) fn is_boolean(&self) -> bool {
        self.value.is_empty()
    }

    /// The names of its environment variables, in the order in which they are looked up.
    pub(super) fn variable_names(&self) -> impl Iterator<Item = String> {
        let derived = format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"));
        std::iter::once(derived).chain(self.variables.iter().map(|name| (*name).to_owned()))
    }
}

/// The row of a flag, by its name or an old one.
pub(super) fn find(name: &str) -> Option<(&'static Flag, Option<&'static str>)> {
    let alias = ALIASES.iter().find(|(old, _)| *old == name);
    let current = alias.map_or(name, |(_, current)| current);
    let flag = FLAGS.iter().find(|flag| flag.name == current)?;
    Some((flag, alias.map(|(old, _)| *old)))
}

/// Spellings that 0.4 deprecated.
const ALIASES: &[(&str, &str)] = &[
    ("C", "peers"),
    ("CF", "peers-file"),
    ("n", "name"),
    ("c", "addr"),
    ("cl", "bind-addr"),
    ("s", "peer-addr"),
    ("sl", "peer-bind-addr"),
    ("d", "data-dir"),
    ("m", "max-result-buffer"),
    ("r", "max-retry-attempts"),
    ("f", "force"),
    ("maxsize", "cluster-active-size"),
    ("max-cluster-size", "cluster-active-size"),
    ("clientCAFile", "ca-file"),
    ("clientCert", "cert-file"),
    ("clientKey", "key-file"),
    ("serverCAFile", "peer-ca-file"),
    ("serverCert", "peer-cert-file"),
    ("serverKey", "peer-key-file"),
    ("snapshotCount", "snapshot-count"),
    ("peer-heartbeat-timeout", "peer-heartbeat-interval"),
];
