//! What must hold whatever happens, checked as a run goes; and what happened, counted.

use quorate::proto::command::Entry as CommandEntry;
use quorate::replica::{LogWrite, Standing, State};
use quorate::store::{Action, Event, Key};
use prost::Message as _;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// How often what a run is about has happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    pub elections: u64,
    pub crashes: u64,
    pub pauses: u64,
    pub partitions: u64,
    pub installs: u64,
    pub installs_cut_short: u64,
    pub histories_cleared: u64,
    pub copies_in_log: u64,
    pub writes: u64,
    pub reads: u64,
    pub slow_reads: u64,
    pub timeouts: u64,
    pub expiries: u64,
}

impl Coverage {
    pub fn add(&mut self, other: &Self) {
        let pairs = self.figures_mut().into_iter().zip(other.clone().figures_mut().map(|f| *f));
        for (mine, theirs) in pairs {
            *mine += theirs;
        }
    }

    /// Each figure must have happened, or the runs say nothing of it.
    pub fn assert_complete(mut self) {
        let text = format!("{self:?}");
        assert!(self.figures_mut().iter().all(|figure| **figure > 0), "something never happened: {text}");
    }

    fn figures_mut(&mut self) -> [&mut u64; 13] {
        [
            &mut self.elections,
            &mut self.crashes,
            &mut self.pauses,
            &mut self.partitions,
            &mut self.installs,
            &mut self.installs_cut_short,
            &mut self.histories_cleared,
            &mut self.copies_in_log,
            &mut self.writes,
            &mut self.reads,
            &mut self.slow_reads,
            &mut self.timeouts,
            &mut self.expiries,
        ]
    }
}

/// A key with a time to live, as it was asked for.
struct Lease {
    led_ms: u64,
    ttl: u64,
}

pub struct Oracle {
    pub coverage: Coverage,
    /// Digest of the store after each applied log index, on whichever member was first.
    digests: HashMap<u64, u64>,
    /// Each event by its index, as whichever member was first had it.
    events: HashMap<u64, u64>,
    /// Who led in each term.
    leaders: HashMap<u64, u64>,
    /// The highest index that any finished request has shown: nothing that begins later may be older.
    shown: u64,
    /// How long there was a leader, dead ones not counted.
    led_ms: u64,
    drift_permille: u64,
    leases: BTreeMap<Key, Lease>,
    copies: HashMap<(u64, u64), HashSet<u64>>,
    trace: DefaultHasher,
}

impl Oracle {
    pub fn new(drift_permille: u64) -> Self {
        Self {
            coverage: Coverage::default(),
            digests: HashMap::new(),
            events: HashMap::new(),
            leaders: HashMap::new(),
            shown: 0,
            led_ms: 0,
            drift_permille,
            leases: BTreeMap::new(),
            copies: HashMap::new(),
            trace: DefaultHasher::new(),
        }
    }

    pub fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    pub fn time_passed(&mut self, ms: u64, led: bool) {
        if led {
            self.led_ms += ms;
        }
    }

    /// A request begins; the answer must be at least as new as what this returns.
    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// The whole of linearizability: requests are ordered by index, the content at an index is the same everywhere
    /// (`state`), and here: the order agrees with who had finished before whom began.
    pub fn answered(&mut self, shown_before: u64, index: u64, writes: bool) {
        (shown_before, index, writes).hash(&mut self.trace);
        let fits = if writes { index > shown_before } else { index >= shown_before };
        assert!(fits, "an answer at index {index} to a request that began after {shown_before} was known");
        self.shown = self.shown.max(index);
    }

    pub fn lease_asked(&mut self, key: Key, ttl: u64) {
        self.leases.insert(key, Lease { led_ms: self.led_ms, ttl });
    }

    pub fn standing(&mut self, member: u64, standing: Standing) {
        if standing.leads {
            let led = *self.leaders.entry(standing.term).or_insert_with(|| {
                self.coverage.elections += 1;
                member
            });
            assert_eq!(led, member, "two leaders in term {}", standing.term);
        }
    }

    /// All members hold the same state at the same position.
    pub fn state(&mut self, state: &State) {
        let digest = *self.digests.entry(state.applied.index).or_insert(state.store.digest());
        assert_eq!(digest, state.store.digest(), "states differ at {}", state.applied.index);
    }

    /// A watcher at some member was told this after having been told all up to `seen`.
    pub fn watched(&mut self, seen: u64, event: &Event) {
        assert_eq!(event.index, seen + 1, "a gap or a repetition for watchers");
        let mut hasher = DefaultHasher::new();
        (event.action.name(), &event.node.key, &event.node.value, event.time.0).hash(&mut hasher);
        let hash = hasher.finish();
        let mut first = false;
        let known = *self.events.entry(event.index).or_insert_with(|| {
            first = true;
            hash
        });
        assert_eq!(known, hash, "two events with index {}", event.index);
        if first {
            hash.hash(&mut self.trace);
            if event.action == Action::Expire {
                self.expired(event);
            }
        }
    }

    /// Not before its time, and time without a leader does not count.
    fn expired(&mut self, event: &Event) {
        self.coverage.expiries += 1;
        let lease = &self.leases[&event.node.key];
        let led = self.led_ms - lease.led_ms;
        let at_most = led + led * self.drift_permille / 1_000 + 2;
        assert!(at_most >= lease.ttl, "{:?} expired after {led} of its {} ms", event.node.key, lease.ttl);
    }

    /// How often is one request in the log more than once?
    pub fn logged(&mut self, write: &LogWrite) {
        for entry in write.entries.iter().filter(|e| !e.data.is_empty()) {
            let Ok(decoded) = CommandEntry::decode(entry.data.clone()) else { continue };
            for batch in &decoded.batches {
                for request in &batch.requests {
                    let at = self.copies.entry((batch.session, request.number)).or_default();
                    if at.insert(entry.index) && at.len() > 1 {
                        self.coverage.copies_in_log += 1;
                    }
                }
            }
        }
    }
}
