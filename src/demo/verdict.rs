//! Whether everything went as promised, with the figures.

use super::actors::{SERVICES, TTL};
use super::acts::{DOOMED, Findings, seconds};
use super::board::State;
use super::sightings::Sightings;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A pause of writes, or of look-ups that need a leader, beyond this is a failure: elections take one to two seconds,
/// and one that is tied twice that.
const PAUSE_MOST: Duration = Duration::from_secs(8);
/// The same for look-ups that need none; a machine that is busy with other things may take its time.
const LOCAL_PAUSE_MOST: Duration = Duration::from_secs(2);
/// Lateness of an expiry beyond this is a failure.
const LATE_MOST: Duration = Duration::from_secs(1);

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) kept: bool,
    pub(super) text: String,
}

/// All promises.
pub(super) fn judge(state: &State, findings: &Findings) -> Vec<Promise> {
    vec![
        Promise {
            kept: true,
            text: format!(
                "three members formed a cluster from a discovery token in {}",
                seconds(findings.formed)
            ),
        },
        expiry(findings),
        Promise {
            kept: findings.pause <= PAUSE_MOST,
            text: format!(
                "leader {} killed: {} led after {}, writes paused for {}",
                findings.leaders[0],
                findings.leaders[1],
                seconds(findings.elected),
                seconds(findings.pause)
            ),
        },
        look_ups(state),
        local_look_ups(state),
        services(state),
        watched(&state.watchers),
        complete(&state.watchers, &state.acknowledged),
        Promise {
            kept: true,
            text: format!(
                "{} started again: caught up to log position {} in {}",
                findings.leaders[0],
                findings.caught_up_to,
                seconds(findings.caught_up)
            ),
        },
    ]
}

fn expiry(findings: &Findings) -> Promise {
    let ttl = Duration::from_secs(TTL);
    let early = findings.expired.iter().any(|after| *after < ttl);
    let latest = findings.expired.iter().max().copied().unwrap_or(Duration::MAX);
    let late = latest.saturating_sub(ttl);
    let how = if early { "EARLY".to_owned() } else { format!("{} late at most, never early", seconds(late)) };
    Promise {
        kept: !early && late <= LATE_MOST,
        text: format!(
            "the silent service {DOOMED} expired {} after its last refresh ({how})",
            seconds(latest)
        ),
    }
}

fn look_ups(state: &State) -> Promise {
    let gap = state.reads.longest_gap(Instant::now());
    Promise {
        kept: state.reads.ok > 0 && state.reads.failed == 0 && state.misses == 0 && gap <= PAUSE_MOST,
        text: format!(
            "linearizable look-ups: {} ok, {} failed, {} missed a live service; longest gap {}, the election",
            state.reads.ok,
            state.reads.failed,
            state.misses,
            seconds(gap)
        ),
    }
}

fn local_look_ups(state: &State) -> Promise {
    let gap = state.local_reads.longest_gap(Instant::now());
    Promise {
        kept: state.local_reads.ok > 0 && state.local_reads.failed == 0 && gap <= LOCAL_PAUSE_MOST,
        text: format!(
            "local look-ups (quorum=false): {} ok, {} failed; longest gap {}",
            state.local_reads.ok,
            state.local_reads.failed,
            seconds(gap)
        ),
    }
}

fn services(state: &State) -> Promise {
    let live: Vec<_> = state.services.iter().filter(|(_, service)| !service.silent).collect();
    let expired = |name: &str| {
        let key = format!("{SERVICES}/{name}");
        state.watchers.iter().any(|seen| seen.expired.contains_key(&key))
    };
    let lost = live.iter().filter(|(name, _)| expired(name)).count();
    let refreshes: u64 = live.iter().map(|(_, service)| service.refreshes).sum();
    Promise {
        kept: lost == 0,
        text: format!("{} live services, refreshed {refreshes} times: {lost} of them expired", live.len()),
    }
}

/// Both watchers heard the same, without a gap that the events themselves show.
fn watched(watchers: &[Sightings]) -> Promise {
    // An event that one has heard of already and the other will in a moment is no difference.
    let common = watchers.iter().map(|seen| seen.indexes.len()).min().unwrap_or(0);
    let same = watchers.windows(2).all(|pair| pair[0].indexes[..common] == pair[1].indexes[..common]);
    let faults: Vec<&str> = watchers.iter().flat_map(|seen| &seen.faults).map(String::as_str).collect();
    let moves: u64 = watchers.iter().map(|seen| seen.moves).sum();
    let first = faults.first().map(|first| format!("; the first: {first}")).unwrap_or_default();
    Promise {
        kept: same && faults.is_empty() && common > 0,
        text: format!(
            "two watchers heard {} {common} events, resumed at another member {moves} time(s); {} out of order, twice \
             or with a gap{first}",
            if same { "the same" } else { "DIFFERENT" },
            faults.len()
        ),
    }
}

/// Every acknowledged write was heard of by every watcher.
fn complete(watchers: &[Sightings], acknowledged: &[u64]) -> Promise {
    let unheard = |seen: &Sightings| {
        let heard: HashSet<u64> = seen.indexes.iter().copied().collect();
        acknowledged.iter().filter(|index| !heard.contains(index)).count()
    };
    let missing: usize = watchers.iter().map(unheard).sum();
    Promise {
        kept: missing == 0 && !acknowledged.is_empty(),
        text: format!(
            "{} acknowledged writes are among these events, {missing} are missing",
            acknowledged.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saw(indexes: &[u64]) -> Sightings {
        let mut seen = Sightings::new(0);
        seen.indexes = indexes.to_vec();
        seen
    }

    #[test]
    fn watchers_must_agree_and_have_everything() {
        let agree = |a: &[u64], b: &[u64]| watched(&[saw(a), saw(b)]).kept;
        assert!(agree(&[1, 2, 3], &[1, 2, 3]));
        assert!(agree(&[1, 2, 3, 4], &[1, 2, 3]), "one is an event ahead");
        assert!(!agree(&[1, 2, 3], &[1, 3]), "they differ");
        assert!(!agree(&[], &[]), "nothing was shown");
        let mut twice = saw(&[1, 2]);
        twice.faults.push("event 2 came after event 2".to_owned());
        assert!(!watched(&[twice, saw(&[1, 2])]).kept);

        assert!(complete(&[saw(&[1, 2, 3]), saw(&[1, 2, 3])], &[1, 3]).kept);
        assert!(!complete(&[saw(&[1, 2, 3]), saw(&[1, 2])], &[1, 3]).kept, "one did not hear of a write");
        assert!(!complete(&[saw(&[1])], &[]).kept, "nothing was written");
    }

    #[test]
    fn an_expiry_is_neither_early_nor_much_too_late() {
        let expired = |ms: [u64; 2]| Findings {
            formed: Duration::ZERO,
            expired: ms.map(Duration::from_millis).to_vec(),
            leaders: [String::new(), String::new()],
            elected: Duration::ZERO,
            pause: Duration::ZERO,
            caught_up: Duration::ZERO,
            caught_up_to: 0,
        };
        assert!(expiry(&expired([3001, 3040])).kept);
        assert!(!expiry(&expired([3001, 2990])).kept);
        assert!(!expiry(&expired([3001, 4100])).kept);
    }
}
