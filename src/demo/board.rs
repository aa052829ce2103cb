//! What everybody sees: the acts wait for it and judge by it, the views show it.

use super::api::RaftStatus;
use super::sightings::Sightings;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines that a view may show.
const FEED_MOST: usize = 100;

/// The state of the show, shared among its tasks.
#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<State>,
    /// Whether what is said is printed at once.
    echo: bool,
}

/// Everything that is known.
#[derive(Debug)]
pub(super) struct State {
    pub(super) began: Instant,
    /// Number, title, and what it is about.
    pub(super) act: (usize, &'static str, &'static str),
    pub(super) feed: VecDeque<(Duration, String)>,
    pub(super) members: Vec<MemberSeen>,
    pub(super) services: BTreeMap<&'static str, Service>,
    pub(super) writes: Track,
    pub(super) reads: Track,
    pub(super) local_reads: Track,
    /// Look-ups that missed a service that was announced.
    pub(super) misses: u64,
    /// Index of every write that was acknowledged.
    pub(super) acknowledged: Vec<u64>,
    /// The two watchers.
    pub(super) watchers: Vec<Sightings>,
    /// Something that ends the show.
    pub(super) trouble: Option<String>,
}

/// A member as its own status shows it.
#[derive(Clone, Debug)]
pub(super) struct MemberSeen {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) pid: Option<u32>,
    /// What it said last; `None` while it does not answer.
    pub(super) status: Option<RaftStatus>,
}

impl MemberSeen {
    pub(super) fn leads(&self) -> bool {
        self.status.as_ref().is_some_and(|status| !status.lead.is_empty() && status.lead == status.id)
    }

    /// Whether it knows who leads.
    pub(super) fn follows_or_leads(&self) -> bool {
        self.status.as_ref().is_some_and(|status| !matches!(status.lead.as_str(), "" | "0"))
    }
}

/// A service as its announcer knows it.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) address: &'static str,
    /// When its last refresh was sent that was acknowledged.
    pub(super) refreshed: Option<Instant>,
    pub(super) refreshes: u64,
    /// By which member.
    pub(super) through: usize,
    /// Refreshes that took more than one member.
    pub(super) detours: u64,
    /// Its announcer was stopped.
    pub(super) silent: bool,
    /// What the last look-up said.
    pub(super) ttl: Option<i64>,
}

impl Service {
    /// To be announced, through this member.
    pub(super) fn new(address: &'static str, through: usize) -> Self {
        Self { address, refreshed: None, refreshes: 0, through, detours: 0, silent: false, ttl: None }
    }
}

/// One kind of requests, made one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    pub(super) ok: u64,
    pub(super) failed: u64,
    last: Option<Instant>,
    longest: Duration,
}

impl Track {
    /// One more that succeeded.
    pub(super) fn succeed(&mut self, now: Instant) {
        self.longest = self.longest_gap(now);
        self.last = Some(now);
        self.ok += 1;
    }

    /// The longest time from one success to the next, or to now.
    pub(super) fn longest_gap(&self, now: Instant) -> Duration {
        let open = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.longest.max(open)
    }

    /// Forgets the gaps so far.
    pub(super) fn measure_anew(&mut self) {
        self.longest = Duration::ZERO;
    }
}

impl Board {
    pub(super) fn new(members: Vec<MemberSeen>, echo: bool) -> Self {
        Self {
            state: Mutex::new(State {
                began: Instant::now(),
                act: (0, "", ""),
                feed: VecDeque::new(),
                members,
                services: BTreeMap::new(),
                writes: Track::default(),
                reads: Track::default(),
                local_reads: Track::default(),
                misses: 0,
                acknowledged: Vec::new(),
                watchers: Vec::new(),
                trouble: None,
            }),
            echo,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an act.
    pub(super) fn act(&self, title: &'static str, about: &'static str) {
        let number = {
            let mut state = self.state();
            state.act = (state.act.0 + 1, title, about);
            state.act.0
        };
        self.print(&format!("\n{number}. {title}\n   {about}\n"));
    }

    /// Tells the audience.
    pub(super) fn say(&self, text: impl Into<String>) {
        let text = text.into();
        let at = {
            let mut state = self.state();
            let at = state.began.elapsed();
            if state.feed.len() == FEED_MOST {
                state.feed.pop_front();
            }
            state.feed.push_back((at, text.clone()));
            at
        };
        self.print(&format!("{:8.3}  {text}\n", at.as_secs_f64()));
    }

    /// Ends the show.
    pub(super) fn trouble(&self, text: String) {
        self.state().trouble.get_or_insert(text);
    }

    fn print(&self, text: &str) {
        if self.echo {
            // A reader that has seen enough does not end the show.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_while_it_lasts() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut track = Track::default();
        assert_eq!(track.longest_gap(start + ms(900)), Duration::ZERO, "nothing was asked yet");
        track.succeed(start);
        track.succeed(start + ms(30));
        track.succeed(start + ms(50));
        assert_eq!((track.ok, track.longest_gap(start + ms(60))), (3, ms(30)));
        assert_eq!(track.longest_gap(start + ms(150)), ms(100));
        track.measure_anew();
        assert_eq!(track.longest_gap(start + ms(60)), ms(10));
    }
}
