//! The command-line client. All of it is in [`quorate::ctl`].

use std::process::ExitCode;

fn main() -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(quorate::ctl::run(std::env::args_os().skip(1))),
        Err(error) => {
            eprintln!("Error:  cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
