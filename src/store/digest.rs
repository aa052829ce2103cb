//! The rolling digest: two members that applied the same events have the same one.

use super::Event;
use xxhash_rust::xxh3::xxh3_64;

/// The digest after `event`, given the one before it.
///
/// Every field is hashed at a fixed place or by its own hash, so that no two events run together. Members of different
/// versions compare digests: the formula may never change.
pub(super) fn after(digest: u64, event: &Event) -> u64 {
    let node = &event.node;
    // `None` has to differ from every value, an empty one included.
    let value = node.value.as_ref().map_or((0, 0), |value| (1, xxh3_64(value)));
    let deadline = node.deadline.map_or((0, 0), |deadline| (1, deadline.0));
    let before = event.prev_node.as_ref().map_or(0, |node| node.modified);
    let fields = [
        digest,
        event.index,
        event.time.0,
        event.action as u64,
        u64::from(event.refresh),
        xxh3_64(node.key.as_bytes()),
        value.0,
        value.1,
        u64::from(node.dir),
        deadline.0,
        deadline.1,
        node.created,
        node.modified,
        before,
    ];
    let mut bytes = [0; 14 * size_of::<u64>()];
    for (place, field) in bytes.chunks_exact_mut(size_of::<u64>()).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    xxh3_64(&bytes)
}
