//! Crash points: named places at which a test kills the process, to see what is recovered from there.
//!
//! `crash_point!("checkpoint.renamed")` is nothing at all outside of the crate's own tests. In those it kills the process,
//! as `kill -9` does, if that name is armed: if it stands in the file `armed` of the directory that QUORATE_CRASH_DIR names.
//! A point is armed for one crash; the file is renamed to `crashed` before the process dies, so that it can be started again.
//!
//! Whoever takes a step in keeping, sending or installing state, or in joining and leaving, marks it with a point of its own
//! name and adds that to the table in `tests/plan.rs`, which is compared with the source: a point that is not in the table,
//! is there twice or is never reached fails the test.

#[cfg(test)]
mod tests;

/// Names the directory in which the points of a process are armed.
#[cfg(test)]
const DIR_VARIABLE: &str = "QUORATE_CRASH_DIR";

/// Kills the process if the point is armed.
#[cfg(test)]
pub(crate) fn reached(point: &str) {
    use std::path::PathBuf;
    use std::sync::LazyLock;
    static DIR: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os(DIR_VARIABLE).map(PathBuf::from));
    let Some(dir) = &*DIR else { return };
    let armed = dir.join("armed");
    // Of several threads that are here at once, one renames it.
    if std::fs::read_to_string(&armed).is_ok_and(|name| name == point)
        && std::fs::rename(&armed, dir.join("crashed")).is_ok()
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
macro_rules! crash_point {
    ($name:literal) => {
        $crate::crash::reached($name)
    };
}

#[cfg(not(test))]
macro_rules! crash_point {
    ($name:literal) => {};
}
