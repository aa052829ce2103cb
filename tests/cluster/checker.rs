//! Whether a history of calls on one object could have happened one call at a time, each between its invocation and its
//! return: linearizability, by the search of Wing and Gong with Lowe's memory of what was tried.
//!
//! A call without an answer is open-ended: it may take effect at any time after it was made, or never. What is refused is
//! shrunk to a part that is refused too and that a person can read.
//!
//! What it does not do: histories of several objects (each key is one; linearizability is local), models whose step has
//! several outcomes (an unknown outcome is an open end instead).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;

/// The sequential behaviour of an object.
pub trait Model {
    type State: Clone + Eq + Hash + Default;
    type Op: Clone + fmt::Debug;
    /// The state after `op`, or none if what it answered cannot be in this state.
    fn step(state: &Self::State, op: &Self::Op) -> Option<Self::State>;
    /// It leaves every state as it is: a history without it is no easier to refuse.
    fn pure(op: &Self::Op) -> bool;
    /// The value that `op` makes the state, if that is all that it does: an operation that does not observe that value
    /// could as well follow what was before `op`.
    fn writes(op: &Self::Op) -> Option<u64>;
    /// It answered that, or had the effect because, the value was this.
    fn observes(op: &Self::Op, value: u64) -> bool;
    /// It observes any value, and does not say which.
    fn is_vague(op: &Self::Op) -> bool;
}

/// A call: when it was made, when it was answered (none: never), and what it was.
#[derive(Clone, Debug)]
pub struct Call<O> {
    pub who: String,
    pub invoked: u64,
    pub returned: Option<u64>,
    pub op: O,
}

pub enum Verdict<O> {
    Linearizable,
    /// A part of the history that is not, as small as it was quickly found.
    Not(Vec<Call<O>>),
    /// Too many ways to try.
    Undecided,
}

/// Steps of the search before it is given up: some seconds.
const STEPS_MAX: u64 = 20_000_000;

/// Judges the history of one object.
pub fn check<M: Model>(calls: &[Call<M::Op>]) -> Verdict<M::Op> {
    let calls = without_unseen::<M>(calls);
    match linearizable::<M>(&calls) {
        Some(true) => Verdict::Linearizable,
        Some(false) => Verdict::Not(shrink::<M>(calls)),
        None => Verdict::Undecided,
    }
}

/// An open-ended write whose value nobody saw may as well not have happened: if the history is linearizable with it then
/// it is without it, and the other way round it takes effect after everything else. Only what saw somebody's value and did
/// not say whose may have seen it; that is left out too, since each such write doubles the ways to try.
fn without_unseen<M: Model>(calls: &[Call<M::Op>]) -> Vec<Call<M::Op>> {
    let mut kept: Vec<_> =
        calls.iter().filter(|call| call.returned.is_some() || !M::pure(&call.op)).cloned().collect();
    loop {
        let sees = |value| kept.iter().any(|call| !M::is_vague(&call.op) && M::observes(&call.op, value));
        let unseen =
            |call: &Call<_>| call.returned.is_none() && M::writes(&call.op).is_some_and(|value| !sees(value));
        let gone: Vec<bool> = kept.iter().map(unseen).collect();
        let Some(first) =
            kept.iter().zip(&gone).filter(|(_, gone)| **gone).map(|(call, _)| call.invoked).min()
        else {
            return kept;
        };
        let blurred = |call: &Call<_>| M::is_vague(&call.op) && call.returned.is_some_and(|at| at > first);
        kept = kept
            .iter()
            .zip(&gone)
            .filter(|(call, gone)| !**gone && !blurred(call))
            .map(|(call, _)| call.clone())
            .collect();
    }
}

/// One end of a call in the list of what happened, in the order of time.
#[derive(Clone, Copy)]
struct End {
    call: usize,
    is_return: bool,
}

/// A doubly linked list over indexes, from which ends are taken and to which they are put back in reverse.
struct Ends {
    list: Vec<End>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where each call's two ends are; the return may be missing.
    places: Vec<(usize, Option<usize>)>,
}

const HEAD: usize = 0;

impl Ends {
    fn new<O>(calls: &[Call<O>]) -> Self {
        let mut ends = Vec::with_capacity(2 * calls.len());
        for (call, made) in calls.iter().enumerate() {
            ends.push((made.invoked, false, call));
            if let Some(returned) = made.returned {
                ends.push((returned, true, call));
            }
        }
        // At one instant calls come before returns: what may have overlapped has.
        ends.sort_unstable();
        let mut places = vec![(0, None); calls.len()];
        for (at, (_, is_return, call)) in ends.iter().enumerate() {
            if *is_return {
                places[*call].1 = Some(at + 1);
            } else {
                places[*call].0 = at + 1;
            }
        }
        let count = ends.len() + 1;
        Self {
            list: ends.into_iter().map(|(_, is_return, call)| End { call, is_return }).collect(),
            next: (1..=count).map(|at| at % count).collect(),
            previous: (0..count).map(|at| (at + count - 1) % count).collect(),
            places,
        }
    }

    fn at(&self, place: usize) -> End {
        self.list[place - 1]
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn link(&mut self, place: usize) {
        let (before, after) = (self.previous[place], self.next[place]);
        self.next[before] = place;
        self.previous[after] = place;
    }

    fn take(&mut self, call: usize) {
        let (invocation, answer) = self.places[call];
        self.unlink(invocation);
        if let Some(answer) = answer {
            self.unlink(answer);
        }
    }

    fn put_back(&mut self, call: usize) {
        let (invocation, answer) = self.places[call];
        if let Some(answer) = answer {
            self.link(answer);
        }
        self.link(invocation);
    }
}

/// Which calls have taken effect.
type Done = Box<[u64]>;

fn flip(done: &mut Done, call: usize) {
    done[call / 64] ^= 1 << (call % 64);
}

/// None: too many ways to try.
fn linearizable<M: Model>(calls: &[Call<M::Op>]) -> Option<bool> {
    let mut list = Ends::new(calls);
    let mut answered = calls.iter().filter(|call| call.returned.is_some()).count();
    let mut state = M::State::default();
    let mut done: Done = vec![0; calls.len().div_ceil(64)].into();
    let mut tried: HashSet<(Done, M::State)> = HashSet::new();
    let mut effects: Vec<(usize, M::State)> = Vec::new();
    let mut place = list.next[HEAD];
    let mut steps = 0_u64;
    while answered > 0 {
        steps += 1;
        if steps > STEPS_MAX {
            return None;
        }
        // Nothing is left to try before the first answer in the list: the last effect was wrong.
        if place == HEAD || list.at(place).is_return {
            let Some((call, before)) = effects.pop() else { return Some(false) };
            state = before;
            flip(&mut done, call);
            list.put_back(call);
            answered += usize::from(calls[call].returned.is_some());
            place = list.next[list.places[call].0];
            continue;
        }
        let call = list.at(place).call;
        if let Some(after) = M::step(&state, &calls[call].op) {
            flip(&mut done, call);
            if tried.insert((done.clone(), after.clone())) {
                effects.push((call, std::mem::replace(&mut state, after)));
                list.take(call);
                answered -= usize::from(calls[call].returned.is_some());
                place = list.next[HEAD];
                continue;
            }
            flip(&mut done, call);
        }
        place = list.next[place];
    }
    Some(true)
}

/// Leaves out what can be left out without making it linearizable.
fn shrink<M: Model>(mut calls: Vec<Call<M::Op>>) -> Vec<Call<M::Op>> {
    let refused = |calls: &[Call<M::Op>]| linearizable::<M>(calls) == Some(false);
    calls.sort_by_key(|call| call.invoked);
    // What was known at a time: the earliest such time.
    let mut times: Vec<u64> = calls.iter().filter_map(|call| call.returned).collect();
    times.sort_unstable();
    let until = |time: u64| -> Vec<Call<M::Op>> {
        let known = calls.iter().filter(|call| call.invoked <= time).cloned();
        known.map(|call| Call { returned: call.returned.filter(|at| *at <= time), ..call }).collect()
    };
    let (mut low, mut high) = (0, times.len().saturating_sub(1));
    while low < high {
        let middle = usize::midpoint(low, high);
        if refused(&until(times[middle])) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let early = times.get(low).map(|time| without_unseen::<M>(&until(*time)));
    if let Some(early) = early.filter(|early| refused(early)) {
        calls = early;
    }
    // Then one call after the other, the oldest first, as long as nothing else depends on it.
    let mut at = 0;
    while at < calls.len() {
        let alone = M::writes(&calls[at].op).is_some_and(|value| {
            !calls.iter().enumerate().any(|(other, call)| other != at && M::observes(&call.op, value))
        });
        if !M::pure(&calls[at].op) && !alone {
            at += 1;
            continue;
        }
        let removed = calls.remove(at);
        if refused(&calls) {
            at = 0;
        } else {
            calls.insert(at, removed);
            at += 1;
        }
    }
    calls
}

/// A key: it has a value or it has none. Values are written once.
pub struct Register;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOp {
    Read(Option<u64>),
    Write(u64),
    Create(u64),
    /// Refused, because there is a value.
    CreateRefused,
    Swap {
        previous: u64,
        value: u64,
    },
    /// Refused, because this was there.
    SwapRefused(Option<u64>),
    /// What was there.
    Delete(Option<u64>),
    /// Not known what was there, nor whether it happened.
    DeleteUnknown,
}

impl Model for Register {
    type State = Option<u64>;
    type Op = RegisterOp;

    fn step(state: &Self::State, op: &Self::Op) -> Option<Self::State> {
        match *op {
            RegisterOp::Read(seen) | RegisterOp::SwapRefused(seen) => (*state == seen).then_some(*state),
            RegisterOp::Write(value) => Some(Some(value)),
            RegisterOp::Create(value) => state.is_none().then_some(Some(value)),
            RegisterOp::CreateRefused => state.is_some().then_some(*state),
            RegisterOp::Swap { previous, value } => (*state == Some(previous)).then_some(Some(value)),
            RegisterOp::Delete(seen) => (*state == seen).then_some(None),
            RegisterOp::DeleteUnknown => Some(None),
        }
    }

    fn pure(op: &Self::Op) -> bool {
        matches!(
            op,
            RegisterOp::Read(_)
                | RegisterOp::SwapRefused(_)
                | RegisterOp::CreateRefused
                | RegisterOp::Delete(None)
        )
    }

    fn writes(op: &Self::Op) -> Option<u64> {
        match *op {
            RegisterOp::Write(value) | RegisterOp::Create(value) | RegisterOp::Swap { value, .. } => {
                Some(value)
            }
            _ => None,
        }
    }

    fn observes(op: &Self::Op, value: u64) -> bool {
        match *op {
            RegisterOp::Read(seen) | RegisterOp::SwapRefused(seen) | RegisterOp::Delete(seen) => {
                seen == Some(value)
            }
            RegisterOp::Swap { previous, .. } => previous == value,
            RegisterOp::CreateRefused => true,
            RegisterOp::Write(_) | RegisterOp::Create(_) | RegisterOp::DeleteUnknown => false,
        }
    }

    fn is_vague(op: &Self::Op) -> bool {
        matches!(op, RegisterOp::CreateRefused)
    }
}

/// A directory of keys made in order, none of them ever removed: the place that each has in the end is known.
pub struct Queue;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOp {
    /// The value that is at this place in the end.
    Append(u64),
    /// So many, and they are the first of what there is in the end.
    List(u64),
}

impl Model for Queue {
    type State = u64;
    type Op = QueueOp;

    fn step(state: &Self::State, op: &Self::Op) -> Option<Self::State> {
        match *op {
            QueueOp::Append(place) => (*state == place).then_some(state + 1),
            QueueOp::List(length) => (*state == length).then_some(*state),
        }
    }

    fn pure(op: &Self::Op) -> bool {
        matches!(op, QueueOp::List(_))
    }

    fn writes(_: &Self::Op) -> Option<u64> {
        None
    }

    fn observes(_: &Self::Op, _: u64) -> bool {
        true
    }

    fn is_vague(_: &Self::Op) -> bool {
        false
    }
}

/// One call a line, in the order in which they were made, times in milliseconds.
pub fn table<O: fmt::Debug>(calls: &[Call<O>]) -> String {
    let mut lines: Vec<&Call<O>> = calls.iter().collect();
    lines.sort_by_key(|call| call.invoked);
    let time = |micros: u64| format!("{:.3}", micros as f64 / 1000.0);
    let line = |call: &&Call<O>| {
        let returned = call.returned.map_or_else(|| "?".to_owned(), time);
        format!("  {:>11} {:>11}  {:<12} {:?}\n", time(call.invoked), returned, call.who, call.op)
    };
    lines.iter().map(line).collect()
}

/// The calls on each object, apart.
pub fn by_key<O>(calls: Vec<(String, Call<O>)>) -> HashMap<String, Vec<Call<O>>> {
    let mut apart: HashMap<String, Vec<Call<O>>> = HashMap::new();
    for (key, call) in calls {
        apart.entry(key).or_default().push(call);
    }
    apart
}
