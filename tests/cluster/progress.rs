//! What a cluster owes its clients while something is wrong, and soon after.
//!
//! A majority that runs, has room on its disks, and hears itself lets somebody write within [`PATIENCE`]: a leader that is
//! lost is noticed after one to two election timeouts of a second, a vote that is split costs another, and clients need one
//! of their own time-outs to find out. Where a tenth of the packets is lost, or they come late or out of order, TCP's
//! waiting for what was lost comes on top (0.2 s and twice that each time, a second for a connection): [`PATIENCE_IN_NOISE`].
//! With more than that nothing is promised but that nothing goes wrong.
//!
//! These are times of a machine that lets the members run. How long their threads had to wait for a processor is known to
//! the kernel; so much more they get, and it is said.

use crate::nemesis::Nemesis;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(6);
const PATIENCE_IN_NOISE: Duration = Duration::from_secs(10);

/// What each thread of each member had waited for a processor at some time.
pub struct Waits(Vec<HashMap<String, Duration>>);

impl Nemesis {
    /// A majority that runs, can write, and in which each hears each.
    fn core(&self) -> Option<Vec<usize>> {
        let size = self.size();
        let works = |member: usize| self.members[member].runs() && !self.members[member].disk_full;
        let hears = |a: usize, b: usize| self.hosts.hears(a, b) && self.hosts.hears(b, a);
        (0_u32..1 << size).map(|set| (0..size).filter(|member| set >> member & 1 == 1).collect()).find(
            |set: &Vec<usize>| {
                set.len() >= self.majority()
                    && set.iter().all(|a| works(*a) && set.iter().all(|b| hears(*a, *b)))
            },
        )
    }

    pub fn expect_recovery(&mut self) {
        let healed = Instant::now();
        if !self.runtime.block_on(crate::all_serve(&self.wire)) {
            self.history.violation("everything is healed, and some member does not serve".to_owned());
        }
        self.longest_recovery = self.longest_recovery.max(healed.elapsed());
    }

    pub fn waits(&self) -> Waits {
        Waits(self.members.iter().map(crate::members::Member::waits).collect())
    }

    /// How long these members waited for a processor since then, each where it waited longest: they wait for each other.
    fn overload(&self, core: &[usize], before: &Waits) -> Duration {
        let longest = |member: &usize| {
            let now = self.members[*member].waits();
            let since = |(thread, waited): (&String, &Duration)| {
                waited.saturating_sub(before.0[*member].get(thread).copied().unwrap_or_default())
            };
            now.iter().map(since).max().unwrap_or_default()
        };
        core.iter().map(longest).sum()
    }

    /// Somebody can write soon if a majority is whole.
    pub fn expect_progress(&mut self, since: u64, before: &Waits) {
        let Some(core) = self.core() else { return };
        let promised = if self.hosts.is_noisy() { PATIENCE_IN_NOISE } else { PATIENCE };
        let begun = Instant::now();
        let wrote = |call: &crate::history::Call| call.wrote.is_some() && call.invoked > since;
        while !self.history.calls().iter().any(wrote) {
            let overload = self.overload(&core, before);
            if begun.elapsed() > promised + overload {
                let core = self.names(&core);
                return self.history.violation(format!(
                    "nobody can write for {promised:?}, while {core} are whole; they waited {overload:?} for a processor"
                ));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.promises_kept += 1;
    }
}
