//! The errors that clients match on by number.

use bytes::Bytes;

/// The numbered errors of the v2 API (etcd's `error/error.go`); the numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs)] // each is named after its message
pub enum ErrorCode {
    KeyNotFound = 100,
    TestFailed = 101,
    NotFile = 102,
    NotDir = 104,
    NodeExist = 105,
    RootReadOnly = 107,
    DirNotEmpty = 108,
    Unauthorized = 110,
    PrevValueRequired = 201,
    TtlNaN = 202,
    IndexNaN = 203,
    InvalidField = 209,
    InvalidForm = 210,
    RefreshValue = 211,
    RefreshTtlRequired = 212,
    RaftInternal = 300,
    LeaderElect = 301,
    WatcherCleared = 400,
    EventIndexCleared = 401,
}

impl ErrorCode {
    /// The number that goes over the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The fixed text that belongs to the number.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::KeyNotFound => "Key not found",
            Self::TestFailed => "Compare failed",
            Self::NotFile => "Not a file",
            Self::NotDir => "Not a directory",
            Self::NodeExist => "Key already exists",
            Self::RootReadOnly => "Root is read only",
            Self::DirNotEmpty => "Directory not empty",
            Self::Unauthorized => "The request requires user authentication",
            Self::PrevValueRequired => "PrevValue is Required in POST form",
            Self::TtlNaN => "The given TTL in POST form is not a number",
            Self::IndexNaN => "The given index in POST form is not a number",
            Self::InvalidField => "Invalid field",
            Self::InvalidForm => "Invalid POST form",
            Self::RefreshValue => "Value provided on refresh",
            Self::RefreshTtlRequired => "A TTL must be provided on refresh",
            Self::RaftInternal => "Raft Internal Error",
            Self::LeaderElect => "During Leader Election",
            Self::WatcherCleared => "watcher is cleared due to etcd recovery",
            Self::EventIndexCleared => "The event in requested index is outdated and cleared",
        }
    }
}

/// An error of the v2 API: what a client gets as its JSON body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {} ({}) [{index}]", code.number(), code.message(), String::from_utf8_lossy(cause))]
pub struct StoreError {
    /// Which one.
    pub code: ErrorCode,
    /// What about: mostly the offending key. Bytes, since a key may hold any.
    pub cause: Bytes,
    /// The store's index when it failed; 0 for requests that were refused before they reached the store.
    pub index: u64,
}

impl StoreError {
    /// An error of the store at its `index`.
    pub fn new(code: ErrorCode, cause: impl Into<Bytes>, index: u64) -> Self {
        Self { code, cause: cause.into(), index }
    }
}
