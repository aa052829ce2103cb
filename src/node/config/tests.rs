use super::*;
use proptest::prelude::*;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn run(args: &str, env: Pairs<'_>) -> Result<Invocation, UsageError> {
    let args = args.split_whitespace().map(str::to_owned);
    parse(args, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn served(args: &str, env: Pairs<'_>) -> (Config, Vec<String>) {
    match run(args, env) {
        Ok(Invocation::Serve(config, warnings)) => (*config, warnings),
        other => panic!("{args}: {other:?}"),
    }
}

fn config(args: &str) -> Config {
    served(args, &[]).0
}

fn refusal(args: &str, env: Pairs<'_>) -> String {
    match run(args, env) {
        Err(error) => error.to_string(),
        Ok(other) => panic!("{args} {env:?}: {other:?}"),
    }
}

fn texts(urls: &[HttpUrl]) -> Vec<&str> {
    urls.iter().map(HttpUrl::as_str).collect()
}

#[test]
fn nothing_given_is_a_member_alone_on_the_loopback() {
    let (config, warnings) = served("", &[("HOME", "/root"), ("ETCDCTL_PEERS", "x")]);
    assert_eq!(config, Config::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.data_dir(), PathBuf::from("default.etcd"));
    let own = InitialMember {
        name: "default".to_owned(),
        peer_urls: vec!["http://127.0.0.1:7001".parse().unwrap()],
    };
    assert_eq!(config.validate(), Ok(Bootstrap::Single { member: own, token: "etcd-cluster".to_owned() }));
}

/// Where a member listens and what it advertises, for clients and for peers.
#[test]
fn addresses_in_both_spellings() {
    // arguments, listen client, advertise client, listen peer, advertise peer
    let cases: &[(&str, [&str; 4])] = &[
        (
            "-addr 10.0.0.1:4001 -peer-addr 10.0.0.1:7001",
            ["http://0.0.0.0:4001", "http://10.0.0.1:4001", "http://0.0.0.0:7001", "http://10.0.0.1:7001"],
        ),
        (
            "-addr 127.0.0.1:4011 -peer-addr localhost:7011",
            [
                "http://127.0.0.1:4011",
                "http://127.0.0.1:4011",
                "http://localhost:7011",
                "http://localhost:7011",
            ],
        ),
        (
            "-addr [fd00::1]:4001 -peer-addr n1:7001",
            ["http://[::]:4001", "http://[fd00::1]:4001", "http://0.0.0.0:7001", "http://n1:7001"],
        ),
        (
            "-addr 10.0.0.1:4001 -bind-addr 10.0.0.1 -peer-addr 10.0.0.1:7001 -peer-bind-addr 0.0.0.0:7002",
            ["http://10.0.0.1:4001", "http://10.0.0.1:4001", "http://0.0.0.0:7002", "http://10.0.0.1:7001"],
        ),
        (
            "-bind-addr 10.0.0.1:4005 -peer-bind-addr ::1",
            ["http://10.0.0.1:4005", "http://10.0.0.1:4005", "http://[::1]:7001", "http://[::1]:7001"],
        ),
        (
            "-bind-addr 0.0.0.0 -peer-addr 10.0.0.1:7001",
            ["http://0.0.0.0:4001", "http://10.0.0.1:4001", "http://0.0.0.0:7001", "http://10.0.0.1:7001"],
        ),
        (
            "--listen-client-urls=http://10.0.0.1:2379,http://127.0.0.1:4001 --listen-peer-urls http://10.0.0.1:2380",
            [
                "http://10.0.0.1:2379,http://127.0.0.1:4001",
                "http://10.0.0.1:2379,http://127.0.0.1:4001",
                "http://10.0.0.1:2380",
                "http://10.0.0.1:2380",
            ],
        ),
        // A CoreOS unit of 2015.
        (
            "--advertise-client-urls http://10.0.0.1:2379 --initial-advertise-peer-urls http://10.0.0.1:2380 \
             --listen-client-urls http://0.0.0.0:2379,http://0.0.0.0:4001 \
             --listen-peer-urls http://10.0.0.1:2380,http://10.0.0.1:7001",
            [
                "http://0.0.0.0:2379,http://0.0.0.0:4001",
                "http://10.0.0.1:2379",
                "http://10.0.0.1:2380,http://10.0.0.1:7001",
                "http://10.0.0.1:2380",
            ],
        ),
    ];
    for (args, [listen_client, advertise_client, listen_peer, advertise_peer]) in cases {
        let config = config(args);
        assert_eq!(texts(&config.listen_client_urls).join(","), *listen_client, "{args}");
        assert_eq!(texts(&config.advertise_client_urls).join(","), *advertise_client, "{args}");
        assert_eq!(texts(&config.listen_peer_urls).join(","), *listen_peer, "{args}");
        assert_eq!(texts(&config.initial_advertise_peer_urls).join(","), *advertise_peer, "{args}");
    }
}

#[test]
fn guesses_and_probable_mistakes_are_said() {
    let cases: &[(&str, &str)] = &[
        (
            "-bind-addr 0.0.0.0",
            "neither -advertise-client-urls nor -addr is set, advertising http://127.0.0.1:4001",
        ),
        (
            "-listen-peer-urls http://0.0.0.0:2380",
            "neither -initial-advertise-peer-urls nor -peer-addr is set, advertising http://127.0.0.1:2380",
        ),
        (
            "-discovery http://d.example/v2/keys/t",
            "members on other machines cannot reach the peer URL http://127.0.0.1:7001: is -peer-addr or \
             -initial-advertise-peer-urls missing?",
        ),
        (
            "-peer-addr 0.0.0.0:7001",
            "-initial-advertise-peer-urls has http://0.0.0.0:7001, which cannot be dialled from another machine",
        ),
        (
            "-advertise-client-urls http://10.0.0.1:4001",
            "-advertise-client-urls has http://10.0.0.1:4001, but this member listens on the loopback only",
        ),
    ];
    for (args, warning) in cases {
        assert_eq!(served(args, &[]).1, [*warning], "{args}");
    }
    for silent in [
        "-addr 10.0.0.1:4001 -peer-addr 10.0.0.1:7001 -discovery https://discovery.etcd.io/0123",
        "-discovery http://127.0.0.1:4001/v2/keys/t -discovery-fallback=exit",
        "-discovery http://localhost/t -proxy off",
    ] {
        assert_eq!(served(silent, &[]).1, [""; 0], "{silent}");
    }
}

#[test]
fn the_other_settings() {
    let config = config(
        "--name=n1 -data-dir n1 -snapshot-count 5 --heartbeat-interval 50 --election-timeout=500 \
         -cors http://a,http://b -force-new-cluster --strict-reconfig-check=false -history-events 7 \
         -history-bytes 8 -quota-backend-bytes 6 -disk-reserve-bytes 2 -log-bytes-min 3 -log-bytes-max 4 -max-request-bytes 9 -debug -initial-cluster-token tok -name n2 -enable-v2=true",
    );
    let expected = Config {
        name: "n2".to_owned(),
        data_dir: Some(PathBuf::from("n1")),
        snapshot_count: 5,
        heartbeat_interval: Duration::from_millis(50),
        election_timeout: Duration::from_millis(500),
        cors: vec!["http://a".to_owned(), "http://b".to_owned()],
        force_new_cluster: true,
        strict_reconfig_check: false,
        history_events: 7,
        history_bytes: 8,
        quota_backend_bytes: 6,
        disk_reserve_bytes: Some(2),
        log_bytes_min: 3,
        log_bytes_max: 4,
        max_request_bytes: 9,
        log_level: "debug".to_owned(),
        initial_cluster_token: "tok".to_owned(),
        ..Config::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn flags_beat_the_environment_and_what_is_empty_is_not_set() {
    let env: Pairs<'_> = &[
        ("ETCD_NAME", "from-env"),
        ("ETCD_SNAPSHOTCOUNT", " 77 "),
        ("ETCD_DISCOVERY", ""),
        ("ETCD_ELECTION_TIMEOUT", "not a number, and not looked at"),
        ("ETCD_DEBUG", "true"),
        ("ETCD_UNSUPPORTED_ARCH", "arm64"),
        ("ETCD_PORT_2379_TCP", "tcp://secret"),
    ];
    let (config, warnings) = served("-election-timeout 2000 -log-level warn -data-dir=", env);
    assert_eq!((config.name.as_str(), config.snapshot_count), ("from-env", 77));
    assert_eq!(config.election_timeout, Duration::from_secs(2));
    assert_eq!(config.log_level, "warn");
    assert_eq!(config.data_dir(), PathBuf::from("from-env.etcd"));
    assert_eq!(config.discovery, None);
    assert_eq!(warnings, ["unrecognized environment variable ETCD_PORT_2379_TCP"]);
    let both: Pairs<'_> = &[("ETCD_SNAPSHOT_COUNT", "1"), ("ETCD_SNAPSHOTCOUNT", "2")];
    assert_eq!(served("", both).0.snapshot_count, 1);
}

/// The drop-in that cloudinit writes for the cloud-config of 2014.
#[test]
fn a_machine_of_2014_starts() {
    let env: Pairs<'_> = &[
        ("ETCD_ADDR", "10.0.0.1:4001"),
        ("ETCD_PEER_ADDR", "10.0.0.1:7001"),
        ("ETCD_DISCOVERY", "https://discovery.etcd.io/0123456789abcdef0123456789abcdef"),
        ("ETCD_DATA_DIR", "/var/lib/etcd"),
        ("ETCD_PEER_ELECTION_TIMEOUT", "1200"),
        ("ETCD_VERBOSE", "true"),
    ];
    let (config, warnings) = served("", env);
    assert_eq!(config.name, "10.0.0.1-7001", "tells it from the others");
    assert_eq!(
        config.validate(),
        Ok(Bootstrap::Discovery {
            url: "https://discovery.etcd.io/0123456789abcdef0123456789abcdef".to_owned()
        })
    );
    assert_eq!(
        warnings,
        [
            "flag \"-peer-election-timeout\" is no longer supported - ignoring.",
            "flag \"-v\" is no longer supported - ignoring.",
        ]
    );
}

#[test]
fn what_other_versions_knew_is_warned_about() {
    let (config, warnings) =
        served("-n n1 -cluster-active-size 3 -vv --max-wals=0 -snapshot=false -client-cert-auth=false", &[]);
    assert_eq!(config.name, "n1");
    assert_eq!(
        warnings,
        [
            "[deprecated] use -name, not -n",
            "flag \"-cluster-active-size\" is no longer supported - ignoring.",
            "flag \"-vv\" is no longer supported - ignoring.",
            "flag \"-max-wals\" has no effect here - ignoring.",
            "flag \"-snapshot\" is no longer supported - ignoring.",
        ]
    );
}

#[test]
fn errors_are_one_line_that_names_flag_and_value() {
    let cases: &[(&str, &str)] = &[
        ("-nmae x", "unknown flag -nmae, did you mean -name?; see --help"),
        (
            "--listen-client-url x",
            "unknown flag -listen-client-url, did you mean -listen-client-urls?; see --help",
        ),
        ("--qqqqqqqqq", "unknown flag -qqqqqqqqq; see --help"),
        ("-name", "flag needs an argument: -name NAME"),
        ("-", "\"-\" is not a flag; see --help"),
        ("-name x y", "\"y\" is not a flag; see --help"),
        ("-force-new-cluster false", "\"false\" is not a flag, write -force-new-cluster=false"),
        ("-force-new-cluster=2", "invalid value \"2\" for flag -force-new-cluster: it must be true or false"),
        (
            "-listen-client-urls http://10.0.0.1",
            "invalid value \"http://10.0.0.1\" for flag -listen-client-urls: URL address does not have the form \
             \"host:port\": http://10.0.0.1",
        ),
        (
            "-listen-peer-urls https://10.0.0.1:1",
            "invalid value \"https://10.0.0.1:1\" for flag -listen-peer-urls: TLS is not supported yet, URL scheme \
             must be http: https://10.0.0.1:1",
        ),
        (
            "-addr 10.0.0.1",
            "invalid value \"10.0.0.1\" for flag -addr: it does not have the form \"host:port\"",
        ),
        (
            "-addr http://h:1",
            "invalid value \"http://h:1\" for flag -addr: it is host:port, without a scheme",
        ),
        (
            "-bind-addr :4001",
            "invalid value \":4001\" for flag -bind-addr: it does not have the form \"host[:port]\"",
        ),
        (
            "-snapshot-count -1",
            "invalid value \"-1\" for flag -snapshot-count: it must be a whole number, and not too large",
        ),
        ("-snapshot-count 0", "-snapshot-count must be at least 1"),
        (
            "-addr h:1 -advertise-client-urls http://h:1",
            "Set only one of flags -addr and -advertise-client-urls",
        ),
        (
            "-peer-bind-addr h:1 -listen-peer-urls http://h:1",
            "Set only one of flags -peer-bind-addr and -listen-peer-urls",
        ),
        ("-peers a:7001", "flag \"-peers\" cannot be set: use -initial-cluster or -discovery"),
        ("-key-file k", "flag \"-key-file\" cannot be set: TLS is not supported yet"),
        ("-client-cert-auth", "flag \"-client-cert-auth\" cannot be set: TLS is not supported yet"),
        (
            "-proxy on",
            "invalid value \"on\" for flag -proxy: quorate does not run as a proxy, only \"off\" is supported",
        ),
        (
            "-initial-cluster-state old",
            "invalid value \"old\" for flag -initial-cluster-state: it must be \"new\" or \"existing\"",
        ),
        (
            "-election-timeout 400",
            "-election-timeout[400ms] should be at least as 5 times as -heartbeat-interval[100ms]",
        ),
        (
            "-election-timeout 60000",
            "-election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        ("-name a=b", "-name must not contain \"=\", \",\" or control characters: \"a=b\""),
        ("-name a/b", "-name must not contain \"/\" unless -data-dir is set: \"a/b\""),
        (
            "-discovery http://d/t -initial-cluster default=http://127.0.0.1:7001",
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\" or \
             \"discovery-srv\"",
        ),
        ("-discovery d.example/t", "-discovery must be an http:// or https:// URL with a token: d.example/t"),
        (
            "-discovery http://d.example/",
            "-discovery must be an http:// or https:// URL with a token: http://d.example/",
        ),
        ("serv", "unknown command \"serv\"; see --help"),
        ("chekc x", "unknown command \"chekc\", did you mean check?; see --help"),
        ("check", "check takes one argument: quorate check DATA-DIR"),
        ("version 2", "version takes no arguments"),
    ];
    for (args, expected) in cases {
        assert_eq!(refusal(args, &[]), *expected, "{args}");
    }
    assert_eq!(
        refusal("", &[("ETCD_ELECTION_TIMEOUT", "x")]),
        "invalid value \"x\" for ETCD_ELECTION_TIMEOUT: it must be a whole number, and not too large"
    );
    assert_eq!(refusal("", &[("ETCD_CA_FILE", "x")]), "ETCD_CA_FILE cannot be set: TLS is not supported yet");
}

#[test]
fn the_initial_cluster_is_read_and_checked() {
    let own = "-name b -initial-advertise-peer-urls http://h2:1,http://h3:1";
    let good = config(&format!("{own} -initial-cluster b=http://h3:1,a=http://h1:1,b=http://h2:1"));
    let Ok(Bootstrap::Static { members, state, token }) = good.validate() else { panic!("not static") };
    let read: Vec<(&str, Vec<&str>)> =
        members.iter().map(|member| (member.name.as_str(), texts(&member.peer_urls))).collect();
    assert_eq!(read, [("b", vec!["http://h3:1", "http://h2:1"]), ("a", vec!["http://h1:1"])]);
    assert_eq!((state, token.as_str()), (ClusterState::New, "etcd-cluster"));

    let cases: &[(&str, &str)] = &[
        (
            "a=http://h1:1",
            "couldn't find local name \"b\" in the initial cluster configuration: a=http://h1:1",
        ),
        (
            "b=http://h2:1",
            "b has different advertised URLs in the cluster and advertised peer URLs list: -initial-cluster has \
             http://h2:1, -initial-advertise-peer-urls has http://h2:1,http://h3:1",
        ),
        (
            "a=http://h2:1,b=http://h2:1",
            "initial cluster a=http://h2:1,b=http://h2:1 has duplicate url http://h2:1",
        ),
        (
            "a=http://h1:1,b",
            "invalid value \"a=http://h1:1,b\" for flag -initial-cluster: Empty URL given for \"b\"",
        ),
        ("a=h1:1", "invalid value \"a=h1:1\" for flag -initial-cluster: URL scheme must be http: h1:1"),
    ];
    for (cluster, expected) in cases {
        assert_eq!(refusal(&format!("{own} -initial-cluster {cluster}"), &[]), *expected, "{cluster}");
    }
    let existing = config(&format!(
        "{own} -initial-cluster-state existing -initial-cluster a=http://h1:1,b=http://h2:1,b=http://h3:1"
    ));
    assert!(matches!(existing.validate(), Ok(Bootstrap::Static { state: ClusterState::Existing, .. })));
    assert_eq!(
        refusal("-initial-cluster-state existing", &[]),
        "-initial-cluster-state is \"existing\", but -initial-cluster does not say which members there are"
    );
}

#[test]
fn an_embedded_config_is_checked_too() {
    let url = |text: &str| text.parse::<HttpUrl>().unwrap();
    let free_ports = Config { listen_client_urls: vec![url("http://127.0.0.1:0")], ..Config::default() };
    assert!(free_ports.validate().is_ok());
    let cases = [
        (Config { name: String::new(), ..Config::default() }, "-name must not be empty: \"\""),
        (Config { listen_peer_urls: Vec::new(), ..Config::default() }, "-listen-peer-urls has no URL"),
        (
            Config { advertise_client_urls: vec![url("http://h:0")], ..Config::default() },
            "-advertise-client-urls has http://h:0, which nobody can dial",
        ),
        (
            Config { listen_client_urls: vec![url("http://h:1"), url("http://h:1")], ..Config::default() },
            "-listen-client-urls has the same URL twice: http://h:1,http://h:1",
        ),
        (Config { history_events: 0, ..Config::default() }, "-history-events must be at least 1"),
        (
            Config { heartbeat_interval: Duration::ZERO, ..Config::default() },
            "-heartbeat-interval must be at least 1 ms",
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(config.validate().map_err(|error| error.to_string()), Err(expected.to_owned()));
    }
}

#[test]
fn commands() {
    assert_eq!(run("check /var/lib/etcd", &[]), Ok(Invocation::Check(PathBuf::from("/var/lib/etcd"))));
    assert_eq!(run("demo --fast 3", &[]), Ok(Invocation::Demo(vec!["--fast".to_owned(), "3".to_owned()])));
    for version in ["version", "-version", "--version", "-name x --version"] {
        assert_eq!(run(version, &[("ETCD_ELECTION_TIMEOUT", "x")]), Ok(Invocation::Version), "{version}");
    }
    for help in ["help", "-h", "-help", "--help"] {
        assert!(matches!(run(help, &[]), Ok(Invocation::Help(_))), "{help}");
    }
}

#[test]
fn the_help_tells_every_flag_and_variable_in_lines_that_fit() {
    let text = help::text();
    for flag in rows::FLAGS.iter().filter(|flag| flag.group != table::Group::Hidden) {
        assert!(text.contains(&format!("  -{}", flag.name)), "{}", flag.name);
        flag.variable_names().for_each(|name| assert!(text.contains(&name), "{name}"));
    }
    assert!(text.lines().all(|line| line.len() <= 110 && line.trim_end() == line));
}

/// What the help says about defaults is what the defaults are.
#[test]
fn the_table_is_sound() {
    let names: BTreeSet<&str> = rows::FLAGS.iter().map(|flag| flag.name).collect();
    assert_eq!(names.len(), rows::FLAGS.len(), "a flag is there twice");
    for flag in rows::FLAGS.iter().filter(|flag| flag.group != table::Group::Hidden) {
        let literal = flag.default.starts_with("http")
            || matches!(
                flag.default,
                "true" | "false" | "new" | "info" | "exit" | "default" | "etcd-cluster"
            )
            || flag.default.bytes().all(|byte| byte.is_ascii_digit());
        if literal {
            assert_eq!(
                config(&format!("-{}={}", flag.name, flag.default)),
                Config::default(),
                "{}",
                flag.name
            );
        }
    }
}

proptest! {
    #[test]
    fn never_panics(args in prop::collection::vec("-{0,2}(name|addr|initial-cluster|cors|f|h)?(=|[ -~]){0,12}", 0..5)) {
        if let Err(error) = parse(args, []) {
            prop_assert_eq!(error.to_string().lines().count(), 1);
        }
    }
}
