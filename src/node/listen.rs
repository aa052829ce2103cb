//! The sockets that a member listens on.

use super::StartError;
use super::config::HttpUrl;
use tokio::net::TcpListener;

/// Binds all of them, or says which one cannot be had and why; `what` is who is expected there.
pub(super) async fn listen(urls: &[HttpUrl], what: &'static str) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    for url in urls {
        let address = url.listen_address();
        let listener = TcpListener::bind(&address).await;
        listeners.push(listener.map_err(|source| StartError::Listen { address, what, source })?);
    }
    Ok(listeners)
}
