//! Which endpoints to talk to, and the client that does.

use super::failure::{BAD_ARGS, BAD_CONNECTION, Failure, SERVER_ERROR, note};
use super::flags::Parsed;
use crate::client::{Client, Error, Outgoing};
use std::time::Duration;

/// Looks up an environment variable; an empty one counts as not set.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Asked when nothing else is given: the port of this server and of etcd 0.4, then that of etcd 2.
const DEFAULT: &str = "http://127.0.0.1:4001,http://127.0.0.1:2379";
/// Time for one request where `--timeout` does not say.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the command where `--total-timeout` does not say.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);

/// An option or its environment variable.
fn option(globals: &Parsed, flag: &str, variable: &str, env: Environment<'_>) -> Option<String> {
    let given = globals.text(flag).map(str::to_owned).filter(|text| !text.is_empty());
    given.or_else(|| env(variable).filter(|text| !text.is_empty()))
}

/// The endpoints, by precedence: the newest option first, each before its variable.
fn endpoints(globals: &Parsed, env: Environment<'_>) -> Vec<String> {
    let sources =
        [("endpoints", "ETCDCTL_ENDPOINTS"), ("endpoint", "ETCDCTL_ENDPOINT"), ("peers", "ETCDCTL_PEERS")];
    let chosen = sources.iter().find_map(|(flag, variable)| option(globals, flag, variable, env));
    chosen.as_deref().unwrap_or(DEFAULT).split(',').map(|endpoint| endpoint.trim().to_owned()).collect()
}

/// A client as the global options and the environment describe it.
pub(super) fn client(globals: &Parsed, env: Environment<'_>) -> Result<Client, Failure> {
    if option(globals, "discovery-srv", "ETCDCTL_DISCOVERY_SRV", env).is_some() {
        return Err(Failure::bare(BAD_ARGS, "--discovery-srv is not supported; use --endpoints"));
    }
    let timeout = globals.duration("timeout").unwrap_or(TIMEOUT);
    let mut builder = Client::builder()
        // Zero means no limit for one request, and no time at all for the command.
        .timeout((!timeout.is_zero()).then_some(timeout))
        .total_timeout(globals.duration("total-timeout").unwrap_or(TOTAL_TIMEOUT));
    if let Some(path) = option(globals, "ca-file", "ETCDCTL_CA_FILE", env) {
        builder = builder.ca_pem(read(&path)?);
    }
    let cert = option(globals, "cert-file", "ETCDCTL_CERT_FILE", env);
    let key = option(globals, "key-file", "ETCDCTL_KEY_FILE", env);
    builder = match (cert, key) {
        (None, None) => builder,
        (Some(cert), Some(key)) => builder.identity_pem([read(&cert)?, read(&key)?].concat()),
        (cert, key) => {
            let (cert, key) = (cert.unwrap_or_default(), key.unwrap_or_default());
            let text = format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
            return Err(Failure::bare(BAD_ARGS, text));
        }
    };
    if let Some(user) = option(globals, "username", "ETCDCTL_USERNAME", env) {
        let Some((user, password)) = user.split_once(':') else {
            return Err(Failure::bare(BAD_ARGS, "a password is needed: --username USER:PASSWORD"));
        };
        builder = builder.credentials(user, password);
    }
    if globals.bool("debug") {
        builder = builder.trace(print_curl);
    }
    builder.build(endpoints(globals, env)).map_err(|error| Failure::bare(BAD_ARGS, error))
}

/// A client that, unless told otherwise, has asked the cluster for its members' endpoints.
pub(super) async fn synced_client(globals: &Parsed, env: Environment<'_>) -> Result<Client, Failure> {
    let client = client(globals, env)?;
    let debug = globals.bool("debug");
    if !globals.bool("no-sync") {
        let given = client.endpoints().join(",");
        if debug {
            note(format_args!("start to sync cluster using endpoints({given})"));
        }
        match client.sync().await {
            Err(Error::NoEndpoints) => {
                let failure = Failure::text(SERVER_ERROR, Error::NoEndpoints);
                let hint = format!(
                    "etcd cluster has no published client endpoints.\n\
                     Try '--no-sync' if you want to access non-published client endpoints({given}).\n"
                );
                return Err(Failure { stderr: hint + &failure.stderr, ..failure });
            }
            Err(error) if error.is_connection() => return Err(Failure::error(BAD_CONNECTION, &error)),
            // A server that cannot list its members (etcd 0.4 has no such request) may still serve keys.
            Ok(()) | Err(_) => {}
        }
        if debug {
            note(format_args!("got endpoints({}) after sync", client.endpoints().join(",")));
        }
    }
    if debug {
        print_endpoints(&client);
    }
    Ok(client)
}

/// `--debug`: the endpoints that the command is about to use.
pub(super) fn print_endpoints(client: &Client) {
    note(format_args!("Cluster-Endpoints: {}", client.endpoints().join(", ")));
}

fn print_curl(request: &Outgoing<'_>) {
    let body = match request.body {
        Some(body) => format!(" -d \"{}\"", body.replace('\\', "\\\\").replace('"', "\\\"")),
        None => String::new(),
    };
    note(format_args!("cURL Command: curl -X {} {}{body}", request.method, request.url));
}

fn read(path: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::bare(BAD_ARGS, format_args!("open {path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::super::app::GLOBAL_FLAGS;
    use super::super::flags::parse_global;
    use super::*;

    fn chosen(args: &[&str], env: &[(&str, &str)]) -> Vec<String> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let globals = parse_global(GLOBAL_FLAGS, &args).unwrap();
        let lookup = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        endpoints(&globals, &lookup)
    }

    #[test]
    fn each_source_wins_over_those_below_it() {
        let flags = [["--endpoints", "a"], ["--endpoint", "c"], ["--peers", "e"]];
        let env = [("ETCDCTL_ENDPOINTS", "b"), ("ETCDCTL_ENDPOINT", "d"), ("ETCDCTL_PEERS", "f")];
        for from in 0..=6_usize {
            let flags = flags[usize::min(from.div_ceil(2), 3)..].concat();
            let expected = ["a", "b", "c", "d", "e", "f"].get(from);
            let got = chosen(&flags, &env[from / 2..]);
            match expected {
                Some(expected) => assert_eq!(got, [*expected], "from {from}"),
                None => assert_eq!(got, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]),
            }
        }
    }

    #[test]
    fn an_empty_source_is_none() {
        assert_eq!(chosen(&["--endpoints", "", "-C", "x,y"], &[("ETCDCTL_ENDPOINT", "")]), ["x", "y"]);
    }

    #[test]
    fn a_scheme_is_added_where_it_is_missing() {
        for (given, used) in [
            ("127.0.0.1:4001", "http://127.0.0.1:4001"),
            ("localhost:4001", "http://localhost:4001"),
            ("https://h:1/", "https://h:1"),
            ("[::1]:4001", "http://[::1]:4001"),
        ] {
            let globals = parse_global(GLOBAL_FLAGS, &["-C".to_owned(), given.to_owned()]).unwrap();
            assert_eq!(client(&globals, &|_| None).unwrap().endpoints(), [used]);
        }
        let globals = parse_global(GLOBAL_FLAGS, &["-C".to_owned(), "ftp://h".to_owned()]).unwrap();
        assert_eq!(client(&globals, &|_| None).unwrap_err().code, 1);
    }
}
