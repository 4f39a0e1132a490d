//! Figures of hardware and of parts of the kernel that not every host has.

use serde::{Deserialize, Serialize};

/// A RAID array of the kernel's `md` driver. Source: `/proc/mdstat`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RaidArray {
    /// The name of the array, e.g. `md0`.
    pub device: String,
    /// The RAID level, e.g. `raid1`. Absent if the kernel does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The state: `active`, `inactive`, `broken`, `recovering`, `resync`, `check` or `reshape`. A broken array has lost too many disks.
    pub state: String,
    /// The number of disks that the array needs. This is 0 for an inactive array.
    pub disks_required: u64,
    /// The number of working disks. This is 0 for an inactive array. If it is less than `disks_required`, the array is degraded.
    pub disks_active: u64,
    /// The number of failed disks.
    pub disks_failed: u64,
    /// The number of spare disks.
    pub disks_spare: u64,
    /// The size of the array, in blocks of 1 KiB.
    pub blocks: u64,
    /// The number of blocks that the running recovery, resync, check or reshape has finished. Absent if none is running. This is 0
    /// while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_synced: Option<u64>,
}

impl RaidArray {
    /// Whether a disk is missing.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.disks_active < self.disks_required
    }
}

/// The temperature of one sensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// The name of the device with the sensor, e.g. `coretemp`.
    pub device: String,
    /// The label of the sensor, e.g. `Package id 0`. For a sensor without a label, this is the kernel's name of the sensor, e.g.
    /// `temp1`.
    pub sensor: String,
    /// The device's path in `/sys/devices` as a short name, e.g. `nvme_nvme0`. Each device has a different name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chip: String,
    /// The kernel's name of the sensor, e.g. `temp1`. Each sensor of a device has a different name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub input: String,
    /// The temperature, in degrees Celsius.
    pub celsius: f64,
    /// The temperature above which the device is in danger, in degrees Celsius. Absent if the device does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<f64>,
    /// The temperature without rounding, in degrees Celsius. Not on the wire.
    #[serde(skip)]
    pub exact: f64,
}

/// The names of devices with sensors, and the names of their sensors. Includes sensors that do not measure temperature.
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
    /// The device's path in `/sys/devices` as a short name, e.g. `nvme_nvme0`.
    pub chip: String,
    /// The device's own name, e.g. `nvme`.
    pub device: String,
}

/// The label of one sensor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SensorLabel {
    /// The device, as in [`SensorChip::chip`].
    pub chip: String,
    /// The kernel's name of the sensor, e.g. `temp1`.
    pub sensor: String,
    /// The label.
    pub label: String,
}

/// The value of a sensor that does not measure temperature. Source: `/sys/class/hwmon`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensorReading {
    /// The name of the device with the sensor, e.g. `nct6779`.
    pub device: String,
    /// The label of the sensor, e.g. `Vcore`. For a sensor without a label, this is the kernel's name of the sensor, e.g. `fan1`.
    pub sensor: String,
    /// The device's path in `/sys/devices` as a short name. Each device has a different name.
    pub chip: String,
    /// The kernel's name of the sensor, e.g. `fan1`. A sensor of power can have two readings, with different kinds.
    pub input: String,
    /// What the sensor measures.
    pub kind: SensorKind,
    /// The value. The unit is that of `kind`: revolutions per minute, V, A, W or percent.
    pub value: f64,
}

/// What a sensor measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorKind {
    /// The speed of a fan, in revolutions per minute.
    Fan,
    /// A voltage, in V.
    Voltage,
    /// A current, in A.
    Current,
    /// The power at this moment, in W.
    Power,
    /// The power as an average over a time that the device chooses, in W.
    AveragePower,
    /// The relative humidity, in percent.
    Humidity,
    /// A value of a later version.
    #[serde(untagged)]
    Other(String),
}

/// A battery, a mains adapter or another power supply. Source: `/sys/class/power_supply/*/uevent`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PowerSupply {
    /// The kernel's name, e.g. `BAT0`.
    pub name: String,
    /// The type, e.g. `Battery`, `Mains`, `UPS` or `USB`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether a mains adapter provides power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// Whether a battery is in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    /// What the battery does: `Charging`, `Discharging`, `Not charging`, `Full` or `Unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The charge of the battery, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_percent: Option<f64>,
    /// The kernel's word for the charge, e.g. `Normal`, `Low` or `Critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_level: Option<String>,
    /// The number of charge cycles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle_count: Option<u64>,
    /// The stored energy, in Wh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<f64>,
    /// The energy of the full battery now, in Wh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_full: Option<f64>,
    /// The energy of the full battery when it was new, in Wh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_full_design: Option<f64>,
    /// The stored charge, in Ah.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<f64>,
    /// The charge of the full battery now, in Ah.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_full: Option<f64>,
    /// The charge of the full battery when it was new, in Ah.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_full_design: Option<f64>,
    /// The power that flows into or out of the battery, in W.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// The current, in A.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<f64>,
    /// The voltage, in V.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voltage: Option<f64>,
    /// The lowest voltage for which the battery is built, in V.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voltage_min_design: Option<f64>,
    /// The temperature, in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<f64>,
    /// The time until the battery is empty, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_to_empty: Option<u64>,
    /// The time until the battery is full, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_to_full: Option<u64>,
    /// The chemistry of the battery, e.g. `Li-ion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub technology: Option<String>,
    /// The manufacturer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// The name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
}

/// One GPU. A figure that the GPU does not report is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// The number of the GPU. A GPU of NVIDIA has the number of its driver. Another GPU has the number in `card`.
    pub index: u32,
    /// The model, e.g. `NVIDIA A100-SXM4-40GB`. If the driver does not know the model, this is the manufacturer and the PCI numbers of
    /// the device, e.g. `Intel GPU 8086:9bc4`.
    pub name: String,
    /// The share of time in which the GPU was computing, in percent, 0–100. The GPU measures this share over its own sampling
    /// period of up to 1 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_percent: Option<f64>,
    /// Memory in use, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<f64>,
    /// Total memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<f64>,
    /// The temperature, in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celsius: Option<f64>,
    /// The power that the GPU uses, in watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watts: Option<f64>,
    /// `true` while the GPU sleeps, else absent. A sleeping GPU has no figures, because a question to the driver would wake the
    /// GPU. `name` is empty if the GPU has slept since the start of the agent. Source: `power/runtime_status` of the PCI device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asleep: Option<bool>,
    /// The kernel's name of the GPU, e.g. `card0`. Absent for GPUs of NVIDIA. Source: `/sys/class/drm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
    /// The frequency of the GPU, in MHz. Only for GPUs of Intel. This is 0 while the GPU is idle. Source: `gt_act_freq_mhz` of the
    /// driver i915, `act_freq` of the driver xe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_mhz: Option<f64>,
    /// The share of time since the previous reading in which the GPU was in its idle state RC6, in percent, 0–100. Only for GPUs of
    /// Intel. The rest of the time is not the share in which the GPU was busy, because an idle GPU enters RC6 after a delay. Source:
    /// `rc6_residency_ms` of the driver i915, `idle_residency_ms` of the driver xe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rc6_percent: Option<f64>,
    /// Memory in use and total memory, in bytes. Only for GPUs of AMD. Not on the wire.
    #[serde(skip)]
    pub exact_memory: [Option<u64>; 2],
}

/// The connections that the kernel tracks for its firewall and for network address translation, in the agent's network namespace. If
/// the table is full, the kernel drops packets of new connections. Source: `/proc/sys/net/netfilter`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    /// The number of tracked connections. Source: `nf_conntrack_count`.
    pub entries: u64,
    /// The maximum number of tracked connections. Source: `nf_conntrack_max`.
    pub limit: u64,
}

/// The entropy of the kernel's random number generator. Source: `/proc/sys/kernel/random`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entropy {
    /// Available entropy, in bits. Reads of `/dev/random` block while this is low. Source: `entropy_avail`.
    pub available_bits: u64,
    /// The size of the pool, in bits. Source: `poolsize`.
    pub pool_bits: u64,
}

/// What the kernel knows about the host's clock. A program such as chrony or systemd-timesyncd tells the kernel these figures. Source:
/// `adjtimex(2)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// Whether a program synchronizes the clock. The kernel sets this to false if it has heard nothing from the program for hours.
    pub synchronized: bool,
    /// The difference between the clock and the reference clock that the kernel has yet to correct, in seconds.
    pub offset_seconds: f64,
    /// The maximum error, in seconds. The kernel increases it all the time, up to 16 s.
    pub max_error_seconds: f64,
    /// The estimated error, in seconds.
    pub estimated_error_seconds: f64,
}

/// The errors that a memory controller has counted (EDAC). Source: `/sys/devices/system/edac/mc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryController {
    /// The kernel's name, e.g. `mc0`.
    pub name: String,
    /// The type, e.g. `Skylake Socket#0 IMC#0`. Absent if the driver does not report it. Source: `mc_name`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Errors that the memory has corrected. Source: `ce_count`.
    pub correctable_errors: u64,
    /// Errors that could not be corrected. Data in memory was lost. Source: `ue_count`.
    pub uncorrectable_errors: u64,
}

/// ZFS. Source: `/proc/spl/kstat/zfs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zfs {
    /// The imported pools, sorted by name. The array has at most 64 pools.
    #[serde(default)]
    pub pools: Vec<ZfsPool>,
    /// The cache in memory. Absent if it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arc: Option<ZfsArc>,
}

/// A ZFS pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZfsPool {
    /// The name of the pool.
    pub name: String,
    /// The state: `online`, `degraded`, `faulted`, `offline`, `removed`, `unavail` or `suspended`. Only an online pool is healthy. Source:
    /// `<pool>/state`.
    pub state: String,
}

/// The cache of ZFS in memory (ARC). Source: `arcstats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZfsArc {
    /// The size, in bytes. Source: `size`.
    pub size: u64,
    /// The size that ZFS wants at this moment, in bytes. Source: `c`.
    pub target: u64,
    /// The largest possible target, in bytes. Source: `c_max`.
    pub target_max: u64,
    /// Reads that found their data in the cache. Source: `hits`.
    pub hits: u64,
    /// Reads that did not find their data in the cache. Source: `misses`.
    pub misses: u64,
}

/// A mounted Btrfs file system. Source: `/sys/fs/btrfs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BtrfsFileSystem {
    /// The UUID.
    pub uuid: String,
    /// The label. Absent if the file system has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The devices that have counts of errors, sorted by number. The array has at most 64 devices. It is empty with kernels before
    /// Linux 5.14.
    #[serde(default)]
    pub devices: Vec<BtrfsDevice>,
}

/// A device of a Btrfs file system. The counts are stored in the file system, and begin at zero only if a person resets them. Source:
/// `/sys/fs/btrfs/<uuid>/devinfo/<id>`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BtrfsDevice {
    /// The number of the device in its file system, as `btrfs filesystem show` prints it.
    pub id: u64,
    /// Whether the device is missing. Source: `missing`.
    pub missing: bool,
    /// Failed writes. Source: `write_errs` in `error_stats`, as for the other counts.
    pub write_errors: u64,
    /// Failed reads.
    pub read_errors: u64,
    /// Failed flushes.
    pub flush_errors: u64,
    /// Blocks with a wrong checksum.
    pub corruption_errors: u64,
    /// Blocks that are older than they must be.
    pub generation_errors: u64,
}

impl BtrfsDevice {
    /// Returns the count of each type of error, with the name that the btrfs tools and node_exporter give to the type.
    #[must_use]
    pub fn errors(&self) -> [(&'static str, u64); 5] {
        [
            ("write", self.write_errors),
            ("read", self.read_errors),
            ("flush", self.flush_errors),
            ("corruption", self.corruption_errors),
            ("generation", self.generation_errors),
        ]
    }
}

/// An NVMe controller. Source: `/sys/class/nvme`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvmeController {
    /// The kernel's name, e.g. `nvme0`.
    pub name: String,
    /// The model, e.g. `Samsung SSD 970 PRO 512GB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The version of the firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// The state: `live` for a controller that works, else e.g. `resetting`, `connecting` or `dead`. Absent with kernels before Linux
    /// 4.15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The number of the controller in its NVM subsystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_id: Option<String>,
}

/// How often one processor was so hot that it had to slow down, since the host booted. Source:
/// `/sys/devices/system/cpu/cpu*/thermal_throttle`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuThrottles {
    /// The number of the processor.
    pub package: u32,
    /// How often the whole processor was too hot. Absent if the processor does not count it. Source: `package_throttle_count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttles: Option<u64>,
    /// How often the cores of the processor were too hot, all cores together. Source: `core_throttle_count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_throttles: Option<u64>,
}
