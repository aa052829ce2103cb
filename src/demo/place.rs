//! Where the demonstration takes place: its ports and its directory.

use super::Failure;
use super::args::{Args, MEMBERS};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Where one member listens, on the loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) peer: u16,
}

impl Ports {
    pub(super) fn client_url(self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    pub(super) fn peer_url(self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }
}

/// The ports of the members, each found free.
pub(super) fn member_ports(args: &Args) -> Result<Vec<Ports>, Failure> {
    let ports = |i| Ports { client: args.client_port_base + i, peer: args.peer_port_base + i };
    let all: Vec<Ports> = (0..MEMBERS).map(ports).collect();
    let mut taken = Vec::new();
    for (i, ports) in all.iter().enumerate() {
        for (port, what) in [(ports.client, "clients"), (ports.peer, "other members")] {
            if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                taken.push(format!("port {port} (m{}, for {what}): {error}", i + 1));
            }
        }
    }
    if taken.is_empty() {
        return Ok(all);
    }
    Err(Failure(format!(
        "cannot listen on {}.\nStop what uses it (`ss -ltnp` shows that), or choose other ports: quorate demo \
         --client-port-base {} --peer-port-base {}",
        taken.join(", "),
        elsewhere(args.client_port_base),
        elsewhere(args.peer_port_base),
    )))
}

fn elsewhere(base: u16) -> u16 {
    if base < 60_000 { base + 1000 } else { base - 1000 }
}

/// Two ports that nobody uses: those of the discovery service are nobody's business.
pub(super) fn free_ports() -> Result<Ports, Failure> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let find = || -> std::io::Result<Ports> {
        let (client, peer) = (listen()?, listen()?);
        Ok(Ports { client: client.local_addr()?.port(), peer: peer.local_addr()?.port() })
    };
    find().map_err(|error| Failure(format!("no free port on the loopback: {error}")))
}

/// A directory of the demonstration's own, removed when dropped unless it is to be kept.
#[derive(Debug)]
pub(super) struct TempDir {
    path: PathBuf,
    kept: bool,
}

impl TempDir {
    pub(super) fn new() -> Result<Self, Failure> {
        let name = format!("quorate-demo-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            Failure(format!("cannot make the directory {}: {error}; TMPDIR says where", path.display()))
        })?;
        Ok(Self { path, kept: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("quorate: could not remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_unless_it_is_kept() {
        let gone = TempDir::new().unwrap();
        std::fs::write(gone.path().join("file"), "x").unwrap();
        let mut kept = TempDir::new().unwrap();
        kept.keep();
        let (gone_path, kept_path) = (gone.path().to_owned(), kept.path().to_owned());
        assert_ne!(gone_path, kept_path);
        drop((gone, kept));
        assert!(!gone_path.exists() && kept_path.exists());
        std::fs::remove_dir(kept_path).unwrap();
    }
}
