//! The host's own figures.

use serde::{Deserialize, Serialize};

/// The host's own figures: the `system` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemMetrics {
    /// One number: all cores together, busy percent, 0–100, over the last interval.
    /// Source: `/proc/stat`; idle and iowait are not busy.
    pub cpu_percent: [f64; 1],
    /// Memory in use, in MiB: total − available. Source: `/proc/meminfo`.
    pub memory_used: f64,
    /// Memory, in MiB. Source: `/proc/meminfo`, `MemTotal`.
    pub memory_total: f64,
    /// Used space of the root file system, in GiB, as `df` counts it. Source: `statvfs("/")`.
    pub disk_used: f64,
    /// Size of the root file system, in GiB. Source: `statvfs("/")`.
    pub disk_total: f64,
    /// Time since boot, in seconds. Source: `/proc/uptime`.
    pub uptime: u64,
    /// Load averages. Source: `/proc/loadavg`.
    pub load_avg: LoadAverage,
    /// Every network interface. Source: `/proc/net/dev`.
    pub network: Vec<NetworkInterface>,
    /// The busiest processes, busiest first.
    pub top_processes: Vec<TopProcess>,
}

impl Default for SystemMetrics {
    /// What is published while the host has not been read even once.
    fn default() -> Self {
        Self {
            cpu_percent: [0.0],
            memory_used: 0.0,
            memory_total: 0.0,
            disk_used: 0.0,
            disk_total: 0.0,
            uptime: 0,
            load_avg: LoadAverage::default(),
            network: Vec::new(),
            top_processes: Vec::new(),
        }
    }
}

/// Load averages over one, five and fifteen minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadAverage {
    /// Over one minute.
    #[serde(rename = "1m")]
    pub one: f64,
    /// Over five minutes.
    #[serde(rename = "5m")]
    pub five: f64,
    /// Over fifteen minutes.
    #[serde(rename = "15m")]
    pub fifteen: f64,
}

/// The counters of one of the host's network interfaces, since boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// The interface's name.
    pub name: String,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_recv: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets received.
    pub packets_recv: u64,
}

/// One of the busiest processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopProcess {
    /// The process's name (`comm`): 15 bytes at most.
    pub name: String,
    /// CPU in percent of one core, over the last interval. Source: `utime` + `stime` in
    /// `/proc/<pid>/stat`.
    pub cpu: f64,
    /// Resident memory, in percent of the host's. Source: `/proc/<pid>/stat`, `rss`.
    pub mem: f64,
    /// The process's id.
    pub pid: u32,
}

/// What the host is: the `host` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// The host's name. Source: `uname(2)`.
    pub hostname: String,
    /// The operating system's name and version. Source: `/etc/os-release`.
    pub os: String,
    /// The kernel's release. Source: `uname(2)`.
    pub kernel: String,
    /// The machine's architecture, e.g. `x86_64`. Source: `uname(2)`.
    pub arch: String,
    /// Logical CPUs. Source: `/proc/stat`.
    pub cpus: u32,
    /// When the host booted, in Unix seconds. Source: `/proc/stat`, `btime`.
    pub boot_time: u64,
}
