//! CPU time and memory of processes, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

/// Ticks per second of the CPU times in /proc. Linux uses 100 on all platforms of the agent.
const TICKS_PER_SECOND: f64 = 100.0;

/// The CPU time of processes and of their children that have ended, in nanoseconds, by process id. It is from the clocks of the
/// processes: /proc counts in hundredths of a second, and the engine has a process for each container, so the rounding would be larger
/// than what is measured.
pub(crate) struct Load(BTreeMap<u32, u64>);

impl Load {
    pub(crate) fn now(pids: &[u32]) -> Self {
        let of = |&pid: &u32| {
            let used = clock(pid)? + Duration::from_secs_f64(children_seconds(pid));
            Some((pid, used.as_nanos() as u64))
        };
        Self(pids.iter().filter_map(of).collect())
    }

    /// The CPU time that the processes use within `window`.
    pub(crate) fn over(window: Duration, pids: impl Fn() -> Vec<u32>) -> Self {
        let before = Self::now(&pids());
        thread::sleep(window);
        Self::now(&pids()).since(&before)
    }

    /// The CPU time after `before` was read. For a process that started later, the CPU time counts from the start of that
    /// process.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let used = |(pid, time): (&u32, &u64)| {
            let before = before.0.get(pid).unwrap_or(&0);
            (*pid, time.saturating_sub(*before))
        };
        Self(self.0.iter().map(used).collect())
    }

    /// CPU seconds per minute.
    pub(crate) fn per_minute(&self, window: Duration) -> f64 {
        let used: u64 = self.0.values().sum();
        Duration::from_nanos(used).as_secs_f64() * 60.0 / window.as_secs_f64()
    }
}

/// CPU time of all threads of a process in user and system mode, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    clock(pid).expect("the process has ended").as_secs_f64()
}

/// CPU time of all threads of a process. None if the process has ended.
fn clock(pid: u32) -> Option<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let clock = ClockId::pid_cpu_clock_id(pid).ok()?;
    Some(clock.now().ok()?.into())
}

/// CPU time of the children of a process that have ended, in seconds. It has the resolution of /proc.
pub(crate) fn children_seconds(pid: u32) -> f64 {
    let ended = stat(pid).and_then(|stat| Some(stat.get(13..15)?.iter().sum::<u64>()));
    ended.unwrap_or_default() as f64 / TICKS_PER_SECOND
}

/// The process ids of dockerd, containerd and the containers' shims.
pub(crate) fn engine_processes() -> Vec<u32> {
    let is_engine = |pid: &u32| {
        let comm = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
        comm.is_ok_and(|comm| comm.trim() == "dockerd" || comm.starts_with("containerd"))
    };
    processes().filter(is_engine).collect()
}

/// A process and all its descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = processes()
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&one) = tree.get(next) {
        tree.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == one)
                .map(|(pid, _)| pid),
        );
        next += 1;
    }
    tree
}

/// The resident memory of processes, in MiB.
pub(crate) fn rss_mib(pids: &[u32]) -> f64 {
    pids.iter()
        .filter_map(|&pid| memory_mib(pid, "VmRSS:"))
        .sum()
}

/// The anonymous memory of processes, in MiB.
pub(crate) fn anonymous_mib(pids: &[u32]) -> f64 {
    pids.iter()
        .filter_map(|&pid| memory_mib(pid, "RssAnon:"))
        .sum()
}

/// The median. For an even number of values, the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The value below which this share of the values lies, by the nearest rank.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse().ok()
    })
}

/// The fields of `/proc/<pid>/stat` from the third field on. The second field, the name, can hold spaces and parentheses.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let number = |field: &str| field.parse().unwrap_or_default();
    Some(after_name.split(' ').map(number).collect())
}

fn parent(pid: u32) -> Option<u32> {
    u32::try_from(*stat(pid)?.get(1)?).ok()
}

/// A memory size from `/proc/<pid>/status` in MiB. `None` if the process has ended.
fn memory_mib(pid: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
}
