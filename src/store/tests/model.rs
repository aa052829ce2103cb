//! Random commands against a model that is as plain as can be: a sorted map, searched from the root each time.

use super::*;
use std::collections::BTreeMap;

/// Path segments; their order is the store's order of keys.
type Path = Vec<Vec<u8>>;

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    /// `None`: a directory.
    value: Option<Bytes>,
    deadline: Option<u64>,
    created: u64,
    modified: u64,
}

/// What an event must say: action, path, the entry after it (of a removal: none), the entry before it, refresh.
type Told = (Action, Path, Option<Entry>, Option<Entry>, bool);

#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<Path, Entry>,
    index: u64,
    now: u64,
}

fn path(key: &Key) -> Path {
    key.as_bytes().split(|b| *b == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

fn text(path: &[Vec<u8>]) -> Vec<u8> {
    [b"/", &path.join(&b'/')[..]].concat()
}

type Refusal = (u16, Vec<u8>);

impl Model {
    /// The entry at a path that is not the root's.
    fn walk(&self, path: &[Vec<u8>]) -> Result<Entry, Refusal> {
        for len in 1..path.len() {
            match self.entries.get(&path[..len]) {
                None => return Err((100, text(&path[..len]))),
                Some(Entry { value: Some(_), .. }) => return Err((104, text(&path[..len]))),
                Some(_) => {}
            }
        }
        self.entries.get(path).cloned().ok_or_else(|| (100, text(path)))
    }

    fn insert(&mut self, path: &Path, entry: &Entry) {
        for len in 1..path.len() {
            let dir = Entry { value: None, deadline: None, ..entry.clone() };
            self.entries.entry(path[..len].to_vec()).or_insert(dir);
        }
        self.entries.insert(path.clone(), entry.clone());
    }

    fn place(
        &mut self,
        action: Action,
        at: Path,
        value: Option<Bytes>,
        ttl: Option<u64>,
        old: Option<Entry>,
        refresh: bool,
    ) -> Told {
        self.index += 1;
        let deadline = ttl.map(|ttl| self.now + ttl);
        let entry = Entry { value, deadline, created: self.index, modified: self.index };
        self.insert(&at, &entry);
        (action, at, Some(entry), old, refresh)
    }

    fn rewrite(
        &mut self,
        action: Action,
        at: Path,
        old: Entry,
        value: &Bytes,
        ttl: Option<u64>,
        refresh: bool,
    ) -> Told {
        self.index += 1;
        let deadline = ttl.map(|ttl| self.now + ttl);
        let value = if refresh || old.value.is_none() { old.value.clone() } else { Some(value.clone()) };
        let told = Entry { value, deadline, created: old.created, modified: self.index };
        let modified = if told.value.is_none() { old.modified } else { self.index };
        self.insert(&at, &Entry { modified, ..told.clone() });
        (action, at, Some(told), Some(old), refresh)
    }

    fn remove(&mut self, action: Action, at: Path, old: Entry) -> Told {
        self.index += 1;
        self.entries.retain(|path, _| !path.starts_with(&at));
        (action, at, None, Some(old), false)
    }

    fn compared(&self, at: &Path, compare: &Compare) -> Result<Entry, Refusal> {
        let entry = self.walk(at)?;
        let Some(value) = &entry.value else { return Err((102, text(at))) };
        let given = String::from_utf8_lossy(&compare.prev_value);
        let mut causes = Vec::new();
        if !given.is_empty() && compare.prev_value != value {
            causes.push(format!("[{given} != {}]", String::from_utf8_lossy(value)));
        }
        if compare.prev_index != 0 && compare.prev_index != entry.modified {
            causes.push(format!("[{} != {}]", compare.prev_index, entry.modified));
        }
        if causes.is_empty() { Ok(entry) } else { Err((101, causes.join(" ").into_bytes())) }
    }

    fn apply(&mut self, command: &Command) -> Result<Told, Refusal> {
        let at = match command {
            Command::CreateInOrder { key, .. } => {
                let name = format!("{:020}", self.index + 1).into_bytes();
                [path(key), vec![name]].concat()
            }
            Command::Set { key, .. }
            | Command::Create { key, .. }
            | Command::Update { key, .. }
            | Command::CompareAndSwap { key, .. }
            | Command::Delete { key, .. }
            | Command::CompareAndDelete { key, .. } => path(key),
        };
        if at.is_empty() {
            let compared = matches!(command, Command::CompareAndDelete { .. });
            return Err(if compared { (102, vec![]) } else { (107, b"/".to_vec()) });
        }
        match command {
            Command::Set { value, dir, ttl, refresh, .. } => {
                let old = match self.walk(&at) {
                    Ok(Entry { value: None, .. }) => return Err((102, text(&at))),
                    Err((100, _)) if !refresh => None,
                    found => Some(found?),
                };
                let kept = if *refresh { old.clone().and_then(|old| old.value) } else { Some(value.clone()) };
                Ok(self.place(Action::Set, at, kept.filter(|_| !dir), *ttl, old, *refresh))
            }
            Command::Create { value, dir, ttl, .. } | Command::CreateInOrder { value, dir, ttl, .. } => {
                match self.walk(&at) {
                    Ok(_) => Err((105, text(&at))),
                    Err((100, _)) => {
                        let value = Some(value.clone()).filter(|_| !dir);
                        Ok(self.place(Action::Create, at, value, *ttl, None, false))
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Command::Update { value, ttl, refresh, .. } => {
                let old = self.walk(&at)?;
                if old.value.is_none() && !value.is_empty() {
                    return Err((102, text(&at)));
                }
                Ok(self.rewrite(Action::Update, at, old, value, *ttl, *refresh))
            }
            Command::CompareAndSwap { compare, value, ttl, refresh, .. } => {
                let old = self.compared(&at, compare)?;
                Ok(self.rewrite(Action::CompareAndSwap, at, old, value, *ttl, *refresh))
            }
            Command::Delete { dir, recursive, .. } => {
                let old = self.walk(&at)?;
                let inside = self.entries.keys().any(|path| path.len() > at.len() && path.starts_with(&at));
                match (&old.value, dir, recursive) {
                    (None, false, false) => Err((102, text(&at))),
                    (None, true, false) if inside => Err((108, text(&at))),
                    _ => Ok(self.remove(Action::Delete, at, old)),
                }
            }
            Command::CompareAndDelete { compare, .. } => {
                let old = self.compared(&at, compare)?;
                Ok(self.remove(Action::CompareAndDelete, at, old))
            }
        }
    }

    fn expire(&mut self, limit: usize) -> Vec<Told> {
        let mut told = Vec::new();
        while told.len() < limit {
            let due = self.entries.iter();
            let due = due.filter_map(|(path, entry)| Some((entry.deadline?, entry.modified, path)));
            let Some((deadline, _, at)) = due.min() else { break };
            if deadline > self.now {
                break;
            }
            let at = at.clone();
            let old = self.entries[&at].clone();
            told.push(self.remove(Action::Expire, at, old));
        }
        told
    }
}

fn entry(node: &Node) -> Entry {
    let deadline = node.deadline.map(|at| at.0);
    Entry { value: node.value.clone(), deadline, created: node.created, modified: node.modified }
}

fn check_event(event: &Event, told: Told, model: &Model) {
    let (action, at, after, before, refresh) = told;
    assert_eq!((event.action, path(&event.node.key), event.refresh), (action, at, refresh));
    assert_eq!((event.time.0, event.node.modified), (model.now, event.index));
    assert_eq!(event.prev_node.as_deref().map(entry), before);
    if let Some(after) = after {
        assert_eq!(entry(&event.node), after);
    } else {
        let node = &event.node;
        assert_eq!((&node.value, node.deadline), (&None, None));
        let before = event.prev_node.as_ref().unwrap();
        assert_eq!((node.dir, node.created), (before.dir, before.created));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    Advance(u64),
    Expire(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any_command().prop_map(Step::Apply),
        2 => (0..15u64).prop_map(Step::Advance),
        1 => (1..4usize).prop_map(Step::Expire),
    ]
}

fn check_against(store: &Store, model: &Model) {
    check_invariants(store);
    assert_eq!(store.index(), model.index);
    let nodes: Vec<_> = store.nodes().map(|node| (path(&node.key), entry(&node))).collect();
    let entries: Vec<_> = model.entries.iter().map(|(at, entry)| (at.clone(), entry.clone())).collect();
    assert_eq!(nodes, entries);
}

/// Listings of every directory, the root among them.
fn check_listings(store: &Store, model: &Model) {
    let dirs = model.entries.iter().filter(|(_, entry)| entry.value.is_none()).map(|(at, _)| at.clone());
    for dir in dirs.chain([vec![]]) {
        let below = |at: &Path| at.len() > dir.len() && at.starts_with(&dir);
        let key = Key::parse(&text(&dir));
        let listed: Vec<_> = store.descendants(&key).map(|node| path(&node.key)).collect();
        assert_eq!(listed, model.entries.keys().filter(|at| below(at)).cloned().collect::<Vec<_>>());
        let direct = |at: &Path| below(at) && at.len() == dir.len() + 1;
        let listed: Vec<_> = store.children(&key).map(|node| path(&node.key)).collect();
        assert_eq!(listed, model.entries.keys().filter(|at| direct(at)).cloned().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(any_step(), 1..80)) {
        let (mut store, mut model) = (store(), Model::default());
        let mut twin = store.clone();
        for step in &steps {
            match step {
                Step::Advance(by) => model.now += by,
                Step::Apply(command) => {
                    let done = store.apply(ClusterTime(model.now), command);
                    match (done, model.apply(command)) {
                        (Ok(outcome), Ok(told)) => check_event(&outcome.event, told, &model),
                        (Err(error), Err((code, cause))) => {
                            prop_assert_eq!((error.code.number(), &error.cause[..]), (code, &cause[..]));
                            prop_assert_eq!(error.index, model.index);
                        }
                        (done, told) => prop_assert!(false, "{:?} against {:?}", done, told),
                    }
                    let _ = twin.apply(ClusterTime(model.now), command);
                }
                Step::Expire(limit) => {
                    let outcomes = store.expire(ClusterTime(model.now), *limit);
                    let told = model.expire(*limit);
                    prop_assert_eq!(outcomes.len(), told.len());
                    for (outcome, told) in outcomes.iter().zip(told) {
                        check_event(&outcome.event, told, &model);
                    }
                    twin.expire(ClusterTime(model.now), *limit);
                }
            }
            check_against(&store, &model);
            prop_assert_eq!(store.digest(), twin.digest());
        }
        check_listings(&store, &model);
    }

    #[test]
    fn a_clone_stays_as_it_was(
        before in prop::collection::vec(any_command(), 1..40),
        after in prop::collection::vec(any_command(), 1..40),
    ) {
        let mut store = store();
        for command in &before {
            let _ = store.apply(ClusterTime(0), command);
        }
        let taken = store.clone();
        let seen: Vec<Node> = taken.nodes().collect();
        let (index, digest) = (taken.index(), taken.digest());
        for command in &after {
            let _ = store.apply(ClusterTime(0), command);
        }
        store.expire(ClusterTime(100), 100);
        check_invariants(&taken);
        prop_assert_eq!(taken.nodes().collect::<Vec<_>>(), seen);
        prop_assert_eq!((taken.index(), taken.digest()), (index, digest));
    }
}
