//! The thread of the core, and of the connections to the other members.

use super::driver::Driver;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};

/// The runtime of that thread. Other than an ordinary one it may be dropped wherever a start has failed.
pub(super) struct CoreRuntime(Option<Runtime>);

impl CoreRuntime {
    pub(super) fn new() -> std::io::Result<(Self, Handle)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        Ok((Self(Some(runtime)), handle))
    }

    /// Runs the driver, and then what is left to be said to the peers until `lingers` is dropped at its other end.
    pub(super) fn run(
        mut self,
        driver: Driver,
        ended: &watch::Sender<Option<Result<(), String>>>,
        lingers: oneshot::Receiver<()>,
    ) {
        let Some(runtime) = &mut self.0 else { return };
        let (result, checkpoint) = runtime.block_on(driver.run());
        ended.send_replace(Some(result));
        // What is still to be said to the peers goes out; its own end is the only thing that comes on this channel.
        let _ = runtime.block_on(lingers);
        // The directory may be opened again once this thread has ended.
        drop(checkpoint);
    }
}

impl Drop for CoreRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Makes listeners those of the runtime that is entered.
pub(super) fn adopt(listeners: Vec<TcpListener>) -> std::io::Result<Vec<TcpListener>> {
    listeners.into_iter().map(|listener| TcpListener::from_std(listener.into_std()?)).collect()
}
