//! What the numbers were measured on: processor, disk, date; and the generator's own share of it.

use crate::Failure;
use crate::histogram::Histogram;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const FSYNC_SAMPLES: usize = 200;
const FSYNC_BYTES: usize = 256;

/// How long the disk takes for the least that a durable write needs: append 256 bytes, `fdatasync`.
pub(crate) fn measure_fsync(dir: &Path) -> Result<Histogram, Failure> {
    let path = dir.join(format!("fsync-probe-{}", std::process::id()));
    let result = append_and_sync(&path);
    let _ = fs::remove_file(&path);
    result.map_err(|error| format!("{}: {error}", path.display()).into())
}

fn append_and_sync(path: &Path) -> std::io::Result<Histogram> {
    let mut file = File::create(path)?;
    let mut times = Histogram::default();
    for _ in 0..FSYNC_SAMPLES {
        let started = Instant::now();
        file.write_all(&[0x5a; FSYNC_BYTES])?;
        file.sync_data()?;
        times.record(started.elapsed().as_nanos() as u64);
    }
    Ok(times)
}

/// A tmpfs answers an fsync at once: numbers from one would say nothing about a durable write.
pub(crate) fn require_real_disk(dir: &Path) -> Result<(), Failure> {
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    if rustix::fs::statfs(dir)?.f_type == TMPFS_MAGIC {
        return Err(format!("{} is in memory (tmpfs): choose a real disk with --data", dir.display()).into());
    }
    Ok(())
}

/// Seconds of CPU that this process has used.
pub(crate) fn own_cpu_time() -> f64 {
    cpu_time("self")
}

/// Seconds of CPU that a process has used.
pub(crate) fn cpu_time_of(pid: u32) -> f64 {
    cpu_time(&pid.to_string())
}

/// Bytes of memory that a process has resident now (`VmRSS`), or had at most (`VmHWM`).
pub(crate) fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Forgets how much memory a process had at most.
pub(crate) fn reset_memory_peak(pid: u32) {
    // Without this right the peak stays what it was: the figure is then too high, not too low.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Bytes that a process has had written to the disk.
pub(crate) fn written_bytes(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// Lets this process, and the members that it starts, have as many sockets as the machine allows; how many.
pub(crate) fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn cpu_time(process: &str) -> f64 {
    /// `/proc` counts in this, whatever the kernel's own tick (`sysconf(_SC_CLK_TCK)` is 100 on every Linux).
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name of the program, in parentheses, may hold spaces: count the fields after it.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Processor and number of cores, kernel.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()))
        .unwrap_or(std::env::consts::ARCH);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {model}, {} {}", std::env::consts::OS, kernel.trim())
}

/// Today, UTC, as `YYYY-MM-DD`.
pub(crate) fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil((seconds / 86_400).cast_signed());
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
