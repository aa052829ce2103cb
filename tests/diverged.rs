//! A member whose state differs from its leader's: it raises an alarm, serves nothing, and does not start again with it.
#![allow(clippy::unwrap_used)] // helpers of tests

use quorate::http::backend::Alarm;
use quorate::node::config::InitialMember;
use quorate::proto::state::record::Body;
use quorate::storage::{Checkpoints, DataDir};
use quorate::{Backend as _, BackendError, Config, Consistency, Node, StartError, Watch as _};
use std::path::Path;
use std::time::{Duration, Instant};

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn config(dir: &Path, number: usize, ports: &[(u16, u16)]) -> Config {
    let members = ports.iter().enumerate().map(|(n, (_, peer))| InitialMember {
        name: format!("m{n}"),
        peer_urls: vec![format!("http://127.0.0.1:{peer}").parse().unwrap()],
    });
    let (client, peer) = ports[number];
    let mut config = Config {
        name: format!("m{number}"),
        data_dir: Some(dir.join(format!("m{number}"))),
        initial_cluster: members.collect(),
        ..Config::default()
    };
    config.set_addresses(&format!("127.0.0.1:{client}"), &format!("127.0.0.1:{peer}")).unwrap();
    config
}

/// Makes the newest checkpoint one of a state that was never the cluster's, whole in every other respect.
fn falsify(data_dir: &Path) {
    let dir = DataDir::open(data_dir).unwrap();
    let (at, mut records) = dir.open_storage().unwrap().recovered.checkpoint.unwrap();
    let Some(Body::Head(head)) = &mut records[0].body else { panic!("no head") };
    head.digest ^= 1;
    let state = data_dir.join("member/state");
    std::fs::remove_dir_all(&state).unwrap();
    Checkpoints::open(&state).unwrap().save(at, records.into_iter()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_differs_raises_an_alarm_and_serves_nothing_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let ports: Vec<_> = (0..3).map(|_| (free_port(), free_port())).collect();
    let start = |number| Node::start(config(dir.path(), number, &ports));
    let (first, second, third) = tokio::try_join!(start(0), start(1), start(2)).unwrap();
    for node in [&first, &second, &third] {
        node.ready().await.unwrap();
    }
    first.handle().set("/k", "1", None).await.unwrap();
    third.shutdown().await.unwrap();
    falsify(&dir.path().join("m2"));

    let third = start(2).await.unwrap();
    let handle = third.handle();
    let mut watch = handle.watch_all("/", 0).unwrap();
    let begun = Instant::now();
    while !handle.status().alarms.contains(&Alarm::Corrupt) {
        assert!(begun.elapsed() < Duration::from_secs(30), "no alarm");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(handle.set("/k", "2", None).await.unwrap_err(), BackendError::Corrupt);
    assert_eq!(handle.read(Consistency::Local).await.unwrap_err(), BackendError::Corrupt);
    assert_eq!(handle.read(Consistency::Linearizable).await.unwrap_err(), BackendError::Corrupt);
    while watch.next().await.is_some() {}
    let mut metrics = String::new();
    handle.metrics(&mut metrics);
    assert!(metrics.contains("quorate_alarm{type=\"CORRUPT\"} 1"), "{metrics}");
    first.handle().set("/k", "3", None).await.expect("the others go on");
    // It does not count for a quorum: with one of the others gone there is none.
    second.shutdown().await.unwrap();
    let lonely = tokio::time::timeout(Duration::from_secs(2), first.handle().set("/k", "4", None)).await;
    assert!(
        !matches!(lonely, Ok(Ok(_))),
        "a write was acknowledged with the vote of the member that differs"
    );

    third.shutdown().await.unwrap();
    let refused = start(2).await.err().expect("it must not start again");
    assert!(matches!(refused, StartError::Diverged { .. }), "{refused}");
    assert!(refused.to_string().contains("join anew"), "{refused}");
    first.shutdown().await.unwrap();
}
