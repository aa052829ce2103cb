//! How a command ends when it does not end well: what stands on stderr, and the exit code.

use crate::client::Error;
use std::fmt::Write as _;
use std::io::Write as _;

/// Missing or wrong arguments, and what the tool itself refuses.
pub(super) const BAD_ARGS: u8 = 1;
/// Nobody could be reached.
pub(super) const BAD_CONNECTION: u8 = 2;
/// There is no such command.
pub(super) const NO_SUCH_COMMAND: u8 = 3;
/// The cluster said no, or could not be reached when it mattered.
pub(super) const SERVER_ERROR: u8 = 4;
/// At least one member is not healthy.
pub(super) const NOT_HEALTHY: u8 = 5;

/// A line on stderr. If nobody can read it, nobody can be told so.
pub(super) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// An exit code and what stands on stderr.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) stderr: String,
}

impl Failure {
    /// Text as it is, with a newline.
    pub(super) fn bare(code: u8, text: impl std::fmt::Display) -> Self {
        Self { code, stderr: format!("{text}\n") }
    }

    /// `Error:  TEXT`, with two spaces.
    pub(super) fn text(code: u8, text: impl std::fmt::Display) -> Self {
        Self::bare(code, format_args!("Error:  {text}"))
    }

    /// `Error:  ERROR`, and a line for each endpoint that failed.
    pub(super) fn error(code: u8, error: &Error) -> Self {
        let mut failure = Self::text(code, error);
        if let Error::Cluster(endpoints) = error {
            for (i, endpoint) in endpoints.iter().enumerate() {
                let _ = writeln!(failure.stderr, "error #{i}: {endpoint}");
            }
            failure.stderr.push('\n');
        }
        failure
    }

    /// The exit code says it all.
    pub(super) fn silent(code: u8) -> Self {
        Self { code, stderr: String::new() }
    }
}

/// An error of a request about keys.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::error(SERVER_ERROR, &error)
    }
}

/// Only writing to stdout fails with these. A reader that has gone away (`etcdctl ls | head`) needs no message.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::silent(BAD_ARGS);
        }
        Self::text(BAD_ARGS, format_args!("cannot write the output: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ApiError, EndpointError, FailureKind};

    #[test]
    fn an_api_error_has_two_spaces_and_its_index() {
        let error = ApiError {
            code: 100,
            message: "Key not found".to_owned(),
            cause: "/announce/services/apache80".to_owned(),
            index: 26693,
        };
        let failure = Failure::from(Error::Api(error));
        assert_eq!(failure.stderr, "Error:  100: Key not found (/announce/services/apache80) [26693]\n");
        assert_eq!(failure.code, 4);
    }

    #[test]
    fn a_cluster_error_lists_its_endpoints_twice() {
        let refused = |port: u16| EndpointError {
            endpoint: format!("http://127.0.0.1:{port}"),
            kind: FailureKind::Connect,
            text: format!("dial tcp 127.0.0.1:{port}: connect: connection refused"),
        };
        let failure = Failure::error(2, &Error::Cluster(vec![refused(1), refused(2)]));
        assert_eq!(
            failure.stderr,
            "Error:  client: etcd cluster is unavailable or misconfigured; \
             error #0: dial tcp 127.0.0.1:1: connect: connection refused\n; \
             error #1: dial tcp 127.0.0.1:2: connect: connection refused\n\n\
             error #0: dial tcp 127.0.0.1:1: connect: connection refused\n\
             error #1: dial tcp 127.0.0.1:2: connect: connection refused\n\n"
        );
    }
}
