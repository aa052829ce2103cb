//! Members that are only known by what they say of themselves.

use super::super::peers::GUESTS_MAX;
use super::*;

fn knows_by_itself(host: &Member, ids: impl IntoIterator<Item = u64>) {
    lock(&host.recorder.guests).extend(ids);
}

/// Waits until a member's connection to another has ended.
async fn lost(member: &Member, to: u64) {
    let gone = async {
        while member.transport.peer_stats()[&to].connected_since.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the connection stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_answered_where_it_says_and_becomes_a_peer() {
    let (mut host, mut guest) = (Member::start(0xb).await, Member::start(0xa).await);
    knows_by_itself(&host, [0xa]);
    guest.knows(&[(0xb, &host)]);
    host.expect(Told::Connected(0xa)).await;
    guest.expect(Told::Connected(0xb)).await;
    assert!(host.transport.peer_stats().is_empty(), "nobody named it");
    guest.transport.send(0xb, raft([numbered(1)]));
    host.transport.send(0xa, raft([numbered(2)]));
    assert_eq!(host.raft(1).await.0, [numbered(1)]);
    assert_eq!(guest.raft(1).await.0, [numbered(2)]);

    // Other changes leave it alone; when it is named, its connections stay.
    host.transport.set_peers(BTreeMap::new());
    lock(&host.recorder.guests).clear();
    host.knows(&[(0xa, &guest)]);
    host.transport.send(0xa, raft([numbered(3)]));
    assert_eq!(guest.raft(1).await.0, [numbered(3)]);
    assert_eq!(host.transport.peer_stats()[&0xa].failures, 0);
    host.hears_nothing();
    guest.hears_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_turns_out_to_be_removed_is_none_any_more() {
    let (mut host, mut guest) = (Member::start(0xb).await, Member::start(0xa).await);
    knows_by_itself(&host, [0xa]);
    guest.knows(&[(0xb, &host)]);
    host.expect(Told::Connected(0xa)).await;
    lock(&host.recorder.barred).insert(0xa, "it was removed".to_owned());
    host.transport.set_peers(BTreeMap::new());
    guest.expect(Told::Disowned(0xb, Disowned::Removed)).await;
    guest.error(0xb, "it was removed").await;
    host.transport.send(0xa, raft([numbered(1)]));
    tokio::time::sleep(Duration::from_millis(50)).await;
    while let Ok(told) = guest.told.try_recv() {
        assert!(!matches!(told, Told::Frame(..)), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_are_few_and_the_oldest_goes() {
    let mut host = Member::start(0xb).await;
    let count = GUESTS_MAX as u64 + 1;
    knows_by_itself(&host, 0x10..0x10 + count);
    let mut guests = Vec::new();
    for id in 0x10..0x10 + count {
        // Who was sent away is to stay away while this is looked at.
        let config = TransportConfig {
            backoff_min: Duration::from_secs(60),
            backoff_max: Duration::from_secs(60),
            ..TransportConfig::default()
        };
        let guest = Member::start_with(CLUSTER, id, "127.0.0.1:0", config).await;
        guest.knows(&[(0xb, &host)]);
        host.expect(Told::Connected(id)).await;
        guests.push(guest);
    }
    lost(&guests[0], 0xb).await;
    guests[0].error(0xb, "too many call").await;
    host.transport.send(0x10, raft([numbered(1)]));
    for (guest, id) in guests.iter_mut().zip(0x10..).skip(1) {
        host.transport.send(id, raft([numbered(id)]));
        assert_eq!(guest.raft(1).await.0, [numbered(id)]);
    }
    while let Ok(told) = guests[0].told.try_recv() {
        assert!(!matches!(told, Told::Frame(..)), "{told:?}");
    }
}
