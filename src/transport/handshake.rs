//! Who speaks to whom: the metadata that opens every stream between members, and the check of it.
//!
//! The check comes before any frame. A member that was set up with another cluster's data, an address that now belongs
//! to another member, or a member that was removed is told so in one line, which names both sides.
//!
//! A sender says where it is reached, too: the receiver may not know that it is a member yet (see `peers`).

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::dial::{one_line, text};
use super::{Barred, Disowned, Known, PeerIdentity};

const CLUSTER: &str = "quorate-cluster-id";
const FROM: &str = "quorate-from";
const TO: &str = "quorate-to";
const VERSION: &str = "quorate-version";
/// The sender's own peer URLs, with commas between them.
const URLS: &str = "quorate-urls";
/// The name of the sender's data directory, and the one that the receiver is known to have.
const INCARNATION: &str = "quorate-incarnation";
const TO_INCARNATION: &str = "quorate-to-incarnation";
/// In a refusal: how the caller has ceased to belong to the cluster.
const DISOWNED: &str = "quorate-disowned";

/// Longest version text that is kept.
const VERSION_BYTES_MAX: usize = 64;

/// So many of a sender's URLs are told and kept, and so many bytes of them all.
const URLS_MAX: usize = 16;
const URLS_BYTES_MAX: usize = 4096;

/// Who sent a request, as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub member: u64,
    pub incarnation: u64,
    pub version: String,
    /// Where it is reached; perhaps none.
    pub urls: Vec<String>,
    pub known: Known,
}

/// Says in a request's metadata who sends it to whom; `expected` names the receiver's data directory, 0 if that is not
/// known.
pub(super) fn stamp(metadata: &mut MetadataMap, identity: PeerIdentity, to: u64, expected: u64) {
    if identity.incarnation != 0 {
        metadata.insert(INCARNATION, hex(identity.incarnation));
    }
    if expected != 0 {
        metadata.insert(TO_INCARNATION, hex(expected));
    }
    metadata.insert(CLUSTER, hex(identity.cluster_id));
    metadata.insert(FROM, hex(identity.member_id));
    metadata.insert(TO, hex(to));
    metadata.insert(VERSION, MetadataValue::from_static(env!("CARGO_PKG_VERSION")));
}

/// Says in a request's metadata where its sender is reached.
pub(super) fn stamp_urls(metadata: &mut MetadataMap, own: &[String]) {
    let mut text = String::new();
    for url in own.iter().take(URLS_MAX) {
        if text.len() + url.len() < URLS_BYTES_MAX {
            text.push_str(if text.is_empty() { "" } else { "," });
            text.push_str(url);
        }
    }
    // What is no ASCII is no URL, and would reach nobody.
    if let Ok(urls) = text.parse() {
        metadata.insert(URLS, urls);
    }
}

fn urls(metadata: &MetadataMap) -> Vec<String> {
    let text = metadata.get(URLS).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text.len() > URLS_BYTES_MAX {
        return Vec::new();
    }
    text.split(',').filter(|url| !url.is_empty()).take(URLS_MAX).map(str::to_owned).collect()
}

/// The member that sent a request, if the request is meant for this member and `admits` lets it in.
pub(super) fn check(
    metadata: &MetadataMap,
    identity: PeerIdentity,
    admits: impl FnOnce(u64, u64) -> Result<Known, Barred>,
) -> Result<Caller, Status> {
    let cluster = id(metadata, CLUSTER)?;
    let from = id(metadata, FROM)?;
    let to = id(metadata, TO)?;
    let PeerIdentity { cluster_id, member_id, incarnation } = identity;
    if cluster != cluster_id {
        return Err(Status::failed_precondition(format!(
            "member {member_id:x} is of cluster {cluster_id:x}, member {from:x} of cluster {cluster:x}"
        )));
    }
    if to != member_id {
        return Err(Status::failed_precondition(format!(
            "member {to:x} was called by member {from:x}, but here is member {member_id:x}"
        )));
    }
    if from == member_id {
        return Err(Status::failed_precondition(format!(
            "a caller claims to be member {from:x}, but member {member_id:x} is here"
        )));
    }
    let theirs = optional_id(metadata, INCARNATION)?;
    let known = admits(from, theirs).map_err(|barred| refusal(member_id, from, &barred))?;
    let expected = optional_id(metadata, TO_INCARNATION)?;
    if expected != 0 && expected != incarnation {
        return Err(Status::failed_precondition(format!(
            "member {member_id:x} has other data than member {from:x} knows it with: its data directory was emptied or \
             exchanged"
        )));
    }
    let version = metadata.get(VERSION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let version = version.chars().take(VERSION_BYTES_MAX).collect();
    let urls = urls(metadata);
    if known == Known::BySelf && urls.is_empty() {
        let reason = "it is not known here, and does not say where it is reached".to_owned();
        return Err(refusal(member_id, from, &Barred { reason, disowned: None }));
    }
    Ok(Caller { member: from, incarnation: theirs, version, urls, known })
}

/// Whether a caller that may speak here knows this member with another data directory.
pub(super) fn knows_another(metadata: &MetadataMap, identity: PeerIdentity) -> bool {
    let same_cluster = id(metadata, CLUSTER).is_ok_and(|cluster| cluster == identity.cluster_id);
    let for_us = id(metadata, TO).is_ok_and(|to| to == identity.member_id);
    let expected = optional_id(metadata, TO_INCARNATION).unwrap_or(0);
    same_cluster && for_us && expected != 0 && expected != identity.incarnation
}

/// What a caller that is not admitted is answered.
pub(super) fn refusal(member: u64, from: u64, barred: &Barred) -> Status {
    let reason = &barred.reason;
    let mut status =
        Status::permission_denied(format!("member {member:x} does not admit member {from:x}: {reason}"));
    if let Some(how) = barred.disowned {
        let word = match how {
            Disowned::Removed => "removed",
            Disowned::Wiped => "wiped",
        };
        status.metadata_mut().insert(DISOWNED, MetadataValue::from_static(word));
    }
    status
}

/// How a refusal says that this member has ceased to belong to the cluster, if it does.
pub(super) fn disowned(status: &Status) -> Option<Disowned> {
    match status.metadata().get(DISOWNED)?.to_str().ok()? {
        "removed" => Some(Disowned::Removed),
        "wiped" => Some(Disowned::Wiped),
        _ => None,
    }
}

/// Who a request claims to be from, unchecked; 0 where it does not say.
pub(super) fn claimed(metadata: &MetadataMap) -> u64 {
    id(metadata, FROM).unwrap_or(0)
}

/// Whether a status says that the peer does not want this member's stream, rather than that it could not be reached.
pub(super) fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented
    )
}

/// What a status says, with its cause where this side noticed the failure.
pub(super) fn status_text(status: &Status) -> String {
    if is_refusal(status) { one_line(status.message()) } else { text(status) }
}

fn hex(id: u64) -> MetadataValue<Ascii> {
    format!("{id:x}").parse().expect("hex digits are visible ASCII")
}

/// 0 where there is none.
fn optional_id(metadata: &MetadataMap, key: &'static str) -> Result<u64, Status> {
    if metadata.contains_key(key) { id(metadata, key) } else { Ok(0) }
}

fn id(metadata: &MetadataMap, key: &'static str) -> Result<u64, Status> {
    let text = metadata.get(key).and_then(|value| value.to_str().ok());
    let text = text.ok_or_else(|| Status::invalid_argument(format!("metadata {key} is missing")))?;
    // `from_str_radix` alone would take a sign.
    let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = if hex { u64::from_str_radix(text, 16).ok() } else { None };
    id.ok_or_else(|| Status::invalid_argument(format!("metadata {key} is not a hexadecimal id")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: PeerIdentity = PeerIdentity { cluster_id: 0xc1, member_id: 0xb, incarnation: 0x1b };

    fn stamped(cluster_id: u64, from: u64, to: u64) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        stamp(&mut metadata, PeerIdentity { cluster_id, member_id: from, incarnation: 0x1a }, to, 0);
        metadata
    }

    #[test]
    fn a_stamp_is_read_back() {
        let metadata = stamped(0xc1, u64::MAX, 0xb);
        let caller = check(&metadata, HERE, |_, _| Ok(Known::AsMember)).unwrap();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (urls, known) = (Vec::new(), Known::AsMember);
        assert_eq!(caller, Caller { member: u64::MAX, incarnation: 0x1a, version, urls, known });
    }

    #[test]
    fn who_is_not_known_has_to_say_where_it_is_reached() {
        let mut metadata = stamped(0xc1, 0xa, 0xb);
        let guest = |_, _| Ok(Known::BySelf);
        let status = check(&metadata, HERE, guest).unwrap_err();
        assert!(is_refusal(&status) && disowned(&status).is_none(), "{status}");
        let own = ["http://a:7001".to_owned(), "http://[::1]:7001".to_owned()];
        stamp_urls(&mut metadata, &own);
        assert_eq!(check(&metadata, HERE, guest).unwrap().urls, own);
        stamp_urls(&mut metadata, &vec!["http://h:1".to_owned(); 2 * URLS_MAX]);
        assert_eq!(check(&metadata, HERE, guest).unwrap().urls.len(), URLS_MAX);
        stamp_urls(&mut metadata, &vec!["x".repeat(URLS_BYTES_MAX / 3); URLS_MAX]);
        assert_eq!(check(&metadata, HERE, guest).unwrap().urls.len(), 2);
        metadata.insert(URLS, "x".repeat(URLS_BYTES_MAX + 1).parse().unwrap());
        assert!(check(&metadata, HERE, guest).is_err());
    }

    #[test]
    fn a_member_that_is_known_with_other_data_is_told_so() {
        let mut metadata = stamped(0xc1, 0xa, 0xb);
        for (expected, fits) in [(0x1b, true), (0x1c, false)] {
            metadata.insert(TO_INCARNATION, hex(expected));
            assert_eq!(check(&metadata, HERE, |_, _| Ok(Known::AsMember)).is_ok(), fits);
            assert_eq!(knows_another(&metadata, HERE), !fits);
        }
        metadata.insert(TO, hex(0xd));
        assert!(!knows_another(&metadata, HERE), "that was meant for somebody else");
    }

    #[test]
    fn a_disowned_member_can_tell_it_from_the_refusal() {
        for how in [Disowned::Removed, Disowned::Wiped] {
            let barred = Barred { reason: "so".into(), disowned: Some(how) };
            let status = check(&stamped(0xc1, 0xa, 0xb), HERE, |_, _| Err(barred)).unwrap_err();
            assert_eq!(disowned(&status), Some(how));
        }
        assert_eq!(disowned(&Status::permission_denied("no")), None);
    }

    type Admits = fn(u64, u64) -> Result<Known, Barred>;

    #[test]
    fn refusals_name_both_sides() {
        let refuse =
            |from: u64, _: u64| Err(Barred { reason: format!("{from:x} was removed"), disowned: None });
        let table: [(MetadataMap, Admits, Code, &[&str]); 4] = [
            (
                stamped(0xc2, 0xa, 0xb),
                |_, _| Ok(Known::AsMember),
                Code::FailedPrecondition,
                &["cluster c1", "cluster c2"],
            ),
            (
                stamped(0xc1, 0xa, 0xd),
                |_, _| Ok(Known::AsMember),
                Code::FailedPrecondition,
                &["member d", "member b"],
            ),
            (stamped(0xc1, 0xb, 0xb), |_, _| Ok(Known::AsMember), Code::FailedPrecondition, &["member b"]),
            (
                stamped(0xc1, 0xa, 0xb),
                refuse,
                Code::PermissionDenied,
                &["member a", "member b", "a was removed"],
            ),
        ];
        for (metadata, admits, code, texts) in table {
            let status = check(&metadata, HERE, admits).unwrap_err();
            assert_eq!(status.code(), code);
            assert!(is_refusal(&status));
            for text in texts {
                assert!(status.message().contains(text), "{text:?} in {:?}", status.message());
            }
        }
    }

    #[test]
    fn ids_that_are_no_hex_are_refused() {
        for (key, value) in [(CLUSTER, "+c1"), (FROM, ""), (TO, "10000000000000000"), (FROM, "xyz")] {
            let mut metadata = stamped(0xc1, 0xa, 0xb);
            metadata.insert(key, value.parse().unwrap());
            let status = check(&metadata, HERE, |_, _| Ok(Known::AsMember)).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{key}: {value:?}");
            assert!(status.message().contains(key));
        }
        let mut metadata = stamped(0xc1, 0xa, 0xb);
        metadata.remove(TO);
        assert_eq!(
            check(&metadata, HERE, |_, _| Ok(Known::AsMember)).unwrap_err().code(),
            Code::InvalidArgument
        );
    }
}
