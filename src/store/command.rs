//! The commands: what may be done to the tree.

use super::Key;
use bytes::Bytes;

/// The comparison of a compare-and-swap or compare-and-delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// The value that the node must have; empty: any.
    pub prev_value: Bytes,
    /// The `modifiedIndex` that the node must have; 0: any.
    pub prev_index: u64,
}

/// One change to the keyspace. Times to live are in milliseconds from the cluster time at which the command is
/// applied; `None` makes the node permanent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the parameters of the v2 API
pub enum Command {
    /// `PUT` without conditions.
    Set { key: Key, value: Bytes, dir: bool, ttl: Option<u64>, refresh: bool },
    /// `PUT` with `prevExist=false`.
    Create { key: Key, value: Bytes, dir: bool, ttl: Option<u64>, refresh: bool },
    /// `POST`: a child of `key` named after the event's index, zero-padded to 20 digits.
    CreateInOrder { key: Key, value: Bytes, dir: bool, ttl: Option<u64> },
    /// `PUT` with `prevExist=true` and nothing to compare.
    Update { key: Key, value: Bytes, ttl: Option<u64>, refresh: bool },
    /// `PUT` with `prevValue` or `prevIndex`.
    CompareAndSwap { key: Key, compare: Compare, value: Bytes, ttl: Option<u64>, refresh: bool },
    /// `DELETE` without conditions.
    Delete { key: Key, dir: bool, recursive: bool },
    /// `DELETE` with `prevValue` or `prevIndex`.
    CompareAndDelete { key: Key, compare: Compare },
}
