//! Who is sent to: the members that the caller names, and guests.
//!
//! A guest is a member that calls and of which this one knows nothing but what it says of itself: it was added while this
//! one was away, and perhaps it leads. It is answered at the URLs that it brings, so that this member can be brought up to
//! date by it; then the state names it, or names it as removed.
//!
//! Invariants:
//! - Guests are few, whoever calls: for a new one the one that was silent longest has to go.
//! - A guest that the caller names becomes a peer like the others, connection and all; one that may not speak any more is
//!   none from the next change on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::peer::{Peer, Wanted};
use super::{Core, Known, lock};

/// More than the changes of membership that a usual cluster sees while one of its members is away.
pub(super) const GUESTS_MAX: usize = 8;

/// Who is sent to at one moment.
#[derive(Default)]
pub(super) struct Listed {
    all: BTreeMap<u64, Arc<Peer>>,
    /// Those of them that the caller did not name; who called last stands last.
    guests: VecDeque<u64>,
}

impl Listed {
    /// A member that the caller named, or a guest.
    pub(super) fn get(&self, id: u64) -> Option<&Arc<Peer>> {
        self.all.get(&id)
    }

    /// A member that the caller named.
    pub(super) fn member(&self, id: u64) -> Option<&Arc<Peer>> {
        self.get(id).filter(|_| !self.guests.contains(&id))
    }

    pub(super) fn everybody(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.all.values()
    }

    /// Those that the caller named.
    pub(super) fn members(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.all.values().filter(|peer| !self.guests.contains(&peer.id))
    }
}

/// Changes who is sent to, and runs what sends.
pub(super) struct Peers {
    core: Arc<Core>,
    runtime: Handle,
    listed: ArcSwap<Listed>,
    /// Held during a change. `None`: shut down.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Peers {
    pub(super) fn new(core: Arc<Core>, runtime: Handle) -> Self {
        Self { core, runtime, listed: ArcSwap::default(), tasks: Mutex::new(Some(JoinSet::new())) }
    }

    pub(super) fn listed(&self) -> Guard<Arc<Listed>> {
        self.listed.load()
    }

    /// These are the members now; this one itself is left out.
    pub(super) fn set(&self, members: BTreeMap<u64, Vec<String>>) {
        let mut tasks = lock(&self.tasks);
        let Some(tasks) = tasks.as_mut() else { return };
        while tasks.try_join_next().is_some() {}
        let before = self.listed.load_full();
        let mut after = Listed::default();
        for (id, urls) in members.into_iter().filter(|(id, _)| *id != self.core.identity.member_id) {
            let peer = match before.get(id) {
                Some(peer) => {
                    peer.set_urls(urls);
                    peer.clone()
                }
                None => self.begin(tasks, id, urls),
            };
            after.all.insert(id, peer);
        }
        for id in before.guests.iter().filter(|id| !after.all.contains_key(id)).collect::<Vec<_>>() {
            if let (Some(peer), Ok(Known::BySelf)) = (before.get(*id), self.core.inbox.admits(*id, 0)) {
                after.all.insert(*id, peer.clone());
                after.guests.push_back(*id);
            }
        }
        self.replace(&before, after);
    }

    /// One calls that is only known by what it says: it is to be answered at these URLs.
    pub(super) fn welcome(&self, id: u64, urls: Vec<String>) {
        let mut tasks = lock(&self.tasks);
        let Some(tasks) = tasks.as_mut() else { return };
        let before = self.listed.load_full();
        if before.member(id).is_some() || id == self.core.identity.member_id {
            return;
        }
        let mut after = Listed { all: before.all.clone(), guests: before.guests.clone() };
        after.guests.retain(|guest| *guest != id);
        if let Some(guest) = before.get(id) {
            guest.set_urls(urls);
        } else {
            tracing::info!(
                peer = format_args!("{id:x}"),
                urls = urls.join(","),
                "a member calls that is not known here yet: answering it at the URLs that it names"
            );
            after.all.insert(id, self.begin(tasks, id, urls));
        }
        while after.guests.len() >= GUESTS_MAX {
            let Some(oldest) = after.guests.pop_front() else { break };
            after.all.remove(&oldest);
        }
        after.guests.push_back(id);
        self.replace(&before, after);
    }

    /// Nobody is sent to any more. What ran, for being ended; `None`: that was done before.
    pub(super) fn close(&self) -> Option<(Vec<Arc<Peer>>, JoinSet<()>)> {
        let tasks = lock(&self.tasks).take()?;
        let listed = self.listed.swap(Arc::default());
        Some((listed.all.values().cloned().collect(), tasks))
    }

    fn begin(&self, tasks: &mut JoinSet<()>, id: u64, urls: Vec<String>) -> Arc<Peer> {
        let peer = Peer::new(self.core.clone(), id, urls);
        tasks.spawn_on(peer.clone().run(), &self.runtime);
        peer
    }

    fn replace(&self, before: &Listed, after: Listed) {
        let gone = before.all.iter().filter(|(id, _)| !after.all.contains_key(id));
        gone.for_each(|(_, peer)| peer.end(Wanted::No));
        self.listed.store(Arc::new(after));
    }
}
