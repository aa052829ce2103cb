//! Members as processes of this same program, each bound to the life of the demonstration.
//!
//! A member runs as `quorate -name ... -data-dir ...`, what one would type. It is in a process group of its own, so
//! that Ctrl-C ends the show and not its actors, and it is killed with its [`Process`]. Should the demonstration itself
//! be killed, the kernel kills the members: each asks for that before it turns into the member ([`become_member`]).

use super::Failure;
use super::place::Ports;
use rustix::process::{Signal, getppid, kill_process, set_parent_process_death_signal};
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a member may take to stop when told to.
const STOP: Duration = Duration::from_secs(5);

/// One member, running or not.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) ports: Ports,
    discovery: Option<String>,
    dir: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A member whose data and log are in `dir`; it is not started.
    pub(super) fn new(name: &str, ports: Ports, discovery: Option<String>, dir: &Path) -> Self {
        Self { name: name.to_owned(), ports, discovery, dir: dir.to_owned(), child: None }
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// The process id while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn args(&self) -> Vec<String> {
        let data_dir = self.dir.join(format!("{}.etcd", self.name)).display().to_string();
        let (client, peer) = (self.ports.client_url(), self.ports.peer_url());
        let mut args = vec!["-name", &self.name, "-listen-client-urls", &client, "-listen-peer-urls", &peer];
        if let Some(url) = &self.discovery {
            args.extend(["-discovery", url]);
        }
        args.extend(["-data-dir", &data_dir]);
        args.into_iter().map(str::to_owned).collect()
    }

    /// Starts it, for the first time or again with the data that it has.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure(format!("cannot start {}: {error}", self.name));
        let program = std::env::current_exe().map_err(failed)?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["demo", "--member-of", &std::process::id().to_string(), "--"]).args(self.args());
        // Settings of another etcd, and a systemd that waits for the demonstration, are none of the member's business.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") || name == "NOTIFY_SOCKET" {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.child = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// SIGKILL: what a power cut is to a process.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(drop).map_err(|error| Failure(format!("cannot kill {}: {error}", self.name)))
    }

    /// How it ended, if it has without being asked to.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// SIGTERM, to be followed by [`Process::finish`].
    pub(super) fn terminate(&self) {
        let pid =
            self.child.as_ref().and_then(|child| rustix::process::Pid::from_raw(child.id().cast_signed()));
        if let Some(pid) = pid {
            // It may have ended by itself; `finish` sees to it in any case.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until it has stopped, and kills it if that takes too long.
    pub(super) async fn finish(&mut self) {
        let Some(child) = self.child.as_mut() else { return };
        let until = Instant::now() + STOP;
        while Instant::now() < until {
            if !matches!(child.try_wait(), Ok(None)) {
                self.child = None;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = self.kill();
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self, lines: usize) -> Vec<String> {
        let text =
            read_end(&self.log_path()).unwrap_or_else(|error| format!("(its log cannot be read: {error})"));
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// At most the last 64 KiB of a file.
fn read_end(path: &Path) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    const MOST: u64 = 64 << 10;
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(MOST);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Turns this process into a member that does not outlive the process `parent`.
pub(super) fn become_member(parent: i32, args: &[String]) -> ExitCode {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("quorate: this member would outlive its demonstration: {error}");
    }
    // The parent may have died before it was asked for.
    if getppid().map(rustix::process::Pid::as_raw_pid) != Some(parent) {
        eprintln!("quorate: the demonstration has ended");
        return ExitCode::FAILURE;
    }
    let error = match std::env::current_exe() {
        Ok(program) => Command::new(program).args(args).exec(),
        Err(error) => error,
    };
    eprintln!("quorate: cannot run a member: {error}");
    ExitCode::FAILURE
}
