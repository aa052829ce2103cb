//! A directory as JSON, written while it is sent.
//!
//! The tree is in key order, parents before children, so a listing is one walk with the directories that are still open
//! on a stack; nothing recurses, however deep a path is. The walk is done in steps of [`CHUNK_BYTES`] or [`CHUNK_NODES`],
//! whichever comes first, and goes on where it stopped: a listing of a million keys neither holds a thread for long nor
//! is ever in memory as a whole. It shows one moment of the keyspace, since it keeps the view that it began with.
//!
//! Nodes whose name begins with `_` are left out with all that is below them, except the one that was asked for.

use super::render::{self, Moment};
use super::view::View;
use crate::store::{Key, Node};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// As soon as it holds this much, a chunk is sent.
const CHUNK_BYTES: usize = 64 * 1024;
/// A chunk ends after this many nodes, shown or hidden, so that a step takes well under a millisecond or two.
const CHUNK_NODES: usize = 4096;
/// A page ends when it holds this much.
const PAGE_BYTES: usize = 1 << 20;

/// The answer to a read of a directory.
#[derive(Debug)]
pub(crate) struct Listing {
    view: Arc<View>,
    moment: Moment,
    dir: Key,
    recursive: bool,
    /// What is written but not sent.
    written: BytesMut,
    /// Directories whose closing brace is due, from the outermost on.
    open: Vec<Open>,
    /// Where the walk goes on; `None` when it is over.
    next: Option<Key>,
    keys_only: bool,
    /// How much may still be shown, if this is a page.
    page: Option<Page>,
}

/// What bounds a page.
#[derive(Debug)]
struct Page {
    left: usize,
    /// The first node that did not fit.
    more: Option<Key>,
}

/// A directory whose children are being written.
#[derive(Debug)]
struct Open {
    key: Key,
    modified: u64,
    created: u64,
    has_nodes: bool,
}

impl Listing {
    /// Begins the listing of `node`, a directory of this view.
    pub(crate) fn new(
        view: Arc<View>,
        node: &Node,
        recursive: bool,
        keys_only: bool,
        moment: Moment,
    ) -> Self {
        let mut written = BytesMut::new();
        written.put_slice(b"{\"action\":\"get\",\"node\":");
        moment.node_head(&mut written, node);
        let (dir, next) = (node.key.clone(), Some(node.key.clone()));
        let open = vec![Open::new(node)];
        Self { view, moment, dir, recursive, written, open, next, keys_only, page: None }
    }

    /// The same from the key `start` on, with at most `limit` nodes. Fill it until it is written; all of it is one chunk.
    pub(crate) fn page(mut self, start: &Key, limit: usize) -> Self {
        self.page = Some(Page { left: limit, more: None });
        let mut from = start.clone();
        // The directories in which it begins were shown before, and are shown again around what is left of them.
        let above: Vec<Key> =
            start.ancestors().filter(|above| *above != self.dir && self.dir.contains(above)).collect();
        for above in above {
            let hidden = above.name().starts_with(b"_");
            let node = self.view.store.get(&above).ok().filter(|node| node.dir && !hidden && self.recursive);
            let Some(node) = node else {
                from = above.after_subtree();
                break;
            };
            self.put(&node);
        }
        self.next = Some(from);
        self
    }

    /// Where the next page begins, if there is one.
    pub(crate) fn more(&self) -> Option<&Key> {
        self.page.as_ref()?.more.as_ref()
    }

    /// Whether all of it is written; what is not taken yet is the last chunk.
    pub(crate) fn is_written(&self) -> bool {
        self.next.is_none()
    }

    /// The next chunk; empty if the step met only what is not shown; `None` at the end.
    pub(crate) fn next_chunk(&mut self) -> Option<Bytes> {
        if self.written.is_empty() {
            self.fill();
        }
        if self.written.is_empty() && self.is_written() {
            return None;
        }
        Some(self.written.split().freeze())
    }

    /// Goes on with the walk until a chunk is full or the end is reached.
    pub(crate) fn fill(&mut self) {
        if self.is_written() {
            return;
        }
        let view = Arc::clone(&self.view);
        let mut visited = 0;
        while let Some(from) = self.next.take() {
            let mut nodes = view.store.descendants_from(&self.dir, &from);
            self.next = loop {
                let Some(node) = nodes.next() else { break None };
                let is_full = self.page.is_none() && self.written.len() >= CHUNK_BYTES;
                if visited == CHUNK_NODES || is_full {
                    self.next = Some(node.key.clone());
                    return;
                }
                visited += 1;
                let hidden = node.key.name().starts_with(b"_");
                if !hidden {
                    if !self.fits(node) {
                        break None;
                    }
                    self.put(node);
                }
                if hidden || (node.dir && !self.recursive) {
                    break Some(node.key.after_subtree());
                }
            };
        }
        self.close_until(None);
        self.written.put_slice(b"}\n");
    }

    /// Counts a node that is to be shown; `false`: it is for the next page.
    fn fits(&mut self, node: &Node) -> bool {
        let Some(page) = &mut self.page else { return true };
        if page.left == 0 || self.written.len() >= PAGE_BYTES {
            page.more = Some(node.key.clone());
            return false;
        }
        page.left -= 1;
        true
    }

    /// Writes a node in its place; if it is a directory, it stays open for what is below it.
    fn put(&mut self, node: &Node) {
        self.close_until(Some(&node.key));
        if let Some(parent) = self.open.last_mut() {
            let separator: &[u8] = if parent.has_nodes { b"," } else { b",\"nodes\":[" };
            parent.has_nodes = true;
            self.written.put_slice(separator);
        }
        let has_fields = self.moment.node_fields(&mut self.written, node, self.keys_only);
        if node.dir {
            self.open.push(Open::new(node));
        } else {
            render::node_tail(&mut self.written, has_fields, node.modified, node.created);
        }
    }

    /// Closes the directories that do not contain the key; all of them if there is none.
    fn close_until(&mut self, key: Option<&Key>) {
        while let Some(done) = self.open.pop_if(|dir| !key.is_some_and(|key| dir.key.contains(key))) {
            if done.has_nodes {
                self.written.put_u8(b']');
            }
            render::node_tail(&mut self.written, true, done.modified, done.created);
        }
    }
}

impl Open {
    fn new(node: &Node) -> Self {
        Self { key: node.key.clone(), modified: node.modified, created: node.created, has_nodes: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::view::ClockReading;
    use crate::http::view::Summary;
    use crate::store::{ClusterTime, Command, HistoryLimits, Store};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::time::SystemTime;

    fn listing(store: &Store, dir: &Key, recursive: bool) -> Value {
        let view = View::of(store, Summary::default());
        let clock = ClockReading { cluster: ClusterTime(0), wall: SystemTime::UNIX_EPOCH };
        let node = store.get(dir).unwrap();
        let mut listing = Listing::new(Arc::new(view), &node, recursive, false, Moment::of(clock));
        let chunks: Vec<Bytes> = std::iter::from_fn(|| listing.next_chunk()).collect();
        serde_json::from_slice::<Value>(&chunks.concat()).unwrap()["node"].take()
    }

    /// The same by recursion over children, as slow and plain as can be.
    fn expected(store: &Store, node: &Node, levels: usize) -> Value {
        let mut shown = json!({"modifiedIndex": node.modified, "createdIndex": node.created});
        if node.key.is_root() {
            shown = json!({});
        } else {
            shown["key"] = String::from_utf8_lossy(node.key.as_bytes()).into();
        }
        if let Some(value) = &node.value {
            shown["value"] = String::from_utf8_lossy(value).into();
        } else {
            shown["dir"] = true.into();
            let visible = store.children(&node.key).filter(|child| !child.key.name().starts_with(b"_"));
            let nodes: Vec<Value> =
                visible.map(|child| expected(store, &child, levels.saturating_sub(1))).collect();
            if levels > 0 && !nodes.is_empty() {
                shown["nodes"] = nodes.into();
            }
        }
        shown
    }

    proptest! {
        #[test]
        fn shows_what_is_there(keys in proptest::collection::vec("(/[ab_]{1,2}){1,4}", 0..20), dirs in any::<u32>()) {
            let mut store = Store::new(HistoryLimits { events: 10, bytes: 1000 });
            for (at, key) in keys.iter().enumerate() {
                let (key, dir) = (Key::parse(key.as_bytes()), dirs >> at & 1 == 1);
                let command = Command::Create { key, value: Bytes::from_static(b"v"), dir, ttl: None, refresh: false };
                _ = store.apply(ClusterTime(0), &command);
            }
            let all: Vec<Key> = store.nodes().filter(|node| node.dir).map(|node| node.key).collect();
            for dir in all.iter().chain([&Key::root()]) {
                let node = store.get(dir).unwrap();
                prop_assert_eq!(listing(&store, dir, true), expected(&store, &node, usize::MAX));
                prop_assert_eq!(listing(&store, dir, false), expected(&store, &node, 1));
            }
        }
    }

    /// All nodes of a listing in its order, without those that hold others.
    fn leaves(shown: &Value, found: &mut Vec<Value>) {
        let mut node = shown.clone();
        node.as_object_mut().unwrap().remove("nodes");
        found.push(node);
        for child in shown["nodes"].as_array().into_iter().flatten() {
            leaves(child, found);
        }
    }

    proptest! {
        /// Pages joined are the whole, and no page is larger than it may be.
        #[test]
        fn pages_join(keys in proptest::collection::vec("(/[ab_]{1,2}){1,4}", 0..20), limit in 1..6_usize, recursive: bool) {
            let mut store = Store::new(HistoryLimits { events: 10, bytes: 1000 });
            for key in keys {
                let key = Key::parse(key.as_bytes());
                let command = Command::Create { key, value: Bytes::from_static(b"v"), dir: false, ttl: None, refresh: false };
                _ = store.apply(ClusterTime(0), &command);
            }
            let view = Arc::new(View::of(&store, Summary::default()));
            let moment = Moment::of(ClockReading { cluster: ClusterTime(0), wall: SystemTime::UNIX_EPOCH });
            let root = store.get(&Key::root()).unwrap();
            let mut joined: Vec<Value> = Vec::new();
            let mut start = Some(Key::root());
            while let Some(from) = start {
                let listing = Listing::new(Arc::clone(&view), &root, recursive, false, moment);
                let mut listing = listing.page(&from, limit);
                listing.fill();
                prop_assert!(listing.is_written());
                start = listing.more().cloned();
                let page: Value = serde_json::from_slice(&listing.next_chunk().unwrap()).unwrap();
                let mut shown = Vec::new();
                leaves(&page["node"], &mut shown);
                // What was shown before is what holds the rest.
                let new: Vec<Value> = shown.into_iter().filter(|node| !joined.contains(node)).collect();
                prop_assert!(new.len() <= limit + usize::from(joined.is_empty()));
                prop_assert!(start.is_none() || new.len() >= limit);
                joined.extend(new);
            }
            let mut all = Vec::new();
            leaves(&listing(&store, &Key::root(), recursive), &mut all);
            prop_assert_eq!(joined, all);
        }
    }

    /// Walks that are broken off after so many nodes go on where they stopped, over hidden nodes too.
    #[test]
    fn chunks_join() {
        let mut store = Store::new(HistoryLimits { events: 10, bytes: 1000 });
        for number in 0..3 * CHUNK_NODES {
            let hidden = if number < CHUNK_NODES + 10 { "_" } else { "" };
            let key = Key::parse(format!("/d/{hidden}{number:06}").as_bytes());
            let command = Command::Set { key, value: Bytes::new(), dir: false, ttl: None, refresh: false };
            store.apply(ClusterTime(0), &command).unwrap();
        }
        for recursive in [false, true] {
            let node = store.get(&Key::parse(b"/d")).unwrap();
            assert_eq!(listing(&store, &node.key, recursive), expected(&store, &node, 1));
        }
    }
}
