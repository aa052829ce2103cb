//! What can be tuned about the transport. The defaults are for members in one data centre or region.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Limits and times of a [`Transport`](super::Transport).
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// How long one attempt to open a TCP connection may take, name resolution included.
    pub connect_timeout: Duration,
    /// How long a peer may take to answer a handshake.
    pub handshake_timeout: Duration,
    /// The pause after a first failed attempt, and the least time between two attempts.
    pub backoff_min: Duration,
    /// The pause that repeated failures grow to.
    pub backoff_max: Duration,
    /// How often a connection that is silent is pinged.
    pub ping_interval: Duration,
    /// How long a ping may remain unanswered before the connection counts as dead.
    pub ping_timeout: Duration,
    /// Bytes that may wait for a connected peer; what does not fit is dropped and the loss told.
    pub queue_bytes: usize,
    /// Bytes that may wait for a peer that is not connected; the oldest go first.
    pub offline_bytes: usize,
    /// How long a message may wait for a peer that is not connected: later it would say nothing new.
    pub offline_age: Duration,
    /// Waiting messages are merged until a frame has this many bytes. A message that is larger goes alone.
    pub frame_bytes: usize,
    /// The largest frame that is accepted, and so the largest message that can be sent.
    pub message_bytes: usize,
    /// Snapshot records are gathered into chunks of at most this many bytes. A record that is larger goes alone.
    pub chunk_bytes: usize,
    /// The largest snapshot that is accepted, in bytes of its encoded records.
    pub snapshot_bytes: u64,
    /// How long a snapshot may make no progress before it is given up, by either side; over broken connections, too.
    pub snapshot_stall: Duration,
    /// How long a peer may take to make use of a snapshot that it has.
    pub snapshot_use: Duration,
    /// How many bytes of one stream may be on their way unread (HTTP/2 flow control).
    pub stream_window: u32,
    /// How many connections are served at a time, all listeners together.
    pub connections: usize,
    /// How long a client may take to say which protocol it speaks, or to send a request's head.
    pub head_timeout: Duration,
    /// How long `shutdown` waits for what is queued to be sent and for connections to close.
    pub shutdown_deadline: Duration,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            ping_interval: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(3),
            queue_bytes: 64 * MIB,
            offline_bytes: 4 * MIB,
            offline_age: Duration::from_secs(1),
            frame_bytes: MIB,
            message_bytes: 64 * MIB,
            chunk_bytes: 256 * KIB,
            snapshot_bytes: 8 << 30,
            snapshot_stall: Duration::from_secs(30),
            snapshot_use: Duration::from_secs(300),
            stream_window: 4 * MIB as u32,
            connections: 512,
            head_timeout: Duration::from_secs(5),
            shutdown_deadline: Duration::from_secs(1),
        }
    }
}
