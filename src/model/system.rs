//! The host's own figures.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The host's own figures: the `system` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemMetrics {
    /// One number: all cores together, busy percent, 0–100, over the last interval.
    /// Source: `/proc/stat`; idle and iowait are not busy.
    pub cpu_percent: [f64; 1],
    /// Each core, busy percent, 0–100, over the last interval, in the order of their numbers.
    /// Source: `/proc/stat`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_cores: Vec<f64>,
    /// What all cores together did over the last interval. Source: `/proc/stat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_times: Option<CpuTimes>,
    /// Memory in use, in MiB: total − available. Source: `/proc/meminfo`.
    pub memory_used: f64,
    /// Memory, in MiB. Source: `/proc/meminfo`, `MemTotal`.
    pub memory_total: f64,
    /// Memory that programs could still have without swapping, in MiB, as the kernel estimates it.
    /// Source: `/proc/meminfo`, `MemAvailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_available: Option<f64>,
    /// Memory that caches files, in MiB: the `cache` of `free -w`. Source: `/proc/meminfo`, `Cached` +
    /// `SReclaimable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_cached: Option<f64>,
    /// Swap in use, in MiB; absent where the host has no swap. Source: `/proc/meminfo`, `SwapTotal` −
    /// `SwapFree`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_used: Option<f64>,
    /// Swap, in MiB; absent where the host has none. Source: `/proc/meminfo`, `SwapTotal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_total: Option<f64>,
    /// Used space of the root file system, in GiB, as `df` counts it. Source: `statvfs("/")`.
    pub disk_used: f64,
    /// Size of the root file system, in GiB. Source: `statvfs("/")`.
    pub disk_total: f64,
    /// Every file system that keeps data, by mount point; a device that is mounted twice counts once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Every block device as a whole, by name, without RAM disks and loop devices. Source:
    /// `/proc/diskstats`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk_io: Vec<DiskIo>,
    /// Time since boot, in seconds. Source: `/proc/uptime`.
    pub uptime: u64,
    /// Load averages. Source: `/proc/loadavg`.
    pub load_avg: LoadAverage,
    /// Every network interface. Source: `/proc/net/dev`.
    pub network: Vec<NetworkInterface>,
    /// How long work waited for CPU, memory and I/O; absent where the kernel does not tell. Source:
    /// `/proc/pressure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressures>,
    /// The host's temperature sensors. Source: `/sys/class/hwmon`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub temperatures: Vec<Temperature>,
    /// The units of systemd that have failed, by name, 256 at most; absent where systemd does not run or cannot be
    /// asked. Source: systemd's `ListUnitsFiltered`, by D-Bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_units: Option<Vec<FailedUnit>>,
    /// NVIDIA's GPUs; absent where their driver's library is not there. Source: NVML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Vec<Gpu>>,
    /// How many processes there are, by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessCounts>,
    /// Open files of the whole host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_handles: Option<FileHandles>,
    /// The busiest processes, busiest first.
    pub top_processes: Vec<TopProcess>,
    /// The processes that have the most resident memory, largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_memory: Vec<TopProcess>,
    /// What others take differences of. Not on the wire.
    #[serde(skip)]
    pub exact: Exact,
}

/// Figures as the kernel counts them, for those who take differences of their own: not rounded, and since boot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exact {
    /// What each core has done. Source: `/proc/stat`.
    pub cpu_seconds: Vec<CpuSeconds>,
    /// Memory; none where it could not be read in this round.
    pub memory: Option<ExactMemory>,
    /// Load averages; none where they could not be read in this round.
    pub load_avg: Option<LoadAverage>,
    /// What devices with sensors are called. Source: `/sys/class/hwmon`.
    pub sensors: Arc<Sensors>,
}

/// The host's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExactMemory {
    /// All of it. Source: `/proc/meminfo`, `MemTotal`.
    pub total: u64,
    /// What programs could still have. Source: `/proc/meminfo`, `MemAvailable`.
    pub available: u64,
    /// What caches files. Source: `/proc/meminfo`, `Cached` + `SReclaimable`.
    pub cached: Option<u64>,
    /// Swap. Source: `/proc/meminfo`, `SwapTotal`.
    pub swap_total: u64,
    /// Swap in use. Source: `/proc/meminfo`, `SwapTotal` − `SwapFree`.
    pub swap_used: u64,
}

impl Default for SystemMetrics {
    /// What is published while the host has not been read even once.
    fn default() -> Self {
        Self {
            cpu_percent: [0.0],
            cpu_cores: Vec::new(),
            cpu_times: None,
            memory_used: 0.0,
            memory_total: 0.0,
            memory_available: None,
            memory_cached: None,
            swap_used: None,
            swap_total: None,
            disk_used: 0.0,
            disk_total: 0.0,
            disks: Vec::new(),
            disk_io: Vec::new(),
            uptime: 0,
            load_avg: LoadAverage::default(),
            network: Vec::new(),
            pressure: None,
            temperatures: Vec::new(),
            failed_units: None,
            gpus: None,
            processes: None,
            file_handles: None,
            top_processes: Vec::new(),
            top_memory: Vec::new(),
            exact: Exact::default(),
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

/// Shares of the time that all cores together had, in percent, 0–100; what is missing to 100 was idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// Programs, those of low priority and guests of virtual machines included.
    pub user: f64,
    /// The kernel, for programs.
    pub system: f64,
    /// Idle, while I/O was outstanding.
    pub iowait: f64,
    /// Taken by the hypervisor for other guests.
    pub steal: f64,
    /// The kernel, for devices: hard and soft interrupts.
    pub irq: f64,
}

/// What one core has done since boot, in seconds. Source: `/proc/stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CpuSeconds {
    /// The core's number.
    pub core: u32,
    /// By what it was: see [`CpuSeconds::MODES`].
    pub modes: [f64; 8],
}

impl CpuSeconds {
    /// The kernel's names of what a core can do, in the order of its own table. The time of guests of virtual machines is in
    /// those of users.
    pub const MODES: [&str; 8] = [
        "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
    ];
}

/// A file system that keeps data: on a block device, of another host, or in a program (FUSE). Not those of
/// the kernel, in memory, or of containers; the root is always there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Where it is mounted. Source: `/proc/self/mountinfo`.
    pub mount: String,
    /// What is mounted there, e.g. `/dev/sda1`. Source: `/proc/self/mountinfo`.
    pub device: String,
    /// The file system's type, e.g. `ext4`. Source: `/proc/self/mountinfo`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Used space, in GiB, as `df` counts it; absent where it has no figures. Source: `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<f64>,
    /// Its size, in GiB; absent where it has no figures. Source: `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
    /// Space that ordinary users may still fill, in GiB; absent where it has no figures. Source: `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<f64>,
    /// Used inodes; absent where it has no figures, and where it does not count them. Source: `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<u64>,
    /// Inodes; absent where it has no figures, and where it does not count them. Source: `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_total: Option<u64>,
    /// True while it has not answered for more than a second; absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
    /// Why it has no figures, where it is not stuck: the kernel's answer, such as `Permission denied` where the agent's user may not
    /// look; absent otherwise. Source: `fstatvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// True where the file system as a whole cannot be written to, as the kernel makes it after errors of its device, too; absent
    /// otherwise. Source: its own options in `/proc/self/mountinfo`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
    /// Whether it cannot be asked: it is stuck, or answers with an error. That the agent may not look at it is no failure. Not on
    /// the wire.
    #[serde(skip)]
    pub failed: bool,
    /// Its space as it is counted. Not on the wire.
    #[serde(skip)]
    pub exact: Option<Space>,
}

/// The space of a file system, in bytes. Source: `statvfs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub size: u64,
    /// What is free, with what is reserved for root.
    pub free: u64,
    /// What ordinary users may still fill.
    pub available: u64,
}

/// The traffic of one block device: counters since boot, and rates over the last interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskIo {
    /// The device's name, e.g. `sda`.
    pub device: String,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
    /// Time in which it had something to do, in milliseconds.
    #[serde(default)]
    pub busy_ms: u64,
    /// Bytes read per second.
    pub read_bytes_per_second: f64,
    /// Bytes written per second.
    pub write_bytes_per_second: f64,
    /// Read operations per second.
    pub read_ops_per_second: f64,
    /// Write operations per second.
    pub write_ops_per_second: f64,
    /// The share of time in which it had something to do, in percent, 0–100.
    pub busy_percent: f64,
}

/// One of the host's network interfaces: counters since boot, and rates over the last interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Bytes sent per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_sent_per_second: Option<f64>,
    /// Bytes received per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_recv_per_second: Option<f64>,
    /// Packets sent per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_sent_per_second: Option<f64>,
    /// Packets received per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_recv_per_second: Option<f64>,
    /// Packets that could not be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors_sent: Option<u64>,
    /// Packets that were received broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors_recv: Option<u64>,
    /// Packets that were dropped rather than sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops_sent: Option<u64>,
    /// Packets that were received and dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops_recv: Option<u64>,
    /// The link's speed, in Mbit/s; absent where it has none, or none at present. Source:
    /// `/sys/class/net/<name>/speed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u64>,
    /// Whether it is up: has a link, or needs none. Absent where the kernel does not tell. Source:
    /// `/sys/class/net/<name>/operstate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// What it is. Absent where the kernel does not tell. Source: `/sys/class/net/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<InterfaceKind>,
    /// Of a veth: the name of the container that has its other end, without the slash. Absent otherwise. Source: netlink,
    /// `IFLA_LINK_NETNSID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Of a veth: the number of the network namespace that has its other end. Not on the wire.
    #[serde(skip)]
    pub peer: Option<i32>,
}

/// What a network interface is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    /// A device, a virtual machine's included.
    Physical,
    /// The host's way to itself.
    Loopback,
    /// A switch for others.
    Bridge,
    /// One end of a pair, whose other end is in another network namespace as a rule.
    Veth,
    /// Anything else that is no device: tunnels, VLANs, bonds and so on.
    Virtual,
    /// One that a later version knows.
    #[serde(untagged)]
    Other(String),
}

/// How long work, of the host or of a container, waited for each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressures {
    /// For a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Pressure>,
    /// For memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Pressure>,
    /// For I/O.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Pressure>,
}

/// How long work waited for a resource: the kernel's pressure stall information.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// While some work waited.
    pub some: Stalls,
    /// While all work waited at once; absent where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Stalls>,
}

/// Shares of time in percent, 0–100, and the time itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Stalls {
    /// Of the last 10 seconds.
    pub avg10: f64,
    /// Of the last minute.
    pub avg60: f64,
    /// Of the last five minutes.
    pub avg300: f64,
    /// The time since boot, or since the container's control group was made, in microseconds.
    #[serde(default)]
    pub total_us: u64,
}

/// What one temperature sensor shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// The device that has the sensor, e.g. `coretemp`.
    pub device: String,
    /// Which of its sensors, e.g. `Package id 0`; its number where it has no label, e.g. `temp1`.
    pub sensor: String,
    /// The device by its place in `/sys/devices`, e.g. `nvme_nvme0`: no two have the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chip: String,
    /// Which of that device's sensors, by the kernel's name, e.g. `temp1`: no two have the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub input: String,
    /// In degrees Celsius.
    pub celsius: f64,
    /// From where on the device itself is in danger, in degrees Celsius; absent where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<f64>,
    /// As the kernel has it, in degrees Celsius. Not on the wire.
    #[serde(skip)]
    pub exact: f64,
}

/// What devices with sensors, and their sensors, are called. With those that measure something else than temperatures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sensors {
    /// The devices.
    pub chips: Vec<SensorChip>,
    /// The sensors that have a label.
    pub labels: Vec<SensorLabel>,
}

/// A device with sensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SensorChip {
    /// By its place in `/sys/devices`, e.g. `nvme_nvme0`.
    pub chip: String,
    /// What it calls itself, e.g. `nvme`.
    pub device: String,
}

/// What a device calls one of its sensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SensorLabel {
    /// The device.
    pub chip: String,
    /// The kernel's name of the sensor, e.g. `temp1`.
    pub sensor: String,
    /// The device's.
    pub label: String,
}

/// A unit of systemd that has failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUnit {
    /// Its name, e.g. `nginx.service`.
    pub name: String,
    /// What it is, in its own words.
    pub description: String,
}

impl NetworkInterface {
    /// The same interface without its rates, which no longer hold.
    #[must_use]
    pub fn without_rates(&self) -> Self {
        Self {
            bytes_sent_per_second: None,
            bytes_recv_per_second: None,
            packets_sent_per_second: None,
            packets_recv_per_second: None,
            ..self.clone()
        }
    }
}

/// One GPU. Figures that it does not know are absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its number.
    pub index: u32,
    /// Its model, e.g. `NVIDIA A100-SXM4-40GB`.
    pub name: String,
    /// The share of time in which it computed something, over its own last sampling period (at most a second), in
    /// percent, 0–100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_percent: Option<f64>,
    /// Memory in use, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<f64>,
    /// Memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<f64>,
    /// In degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<f64>,
    /// Power that it draws, in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts: Option<f64>,
    /// `true` while it sleeps, else absent. The driver is not asked for it then, which would wake it: it has no figures, and its name
    /// is empty where it has slept since the agent started. Source: `power/runtime_status` of its PCI device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asleep: Option<bool>,
}

/// Open files of the whole host. Source: `/proc/sys/fs/file-nr`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHandles {
    /// How many are open.
    pub open: u64,
    /// How many there may be; 2^63 - 1 where that is not limited.
    pub max: u64,
}

/// How many processes there are, by state. Source: `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessCounts {
    /// All.
    pub total: u64,
    /// Running, or waiting for a CPU (`R`).
    pub running: u64,
    /// Waiting for something to happen (`S`), idle threads of the kernel (`I`) included.
    pub sleeping: u64,
    /// Waiting where no signal reaches them, for a disk as a rule (`D`).
    pub blocked: u64,
    /// Stopped by a signal or a debugger (`T`, `t`).
    pub stopped: u64,
    /// Ended, and not yet taken note of by their parent (`Z`).
    pub zombie: u64,
    /// Threads of all.
    pub threads: u64,
}

/// One of the processes that use most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopProcess {
    /// The process's name (`comm`): 15 bytes at most.
    pub name: String,
    /// CPU in percent of one core, over the last interval, or over the last 400 ms where that is less:
    /// the kernel counts in ticks of 10 ms. Source: `utime` + `stime` in `/proc/<pid>/stat`.
    pub cpu: f64,
    /// Resident memory, in percent of the host's. Source: `/proc/<pid>/stat`, `rss`.
    pub mem: f64,
    /// The process's id.
    pub pid: u32,
    /// Resident memory, in bytes. Source: `/proc/<pid>/stat`, `rss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_rss: Option<u64>,
    /// The user that it runs as, or the user's number where `/etc/passwd` does not have it. Source: `Uid` in
    /// `/proc/<pid>/status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The name of the container that it runs in, without the slash; absent outside of one. Source:
    /// `/proc/<pid>/cgroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
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
