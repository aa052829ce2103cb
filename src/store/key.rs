//! A key: an absolute, cleaned path.
use bytes::Bytes;

/// An absolute path without a trailing slash: `/`, `/a`, `/a/b`. Bytes, since clients may store any.
///
/// Ordered so that a directory comes directly before everything below it: byte order, with `/` below every other byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(Bytes);
