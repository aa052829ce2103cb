//! A [`Disk`] that is mounted, by mount(8) and with nothing but root and /dev/fuse.

use crate::disk::Disk;
use crate::fuse::Server;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// That serve one file system.
const THREADS: usize = 4;

/// What the mounted file system does beside what it is told.
#[derive(Debug)]
pub struct Behaviour {
    /// The power is off: every request fails.
    pub off: bool,
    /// The power goes when the disk has seen this many operations.
    pub off_at: Option<u64>,
    /// A sync takes up to this long.
    pub sync_us: u64,
    /// Bytes that it holds.
    pub capacity: u64,
}

/// What the threads that serve it and the test have in common.
pub struct Shared {
    pub disk: Mutex<Disk>,
    pub behaviour: Mutex<Behaviour>,
}

/// A mounted disk; unmounted when dropped.
pub struct Mount {
    shared: Arc<Shared>,
    path: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl Mount {
    /// Mounts `disk` on the directory `path`, which is made.
    pub fn new(path: &Path, disk: Disk) -> Mount {
        std::fs::create_dir_all(path).unwrap();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap_or_else(|e| {
            panic!("these tests need FUSE and root: /dev/fuse: {e}");
        });
        let options = "fd=0,rootmode=40000,user_id=0,group_id=0,default_permissions";
        // mount(8) inherits the device as its standard input; `-i` keeps it from looking for a helper.
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", options, &source()])
            .arg(path)
            .stdin(Stdio::from(device.try_clone().unwrap()))
            .output()
            .unwrap();
        assert!(
            mounted.status.success(),
            "these tests need FUSE and root: mount: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        let behaviour = Behaviour { off: false, off_at: None, sync_us: 0, capacity: 4 << 30 };
        let shared = Arc::new(Shared { disk: Mutex::new(disk), behaviour: Mutex::new(behaviour) });
        let threads = (0..THREADS)
            .map(|number| {
                let server = Server {
                    device: device.try_clone().unwrap(),
                    shared: Arc::clone(&shared),
                    rng: ChaCha8Rng::seed_from_u64(number as u64),
                };
                std::thread::spawn(move || server.run())
            })
            .collect();
        Mount { shared, path: path.to_path_buf(), threads }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.shared.disk.lock().unwrap()
    }

    /// Requests are answered again.
    pub fn power_is_back(&self) {
        let mut behaviour = self.behaviour();
        (behaviour.off, behaviour.off_at) = (false, None);
    }

    pub fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.shared.behaviour.lock().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Names the process, so that what a killed one left mounted can be told from what another uses.
fn source() -> String {
    format!("quorate-power-{}", std::process::id())
}

/// Unmounts what earlier runs that were killed left behind.
pub fn unmount_abandoned() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(source), Some(path)) = (words.next(), words.next()) else { continue };
        let Some(pid) = source.strip_prefix("quorate-power-") else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = Command::new("umount").args(["-l", path]).status();
        }
    }
}
