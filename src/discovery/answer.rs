//! What an answer of the v2 keys API means to a joining member. Pure.

use serde::Deserialize;

/// An HTTP answer, read completely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `X-Etcd-Index`: the state that the answer shows.
    pub(super) index: Option<u64>,
    pub(super) body: Vec<u8>,
}

/// What it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The key or directory asked for, as it is or has become.
    Node(KeyNode),
    /// There is no such key.
    Missing,
    /// The key that was to be created is there already.
    Exists,
    /// The service is there, but not well: the same request may succeed later.
    Unwell(String),
    /// The service understands, and says no: the same request will fail again.
    Refused(String),
    /// Not an answer of the v2 keys API at all.
    Foreign(String),
}

/// A key or a directory in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct KeyNode {
    #[serde(default)]
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
    #[serde(default)]
    pub(super) dir: bool,
    #[serde(default)]
    pub(super) nodes: Vec<KeyNode>,
    #[serde(default, rename = "createdIndex")]
    pub(super) created: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Error {
        #[serde(rename = "errorCode")]
        code: u16,
        #[serde(default)]
        message: String,
        #[serde(default)]
        cause: String,
    },
    Event {
        node: KeyNode,
    },
}

/// Error codes of the API that a joining member can meet.
mod code {
    pub(super) const KEY_NOT_FOUND: u16 = 100;
    pub(super) const NODE_EXIST: u16 = 105;
    /// Raft has no leader, or lost it.
    pub(super) const RAFT: std::ops::RangeInclusive<u16> = 300..=399;
    /// The event asked for is no longer in the history.
    pub(super) const EVENT_INDEX_CLEARED: u16 = 401;
}

impl Answer {
    pub(super) fn verdict(&self) -> Verdict {
        match serde_json::from_slice(&self.body) {
            Ok(Body::Error { code: code::KEY_NOT_FOUND, .. }) => Verdict::Missing,
            Ok(Body::Error { code: code::NODE_EXIST, .. }) => Verdict::Exists,
            Ok(Body::Error { code, message, cause }) => {
                let words = format!("{code}: {message} ({cause})");
                let passing =
                    self.is_passing() || code::RAFT.contains(&code) || code == code::EVENT_INDEX_CLEARED;
                if passing { Verdict::Unwell(words) } else { Verdict::Refused(words) }
            }
            Ok(Body::Event { node }) if self.is_success() => Verdict::Node(node),
            // A wait that ended with nothing to tell, or a server that is stopping.
            _ if self.is_success() && self.body.is_empty() => Verdict::Unwell("an empty answer".to_owned()),
            _ if self.is_passing() => Verdict::Unwell(self.excerpt()),
            _ => Verdict::Foreign(self.excerpt()),
        }
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn is_passing(&self) -> bool {
        matches!(self.status, 408 | 429 | 500..)
    }

    /// Status and the beginning of the body, on one line.
    fn excerpt(&self) -> String {
        const SHOWN: usize = 80;
        let text = String::from_utf8_lossy(&self.body);
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = line.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        let more = if line.chars().count() > SHOWN { "…" } else { "" };
        format!("{} {short:?}{more}", self.status)
    }
}
