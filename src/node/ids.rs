//! The ids of members and clusters, computed as etcd computes them, so that the same bootstrap parameters name the
//! same member and the same cluster in both.
//!
//! Ids are derived, never drawn: every member of a new cluster computes every other's id from the bootstrap
//! parameters alone, and a member that is started again computes its own again.
//!
//! Pure. What it does not do: check that ids are distinct (that is bootstrap's and membership's business).

use sha1::{Digest, Sha1};
use std::time::SystemTime;

/// The id of a member that is part of a cluster from the beginning.
///
/// `token` is the cluster's token; for a cluster that was formed through a discovery service it is the whole
/// discovery URL. The order of `peer_urls` does not matter.
#[must_use]
pub fn member_id<U: AsRef<str>>(peer_urls: &[U], token: &str) -> u64 {
    hash(&[joined(peer_urls).as_bytes(), token.as_bytes()])
}

/// The id of a member that is added to a running cluster: the moment stands in for the token, so that a member removed
/// and added again under the same URLs is another member.
#[must_use]
pub fn added_member_id<U: AsRef<str>>(peer_urls: &[U], added: SystemTime) -> u64 {
    let seconds = added.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    hash(&[joined(peer_urls).as_bytes(), seconds.to_string().as_bytes()])
}

/// The id of the cluster that begins with these members, in any order.
#[must_use]
pub fn cluster_id(members: &[u64]) -> u64 {
    let mut ids = members.to_vec();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    hash(&[&bytes])
}

fn joined<U: AsRef<str>>(peer_urls: &[U]) -> String {
    let mut urls: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
    urls.sort_unstable();
    urls.concat()
}

/// The first eight bytes of the SHA-1 of the parts, as a big-endian number.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut sha = Sha1::new();
    for part in parts {
        sha.update(part);
    }
    sha.finalize().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Read from `/v2/members` and `X-Etcd-Cluster-Id` of real clusters started with these parameters.
    #[test]
    fn equal_those_of_a_real_etcd() {
        let one = member_id(&["http://127.0.0.1:45102"], "tok");
        assert_eq!(one, 0x2426_abd3_a14b_43ff);
        assert_eq!(cluster_id(&[one]), 0x9318_8b62_fb7e_b9c9);

        let two_urls = ["http://127.0.0.1:45112", "http://localhost:45112"];
        assert_eq!(member_id(&two_urls, "etcd-cluster"), 0x5d3e_7fff_9f78_7916);
        assert_eq!(cluster_id(&[0x5d3e_7fff_9f78_7916]), 0xf596_c69c_71f3_e7b1);

        let three =
            [45122, 45132, 45142].map(|port| member_id(&[format!("http://127.0.0.1:{port}")], "three"));
        assert_eq!(three, [0x7f4b_b2b6_30f4_f678, 0xd826_6bdd_0d98_bdbe, 0x6cb9_db54_e380_dc5b]);
        assert_eq!(cluster_id(&three), 0x8d9f_9bf0_7492_993c);
    }

    /// The answer of a real etcd to `POST /v2/members` in that second.
    #[test]
    fn of_an_added_member_depend_on_the_second() {
        let added = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_351_982_999);
        assert_eq!(added_member_id(&["http://127.0.0.1:45199"], added), 0x615d_2a34_248a_a514);
    }

    #[test]
    fn do_not_depend_on_order() {
        assert_eq!(
            member_id(&["http://a:1", "http://b:1"], "t"),
            member_id(&["http://b:1", "http://a:1"], "t")
        );
        assert_eq!(cluster_id(&[1, 2, 3]), cluster_id(&[3, 1, 2]));
        assert_ne!(cluster_id(&[1, 2, 3]), cluster_id(&[1, 2, 4]));
    }
}
