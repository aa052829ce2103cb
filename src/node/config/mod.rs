//! What a member is told before it starts: the [`Config`] of a program that embeds one, and its reading from the
//! command line and the environment ([`parse`]), in the spellings of etcd 0.4 and 2.x.
//!
//! Invariants: [`parse`] depends on nothing but its arguments; a setting that was given is honoured, refused or
//! warned about, never silently dropped; every error is one line that names the flag or variable and its value.
//!
//! What it does not do: resolve host names, touch the data directory, or decide between what the configuration says
//! and what the data directory says (a member that exists ignores everything `initial`; that is bootstrap's business).

mod draft;
mod flags;
mod help;
mod rows;
mod table;
mod url;

pub use flags::{Invocation, UsageError, parse};
pub use url::{HttpUrl, UrlError};

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// How to run a member. Build it from [`Config::default`]; [`Config::validate`] says whether it makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The member's name, unique in its cluster.
    pub name: String,
    /// Where the member keeps its state; `None`: `<name>.etcd` in the working directory.
    pub data_dir: Option<PathBuf>,
    /// Where to listen for clients.
    pub listen_client_urls: Vec<HttpUrl>,
    /// Where clients are told to find this member.
    pub advertise_client_urls: Vec<HttpUrl>,
    /// Where to listen for other members.
    pub listen_peer_urls: Vec<HttpUrl>,
    /// Where other members are told to find this one, until it is changed through the members API.
    pub initial_advertise_peer_urls: Vec<HttpUrl>,
    /// The members that a new cluster begins with, this one among them; empty: it begins alone, or by discovery.
    pub initial_cluster: Vec<InitialMember>,
    /// Whether that cluster is to be begun, or is running already and this member was added to it.
    pub initial_cluster_state: ClusterState,
    /// Keeps clusters that begin with the same addresses apart.
    pub initial_cluster_token: String,
    /// The URL, token included, of a discovery service that brings the members of a new cluster together.
    pub discovery: Option<String>,
    /// If the cluster that discovery finds is full: join it as a standby, which follows and has no vote.
    pub standby: bool,
    /// Begin a new cluster of this member alone with the data that it has: the last resort when a quorum is lost.
    pub force_new_cluster: bool,
    /// Refuse changes of membership that would leave the cluster without a quorum of running members.
    pub strict_reconfig_check: bool,
    /// Time between a leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// Time without a leader after which a member stands for election; at least five heartbeats, at most 50 s.
    pub election_timeout: Duration,
    /// Applied log entries between checkpoints at the most.
    pub snapshot_count: u64,
    /// Bytes of log between checkpoints: as many as the keyspace has, but at least this. Once to twice that is kept.
    pub log_bytes_min: u64,
    /// The same, but at most this, unless `log_bytes_min` is more.
    pub log_bytes_max: u64,
    /// Events kept for watchers that come back: how many at most.
    pub history_events: usize,
    /// Events kept for watchers that come back: bytes at most.
    pub history_bytes: usize,
    /// Bytes of keys and values that the keyspace may reach; 0: as many as the disk has room for.
    pub quota_backend_bytes: u64,
    /// Free disk space below which writes are refused; `None`: 64 MiB, or a tenth of the file system if that is less.
    pub disk_reserve_bytes: Option<u64>,
    /// The largest request body that a client may send, in bytes.
    pub max_request_bytes: usize,
    /// Origins that browsers may send requests from; `*` for any.
    pub cors: Vec<String>,
    /// What is logged, in the notation of `tracing_subscriber::EnvFilter`: a level, or directives.
    pub log_level: String,
}

impl Default for Config {
    fn default() -> Self {
        let client = HttpUrl::new("127.0.0.1", 4001);
        let peer = HttpUrl::new("127.0.0.1", 7001);
        Self {
            name: "default".to_owned(),
            data_dir: None,
            listen_client_urls: vec![client.clone()],
            advertise_client_urls: vec![client],
            listen_peer_urls: vec![peer.clone()],
            initial_advertise_peer_urls: vec![peer],
            initial_cluster: Vec::new(),
            initial_cluster_state: ClusterState::New,
            initial_cluster_token: "etcd-cluster".to_owned(),
            discovery: None,
            standby: true,
            force_new_cluster: false,
            strict_reconfig_check: true,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_count: 100_000,
            log_bytes_min: 64 << 20,
            log_bytes_max: 128 << 20,
            history_events: 100_000,
            history_bytes: 32 << 20,
            quota_backend_bytes: 0,
            disk_reserve_bytes: None,
            max_request_bytes: 1_572_864,
            cors: Vec::new(),
            log_level: "info".to_owned(),
        }
    }
}

/// A member that a cluster begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Where the other members reach it.
    pub peer_urls: Vec<HttpUrl>,
}

/// Whether the initial cluster is begun by this start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// Yes.
    #[default]
    New,
    /// No: it is running, and this member was added to it.
    Existing,
}

/// How a member without data comes to its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// It begins a cluster alone.
    Single {
        /// Itself.
        member: InitialMember,
        /// The cluster's token.
        token: String,
    },
    /// The members are known.
    Static {
        /// All of them, this one among them, in the order in which they were given.
        members: Vec<InitialMember>,
        /// Begun now, or running already.
        state: ClusterState,
        /// The cluster's token.
        token: String,
    },
    /// A discovery service knows.
    Discovery {
        /// Its URL, which is the cluster's token too.
        url: String,
    },
}

/// Why a [`Config`] makes no sense, in the words and with the flag names that etcd's users know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Elections that take longer than this are taken for a mistake in the unit.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(50);

impl Config {
    /// Listens at these two `host:port`s, for clients and for other members, and is found there.
    ///
    /// # Errors
    /// One of them is not a `host:port`.
    pub fn set_addresses(&mut self, client: &str, peer: &str) -> Result<(), UrlError> {
        let client: HttpUrl = format!("http://{client}").parse()?;
        let peer: HttpUrl = format!("http://{peer}").parse()?;
        self.listen_client_urls = vec![client.clone()];
        self.advertise_client_urls = vec![client];
        self.listen_peer_urls = vec![peer.clone()];
        self.initial_advertise_peer_urls = vec![peer];
        Ok(())
    }

    /// The data directory: as configured, or `<name>.etcd`.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.etcd", self.name)))
    }

    /// Checks everything that can be checked without looking at the machine, and says how a member without data comes
    /// to its cluster.
    pub fn validate(&self) -> Result<Bootstrap, ConfigError> {
        self.check().map_err(ConfigError)?;
        self.bootstrap().map_err(ConfigError)
    }

    /// What is legitimate and yet probably a mistake; one line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let advertised = [
            ("advertise-client-urls", &self.advertise_client_urls),
            ("initial-advertise-peer-urls", &self.initial_advertise_peer_urls),
        ];
        for (flag, urls) in advertised {
            if let Some(url) = urls.iter().find(|url| url.is_unspecified()) {
                warnings.push(format!("-{flag} has {url}, which cannot be dialled from another machine"));
            }
        }
        for (flag, urls, listen) in [
            ("advertise-client-urls", &self.advertise_client_urls, &self.listen_client_urls),
            ("initial-advertise-peer-urls", &self.initial_advertise_peer_urls, &self.listen_peer_urls),
        ] {
            let beyond = urls.iter().find(|url| !url.is_loopback());
            if let (Some(url), true) = (beyond, listen.iter().all(HttpUrl::is_loopback)) {
                warnings.push(format!("-{flag} has {url}, but this member listens on the loopback only"));
            }
        }
        let service_is_elsewhere = self.discovery.as_deref().is_some_and(|url| !on_this_machine(url));
        if service_is_elsewhere
            && let Some(url) = self.initial_advertise_peer_urls.iter().find(|url| url.is_loopback())
        {
            warnings.push(format!(
                "members on other machines cannot reach the peer URL {url}: is -peer-addr or \
                 -initial-advertise-peer-urls missing?"
            ));
        }
        warnings
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name, self.data_dir.is_none())?;
        for (flag, urls, advertised) in [
            ("listen-client-urls", &self.listen_client_urls, false),
            ("advertise-client-urls", &self.advertise_client_urls, true),
            ("listen-peer-urls", &self.listen_peer_urls, false),
            ("initial-advertise-peer-urls", &self.initial_advertise_peer_urls, true),
        ] {
            check_urls(flag, urls, advertised)?;
        }
        let (heartbeat, election) = (self.heartbeat_interval.as_millis(), self.election_timeout.as_millis());
        if heartbeat == 0 {
            return Err("-heartbeat-interval must be at least 1 ms".to_owned());
        }
        if election < heartbeat.saturating_mul(5) {
            return Err(format!(
                "-election-timeout[{election}ms] should be at least as 5 times as -heartbeat-interval[{heartbeat}ms]"
            ));
        }
        if self.election_timeout > ELECTION_TIMEOUT_MAX {
            let most = ELECTION_TIMEOUT_MAX.as_millis();
            return Err(format!(
                "-election-timeout[{election}ms] is too long, and should be set less than {most}ms"
            ));
        }
        for (flag, value) in [
            ("history-events", self.history_events as u64),
            ("history-bytes", self.history_bytes as u64),
            ("snapshot-count", self.snapshot_count),
            ("max-request-bytes", self.max_request_bytes as u64),
        ] {
            if value == 0 {
                return Err(format!("-{flag} must be at least 1"));
            }
        }
        Ok(())
    }

    fn bootstrap(&self) -> Result<Bootstrap, String> {
        let token = self.initial_cluster_token.clone();
        if let Some(url) = &self.discovery {
            if !self.initial_cluster.is_empty() {
                return Err(
                    "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                            \"discovery\" or \"discovery-srv\""
                        .to_owned(),
                );
            }
            if self.initial_cluster_state == ClusterState::Existing {
                return Err(
                    "-discovery forms a new cluster: to join one that exists, set -initial-cluster instead"
                        .to_owned(),
                );
            }
            if authority_of(url).is_none() {
                return Err(format!("-discovery must be an http:// or https:// URL with a token: {url}"));
            }
            return Ok(Bootstrap::Discovery { url: url.clone() });
        }
        if self.initial_cluster.is_empty() {
            if self.initial_cluster_state == ClusterState::Existing {
                return Err("-initial-cluster-state is \"existing\", but -initial-cluster does not say which members \
                            there are"
                    .to_owned());
            }
            let member = InitialMember {
                name: self.name.clone(),
                peer_urls: self.initial_advertise_peer_urls.clone(),
            };
            return Ok(Bootstrap::Single { member, token });
        }
        self.check_initial_cluster()?;
        Ok(Bootstrap::Static {
            members: self.initial_cluster.clone(),
            state: self.initial_cluster_state,
            token,
        })
    }

    fn check_initial_cluster(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        let mut urls = BTreeSet::new();
        for member in &self.initial_cluster {
            check_name(&member.name, false)?;
            if !names.insert(&member.name) {
                return Err(format!("initial cluster has duplicate name {:?}", member.name));
            }
            check_urls("initial-cluster", &member.peer_urls, true)?;
            if let Some(url) = member.peer_urls.iter().find(|url| !urls.insert(*url)) {
                return Err(format!(
                    "initial cluster {} has duplicate url {url}",
                    self.initial_cluster_text()
                ));
            }
        }
        let Some(own) = self.initial_cluster.iter().find(|member| member.name == self.name) else {
            return Err(format!(
                "couldn't find local name {:?} in the initial cluster configuration: {}",
                self.name,
                self.initial_cluster_text()
            ));
        };
        let set = |urls: &[HttpUrl]| urls.iter().cloned().collect::<BTreeSet<HttpUrl>>();
        if set(&own.peer_urls) != set(&self.initial_advertise_peer_urls) {
            return Err(format!(
                "{} has different advertised URLs in the cluster and advertised peer URLs list: -initial-cluster \
                 has {}, -initial-advertise-peer-urls has {}",
                self.name,
                joined(&own.peer_urls),
                joined(&self.initial_advertise_peer_urls)
            ));
        }
        Ok(())
    }

    fn initial_cluster_text(&self) -> String {
        let pairs = |member: &InitialMember| -> Vec<String> {
            member.peer_urls.iter().map(|url| format!("{}={url}", member.name)).collect()
        };
        self.initial_cluster.iter().flat_map(pairs).collect::<Vec<_>>().join(",")
    }
}

fn check_name(name: &str, names_directory: bool) -> Result<(), String> {
    const BYTES_MAX: usize = 255;
    let wrong = if name.is_empty() {
        "must not be empty"
    } else if name.len() > BYTES_MAX {
        "must not be longer than 255 bytes"
    } else if name.contains(['=', ',']) || name.chars().any(char::is_control) {
        "must not contain \"=\", \",\" or control characters"
    } else if names_directory && name.contains('/') {
        "must not contain \"/\" unless -data-dir is set"
    } else {
        return Ok(());
    };
    Err(format!("-name {wrong}: {name:?}"))
}

fn check_urls(flag: &str, urls: &[HttpUrl], advertised: bool) -> Result<(), String> {
    if urls.is_empty() {
        return Err(format!("-{flag} has no URL"));
    }
    if advertised && let Some(url) = urls.iter().find(|url| url.port() == 0 || url.host().is_empty()) {
        return Err(format!("-{flag} has {url}, which nobody can dial"));
    }
    let distinct: BTreeSet<&HttpUrl> = urls.iter().collect();
    if distinct.len() < urls.len() {
        return Err(format!("-{flag} has the same URL twice: {}", joined(urls)));
    }
    Ok(())
}

fn joined(urls: &[HttpUrl]) -> String {
    urls.iter().map(HttpUrl::as_str).collect::<Vec<_>>().join(",")
}

/// `host[:port]` of an http or https URL that has something behind it.
fn authority_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let (authority, token) = rest.split_once('/')?;
    (!authority.is_empty() && !token.trim_matches('/').is_empty()).then_some(authority)
}

fn on_this_machine(url: &str) -> bool {
    let authority = authority_of(url).unwrap_or_default();
    let text = format!("http://{authority}");
    let with_port: Result<HttpUrl, _> = text.parse().or_else(|_| format!("{text}:80").parse());
    with_port.is_ok_and(|url| url.is_loopback())
}

#[cfg(test)]
mod tests;
