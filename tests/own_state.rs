//! Reads of a member's own state (`quorum=false`) while it is written to: at once or asked for, never behind an answer.
#![allow(clippy::unwrap_used)] // helpers of tests

use quorate::store::Key;
use quorate::{Backend as _, Config, Consistency, Node};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn own_value(handle: &quorate::Handle, key: &str) -> (u64, String) {
    let read = tokio::time::timeout(Duration::from_secs(20), handle.read(Consistency::Local));
    let view = read.await.expect("the state never came").unwrap();
    assert_eq!(view.store.index(), view.summary.index);
    let node = view.store.get(&Key::parse(key.as_bytes())).unwrap();
    (view.summary.index, String::from_utf8(node.value.unwrap().to_vec()).unwrap())
}

/// Writers who read what they have just written, with and without somebody who reads all the time.
#[tokio::test(flavor = "multi_thread")]
async fn own_reads_see_own_writes_and_go_forward() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: Some(dir.path().join("m")), ..Config::default() };
    config
        .set_addresses(&format!("127.0.0.1:{}", free_port()), &format!("127.0.0.1:{}", free_port()))
        .unwrap();
    let node = Node::start(config).await.unwrap();
    node.ready().await.unwrap();
    for busy in [false, true] {
        let stop = Arc::new(AtomicBool::new(false));
        let (handle, stopped) = (node.handle(), Arc::clone(&stop));
        let reader = tokio::spawn(async move {
            let mut last = 0;
            while busy && !stopped.load(Ordering::Relaxed) {
                let seen = handle.read(Consistency::Local).await.unwrap().summary.index;
                assert!(seen >= last, "back from {last} to {seen}");
                last = seen;
                tokio::task::yield_now().await;
            }
        });
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let handle = node.handle();
                tokio::spawn(async move {
                    let key = format!("/writer{writer}");
                    for turn in 0..200 {
                        let event = handle.set(&key, turn.to_string(), None).await.unwrap();
                        assert!(handle.summary().index >= event.index);
                        // Not after each: what nobody looks at is taken back.
                        if turn % 3 != 0 {
                            let (index, value) = own_value(&handle, &key).await;
                            assert!(index >= event.index);
                            assert_eq!(value, turn.to_string());
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        reader.await.unwrap();
    }
    node.shutdown().await.unwrap();
}
