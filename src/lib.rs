//! Quorate: a Raft-replicated key-value store for coordination that speaks the etcd v2 HTTP API.

pub mod client;
pub mod ctl;
pub mod discovery;
pub mod http;
pub mod node;
pub mod replica;
pub mod storage;
pub mod store;
pub mod transport;

/// The types that `proto/*.proto` define.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    pub mod command {
        tonic::include_proto!("quorate.command");
    }
    pub mod peer {
        tonic::include_proto!("quorate.peer");
    }
    pub mod state {
        tonic::include_proto!("quorate.state");
    }
}
