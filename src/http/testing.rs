//! A member without a cluster, for tests of this layer: the real store behind a lock, no log, no peers.

use super::backend::{
    Backend, BackendError, ClockReading, Consistency, Member, MembersError, Notice, Status, Summary, Traffic,
    View, Watch, WatchItem, WatchRequest, Written,
};
use crate::replica::{ChangeError, MemberChange};
use crate::store::{
    ClusterTime, Command, ErrorCode, Event, HistoryLimits, Outcome, Store, StoreError, WatcherHub, WatcherId,
};
use bytes::Bytes;
use hyper::Method;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;

/// The id of the one member.
const MEMBER: u64 = 0x99c4_081e_d0ff_5f2e;

/// The one member. Clones share it.
#[derive(Clone, Debug)]
pub struct SingleMember(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    members: Arc<BTreeMap<u64, Member>>,
    started: (Instant, SystemTime),
}

#[derive(Debug)]
struct State {
    store: Store,
    hub: WatcherHub,
    watchers: BTreeMap<WatcherId, Watcher>,
    raft_index: u64,
    expired: u64,
    /// What writes and linearizable reads fail with, if they are to fail.
    failure: Option<BackendError>,
    traffic: Traffic,
    /// Who leads: this member, unless said otherwise.
    leader: u64,
}

#[derive(Debug)]
struct Watcher {
    since: u64,
    queue: mpsc::UnboundedSender<WatchItem>,
}

/// The answer that an event makes, at a fixed time: for benchmarks.
#[must_use]
pub fn render(event: &Event) -> Bytes {
    let clock = ClockReading { cluster: event.time, wall: SystemTime::UNIX_EPOCH };
    super::render::event(event, &clock, false)
}

/// Takes a PUT of a form apart; whether it is a good one. For benchmarks.
#[must_use]
pub fn parse_put(path: &str, form: &Bytes) -> bool {
    match super::route::route(&Method::PUT, path, None) {
        Ok(super::route::Route::Keys(key)) => {
            super::params::parse(super::params::KeysMethod::Put, key, "", form).is_ok()
        }
        _ => false,
    }
}

impl SingleMember {
    /// An empty member that clients reach at `client_url`. Its keys expire as long as the runtime lives that it is
    /// made in.
    #[must_use]
    pub fn start(client_url: &str, limits: HistoryLimits) -> Self {
        let member = Member {
            id: MEMBER,
            name: "m1".into(),
            peer_urls: vec!["http://127.0.0.1:7001".into()],
            client_urls: vec![client_url.into()],
            learner: false,
        };
        let state = State {
            store: Store::new(limits),
            hub: WatcherHub::new(),
            watchers: BTreeMap::new(),
            raft_index: 0,
            expired: 0,
            failure: None,
            traffic: Traffic::default(),
            leader: MEMBER,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            members: Arc::new(BTreeMap::from([(MEMBER, member)])),
            started: (Instant::now(), SystemTime::now()),
        });
        let weak = Arc::downgrade(&shared);
        tokio::spawn(async move {
            while let Some(shared) = weak.upgrade() {
                Self(shared).expire();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self(shared)
    }

    /// Makes all writes and linearizable reads fail from now on, or succeed again.
    pub fn fail_with(&self, failure: Option<BackendError>) {
        self.state().failure = failure;
    }

    /// Sets what was exchanged with others.
    pub fn set_traffic(&self, traffic: Traffic) {
        self.state().traffic = traffic;
    }

    /// Sets who leads; 0: nobody.
    pub fn set_leader(&self, leader: u64) {
        self.state().leader = leader;
    }

    /// How many watchers there are.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.state().hub.len()
    }

    /// Ends all watches with an item, as a member does whose watchers lag or that installs a snapshot.
    pub fn end_watches(&self, item: &WatchItem) {
        let mut state = self.state();
        for (id, watcher) in std::mem::take(&mut state.watchers) {
            _ = watcher.queue.send(item.clone());
            state.hub.remove(id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn summary_of(&self, state: &State) -> Summary {
        Summary::of(&state.store, state.raft_index, 2, Arc::clone(&self.0.members))
    }

    fn expire(&self) {
        let clock = self.clock();
        let mut state = self.state();
        for outcome in state.store.expire(clock.cluster, usize::MAX) {
            state.expired += 1;
            state.tell(&outcome, clock);
        }
    }
}

impl State {
    fn tell(&mut self, outcome: &Outcome, clock: ClockReading) {
        let notice = Arc::new(Notice { event: Arc::clone(&outcome.event), clock, rendered: OnceLock::new() });
        let Self { hub, watchers, .. } = self;
        hub.matching(outcome, |id| {
            if let Some(watcher) = watchers.get(&id).filter(|watcher| watcher.since <= notice.event.index) {
                _ = watcher.queue.send(WatchItem::Event(Arc::clone(&notice)));
            }
        });
    }
}

impl Backend for SingleMember {
    type Watch = QueuedWatch;

    async fn write(&self, command: Command) -> Result<Written, BackendError> {
        let clock = self.clock();
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.raft_index += 1;
        let outcome = state.store.apply(clock.cluster, &command)?;
        state.tell(&outcome, clock);
        Ok(Written { event: outcome.event, raft_index: state.raft_index, raft_term: 2 })
    }

    /// It is alone, and stays so.
    async fn change_members(&self, change: MemberChange) -> Result<Member, MembersError> {
        if let Some(failure) = &self.state().failure {
            return Err(failure.clone().into());
        }
        Err(match change {
            MemberChange::Add { .. } => ChangeError::TooMany,
            MemberChange::Remove { id: MEMBER } => ChangeError::LastVoter,
            _ => ChangeError::NotFound,
        }
        .into())
    }

    fn new_member_id(&self, _peer_urls: &[String]) -> u64 {
        MEMBER + 1
    }

    async fn read(&self, consistency: Consistency) -> Result<Arc<View>, BackendError> {
        let state = self.state();
        match (&state.failure, consistency) {
            (Some(failure), Consistency::Linearizable) => Err(failure.clone()),
            _ => Ok(Arc::new(View::of(&state.store, self.summary_of(&state)))),
        }
    }

    fn summary(&self) -> Arc<Summary> {
        Arc::new(self.summary_of(&self.state()))
    }

    fn watch(&self, request: WatchRequest) -> Result<QueuedWatch, StoreError> {
        let clock = self.clock();
        let mut state = self.state();
        let registered_index = state.store.index();
        let (sender, receiver) = mpsc::unbounded_channel();
        let WatchRequest { key, recursive, stream, mut since } = request;
        while since > 0 && since <= registered_index {
            let found = state.store.history().scan(&key, recursive, since).map_err(|oldest| {
                let cause = format!("the requested history has been cleared [{oldest}/{since}]");
                StoreError::new(ErrorCode::EventIndexCleared, cause, registered_index)
            })?;
            let Some(event) = found else { break };
            since = event.index + 1;
            let notice = Notice { event, clock, rendered: OnceLock::new() };
            _ = sender.send(WatchItem::Event(Arc::new(notice)));
            if !stream {
                break;
            }
        }
        let id = state.hub.insert(key, recursive);
        state.watchers.insert(id, Watcher { since, queue: sender });
        Ok(QueuedWatch { registered_index, returned: 0, receiver, id, member: self.clone() })
    }

    fn clock(&self) -> ClockReading {
        let (monotonic, wall) = self.0.started;
        let elapsed = Duration::from_millis(monotonic.elapsed().as_millis() as u64);
        ClockReading { cluster: ClusterTime(elapsed.as_millis() as u64), wall: wall + elapsed }
    }

    fn traffic(&self) -> Traffic {
        self.state().traffic.clone()
    }

    fn status(&self) -> Status {
        let state = self.state();
        Status {
            id: MEMBER,
            name: "m1".into(),
            cluster_id: 0x85d8_7e21_7079_8f0b,
            leader: state.leader,
            leader_uptime: self.0.started.0.elapsed(),
            term: 2,
            commit: state.raft_index,
            applied: state.raft_index,
            expired: state.expired,
            alarms: Vec::new(),
        }
    }
}

/// A watch on a [`SingleMember`].
#[derive(Debug)]
pub struct QueuedWatch {
    registered_index: u64,
    returned: u64,
    receiver: mpsc::UnboundedReceiver<WatchItem>,
    id: WatcherId,
    member: SingleMember,
}

impl Watch for QueuedWatch {
    fn registered_index(&self) -> u64 {
        self.registered_index
    }

    fn seen(&self) -> u64 {
        let state = self.member.state();
        if self.receiver.is_empty() { state.store.index() } else { self.returned }
    }

    async fn next(&mut self) -> Option<WatchItem> {
        let item = self.receiver.recv().await;
        if let Some(WatchItem::Event(notice)) = &item {
            self.returned = notice.event.index;
        }
        item
    }
}

impl Drop for QueuedWatch {
    fn drop(&mut self) {
        let mut state = self.member.state();
        state.watchers.remove(&self.id);
        state.hub.remove(self.id);
    }
}
