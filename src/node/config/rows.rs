//! Every flag there is.

use super::ClusterState;
use super::draft::{Draft, address, bind_address, members, milliseconds, number, path, urls};
use super::table::{Effect, Flag, Group};
use Group::{Cluster, Member, Old, Tuning};

const fn text(
    group: Group,
    name: &'static str,
    value: &'static str,
    default: &'static str,
    since: &'static str,
    help: &'static str,
    set: fn(&mut Draft, &str) -> Result<(), String>,
) -> Flag {
    Flag { name, variables: &[], value, default, since, group, help, effect: Effect::Text(set) }
}

const fn switch(
    group: Group,
    name: &'static str,
    default: &'static str,
    since: &'static str,
    help: &'static str,
    set: fn(&mut Draft, bool) -> Result<(), String>,
) -> Flag {
    Flag { name, variables: &[], value: "", default, since, group, help, effect: Effect::Switch(set) }
}

const fn hidden(
    name: &'static str,
    value: &'static str,
    variables: &'static [&'static str],
    effect: Effect,
) -> Flag {
    Flag { name, variables, value, default: "", since: "", group: Group::Hidden, help: "", effect }
}

const fn dropped(name: &'static str, value: &'static str, variables: &'static [&'static str]) -> Flag {
    hidden(name, value, variables, Effect::Dropped)
}

const fn moot(name: &'static str, value: &'static str) -> Flag {
    hidden(name, value, &[], Effect::Moot)
}

const fn refused(name: &'static str, value: &'static str, why: &'static str) -> Flag {
    hidden(name, value, &[], Effect::Refused(why))
}

const fn also(mut flag: Flag, variables: &'static [&'static str]) -> Flag {
    flag.variables = variables;
    flag
}

const TLS: &str = "TLS is not supported yet";
const AUTH: &str = "it is not supported yet";
const NO_PEERS: &str = "use -initial-cluster or -discovery";

/// The table.
pub(super) static FLAGS: &[Flag] = &[
    text(
        Member,
        "name",
        "NAME",
        "default",
        "0.1",
        "Name of this member; with -discovery, its peer address by default",
        |d, v| {
            d.name = Some(v.to_owned());
            Ok(())
        },
    ),
    text(Member, "data-dir", "DIR", "<name>.etcd", "0.1", "Where the member keeps its state", |d, v| {
        d.config.data_dir = Some(path(v));
        Ok(())
    }),
    text(
        Member,
        "listen-client-urls",
        "URLS",
        "http://127.0.0.1:4001",
        "2.0",
        "Where to listen for clients",
        |d, v| {
            d.client.listen = Some(urls(v)?);
            Ok(())
        },
    ),
    text(
        Member,
        "advertise-client-urls",
        "URLS",
        "as listened on",
        "2.0",
        "Where clients are told to find this member",
        |d, v| {
            d.client.advertise = Some(urls(v)?);
            Ok(())
        },
    ),
    text(
        Member,
        "listen-peer-urls",
        "URLS",
        "http://127.0.0.1:7001",
        "2.0",
        "Where to listen for other members",
        |d, v| {
            d.peer.listen = Some(urls(v)?);
            Ok(())
        },
    ),
    text(
        Member,
        "cors",
        "ORIGINS",
        "none",
        "0.1",
        "Origins that browsers may send requests from, or *",
        |d, v| {
            d.config.cors =
                v.split(',').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect();
            Ok(())
        },
    ),
    text(
        Member,
        "log-level",
        "LEVEL",
        "info",
        "3.4",
        "error, warn, info, debug or trace; or directives such as warn,quorate=debug",
        |d, v| {
            d.log_level = Some(v.to_owned());
            Ok(())
        },
    ),
    switch(Member, "debug", "false", "2.0", "-log-level debug, unless that is set", |d, on| {
        d.debug = on;
        Ok(())
    }),
    text(
        Cluster,
        "initial-advertise-peer-urls",
        "URLS",
        "as listened on",
        "2.0",
        "Where other members are told to find this one",
        |d, v| {
            d.peer.advertise = Some(urls(v)?);
            Ok(())
        },
    ),
    text(
        Cluster,
        "initial-cluster",
        "NAME=URL,...",
        "this member alone",
        "2.0",
        "The members of the cluster, this one included",
        |d, v| {
            d.config.initial_cluster = members(v)?;
            Ok(())
        },
    ),
    text(
        Cluster,
        "initial-cluster-state",
        "STATE",
        "new",
        "2.0",
        "new, or existing to join a cluster that this member was added to",
        |d, v| {
            d.config.initial_cluster_state = match v {
                "new" => ClusterState::New,
                "existing" => ClusterState::Existing,
                _ => return Err("it must be \"new\" or \"existing\"".to_owned()),
            };
            Ok(())
        },
    ),
    text(
        Cluster,
        "initial-cluster-token",
        "TOKEN",
        "etcd-cluster",
        "2.0",
        "Tells clusters that begin with the same addresses apart",
        |d, v| {
            v.clone_into(&mut d.config.initial_cluster_token);
            Ok(())
        },
    ),
    text(
        Cluster,
        "discovery",
        "URL",
        "none",
        "0.3",
        "Discovery URL that brings the members of a new cluster together",
        |d, v| {
            d.config.discovery = Some(v.to_owned());
            Ok(())
        },
    ),
    text(
        Cluster,
        "discovery-fallback",
        "WHAT",
        "standby",
        "2.0",
        "What to do when the discovered cluster is full: join it as a standby, without a vote (also: proxy), or exit",
        |d, v| {
            // etcd's proxy forwards to the cluster; a standby does that, and has the keys besides.
            d.config.standby = match v {
                "standby" | "proxy" => true,
                "exit" => false,
                _ => return Err("it must be \"standby\" or \"exit\"".to_owned()),
            };
            Ok(())
        },
    ),
    switch(
        Cluster,
        "strict-reconfig-check",
        "true",
        "2.3",
        "Refuse membership changes that would cost the quorum",
        |d, on| {
            d.config.strict_reconfig_check = on;
            Ok(())
        },
    ),
    switch(
        Cluster,
        "force-new-cluster",
        "false",
        "2.0",
        "Begin a new cluster of this member and its data alone: the last resort when a quorum is lost",
        |d, on| {
            d.config.force_new_cluster = on;
            Ok(())
        },
    ),
    text(
        Old,
        "addr",
        "HOST:PORT",
        "127.0.0.1:4001",
        "0.1",
        "Where clients are told to find this member",
        |d, v| {
            d.client.addr = Some(address(v)?);
            Ok(())
        },
    ),
    text(
        Old,
        "bind-addr",
        "HOST[:PORT]",
        "all interfaces if -addr is set",
        "0.1",
        "Where to listen for clients",
        |d, v| {
            d.client.bind_addr = Some(bind_address(v)?);
            Ok(())
        },
    ),
    text(
        Old,
        "peer-addr",
        "HOST:PORT",
        "127.0.0.1:7001",
        "0.1",
        "Where other members are told to find this one",
        |d, v| {
            d.peer.addr = Some(address(v)?);
            Ok(())
        },
    ),
    text(
        Old,
        "peer-bind-addr",
        "HOST[:PORT]",
        "all interfaces if -peer-addr is set",
        "0.1",
        "Where to listen for other members",
        |d, v| {
            d.peer.bind_addr = Some(bind_address(v)?);
            Ok(())
        },
    ),
    text(Tuning, "heartbeat-interval", "MS", "100", "2.0", "Time between a leader's heartbeats", |d, v| {
        d.config.heartbeat_interval = milliseconds(v)?;
        Ok(())
    }),
    text(
        Tuning,
        "election-timeout",
        "MS",
        "1000",
        "2.0",
        "Time without a leader before an election; at least 5 heartbeats",
        |d, v| {
            d.config.election_timeout = milliseconds(v)?;
            Ok(())
        },
    ),
    also(
        text(
            Tuning,
            "snapshot-count",
            "N",
            "100000",
            "0.1",
            "Applied entries between checkpoints",
            |d, v| {
                d.config.snapshot_count = number(v)?;
                Ok(())
            },
        ),
        &["ETCD_SNAPSHOTCOUNT"],
    ),
    text(
        Tuning,
        "log-bytes-min",
        "BYTES",
        "67108864",
        "quorate",
        "Log between checkpoints, however small the keyspace",
        |d, v| {
            d.config.log_bytes_min = number(v)?;
            Ok(())
        },
    ),
    text(
        Tuning,
        "log-bytes-max",
        "BYTES",
        "134217728",
        "quorate",
        "Log between checkpoints, however large the keyspace",
        |d, v| {
            d.config.log_bytes_max = number(v)?;
            Ok(())
        },
    ),
    text(
        Tuning,
        "history-events",
        "N",
        "100000",
        "quorate",
        "Events kept for watchers that come back",
        |d, v| {
            d.config.history_events = number(v)?;
            Ok(())
        },
    ),
    text(
        Tuning,
        "history-bytes",
        "BYTES",
        "33554432",
        "quorate",
        "Memory for these events at most",
        |d, v| {
            d.config.history_bytes = number(v)?;
            Ok(())
        },
    ),
    text(
        Tuning,
        "quota-backend-bytes",
        "BYTES",
        "0",
        "3.0",
        "Keys and values that the keyspace may reach; 0: as many as the disk has room for",
        |d, v| {
            d.config.quota_backend_bytes = number(v)?;
            Ok(())
        },
    ),
    text(
        Tuning,
        "disk-reserve-bytes",
        "BYTES",
        "64 MiB, at most a tenth of the disk",
        "quorate",
        "Free space below which writes are refused; deletes, reads and watches go on",
        |d, v| {
            d.config.disk_reserve_bytes = Some(number(v)?);
            Ok(())
        },
    ),
    text(
        Tuning,
        "max-request-bytes",
        "BYTES",
        "1572864",
        "3.1",
        "Largest request body of a client",
        |d, v| {
            d.config.max_request_bytes = number(v)?;
            Ok(())
        },
    ),
    // Asked for in units that were written for etcd, and what is so here anyway.
    switch(Group::Hidden, "enable-v2", "true", "3.0", "", |_, on| {
        if on { Ok(()) } else { Err("the v2 API is the one that quorate has".to_owned()) }
    }),
    switch(Group::Hidden, "pre-vote", "true", "3.4", "", |_, on| {
        if on { Ok(()) } else { Err("quorate always votes in two phases".to_owned()) }
    }),
    text(Group::Hidden, "proxy", "MODE", "off", "2.0", "", |_, v| match v {
        "off" => Ok(()),
        _ => Err("quorate does not run as a proxy, only \"off\" is supported".to_owned()),
    }),
    // What 2.x ignores with a warning.
    dropped("cluster-active-size", "N", &[]),
    dropped("cluster-remove-delay", "S", &[]),
    dropped("cluster-sync-interval", "S", &[]),
    dropped("config", "FILE", &[]),
    dropped("force", "", &[]),
    dropped("max-result-buffer", "N", &[]),
    dropped("max-retry-attempts", "N", &[]),
    dropped("peer-heartbeat-interval", "MS", &[]),
    dropped("peer-election-timeout", "MS", &[]),
    dropped("retry-interval", "S", &[]),
    dropped("snapshot", "", &[]),
    dropped("v", "", &["ETCD_VERBOSE"]),
    dropped("vv", "", &["ETCD_VERY_VERBOSE"]),
    // Other flags of 0.4.
    dropped("vvv", "", &["ETCD_VERY_VERY_VERBOSE"]),
    dropped("http-read-timeout", "S", &[]),
    dropped("http-write-timeout", "S", &[]),
    dropped("trace", "PATTERN", &[]),
    dropped("graphite-host", "HOST", &[]),
    dropped("cpuprofile", "FILE", &[]),
    // Flags of 2.x and 3.x about things that are otherwise here.
    moot("max-snapshots", "N"),
    moot("max-wals", "N"),
    moot("log-package-levels", "LEVELS"),
    moot("log-output", "WHERE"),
    moot("log-outputs", "WHERE"),
    moot("logger", "NAME"),
    moot("enable-pprof", ""),
    moot("metrics", "KIND"),
    moot("auto-compaction-retention", "TIME"),
    moot("auto-compaction-mode", "MODE"),
    moot("max-txn-ops", "N"),
    moot("proxy-failure-wait", "MS"),
    moot("proxy-refresh-interval", "MS"),
    moot("proxy-dial-timeout", "MS"),
    moot("proxy-write-timeout", "MS"),
    moot("proxy-read-timeout", "MS"),
    // What must not be taken for done.
    refused("peers", "HOSTS", NO_PEERS),
    refused("peers-file", "FILE", NO_PEERS),
    refused("ca-file", "FILE", TLS),
    refused("cert-file", "FILE", TLS),
    refused("key-file", "FILE", TLS),
    refused("client-cert-auth", "", TLS),
    refused("trusted-ca-file", "FILE", TLS),
    refused("client-crl-file", "FILE", TLS),
    refused("auto-tls", "", TLS),
    refused("peer-ca-file", "FILE", TLS),
    refused("peer-cert-file", "FILE", TLS),
    refused("peer-key-file", "FILE", TLS),
    refused("peer-client-cert-auth", "", TLS),
    refused("peer-trusted-ca-file", "FILE", TLS),
    refused("peer-crl-file", "FILE", TLS),
    refused("peer-cert-allowed-cn", "NAME", TLS),
    refused("peer-auto-tls", "", TLS),
    refused("cipher-suites", "NAMES", TLS),
    refused("host-whitelist", "HOSTS", AUTH),
    refused("auth-token", "KIND", AUTH),
    refused("discovery-srv", "DOMAIN", "it is not supported yet, use -initial-cluster or -discovery"),
    refused(
        "discovery-proxy",
        "URL",
        "it is not supported yet, the discovery service must be reached directly",
    ),
    refused("wal-dir", "DIR", "it is not supported, the log is kept in -data-dir"),
    refused("config-file", "FILE", "it is not supported, use flags or the environment"),
    refused("listen-metrics-urls", "URLS", "it is not supported, metrics are served with the client URLs"),
    refused("experimental-v3demo", "", "there is no v3 API here"),
];
