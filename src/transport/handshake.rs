//! Who speaks to whom: the metadata that opens every stream between members, and the check of it.
//!
//! The check comes before any frame. A member that was set up with another cluster's data, an address that now belongs
//! to another member, or a member that was removed is told so in one line, which names both sides.

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::PeerIdentity;

const CLUSTER: &str = "quorate-cluster-id";
const FROM: &str = "quorate-from";
const TO: &str = "quorate-to";
const VERSION: &str = "quorate-version";

/// Longest version text that is kept.
const VERSION_BYTES_MAX: usize = 64;

/// Says in a request's metadata who sends it to whom.
pub(super) fn stamp(metadata: &mut MetadataMap, identity: PeerIdentity, to: u64) {
    metadata.insert(CLUSTER, hex(identity.cluster_id));
    metadata.insert(FROM, hex(identity.member_id));
    metadata.insert(TO, hex(to));
    metadata.insert(VERSION, MetadataValue::from_static(env!("CARGO_PKG_VERSION")));
}

/// The member that sent a request, if the request is meant for this member and `admits` lets it in; and its version.
pub(super) fn check(
    metadata: &MetadataMap,
    identity: PeerIdentity,
    admits: impl FnOnce(u64) -> Result<(), String>,
) -> Result<(u64, String), Status> {
    let cluster = id(metadata, CLUSTER)?;
    let from = id(metadata, FROM)?;
    let to = id(metadata, TO)?;
    let PeerIdentity { cluster_id, member_id } = identity;
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
    admits(from).map_err(|reason| {
        Status::permission_denied(format!("member {member_id:x} does not admit member {from:x}: {reason}"))
    })?;
    let version = metadata.get(VERSION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Ok((from, version.chars().take(VERSION_BYTES_MAX).collect()))
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

fn hex(id: u64) -> MetadataValue<Ascii> {
    format!("{id:x}").parse().expect("hex digits are visible ASCII")
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

    const HERE: PeerIdentity = PeerIdentity { cluster_id: 0xc1, member_id: 0xb };

    fn stamped(cluster_id: u64, from: u64, to: u64) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        stamp(&mut metadata, PeerIdentity { cluster_id, member_id: from }, to);
        metadata
    }

    #[test]
    fn a_stamp_is_read_back() {
        let metadata = stamped(0xc1, u64::MAX, 0xb);
        let (from, version) = check(&metadata, HERE, |_| Ok(())).unwrap();
        assert_eq!((from, version.as_str()), (u64::MAX, env!("CARGO_PKG_VERSION")));
    }

    type Admits = fn(u64) -> Result<(), String>;

    #[test]
    fn refusals_name_both_sides() {
        let refuse = |from: u64| Err(format!("{from:x} was removed"));
        let table: [(MetadataMap, Admits, Code, &[&str]); 4] = [
            (stamped(0xc2, 0xa, 0xb), |_| Ok(()), Code::FailedPrecondition, &["cluster c1", "cluster c2"]),
            (stamped(0xc1, 0xa, 0xd), |_| Ok(()), Code::FailedPrecondition, &["member d", "member b"]),
            (stamped(0xc1, 0xb, 0xb), |_| Ok(()), Code::FailedPrecondition, &["member b"]),
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
            let status = check(&metadata, HERE, |_| Ok(())).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{key}: {value:?}");
            assert!(status.message().contains(key));
        }
        let mut metadata = stamped(0xc1, 0xa, 0xb);
        metadata.remove(TO);
        assert_eq!(check(&metadata, HERE, |_| Ok(())).unwrap_err().code(), Code::InvalidArgument);
    }
}
