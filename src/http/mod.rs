//! Clients on 4001: the v2 API. Async at the edge, pure inside.

pub mod backend;
