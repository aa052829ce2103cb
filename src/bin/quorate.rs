//! The server.

use quorate::node::config::{Invocation, parse};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// The command line or the environment makes no sense.
const EXIT_USAGE: u8 = 2;

/// Requests and log entries are made on one thread and dropped on another all the time, which this one is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1).map(OsString::into_string).collect::<Result<Vec<String>, _>>();
    let args = match args {
        Ok(args) => args,
        Err(arg) => return usage(&format!("{} is not UTF-8", arg.display())),
    };
    // What is not UTF-8 cannot be a setting.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    match parse(args, env) {
        Err(error) => usage(&error.to_string()),
        Ok(Invocation::Help(text)) => print(&text),
        Ok(Invocation::Version) => print(concat!("quorate ", env!("CARGO_PKG_VERSION"), "\netcd v2 API\n")),
        Ok(Invocation::Serve(config, warnings)) => {
            for warning in warnings {
                eprintln!("quorate: {warning}");
            }
            quorate::node::serve(*config)
        }
        Ok(Invocation::Demo(args)) => quorate::demo::run(&args),
        Ok(Invocation::Check(data_dir)) => check(&data_dir),
    }
}

fn usage(error: &str) -> ExitCode {
    eprintln!("quorate: {error}");
    ExitCode::from(EXIT_USAGE)
}

/// A reader that has seen enough (`quorate help | head`) is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn check(data_dir: &Path) -> ExitCode {
    match quorate::storage::check(data_dir) {
        Ok(report) => {
            let printed = print(&(report.lines.join("\n") + "\n"));
            for problem in &report.problems {
                eprintln!("quorate: {problem}");
            }
            if report.is_sound() { printed } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("quorate: {error}");
            ExitCode::FAILURE
        }
    }
}
