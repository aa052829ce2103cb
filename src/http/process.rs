//! What the process costs, as Linux tells it. Each figure is `None` where the system does not say.

use rustix::process::{Resource, getrlimit};
use std::fs;

/// The unit of times in `/proc/PID/stat`: part of the kernel's interface, the same on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// What was read just now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    /// Memory in RAM, in bytes.
    pub(crate) resident: Option<u64>,
    /// Address space, in bytes.
    pub(crate) virtual_size: Option<u64>,
    /// Processor time of all threads, in seconds.
    pub(crate) cpu: Option<f64>,
    /// Open files and sockets.
    pub(crate) open_files: Option<u64>,
    /// How many there may be.
    pub(crate) max_files: Option<u64>,
}

impl Process {
    /// Reads the figures; takes some tens of microseconds, more with very many open files.
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        Self {
            resident: kilobytes("VmRSS:"),
            virtual_size: kilobytes("VmSize:"),
            cpu: fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu(&stat)),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as u64),
            max_files: getrlimit(Resource::Nofile).current,
        }
    }
}

/// User and system time, which come 12th and 13th after the name, which may hold anything but ends with the last `)`.
fn cpu(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_there() {
        let Process { resident, virtual_size, open_files, max_files, .. } = Process::read();
        assert!(resident.unwrap() > 100_000 && virtual_size >= resident);
        assert!(open_files.unwrap() > 2 && max_files.unwrap() >= open_files.unwrap());
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu(stat), Some(2.0));
    }
}
