//! A real cluster of three is crashed at every point, and recovers.
//!
//! Members are processes: this program again, so that the points are in it. After each crash the member is started again;
//! then it must be well, every acknowledged write must be there on every member, and all must hold the same.

#![allow(unreachable_pub, reason = "modules of a test, two of which another shares")]

mod cluster;
#[path = "../../../tests/power/http.rs"]
mod http;
#[path = "../../../tests/power/load.rs"]
mod load;
mod plan;
mod scenes;

use crate::node::config::{Invocation, parse};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

/// By itself: a process that is being started holds, for a moment, what other tests of this process have open and locked.
#[test]
#[ignore = "tests/run runs it by itself"]
fn a_member_recovers_from_a_crash_at_every_point() {
    let begun = Instant::now();
    let mut cluster = cluster::Cluster::new();
    let mut scene = |what: &str, play: &mut dyn FnMut(&mut cluster::Cluster)| {
        play(&mut cluster);
        println!("{:5.1} s  {} crashes, after {what}", begun.elapsed().as_secs_f64(), cluster.crashes);
    };
    scene("founding", &mut scenes::found);
    scene("writing", &mut scenes::write);
    scene("sending the state", &mut scenes::send_state);
    for whose in [scenes::Whose::Leader, scenes::Whose::Another] {
        scene("coming and going", &mut |cluster| scenes::come_and_go(cluster, whose));
        scene("leaving", &mut |cluster| scenes::leave(cluster, whose));
    }
    scene("discovering", &mut scenes::discover);
    scene("stopping", &mut scenes::stop);
    scene("going on alone", &mut scenes::go_on_alone);
    let acknowledged = cluster.load.take().map_or(0, load::Load::stop);
    assert!(acknowledged > 1_000, "hardly anything was written: {acknowledged}");
}

/// What the scenes leave out would not be crashed at, and what is not in the table would not be looked for.
#[test]
fn every_point_of_the_source_is_in_the_plan() {
    let mut found = Vec::new();
    in_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let once: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(once.len(), found.len(), "a name is used twice: {found:?}");
    let planned: BTreeSet<&str> = plan::POINTS.iter().map(|(point, _)| *point).collect();
    assert_eq!(once, planned);
    assert!(plan::POINTS.iter().all(|(_, scenes)| !scenes.is_empty()));
}

fn in_sources(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // Here they are only talked of.
            if !path.ends_with("src/crash") {
                in_sources(&path, found);
            }
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        found.extend(
            text.split("crash_point!(\"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
                .map(str::to_owned),
        );
    }
}

/// A member, in a process of its own.
#[test]
#[ignore = "the test above starts it"]
fn member() {
    let Ok(arguments) = std::env::var(cluster::MEMBER_VARIABLE) else { return };
    let Ok(Invocation::Serve(config, _)) = parse(arguments.lines().map(str::to_owned), []) else {
        panic!("what flags are these? {arguments}");
    };
    println!("{:?}", crate::node::serve(*config));
}
