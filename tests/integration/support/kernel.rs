//! The kernel's own figures, read in the simplest way. The tests compare the agent's figures with them.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// Clock ticks per second of the times in `/proc`.
const TICKS: f64 = 100.0;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn numbers(columns: &str) -> Vec<f64> {
    let columns = columns.split_whitespace();
    columns.map_while(|column| column.parse().ok()).collect()
}

/// `/proc/stat`: busy and total time of all cores together, in clock ticks. I/O wait does not count as busy.
pub(crate) fn cpu_times() -> (f64, f64) {
    let stat = read("/proc/stat");
    let times = numbers(stat.lines().next().unwrap().strip_prefix("cpu ").unwrap());
    // The columns: user nice system idle iowait irq softirq steal. User time includes guest time.
    let total: f64 = times[..8].iter().sum();
    (total - times[3] - times[4], total)
}

/// The number of logical CPUs.
pub(crate) fn cpus() -> u64 {
    let stat = read("/proc/stat");
    let names = stat.lines().filter_map(|line| line.split(' ').next());
    let cpus = names.filter(|name| name.starts_with("cpu") && *name != "cpu");
    cpus.count().try_into().unwrap()
}

/// The boot time of the host, in seconds since 1970.
pub(crate) fn boot_time() -> u64 {
    let stat = read("/proc/stat");
    let time = stat.lines().find_map(|line| line.strip_prefix("btime "));
    time.unwrap().parse().unwrap()
}

/// The CPU time of a process so far, in seconds. Returns 0 for a process that has ended.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The process name ends at the last parenthesis and can contain any character. utime and stime are fields 14 and 15.
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return 0.0;
    };
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / TICKS
}

/// Total and used memory in MiB.
pub(crate) fn memory() -> (f64, f64) {
    let info = read("/proc/meminfo");
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name));
        numbers(value.unwrap())[0] / 1024.0
    };
    let total = field("MemTotal:");
    (total, total - field("MemAvailable:"))
}

/// Resident memory of a process in bytes.
pub(crate) fn rss(pid: u32) -> f64 {
    let status = read(&format!("/proc/{pid}/status"));
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    numbers(value.unwrap())[0] * 1024.0
}

/// Load averages over 1, 5 and 15 minutes.
pub(crate) fn load() -> Vec<f64> {
    numbers(&read("/proc/loadavg"))[..3].to_vec()
}

/// Seconds since boot.
pub(crate) fn uptime() -> f64 {
    numbers(&read("/proc/uptime"))[0]
}

/// Size and used space of the root file system in GiB, from `df`.
pub(crate) fn disk() -> (f64, f64) {
    let output = Command::new("df")
        .args(["-B1", "/"])
        .output()
        .expect("cannot start df");
    let text = String::from_utf8(output.stdout).unwrap();
    let columns: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    let gib = |column: &str| column.parse::<f64>().unwrap() / (1 << 30) as f64;
    (gib(columns[1]), gib(columns[2]))
}

/// The counters of a network interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(crate) bytes_recv: u64,
    pub(crate) packets_recv: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) packets_sent: u64,
}

/// The counters in `/proc/net/dev`, by interface.
pub(crate) fn network() -> BTreeMap<String, Counters> {
    let table = read("/proc/net/dev");
    let interface = |line: &str| {
        let (name, columns) = line.split_once(':').unwrap();
        let columns: Vec<u64> = columns
            .split_whitespace()
            .map(|column| column.parse().unwrap())
            .collect();
        let counters = Counters {
            bytes_recv: columns[0],
            packets_recv: columns[1],
            bytes_sent: columns[8],
            packets_sent: columns[9],
        };
        (name.trim().to_owned(), counters)
    };
    table.lines().skip(2).map(interface).collect()
}

/// The ids of all processes, without kernel threads and zombies.
pub(crate) fn processes() -> Vec<u64> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A kernel thread and a zombie have no command line.
    let has_command = |pid: &u64| {
        let command = fs::read(format!("/proc/{pid}/cmdline"));
        command.is_ok_and(|command| !command.is_empty())
    };
    pids.filter(has_command).collect()
}

/// The value of a file in `/proc/sys/kernel`.
pub(crate) fn sysctl(name: &str) -> String {
    read(&format!("/proc/sys/kernel/{name}")).trim().to_owned()
}

/// A value of `/etc/os-release`.
pub(crate) fn os_release(name: &str) -> Option<String> {
    let release = read("/etc/os-release");
    let mut fields = release.lines().filter_map(|line| line.split_once('='));
    let (_, value) = fields.find(|(field, _)| *field == name)?;
    Some(value.trim_matches('"').to_owned())
}
