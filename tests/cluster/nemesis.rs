//! What goes wrong, by the seed: a deck with every kind of fault, shuffled, dealt one or two at a time, and shuffled again.

use crate::detour::Road;
use crate::faults::Fault;
use crate::history::History;
use crate::hosts::Hosts;
use crate::members::Member;
use crate::wire::{Bug, Wire};
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub struct Nemesis {
    pub hosts: Hosts,
    pub members: Vec<Member>,
    pub chance: ChaCha8Rng,
    shuffler: ChaCha8Rng,
    pub wire: Wire,
    pub history: Arc<History>,
    starts: Arc<Vec<AtomicU64>>,
    pub runtime: tokio::runtime::Handle,
    deck: Vec<Fault>,
    pub dealt: BTreeMap<String, u64>,
    /// From a healing until every member served.
    pub longest_recovery: Duration,
    /// How often somebody had to be able to write, and was.
    pub promises_kept: u64,
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
            promises_kept: 0,
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
            if let Some(at) =
                faults.iter().position(|fault| *fault == Fault::Replace).filter(|_| faults.len() > 1)
            {
                // By itself: what it waits for may not come while something else is wrong.
                self.deck.push(faults.remove(at));
            }
            // A fault on top of one that is not over yet may keep everybody from writing for long.
            let long = self.chance.random_range(0..6) == 0;
            if long {
                self.expect_recovery();
            }
            let before = self.waits();
            for fault in faults {
                self.inflict(fault);
            }
            let inflicted = self.history.now();
            std::thread::sleep(Duration::from_millis(self.chance.random_range(400..2200)));
            self.look_after_processes();
            if long {
                self.expect_progress(inflicted, &before);
            }
            self.history.fault("heal");
            self.heal();
            std::thread::sleep(Duration::from_millis(self.chance.random_range(300..1800)));
        }
    }

    fn deal(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = Fault::ALL.to_vec();
            self.deck.shuffle(&mut self.shuffler);
            // So that two short runs of one seed see most of the deck.
            if self.size() > 3 {
                self.deck.reverse();
            }
        }
        self.deck.pop().expect("a deck")
    }

    pub fn size(&self) -> usize {
        self.members.len()
    }

    pub fn anybody(&mut self) -> usize {
        self.chance.random_range(0..self.members.len())
    }

    /// Whoever says that it leads, or anybody.
    pub fn leader(&mut self) -> usize {
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

    pub fn some(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.members.len()).collect();
        all.shuffle(&mut self.chance);
        all.truncate(count);
        all
    }

    pub fn majority(&self) -> usize {
        self.size() / 2 + 1
    }

    fn inflict(&mut self, fault: Fault) {
        *self.dealt.entry(format!("{fault:?}")).or_default() += 1;
        match fault {
            Fault::KillOne => {
                let victim = self.anybody();
                self.kill(&[victim]);
            }
            Fault::KillLeader => {
                let victim = self.leader();
                self.kill(&[victim]);
            }
            Fault::KillMost => {
                let victims = self.some(self.majority());
                self.kill(&victims);
            }
            Fault::KillAll => self.kill(&(0..self.size()).collect::<Vec<_>>()),
            Fault::KillStarting => self.kill_starting(),
            Fault::PauseOne => {
                let victim = self.anybody();
                self.pause(&[victim]);
            }
            Fault::PauseLeader => {
                let victim = self.leader();
                self.pause(&[victim]);
            }
            Fault::PauseMost => {
                let victims = self.some(self.majority());
                self.pause(&victims);
            }
            Fault::Split
            | Fault::CutOffLeader
            | Fault::Bridge
            | Fault::Ring
            | Fault::LeaderOneWay
            | Fault::SomeOneWay => self.cut(fault),
            Fault::Loss => {
                let percent = [3, 10, 30][self.chance.random_range(0..3)];
                (0..self.size()).for_each(|host| self.hosts.lose(host, percent));
                self.history.fault(&format!("lose {percent} of 100 packets"));
                self.hosts.apply();
            }
            Fault::Late => {
                let delay = [20, 100, 300][self.chance.random_range(0..3)];
                let road = Road { delay: Duration::from_millis(delay), ..Road::default() };
                self.send_round(100, road, &format!("late by {delay} ms"));
            }
            Fault::Disorder => {
                let (percent, jitter) = (self.chance.random_range(10..60), self.chance.random_range(2..100));
                let road = Road { jitter: Duration::from_millis(jitter), repeated: 10, ..Road::default() };
                let what = format!("{percent} of 100 packets late by up to {jitter} ms, some of them twice");
                self.send_round(percent, road, &what);
            }
            Fault::DiskFull => {
                let victim = self.anybody();
                self.fill(&[victim]);
            }
            Fault::DiskFullLeader => {
                let victim = self.leader();
                self.fill(&[victim]);
            }
            Fault::DiskFullMost => {
                let victims = self.some(self.majority());
                self.fill(&victims);
            }
            Fault::Replace => self.replace(),
            Fault::ClockJump => {
                let (victim, days) = (self.anybody(), self.chance.random_range(-400..400_i64));
                let name = self.members[victim].name();
                self.history.fault(&format!("the wall clock of {name} jumps to {days} days from now"));
                self.members[victim].set_wall_clock(days * 86_400);
            }
        }
    }

    /// What a few of them send, or all, takes another road.
    fn send_round(&mut self, percent: u32, road: Road, what: &str) {
        let count = self.chance.random_range(1..=self.size());
        let some = self.some(count);
        for host in &some {
            self.hosts.send_round(*host, percent, road);
        }
        self.history.fault(&format!("from {}: {what}", self.names(&some)));
        self.hosts.apply();
    }

    fn fill(&mut self, victims: &[usize]) {
        let leave = self.chance.random_range(0..3) * 2;
        self.history.fault(&format!("the disks of {} fill but for {leave} MiB", self.names(victims)));
        for victim in victims {
            self.members[*victim].fill_disk(leave << 20);
        }
    }

    pub fn names(&self, victims: &[usize]) -> String {
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

    pub fn start(&mut self, member: usize) {
        if !self.members[member].is_started() {
            let uptime = self.chance.random_range(0..10_000_000);
            self.starts[member].fetch_add(1, Ordering::SeqCst);
            self.members[member].start(uptime);
        }
    }

    fn pause(&mut self, victims: &[usize]) {
        self.history.fault(&format!("pause {}", self.names(victims)));
        for victim in victims {
            self.members[*victim].pause();
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
