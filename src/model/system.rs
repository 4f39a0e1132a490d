//! The figures and the description of the host.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    BtrfsFileSystem, ClockStatus, Conntrack, CpuThrottles, Entropy, FailedUnit, Gpu,
    MemoryController, NvmeController, PowerSupply, ProcessCounts, RaidArray, SensorReading,
    Sensors, Temperature, TopIo, TopProcess, Unit, Zfs,
};

/// The figures of the host: the section `system`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemMetrics {
    /// An array with one number: how busy all cores together were since the previous reading, in percent, 0–100. The kernel's
    /// times `idle` and `iowait` do not count as busy. In a container with smaller limits: how much it used of the CPU time that it
    /// can use. Source: `/proc/stat`, or the container's control group.
    pub cpu_percent: [f64; 1],
    /// How busy each core was since the previous reading, in percent, 0–100, in the order of the core numbers. In a container with
    /// a set of cores, only these cores. Absent in a container with a smaller quota of CPU time. Source: `/proc/stat`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_cores: Vec<f64>,
    /// How all cores together used their time since the previous reading. In a container with smaller limits, only `user` and
    /// `system` are counted. Source: `/proc/stat`, or the container's control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_times: Option<CpuTimes>,
    /// Memory in use, in MiB: total − available. In a container with a smaller limit, memory without inactive file cache. Source:
    /// `/proc/meminfo`, or the container's control group.
    pub memory_used: f64,
    /// Total memory, in MiB. In a container with a smaller limit, this limit. Source: `/proc/meminfo`, `MemTotal`, or the
    /// container's control group.
    pub memory_total: f64,
    /// Memory that programs can still get without swapping, in MiB. The kernel estimates this figure. Source: `/proc/meminfo`,
    /// `MemAvailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_available: Option<f64>,
    /// Memory that caches files, in MiB, as in the column `cache` of `free -w`. Source: `/proc/meminfo`, `Cached` +
    /// `SReclaimable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_cached: Option<f64>,
    /// Swap in use, in MiB. Absent if the host has no swap. Source: `/proc/meminfo`, `SwapTotal` −
    /// `SwapFree`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_used: Option<f64>,
    /// Total swap, in MiB. Absent if the host has no swap. Source: `/proc/meminfo`, `SwapTotal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_total: Option<f64>,
    /// Used space of the root file system, in GiB, as `df` counts it. Source: `statvfs("/")`.
    pub disk_used: f64,
    /// Size of the root file system, in GiB. Source: `statvfs("/")`.
    pub disk_total: f64,
    /// Every file system with data, sorted by mount point. A file system that is mounted twice is listed once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Every whole block device. Partitions, RAM disks and loop devices are left out. Source:
    /// `/proc/diskstats`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk_io: Vec<DiskIo>,
    /// Time since boot, in seconds. Source: `/proc/uptime`.
    pub uptime: u64,
    /// Load averages. In a container with smaller limits, the agent computes them from the processes that run or wait without
    /// interruption. Source: `/proc/loadavg`, or `processes`.
    pub load_avg: LoadAverage,
    /// Every network interface. Source: `/proc/net/dev`.
    pub network: Vec<NetworkInterface>,
    /// How long work waited for CPU, memory and I/O. Absent if the kernel does not report it. Source:
    /// `/proc/pressure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressures>,
    /// The host's temperature sensors. The sensors of a sleeping GPU are left out, because to read them would wake the GPU. Source:
    /// `/sys/class/hwmon`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub temperatures: Vec<Temperature>,
    /// Sensors that do not measure temperature: fans, voltage, current, power and humidity. The array has at most 256 sensors. Absent
    /// if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensors: Vec<SensorReading>,
    /// The failed units of systemd, sorted by name. The array has at most 256 units. Absent if systemd does not run, does not
    /// answer, or refuses the agent. Source: systemd's `ListUnitsFiltered`, by D-Bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_units: Option<Vec<FailedUnit>>,
    /// The units of systemd: first every failed unit and then every unit that starts or stops, each sorted by name, and then the
    /// busiest units, the busiest first. The setting `UNITS` is the number of busiest units. The scopes of containers are left out, because they are in the section `containers`. Absent if
    /// systemd does not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
    /// GPUs of NVIDIA, AMD and Intel. Absent if there are none. GPUs of NVIDIA are absent if the library of their driver is missing or
    /// does not answer. Sources: NVML, `/sys/class/drm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Vec<Gpu>>,
    /// The number of processes, by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessCounts>,
    /// Open files of the whole host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_handles: Option<FileHandles>,
    /// The RAID arrays of the kernel's `md` driver. Absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raid: Vec<RaidArray>,
    /// Batteries, mains adapters and other power supplies. Absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub power_supplies: Vec<PowerSupply>,
    /// The connections that the kernel tracks for its firewall and for network address translation. Absent if the kernel does not
    /// track connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<Conntrack>,
    /// The entropy of the kernel's random number generator. Absent with Linux 5.18 and later, where it is constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Entropy>,
    /// Whether the host's clock is synchronized. Absent if the agent may not ask the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStatus>,
    /// The memory controllers that count errors of the memory. Absent if there are none. The array has at most 64 controllers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_controllers: Vec<MemoryController>,
    /// ZFS. Absent if the kernel's module is not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zfs: Option<Zfs>,
    /// The mounted Btrfs file systems. Absent if there are none. The array has at most 64 file systems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub btrfs: Vec<BtrfsFileSystem>,
    /// The NVMe controllers. Absent if there are none. The array has at most 64 controllers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nvme: Vec<NvmeController>,
    /// The frequency of each core, in MHz, in the order of `cpu_cores`. Absent if the frequency of a core is not known. Also absent
    /// on x86 with kernels before Linux 5.19, because there each reading interrupts the core and can wait for 10 ms. Source:
    /// `scaling_cur_freq` in `/sys/devices/system/cpu/cpu*/cpufreq`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_mhz: Vec<f64>,
    /// How often the processors were too hot. Absent if the processors do not count it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_throttles: Vec<CpuThrottles>,
    /// The processes with the highest CPU use, highest first.
    pub top_processes: Vec<TopProcess>,
    /// The processes with the most resident memory, largest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_memory: Vec<TopProcess>,
    /// The processes with the highest I/O: bytes read and bytes written together, highest first. Processes without I/O are left
    /// out. If the agent may not read the I/O of other users' processes, these are units of systemd and containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_io: Vec<TopIo>,
    /// The length of `top_io`, if it must be made from units and containers. Not on the wire.
    #[serde(skip)]
    pub top_io_of_groups: Option<usize>,
    /// Figures that are not rounded, for the output in Prometheus format. Not on the wire.
    #[serde(skip)]
    pub exact: Exact,
}

/// Figures as the kernel counts them: not rounded, and counted since boot. A monitoring system calculates rates from such
/// figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exact {
    /// The time of each core. Source: `/proc/stat`.
    pub cpu_seconds: Vec<CpuSeconds>,
    /// Memory. None if it could not be read in this round.
    pub memory: Option<ExactMemory>,
    /// Load averages. None if they could not be read in this round.
    pub load_avg: Option<LoadAverage>,
    /// The names of devices with sensors. Source: `/sys/class/hwmon`.
    pub sensors: Arc<Sensors>,
    /// The frequency of each core: the core's number, and the frequency in Hz.
    pub cpu_hertz: Vec<(u32, u64)>,
    /// How often each core was too hot.
    pub core_throttles: Vec<CoreThrottles>,
}

/// How often a core was too hot. Source: `core_throttle_count` in `/sys/devices/system/cpu/cpu*/thermal_throttle`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreThrottles {
    /// The number of the processor.
    pub package: u32,
    /// The number of the core in the processor.
    pub core: u32,
    /// The count.
    pub throttles: u64,
}

/// The host's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExactMemory {
    /// Total memory. Source: `/proc/meminfo`, `MemTotal`.
    pub total: u64,
    /// Memory that programs can still get without swapping. Source: `/proc/meminfo`, `MemAvailable`.
    pub available: u64,
    /// Memory that caches files. Source: `/proc/meminfo`, `Cached` + `SReclaimable`.
    pub cached: Option<u64>,
    /// Total swap. Source: `/proc/meminfo`, `SwapTotal`.
    pub swap_total: u64,
    /// Swap in use. Source: `/proc/meminfo`, `SwapTotal` − `SwapFree`.
    pub swap_used: u64,
    /// Memory by type. None in a guest that has only a part of the host's memory.
    pub types: Option<MemoryTypes>,
}

/// The host's memory by type, in bytes. Source: `/proc/meminfo`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryTypes {
    /// `MemFree`.
    pub free: u64,
    /// `Cached`.
    pub cached: u64,
    /// `AnonPages`.
    pub anonymous: u64,
    /// `Mapped`.
    pub mapped: u64,
    /// `Active(file)`.
    pub active_file: u64,
    /// `Inactive(file)`.
    pub inactive_file: u64,
}

impl Default for SystemMetrics {
    /// The figures before the first reading of the host.
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
            sensors: Vec::new(),
            failed_units: None,
            units: Vec::new(),
            gpus: None,
            processes: None,
            file_handles: None,
            raid: Vec::new(),
            power_supplies: Vec::new(),
            conntrack: None,
            entropy: None,
            clock: None,
            memory_controllers: Vec::new(),
            zfs: None,
            btrfs: Vec::new(),
            nvme: Vec::new(),
            cpu_mhz: Vec::new(),
            cpu_throttles: Vec::new(),
            top_processes: Vec::new(),
            top_memory: Vec::new(),
            top_io: Vec::new(),
            top_io_of_groups: None,
            exact: Exact::default(),
        }
    }
}

/// Load averages over one, five and fifteen minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadAverage {
    /// The average over one minute.
    #[serde(rename = "1m")]
    pub one: f64,
    /// The average over five minutes.
    #[serde(rename = "5m")]
    pub five: f64,
    /// The average over fifteen minutes.
    #[serde(rename = "15m")]
    pub fifteen: f64,
}

/// How all cores together used their time: shares in percent, 0–100. The remaining share is idle time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// The share of programs, including programs with low priority and virtual machines on this host.
    pub user: f64,
    /// The share of the kernel when it works for programs.
    pub system: f64,
    /// The share in which cores were idle while a program waited for I/O.
    pub iowait: f64,
    /// The share in which the hypervisor ran other virtual machines.
    pub steal: f64,
    /// The share of the kernel when it works for devices: hardware and software interrupts.
    pub irq: f64,
}

/// The time of one core since boot, in seconds. Source: `/proc/stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CpuSeconds {
    /// The core's number.
    pub core: u32,
    /// The time in each mode, in the order of [`CpuSeconds::MODES`].
    pub modes: [f64; 8],
}

impl CpuSeconds {
    /// The kernel's names for the kinds of CPU time, in the order of `/proc/stat`. The time of virtual machines on this host
    /// is part of `user` and `nice`.
    pub const MODES: [&str; 8] = [
        "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
    ];
}

/// A file system with data. The data is on a block device, on a server in the network, or in a program (FUSE). The agent leaves
/// out the file systems of the kernel, file systems in memory, and the file systems of containers. The root file system is
/// always listed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// The mount point. Source: `/proc/self/mountinfo`.
    pub mount: String,
    /// The device or other source of the mount, e.g. `/dev/sda1`. Source: `/proc/self/mountinfo`.
    pub device: String,
    /// The file system's type, e.g. `ext4`. Source: `/proc/self/mountinfo`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Used space, in GiB, as `df` counts it. Absent while the file system has no figures. Source: `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<f64>,
    /// Size, in GiB. Absent while the file system has no figures. Source: `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
    /// Free space for users other than root, in GiB. Absent while the file system has no figures. Source: `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<f64>,
    /// Used inodes. Absent while the file system has no figures, and if the file system does not count inodes. Source:
    /// `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_used: Option<u64>,
    /// All inodes. Absent while the file system has no figures, and if the file system does not count inodes. Source: `statvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes_total: Option<u64>,
    /// True while the file system has not answered for more than 1 s, else absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
    /// Why a file system that is not stuck has no figures. Usually this is the kernel's error, for example `Permission denied`
    /// if the agent's user has no access. Absent if the file system has figures or is stuck. Source: `fstatvfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// True if the whole file system is read-only, else absent. After an error of a device, the kernel can make a file system
    /// read-only. Source: the file system's options in `/proc/self/mountinfo`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
    /// Whether the file system is stuck or answers with an error. An error because the agent has no permission does not count.
    /// Not on the wire.
    #[serde(skip)]
    pub failed: bool,
    /// The space in bytes. Not on the wire.
    #[serde(skip)]
    pub exact: Option<Space>,
}

/// The space of a file system, in bytes. Source: `statvfs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// The size.
    pub size: u64,
    /// Free space, including the space that is reserved for root.
    pub free: u64,
    /// Free space for users other than root.
    pub available: u64,
}

/// The traffic of one block device. Counters start at zero when the host boots or the device appears. Rates and `busy_percent`
/// cover the time since the previous reading.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskIo {
    /// The device's name, e.g. `sda`.
    pub device: String,
    /// The major and minor number of the device. Not on the wire.
    #[serde(skip)]
    pub number: (u32, u32),
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
    /// Time in which the device was busy, in milliseconds.
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
    /// The share of time in which the device was busy, in percent, 0–100.
    pub busy_percent: f64,
}

/// A network interface of the host. Counters start at zero when the host boots or the interface appears. Rates cover the time
/// since the previous reading.
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
    /// Received packets with errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors_recv: Option<u64>,
    /// Packets that were dropped before they were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops_sent: Option<u64>,
    /// Received packets that were dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drops_recv: Option<u64>,
    /// The speed of the link, in Mbit/s. Absent if the interface has no speed, and while there is no link. Source:
    /// `/sys/class/net/<name>/speed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<u64>,
    /// Whether the interface is up. An interface is up if it has a link, or if it is switched on and needs no link. Absent if
    /// the kernel does not report it. Source: `/sys/class/net/<name>/operstate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// The kind of interface. `physical`: a network device, including the network device of a virtual machine. `veth`: one end
    /// of a pair, usually for a container. `virtual`: any other interface without a device, such as a tunnel, VLAN or bond.
    /// Absent if the kernel does not report it. Source: `/sys/class/net/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<InterfaceKind>,
    /// Only for a veth: the name of the container that has the other end of the pair, without the slash. Source: netlink,
    /// `IFLA_LINK_NETNSID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Only for a veth: the number of the network namespace that has the other end of the pair. Not on the wire.
    #[serde(skip)]
    pub peer: Option<i32>,
}

/// The kind of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    /// A network device, including the network device of a virtual machine.
    Physical,
    /// The loopback interface.
    Loopback,
    /// A bridge, which connects other interfaces.
    Bridge,
    /// One end of a pair. The other end is usually in another network namespace.
    Veth,
    /// Any other interface without a device, such as a tunnel, VLAN or bond.
    Virtual,
    /// A value of a later version.
    #[serde(untagged)]
    Other(String),
}

/// How long work of the host or of a container waited for each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressures {
    /// How long work waited for a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Pressure>,
    /// How long work waited for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Pressure>,
    /// How long work waited for I/O.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Pressure>,
}

/// How long work waited for a resource: the kernel's pressure stall information (PSI).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// The time in which some work waited.
    pub some: Stalls,
    /// The time in which all work waited. Absent if the kernel does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Stalls>,
}

/// How much of the time work waited: shares in percent, 0–100, and the total time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Stalls {
    /// The share in the last 10 seconds.
    pub avg10: f64,
    /// The share in the last minute.
    pub avg60: f64,
    /// The share in the last five minutes.
    pub avg300: f64,
    /// The total waiting time since boot, or since the creation of the container's control group, in microseconds.
    #[serde(default)]
    pub total_us: u64,
}

impl NetworkInterface {
    /// Returns the same interface without its rates. If a new reading has failed, the old rates are out of date.
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

/// Open files of the whole host. Source: `/proc/sys/fs/file-nr`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHandles {
    /// The number of open files.
    pub open: u64,
    /// The limit of open files. 2^63 - 1 means no limit.
    pub max: u64,
}
