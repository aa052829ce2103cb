//! Quorate: a Raft-replicated key-value store for coordination that speaks the etcd v2 HTTP API.
//!
//! A cluster's machines use it to find each other, to announce themselves with keys that expire, and to wait for
//! changes. The binaries `quorate` (the server) and `etcdctl` are thin shells around this crate; a program can also
//! run a member inside itself:
//!
//! - [`Node`] starts and stops a member, on a tokio runtime that the caller owns; its example is a whole program.
//! - [`Handle`] makes requests of it: with [`Handle::set`], [`Handle::get`], [`Handle::watch_all`] in simple cases, and as a
//!   [`Backend`] with every operation of the API.
//! - [`Config`] says how it runs; [`Config::default`] is a member alone on loopback.
//! - [`Client`] talks to any member, or any etcd, over HTTP.
//!
//! The modules below are the parts of a member, `store` and `replica` at the core of it; they are documented for those
//! who work on them, and may change from release to release.

#[macro_use]
mod crash;

pub mod client;
pub mod ctl;
pub mod demo;
pub mod discovery;
pub mod http;
pub mod node;
pub mod replica;
pub mod storage;
pub mod store;
pub mod transport;

pub use client::Client;
pub use http::backend::{Backend, BackendError, Consistency, Watch, WatchItem, WatchRequest};
pub use node::config::Config;
pub use node::{Handle, Node, NodeWatch, StartError};
pub use store::{Action, Command, Event, Key, StoreError};

/// The types that `proto/*.proto` define.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    pub mod command {
        tonic::include_proto!("quorate.command");
    }
    pub mod peer {
        tonic::include_proto!("quorate.peer");

        /// More is not said at once; what is not said comes again.
        const LEFT_OUT_MAX: usize = 1 << 14;

        impl Beacon {
            /// This one instead of one that was not sent yet, whose word for what was left out it takes along.
            pub(crate) fn instead_of(mut self, before: Option<Self>) -> Self {
                let same = |before: &Self| self.left_out.is_empty() || before.session == self.session;
                if let Some(before) = before.filter(|before| !before.left_out.is_empty()).filter(same) {
                    self.session = before.session;
                    self.left_out.extend(before.left_out);
                    self.left_out.truncate(LEFT_OUT_MAX);
                }
                self
            }
        }
    }
    pub mod state {
        tonic::include_proto!("quorate.state");
    }
}
