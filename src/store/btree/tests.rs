//! Against the standard library's tree, with versions that are kept.

use super::*;
use crate::store::key::{self, Key};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
enum ByKey {}

impl Order for ByKey {
    type Key<'a> = &'a [u8];
    type Fence = Vec<u8>;

    fn key(node: &Node) -> &[u8] {
        node.key.as_bytes()
    }

    fn key_of_fence(fence: &Vec<u8>) -> &[u8] {
        fence
    }

    fn fence(before: &[u8], after: &[u8]) -> Vec<u8> {
        after[..=key::compare(before, after).1].to_vec()
    }

    fn compare(left: &[u8], right: &[u8]) -> (Ordering, usize) {
        key::compare(left, right)
    }

    fn hint(key: &[u8], skip: usize) -> u64 {
        key::eight_bytes(&key[skip.min(key.len())..])
    }
}

type Model = BTreeMap<Key, u64>;

fn node(key: &Key, modified: u64) -> Arc<Node> {
    Arc::new(Node { key: key.clone(), value: None, dir: true, deadline: None, created: 1, modified })
}

fn content<'a>(nodes: impl Iterator<Item = &'a Arc<Node>>) -> Vec<(Key, u64)> {
    nodes.map(|node| (node.key.clone(), node.modified)).collect()
}

fn check(tree: &Tree<ByKey>, model: &Model) {
    tree.check();
    assert_eq!(tree.len(), model.len());
    assert_eq!(content(tree.iter()), model.clone().into_iter().collect::<Vec<_>>());
    assert_eq!(tree.first().map(|node| &node.key), model.keys().next());
}

/// Keys as clients have them: in order, scattered, deep, with long common beginnings, and beginnings of each other.
fn draw_key(rng: &mut ChaCha8Rng, shape: u32) -> Key {
    let number = rng.random_range(0..4_000_u32);
    let path = match shape {
        0 => format!("/k{number:08}"),
        1 => format!("/{:x}", number.wrapping_mul(2_654_435_761)),
        2 => format!("/a/{}/{}/{}", number % 7, number % 60, number),
        3 => format!("/registry/services/endpoints/{}/x{}", number / 40, number),
        4 => format!("/{}", "ab/".repeat(number as usize % 300)),
        _ => {
            let letters = b"/a/b.\x00-0\xff";
            let path: Vec<u8> =
                (0..rng.random_range(0..9)).map(|_| letters[rng.random_range(0..letters.len())]).collect();
            return Key::parse(&path);
        }
    };
    Key::parse(path.as_bytes())
}

#[test]
fn it_does_what_the_standard_librarys_does_and_leaves_other_versions_alone() {
    for seed in 0..30 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut tree, mut model) = (Tree::<ByKey>::default(), Model::new());
        let mut versions = Vec::new();
        let shapes = [seed as u32 % 6, rng.random_range(0..6)];
        for step in 0..6_000_u64 {
            // It grows, then shrinks, to nothing in some.
            let removes = if step < 3_000 { 2 } else { 8 };
            let key = match model.len() {
                len if len > 0 && rng.random_range(0..3) == 0 => {
                    model.keys().nth(rng.random_range(0..len.min(50))).unwrap().clone()
                }
                _ => draw_key(&mut rng, shapes[step as usize % 2]),
            };
            if rng.random_range(0..10) < removes {
                let old = tree.remove(key.as_bytes()).map(|node| node.modified);
                assert_eq!(old, model.remove(&key), "seed {seed}, step {step}");
            } else {
                let old = tree.insert(node(&key, step)).map(|node| node.modified);
                assert_eq!(old, model.insert(key.clone(), step), "seed {seed}, step {step}");
            }
            let asked = draw_key(&mut rng, shapes[step as usize % 2]);
            let found = tree.get(asked.as_bytes()).map(|node| node.modified);
            assert_eq!(found, model.get(&asked).copied(), "seed {seed}, step {step}");
            for from in [Bound::Included(asked.as_bytes()), Bound::Excluded(asked.as_bytes())] {
                let bound = if matches!(from, Bound::Included(_)) {
                    Bound::Included(&asked)
                } else {
                    Bound::Excluded(&asked)
                };
                let expected = model.range((bound, Bound::Unbounded)).take(3);
                let expected: Vec<_> = expected.map(|(key, modified)| (key.clone(), *modified)).collect();
                assert_eq!(content(tree.range(from).take(3)), expected, "seed {seed}, step {step}");
            }
            if rng.random_range(0..500) == 0 {
                versions.push((tree.clone(), model.clone()));
            }
        }
        versions.push((tree, model));
        for (tree, model) in &versions {
            check(tree, model);
        }
    }
}

#[test]
fn what_comes_in_order_fills_its_pages() {
    let nodes = (0..50_000).map(|number| node(&Key::parse(format!("/dir/{number:06}").as_bytes()), number));
    let mut tree: Tree<ByKey> = nodes.collect();
    tree.check();
    assert_eq!(tree.len(), 50_000);
    let before = tree.clone();
    for number in 0..50_000 {
        let key = Key::parse(format!("/dir/{number:06}").as_bytes());
        assert_eq!(tree.remove(key.as_bytes()).map(|node| node.modified), Some(number));
    }
    check(&tree, &Model::new());
    before.check();
    assert_eq!(before.iter().count(), 50_000);
}
