//! What goes wrong, by the seed: a deck with every kind of fault, shuffled, dealt one or two at a time, and shuffled again.

use crate::history::History;
use crate::hosts::Hosts;
use crate::members::Member;
use crate::wire::{Answer, Bug, Wire};
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillOne,
    KillLeader,
    /// So many that nothing can go on.
    KillMost,
    KillAll,
    /// Killed again and again while it starts.
    KillStarting,
    PauseOne,
    PauseLeader,
    PauseMost,
    /// Two parts that do not hear of each other.
    Split,
    CutOffLeader,
    /// Two parts, and one member that hears both.
    Bridge,
    /// Each hears its two neighbours.
    Ring,
    /// The leader is heard and hears nothing, or the other way round.
    LeaderOneWay,
    /// Each of some pairs is cut in one direction.
    SomeOneWay,
    /// Packets get lost, of members and clients.
    Loss,
    /// The wall clock of one jumps.
    ClockJump,
    /// Something else takes the disk of the last member, to the last byte or nearly.
    DiskFull,
    /// One is gone for good, and a new one takes its place.
    Replace,
}

use Fault::{
    Bridge, ClockJump, CutOffLeader, DiskFull, KillAll, KillLeader, KillMost, KillOne, KillStarting,
    LeaderOneWay, Loss, PauseLeader, PauseMost, PauseOne, Replace, Ring, SomeOneWay, Split,
};

const DECK: [Fault; 18] = [
    KillOne,
    KillLeader,
    KillMost,
    KillAll,
    KillStarting,
    PauseOne,
    PauseLeader,
    PauseMost,
    Split,
    CutOffLeader,
    Bridge,
    Ring,
    LeaderOneWay,
    SomeOneWay,
    Loss,
    ClockJump,
    DiskFull,
    Replace,
];

/// A fault that leaves a majority in one piece may keep everybody from writing for so long: ten election timeouts.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Nemesis {
    hosts: Hosts,
    members: Vec<Member>,
    chance: ChaCha8Rng,
    shuffler: ChaCha8Rng,
    wire: Wire,
    history: Arc<History>,
    starts: Arc<Vec<AtomicU64>>,
    runtime: tokio::runtime::Handle,
    deck: Vec<Fault>,
    pub dealt: BTreeMap<String, u64>,
    /// From a healing until every member served.
    pub longest_recovery: Duration,
}

impl Nemesis {
    pub fn new(
        hosts: Hosts,
        mut members: Vec<Member>,
        wire: &Wire,
        seed: u64,
        starts: &Arc<Vec<AtomicU64>>,
        bug: Option<Bug>,
    ) -> Self {
        for member in &mut members {
            member.unsynced = bug == Some(Bug::UnsyncedDisk);
        }
        Self {
            hosts,
            members,
            chance: ChaCha8Rng::seed_from_u64(seed ^ 0x0ea7),
            shuffler: ChaCha8Rng::seed_from_u64(seed),
            wire: wire.clone(),
            history: Arc::clone(&wire.history),
            starts: Arc::clone(starts),
            runtime: tokio::runtime::Handle::current(),
            deck: Vec::new(),
            dealt: BTreeMap::new(),
            longest_recovery: Duration::ZERO,
        }
    }

    /// Everybody runs, and everything reaches everybody.
    pub fn heal(&mut self) {
        self.hosts.heal();
        for member in 0..self.members.len() {
            self.members[member].empty_disk();
            self.members[member].resume();
            self.start(member);
        }
    }

    /// Harms until that time, and heals. On a thread of its own: most of it is waiting for other programs.
    pub fn run(&mut self, until: u64) {
        self.members.iter().for_each(Member::remember_disk);
        while self.history.now() < until {
            let mut faults = vec![self.deal()];
            if self.chance.random_range(0..3) == 0 {
                faults.push(self.deal());
            }
            if let Some(at) = faults.iter().position(|fault| *fault == Replace).filter(|_| faults.len() > 1) {
                // By itself: what it waits for may not come while something else is wrong.
                self.deck.push(faults.remove(at));
            }
            // A fault on top of one that is not over yet may keep everybody from writing for long.
            let long = self.chance.random_range(0..6) == 0;
            if long {
                self.expect_recovery();
            }
            for fault in faults {
                self.inflict(fault);
            }
            let inflicted = self.history.now();
            std::thread::sleep(Duration::from_millis(self.chance.random_range(400..2200)));
            self.look_after_processes();
            if long {
                self.expect_progress(inflicted);
            }
            self.history.fault("heal");
            self.heal();
            std::thread::sleep(Duration::from_millis(self.chance.random_range(300..1800)));
        }
    }

    fn deal(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = DECK.to_vec();
            self.deck.shuffle(&mut self.shuffler);
            // So that two short runs of one seed see most of the deck.
            if self.size() > 3 {
                self.deck.reverse();
            }
        }
        self.deck.pop().expect("a deck")
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn anybody(&mut self) -> usize {
        self.chance.random_range(0..self.members.len())
    }

    /// Whoever says that it leads, or anybody.
    fn leader(&mut self) -> usize {
        let runs: Vec<usize> = (0..self.size()).filter(|member| self.members[*member].runs()).collect();
        let leads = async |member| {
            let answer =
                self.wire.ask(Method::GET, member, "/v2/stats/self", "", Duration::from_millis(300)).await;
            answer.is_ok_and(|answer| answer.body["state"] == "StateLeader")
        };
        let found = self.runtime.block_on(async {
            for member in runs {
                if leads(member).await {
                    return Some(member);
                }
            }
            None
        });
        found.unwrap_or_else(|| self.anybody())
    }

    fn some(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.members.len()).collect();
        all.shuffle(&mut self.chance);
        all.truncate(count);
        all
    }

    fn majority(&self) -> usize {
        self.size() / 2 + 1
    }

    fn inflict(&mut self, fault: Fault) {
        *self.dealt.entry(format!("{fault:?}")).or_default() += 1;
        match fault {
            KillOne => {
                let victim = self.anybody();
                self.kill(&[victim]);
            }
            KillLeader => {
                let victim = self.leader();
                self.kill(&[victim]);
            }
            KillMost => {
                let victims = self.some(self.majority());
                self.kill(&victims);
            }
            KillAll => self.kill(&(0..self.size()).collect::<Vec<_>>()),
            KillStarting => self.kill_starting(),
            PauseOne => {
                let victim = self.anybody();
                self.pause(&[victim]);
            }
            PauseLeader => {
                let victim = self.leader();
                self.pause(&[victim]);
            }
            PauseMost => {
                let victims = self.some(self.majority());
                self.pause(&victims);
            }
            Split | CutOffLeader | Bridge | Ring | LeaderOneWay | SomeOneWay => self.cut(fault),
            Loss => {
                let percent = [3, 10, 30][self.chance.random_range(0..3)];
                (0..self.size()).for_each(|host| self.hosts.lose(host, percent));
                self.history.fault(&format!("lose {percent} of 100 packets"));
                self.hosts.apply();
            }
            DiskFull => {
                let leave = self.chance.random_range(0..3) * 2;
                let victim = self.size() - 1;
                self.history
                    .fault(&format!("the disk of {} fills but for {leave} MiB", self.members[victim].name()));
                self.members[victim].fill_disk(leave << 20);
            }
            Replace => self.replace(),
            ClockJump => {
                let (victim, days) = (self.anybody(), self.chance.random_range(-400..400_i64));
                let name = self.members[victim].name();
                self.history.fault(&format!("the wall clock of {name} jumps to {days} days from now"));
                self.members[victim].set_wall_clock(days * 86_400);
            }
        }
    }

    fn names(&self, victims: &[usize]) -> String {
        victims.iter().map(|victim| self.members[*victim].name()).collect::<Vec<_>>().join(" ")
    }

    fn kill(&mut self, victims: &[usize]) {
        self.history.fault(&format!("kill -9 {}", self.names(victims)));
        for victim in victims {
            self.members[*victim].kill();
        }
    }

    fn kill_starting(&mut self) {
        let victim = self.anybody();
        self.kill(&[victim]);
        for _ in 0..self.chance.random_range(1..5) {
            let moment = Duration::from_millis(self.chance.random_range(5..400));
            self.start(victim);
            std::thread::sleep(moment);
            self.look_after_processes();
            self.kill(&[victim]);
        }
    }

    fn start(&mut self, member: usize) {
        if !self.members[member].is_started() {
            let uptime = self.chance.random_range(0..10_000_000);
            self.starts[member].fetch_add(1, Ordering::SeqCst);
            self.members[member].start(uptime);
        }
    }

    /// Asks the others until one says what is wanted.
    fn insist(
        &self,
        absent: usize,
        method: &Method,
        rest: &str,
        body: &str,
        wanted: fn(&Answer) -> bool,
    ) -> bool {
        for attempt in 1..60 {
            let asked = (absent + 1 + attempt % (self.size() - 1)) % self.size();
            let answer = self.wire.ask(method.clone(), asked, rest, body, Duration::from_secs(2));
            if self.runtime.block_on(answer).is_ok_and(|answer| wanted(&answer)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        false
    }

    /// What the others list of it.
    fn entry(&self, victim: usize) -> Option<serde_json::Value> {
        let asked = (victim + 1) % self.size();
        let answer = self.wire.ask(Method::GET, asked, "/v2/members", "", Duration::from_secs(2));
        let answer = self.runtime.block_on(answer).ok()?;
        let name = self.members[victim].name();
        answer.body["members"].as_array()?.iter().find(|entry| entry["name"] == *name).cloned()
    }

    fn replace(&mut self) {
        let victim = self.anybody();
        let name = self.members[victim].name();
        self.history.fault(&format!("replace {name}"));
        // It may not have caught up with what was before.
        let patiently = |ready: &dyn Fn() -> Option<String>| {
            (0..100).find_map(|_| {
                ready().or_else(|| {
                    std::thread::sleep(Duration::from_millis(300));
                    None
                })
            })
        };
        let Some(id) = patiently(&|| Some(self.entry(victim)?["id"].as_str()?.to_owned())) else {
            return self.history.violation(format!("{name} is not listed"));
        };
        self.members[victim].kill();
        let rest = format!("/v2/members/{id}");
        if !self.insist(victim, &Method::DELETE, &rest, "", |answer| matches!(answer.status, 204 | 404 | 410))
        {
            return self.history.violation(format!("{name} cannot be removed"));
        }
        self.members[victim].become_new();
        let url = format!("http://{}:7001", crate::hosts::address(victim));
        let body = serde_json::json!({ "name": name, "peerURLs": [url] }).to_string();
        // 409: an attempt before, of which nothing was heard.
        if !self
            .insist(victim, &Method::POST, "/v2/members", &body, |answer| matches!(answer.status, 201 | 409))
        {
            return self.history.violation(format!("{name} cannot be added"));
        }
        self.start(victim);
        let votes = || self.entry(victim).filter(|entry| entry["isLearner"] != true).map(|_| String::new());
        if patiently(&votes).is_none() {
            self.history.violation(format!("{name}, which is new, has no vote after half a minute"));
        }
    }

    fn pause(&mut self, victims: &[usize]) {
        self.history.fault(&format!("pause {}", self.names(victims)));
        for victim in victims {
            self.members[*victim].pause();
        }
    }

    fn cut(&mut self, fault: Fault) {
        let size = self.size();
        let order = self.some(size);
        let mut say = format!("{fault:?}");
        match fault {
            Split => {
                let (one, other) = order.split_at(size / 2);
                self.hosts.cut_apart(one, other);
                say = format!("split: {} | {}", self.names(one), self.names(other));
            }
            CutOffLeader => {
                let leader = self.leader();
                let others = order.iter().filter(|other| **other != leader);
                others.for_each(|other| self.hosts.cut_both_ways(leader, *other));
                say = format!("cut off {}", self.names(&[leader]));
            }
            Bridge => {
                let (bridge, rest) = order.split_first().expect("members");
                let (one, other) = rest.split_at(rest.len() / 2);
                self.hosts.cut_apart(one, other);
                say = format!(
                    "bridge: {} | {} with {} between",
                    self.names(one),
                    self.names(other),
                    self.names(&[*bridge])
                );
            }
            Ring => {
                for (at, one) in order.iter().enumerate() {
                    for (other_at, other) in order.iter().enumerate().skip(at + 2) {
                        // Of three, each is next to each: one pair is cut, so that it is a line.
                        if size == 3 || at + size - other_at > 1 {
                            self.hosts.cut_both_ways(*one, *other);
                        }
                    }
                }
                say = format!("ring: {}", self.names(&order));
            }
            LeaderOneWay => {
                let (leader, deaf) = (self.leader(), self.chance.random_range(0..2) == 0);
                for other in order.into_iter().filter(|other| *other != leader) {
                    if deaf { self.hosts.cut(other, leader) } else { self.hosts.cut(leader, other) }
                }
                say = format!(
                    "{} {}",
                    self.names(&[leader]),
                    if deaf { "hears nobody" } else { "is not heard" }
                );
            }
            _ => {
                for from in 0..size {
                    for to in (0..size).filter(|to| *to != from) {
                        if self.chance.random_range(0..3) == 0 {
                            self.hosts.cut(from, to);
                            say.push(' ');
                            say.push_str(&self.names(&[from, to]).replace(' ', ">"));
                        }
                    }
                }
            }
        }
        self.history.fault(&say);
        self.hosts.apply();
    }

    /// A majority that runs and in which each hears each.
    fn core(&self) -> Option<Vec<usize>> {
        let size = self.size();
        let hears = |a: usize, b: usize| self.hosts.hears(a, b) && self.hosts.hears(b, a);
        (0_u32..1 << size).map(|set| (0..size).filter(|member| set >> member & 1 == 1).collect()).find(
            |set: &Vec<usize>| {
                set.len() >= self.majority()
                    && set.iter().all(|a| self.members[*a].runs() && set.iter().all(|b| hears(*a, *b)))
            },
        )
    }

    fn expect_recovery(&mut self) {
        let healed = std::time::Instant::now();
        if !self.runtime.block_on(crate::all_serve(&self.wire)) {
            self.history.violation("everything is healed, and some member does not serve".to_owned());
        }
        self.longest_recovery = self.longest_recovery.max(healed.elapsed());
    }

    /// Somebody can write within `PATIENCE` if a majority is whole.
    fn expect_progress(&self, since: u64) {
        let Some(core) = self.core() else { return };
        let deadline = std::time::Instant::now() + PATIENCE;
        let wrote = |call: &crate::history::Call| call.wrote.is_some() && call.invoked > since;
        while !self.history.calls().iter().any(wrote) {
            if std::time::Instant::now() > deadline {
                let core = self.names(&core);
                return self
                    .history
                    .violation(format!("nobody can write for {PATIENCE:?}, while {core} are whole"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn look_after_processes(&mut self) {
        for member in &mut self.members {
            if let Some(how) = member.ended_by_itself() {
                self.history.violation(how);
                member.kill();
            }
        }
    }

    /// The logs say why something ended.
    pub fn logs(&self) -> Vec<std::path::PathBuf> {
        self.members.iter().map(Member::log).collect()
    }
}
