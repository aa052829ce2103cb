//! A leader's state on its way to the core: gathered in the data directory, and put together when all of it is there.
//!
//! The only state that is in memory besides the present one is the one that it makes, and only one is made at a time. The two
//! share every key and event that is the same in both, so what it adds is what this member lacks, and a few words for each key.

use super::driver::DriverInput;
use super::published::Published;
use super::wire::decode;
use crate::replica::{Input, State};
use crate::storage::{DataDir, Spool};
use crate::store::{HistoryLimits, Store};
use crate::transport::Gathering;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::mpsc;

/// Where the states of leaders come in.
pub(super) struct Entrance {
    /// Not held: who stops waits until the directory is free for another start.
    data_dir: Weak<DataDir>,
    driver: mpsc::Sender<DriverInput>,
    limits: HistoryLimits,
    /// What this member has.
    published: Arc<Published>,
    /// What is left of the disk to the log.
    reserve_bytes: u64,
    /// Held while a state is made.
    making: Arc<Mutex<()>>,
}

impl Entrance {
    pub(super) fn new(
        data_dir: &Arc<DataDir>,
        driver: mpsc::Sender<DriverInput>,
        limits: HistoryLimits,
        published: Arc<Published>,
        reserve_bytes: u64,
    ) -> Self {
        let (data_dir, making) = (Arc::downgrade(data_dir), Arc::default());
        Self { data_dir, driver, limits, published, reserve_bytes, making }
    }

    pub(super) fn open(&self) -> Result<Incoming, String> {
        let data_dir = self.data_dir.upgrade().ok_or("the member is stopping")?;
        let spool = data_dir.spool(rand::random(), self.reserve_bytes).map_err(|error| error.to_string())?;
        let (driver, limits, published) = (self.driver.clone(), self.limits, Arc::clone(&self.published));
        Ok(Incoming { spool, driver, limits, published, making: Arc::clone(&self.making) })
    }
}

/// One state that comes in.
pub(super) struct Incoming {
    spool: Spool,
    driver: mpsc::Sender<DriverInput>,
    limits: HistoryLimits,
    published: Arc<Published>,
    making: Arc<Mutex<()>>,
}

impl Gathering for Incoming {
    fn add(&mut self, records: &[Bytes]) -> Result<(), String> {
        self.spool.append(records).map_err(|error| error.to_string())
    }

    fn complete(self: Box<Self>, from: u64, raft: Bytes) -> Result<(), String> {
        let Self { spool, driver, limits, published, making } = *self;
        let message = decode(&raft).filter(|message| message.from == from);
        let message = message.ok_or("its announcement cannot be decoded, or is another member's")?;
        let one_at_a_time = making.lock().unwrap_or_else(PoisonError::into_inner);
        let known = published.blocking_view().map_err(|error| error.to_string())?;
        let made = make(spool, limits, known.store.clone());
        drop(one_at_a_time);
        let state = made.inspect_err(|error| {
            tracing::error!(peer = format_args!("{from:x}"), error, "a snapshot is not usable; dropped");
        })?;
        let input = Input::Snapshot { message: Box::new(message), state: Box::new(state) };
        driver.blocking_send(DriverInput::Input(input)).map_err(|_| "the member is stopping".to_owned())
    }
}

fn make(spool: Spool, limits: HistoryLimits, known: Store) -> Result<State, String> {
    let records = spool.read().map_err(|error| error.to_string())?;
    State::from_stream(records.map(|record| record.map_err(|error| error.to_string())), limits, Some(known))
}
