//! What the acts work with: the members' processes, the actors, and waiting for something to be seen.

use super::Failure;
use super::actors::Actors;
use super::api::Api;
use super::board::{Board, MemberSeen, State};
use super::place::Ports;
use super::process::Process;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Lines of each member's log that are shown when something went wrong.
const TAIL: usize = 12;

/// Processes, actors and board of one show. Everything ends when it is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) board: Arc<Board>,
    pub(super) api: Api,
    pub(super) members: Vec<Process>,
    pub(super) discovery: Option<Process>,
    pub(super) actors: Actors,
    pub(super) dir: PathBuf,
}

impl Stage {
    /// A stage on which nothing runs yet.
    pub(super) fn new(ports: &[Ports], dir: &Path, echo: bool) -> Result<Self, Failure> {
        let name = |i: usize| format!("m{}", i + 1);
        let seen = ports.iter().enumerate().map(|(i, ports)| MemberSeen {
            name: name(i),
            address: format!("127.0.0.1:{}", ports.client),
            pid: None,
            status: None,
        });
        let members = ports.iter().enumerate().map(|(i, ports)| Process::new(&name(i), *ports, None, dir));
        Ok(Self {
            board: Arc::new(Board::new(seen.collect(), echo)),
            api: Api::new(ports.iter().map(|ports| ports.client_url()))?,
            members: members.collect(),
            discovery: None,
            actors: Actors::default(),
            dir: dir.to_owned(),
        })
    }

    /// Starts a member.
    pub(super) fn start(&mut self, member: usize) -> Result<(), Failure> {
        let process = &mut self.members[member];
        process.start()?;
        self.board.state().members[member].pid = process.pid();
        Ok(())
    }

    /// Kills a member.
    pub(super) fn kill(&mut self, member: usize) -> Result<(), Failure> {
        self.members[member].kill()?;
        let mut state = self.board.state();
        state.members[member].pid = None;
        state.members[member].status = None;
        Ok(())
    }

    /// Waits until something is seen on the board.
    pub(super) async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut seen: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        loop {
            self.check()?;
            if let Some(found) = seen(&self.board.state()) {
                return Ok(found);
            }
            if began.elapsed() >= limit {
                return Err(Failure(format!("{what}: not within {} s", limit.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets time pass in which nothing may fail.
    pub(super) async fn pass(&mut self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether everybody who should be on the stage is.
    fn check(&mut self) -> Result<(), Failure> {
        if let Some(trouble) = self.board.state().trouble.take() {
            return Err(Failure(trouble));
        }
        if let Some(name) = self.actors.fallen() {
            return Err(Failure(format!("{name} has ended, which is a bug of the demonstration")));
        }
        for process in self.members.iter_mut().chain(&mut self.discovery) {
            if let Some(status) = process.ended() {
                return Err(Failure(format!("{} has ended by itself, with {status}", process.name)));
            }
        }
        Ok(())
    }

    /// The ends of the members' logs.
    pub(super) fn logs(&self) -> String {
        let tail = |process: &Process| {
            let lines: Vec<String> =
                process.log_tail(TAIL).iter().map(|line| format!("  {line}\n")).collect();
            format!("\n{}:\n{}", process.log_path().display(), lines.concat())
        };
        let all = self.members.iter().chain(&self.discovery);
        all.filter(|process| process.log_path().exists()).map(tail).collect::<Vec<_>>().concat()
    }

    /// Stops all processes, gently at first.
    pub(super) async fn clear(&mut self) {
        self.actors = Actors::default();
        // All at once, since the last ones would look for a leader in vain.
        self.members.iter().chain(&self.discovery).for_each(Process::terminate);
        for process in self.members.iter_mut().chain(&mut self.discovery) {
            process.finish().await;
        }
    }
}
