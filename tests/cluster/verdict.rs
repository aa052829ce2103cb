//! What must be true of what happened.

use crate::checker::{self, Queue, QueueOp, Register, RegisterOp, Verdict};
use crate::history::{Call, Done, History, Told};
use crate::leases::Lease;
use crate::wire::value;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A key lives on for so long after its time and the time without a leader, at the most.
const LATE: u64 = 1_000_000;
/// The writers of a cluster that has a leader are answered more often than this.
const ANSWERED_EVERY: u64 = 300_000;

/// The keys with a value, as one member lists them in the end.
pub type Tree = BTreeMap<String, Value>;

pub fn leaves(node: &Value, found: &mut Tree) {
    for child in node["nodes"].as_array().into_iter().flatten() {
        leaves(child, found);
    }
    if let (Some(key), false) = (node["key"].as_str(), node["dir"] == true) {
        found.insert(key.to_owned(), node.clone());
    }
}

pub fn judge(history: &History, leases: &[Lease], trees: &[Tree]) {
    let calls = history.calls();
    registers(history, &calls);
    queues(history, &calls, &trees[0]);
    indexes(history, &calls);
    for (number, tree) in trees.iter().enumerate().skip(1) {
        if *tree != trees[0] {
            history.violation(format!("m1 and m{} list different keys in the end", number + 1));
        }
    }
    let watchers = history.watchers();
    let Some(events) = watchers.values().max_by_key(|told| told.len()) else {
        return history.violation("nobody was told anything".to_owned());
    };
    for (name, told) in &watchers {
        same_events(history, name, told, events);
    }
    acknowledged(history, &calls, events);
    replay(history, events, &trees[0]);
    late(history, &calls, leases);
    early_events(history, &watchers, leases);
}

fn refused<O: std::fmt::Debug>(history: &History, key: &str, verdict: &Verdict<O>) {
    match verdict {
        Verdict::Linearizable => {}
        Verdict::Undecided => history.violation(format!("{key}: too many ways to try: no verdict")),
        Verdict::Not(calls) => {
            let table = checker::table(calls);
            history.violation(format!(
                "{key} is not linearizable (ms called, ms answered, who, what):\n{table}"
            ));
        }
    }
}

fn of(call: &Call, op: RegisterOp) -> checker::Call<RegisterOp> {
    checker::Call { who: call.who.clone(), invoked: call.invoked, returned: call.returned, op }
}

fn registers(history: &History, calls: &[Call]) {
    let ours = calls.iter().filter_map(|call| match call.done {
        Done::Register(op) => Some((call.key.clone(), of(call, op))),
        _ => None,
    });
    for (key, calls) in checker::by_key(ours.collect()) {
        refused(history, &key, &checker::check::<Register>(&calls));
    }
}

fn queues(history: &History, calls: &[Call], tree: &Tree) {
    let mut queues: HashMap<&str, Vec<(&str, u64)>> = HashMap::new();
    for (key, node) in tree.iter().filter(|(key, _)| key.starts_with("/q/")) {
        if let (Some((queue, _)), Some(value)) = (key.rsplit_once('/'), value(node)) {
            queues.entry(queue).or_default().push((key, value));
        }
    }
    let empty = Vec::new();
    let mut ours = Vec::new();
    for call in calls {
        let there = queues.get(call.key.as_str()).unwrap_or(&empty);
        let op = match &call.done {
            Done::Append(place, value) => {
                let mut places = (0..).zip(there).filter(|(_, (_, other))| other == value);
                let found = places.next();
                if places.next().is_some() {
                    history.violation(format!("{value} was appended to {} twice", call.key));
                }
                match (place, found) {
                    (Some(place), Some((number, (key, _)))) if place == key => QueueOp::Append(number),
                    (Some(place), found) => {
                        history.violation(format!(
                            "{place} was acknowledged to be {value}; in the end: {found:?}"
                        ));
                        continue;
                    }
                    (None, Some((number, _))) => QueueOp::Append(number),
                    (None, None) => continue,
                }
            }
            Done::List(values) => {
                if !there.iter().map(|(_, value)| value).take(values.len()).eq(values) {
                    history.violation(format!(
                        "{}: {} listed {values:?}; in the end: {there:?}",
                        call.key, call.who
                    ));
                    continue;
                }
                QueueOp::List(values.len() as u64)
            }
            _ => continue,
        };
        let Call { who, invoked, returned, .. } = call.clone();
        ours.push((call.key.clone(), checker::Call { who, invoked, returned, op }));
    }
    for (key, calls) in checker::by_key(ours) {
        refused(history, &key, &checker::check::<Queue>(&calls));
    }
}

/// An answer's `X-Etcd-Index` is never behind what any answer before the request has shown, on whichever member.
fn indexes(history: &History, calls: &[Call]) {
    let mut shown: Vec<(u64, u64)> = calls
        .iter()
        .filter_map(|call| Some((call.returned?, call.index.max(call.wrote.map(|(index, _)| index))?)))
        .collect();
    shown.sort_unstable();
    let mut asked: Vec<&Call> = calls.iter().filter(|call| call.index.is_some()).collect();
    asked.sort_by_key(|call| call.invoked);
    let (mut known, mut at) = (0, 0);
    for call in asked {
        while at < shown.len() && shown[at].0 < call.invoked {
            known = known.max(shown[at].1);
            at += 1;
        }
        if call.index.is_some_and(|index| index < known) {
            history.violation(format!("index {known} was shown before this was asked: {call:?}"));
        }
    }
}

fn same_events(history: &History, name: &str, told: &[Told], events: &[Told]) {
    for (number, pair) in told.windows(2).enumerate() {
        if pair[0].index >= pair[1].index {
            let (one, two) = (&pair[0].event, &pair[1].event);
            history.violation(format!("{name}: events {number} and the next are out of order: {one} {two}"));
        }
    }
    let differs = |(one, other): (&Told, &Told)| (one.index, &one.event) != (other.index, &other.event);
    let number = told.iter().zip(events).position(differs);
    let number = number.or((told.len() != events.len()).then(|| told.len().min(events.len())));
    if let Some(number) = number {
        let event = |told: &[Told]| told.get(number).map(|told| told.event.to_string());
        let (mine, others) = (event(told), event(events));
        history
            .violation(format!("{name}: event {number} of {} is {mine:?}, elsewhere {others:?}", told.len()));
    }
}

/// Each acknowledged write is an event with its index, and no value is written twice.
fn acknowledged(history: &History, calls: &[Call], events: &[Told]) {
    let mut written = HashMap::new();
    let mut seen = HashSet::new();
    for told in events {
        let node = &told.event["node"];
        if let Some(value) = value(node).filter(|_| told.event["action"] != "expire") {
            written.insert(told.index, (node["key"].as_str(), value));
            if !seen.insert(value) {
                history.violation(format!("{value} was written twice: {}", told.event));
            }
        }
    }
    for call in calls {
        let Some((index, value)) = call.wrote else { continue };
        let found = written.get(&index);
        let key = match &call.done {
            Done::Append(Some(key), _) => key,
            _ => &call.key,
        };
        if found != Some(&(Some(key.as_str()), value)) {
            history.violation(format!("acknowledged, and its event is {found:?}: {call:?}"));
        }
    }
}

/// The events one after the other make what is listed in the end, and each says rightly what was before it.
fn replay(history: &History, events: &[Told], tree: &Tree) {
    // Refreshes move an index and are not told.
    let told = |key: &str| !key.starts_with("/t/");
    let mut nodes: HashMap<String, Value> = HashMap::new();
    for Told { event, .. } in events {
        let node = &event["node"];
        let Some(key) = node["key"].as_str().filter(|key| told(key)) else { continue };
        let previous = event.get("prevNode");
        let before = nodes.get(key);
        if previous.is_some_and(|previous| before != Some(previous))
            || (previous.is_none() && before.is_some())
        {
            let before = before.map(Value::to_string);
            history.violation(format!("the node before was {before:?}, and its event says {event}"));
        }
        if matches!(event["action"].as_str(), Some("delete" | "expire" | "compareAndDelete")) {
            nodes.remove(key);
        } else {
            nodes.insert(key.to_owned(), node.clone());
        }
    }
    let nodes: BTreeMap<_, _> = nodes.into_iter().collect();
    let listed: BTreeMap<_, _> =
        tree.iter().filter(|(key, _)| told(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if nodes != listed {
        let wrong = nodes.iter().find(|(key, node)| listed.get(*key) != Some(node));
        let extra = listed.iter().find(|(key, node)| nodes.get(*key) != Some(node));
        history.violation(format!("the events make {wrong:?}, what is listed is {extra:?}"));
    }
}

/// How long nobody was answered between the two times.
fn leaderless(answers: &[u64], from: u64, to: u64) -> u64 {
    let first = answers.partition_point(|at| *at <= from).saturating_sub(1);
    let last = (answers.partition_point(|at| *at < to) + 1).clamp(first, answers.len());
    let gaps = answers[first..last].windows(2).map(|pair| (pair[0], pair[1]));
    gaps.filter(|(one, two)| two - one > ANSWERED_EVERY).map(|(one, two)| two - one).sum()
}

fn late(history: &History, calls: &[Call], leases: &[Lease]) {
    let mut answers: Vec<u64> = calls.iter().filter_map(|call| call.wrote.and(call.returned)).collect();
    answers.sort_unstable();
    for lease in leases.iter().filter(|lease| !lease.maybe_longer) {
        let end = lease.acknowledged + lease.ttl;
        let without = leaderless(&answers, lease.acknowledged, lease.seen);
        if lease.seen > end + without + LATE {
            let late = (lease.seen - end) / 1000;
            let without = without / 1000;
            history.violation(format!(
                "lived {late} ms after its time, {without} of them without a leader: {lease:?}"
            ));
        }
    }
}

fn early_events(history: &History, watchers: &BTreeMap<String, Vec<Told>>, leases: &[Lease]) {
    let ends: HashMap<&str, u64> =
        leases.iter().map(|lease| (lease.key.as_str(), lease.sent + lease.ttl)).collect();
    for told in watchers.values().flatten().filter(|told| told.event["action"] == "expire") {
        let end = told.event["node"]["key"].as_str().and_then(|key| ends.get(key));
        if end.is_some_and(|end| told.at + 10_000 < *end) {
            history.violation(format!("expired before its time, which was {end:?} us: {told:?}"));
        }
    }
}
