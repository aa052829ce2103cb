//! `quorate demo`: a cluster of three on this machine, shown at its main job and checked while it is.
//!
//! The members are processes of this program, so that one can be killed as a power cut would; announcers, watchers and
//! look-ups are tasks of the demonstration, which talk to the members over HTTP like anybody else. Nothing is staged:
//! the figures are measured from the outside, and the exit status says whether all went as promised.
//!
//! What it leaves behind: nothing, unless it fails (then the members' data and logs, and it says where).

mod actors;
mod acts;
mod api;
mod args;
mod board;
mod place;
mod process;
mod sightings;
mod stage;
mod verdict;
mod view;

use args::Args;
use board::Board;
use place::TempDir;
use stage::Stage;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use verdict::Promise;
use view::Live;

/// The arguments make no sense.
const EXIT_USAGE: u8 = 2;
/// Interrupted, by a key or a signal: as shells say it of SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Why the show cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

/// How a show ended.
enum End {
    /// All acts were played.
    Played(Vec<Promise>),
    /// It could not go on.
    Failed(Failure),
    Interrupted,
}

/// Runs the demonstration with the arguments behind `quorate demo`. Blocks.
pub fn run(args: &[String]) -> ExitCode {
    let args = match args::parse(args) {
        Ok(args) => args,
        Err(instead) if instead.help => {
            print(&instead.text);
            return ExitCode::SUCCESS;
        }
        Err(instead) => {
            eprint!("{}", instead.text);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Some(parent) = args.member_of {
        return process::become_member(parent, &args.inner);
    }
    // On one thread: members are bound to the life of the thread that starts them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(show(&args)) {
        Ok(code) => code,
        Err(failure) => fail(&failure.to_string()),
    }
}

async fn show(args: &Args) -> Result<ExitCode, Failure> {
    let ports = place::member_ports(args)?;
    let mut dir = TempDir::new()?;
    let live = !args.plain && std::io::stdout().is_terminal() && view::can_show();
    let mut stage = Stage::new(&ports, dir.path(), !live)?;
    let mut interrupts = Interrupts::new()?;
    let view = if live { Some(Live::start(Arc::clone(&stage.board), &interrupts)?) } else { None };
    let end = tokio::select! {
        played = acts::play(&mut stage) => match played {
            Ok(findings) => End::Played(verdict::judge(&stage.board.state(), &findings)),
            Err(failure) => End::Failed(failure),
        },
        () = interrupts.next() => End::Interrupted,
    };
    drop(view);
    let code = match end {
        End::Played(promises) => {
            let kept = promises.iter().all(|promise| promise.kept);
            if !kept {
                keep_evidence(&stage, &mut dir);
            }
            print(&summary(&stage.board, &promises));
            if args.keep {
                print(&how_to_use(&stage, kept));
                interrupts.next().await;
            }
            if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        End::Failed(failure) => {
            keep_evidence(&stage, &mut dir);
            let (number, title, _) = stage.board.state().act;
            print(&format!("\nNOT AS PROMISED: in act {number}, {title:?}: {failure}.\n"));
            ExitCode::FAILURE
        }
        End::Interrupted => {
            eprintln!("quorate: interrupted, stopping the members");
            ExitCode::from(EXIT_INTERRUPTED)
        }
    };
    // A second Ctrl-C does not wait for them to stop; they are killed with the stage.
    tokio::select! {
        () = stage.clear() => {}
        () = interrupts.next() => {}
    }
    // Before the directory goes.
    drop(stage);
    Ok(code)
}

/// Shows the ends of the members' logs and keeps the rest.
fn keep_evidence(stage: &Stage, dir: &mut TempDir) {
    dir.keep();
    eprintln!("{}\nThe members' data and logs are kept in {}.", stage.logs(), dir.path().display());
}

/// How it went.
fn summary(board: &Board, promises: &[Promise]) -> String {
    let line = |promise: &Promise| {
        let mark = if promise.kept { "ok    " } else { "FAILED" };
        format!("  {mark}  {}\n", promise.text)
    };
    let lines: Vec<String> = promises.iter().map(line).collect();
    let verdict = if promises.iter().all(|promise| promise.kept) {
        "All went as promised."
    } else {
        "NOT AS PROMISED: see the lines marked FAILED."
    };
    let took = board.state().began.elapsed().as_secs_f64();
    format!("\nWhat was shown, in {took:.1} s:\n{}\n{verdict}\n", lines.concat())
}

/// What one can do with a cluster that is kept.
fn how_to_use(stage: &Stage, removed: bool) -> String {
    let urls: Vec<String> = stage.members.iter().map(|member| member.ports.client_url()).collect();
    let first = &urls[0];
    format!(
        "\nThe cluster goes on serving until Ctrl-C; its data are in {}{}.\n\
         Its services go on being announced. Try:\n\n  \
         curl '{first}/v2/keys/announce/services?recursive=true'\n  \
         curl {first}/v2/keys/hello -XPUT -d value=world\n  \
         curl -N '{first}/v2/keys/?wait=true&recursive=true&stream=true'\n  \
         etcdctl --peers {} ls --recursive /announce\n",
        stage.dir.display(),
        if removed { ", which is removed then" } else { "" },
        urls.join(","),
    )
}

/// A key or a signal that says that it is enough.
struct Interrupts {
    signals: [tokio::signal::unix::Signal; 3],
    /// For the view, which has the keyboard.
    pressed: Arc<tokio::sync::Notify>,
}

impl Interrupts {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure(format!("cannot listen for signals: {error}")));
        let signals = [
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ];
        Ok(Self { signals, pressed: Arc::default() })
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = self.pressed.notified() => {}
        }
    }
}

/// A reader that has seen enough is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn fail(error: &str) -> ExitCode {
    eprintln!("quorate: {error}");
    ExitCode::FAILURE
}
