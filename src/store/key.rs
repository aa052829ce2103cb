//! A key: an absolute, cleaned path.

use bytes::Bytes;
use std::cmp::Ordering;
use std::fmt;

/// An absolute path without a trailing slash: `/`, `/a`, `/a/b`. Bytes, since clients may store any.
///
/// Ordered so that a directory comes directly before everything below it: byte order, with `/` below every other byte.
/// A clone is O(1), and so are [`Self::parent`] and [`Self::ancestors`] per key: they share the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Bytes);

impl Key {
    /// The longest key that a front end should let in, in bytes.
    ///
    /// The store works with any, but each directory on the way to a key is a node of its own with its whole path, so
    /// that a key of n levels costs memory and checkpoint space that grow with n squared. Whoever takes keys from
    /// clients refuses longer ones.
    pub const MAX_LEN: usize = 16 * 1024;

    /// The key that a path names: made absolute, with empty and `.` segments dropped and `..` resolved (never above
    /// the root), as Go's `path.Clean("/" + raw)` does. Copies the bytes.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Self {
        let mut path = Vec::with_capacity(raw.len() + 1);
        for segment in raw.split(|byte| *byte == b'/') {
            match segment {
                b"" | b"." => {}
                b".." => path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
                name => {
                    path.push(b'/');
                    path.extend_from_slice(name);
                }
            }
        }
        if path.is_empty() { Self::root() } else { Self(Bytes::from(path)) }
    }

    /// Takes bytes that are a cleaned path already, without a copy; `None` if [`Self::parse`] would change them.
    #[must_use]
    pub fn from_clean(path: Bytes) -> Option<Self> {
        let named = path.strip_prefix(b"/")?;
        let clean = named.is_empty()
            || named.split(|byte| *byte == b'/').all(|segment| !matches!(segment, b"" | b"." | b".."));
        clean.then_some(Self(path))
    }

    /// `/`.
    #[must_use]
    pub fn root() -> Self {
        Self(Bytes::from_static(b"/"))
    }

    /// The path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path, sharing the bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// Whether it is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The directory it is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        match self.last_slash() {
            _ if self.is_root() => None,
            0 => Some(Self::root()),
            slash => Some(Self(self.0.slice(..slash))),
        }
    }

    /// Its last segment; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.0[self.last_slash() + 1..]
    }

    /// The path `name` in this directory. Should `name` not be a plain segment, it is joined and cleaned as a path.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Self {
        let path = [self.stem(), b"/", name].concat();
        match Self::from_clean(Bytes::from(path)) {
            Some(key) => key,
            None => Self::parse(&[self.stem(), b"/", name].concat()),
        }
    }

    /// The directories above it, from the root down, itself excluded.
    pub fn ancestors(&self) -> impl DoubleEndedIterator<Item = Self> + '_ {
        let ends = 0..self.0.len();
        ends.filter(|end| self.0[*end] == b'/' && !self.is_root()).map(|end| self.prefix(end))
    }

    /// Whether `other` is this key or below it, by whole segments.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let stem = self.stem();
        other.0.starts_with(stem) && matches!(other.0.get(stem.len()), None | Some(b'/'))
    }

    /// Whether a segment of this key below `watched` starts with `_`. `watched` must contain this key.
    #[must_use]
    pub fn hidden_below(&self, watched: &Self) -> bool {
        let from = watched.stem().len();
        self.0.get(from..).is_some_and(|rest| rest.windows(2).any(|pair| pair == b"/_"))
    }

    /// How many segments it has; 0 for the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.ancestors().count()
    }

    /// The same key in memory of its own: a key cut from a message would keep the whole message alive.
    pub(super) fn compact(&self) -> Self {
        if self.is_root() { Self::root() } else { Self(Bytes::copy_from_slice(&self.0)) }
    }

    /// The path as bytes that can be shared.
    pub(super) fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The least key above this one and everything below it.
    ///
    /// Zero is the lowest byte after the slash, so nothing fits between `/a/...` and `/a\0`.
    pub(crate) fn after_subtree(&self) -> Self {
        Self(Bytes::from([self.stem(), b"\0"].concat()))
    }

    /// Whether `other`, which this directory must contain, is a direct child of it.
    pub(super) fn is_parent_of(&self, other: &Self) -> bool {
        other.0.get(self.stem().len() + 1..).is_some_and(|named| !named.is_empty() && !named.contains(&b'/'))
    }

    /// The direct child of this directory that is, or is above, the key `below`, which this one must contain.
    pub(super) fn child_towards(&self, below: &Self) -> Self {
        let start = self.stem().len() + 1;
        let named = below.0.get(start..).unwrap_or_default();
        match named.iter().position(|byte| *byte == b'/') {
            Some(slash) => below.prefix(start + slash),
            None => below.clone(),
        }
    }

    /// What is common to all paths below: nothing for the root, else the path itself.
    pub(super) fn stem(&self) -> &[u8] {
        if self.is_root() { b"" } else { &self.0 }
    }

    fn prefix(&self, end: usize) -> Self {
        if end == 0 { Self::root() } else { Self(self.0.slice(..end)) }
    }

    fn last_slash(&self) -> usize {
        self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0)
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.as_bytes(), other.as_bytes()).0
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.0)
    }
}

/// The order of two paths, or beginnings of paths, and how many bytes they have in common from the start.
pub(super) fn compare(left: &[u8], right: &[u8]) -> (Ordering, usize) {
    let common = common_prefix(left, right);
    let order = match (left.get(common), right.get(common)) {
        (Some(b'/'), Some(_)) => Ordering::Less,
        (Some(_), Some(b'/')) => Ordering::Greater,
        (left, right) => left.cmp(&right),
    };
    (order, common)
}

/// The first bytes of the rest of a path as a number: if the rest of one is less than that of another, the number is not
/// greater. The end counts as zeros, and so does the slash; no other byte does.
pub(super) fn eight_bytes(rest: &[u8]) -> u64 {
    let mut bytes = [0; size_of::<u64>()];
    for (place, byte) in bytes.iter_mut().zip(rest) {
        *place = match *byte {
            b'/' => 0,
            byte if byte < b'/' => byte + 1,
            byte => byte,
        };
    }
    u64::from_be_bytes(bytes)
}

/// How many bytes two strings have in common from the start.
///
/// The tree compares keys with long common beginnings all the time, so: keys that share their bytes (a path and its
/// ancestors) need no look at them, and the others go by blocks until the first that differs.
fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    const BLOCK: usize = 32;
    const WORD: usize = size_of::<u64>();
    let len = left.len().min(right.len());
    if std::ptr::eq(left.as_ptr(), right.as_ptr()) {
        return len;
    }
    let mut at = 0;
    while at + BLOCK <= len && left[at..at + BLOCK] == right[at..at + BLOCK] {
        at += BLOCK;
    }
    while let (Some(a), Some(b)) = (left[at..].first_chunk::<WORD>(), right[at..].first_chunk::<WORD>()) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += WORD;
    }
    while at < len && left[at] == right[at] {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(path: &str) -> Key {
        Key::parse(path.as_bytes())
    }

    /// Paths from few letters, so that they often share segments.
    fn raw_path() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"//..a_b\x00\xff".to_vec()), 0..60)
    }

    #[test]
    fn parse_cleans_like_go() {
        for (raw, clean) in [
            ("", "/"),
            ("/", "/"),
            ("//", "/"),
            ("a", "/a"),
            ("/a/", "/a"),
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/a/b/..", "/a"),
            ("/a/..", "/"),
            ("/a/...", "/a/..."),
            ("/a/.b/..c", "/a/.b/..c"),
            ("/a\n b", "/a\n b"),
        ] {
            assert_eq!(key(raw).as_bytes(), clean.as_bytes(), "{raw:?}");
        }
    }

    #[test]
    fn parts() {
        let deep = key("/a/_b/c");
        assert_eq!(deep.parent(), Some(key("/a/_b")));
        assert_eq!(key("/a").parent(), Some(Key::root()));
        assert_eq!(Key::root().parent(), None);
        assert_eq!((deep.name(), Key::root().name()), (&b"c"[..], &b""[..]));
        assert_eq!(deep.ancestors().collect::<Vec<_>>(), [Key::root(), key("/a"), key("/a/_b")]);
        assert_eq!(Key::root().ancestors().count(), 0);
        assert_eq!((deep.depth(), Key::root().depth()), (3, 0));
        assert_eq!((Key::root().child(b"a"), key("/a").child(b"b")), (key("/a"), key("/a/b")));
        assert_eq!((key("/a").child(b".."), key("/a").child(b"b//c/")), (Key::root(), key("/a/b/c")));
        assert_eq!(Key::root().child_towards(&deep), key("/a"));
        assert_eq!(key("/a").child_towards(&deep), key("/a/_b"));
        assert_eq!(key("/a/_b").child_towards(&deep), deep);
    }

    #[test]
    fn contains_goes_by_segment() {
        for (dir, other, expected) in [
            ("/", "/", true),
            ("/", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
            ("/a", "/", false),
        ] {
            assert_eq!(key(dir).contains(&key(other)), expected, "{dir} {other}");
        }
    }

    #[test]
    fn hidden_counts_only_below_the_watched_path() {
        for (path, watched, expected) in [
            ("/_a", "/", true),
            ("/_a", "/_a", false),
            ("/_a/b", "/_a", false),
            ("/_a/_b", "/_a", true),
            ("/a/_b/c", "/a", true),
            ("/a/_b/c", "/a/_b", false),
            ("/a/b_c", "/", false),
        ] {
            assert_eq!(key(path).hidden_below(&key(watched)), expected, "{path} {watched}");
        }
    }

    #[test]
    fn the_order_puts_a_directory_right_before_its_subtree() {
        let sorted = ["/", "/a", "/a/b", "/a/b/c", "/a/b\x00", "/a\x00", "/a b", "/a.b", "/ab", "/b"];
        for pair in sorted.windows(2) {
            // Not parsed: parsing has a test of its own.
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_is_idempotent_and_clean(raw in raw_path()) {
            let parsed = Key::parse(&raw);
            prop_assert_eq!(&Key::parse(parsed.as_bytes()), &parsed);
            prop_assert_eq!(Key::from_clean(Bytes::copy_from_slice(parsed.as_bytes())), Some(parsed.clone()));
            let same = parsed.as_bytes() == raw;
            prop_assert_eq!(Key::from_clean(Bytes::from(raw)).is_some(), same);
        }

        #[test]
        fn order_is_the_order_of_mapped_bytes(a in raw_path(), b in raw_path(), common in raw_path()) {
            let mapped = |key: &Key| key.as_bytes().iter().map(|b| if *b == b'/' { 0 } else { u16::from(*b) + 1 })
                .collect::<Vec<_>>();
            let a = Key::parse(&[&common[..], &a].concat());
            let b = Key::parse(&[&common[..], &b].concat());
            prop_assert_eq!(a.cmp(&b), mapped(&a).cmp(&mapped(&b)));
            prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
        }

        #[test]
        fn eight_bytes_never_contradict_the_order(a in raw_path(), b in raw_path(), common in raw_path()) {
            let a = Key::parse(&[&common[..], &a].concat());
            let b = Key::parse(&[&common[..], &b].concat());
            let (order, common) = compare(a.as_bytes(), b.as_bytes());
            for skip in 0..=common {
                let number = |key: &Key| eight_bytes(&key.as_bytes()[skip..]);
                prop_assert!(number(&a) == number(&b) || number(&a).cmp(&number(&b)) == order);
            }
        }

        #[test]
        fn a_subtree_is_a_range(dir in raw_path(), other in raw_path()) {
            let (dir, other) = (Key::parse(&dir), Key::parse(&other));
            let within = dir <= other && (dir.is_root() || other < dir.after_subtree());
            prop_assert_eq!(within, dir.contains(&other));
            let above = other.ancestors().any(|ancestor| ancestor == dir) || other == dir;
            prop_assert_eq!(above, dir.contains(&other));
        }
    }
}
