//! Snapshots that arrive: one at a time, over one stream or, when that breaks, over several.
//!
//! The newest stream wins, whoever's it is, so that one state at most is gathered. What has come of a snapshot is kept for
//! a while after its stream broke, so that the sender can go on from there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::time::Duration;

use tokio::time::sleep;
use tonic::Status;

use super::snapshot::Arrival;
use super::{Core, lock};
use crate::proto::peer::{SnapshotChunk, SnapshotHeld};

/// What is not gone on with is kept for so many times the longest that a sender goes on trying.
const KEPT_STALLS: u32 = 2;

/// A snapshot, by its sender and the name that the sender drew.
type SnapshotId = (u64, u64);

pub(super) struct Arrivals {
    core: Arc<Core>,
    slot: Mutex<Slot>,
    /// The number of the current stream.
    current: AtomicU64,
}

#[derive(Default)]
struct Slot {
    arrival: Option<(SnapshotId, Arc<Mutex<Arrival>>)>,
    /// One that is whole and that use is being made of, and the last with which that is done.
    in_use: Option<SnapshotId>,
    used: Option<SnapshotId>,
}

impl Arrivals {
    pub(super) fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core, slot: Mutex::default(), current: AtomicU64::new(0) })
    }

    /// A stream begins, or is about to: older ones are over. Gives its number.
    pub(super) fn begin(&self) -> u64 {
        self.current.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Fails for a stream that is not the current one any more.
    pub(super) fn check_current(&self, number: u64) -> Result<(), Status> {
        if self.current.load(Ordering::SeqCst) == number {
            return Ok(());
        }
        Err(Status::aborted("a newer snapshot took over"))
    }

    /// How much of a snapshot is here. What is here of another is not kept. Blocks.
    pub(super) fn held(&self, from: u64, snapshot: u64) -> Result<SnapshotHeld, Status> {
        let mut slot = lock(&self.slot);
        let wanted = Some((from, snapshot));
        if slot.used == wanted {
            return Ok(SnapshotHeld { records: 0, complete: true });
        }
        if slot.arrival.as_ref().map(|(id, _)| *id) != wanted {
            slot.arrival = None;
        }
        let busy = || Status::unavailable("busy with what has come of the snapshot");
        if slot.in_use == wanted {
            return Err(busy());
        }
        let records = match slot.arrival.as_ref().map(|(_, arrival)| arrival.try_lock()) {
            None => 0,
            Some(Ok(arrival)) => arrival.records(),
            Some(Err(TryLockError::Poisoned(poisoned))) => poisoned.into_inner().records(),
            Some(Err(TryLockError::WouldBlock)) => return Err(busy()),
        };
        Ok(SnapshotHeld { records, complete: false })
    }

    /// Takes what a stream brings; `true`: that was the last of it, and it was made use of. Blocks.
    pub(super) fn add(
        self: &Arc<Self>,
        number: u64,
        from: u64,
        chunk: SnapshotChunk,
    ) -> Result<bool, Status> {
        let broken = |reason| Status::data_loss(format!("the snapshot is broken: {reason}"));
        let id = (from, chunk.snapshot);
        let arrival = self.arrival(number, id, chunk.first)?;
        let mut gathered = lock(&arrival);
        self.check_current(number)?;
        let added = gathered.add(chunk);
        let whole = gathered.take_whole();
        drop(gathered);
        if let Err(reason) = added {
            self.discard(id);
            return Err(broken(reason));
        }
        let Some((raft, gathering)) = whole else { return Ok(false) };
        self.discard(id);
        lock(&self.slot).in_use = Some(id);
        let used = gathering.complete(from, raft);
        let mut slot = lock(&self.slot);
        slot.in_use.take_if(|in_use| *in_use == id);
        used.map_err(broken)?;
        slot.used = Some(id);
        Ok(true)
    }

    /// The arrival that a stream adds to: a new one if it begins at the beginning.
    fn arrival(
        self: &Arc<Self>,
        number: u64,
        id: SnapshotId,
        first: u64,
    ) -> Result<Arc<Mutex<Arrival>>, Status> {
        let mut slot = lock(&self.slot);
        self.check_current(number)?;
        if first == 0 {
            slot.arrival = None;
            let gathering = self.core.inbox.gather();
            let gathering = gathering.map_err(|reason| {
                Status::resource_exhausted(format!("the snapshot cannot be kept: {reason}"))
            })?;
            let arrival = Arc::new(Mutex::new(Arrival::new(gathering, self.core.config.snapshot_bytes)));
            slot.arrival = Some((id, arrival.clone()));
            let (arrivals, kept) = (Arc::downgrade(self), Arc::downgrade(&arrival));
            let period = self.core.config.snapshot_stall;
            tokio::runtime::Handle::current().spawn(forget_in_time(arrivals, id, kept, period));
            return Ok(arrival);
        }
        match &slot.arrival {
            Some((held, arrival)) if *held == id => Ok(arrival.clone()),
            _ => Err(Status::aborted("what came of the snapshot before is not here any more")),
        }
    }

    /// A snapshot is of no use any more. Blocks.
    pub(super) fn discard(&self, id: SnapshotId) {
        lock(&self.slot).arrival.take_if(|(held, _)| *held == id);
    }
}

/// Lets go of an arrival that nobody goes on with.
async fn forget_in_time(
    arrivals: Weak<Arrivals>,
    id: SnapshotId,
    kept: Weak<Mutex<Arrival>>,
    period: Duration,
) {
    loop {
        sleep(period).await;
        let Some(arrivals) = arrivals.upgrade() else { return };
        let idle = match kept.upgrade().as_ref().map(|arrival| arrival.try_lock()) {
            None => return,
            Some(Ok(arrival)) => arrival.touched.elapsed(),
            Some(Err(_)) => Duration::ZERO,
        };
        if idle >= period * KEPT_STALLS {
            tokio::task::spawn_blocking(move || arrivals.discard(id));
            return;
        }
    }
}
