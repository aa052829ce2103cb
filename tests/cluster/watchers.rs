//! Watchers of everything, which lose their connections and go on from the index after the last event that they got.

use crate::history::Told;
use crate::wire::Wire;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An event comes within this time, or the connection may be dead.
const SILENCE: Duration = Duration::from_secs(4);

/// A stream from one member.
pub async fn stream(wire: Wire, member: usize, stop: Arc<AtomicBool>) {
    let name = format!("stream@m{}", member + 1);
    let mut next = 1;
    while !stop.load(Ordering::Relaxed) {
        if let Some(mut answer) = wire.watch(member, next, "stream=true", SILENCE).await {
            let mut rest = Vec::new();
            while let Ok(Ok(Some(chunk))) = tokio::time::timeout(SILENCE, answer.chunk()).await {
                rest.extend_from_slice(&chunk);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    next = told(&wire, &name, next, &line);
                }
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One event after the other, each from the next member in turn.
pub async fn roaming(wire: Wire, stop: Arc<AtomicBool>) {
    let mut next = 1;
    let mut member = 0;
    while !stop.load(Ordering::Relaxed) {
        member = (member + 1) % wire.size;
        if let Some(answer) = wire.watch(member, next, "", Duration::from_secs(1)).await
            && let Ok(Ok(line)) = tokio::time::timeout(Duration::from_secs(1), answer.bytes()).await
            && !line.is_empty()
        {
            next = told(&wire, "roaming", next, &line);
        }
    }
}

/// Notes an event, and gives the index to go on from.
fn told(wire: &Wire, name: &str, next: u64, line: &[u8]) -> u64 {
    let history = &wire.history;
    let Ok(mut event) = serde_json::from_slice::<Value>(line) else {
        history.violation(format!("{name} was told {:?}", String::from_utf8_lossy(line)));
        return next;
    };
    let Some(index) = event["node"]["modifiedIndex"].as_u64() else {
        history.violation(format!("{name} was told {event} instead of an event from {next}"));
        return next;
    };
    if index < next {
        history.violation(format!("{name} was told of {index} after it asked for {next}: {event}"));
    }
    // What is left of a time to live depends on when it is asked for.
    for node in ["node", "prevNode"] {
        if let Some(node) = event.get_mut(node).and_then(Value::as_object_mut) {
            node.remove("ttl");
            node.remove("expiration");
        }
    }
    history.told(name, Told { index, at: history.now(), event });
    index + 1
}
