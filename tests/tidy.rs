//! What the layout promises, checked against the source: which module may know which, and how long a file may be.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of the crate each module may name. `node` is the only one that knows them all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("store", &[]),
    ("replica", &["proto", "store"]),
    ("storage", &["proto", "replica"]),
    ("transport", &["proto"]),
    ("http", &["replica", "store"]),
    ("discovery", &[]),
    ("client", &[]),
    ("ctl", &["client"]),
    ("demo", &["client"]),
    ("crash", &[]),
    ("node", &["discovery", "http", "proto", "replica", "storage", "store", "transport"]),
];

/// A file longer than this is to be split, or to stand in the list with its length, which may shrink but not grow.
const LINES_MAX: usize = 400;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn files(module: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module);
    if dir.is_dir() {
        sources(&dir, &mut found);
    }
    found
}

fn is_test(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str() == "tests")
        || path.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
}

/// The source without its test module, which stands last by custom.
fn product(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// The crate's modules that a source names: `crate::x`, and `use crate::{x, y}`.
fn named(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    for line in code {
        for rest in line.split("crate::").skip(1) {
            let list = rest.strip_prefix('{').unwrap_or(rest);
            for name in list.split(&[',', '}'][..]).take(if rest.starts_with('{') { usize::MAX } else { 1 }) {
                let name: String =
                    name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if MAY_USE.iter().any(|(module, _)| *module == name) || name == "proto" {
                    found.insert(name);
                }
            }
        }
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let mut wrong = BTreeMap::new();
    for (module, allowed) in MAY_USE {
        for path in files(module).into_iter().filter(|path| !is_test(path)) {
            for name in named(&product(&path)) {
                if name != *module && !allowed.contains(&name.as_str()) {
                    wrong.entry(path.clone()).or_insert_with(Vec::new).push(name);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these name modules that they must not know: {wrong:#?}");
}

#[test]
fn the_check_sees_what_it_is_to_see() {
    assert_eq!(named("use crate::node::Handle;"), BTreeSet::from(["node".to_owned()]));
    assert_eq!(
        named("use crate::{http, store::Key};"),
        BTreeSet::from(["http".to_owned(), "store".to_owned()])
    );
    assert!(named("// crate::node\nuse std::fmt;").is_empty());
    assert!(MAY_USE.iter().filter(|(module, _)| !files(module).is_empty()).count() >= 9);
}

#[test]
fn files_are_short_enough_to_be_held_in_the_head() {
    /// Tables, mostly: they may shrink, not grow.
    const LONGER: &[(&str, usize)] =
        &[("node/config/rows.rs", 490), ("storage/log.rs", 410), ("transport/peer.rs", 435)];
    let mut found = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&src, &mut found);
    let mut wrong = Vec::new();
    for path in found.into_iter().filter(|path| !is_test(path)) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        let name = path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        let max = LONGER.iter().find(|(file, _)| *file == name).map_or(LINES_MAX, |(_, max)| *max);
        if lines > max {
            wrong.push(format!("{name}: {lines} lines, {max} at the most"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
