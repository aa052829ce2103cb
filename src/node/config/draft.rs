//! Settings as they were given, on their way to a [`Config`]: what a setting means can depend on the others.

use super::{Config, HttpUrl, InitialMember};
use crate::discovery;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What was given. Settings that stand alone go straight to `config`.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) name: Option<String>,
    pub(super) log_level: Option<String>,
    pub(super) debug: bool,
    pub(super) client: Side,
    pub(super) peer: Side,
    pub(super) warnings: Vec<String>,
}

/// The addresses of one side, clients or peers, in the spellings of 0.4 and of 2.x.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// `-addr`
    pub(super) addr: Option<HttpUrl>,
    /// `-bind-addr`; port 0: that of `-addr`.
    pub(super) bind_addr: Option<HttpUrl>,
    /// `-advertise-client-urls`
    pub(super) advertise: Option<Vec<HttpUrl>>,
    /// `-listen-client-urls`
    pub(super) listen: Option<Vec<HttpUrl>>,
}

/// How the flags of a side are called, for messages.
struct Names {
    addr: &'static str,
    bind_addr: &'static str,
    advertise: &'static str,
    listen: &'static str,
}

const CLIENT: Names = Names {
    addr: "addr",
    bind_addr: "bind-addr",
    advertise: "advertise-client-urls",
    listen: "listen-client-urls",
};
const PEER: Names = Names {
    addr: "peer-addr",
    bind_addr: "peer-bind-addr",
    advertise: "initial-advertise-peer-urls",
    listen: "listen-peer-urls",
};

impl Draft {
    /// The configuration, and what its user should know.
    pub(super) fn resolve(mut self) -> Result<(Config, Vec<String>), String> {
        let mut config = self.config;
        let peer = self.peer.resolve(&PEER, &config.listen_peer_urls, "127.0.0.1", &mut self.warnings)?;
        (config.listen_peer_urls, config.initial_advertise_peer_urls) = peer;
        // By definition the peers' address is one that other machines reach, so clients do too.
        let host = config.initial_advertise_peer_urls.first().map_or("127.0.0.1", HttpUrl::host);
        let client = self.client.resolve(&CLIENT, &config.listen_client_urls, host, &mut self.warnings)?;
        (config.listen_client_urls, config.advertise_client_urls) = client;
        match (self.name, config.discovery.is_some()) {
            (Some(name), _) => config.name = name,
            (None, true) => config.name = name_from(&config.initial_advertise_peer_urls),
            (None, false) => {}
        }
        match (self.log_level, self.debug) {
            (Some(level), _) => config.log_level = level,
            (None, true) => "debug".clone_into(&mut config.log_level),
            (None, false) => {}
        }
        Ok((config, self.warnings))
    }
}

impl Side {
    /// Where to listen and what to advertise. `host` is advertised when nothing says what to.
    fn resolve(
        self,
        names: &Names,
        default: &[HttpUrl],
        host: &str,
        warnings: &mut Vec<String>,
    ) -> Result<(Vec<HttpUrl>, Vec<HttpUrl>), String> {
        let only_one = |old, new| Err(format!("Set only one of flags -{old} and -{new}"));
        if self.addr.is_some() && self.advertise.is_some() {
            return only_one(names.addr, names.advertise);
        }
        if self.bind_addr.is_some() && self.listen.is_some() {
            return only_one(names.bind_addr, names.listen);
        }
        let default_port = default.first().map_or(0, HttpUrl::port);
        let port = self.addr.as_ref().map_or(default_port, HttpUrl::port);
        let bind = self.bind_addr.map(|bind| if bind.port() == 0 { bind.with_port(port) } else { bind });
        let told_where = self.listen.or_else(|| bind.map(|url| vec![url]));
        let listen = match (&told_where, &self.addr) {
            (Some(urls), _) => urls.clone(),
            (None, Some(addr)) => vec![listen_for(addr)],
            (None, None) => default.to_vec(),
        };
        let advertise = match (self.advertise, self.addr) {
            (Some(urls), _) => urls,
            (None, Some(addr)) => vec![addr],
            (None, None) => dialable(&listen, host),
        };
        if told_where.is_some_and(|urls| {
            urls.iter().any(HttpUrl::is_unspecified) && advertise == dialable(&urls, host)
        }) {
            let shown = advertise.iter().map(HttpUrl::as_str).collect::<Vec<_>>().join(",");
            warnings.push(format!(
                "neither -{} nor -{} is set, advertising {shown}",
                names.advertise, names.addr
            ));
        }
        Ok((listen, advertise))
    }
}

/// Where 0.4 and 2.x listen when they are only told what to advertise: on every interface, since the advertised
/// address need not be one of this machine's (NAT, floating addresses) and since local tools use 127.0.0.1. An address
/// of the loopback is not meant to be reached from elsewhere, so that one is not widened.
fn listen_for(addr: &HttpUrl) -> HttpUrl {
    if addr.is_loopback() {
        return addr.clone();
    }
    let any = if addr.ip().is_some_and(|ip| ip.is_ipv6()) { "::" } else { "0.0.0.0" };
    HttpUrl::new(any, addr.port())
}

/// The same URLs with `host` in place of "every interface".
fn dialable(listen: &[HttpUrl], host: &str) -> Vec<HttpUrl> {
    let mut urls: Vec<HttpUrl> = Vec::with_capacity(listen.len());
    for url in listen {
        let url = if url.is_unspecified() { HttpUrl::new(host, url.port()) } else { url.clone() };
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

/// A name for a member that was given none but has to be told from others: its peer address, which is unique in its
/// cluster and the same at every start.
fn name_from(peer_urls: &[HttpUrl]) -> String {
    let address = peer_urls.first().map(HttpUrl::listen_address).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    address.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
}

/// `host:port`
pub(super) fn address(text: &str) -> Result<HttpUrl, String> {
    if text.contains("://") {
        return Err("it is host:port, without a scheme".to_owned());
    }
    format!("http://{text}")
        .parse::<HttpUrl>()
        .ok()
        .filter(|url| !url.host().is_empty())
        .ok_or_else(|| "it does not have the form \"host:port\"".to_owned())
}

/// `host[:port]`
pub(super) fn bind_address(text: &str) -> Result<HttpUrl, String> {
    address(text).or_else(|error| {
        let bare_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        if text.contains("://") {
            return Err(error);
        }
        address(&if bare_ipv6 { format!("[{text}]:0") } else { format!("{text}:0") })
            .map_err(|_| "it does not have the form \"host[:port]\"".to_owned())
    })
}

/// `URL[,URL...]`
pub(super) fn urls(text: &str) -> Result<Vec<HttpUrl>, String> {
    text.split(',').map(|url| url.parse::<HttpUrl>().map_err(|error| error.to_string())).collect()
}

/// `name=URL[,name=URL...]`
pub(super) fn members(text: &str) -> Result<Vec<InitialMember>, String> {
    let member = |(name, urls): (String, Vec<String>)| {
        let urls = urls.iter().map(|url| url.parse::<HttpUrl>().map_err(|error| error.to_string()));
        Ok(InitialMember { name, peer_urls: urls.collect::<Result<_, String>>()? })
    };
    discovery::parse_members(text)?.into_iter().map(member).collect()
}

/// A whole number.
pub(super) fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "it must be a whole number, and not too large".to_owned())
}

/// A whole number of milliseconds.
pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    number(text).map(Duration::from_millis)
}

/// A path.
pub(super) fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}
