//! The members of a cluster as real processes, each on a host of its own, and how they are killed, stopped, lied to.

use crate::hosts;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Answers questions for the wall clock from a file; comes with Debian's libfaketime.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

pub struct Member {
    pub host: usize,
    dir: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
    paused: bool,
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
            let member =
                Self { host, dir: dir.to_owned(), arguments, process: None, paused: false, starts: 0 };
            member.set_wall_clock(0);
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
        assert!(Path::new(FAKETIME).exists(), "{FAKETIME} is missing: Debian's libfaketime");
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
        command.arg("env").arg(format!("LD_PRELOAD={FAKETIME}"));
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

    pub fn forget_everything(&self) {
        let _ = fs::remove_dir_all(self.dir.join(format!("{}.data", self.name())));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
