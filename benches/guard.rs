//! Work whose instructions are counted: `benches/guard.sh` runs each part under callgrind, which counts what happens
//! within [`measured`] alone, and holds the counts against `benches/guard.counts`. Counts repeat where times do not.

#[path = "micro/work.rs"]
mod work;

use quorate::store::{ClusterTime, Command, Key, Store};
use std::hint::black_box;

/// Callgrind's switch: it counts from here on, and until the end of this.
#[inline(never)]
fn measured(part: impl FnOnce()) {
    part();
    // So that the call is not the last thing that happens, which could be made a jump.
    black_box(());
}

const KEYS: u64 = 10_000;
/// How many writes are applied before a clone is published to the readers.
const WRITES_PER_CLONE: u64 = 16;

/// Overwrites that jump about the keyspace, while a reader holds the clone of the last publish.
fn overwrite(store: &mut Store, commands: &[Command]) {
    let mut published = store.clone();
    for (done, command) in (1..).zip(commands) {
        black_box(store.apply(ClusterTime(1), command).expect("a file stays a file"));
        if done % WRITES_PER_CLONE == 0 {
            published = store.clone();
        }
    }
    black_box(published.index());
}

fn read(store: &Store, keys: &[Key]) {
    for key in keys {
        black_box(store.get(key).expect("every key was set"));
    }
}

fn run(part: &str) -> Result<(), String> {
    match part {
        "store_set" => {
            let (mut store, commands) = (work::filled(KEYS), work::overwrites(KEYS, 2_000));
            measured(|| overwrite(&mut store, &commands));
        }
        "store_get" => {
            let store = work::filled(KEYS);
            let keys: Vec<_> = (0..2_000).map(|turn| work::key(turn * 7_919 % KEYS)).collect();
            measured(|| read(&store, &keys));
        }
        "render_event" => {
            let event = work::event();
            measured(|| work::render(&event, 2_000));
        }
        "parse_put" => measured(|| work::parse(2_000)),
        "watch_match" => {
            let (hub, outcomes) = (work::hub(KEYS), work::outcomes(2_000));
            measured(|| _ = black_box(work::match_watchers(&hub, &outcomes)));
        }
        "commit_one" => {
            let (mut trio, writes) = (work::Trio::start(), work::overwrites(KEYS, 200));
            measured(|| writes.chunks(1).for_each(|write| trio.commit(write)));
        }
        "commit_batch" => {
            let (mut trio, writes) = (work::Trio::start(), work::overwrites(KEYS, 1_280));
            measured(|| writes.chunks(64).for_each(|writes| trio.commit(writes)));
        }
        other => return Err(format!("no part is called {other:?}")),
    }
    Ok(())
}

const PARTS: [&str; 7] =
    ["store_set", "store_get", "render_event", "parse_put", "watch_match", "commit_one", "commit_batch"];

fn main() -> Result<(), String> {
    // `cargo bench` adds `--bench`.
    let parts: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match &parts[..] {
        [] => PARTS.iter().try_for_each(|part| run(part)),
        [list] if list == "list" => {
            println!("{}", PARTS.join("\n"));
            Ok(())
        }
        parts => parts.iter().try_for_each(|part| run(part)),
    }
}
