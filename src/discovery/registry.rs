//! Who is registered, and what follows from it. Pure.

use super::answer::KeyNode;
use super::{DiscoveryError, FoundMember};
use std::collections::BTreeMap;

/// Reads `name=url,name=url`, the notation that registrations and `-initial-cluster` have in common; a name that is
/// repeated has several URLs. Names keep the order of their first appearance.
///
/// The error is in etcd's words. URLs are not looked into.
pub fn parse_members(text: &str) -> Result<Vec<FoundMember>, String> {
    let mut members: Vec<FoundMember> = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        if url.is_empty() {
            return Err(format!("Empty URL given for {name:?}"));
        }
        if name.is_empty() {
            return Err(format!("Empty name given for {url:?}"));
        }
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url.to_owned()),
            None => members.push((name.to_owned(), vec![url.to_owned()])),
        }
    }
    Ok(members)
}

/// The value that a member registers.
pub(super) fn registration_value(name: &str, peer_urls: &[String]) -> String {
    peer_urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

/// The size of the cluster, from the value of `_config/size`.
pub(super) fn parse_size(text: &str) -> Option<usize> {
    text.parse().ok().filter(|size| *size > 0)
}

/// One registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    /// The last segment of the key: the member's id in hexadecimal.
    pub(super) id: String,
    pub(super) value: String,
    /// The index at which it was made: the order of registrations.
    pub(super) created: u64,
}

/// The registrations of one token, in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registry {
    pub(super) url: String,
    pub(super) size: usize,
    pub(super) registrations: Vec<Registration>,
}

/// The member that joins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining<'a> {
    pub(super) id: u64,
    pub(super) name: &'a str,
    pub(super) value: &'a str,
}

/// How the joining member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not registered, and there is room.
    Absent,
    /// Registered; members are still missing.
    Waiting {
        /// How many have registered.
        present: usize,
    },
    /// The cluster is complete and the joining member is in it.
    Found(Vec<FoundMember>),
}

impl Registry {
    pub(super) fn new(url: &str, size: usize, directory: KeyNode) -> Self {
        let mut registrations: Vec<Registration> =
            directory.nodes.into_iter().filter_map(Registration::from_node).collect();
        registrations.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Self { url: url.to_owned(), size, registrations }
    }

    /// What the registrations mean to the joining member. Those that came too late are nobody's concern.
    pub(super) fn standing(&self, me: Joining<'_>) -> Result<Standing, DiscoveryError> {
        let cluster = &self.registrations[..self.size.min(self.registrations.len())];
        let members = self.members(cluster, me)?;
        match self.registrations.iter().position(|registration| registration.is_of(me.id)) {
            Some(place) if !same_member(&self.registrations[place].value, me.value) => {
                Err(DiscoveryError::DuplicateId {
                    id: me.id,
                    theirs: self.registrations[place].value.clone(),
                    ours: me.value.to_owned(),
                })
            }
            None if cluster.len() < self.size => Ok(Standing::Absent),
            Some(place) if place < cluster.len() => {
                if cluster.len() == self.size {
                    return Ok(Standing::Found(members));
                }
                Ok(Standing::Waiting { present: cluster.len() })
            }
            Some(_) | None => Err(DiscoveryError::Full {
                url: self.url.clone(),
                size: self.size,
                holders: cluster.iter().map(|registration| registration.value.clone()).collect(),
            }),
        }
    }

    /// The members that these registrations are; an error if they cannot be in one cluster, with the joining member
    /// or among themselves.
    fn members(&self, cluster: &[Registration], me: Joining<'_>) -> Result<Vec<FoundMember>, DiscoveryError> {
        let mut members = Vec::with_capacity(cluster.len());
        let mut taken: BTreeMap<String, &Registration> = BTreeMap::new();
        for registration in cluster {
            let (name, urls) = registration.member()?;
            if name == me.name && !registration.is_of(me.id) {
                return Err(DiscoveryError::DuplicateName {
                    name,
                    id: me.id,
                    ours: me.value.to_owned(),
                    their_id: registration.id.clone(),
                    theirs: registration.value.clone(),
                });
            }
            let marks = urls.iter().cloned().chain([format!("name {name}")]);
            for mark in marks {
                if let Some(other) = taken.insert(mark.clone(), registration) {
                    return Err(DiscoveryError::Collision {
                        url: self.url.clone(),
                        first: other.value.clone(),
                        second: registration.value.clone(),
                        what: mark,
                    });
                }
            }
            members.push((name, urls));
        }
        Ok(members)
    }
}

impl Registration {
    /// `None` for what is not a registration: directories and hidden keys such as `_config`.
    fn from_node(node: KeyNode) -> Option<Self> {
        let id = node.key.rsplit('/').next().unwrap_or_default();
        if node.dir || id.is_empty() || id.starts_with('_') {
            return None;
        }
        Some(Self { id: id.to_owned(), value: node.value, created: node.created })
    }

    fn is_of(&self, id: u64) -> bool {
        u64::from_str_radix(&self.id, 16) == Ok(id)
    }

    fn member(&self) -> Result<FoundMember, DiscoveryError> {
        let bad = |reason: String| DiscoveryError::BadRegistration {
            key: self.id.clone(),
            value: self.value.clone(),
            reason,
        };
        let mut members = parse_members(&self.value).map_err(bad)?;
        let (Some((name, urls)), true) = (members.pop(), members.is_empty()) else {
            return Err(bad("it is not of the form <name>=<peer url>".to_owned()));
        };
        for url in &urls {
            let sound = reqwest::Url::parse(url).is_ok_and(|parsed| {
                matches!(parsed.scheme(), "http" | "https") && parsed.port_or_known_default().is_some()
            });
            if !sound {
                return Err(bad(format!("invalid URL {url:?}")));
            }
        }
        Ok((name, urls))
    }
}

/// Whether two values register the same member: the same name and the same URLs, in whatever order.
fn same_member(a: &str, b: &str) -> bool {
    let parts = |value: &str| {
        let mut members = parse_members(value).ok()?;
        for (_, urls) in &mut members {
            urls.sort_unstable();
        }
        Some(members)
    };
    a == b || parts(a).is_some_and(|members| parts(b) == Some(members))
}
