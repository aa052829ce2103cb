//! The checker against histories of which it is known whether they are linearizable.

use crate::checker::RegisterOp::{
    Create, CreateRefused, Delete, DeleteUnknown, Read, Swap, SwapRefused, Write,
};
use crate::checker::{Call, Model, Queue, QueueOp, Register, RegisterOp, Verdict, check};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

fn call<O>(invoked: u64, returned: u64, op: O) -> Call<O> {
    Call { who: String::new(), invoked, returned: Some(returned), op }
}

fn open<O>(invoked: u64, op: O) -> Call<O> {
    Call { who: String::new(), invoked, returned: None, op }
}

fn accepted<M: Model>(calls: &[Call<M::Op>]) -> bool {
    match check::<M>(calls) {
        Verdict::Linearizable => true,
        Verdict::Not(_) => false,
        Verdict::Undecided => panic!("undecided: {calls:?}"),
    }
}

#[test]
fn one_after_the_other() {
    assert!(accepted::<Register>(&[call(0, 1, Read(None)), call(2, 3, Write(1)), call(4, 5, Read(Some(1)))]));
    assert!(accepted::<Register>(&[
        call(0, 1, Create(1)),
        call(2, 3, CreateRefused),
        call(4, 5, Swap { previous: 1, value: 2 }),
        call(6, 7, SwapRefused(Some(2))),
        call(8, 9, Delete(Some(2))),
        call(10, 11, SwapRefused(None)),
        call(12, 13, Create(3)),
    ]));
}

#[test]
fn a_stale_read_is_refused() {
    let history = [call(0, 1, Write(1)), call(2, 3, Write(2)), call(4, 5, Read(Some(1)))];
    assert!(!accepted::<Register>(&history));
    assert!(!accepted::<Register>(&[call(0, 1, Write(1)), call(2, 3, Read(None))]));
}

#[test]
fn a_read_beside_a_write_may_see_either_but_not_both_in_the_wrong_order() {
    let write = call(10, 50, Write(2));
    let before = call(0, 5, Write(1));
    for seen in [1, 2] {
        assert!(accepted::<Register>(&[before.clone(), write.clone(), call(20, 30, Read(Some(seen)))]));
    }
    let flicker = [before, write, call(12, 15, Read(Some(2))), call(20, 30, Read(Some(1)))];
    assert!(!accepted::<Register>(&flicker));
}

#[test]
fn two_swaps_of_one_value_are_refused() {
    let history = [
        call(0, 1, Write(1)),
        call(2, 9, Swap { previous: 1, value: 2 }),
        call(3, 8, Swap { previous: 1, value: 3 }),
    ];
    assert!(!accepted::<Register>(&history));
    // Unless the value was written again in between by a call that nobody knows the end of.
    assert!(accepted::<Register>(&[&history[..], &[open(2, Write(1))]].concat()));
}

#[test]
fn a_lost_write_is_refused_and_an_unanswered_one_is_not() {
    assert!(!accepted::<Register>(&[
        call(0, 1, Write(1)),
        call(5, 6, CreateRefused),
        call(7, 8, Read(None))
    ]));
    assert!(accepted::<Register>(&[open(0, Write(1)), call(5, 6, Read(None)), call(7, 8, Read(Some(1)))]));
    // It takes effect once: what was over it does not come back.
    let history =
        [open(0, Write(1)), call(1, 2, Read(Some(1))), call(3, 4, Write(2)), call(5, 6, Read(Some(1)))];
    assert!(!accepted::<Register>(&history));
    // And not before it was made.
    assert!(!accepted::<Register>(&[call(1, 2, Read(Some(1))), open(3, Write(1))]));
}

#[test]
fn two_creations_without_a_removal_are_refused() {
    let history = [call(0, 1, Create(1)), call(2, 3, Create(2))];
    assert!(!accepted::<Register>(&history));
    assert!(accepted::<Register>(&[&history[..], &[open(0, DeleteUnknown)]].concat()));
    assert!(!accepted::<Register>(&[call(0, 1, Write(1)), call(2, 3, Delete(None))]));
}

#[test]
fn a_queue_is_its_first_so_many_at_any_time() {
    let append = |place, at| call(at, at + 1, QueueOp::Append(place));
    assert!(accepted::<Queue>(&[append(0, 0), append(1, 2), call(4, 5, QueueOp::List(2))]));
    // An acknowledged one is missing.
    assert!(!accepted::<Queue>(&[append(0, 0), append(1, 2), call(4, 5, QueueOp::List(1))]));
    // They stand in another order than that in which they were acknowledged.
    assert!(!accepted::<Queue>(&[append(1, 0), append(0, 2)]));
    // One that was listed is not listed any more.
    let back = [open(0, QueueOp::Append(0)), call(1, 2, QueueOp::List(1)), call(3, 4, QueueOp::List(0))];
    assert!(!accepted::<Queue>(&back));
}

#[test]
fn what_is_refused_is_shown_small() {
    let mut history: Vec<Call<RegisterOp>> = (0..200_u64)
        .flat_map(|n| [call(10 * n, 10 * n + 1, Write(n)), call(10 * n + 2, 10 * n + 3, Read(Some(n)))])
        .collect();
    history.push(call(1505, 1506, Read(Some(7))));
    let Verdict::Not(small) = check::<Register>(&history) else { panic!("accepted") };
    assert!(small.len() <= 3, "{small:?}");
    assert!(small.iter().any(|call| call.op == Read(Some(7)) && call.invoked == 1505), "{small:?}");
}

/// A history that some register really made: calls at random times, each taking effect within.
fn real(chance: &mut ChaCha8Rng, count: u64) -> Vec<Call<RegisterOp>> {
    let mut state = None;
    let mut calls = Vec::new();
    for n in 0..count {
        let effect = 100 * n;
        let span = |chance: &mut ChaCha8Rng| chance.random_range(1..300_u64);
        let (invoked, returned) = (effect.saturating_sub(span(chance)), effect + span(chance));
        let op = match (chance.random_range(0..5), state) {
            (0, _) => Write(n),
            (1, Some(previous)) => Swap { previous, value: n },
            (1, None) => SwapRefused(None),
            (2, None) => Create(n),
            (2, Some(_)) => CreateRefused,
            (3, seen) if chance.random_range(0..3) == 0 => Delete(seen),
            (_, seen) => Read(seen),
        };
        state = Register::step(&state, &op).expect("it is what the register answers");
        let unknown = chance.random_range(0..12) == 0 && matches!(op, Write(_) | Swap { .. });
        calls.push(if unknown { open(invoked, op) } else { call(invoked, returned, op) });
    }
    calls
}

#[test]
fn what_a_register_did_is_accepted_and_what_it_cannot_have_done_is_not() {
    for seed in 0..30 {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let mut history = real(&mut chance, 150);
        assert!(accepted::<Register>(&history), "seed {seed}: refused");
        // Long after everything, a value that was overwritten for good.
        let end = 1_000_000;
        history.push(call(end, end + 1, Write(9999)));
        history.push(call(end + 2, end + 3, Read(Some(9999))));
        let old = chance.random_range(0..150);
        let stale = Call { op: Read(Some(old)), ..call(end + 4, end + 5, Read(None)) };
        if history.iter().all(|call| call.returned.is_some() || !matches!(call.op, Write(v) if v == old)) {
            history.push(stale);
            assert!(!accepted::<Register>(&history), "seed {seed}: accepted a value that was overwritten");
        }
    }
}
