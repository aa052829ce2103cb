//! A slow road between the hosts: packets that are sent over it come late, in another order, or twice.
//!
//! The kernels that this runs on have no `netem`, so the road leads through this process. A rule on the bridge's side of a
//! host's link sends some or all of what the host sends to a port of the bridge behind which a macvtap device is; what is
//! read from that is written back to it later, and the bridge delivers it as if it had come from the host. Checksums and
//! segments that the sender left to its device travel in the header before each packet, which is given back as it came.
//!
//! The port neither learns addresses nor gets what the bridge floods: without the rules it is as if it were not there.

use crate::hosts::{run, try_to};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// A packet with the headers before it; those that the sender left for its device to cut are large.
const PACKET_MAX: usize = 70_000;

/// Packets on the road; more are lost, as in any queue.
const QUEUE_MAX: usize = 20_000;

/// What the road does to a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Road {
    pub delay: Duration,
    /// Up to so much more, drawn for each packet: they overtake each other.
    pub jitter: Duration,
    /// Of a hundred, so many come twice.
    pub repeated: u32,
}

pub struct Detour {
    port: String,
    road: Arc<Mutex<Road>>,
    packets: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Detour {
    /// At the bridge of the hosts with this tag. Within a runtime.
    pub fn new(tag: &str) -> Self {
        let (port, other, tap) = (format!("{tag}d"), format!("{tag}dp"), format!("{tag}dt"));
        run("ip", &format!("link add {port} type veth peer name {other}"));
        run("ip", &format!("link set {port} master {tag}br"));
        let quiet = "learning off flood off mcast_flood off bcast_flood off";
        run("ip", &format!("link set {port} type bridge_slave {quiet}"));
        run("ip", &format!("link set {port} up"));
        run("ip", &format!("link set {other} up"));
        run("ip", &format!("link add link {other} name {tap} type macvtap mode passthru"));
        run("ip", &format!("link set {tap} up"));
        #[expect(
            deprecated,
            reason = "unsound only for types whose descriptor may change; that of a file does not"
        )]
        let device = AsyncFd::new(open(&tap)).expect("a device that can be waited for");
        let (road, packets) = <(Arc<Mutex<Road>>, Arc<AtomicU64>)>::default();
        let task = tokio::spawn(carry(device, Arc::clone(&road), Arc::clone(&packets)));
        Self { port, road, packets, task }
    }

    /// The bridge's port that leads to it.
    pub fn port(&self) -> &str {
        &self.port
    }

    pub fn set(&self, road: Road) {
        *self.road.lock().expect("no panic") = road;
    }

    pub fn road(&self) -> Road {
        *self.road.lock().expect("no panic")
    }

    /// How many packets have taken it.
    pub fn packets(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.packets)
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens the device of a macvtap link; there may be nobody who makes a file for it in /dev.
fn open(tap: &str) -> File {
    let index = std::fs::read_to_string(format!("/sys/class/net/{tap}/ifindex")).expect("the link's number");
    let name = format!("tap{}", index.trim());
    let numbers = std::fs::read_to_string(format!("/sys/class/net/{tap}/{name}/dev")).expect("its device");
    let path = format!("/dev/{name}");
    if !Path::new(&path).exists() {
        try_to("mknod", &format!("-m 600 {path} c {}", numbers.trim().replace(':', " ")));
    }
    let mut options = OpenOptions::new();
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    options.read(true).write(true).custom_flags(nonblocking);
    options.open(&path).unwrap_or_else(|error| panic!("{path}: {error} (needs root and macvtap)"))
}

async fn carry(device: AsyncFd<File>, road: Arc<Mutex<Road>>, packets: Arc<AtomicU64>) {
    let mut chance = ChaCha8Rng::seed_from_u64(0xde7);
    let mut queue: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
    let mut buffer = vec![0; PACKET_MAX];
    loop {
        let due = queue.keys().next().map(|(due, _)| *due);
        let far = Instant::now() + Duration::from_secs(60);
        tokio::select! {
            ready = device.readable() => {
                let Ok(mut ready) = ready else { return };
                // A device that is gone ends it.
                match ready.try_io(|device| device.get_ref().read(&mut buffer)) {
                    Ok(Ok(length)) => {
                        let road = *road.lock().expect("no panic");
                        let copies = 1 + u32::from(chance.random_range(0..100) < road.repeated);
                        for _ in 0..copies {
                            let number = packets.fetch_add(1, Ordering::Relaxed);
                            let jitter = road.jitter.mul_f64(chance.random_range(0.0..1.0));
                            if queue.len() < QUEUE_MAX {
                                let due = Instant::now() + road.delay + jitter;
                                queue.insert((due, number), buffer[..length].to_vec());
                            }
                        }
                    }
                    Ok(Err(_)) => return,
                    Err(_) => {}
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or(far)) => {}
        }
        while let Some(first) = queue.first_entry().filter(|first| first.key().0 <= Instant::now()) {
            // One that is not taken is lost.
            let _ = device.get_ref().write(&first.remove());
        }
    }
}
