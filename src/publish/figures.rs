//! The table of metrics. Each row has the name, unit, labels and help text of a figure of the snapshot.
//!
//! Names and units follow the conventions of Prometheus. If node_exporter or cAdvisor has a metric with the same meaning, the
//! figure has the name and labels of that metric. Dashboards and alerts for these programs then also work with the agent. All other
//! names begin with `system_agent_`.
//!
//! The number of different values of each label is limited. Therefore, the table has no metrics of processes and of veth
//! interfaces, because new processes and new veth interfaces appear all the time. For a scrape, the table in `kernel.rs` adds veth
//! interfaces, because node_exporter has them.
//!
//! This file is long: it is a table with one row for each family. The metrics are written in the order of the rows.

pub(super) mod collectors;
pub(super) mod containers;
pub(super) mod ended;
mod engine_containers;
pub(super) mod kernel;

use std::time::{Duration, SystemTime};

use ended::EndedContainer;

use crate::model::{
    BtrfsDevice, CpuSeconds, Disk, DiskIo, ExactMemory, Gpu, InterfaceKind, Kernel,
    MemoryController, NetworkInterface, OutputHealth, Outputs, PowerSupply, Pressures, RaidArray,
    SensorKind, Snapshot, SourceHealth, SourceStatus, Status, SystemMetrics, Timestamp, Unit,
    ZfsArc,
};

const MIB: f64 = 1024.0 * 1024.0;

/// A row of the table: a metric family. The samples of a family differ in the values of their labels.
pub(super) struct FigureFamily {
    /// The name in Prometheus. The suffix `_total` is appended to the name of a counter.
    pub(super) name: &'static str,
    pub(super) kind: MetricKind,
    /// The unit, in the notation of the Unified Code for Units of Measure.
    #[cfg_attr(
        not(any(test, feature = "otlp")),
        expect(dead_code, reason = "outputs that publish units need this field")
    )]
    pub(super) unit: &'static str,
    /// The names of the labels that every sample has, in this order.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test compares the samples with these names")
    )]
    pub(super) labels: &'static [&'static str],
    /// The fields of the snapshot that contain the figures. The names are the names in docs/snapshot.md.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test checks that the table is complete")
    )]
    pub(super) fields: &'static [&'static str],
    pub(super) help: &'static str,
    read: fn(&FigureSource<'_>, &mut Samples<'_>),
}

/// The kind of a metric. A counter never decreases. A gauge can decrease. Of an unknown kind are figures of the kernel whose list is open,
/// so that nobody has said of each which kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricKind {
    Gauge,
    Counter,
    /// Prometheus calls this type `untyped`.
    Unknown,
}

/// The snapshot from which the samples are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct FigureSource<'s> {
    pub(super) snapshot: &'s Snapshot,
    /// The figures that are read on request. None if they were not read.
    pub(super) kernel: Option<&'s Kernel>,
    /// Containers that have ended.
    pub(super) ended: &'s [EndedContainer],
    /// The time between two snapshots.
    pub(super) interval: Duration,
}

/// The function that receives each sample of a family. The arguments are the names and values of the sample's labels, and the
/// sample's value.
pub(super) type Samples<'f> = dyn FnMut(&[(&str, &str)], f64) + 'f;

impl FigureFamily {
    /// Passes each sample of the family to the function `samples`.
    pub(super) fn samples(&self, source: &FigureSource<'_>, samples: &mut Samples<'_>) {
        (self.read)(source, samples);
    }
}

/// Returns all rows of the table.
pub(super) fn families() -> impl Iterator<Item = &'static FigureFamily> {
    let containers = [containers::CONTAINERS, engine_containers::ENGINE_CONTAINERS];
    let all = [HOST].into_iter().chain(containers).chain([AGENT]);
    all.flatten()
}

const NONE: &[&str] = &[];
const FILE_SYSTEM: &[&str] = &["device", "fstype", "mountpoint"];
const SENSOR: &[&str] = &["chip", "sensor"];
const GPU: &[&str] = &["gpu", "name"];
const DEVICE: &[&str] = &["device"];
const POWER_SUPPLY: &[&str] = &["power_supply"];
const UNIT: &[&str] = &["name"];
/// The states of a unit in `node_systemd_unit_state`, as in node_exporter.
const UNIT_STATES: [&str; 5] = ["activating", "active", "deactivating", "failed", "inactive"];
const SOURCE: &[&str] = &["source"];
const OUTPUT: &[&str] = &["output"];

// The columns are: name, unit, labels, fields, help text, and the function that reads the samples.

/// The metrics of the host. Most of these metrics have the names that node_exporter uses.
#[rustfmt::skip]
static HOST: &[FigureFamily] = &[
    counter("node_cpu_seconds", "s", &["cpu", "mode"], &["system.cpu_percent", "system.cpu_cores", "system.cpu_times"],
        "Time that each core has spent in each mode, in seconds", cpu_seconds),
    gauge("node_load1", "1", NONE, &["system.load_avg"],
        "Load average over 1 minute",
        |source, out| host(source, out, |host| Some(host.exact.load_avg?.one))),
    gauge("node_load5", "1", NONE, NONE,
        "Load average over 5 minutes",
        |source, out| host(source, out, |host| Some(host.exact.load_avg?.five))),
    gauge("node_load15", "1", NONE, NONE,
        "Load average over 15 minutes",
        |source, out| host(source, out, |host| Some(host.exact.load_avg?.fifteen))),

    gauge("node_memory_MemTotal_bytes", "By", NONE, &["system.memory_total"],
        "Total memory of the host",
        |source, out| memory(source, out, |memory| Some(memory.total))),
    gauge("node_memory_MemAvailable_bytes", "By", NONE, &["system.memory_available", "system.memory_used"],
        "Memory that programs can still use without swapping",
        |source, out| memory(source, out, |memory| Some(memory.available))),
    gauge("system_agent_memory_cached_bytes", "By", NONE, &["system.memory_cached"],
        "Memory that caches files, including reclaimable kernel memory",
        |source, out| memory(source, out, |memory| memory.cached)),
    gauge("node_memory_SwapTotal_bytes", "By", NONE, &["system.swap_total"],
        "Total swap space",
        |source, out| memory(source, out, |memory| Some(memory.swap_total))),
    gauge("node_memory_SwapFree_bytes", "By", NONE, &["system.swap_used"],
        "Free swap space",
        |source, out| memory(source, out, |memory| Some(memory.swap_total.saturating_sub(memory.swap_used)))),

    gauge("node_filesystem_size_bytes", "By", FILE_SYSTEM, &["system.disk_total", "system.disks[].total"],
        "Size of the file system",
        |source, out| file_systems(source, out, |disk| Some(disk.exact?.size as f64))),
    gauge("node_filesystem_free_bytes", "By", FILE_SYSTEM, &["system.disk_used", "system.disks[].used"],
        "Free space of the file system, including space reserved for root",
        |source, out| file_systems(source, out, |disk| Some(disk.exact?.free as f64))),
    gauge("node_filesystem_avail_bytes", "By", FILE_SYSTEM, &["system.disks[].available", "system.disks[].mount", "system.disks[].device", "system.disks[].type"],
        "Free space of the file system for users other than root",
        |source, out| file_systems(source, out, |disk| Some(disk.exact?.available as f64))),
    gauge("node_filesystem_files", "{inode}", FILE_SYSTEM, &["system.disks[].inodes_total"],
        "Inodes of the file system",
        |source, out| file_systems(source, out, |disk| disk.inodes_total.map(|inodes| inodes as f64))),
    gauge("node_filesystem_files_free", "{inode}", FILE_SYSTEM, &["system.disks[].inodes_used"],
        "Free inodes of the file system",
        |source, out| file_systems(source, out, |disk| Some((disk.inodes_total? - disk.inodes_used?) as f64))),
    gauge("node_filesystem_device_error", "1", FILE_SYSTEM, &["system.disks[].error"],
        "Whether the file system cannot be read: it returns an error, or no answer within a second. Missing permission does not count",
        |source, out| file_systems(source, out, |disk| Some(is(disk.failed)))),
    gauge("node_filesystem_readonly", "1", FILE_SYSTEM, &["system.disks[].readonly"],
        "Whether the whole file system is read-only",
        |source, out| file_systems(source, out, |disk| Some(is(disk.readonly)))),

    counter("node_disk_read_bytes", "By", DEVICE, &["system.disk_io[].read_bytes", "system.disk_io[].device"],
        "Bytes read",
        |source, out| block_devices(source, out, |disk| disk.read_bytes as f64)),
    counter("node_disk_written_bytes", "By", DEVICE, &["system.disk_io[].write_bytes"],
        "Bytes written",
        |source, out| block_devices(source, out, |disk| disk.write_bytes as f64)),
    counter("node_disk_reads_completed", "{operation}", DEVICE, &["system.disk_io[].read_ops"],
        "Read operations",
        |source, out| block_devices(source, out, |disk| disk.read_ops as f64)),
    counter("node_disk_writes_completed", "{operation}", DEVICE, &["system.disk_io[].write_ops"],
        "Write operations",
        |source, out| block_devices(source, out, |disk| disk.write_ops as f64)),
    counter("node_disk_io_time_seconds", "s", DEVICE, &["system.disk_io[].busy_ms"],
        "Time in which the device was busy, in seconds",
        |source, out| block_devices(source, out, |disk| disk.busy_ms as f64 / 1000.0)),

    counter("node_network_receive_bytes", "By", DEVICE, &["system.network[].bytes_recv", "system.network[].name"],
        "Bytes received",
        |source, out| interfaces(source, out, |one| Some(one.bytes_recv as f64))),
    counter("node_network_transmit_bytes", "By", DEVICE, &["system.network[].bytes_sent"],
        "Bytes sent",
        |source, out| interfaces(source, out, |one| Some(one.bytes_sent as f64))),
    counter("node_network_receive_packets", "{packet}", DEVICE, &["system.network[].packets_recv"],
        "Packets received",
        |source, out| interfaces(source, out, |one| Some(one.packets_recv as f64))),
    counter("node_network_transmit_packets", "{packet}", DEVICE, &["system.network[].packets_sent"],
        "Packets sent",
        |source, out| interfaces(source, out, |one| Some(one.packets_sent as f64))),
    counter("node_network_receive_errs", "{packet}", DEVICE, &["system.network[].errors_recv"],
        "Received packets with errors",
        |source, out| interfaces(source, out, |one| Some(one.errors_recv? as f64))),
    counter("node_network_transmit_errs", "{packet}", DEVICE, &["system.network[].errors_sent"],
        "Packets that were not sent because of errors",
        |source, out| interfaces(source, out, |one| Some(one.errors_sent? as f64))),
    counter("node_network_receive_drop", "{packet}", DEVICE, &["system.network[].drops_recv"],
        "Received packets that were dropped",
        |source, out| interfaces(source, out, |one| Some(one.drops_recv? as f64))),
    counter("node_network_transmit_drop", "{packet}", DEVICE, &["system.network[].drops_sent"],
        "Packets that were dropped before sending",
        |source, out| interfaces(source, out, |one| Some(one.drops_sent? as f64))),
    gauge("system_agent_network_up", "1", DEVICE, &["system.network[].up"],
        "Whether the interface is up: it has a link, or it needs no link",
        |source, out| interfaces(source, out, |one| one.up.map(is))),
    gauge("node_network_speed_bytes", "By/s", DEVICE, &["system.network[].speed"],
        "Speed of the link, in bytes per second",
        // The field is in megabits per second.
        |source, out| interfaces(source, out, |one| Some(one.speed? as f64 * 1e6 / 8.0))),

    counter("node_pressure_cpu_waiting_seconds", "s", NONE, &["system.pressure.cpu.some"], CPU_WAITING,
        |source, out| host_pressure(source, out, |all| Some(all.cpu?.some.total_us))),
    counter("system_agent_pressure_cpu_stalled_seconds", "s", NONE, &["system.pressure.cpu.full"], CPU_STALLED,
        |source, out| host_pressure(source, out, |all| Some(all.cpu?.full?.total_us))),
    counter("node_pressure_memory_waiting_seconds", "s", NONE, &["system.pressure.memory.some"], MEMORY_WAITING,
        |source, out| host_pressure(source, out, |all| Some(all.memory?.some.total_us))),
    counter("node_pressure_memory_stalled_seconds", "s", NONE, &["system.pressure.memory.full"], MEMORY_STALLED,
        |source, out| host_pressure(source, out, |all| Some(all.memory?.full?.total_us))),
    counter("node_pressure_io_waiting_seconds", "s", NONE, &["system.pressure.io.some"], IO_WAITING,
        |source, out| host_pressure(source, out, |all| Some(all.io?.some.total_us))),
    counter("node_pressure_io_stalled_seconds", "s", NONE, &["system.pressure.io.full"], IO_STALLED,
        |source, out| host_pressure(source, out, |all| Some(all.io?.full?.total_us))),

    gauge("node_hwmon_temp_celsius", "Cel", SENSOR, &["system.temperatures[].celsius", "system.temperatures[].chip", "system.temperatures[].input"],
        "Temperature at the sensor",
        |source, out| temperatures(source, out, |one| Some(one.exact))),
    gauge("node_hwmon_temp_crit_celsius", "Cel", SENSOR, &["system.temperatures[].critical"],
        "Critical temperature of the device at the sensor",
        |source, out| temperatures(source, out, |one| one.critical)),
    gauge("node_hwmon_fan_rpm", "1", SENSOR, &["system.sensors[].value", "system.sensors[].kind", "system.sensors[].chip", "system.sensors[].input"],
        "Speed of the fan, in revolutions per minute",
        |source, out| sensors(source, out, &SensorKind::Fan)),
    gauge("node_hwmon_in_volts", "1", SENSOR, NONE,
        "Voltage at the sensor, in V",
        |source, out| sensors(source, out, &SensorKind::Voltage)),
    gauge("node_hwmon_curr_amps", "1", SENSOR, NONE,
        "Current at the sensor, in A",
        |source, out| sensors(source, out, &SensorKind::Current)),
    gauge("node_hwmon_power_watt", "1", SENSOR, NONE,
        "Power at the sensor, in W",
        |source, out| sensors(source, out, &SensorKind::Power)),
    gauge("node_hwmon_power_average_watt", "1", SENSOR, NONE,
        "Average power at the sensor, in W",
        |source, out| sensors(source, out, &SensorKind::AveragePower)),
    gauge("system_agent_hwmon_humidity_percent", "1", SENSOR, NONE,
        "Relative humidity at the sensor, in percent",
        |source, out| sensors(source, out, &SensorKind::Humidity)),
    gauge("node_hwmon_sensor_label", "1", &["chip", "label", "sensor"], &["system.temperatures[].sensor"],
        "Name that the device gives to the sensor", sensor_labels),
    gauge("node_hwmon_chip_names", "1", &["chip", "chip_name"], &["system.temperatures[].device"],
        "Name of the device with sensors", chip_names),

    gauge("system_agent_gpu_busy_ratio", "1", GPU, &["system.gpus[].busy_percent", "system.gpus[].index", "system.gpus[].name"],
        "Share of time in which the GPU was busy",
        |source, out| gpus(source, out, |gpu| gpu.busy_percent.map(ratio))),
    gauge("system_agent_gpu_memory_used_bytes", "By", GPU, &["system.gpus[].memory_used"],
        "Used memory of the GPU",
        |source, out| gpus(source, out, |gpu| gpu.memory_used.map(|mib| mib * MIB))),
    gauge("system_agent_gpu_memory_bytes", "By", GPU, &["system.gpus[].memory_total"],
        "Total memory of the GPU",
        |source, out| gpus(source, out, |gpu| gpu.memory_total.map(|mib| mib * MIB))),
    gauge("system_agent_gpu_temperature_celsius", "Cel", GPU, &["system.gpus[].celsius"],
        "Temperature of the GPU",
        |source, out| gpus(source, out, |gpu| gpu.celsius)),
    gauge("system_agent_gpu_power_watts", "W", GPU, &["system.gpus[].watts"],
        "Power consumption of the GPU",
        |source, out| gpus(source, out, |gpu| gpu.watts)),
    gauge("system_agent_gpu_frequency_hertz", "Hz", GPU, &["system.gpus[].frequency_mhz"],
        "Frequency of the GPU, in Hz",
        |source, out| gpus(source, out, |gpu| gpu.frequency_mhz.map(|mhz| mhz * 1e6))),
    gauge("system_agent_gpu_rc6_ratio", "1", GPU, &["system.gpus[].rc6_percent"],
        "Share of time in which the GPU was in its idle state RC6",
        |source, out| gpus(source, out, |gpu| gpu.rc6_percent.map(ratio))),
    gauge("node_drm_gpu_busy_percent", "%", &["card"], &["system.gpus[].card"],
        "Share of time in which the GPU of AMD was busy, in percent",
        |source, out| cards(source, out, |gpu| gpu.busy_percent)),
    gauge("node_drm_memory_vram_used_bytes", "By", &["card"], NONE,
        "Used memory of the GPU of AMD",
        |source, out| cards(source, out, |gpu| gpu.exact_memory[0].map(|bytes| bytes as f64))),
    gauge("node_drm_memory_vram_size_bytes", "By", &["card"], NONE,
        "Total memory of the GPU of AMD",
        |source, out| cards(source, out, |gpu| gpu.exact_memory[1].map(|bytes| bytes as f64))),

    gauge("system_agent_processes", "{process}", &["state"], &["system.processes.running", "system.processes.sleeping", "system.processes.blocked",
            "system.processes.stopped", "system.processes.zombie", "system.processes.total"],
        "Number of processes in each state", process_states),
    gauge("node_processes_state", "{process}", &["state"], NONE,
        "Number of processes in each state, by the letter of the state. S includes idle threads of the kernel", process_letters),
    gauge("node_processes_pids", "{process}", NONE, NONE,
        "Number of processes",
        |source, out| host(source, out, |host| Some(host.processes?.total as f64))),
    gauge("node_processes_threads", "{thread}", NONE, &["system.processes.threads"],
        "Number of threads of all processes",
        |source, out| host(source, out, |host| Some(host.processes?.threads as f64))),

    gauge("node_filefd_allocated", "{file}", NONE, &["system.file_handles.open"],
        "Number of open files on the host",
        |source, out| host(source, out, |host| Some(host.file_handles?.open as f64))),
    gauge("node_filefd_maximum", "{file}", NONE, &["system.file_handles.max"],
        "Limit on open files on the host",
        |source, out| host(source, out, |host| Some(host.file_handles?.max as f64))),

    gauge("node_md_disks", "{disk}", &["device", "state"],
        &["system.raid[].disks_active", "system.raid[].disks_failed", "system.raid[].disks_spare"],
        "Number of disks of the RAID array, by state",
        |source, out| {
            for one in list(source, |host| &host.raid) {
                let counts = [("active", one.disks_active), ("failed", one.disks_failed), ("spare", one.disks_spare)];
                for (state, count) in counts {
                    out(&[("device", &one.device), ("state", state)], count as f64);
                }
            }
        }),
    gauge("node_md_disks_required", "{disk}", DEVICE, &["system.raid[].disks_required"],
        "Number of disks that the RAID array needs",
        |source, out| raid(source, out, |one| Some(one.disks_required as f64))),
    gauge("node_md_blocks", "1", DEVICE, &["system.raid[].blocks"],
        "Size of the RAID array, in blocks of 1 KiB",
        |source, out| raid(source, out, |one| Some(one.blocks as f64))),
    gauge("node_md_blocks_synced", "1", DEVICE, &["system.raid[].blocks_synced"],
        "Number of blocks of the RAID array that are in sync",
        |source, out| raid(source, out, |one| Some(one.blocks_synced.unwrap_or(one.blocks) as f64))),
    gauge("node_md_state", "1", &["device", "state"], &["system.raid[].state", "system.raid[].device"],
        "State of the RAID array: 1 for the current state, 0 for the other states",
        |source, out| {
            for one in list(source, |host| &host.raid) {
                const STATES: [&str; 5] = ["active", "check", "inactive", "recovering", "resync"];
                for state in STATES {
                    out(&[("device", &one.device), ("state", state)], is(one.state == state));
                }
                // node_exporter does not have the states `broken` and `reshape`.
                if !STATES.contains(&&*one.state) {
                    out(&[("device", &one.device), ("state", &one.state)], 1.0);
                }
            }
        }),

    gauge("node_power_supply_online", "1", POWER_SUPPLY, &["system.power_supplies[].online"],
        "Whether the power supply provides power",
        |source, out| power_supplies(source, out, |one| Some(is(one.online?)))),
    gauge("node_power_supply_present", "1", POWER_SUPPLY, &["system.power_supplies[].present"],
        "Whether the battery is in its place",
        |source, out| power_supplies(source, out, |one| Some(is(one.present?)))),
    gauge("node_power_supply_capacity", "1", POWER_SUPPLY, &["system.power_supplies[].capacity_percent"],
        "Charge of the battery, in percent",
        |source, out| power_supplies(source, out, |one| one.capacity_percent)),
    gauge("node_power_supply_cyclecount", "1", POWER_SUPPLY, &["system.power_supplies[].cycle_count"],
        "Number of charge cycles of the battery",
        |source, out| power_supplies(source, out, |one| Some(one.cycle_count? as f64))),
    gauge("node_power_supply_energy_watthour", "1", POWER_SUPPLY, &["system.power_supplies[].energy"],
        "Stored energy, in Wh",
        |source, out| power_supplies(source, out, |one| one.energy)),
    gauge("node_power_supply_energy_full", "1", POWER_SUPPLY, &["system.power_supplies[].energy_full"],
        "Energy of the full battery now, in Wh",
        |source, out| power_supplies(source, out, |one| one.energy_full)),
    gauge("node_power_supply_energy_full_design", "1", POWER_SUPPLY, &["system.power_supplies[].energy_full_design"],
        "Energy of the full battery when it was new, in Wh",
        |source, out| power_supplies(source, out, |one| one.energy_full_design)),
    gauge("node_power_supply_charge_ampere", "1", POWER_SUPPLY, &["system.power_supplies[].charge"],
        "Stored charge, in Ah",
        |source, out| power_supplies(source, out, |one| one.charge)),
    gauge("node_power_supply_charge_full", "1", POWER_SUPPLY, &["system.power_supplies[].charge_full"],
        "Charge of the full battery now, in Ah",
        |source, out| power_supplies(source, out, |one| one.charge_full)),
    gauge("node_power_supply_charge_full_design", "1", POWER_SUPPLY, &["system.power_supplies[].charge_full_design"],
        "Charge of the full battery when it was new, in Ah",
        |source, out| power_supplies(source, out, |one| one.charge_full_design)),
    gauge("node_power_supply_power_watt", "1", POWER_SUPPLY, &["system.power_supplies[].power"],
        "Power that flows into or out of the battery, in W",
        |source, out| power_supplies(source, out, |one| one.power)),
    gauge("node_power_supply_current_ampere", "1", POWER_SUPPLY, &["system.power_supplies[].current"],
        "Current of the power supply, in A",
        |source, out| power_supplies(source, out, |one| one.current)),
    gauge("node_power_supply_voltage_volt", "1", POWER_SUPPLY, &["system.power_supplies[].voltage"],
        "Voltage of the power supply, in V",
        |source, out| power_supplies(source, out, |one| one.voltage)),
    gauge("node_power_supply_voltage_min_design", "1", POWER_SUPPLY, &["system.power_supplies[].voltage_min_design"],
        "Lowest voltage for which the battery is built, in V",
        |source, out| power_supplies(source, out, |one| one.voltage_min_design)),
    gauge("node_power_supply_temp_celsius", "1", POWER_SUPPLY, &["system.power_supplies[].celsius"],
        "Temperature of the power supply, in degrees Celsius",
        |source, out| power_supplies(source, out, |one| one.celsius)),
    gauge("node_power_supply_time_to_empty_seconds", "s", POWER_SUPPLY, &["system.power_supplies[].seconds_to_empty"],
        "Time until the battery is empty, in seconds",
        |source, out| power_supplies(source, out, |one| Some(one.seconds_to_empty? as f64))),
    gauge("node_power_supply_time_to_full_seconds", "s", POWER_SUPPLY, &["system.power_supplies[].seconds_to_full"],
        "Time until the battery is full, in seconds",
        |source, out| power_supplies(source, out, |one| Some(one.seconds_to_full? as f64))),
    gauge("node_power_supply_info", "1",
        &["power_supply", "type", "capacity_level", "manufacturer", "model_name", "serial_number", "status", "technology"],
        &["system.power_supplies[].name", "system.power_supplies[].type", "system.power_supplies[].capacity_level",
            "system.power_supplies[].manufacturer", "system.power_supplies[].model_name", "system.power_supplies[].serial_number",
            "system.power_supplies[].status", "system.power_supplies[].technology"],
        "Properties of the power supply", power_supply_info),

    gauge("node_nf_conntrack_entries", "{connection}", NONE, &["system.conntrack.entries"],
        "Number of connections that the kernel tracks",
        |source, out| host(source, out, |host| Some(host.conntrack?.entries as f64))),
    gauge("node_nf_conntrack_entries_limit", "{connection}", NONE, &["system.conntrack.limit"],
        "Maximum number of connections that the kernel tracks",
        |source, out| host(source, out, |host| Some(host.conntrack?.limit as f64))),
    gauge("node_entropy_available_bits", "bit", NONE, &["system.entropy.available_bits"],
        "Available entropy of the kernel's random number generator, in bits",
        |source, out| host(source, out, |host| Some(host.entropy?.available_bits as f64))),
    gauge("node_entropy_pool_size_bits", "bit", NONE, &["system.entropy.pool_bits"],
        "Size of the entropy pool of the kernel's random number generator, in bits",
        |source, out| host(source, out, |host| Some(host.entropy?.pool_bits as f64))),
    gauge("node_timex_sync_status", "1", NONE, &["system.clock.synchronized"],
        "Whether the host's clock is synchronized",
        |source, out| host(source, out, |host| Some(is(host.clock?.synchronized)))),
    gauge("node_timex_offset_seconds", "s", NONE, &["system.clock.offset_seconds"],
        "Difference between the host's clock and the reference clock, in seconds",
        |source, out| host(source, out, |host| Some(host.clock?.offset_seconds))),
    gauge("node_timex_maxerror_seconds", "s", NONE, &["system.clock.max_error_seconds"],
        "Maximum error of the host's clock, in seconds",
        |source, out| host(source, out, |host| Some(host.clock?.max_error_seconds))),
    gauge("node_timex_estimated_error_seconds", "s", NONE, &["system.clock.estimated_error_seconds"],
        "Estimated error of the host's clock, in seconds",
        |source, out| host(source, out, |host| Some(host.clock?.estimated_error_seconds))),

    counter("node_edac_correctable_errors", "{error}", &["controller"],
        &["system.memory_controllers[].correctable_errors", "system.memory_controllers[].name"],
        "Errors that the memory has corrected",
        |source, out| memory_controllers(source, out, |one| one.correctable_errors)),
    counter("node_edac_uncorrectable_errors", "{error}", &["controller"], &["system.memory_controllers[].uncorrectable_errors"],
        "Errors of the memory that could not be corrected",
        |source, out| memory_controllers(source, out, |one| one.uncorrectable_errors)),

    gauge("node_zfs_zpool_state", "1", &["state", "zpool"], &["system.zfs.pools[].state", "system.zfs.pools[].name"],
        "State of the ZFS pool: 1 for the current state, 0 for the other states",
        |source, out| {
            for pool in system(source).and_then(|host| host.zfs.as_ref()).map_or(&[][..], |zfs| &zfs.pools) {
                for state in ["degraded", "faulted", "offline", "online", "removed", "suspended", "unavail"] {
                    out(&[("state", state), ("zpool", &pool.name)], is(pool.state == state));
                }
            }
        }),
    gauge("node_zfs_arc_size", "By", NONE, &["system.zfs.arc.size"],
        "Size of the cache of ZFS in memory, in bytes",
        |source, out| zfs_arc(source, out, |arc| arc.size)),
    gauge("node_zfs_arc_c", "By", NONE, &["system.zfs.arc.target"],
        "Size of the cache that ZFS wants at this moment, in bytes",
        |source, out| zfs_arc(source, out, |arc| arc.target)),
    gauge("node_zfs_arc_c_max", "By", NONE, &["system.zfs.arc.target_max"],
        "Largest size of the cache that ZFS can want, in bytes",
        |source, out| zfs_arc(source, out, |arc| arc.target_max)),
    // These two are counters. node_exporter publishes them without a type and without `_total`.
    gauge("node_zfs_arc_hits", "{read}", NONE, &["system.zfs.arc.hits"],
        "Reads that found their data in the cache of ZFS, since the module was loaded",
        |source, out| zfs_arc(source, out, |arc| arc.hits)),
    gauge("node_zfs_arc_misses", "{read}", NONE, &["system.zfs.arc.misses"],
        "Reads that did not find their data in the cache of ZFS, since the module was loaded",
        |source, out| zfs_arc(source, out, |arc| arc.misses)),

    gauge("node_btrfs_info", "1", &["uuid", "label"], &["system.btrfs[].uuid", "system.btrfs[].label"],
        "Label of the Btrfs file system",
        |source, out| {
            for one in list(source, |host| &host.btrfs) {
                out(&[("uuid", &one.uuid), ("label", one.label.as_deref().unwrap_or_default())], 1.0);
            }
        }),
    // node_exporter's `node_btrfs_device_errors_total` needs root, and has the name of the device and not its number.
    counter("system_agent_btrfs_device_errors", "{error}", &["uuid", "id", "type"],
        &["system.btrfs[].devices[].id", "system.btrfs[].devices[].write_errors", "system.btrfs[].devices[].read_errors",
            "system.btrfs[].devices[].flush_errors", "system.btrfs[].devices[].corruption_errors",
            "system.btrfs[].devices[].generation_errors"],
        "Errors of the device of the Btrfs file system, by type",
        |source, out| btrfs_devices(source, |uuid, device| {
            for (kind, count) in device.errors() {
                out(&[("uuid", uuid), ("id", &device.id.to_string()), ("type", kind)], count as f64);
            }
        })),
    gauge("system_agent_btrfs_device_missing", "1", &["uuid", "id"], &["system.btrfs[].devices[].missing"],
        "Whether the device of the Btrfs file system is missing",
        |source, out| btrfs_devices(source, |uuid, device| {
            out(&[("uuid", uuid), ("id", &device.id.to_string())], is(device.missing));
        })),

    gauge("node_nvme_info", "1", &["cntlid", "device", "firmware_revision", "model", "serial", "state"],
        &["system.nvme[].controller_id", "system.nvme[].name", "system.nvme[].firmware", "system.nvme[].model", "system.nvme[].serial",
            "system.nvme[].state"],
        "Properties and state of the NVMe controller", nvme_info),

    gauge("node_cpu_scaling_frequency_hertz", "Hz", &["cpu"], &["system.cpu_mhz"],
        "Frequency of the core, in Hz",
        |source, out| {
            for (cpu, hertz) in list(source, |host| &host.exact.cpu_hertz) {
                out(&[("cpu", &cpu.to_string())], *hertz as f64);
            }
        }),
    counter("node_cpu_core_throttles", "1", &["core", "package"], &["system.cpu_throttles[].core_throttles"],
        "How often the core was so hot that it had to slow down",
        |source, out| {
            for one in list(source, |host| &host.exact.core_throttles) {
                out(&[("core", &one.core.to_string()), ("package", &one.package.to_string())], one.throttles as f64);
            }
        }),
    counter("node_cpu_package_throttles", "1", &["package"], &["system.cpu_throttles[].throttles", "system.cpu_throttles[].package"],
        "How often the processor was so hot that it had to slow down",
        |source, out| {
            for one in list(source, |host| &host.cpu_throttles) {
                if let Some(throttles) = one.throttles {
                    out(&[("package", &one.package.to_string())], throttles as f64);
                }
            }
        }),

    gauge("node_boot_time_seconds", "s", NONE, &["host.boot_time", "system.uptime"],
        "Time at which the host booted, in Unix seconds",
        |source, out| host(source, out, |_| {
            let boot_time = source.snapshot.host.boot_time;
            (boot_time > 0).then_some(boot_time as f64)
        })),
    gauge("node_uname_info", "1", &["sysname", "nodename", "release", "machine"], &["host.hostname", "host.kernel", "host.arch"],
        "Host name, kernel release and architecture, as the command uname shows them", uname),
    gauge("node_os_info", "1", &["pretty_name"], &["host.os"],
        "Name of the operating system",
        |source, out| if has_host(source) { out(&[("pretty_name", &source.snapshot.host.os)], 1.0) }),
    gauge("node_systemd_units", "1", &["state"], &["system.failed_units"],
        "Units of systemd that have failed, at most 256. The number of units in other states is not known",
        |source, out| {
            let failed = system(source).and_then(|host| host.failed_units.as_ref());
            if let Some(failed) = failed {
                out(&[("state", "failed")], failed.len() as f64);
            }
        }),
    gauge("node_systemd_virtualization_info", "1", &["virtualization_type"], &["host.virtualization"],
        "Kind of virtual machine or container in which systemd runs. The value is always 1",
        |source, out| {
            let has_systemd = system(source).is_some_and(|host| host.failed_units.is_some());
            if let Some(kind) = source.snapshot.host.virtualization.as_deref().filter(|_| has_systemd) {
                out(&[("virtualization_type", kind)], 1.0);
            }
        }),
    gauge("node_systemd_unit_state", "1", &["name", "state"], &["system.failed_units[].name", "system.units[].state"],
        "State of the units of systemd that have failed, start or stop, and of the busiest units. The value is 1 for the state of the unit, and 0 for other states",
        unit_states),
    gauge("node_systemd_unit_tasks_current", "{task}", UNIT, &["system.units[].tasks"],
        "Processes and threads of the unit",
        |source, out| units(source, out, |one| Some(one.tasks? as f64))),
    counter("node_systemd_service_restart", "{restart}", UNIT, &["system.units[].restarts"],
        "Restarts of the service by systemd",
        |source, out| units(source, out, |one| Some(one.restarts? as f64))),
    gauge("system_agent_unit_state_change_time_seconds", "s", UNIT, &["system.units[].since"],
        "Time at which the unit came into its state, in Unix seconds",
        |source, out| units(source, out, |one| one.since.map(unix))),
    counter("system_agent_unit_cpu_seconds", "s", UNIT, &["system.units[].cpu_usage_ns", "system.units[].cpu_percent", "system.units[].name"],
        "CPU time that the unit has used, in seconds",
        |source, out| units(source, out, |one| Some(one.cpu_usage_ns? as f64 / 1e9))),
    gauge("system_agent_unit_memory_bytes", "By", UNIT, &["system.units[].memory"],
        "Memory of the unit, including caches",
        |source, out| units(source, out, |one| Some(one.memory? as f64))),
    counter("system_agent_unit_oom_kills", "{process}", UNIT, &["system.units[].oom_kills"],
        "Processes of the unit that the kernel has killed because of too little memory",
        |source, out| units(source, out, |one| Some(one.oom_kills? as f64))),
    counter("system_agent_unit_read_bytes", "By", UNIT, &["system.units[].block_io.read_bytes"],
        "Bytes that the unit has read from block devices",
        |source, out| units(source, out, |one| Some(one.block_io?.read_bytes as f64))),
    counter("system_agent_unit_written_bytes", "By", UNIT, &["system.units[].block_io.write_bytes"],
        "Bytes that the unit has written to block devices",
        |source, out| units(source, out, |one| Some(one.block_io?.write_bytes as f64))),
    counter("system_agent_unit_reads", "{operation}", UNIT, &["system.units[].block_io.read_ops"],
        "Read operations of the unit",
        |source, out| units(source, out, |one| Some(one.block_io?.read_ops? as f64))),
    counter("system_agent_unit_writes", "{operation}", UNIT, &["system.units[].block_io.write_ops"],
        "Write operations of the unit",
        |source, out| units(source, out, |one| Some(one.block_io?.write_ops? as f64))),
    counter("system_agent_unit_pressure_cpu_waiting_seconds", "s", UNIT, &["system.units[].pressure.cpu.some"], CPU_WAITING,
        |source, out| unit_pressure(source, out, |all| Some(all.cpu?.some.total_us))),
    counter("system_agent_unit_pressure_cpu_stalled_seconds", "s", UNIT, &["system.units[].pressure.cpu.full"], CPU_STALLED,
        |source, out| unit_pressure(source, out, |all| Some(all.cpu?.full?.total_us))),
    counter("system_agent_unit_pressure_memory_waiting_seconds", "s", UNIT, &["system.units[].pressure.memory.some"], MEMORY_WAITING,
        |source, out| unit_pressure(source, out, |all| Some(all.memory?.some.total_us))),
    counter("system_agent_unit_pressure_memory_stalled_seconds", "s", UNIT, &["system.units[].pressure.memory.full"], MEMORY_STALLED,
        |source, out| unit_pressure(source, out, |all| Some(all.memory?.full?.total_us))),
    counter("system_agent_unit_pressure_io_waiting_seconds", "s", UNIT, &["system.units[].pressure.io.some"], IO_WAITING,
        |source, out| unit_pressure(source, out, |all| Some(all.io?.some.total_us))),
    counter("system_agent_unit_pressure_io_stalled_seconds", "s", UNIT, &["system.units[].pressure.io.full"], IO_STALLED,
        |source, out| unit_pressure(source, out, |all| Some(all.io?.full?.total_us))),
];

/// The metrics of the agent and its sources.
#[rustfmt::skip]
static AGENT: &[FigureFamily] = &[
    gauge("system_agent_source_up", "1", SOURCE, &["sources.*.status"],
        "Whether the source works. Sources are the host's figures, the engine's containers and their logs",
        |source, out| sources(source, out, |one| Some(is(one.status == SourceStatus::Ok)))),
    gauge("system_agent_source_duration_seconds", "s", SOURCE, &["sources.*.duration_ms"],
        "Duration of the source's newest round, in seconds",
        |source, out| sources(source, out, |one| Some(one.duration_ms? as f64 / 1000.0))),
    gauge("system_agent_source_interval_seconds", "s", SOURCE, &["sources.*.interval_ms"],
        "Time between two rounds of the source, in seconds",
        |source, out| sources(source, out, |one| Some(one.interval_ms? as f64 / 1000.0))),
    gauge("system_agent_source_excluded", "1", SOURCE, &["sources.*.excluded"],
        "Number of containers, or of file systems, block devices and network interfaces, that the settings leave out",
        |source, out| sources(source, out, |one| Some(one.excluded? as f64))),
    gauge("system_agent_source_collected_timestamp_seconds", "s", SOURCE, &["sources.*.collected_at"],
        "Time at which the source's figures were read, in Unix seconds",
        |source, out| sources(source, out, |one| one.collected_at.map(unix))),
    gauge("system_agent_up", "1", NONE, &["status"],
        "Whether all enabled sources work",
        |source, out| out(&[], is(source.snapshot.status == Status::Ok))),
    gauge("system_agent_snapshot_timestamp_seconds", "s", NONE, &["timestamp"],
        "Time at which the snapshot with these figures was composed, in Unix seconds",
        |source, out| out(&[], unix(source.snapshot.timestamp))),
    gauge("system_agent_snapshot_interval_seconds", "s", NONE, NONE,
        "Time between two snapshots, in seconds",
        |source, out| out(&[], source.interval.as_secs_f64())),

    gauge("system_agent_output_up", "1", OUTPUT, &["outputs.*.status"],
        "Whether the output works. Outputs are a NATS server and a receiver of OpenTelemetry",
        |source, out| outputs(source, out, |one| Some(is(one.status == SourceStatus::Ok)))),
    counter("system_agent_output_sent", "{record}", OUTPUT, &["outputs.*.sent"],
        "Number of log lines and events that the server has accepted",
        |source, out| outputs(source, out, |one| Some(one.sent as f64))),
    counter("system_agent_output_dropped", "{record}", OUTPUT, &["outputs.*.dropped"],
        "Number of log lines and events for the server that were dropped",
        |source, out| outputs(source, out, |one| Some(one.dropped as f64))),
    gauge("system_agent_output_lag_seconds", "s", OUTPUT, &["outputs.*.lag_ms"],
        "Time for which log lines or events have been waiting for the server, in seconds",
        |source, out| outputs(source, out, |one| Some(one.lag_ms.unwrap_or_default() as f64 / 1000.0))),

    gauge("system_agent_build_info", "1", &["version"], &["agent.version"],
        "Version of the agent",
        |source, out| out(&[("version", &source.snapshot.agent.version)], 1.0)),
    counter("system_agent_snapshots", "{snapshot}", NONE, &["agent.seq"],
        "Number of snapshots since the agent started",
        |source, out| out(&[], source.snapshot.agent.seq as f64)),
    gauge("system_agent_clients", "{client}", NONE, &["agent.clients"],
        "Number of clients that receive snapshots",
        |source, out| out(&[], source.snapshot.agent.clients as f64)),
    gauge("system_agent_cpu_ratio", "1", NONE, &["agent.cpu_percent"],
        "CPU use of the agent over the last interval, in cores",
        |source, out| out(&[], ratio(source.snapshot.agent.cpu_percent))),
    gauge("system_agent_engine_cpu_ratio", "1", NONE, &["agent.engine_cpu_percent"],
        "CPU use of the engine's processes over the last interval, in cores",
        |source, out| if_any(out, source.snapshot.agent.engine_cpu_percent.map(ratio))),
    counter("system_agent_connections_closed_early", "{connection}", NONE, &["agent.connections_closed_early"],
        "Number of connections that the peer closed without sending anything, as health checks often do",
        |source, out| if_any(out, source.snapshot.agent.connections_closed_early.map(|count| count as f64))),
    gauge("system_agent_certificate_not_after_seconds", "s", NONE, &["agent.certificate_expires_at"],
        "Time at which the agent's certificate expires, in Unix seconds",
        |source, out| if_any(out, source.snapshot.agent.certificate_expires_at.map(unix))),
    gauge("process_resident_memory_bytes", "By", NONE, &["agent.memory_rss"],
        "Resident memory of the agent",
        |source, out| out(&[], source.snapshot.agent.memory_rss as f64)),
    gauge("system_agent_memory_anon_bytes", "By", NONE, &["agent.memory_anon"],
        "Anonymous part of the agent's resident memory",
        |source, out| if_any(out, source.snapshot.agent.memory_anon.map(|bytes| bytes as f64))),
];

const CPU_WAITING: &str = "Time in which at least one task waited for a CPU, in seconds";
const CPU_STALLED: &str = "Time in which all tasks waited for a CPU at the same time, in seconds";
const MEMORY_WAITING: &str = "Time in which at least one task waited for memory, in seconds";
const MEMORY_STALLED: &str =
    "Time in which all tasks waited for memory at the same time, in seconds";
const IO_WAITING: &str = "Time in which at least one task waited for I/O, in seconds";
const IO_STALLED: &str = "Time in which all tasks waited for I/O at the same time, in seconds";

type Read = fn(&FigureSource<'_>, &mut Samples<'_>);

const fn gauge(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    fields: &'static [&'static str],
    help: &'static str,
    read: Read,
) -> FigureFamily {
    FigureFamily {
        name,
        kind: MetricKind::Gauge,
        unit,
        labels,
        fields,
        help,
        read,
    }
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    fields: &'static [&'static str],
    help: &'static str,
    read: Read,
) -> FigureFamily {
    FigureFamily {
        kind: MetricKind::Counter,
        ..gauge(name, unit, labels, fields, help, read)
    }
}

/// Whether the agent has read the host at least once. Until then, the text has no metrics of the host.
fn has_host(source: &FigureSource<'_>) -> bool {
    source.snapshot.sources.system.collected_at.is_some()
}

fn system<'s>(source: &FigureSource<'s>) -> Option<&'s SystemMetrics> {
    has_host(source).then_some(&*source.snapshot.system)
}

/// Returns a field of the section `system` that is a list. Returns an empty list until the agent has read the host.
fn list<'s, T>(
    source: &FigureSource<'s>,
    of: impl FnOnce(&'s SystemMetrics) -> &'s [T],
) -> &'s [T] {
    system(source).map(of).unwrap_or_default()
}

fn if_any(out: &mut Samples<'_>, value: Option<f64>) {
    if let Some(value) = value {
        out(&[], value);
    }
}

fn host(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: impl Fn(&SystemMetrics) -> Option<f64>,
) {
    if_any(out, system(source).and_then(value));
}

fn memory(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    bytes: impl Fn(&ExactMemory) -> Option<u64>,
) {
    host(source, out, |host| Some(bytes(&host.exact.memory?)? as f64));
}

fn cpu_seconds(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for core in list(source, |host| &host.exact.cpu_seconds) {
        let number = core.core.to_string();
        for (mode, seconds) in CpuSeconds::MODES.iter().zip(core.modes) {
            out(&[("cpu", &number), ("mode", mode)], seconds);
        }
    }
}

fn file_systems(source: &FigureSource<'_>, out: &mut Samples<'_>, value: fn(&Disk) -> Option<f64>) {
    for disk in list(source, |host| &host.disks) {
        if let Some(value) = value(disk) {
            let labels = [
                ("device", &*disk.device),
                ("fstype", &disk.kind),
                ("mountpoint", &disk.mount),
            ];
            out(&labels, value);
        }
    }
}

fn block_devices(source: &FigureSource<'_>, out: &mut Samples<'_>, value: fn(&DiskIo) -> f64) {
    for disk in list(source, |host| &host.disk_io) {
        out(&[("device", &disk.device)], value(disk));
    }
}

fn interfaces(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: fn(&NetworkInterface) -> Option<f64>,
) {
    let all = list(source, |host| &host.network).iter();
    for one in all.filter(|one| one.kind != Some(InterfaceKind::Veth)) {
        if let Some(value) = value(one) {
            out(&[("device", &one.name)], value);
        }
    }
}

fn host_pressure(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    total_us: fn(&Pressures) -> Option<u64>,
) {
    host(source, out, |host| {
        seconds(total_us(host.pressure.as_ref()?)?)
    });
}

fn temperatures(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: fn(&crate::model::Temperature) -> Option<f64>,
) {
    for one in list(source, |host| &host.temperatures) {
        if let Some(value) = value(one) {
            out(&[("chip", &one.chip), ("sensor", &one.input)], value);
        }
    }
}

fn sensors(source: &FigureSource<'_>, out: &mut Samples<'_>, kind: &SensorKind) {
    let of_kind = list(source, |host| &host.sensors).iter();
    for one in of_kind.filter(|one| one.kind == *kind) {
        out(&[("chip", &one.chip), ("sensor", &one.input)], one.value);
    }
}

fn sensor_labels(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for one in list(source, |host| &host.exact.sensors.labels) {
        let labels = [
            ("chip", &*one.chip),
            ("label", &one.label),
            ("sensor", &one.sensor),
        ];
        out(&labels, 1.0);
    }
}

fn chip_names(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for one in list(source, |host| &host.exact.sensors.chips) {
        out(&[("chip", &one.chip), ("chip_name", &one.device)], 1.0);
    }
}

fn gpus(source: &FigureSource<'_>, out: &mut Samples<'_>, value: fn(&Gpu) -> Option<f64>) {
    for gpu in list(source, |host| host.gpus.as_deref().unwrap_or_default()) {
        if let Some(value) = value(gpu) {
            // A GPU of another manufacturer can have the same number as a GPU of NVIDIA.
            let number = gpu.card.clone();
            let number = number.unwrap_or_else(|| gpu.index.to_string());
            out(&[("gpu", &number), ("name", &gpu.name)], value);
        }
    }
}

fn cards(source: &FigureSource<'_>, out: &mut Samples<'_>, value: fn(&Gpu) -> Option<f64>) {
    for gpu in list(source, |host| host.gpus.as_deref().unwrap_or_default()) {
        if let (Some(card), Some(value)) = (&gpu.card, value(gpu)) {
            out(&[("card", card)], value);
        }
    }
}

fn process_states(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    let Some(counts) = system(source).and_then(|host| host.processes) else {
        return;
    };
    for (state, count) in [
        ("running", counts.running),
        ("sleeping", counts.sleeping),
        ("blocked", counts.blocked),
        ("stopped", counts.stopped),
        ("zombie", counts.zombie),
    ] {
        out(&[("state", state)], count as f64);
    }
}

/// Passes the number of processes in each state to `out`, with the kernel's letters for the states.
fn process_letters(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    let letter = |state: &str| match state {
        "running" => "R",
        "sleeping" => "S",
        "blocked" => "D",
        "stopped" => "T",
        _ => "Z",
    };
    process_states(source, &mut |labels, count| {
        for (_, state) in labels {
            out(&[("state", letter(state))], count);
        }
    });
}

fn uname(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    if !has_host(source) {
        return;
    }
    let host = &source.snapshot.host;
    let labels = [
        ("sysname", "Linux"),
        ("nodename", &host.hostname),
        ("release", &host.kernel),
        ("machine", &host.arch),
    ];
    out(&labels, 1.0);
}

fn unit_states(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    let units = list(source, |host| &host.units);
    for unit in units {
        let Some(current) = unit.state.as_deref() else {
            continue;
        };
        for state in UNIT_STATES {
            out(
                &[("name", &unit.name), ("state", state)],
                is(state == current),
            );
        }
    }
    // With UNITS=0, only the failed units are known.
    let failed = list(source, |host| {
        host.failed_units.as_deref().unwrap_or_default()
    });
    for unit in failed {
        let is_listed = |one: &Unit| one.name == unit.name && one.state.is_some();
        if !units.iter().any(is_listed) {
            out(&[("name", &unit.name), ("state", "failed")], 1.0);
        }
    }
}

fn units(source: &FigureSource<'_>, out: &mut Samples<'_>, value: impl Fn(&Unit) -> Option<f64>) {
    for one in list(source, |host| &host.units) {
        if let Some(value) = value(one) {
            out(&[("name", &one.name)], value);
        }
    }
}

fn unit_pressure(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    total_us: fn(&Pressures) -> Option<u64>,
) {
    units(source, out, |one| {
        seconds(total_us(one.pressure.as_ref()?)?)
    });
}

fn raid(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: impl Fn(&RaidArray) -> Option<f64>,
) {
    for one in list(source, |host| &host.raid) {
        if let Some(value) = value(one) {
            out(&[("device", &one.device)], value);
        }
    }
}

fn power_supplies(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: impl Fn(&PowerSupply) -> Option<f64>,
) {
    for one in list(source, |host| &host.power_supplies) {
        if let Some(value) = value(one) {
            out(&[("power_supply", &one.name)], value);
        }
    }
}

/// Passes the properties of each power supply to `out`. As in node_exporter, a property that is not known is no label.
fn power_supply_info(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for one in list(source, |host| &host.power_supplies) {
        let known = [
            ("capacity_level", &one.capacity_level),
            ("manufacturer", &one.manufacturer),
            ("model_name", &one.model_name),
            ("serial_number", &one.serial_number),
            ("status", &one.status),
            ("technology", &one.technology),
        ];
        let known = known
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let all = [("power_supply", &*one.name), ("type", &one.kind)];
        let labels: Vec<_> = all.into_iter().chain(known).collect();
        out(&labels, 1.0);
    }
}

fn memory_controllers(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    errors: fn(&MemoryController) -> u64,
) {
    for one in list(source, |host| &host.memory_controllers) {
        // node_exporter's label is the number in `mc0`.
        let number = one.name.trim_start_matches("mc");
        out(&[("controller", number)], errors(one) as f64);
    }
}

fn zfs_arc(source: &FigureSource<'_>, out: &mut Samples<'_>, value: fn(&ZfsArc) -> u64) {
    host(source, out, |host| {
        Some(value(host.zfs.as_ref()?.arc.as_ref()?) as f64)
    });
}

/// Calls `each` with the UUID of each Btrfs file system and each of its devices.
fn btrfs_devices(source: &FigureSource<'_>, mut each: impl FnMut(&str, &BtrfsDevice)) {
    for one in list(source, |host| &host.btrfs) {
        for device in &one.devices {
            each(&one.uuid, device);
        }
    }
}

fn nvme_info(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for one in list(source, |host| &host.nvme) {
        let known = [
            ("cntlid", one.controller_id.as_deref()),
            ("device", Some(&*one.name)),
            ("firmware_revision", one.firmware.as_deref()),
            ("model", one.model.as_deref()),
            ("serial", one.serial.as_deref()),
            ("state", one.state.as_deref()),
        ];
        out(
            &known.map(|(name, value)| (name, value.unwrap_or_default())),
            1.0,
        );
    }
}

fn sources(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: fn(&SourceHealth) -> Option<f64>,
) {
    let all = source.snapshot.sources.named();
    for (name, one) in all.filter(|(_, one)| one.status != SourceStatus::Disabled) {
        if let Some(value) = value(one) {
            out(&[("source", name)], value);
        }
    }
}

fn outputs(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: fn(&OutputHealth) -> Option<f64>,
) {
    let all = source.snapshot.outputs.iter().flat_map(Outputs::named);
    for (name, one) in all {
        if let Some(value) = value(one) {
            out(&[("output", name)], value);
        }
    }
}

fn is(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn ratio(percent: f64) -> f64 {
    percent / 100.0
}

fn seconds(us: u64) -> Option<f64> {
    Some(us as f64 / 1e6)
}

fn unix(Timestamp(time): Timestamp) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use serde_json::Value;

    use super::{FigureSource, families};
    use crate::model::{Kernel, Snapshot};

    /// The fields of the snapshot that are not in the table. The text next to a field is the reason.
    #[rustfmt::skip]
    const NOT_IN_TABLE: &[(&str, &str)] = &[
        ("*.*[].read_bytes_per_second", RATE), ("*.*[].write_bytes_per_second", RATE),
        ("*.*[].read_ops_per_second", RATE), ("*.*[].write_ops_per_second", RATE),
        ("*.*[].bytes_recv_per_second", RATE), ("*.*[].bytes_sent_per_second", RATE),
        ("*.*[].packets_recv_per_second", RATE), ("*.*[].packets_sent_per_second", RATE),
        ("*.disk_io[].busy_percent", RATE),
        ("containers[].block_io.read_bytes_per_second", RATE), ("containers[].block_io.write_bytes_per_second", RATE),
        ("containers[].network.*.rx_bytes_per_second", RATE), ("containers[].network.*.tx_bytes_per_second", RATE),
        ("containers[].throttled_percent", RATE),
        ("containers[].uptime", "computed from started_at, which is in the table"), ("containers[].status", TEXT),
        ("containers[].health_output", TEXT), ("stopped[].health_output", TEXT),
        ("docker_meta", "metrics of containers have these values as labels"),
        ("events", LINES), ("events_dropped", LINES), ("logs", LINES), ("logs_dropped", LINES),
        ("kernel", "these figures have a table of their own, in kernel.rs"),
        ("textfile", "metrics of other programs, which have names of their own"),
        ("agent.skipped", "each client has its own count"),
        ("agent.run", "it is a text"),
        ("agent.protocol", "Prometheus does not use the protocol"),
        ("agent.cursor", "each client has its own position"),
        ("agent.resume", "each client has its own position"),
        ("host.cpus", "equal to the number of cores in node_cpu_seconds_total, except in a container with a quota"),
        ("outputs.*.error", TEXT), ("sources.*.error", TEXT), ("sources.*.interval_reason", TEXT), ("sources.*.via", TEXT), ("sources.*.via_reason", TEXT),
        ("stopped[].error", TEXT), ("stopped[].one_off", "a part of system_agent_stopped_container_down"),
        ("system.raid[].level", TEXT), ("system.memory_controllers[].type", TEXT),
        ("system.sensors[].device", "in node_hwmon_chip_names"), ("system.sensors[].sensor", "in node_hwmon_sensor_label"),
        ("system.disks[].stuck", "one of the reasons for node_filesystem_device_error"),
        ("system.failed_units[].description", TEXT), ("system.units[].sub_state", TEXT),
        ("system.units[].main_pid", UNBOUND),
        ("system.units[].block_io.read_bytes_per_second", RATE), ("system.units[].block_io.write_bytes_per_second", RATE),
        ("system.gpus[].asleep", "a sleeping GPU has no figures"),
        ("system.network[].container", "only veth interfaces have this field, and veth interfaces are not in the table"), ("system.network[].kind", TEXT),
        ("system.top_processes", UNBOUND), ("system.top_memory", UNBOUND), ("system.top_io", UNBOUND),
    ];
    const RATE: &str = "computed from counters that are in the table";
    const TEXT: &str = "a text, not a figure";
    const LINES: &str = "events and log lines, not figures";
    const UNBOUND: &str = "there is no limit on the number of processes over time";

    fn schema() -> Value {
        serde_json::from_str(include_str!("../../config/snapshot.schema.json")).unwrap()
    }

    /// Collects the paths of all fields in a schema that contain no other fields. Examples of paths are `a.b`, `list[].field` and
    /// `by_name.*.field`.
    fn leaves(schema: &Value, at: &Value, path: &str, found: &mut BTreeSet<String>) {
        if let Some(name) = at["$ref"].as_str() {
            let there = schema.pointer(name.trim_start_matches('#')).unwrap();
            return leaves(schema, there, path, found);
        }
        let below = |name: &str| match path {
            "" => name.to_owned(),
            _ => format!("{path}.{name}"),
        };
        if let Some(properties) = at["properties"].as_object() {
            for (name, property) in properties {
                leaves(schema, property, &below(name), found);
            }
        } else if at["items"].is_object() {
            leaves(schema, &at["items"], &format!("{path}[]"), found);
        } else if at["additionalProperties"].is_object() {
            leaves(
                schema,
                &at["additionalProperties"],
                &format!("{path}.*"),
                found,
            );
        } else {
            found.insert(path.to_owned());
        }
    }

    /// Whether `field`, a field in the table, is the field `leaf` of the schema or contains that field.
    fn covers(field: &str, leaf: &str) -> bool {
        let mut leaf = leaf.split('.');
        field.split('.').all(|name| {
            let there = leaf.next().unwrap_or_default();
            let same = |name: &str| name == there || name == there.trim_end_matches("[]");
            match name.strip_prefix('*') {
                Some(end) => there.ends_with(end),
                None => same(name),
            }
        })
    }

    #[test]
    fn every_field_of_the_snapshot_is_in_the_table_or_in_the_list_of_exceptions() {
        let schema = schema();
        let mut found = BTreeSet::new();
        leaves(&schema, &schema, "", &mut found);
        let named: Vec<&str> = families()
            .flat_map(|family| family.fields)
            .copied()
            .collect();
        let excused = NOT_IN_TABLE.iter().map(|(field, _)| *field);
        let all: Vec<&str> = named.iter().copied().chain(excused).collect();
        let missing: Vec<_> = found
            .iter()
            .filter(|leaf| !all.iter().any(|field| covers(field, leaf)))
            .collect();
        assert!(
            missing.is_empty(),
            "fields that are not in the table: {missing:#?}"
        );
        let unknown: Vec<_> = all
            .iter()
            .filter(|field| !found.iter().any(|leaf| covers(field, leaf)))
            .collect();
        assert!(
            unknown.is_empty(),
            "fields that are not in the snapshot: {unknown:#?}"
        );
    }

    #[test]
    fn every_sample_has_the_labels_in_the_table() {
        let snapshot = Snapshot::recorded();
        let kernel = Kernel::recorded(&snapshot);
        let source = FigureSource {
            snapshot: &snapshot,
            kernel: Some(&kernel),
            ended: &[],
            interval: Duration::from_secs(5),
        };
        let (mut names, mut without) = (BTreeSet::new(), Vec::new());
        for family in families() {
            assert!(names.insert(family.name), "{} occurs twice", family.name);
            assert!(!family.unit.is_empty() && !family.help.is_empty());
            let mut samples = 0;
            family.samples(&source, &mut |labels, _| {
                let of_all = labels
                    .iter()
                    .map(|(name, _)| *name)
                    .take(family.labels.len());
                assert_eq!(of_all.collect::<Vec<_>>(), family.labels, "{}", family.name);
                let further = &labels[family.labels.len()..];
                let is_label = |(name, _): &(&str, &str)| name.starts_with("container_label_");
                assert!(further.iter().all(is_label), "{}: {further:?}", family.name);
                samples += 1;
            });
            if samples == 0 {
                without.push(family.name);
            }
        }
        assert!(
            without.is_empty(),
            "the snapshot has no sample for: {without:#?}"
        );
    }
}
