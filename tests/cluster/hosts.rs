//! Machines of their own on one machine: network namespaces on a bridge, and what their network does to packets.
//!
//! Faults are rules of nftables on the receiving host, so that each direction of each pair is cut or lossy on its own.
//! What is to come late or out of order takes a detour, by rules on the bridge's side of the sender's link. Clients are on
//! the machine itself, at the bridge.

use crate::detour::{Detour, Road};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Members whose packets come later than this are not asked for anything.
const LATE_MAX: Duration = Duration::from_millis(150);

/// Of a hundred packets: with every third lost, TCP waits longer than anybody should be asked to.
const LOSS_MAX: u32 = 10;

/// With no more loss than this a cluster is to be as quick as without.
const LOSS_QUIET: u32 = 3;

pub struct Hosts {
    count: usize,
    /// Which packets are dropped: `cut[from][to]`.
    cut: Vec<Vec<bool>>,
    /// How many of a hundred packets from anybody are lost, clients included.
    loss: Vec<u32>,
    /// How many of a hundred packets from each take the detour.
    detoured: Vec<u32>,
    detour: Detour,
}

/// Namespaces and links bear the process that made them, so that what a killed one left can be told.
fn tag(pid: u32) -> String {
    format!("qcl{pid}x")
}

/// One run at a time makes hosts, but others on this machine may have networks: 10.100 to 10.199.
fn subnet() -> String {
    let pid = std::process::id();
    format!("10.{}.{}", 100 + pid % 100, pid / 100 % 250)
}

pub fn address(host: usize) -> String {
    format!("{}.{}", subnet(), host + 1)
}

pub fn name(host: usize) -> String {
    format!("{}h{}", tag(std::process::id()), host + 1)
}

pub fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap_or_else(|error| {
        panic!("{program}: {error} (needs Debian's iproute2, nftables and libfaketime: see tests/run)")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {} (needs root)", said.trim());
}

pub fn try_to(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

impl Hosts {
    pub fn new(count: usize) -> Self {
        remove_left_behind();
        let (tag, subnet) = (tag(std::process::id()), subnet());
        run("ip", &format!("link add {tag}br type bridge"));
        run("ip", &format!("addr add {subnet}.254/24 dev {tag}br"));
        run("ip", &format!("link set {tag}br up"));
        for host in 0..count {
            let (name, link) = (name(host), format!("{tag}v{host}"));
            run("ip", &format!("netns add {name}"));
            run("ip", &format!("link add {link} type veth peer name eth0 netns {name}"));
            run("ip", &format!("link set {link} master {tag}br"));
            run("ip", &format!("link set {link} up"));
            run("ip", &format!("-n {name} addr add {}/24 dev eth0", address(host)));
            run("ip", &format!("-n {name} link set eth0 up"));
            run("ip", &format!("-n {name} link set lo up"));
        }
        let detour = Detour::new(&tag);
        let mut this = Self { count, cut: Vec::new(), loss: Vec::new(), detoured: Vec::new(), detour };
        this.forget_faults();
        this
    }

    fn forget_faults(&mut self) {
        self.cut = vec![vec![false; self.count]; self.count];
        self.loss = vec![0; self.count];
        self.detoured = vec![0; self.count];
    }

    /// Nothing from the one to the other, or everything again after `heal`.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut[from][to] = true;
    }

    pub fn cut_both_ways(&mut self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub fn cut_apart(&mut self, some: &[usize], others: &[usize]) {
        for one in some {
            for other in others {
                self.cut_both_ways(*one, *other);
            }
        }
    }

    pub fn lose(&mut self, host: usize, percent: u32) {
        self.loss[host] = percent;
    }

    /// So many of a hundred packets from this host take that road.
    pub fn send_round(&mut self, host: usize, percent: u32, road: Road) {
        self.detoured[host] = percent;
        self.detour.set(road);
    }

    /// How many packets came late or out of order.
    pub fn late_packets(&self) -> Arc<AtomicU64> {
        self.detour.packets()
    }

    /// Well enough.
    pub fn hears(&self, from: usize, to: usize) -> bool {
        let Road { delay, jitter, .. } = self.detour.road();
        let late = self.detoured[from] > 0 && delay + jitter > LATE_MAX;
        !self.cut[from][to] && self.loss[to] <= LOSS_MAX && !late
    }

    /// What is heard is heard late, or only when it is said again.
    pub fn is_noisy(&self) -> bool {
        (0..self.count).any(|host| self.loss[host] > LOSS_QUIET || self.detoured[host] > 0)
    }

    pub fn heal(&mut self) {
        self.forget_faults();
        self.apply();
    }

    /// Makes the network what was asked for.
    pub fn apply(&self) {
        for host in 0..self.count {
            let mut rules = "flush ruleset\n".to_owned();
            if self.loss[host] > 0 || (0..self.count).any(|from| self.cut[from][host]) {
                rules += "table ip faults { chain arriving { type filter hook input priority 0;\n";
                for from in (0..self.count).filter(|from| self.cut[*from][host]) {
                    let _ = writeln!(rules, "ip saddr {} drop", address(from));
                }
                if self.loss[host] > 0 {
                    let _ = writeln!(rules, "iifname eth0 numgen random mod 100 < {} drop", self.loss[host]);
                }
                rules += "}\n}\n";
            }
            nft(Some(host), &rules);
        }
        self.apply_detours();
    }

    fn apply_detours(&self) {
        let (tag, port) = (tag(std::process::id()), self.detour.port());
        let mut rules = format!("table netdev {tag} {{ }}\ndelete table netdev {tag}\n");
        if self.detoured.iter().any(|percent| *percent > 0) {
            let _ = writeln!(rules, "table netdev {tag} {{");
            for (host, percent) in self.detoured.iter().enumerate().filter(|(_, percent)| **percent > 0) {
                let some = if *percent < 100 {
                    format!("numgen random mod 100 < {percent} ")
                } else {
                    String::new()
                };
                let _ = writeln!(
                    rules,
                    "chain v{host} {{\ntype filter hook ingress device {tag}v{host} priority 0;"
                );
                let _ = writeln!(rules, "{some}fwd to {port}\n}}");
            }
            rules += "}\n";
        }
        nft(None, &rules);
    }
}

/// On a host, or on the machine itself.
fn nft(host: Option<usize>, rules: &str) {
    let mut command = Command::new(if host.is_some() { "ip" } else { "nft" });
    if let Some(host) = host {
        command.args(["netns", "exec", &name(host), "nft"]);
    }
    let command = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("nft starts");
    child.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("nft reads its rules");
    let output = child.wait_with_output().expect("nft ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft (Debian's nftables): {}\n{rules}", said.trim());
}

impl Drop for Hosts {
    fn drop(&mut self) {
        remove(&tag(std::process::id()));
    }
}

fn remove(tag: &str) {
    try_to("nft", &format!("delete table netdev {tag}"));
    let names = try_to("ip", "netns list");
    for name in names.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with(tag)) {
        // Members of a run that was killed.
        for pid in try_to("ip", &format!("netns pids {name}")).lines() {
            let _ = try_to("kill", &format!("-9 {pid}"));
        }
        try_to("ip", &format!("netns del {name}"));
    }
    let links = try_to("ip", "-brief link");
    let mine = |name: &&str| name.starts_with(tag);
    for link in links.lines().filter_map(|line| line.split([' ', '@']).next()).filter(mine) {
        try_to("ip", &format!("link del {link}"));
    }
}

/// What runs left that were killed before they could clean up.
fn remove_left_behind() {
    let links = try_to("ip", "-brief link");
    for name in links.lines().filter_map(|line| line.split([' ', '@']).next()) {
        let pid = name.strip_prefix("qcl").and_then(|rest| rest.split('x').next());
        if let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok())
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            remove(&tag(pid));
        }
    }
}
