//! Clients on 4001: the v2 API. Async at the edge, pure inside.

pub mod backend;
#[allow(missing_docs)]
#[derive(Default)]
pub struct ServeConfig { pub max_body_bytes: usize, pub cors: Vec<String>, pub drain: std::time::Duration }
#[allow(missing_docs)]
pub async fn serve<B: backend::Backend>(_l: tokio::net::TcpListener, _b: B, _c: ServeConfig, s: impl Future<Output=()>) { s.await }
