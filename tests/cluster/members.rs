//! The members of a cluster as real processes, each on a host of its own, and how they are killed, stopped, lied to.

use crate::hosts;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Answers questions for the wall clock from a file; comes with Debian's libfaketime.
fn faketime() -> String {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH)
}

/// Of each member's own file system, which can be filled.
const DISK_MIB: u64 = 128;

pub struct Member {
    pub host: usize,
    dir: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
    paused: bool,
    /// It may lose what it wrote since it started.
    pub unsynced: bool,
    /// Something else has taken what was free of its disk, or nearly.
    pub disk_full: bool,
    /// How often it was started.
    pub starts: u64,
}

impl Member {
    pub fn cluster(size: usize, dir: &Path) -> Vec<Self> {
        let peer = |host: usize| format!("http://{}:7001", hosts::address(host));
        let initial: Vec<String> = (0..size).map(|host| format!("m{}={}", host + 1, peer(host))).collect();
        let member = |host: usize| {
            let client = format!("http://{}:4001", hosts::address(host));
            let arguments = [
                ("name", format!("m{}", host + 1)),
                ("listen-client-urls", client.clone()),
                ("advertise-client-urls", client),
                ("listen-peer-urls", peer(host)),
                ("initial-advertise-peer-urls", peer(host)),
                ("initial-cluster", initial.join(",")),
                ("initial-cluster-state", "new".to_owned()),
                ("initial-cluster-token", "faults".to_owned()),
                ("data-dir", dir.join(format!("m{}.data", host + 1)).display().to_string()),
                // Small, so that members also recover from checkpoints and from each other's snapshots.
                ("snapshot-count", "300".to_owned()),
            ];
            let arguments = arguments.into_iter().map(|(name, value)| format!("--{name}={value}")).collect();
            let member = Self {
                host,
                dir: dir.to_owned(),
                arguments,
                process: None,
                paused: false,
                unsynced: false,
                disk_full: false,
                starts: 0,
            };
            member.set_wall_clock(0);
            member.mount_disk();
            member
        };
        (0..size).map(member).collect()
    }

    pub fn name(&self) -> String {
        format!("m{}", self.host + 1)
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name()))
    }

    fn clock(&self) -> PathBuf {
        self.dir.join(format!("{}.clock", self.name()))
    }

    /// So many seconds from the true time, from one second later at the latest.
    pub fn set_wall_clock(&self, seconds: i64) {
        fs::write(self.clock(), format!("{seconds:+}\n")).expect("the clock is written");
    }

    /// Starts it, on a machine whose monotonic clock says something else than before, as after a reboot.
    pub fn start(&mut self, uptime: u32) {
        assert!(self.process.is_none(), "{} runs", self.name());
        let faketime = faketime();
        assert!(Path::new(&faketime).exists(), "{faketime} is missing: Debian's libfaketime");
        self.remember_disk();
        let log = File::options().create(true).append(true).open(self.log()).expect("the log opens");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &hosts::name(self.host)]);
        command.args([
            "unshare",
            "--time",
            "--monotonic",
            &uptime.to_string(),
            "--boottime",
            &uptime.to_string(),
        ]);
        command.arg("env").arg(format!("LD_PRELOAD={faketime}"));
        command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.clock().display()));
        command.args(["FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1"]);
        let program =
            std::env::var_os("CLUSTER_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_quorate").into());
        command.arg(program).args(&self.arguments).current_dir(&self.dir).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD")) {
            command.env_remove(name);
        }
        // Each of these programs becomes the next: the child is the member.
        self.process = Some(command.spawn().expect("ip starts"));
        self.starts += 1;
    }

    fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// kill -9: no chance to say goodbye or to write anything.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
            if self.unsynced && self.copy().exists() {
                copy(&self.copy(), &self.data());
            }
        }
        self.paused = false;
    }

    /// As a machine that stands still: its sockets stay open, and its clock goes on.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.paused = true;
    }

    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.paused = false;
    }

    pub fn runs(&self) -> bool {
        self.process.is_some() && !self.paused
    }

    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// It ended although nobody killed it: how.
    pub fn ended_by_itself(&mut self) -> Option<String> {
        let status = self.process.as_mut()?.try_wait().ok().flatten()?;
        Some(format!("{} ended by itself: {status}", self.name()))
    }

    /// An ext4 in a file: a real disk, with an end.
    fn mount_disk(&self) {
        let (data, image) = (self.data(), self.dir.join(format!("{}.disk", self.name())));
        fs::create_dir_all(&data).expect("the data directory");
        let file = File::create(&image).expect("a file for the disk");
        file.set_len(DISK_MIB << 20).expect("a file that is mostly holes");
        let made = Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4 (Debian's e2fsprogs)");
        let mounted = Command::new("mount").args(["-o", "loop"]).args([&image, &data]).status();
        assert!(mounted.is_ok_and(|status| status.success()), "mount {} (needs root)", data.display());
        empty(&data);
    }

    /// In the member's place, so that it is full of something while it is down too; not in its own directory, whose odd
    /// files it removes.
    fn ballast(&self) -> PathBuf {
        self.data().join("ballast")
    }

    /// Something else takes its disk, but for so many bytes.
    pub fn fill_disk(&mut self, leave: u64) {
        // A place that is not empty is not taken for a new member's.
        if !self.data().join("member").exists() {
            return;
        }
        let Ok(mut file) = File::options().create(true).append(true).open(self.ballast()) else { return };
        self.disk_full = true;
        let chunk = vec![b'x'; 1 << 16];
        while free(&self.data()) > leave {
            let count = (free(&self.data()) - leave).min(chunk.len() as u64);
            if file.write_all(&chunk[..usize::try_from(count).unwrap_or(0)]).is_err() {
                return; // to the last byte
            }
        }
    }

    pub fn empty_disk(&mut self) {
        let _ = fs::remove_file(self.ballast());
        self.disk_full = false;
    }

    /// How long each of its threads has waited for a processor.
    pub fn waits(&self) -> HashMap<String, Duration> {
        let Some(child) = &self.process else { return HashMap::new() };
        let threads = fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten().flatten();
        let waited = |thread: fs::DirEntry| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let nanos = text.split(' ').nth(1)?.parse().ok()?;
            Some((thread.file_name().to_string_lossy().into_owned(), Duration::from_nanos(nanos)))
        };
        threads.filter_map(waited).collect()
    }

    /// What it comes back with, if it does not sync.
    pub fn remember_disk(&self) {
        if self.unsynced {
            copy(&self.data(), &self.copy());
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join(format!("{}.data", self.name()))
    }

    fn copy(&self) -> PathBuf {
        self.dir.join(format!("{}.copy", self.name()))
    }

    /// From now on it is a new member of a cluster that is there, with nothing on its disk.
    pub fn become_new(&mut self) {
        let _ = fs::remove_dir_all(self.copy());
        empty(&self.data());
        for argument in &mut self.arguments {
            if argument.starts_with("--initial-cluster-state=") {
                "--initial-cluster-state=existing".clone_into(argument);
            }
        }
    }
}

fn free(place: &Path) -> u64 {
    rustix::fs::statvfs(place).map_or(0, |stat| stat.f_bavail * stat.f_frsize)
}

/// Removes all that is in a directory, which may be where a file system begins.
fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        gone.expect("what is in a directory goes");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    empty(to);
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp -a {}", from.display());
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        let _ = Command::new("umount").arg("--lazy").arg(self.data()).status();
    }
}
