//! A member as its clients see it: what `http` serves, and what a program that embeds one holds.

use super::alarms::Alarms;
use super::clock::ClockCell;
use super::disk::DiskStats;
use super::driver::DriverInput;
use super::ids;
use super::links::KnownStatus;
use super::published::Published;
use super::space::Space;
use super::watch::{NodeWatch, Watches};
use super::wire::Peers;
use crate::http::backend::{
    Alarm, Backend, BackendError, ClockReading, Consistency, Member, MembersError, Status, Summary, Traffic,
    View, WatchRequest, Written,
};
use crate::replica::MemberChange;
use crate::store::{Command, Event, Key, Node, StoreError};
use arc_swap::ArcSwap;
use bytes::Bytes;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{oneshot, watch};

/// A handle on a running member. Clones are cheap and share the member.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

pub(super) struct Shared {
    pub driver: mpsc::Sender<DriverInput>,
    pub published: Arc<Published>,
    pub status: Arc<ArcSwap<KnownStatus>>,
    pub watches: Arc<Watches>,
    pub clock: Arc<ClockCell>,
    pub disk: Arc<DiskStats>,
    pub space: Arc<Space>,
    pub alarms: Arc<Alarms>,
    pub peers: Peers,
}

impl Handle {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    fn send(&self, input: DriverInput) -> Result<(), BackendError> {
        self.0.driver.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => BackendError::Overloaded,
            TrySendError::Closed(_) => BackendError::Stopped,
        })
    }

    /// Sets a key, with a time to live if one is given, and answers when a quorum has it on disk.
    ///
    /// # Errors
    /// The store refused it, or there was no quorum in time.
    pub async fn set(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<Arc<Event>, BackendError> {
        let ttl = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let key = Key::parse(key.as_bytes());
        let command = Command::Set { key, value: value.into(), dir: false, ttl, refresh: false };
        Ok(self.write(command).await?.event)
    }

    /// Reads a key: every write that was acknowledged anywhere before is seen.
    ///
    /// # Errors
    /// There is no such key, or there was no quorum in time.
    pub async fn get(&self, key: &str) -> Result<Node, BackendError> {
        let view = self.read(Consistency::Linearizable).await?;
        Ok(view.store.get(&Key::parse(key.as_bytes()))?)
    }

    /// Removes a key.
    ///
    /// # Errors
    /// There is no such key, or there was no quorum in time.
    pub async fn delete(&self, key: &str) -> Result<Arc<Event>, BackendError> {
        let key = Key::parse(key.as_bytes());
        Ok(self.write(Command::Delete { key, dir: false, recursive: false }).await?.event)
    }

    /// Every event at or below a key, from the index `since` on (0: from now on).
    ///
    /// # Errors
    /// The history does not reach back to `since`.
    pub fn watch_all(&self, key: &str, since: u64) -> Result<NodeWatch, StoreError> {
        let key = Key::parse(key.as_bytes());
        self.watch(WatchRequest { key, recursive: true, stream: true, since })
    }

    /// Makes the member known to the cluster, until that is applied or it stops.
    pub(super) async fn keep_publishing(
        self,
        name: String,
        client_urls: Vec<String>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let published = async {
            while !self.publish(name.clone(), client_urls.clone()).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = published => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    }

    /// Makes the member's name and client URLs known to the cluster.
    async fn publish(&self, name: String, client_urls: Vec<String>) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(DriverInput::Publish { name, client_urls, reply }).is_ok() && answer.await.unwrap_or(false)
    }
}

impl Backend for Handle {
    type Watch = NodeWatch;

    async fn write(&self, command: Command) -> Result<Written, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.send(DriverInput::Write { command, reply })?;
        answer.await.unwrap_or(Err(BackendError::Stopped))
    }

    async fn change_members(&self, change: MemberChange) -> Result<Member, MembersError> {
        if let Some(refusal @ BackendError::Removed) = self.refusal() {
            return Err(refusal.into());
        }
        let leaving = match change {
            MemberChange::Remove { id } if id == self.status().id => self.summary().members.get(&id).cloned(),
            _ => None,
        };
        let (reply, answer) = oneshot::channel();
        self.send(DriverInput::Change { change, reply })?;
        match (answer.await.unwrap_or(Err(BackendError::Stopped.into())), leaving) {
            // Who is removed hears of it, as often as not, only from the others' refusal to talk to it.
            (Err(MembersError::Backend(BackendError::Removed)), Some(member)) => Ok(member),
            (answer, _) => answer,
        }
    }

    fn new_member_id(&self, peer_urls: &[String]) -> u64 {
        ids::added_member_id(peer_urls, SystemTime::now())
    }

    async fn read(&self, consistency: Consistency) -> Result<Arc<View>, BackendError> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        if consistency == Consistency::Local {
            return self.0.published.view().await;
        }
        let (reply, answer) = oneshot::channel();
        self.send(DriverInput::Read { reply })?;
        answer.await.unwrap_or(Err(BackendError::Stopped))
    }

    fn summary(&self) -> Arc<Summary> {
        self.0.published.summary()
    }

    fn watch(&self, request: WatchRequest) -> Result<NodeWatch, StoreError> {
        self.0.watches.watch(request, self.clock())
    }

    fn clock(&self) -> ClockReading {
        self.0.clock.read()
    }

    fn status(&self) -> Status {
        let known = self.0.status.load();
        let mut status = Status { leader_uptime: known.leader_since.elapsed(), ..known.status.clone() };
        status.alarms.extend(self.0.alarms.all().filter_map(|(alarm, on)| on.then_some(alarm)));
        status
    }

    fn refusal(&self) -> Option<BackendError> {
        let on = |alarm: &AtomicBool| alarm.load(Ordering::Relaxed);
        let alarms = &self.0.alarms;
        match () {
            () if on(&alarms.diverged) => Some(BackendError::Corrupt),
            () if on(&alarms.removed) => Some(BackendError::Removed),
            () => None,
        }
    }

    fn traffic(&self) -> Traffic {
        self.0.peers.traffic()
    }

    fn metrics(&self, out: &mut String) {
        let disk = &self.0.disk;
        let syncs = disk.syncs.load(Ordering::Relaxed);
        let seconds = disk.sync_micros.load(Ordering::Relaxed) as f64 / 1e6;
        let checkpoints = disk.checkpoints.load(Ordering::Relaxed);
        let peers = self.0.peers.connected();
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "# HELP quorate_log_fsync_duration_seconds How long fsyncs of the log took.\n\
             # TYPE quorate_log_fsync_duration_seconds summary\n\
             quorate_log_fsync_duration_seconds_sum {seconds}\n\
             quorate_log_fsync_duration_seconds_count {syncs}\n\
             # HELP quorate_checkpoints_total Checkpoints written.\n\
             # TYPE quorate_checkpoints_total counter\n\
             quorate_checkpoints_total {checkpoints}\n\
             # HELP quorate_peers_connected Members that this one has a connection to.\n\
             # TYPE quorate_peers_connected gauge\n\
             quorate_peers_connected {peers}\n"
        );
        let (free, reserve) = self.0.space.figures();
        let _ = write!(
            out,
            "# HELP quorate_disk_free_bytes Free space of the data directory's file system.\n\
             # TYPE quorate_disk_free_bytes gauge\n\
             quorate_disk_free_bytes {free}\n\
             # HELP quorate_disk_reserve_bytes With less free space than this, writes are refused.\n\
             # TYPE quorate_disk_reserve_bytes gauge\n\
             quorate_disk_reserve_bytes {reserve}\n\
             # HELP quorate_alarm Whether an alarm is on: see /health.\n\
             # TYPE quorate_alarm gauge\n"
        );
        let refused = self.0.status.load().status.alarms.contains(&Alarm::WritesRefused);
        for (alarm, on) in self.0.alarms.all().chain([(Alarm::WritesRefused, refused)]) {
            let _ = writeln!(out, "quorate_alarm{{type=\"{}\"}} {}", alarm.name(), u8::from(on));
        }
    }
}
