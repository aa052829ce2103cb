//! The log against a vector, over random histories with crashes.

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use raft::eraftpb::Entry;

use super::{at, copy_dir, entry, hard_state};
use crate::storage::{Log, RecoveredLog};

/// Small, so that files are rotated, rewritten and removed.
const FILE_SIZE: u64 = 16 << 10;

#[derive(Debug, Clone)]
enum Step {
    /// So many entries of so many bytes, replacing so many of the last.
    Append { count: u64, replaced: u64, len: usize, sync: bool },
    /// Keeps so many entries.
    Compact { keep: u64 },
    /// So far ahead of the commit.
    Reset { ahead: u64 },
    /// A kill at this point, or a clean stop.
    Restart { kill: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..40_u64, 0..6_u64, 0..2000_usize, any::<bool>())
            .prop_map(|(count, replaced, len, sync)| Step::Append { count, replaced, len, sync }),
        3 => (0..50_u64).prop_map(|keep| Step::Compact { keep }),
        1 => (0..30_u64).prop_map(|ahead| Step::Reset { ahead }),
        2 => any::<bool>().prop_map(|kill| Step::Restart { kill }),
        1 => Just(Step::Compact { keep: 0 }),
    ]
}

/// Applies a step to the log and the model alike.
fn apply(log: &Log, model: &mut RecoveredLog, step: &Step) {
    match *step {
        Step::Append { count, replaced, len, sync } => {
            let kept = (model.entries.len() as u64).saturating_sub(replaced) as usize;
            model.entries.truncate(kept);
            model.hard_state.term += u64::from(replaced > 0);
            let term = model.hard_state.term.max(1);
            let first = model.last().index + 1;
            let new: Vec<Entry> =
                (first..first + count).map(|index| entry(index, term, &vec![term as u8; len])).collect();
            model.entries.extend(new.iter().cloned());
            model.hard_state = hard_state(term, 1, model.hard_state.commit.max(model.base.index));
            log.append(&new, Some(&model.hard_state), sync).unwrap();
        }
        Step::Compact { keep } => {
            let Some(dropped) = (model.entries.len() as u64).checked_sub(keep).filter(|dropped| *dropped > 0)
            else {
                return;
            };
            let last = &model.entries[dropped as usize - 1];
            model.base = at(last.index, last.term);
            model.entries.drain(..dropped as usize);
            log.compact(model.base).unwrap();
            log.free_space().unwrap();
        }
        Step::Reset { ahead } => {
            let term = model.hard_state.term + 1;
            model.base = at(model.base.index + ahead, term);
            model.entries.clear();
            model.hard_state = hard_state(term, 0, model.base.index);
            log.reset(model.base, &model.hard_state).unwrap();
        }
        Step::Restart { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_was_written_to_it(steps in vec(step(), 1..40)) {
        let mut dir = tempfile::tempdir().unwrap();
        let (mut log, mut model) = Log::open_sized(dir.path(), FILE_SIZE).unwrap();
        for step in steps.iter().chain([&Step::Restart { kill: false }]) {
            apply(&log, &mut model, step);
            if let Step::Restart { kill } = step {
                if *kill {
                    let crashed = tempfile::tempdir().unwrap();
                    copy_dir(dir.path(), crashed.path());
                    drop(log);
                    dir = crashed;
                } else {
                    drop(log);
                }
                let (opened, found) = Log::open_sized(dir.path(), FILE_SIZE).unwrap();
                log = opened;
                prop_assert_eq!(&found, &model);
            }
        }
    }
}
