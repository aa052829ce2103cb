//! `etcdctl`: the command line for the v2 API, as people and their scripts know it.
//!
//! Output, exit codes and errors are those of etcd 3.4's tool with `ETCDCTL_API=2`; a test runs both side by side. What
//! is different, on purpose:
//! - an endpoint without a scheme means http (as it did when etcd was built with older Go versions), and the default
//!   endpoints are tried with 4001 first, in order instead of at random;
//! - `get` and `ls` leave the kind of read to the server unless `--quorum` or `--quorum=false` is given, so against
//!   Quorate they are linearizable;
//! - an argument after a switch is an argument: `mk /dir --in-order value` (etcd's tool takes `value` for the key there);
//! - `exec-watch KEY -- COMMAND` works with and without flags before the key;
//! - `backup`, `import`, `user`, `role`, `auth` and `--discovery-srv` are refused.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | bad arguments, a directory where a key was asked for, a refused members request |
//! | 2 | nobody could be reached |
//! | 3 | no such command |
//! | 4 | the cluster answered with an error |
//! | 5 | `cluster-health`: not every member is healthy |

mod app;
mod cluster_health;
mod endpoints;
mod exec_watch;
mod failure;
mod flags;
mod get;
mod help;
mod ls;
mod member;
mod mk;
mod mkdir;
mod output;
mod rm;
mod rmdir;
mod set;
mod setdir;
mod update;
mod updatedir;
mod watch;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

/// Runs one command line (without the program's name) in the process's environment. It needs a tokio runtime with time
/// and IO enabled, and writes to the process's stdout and stderr.
pub async fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let outcome = match args.into_iter().map(OsString::into_string).collect::<Result<Vec<_>, _>>() {
        Ok(args) => app::dispatch(&args, &env).await,
        Err(arg) => {
            let text = format!("an argument is not valid UTF-8: {}", arg.display());
            Err(failure::Failure::text(failure::BAD_ARGS, text))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr is gone, the exit code still tells.
            let _ = std::io::stderr().write_all(failure.stderr.as_bytes());
            ExitCode::from(failure.code)
        }
    }
}
