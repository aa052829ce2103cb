//! The ends of everything that the driver talks to.

use super::alarms::Alarms;
use super::checkpoints::CheckpointPolicy;
use super::clock::ClockCell;
use super::disk::{DiskJob, DiskStats};
use super::driver::DriverInput;
use super::published::Published;
use super::watch::{News, Watches};
use super::wire::Peers;
use crate::http::backend::Status;
use crate::replica::Roster;
use crate::storage::Checkpoints;
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The member's status, and since when it has seen the present leader.
#[derive(Clone, Debug)]
pub(super) struct KnownStatus {
    pub status: Status,
    pub leader_since: Instant,
}

/// The ends of everything that the driver talks to.
pub(super) struct Links {
    pub inputs: mpsc::Receiver<DriverInput>,
    pub inputs_back: mpsc::Sender<DriverInput>,
    pub disk: mpsc::UnboundedSender<DiskJob>,
    pub news: Sender<News>,
    pub watches: Arc<Watches>,
    pub peers: Peers,
    pub published: Arc<Published>,
    pub status: Arc<ArcSwap<KnownStatus>>,
    pub roster: Arc<ArcSwap<Roster>>,
    pub clock: Arc<ClockCell>,
    pub checkpoints: Arc<Checkpoints>,
    pub disk_stats: Arc<DiskStats>,
    pub alarms: Arc<Alarms>,
    /// Makes it durable that this member's state differs from the leader's at a log index.
    pub keep_alarm: Box<dyn Fn(u64) + Send>,
    /// Held as long as the member runs: threads that wait look at its other end.
    pub _running: Sender<()>,
    /// That other end.
    pub stopped: Receiver<()>,
    /// Keeps a term and a reading of cluster time for a restart.
    pub keep_clock: Box<dyn Fn(u64, u64) + Send>,
}

/// How the driver is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// The heartbeat interval.
    pub tick: Duration,
    /// How much log there is between two checkpoints.
    pub checkpoints: CheckpointPolicy,
}
