//! What is drawn: the board as lines of styled text. Pure.

use crate::demo::actors::TTL;
use crate::demo::acts::seconds;
use crate::demo::board::{MemberSeen, Service, State, Track};
use std::time::{Duration, Instant};

/// Cells of a service's bar.
const BAR: usize = 15;
/// Acts in all.
const ACTS: usize = 5;
/// Events that are shown.
const EVENTS: usize = 6;

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Notable,
}

/// Pieces of text from left to right.
pub(super) type Line = Vec<(Style, String)>;

/// The board on a screen of so many lines: tables first, and as much of what was said as fits.
pub(super) fn page(state: &State, height: usize) -> Vec<Line> {
    let now = Instant::now();
    let (number, title, about) = state.act;
    let mut lines = vec![
        vec![
            (Style::Bold, format!(" quorate demo   {number}/{ACTS}  {title}")),
            (Style::Dim, format!("   {:.1} s   q ends it", now.duration_since(state.began).as_secs_f64())),
        ],
        vec![(Style::Notable, format!(" {about}"))],
        Line::new(),
        heading(&format!(
            " {:<7}{:<17}{:<10}{:<11}{:>6}{:>11}",
            "MEMBER", "CLIENTS", "PROCESS", "STATE", "TERM", "LOG"
        )),
    ];
    lines.extend(state.members.iter().map(member));
    if !state.services.is_empty() {
        lines.push(Line::new());
        let bar = format!("TIME LEFT OF {TTL} s");
        lines.push(heading(&format!(
            " {:<11}{:<17}{bar:<24}{:<5}{:>9}",
            "SERVICE", "ADDRESS", "TTL", "REFRESHES"
        )));
        lines.extend(state.services.iter().map(|(name, of)| service(name, of, now)));
        lines.push(Line::new());
        lines.push(heading(&format!(" {:<26}{:>8}{:>8}{:>14}", "REQUESTS", "OK", "FAILED", "LONGEST GAP")));
        lines.push(track("look-ups, linearizable", &state.reads, now));
        lines.push(track("look-ups, quorum=false", &state.local_reads, now));
        lines.push(track("writes", &state.writes, now));
        lines.push(Line::new());
        lines.extend(watchers(state));
    }
    lines.push(Line::new());
    let room = height.saturating_sub(lines.len());
    let said = state.feed.iter().skip(state.feed.len().saturating_sub(room));
    lines.extend(said.map(|(at, text)| {
        vec![(Style::Dim, format!(" {:7.3}  ", at.as_secs_f64())), (Style::Plain, text.clone())]
    }));
    lines.truncate(height);
    lines
}

fn heading(text: &str) -> Line {
    vec![(Style::Dim, text.to_owned())]
}

fn member(seen: &MemberSeen) -> Line {
    let (style, state) = match (&seen.pid, &seen.status) {
        (None, _) => (Style::Bad, "down"),
        (Some(_), None) => (Style::Notable, "starting"),
        (Some(_), Some(_)) if seen.leads() => (Style::Good, "leader"),
        (Some(_), Some(_)) if seen.follows_or_leads() => (Style::Plain, "follower"),
        (Some(_), Some(_)) => (Style::Notable, "no leader"),
    };
    let pid = seen.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let numbers = seen.status.as_ref().map_or_else(
        || format!("{:>6}{:>11}", "-", "-"),
        |status| format!("{:>6}{:>11}", status.term, status.applied),
    );
    vec![
        (Style::Bold, format!(" {:<7}", seen.name)),
        (Style::Plain, format!("{:<17}{pid:<10}", seen.address)),
        (style, format!("{state:<11}")),
        (Style::Plain, numbers),
    ]
}

fn service(name: &str, of: &Service, now: Instant) -> Line {
    let ttl = Duration::from_secs(TTL);
    let left = of.refreshed.map_or(Duration::ZERO, |at| ttl.saturating_sub(now.duration_since(at)));
    let cells = (left.as_millis() as usize * BAR).div_ceil(ttl.as_millis() as usize);
    let bar = format!("{}{}", "█".repeat(cells), "░".repeat(BAR - cells));
    let (style, note) = match (of.silent, of.ttl) {
        (true, None) => (Style::Bad, "  expired".to_owned()),
        (true, Some(_)) => (Style::Notable, "  silent".to_owned()),
        (false, _) => (Style::Good, format!("  through m{}", of.through + 1)),
    };
    let stored = of.ttl.map_or_else(|| "-".to_owned(), |ttl| ttl.to_string());
    vec![
        (Style::Bold, format!(" {name:<11}")),
        (Style::Plain, format!("{:<17}", of.address)),
        (style, bar),
        (
            Style::Plain,
            format!(" {:>5}   {stored:<5}{:>9}", format!("{:.1} s", left.as_secs_f64()), of.refreshes),
        ),
        (style, note),
    ]
}

fn track(name: &str, track: &Track, now: Instant) -> Line {
    let failed = if track.failed == 0 { Style::Plain } else { Style::Bad };
    vec![
        (Style::Plain, format!(" {name:<26}{:>8}", track.ok)),
        (failed, format!("{:>8}", track.failed)),
        (Style::Plain, format!("{:>14}", seconds(track.longest_gap(now)))),
    ]
}

/// What the first watcher heard last, and how far both are.
fn watchers(state: &State) -> Vec<Line> {
    let of = state.watchers.iter().enumerate().map(|(i, seen)| {
        let faults =
            if seen.faults.is_empty() { String::new() } else { format!(", {} FAULTS", seen.faults.len()) };
        format!("   {} at m{}: {} events{faults}", i + 1, seen.at + 1, seen.indexes.len())
    });
    let mut lines = vec![heading(&format!(" WATCHERS{}", of.collect::<String>()))];
    let recent = state.watchers.first().map(|seen| seen.recent.iter()).unwrap_or_default();
    for (index, event) in recent.rev().take(EVENTS).rev() {
        let style = if event.starts_with("expire") { Style::Bad } else { Style::Plain };
        lines.push(vec![(Style::Dim, format!(" {index:>6}  ")), (style, event.clone())]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::board::Board;

    fn text(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| line.iter().map(|(_, text)| text.as_str()).collect()).collect()
    }

    #[test]
    fn it_fits_whatever_the_height() {
        let seen =
            MemberSeen { name: "m1".into(), address: "127.0.0.1:4001".into(), pid: Some(7), status: None };
        let board = Board::new(vec![seen], false);
        board.state().services.insert("apache80", Service::new("10.0.0.11:80", 0));
        (0..50).for_each(|i| board.say(format!("line {i}")));
        for height in [0, 1, 5, 20, 40] {
            let lines = text(&page(&board.state(), height));
            assert_eq!(lines.len(), height);
        }
        let lines = text(&page(&board.state(), 40));
        assert!(lines[4].contains("m1") && lines[4].contains("starting"), "{lines:#?}");
        assert!(lines[39].ends_with("line 49"), "the newest is last: {lines:#?}");
    }
}
