//! What every figure of the snapshot is called elsewhere: one table, of which each output takes the columns that it needs.
//!
//! Names and units are those of Prometheus' conventions. Where node_exporter or cAdvisor have a series of the same meaning, it has
//! their name and labels here, so that dashboards and alerts which were made for them work; of cAdvisor's labels `id` is the
//! container's short id. Everything else begins with `system_agent_`. No label has values without a bound: no processes, and no
//! veths, which come and go with containers.
//!
//! This file is long: it is a table with a row for each family, in the order in which they are written.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use crate::model::{
    Container, CpuSeconds, Disk, DiskIo, ExactMemory, Gpu, InterfaceCounters, InterfaceKind,
    NetworkInterface, Pressures, Snapshot, SourceHealth, SourceStatus, Status, SystemMetrics,
    Timestamp,
};

const MIB: f64 = 1024.0 * 1024.0;
/// The kernel's default period of a CPU limit, in microseconds, in which docker sets limits, too.
const CPU_PERIOD: f64 = 100_000.0;

/// Figures of one kind and meaning, told apart by their labels.
pub(super) struct FigureFamily {
    /// In Prometheus; `_total` is added to a counter's name.
    pub(super) name: &'static str,
    pub(super) kind: MetricKind,
    /// By the Unified Code for Units of Measure.
    #[cfg_attr(not(test), expect(dead_code, reason = "for outputs that name units"))]
    pub(super) unit: &'static str,
    /// The labels that every sample has, in this order.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "samples are held to it by a test")
    )]
    pub(super) labels: &'static [&'static str],
    /// Where the figures are in the snapshot, as docs/snapshot.md calls it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the table is held complete by a test")
    )]
    pub(super) fields: &'static [&'static str],
    pub(super) help: &'static str,
    read: fn(&FigureSource<'_>, &mut Samples<'_>),
}

/// Whether a figure only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricKind {
    Gauge,
    Counter,
}

/// What the figures are read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct FigureSource<'s> {
    pub(super) snapshot: &'s Snapshot,
    /// The time between two snapshots.
    pub(super) interval: Duration,
}

/// Takes the samples of a family, each with its labels' names and values.
pub(super) type Samples<'f> = dyn FnMut(&[(&str, &str)], f64) + 'f;

impl FigureFamily {
    /// Hands over every sample that the snapshot has.
    pub(super) fn samples(&self, source: &FigureSource<'_>, samples: &mut Samples<'_>) {
        (self.read)(source, samples);
    }
}

/// The whole table.
pub(super) fn families() -> impl Iterator<Item = &'static FigureFamily> {
    [HOST, CONTAINERS, AGENT].into_iter().flatten()
}

const NONE: &[&str] = &[];
const FILE_SYSTEM: &[&str] = &["device", "fstype", "mountpoint"];
const DEVICE: &[&str] = &["device"];
const SENSOR: &[&str] = &["chip", "sensor"];
const GPU: &[&str] = &["gpu", "name"];
const CONTAINER: &[&str] = &["id", "image", "name"];
const INTERFACE: &[&str] = &["id", "image", "name", "interface"];
const SOURCE: &[&str] = &["source"];

// Name, unit, labels, fields, help, how it is read.

/// The host, as node_exporter says it.
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
        "Memory",
        |source, out| memory(source, out, |memory| Some(memory.total))),
    gauge("node_memory_MemAvailable_bytes", "By", NONE, &["system.memory_available", "system.memory_used"],
        "Memory that programs could still have without swapping",
        |source, out| memory(source, out, |memory| Some(memory.available))),
    gauge("system_agent_memory_cached_bytes", "By", NONE, &["system.memory_cached"],
        "Memory that caches files, with what of the kernel can be reclaimed",
        |source, out| memory(source, out, |memory| memory.cached)),
    gauge("node_memory_SwapTotal_bytes", "By", NONE, &["system.swap_total"],
        "Swap",
        |source, out| memory(source, out, |memory| Some(memory.swap_total))),
    gauge("node_memory_SwapFree_bytes", "By", NONE, &["system.swap_used"],
        "Swap not in use",
        |source, out| memory(source, out, |memory| Some(memory.swap_total.saturating_sub(memory.swap_used)))),

    gauge("node_filesystem_size_bytes", "By", FILE_SYSTEM, &["system.disk_total", "system.disks[].total"],
        "Size of the file system",
        |source, out| file_systems(source, out, |disk| Some(disk.exact?.size as f64))),
    gauge("node_filesystem_free_bytes", "By", FILE_SYSTEM, &["system.disk_used", "system.disks[].used"],
        "Free space of the file system, with what is reserved for root",
        |source, out| file_systems(source, out, |disk| Some(disk.exact?.free as f64))),
    gauge("node_filesystem_avail_bytes", "By", FILE_SYSTEM, &["system.disks[].available", "system.disks[].mount", "system.disks[].device", "system.disks[].type"],
        "Space of the file system that ordinary users may still fill",
        |source, out| file_systems(source, out, |disk| Some(disk.exact?.available as f64))),
    gauge("node_filesystem_files", "{inode}", FILE_SYSTEM, &["system.disks[].inodes_total"],
        "Inodes of the file system",
        |source, out| file_systems(source, out, |disk| disk.inodes_total.map(|inodes| inodes as f64))),
    gauge("node_filesystem_files_free", "{inode}", FILE_SYSTEM, &["system.disks[].inodes_used"],
        "Free inodes of the file system",
        |source, out| file_systems(source, out, |disk| Some((disk.inodes_total? - disk.inodes_used?) as f64))),
    gauge("node_filesystem_device_error", "1", FILE_SYSTEM, &["system.disks[].error"],
        "Whether the file system cannot be asked: it answers with an error, or not for more than a second. A lack of permission does not count",
        |source, out| file_systems(source, out, |disk| Some(is(disk.failed)))),
    gauge("node_filesystem_readonly", "1", FILE_SYSTEM, &["system.disks[].readonly"],
        "Whether the file system as a whole cannot be written to",
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
        "Time in which the device had something to do, in seconds",
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
        "Packets that were received broken",
        |source, out| interfaces(source, out, |one| Some(one.errors_recv? as f64))),
    counter("node_network_transmit_errs", "{packet}", DEVICE, &["system.network[].errors_sent"],
        "Packets that could not be sent",
        |source, out| interfaces(source, out, |one| Some(one.errors_sent? as f64))),
    counter("node_network_receive_drop", "{packet}", DEVICE, &["system.network[].drops_recv"],
        "Packets that were received and dropped",
        |source, out| interfaces(source, out, |one| Some(one.drops_recv? as f64))),
    counter("node_network_transmit_drop", "{packet}", DEVICE, &["system.network[].drops_sent"],
        "Packets that were dropped rather than sent",
        |source, out| interfaces(source, out, |one| Some(one.drops_sent? as f64))),
    gauge("system_agent_network_up", "1", DEVICE, &["system.network[].up"],
        "Whether the interface is up: has a link, or needs none",
        |source, out| interfaces(source, out, |one| one.up.map(is))),
    gauge("node_network_speed_bytes", "By/s", DEVICE, &["system.network[].speed"],
        "The link's speed, in bytes a second",
        // Megabits.
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
        "What the sensor shows",
        |source, out| temperatures(source, out, |one| Some(one.exact))),
    gauge("node_hwmon_temp_crit_celsius", "Cel", SENSOR, &["system.temperatures[].critical"],
        "From where on the device itself is in danger",
        |source, out| temperatures(source, out, |one| one.critical)),
    gauge("node_hwmon_sensor_label", "1", &["chip", "label", "sensor"], &["system.temperatures[].sensor"],
        "What the device calls the sensor", sensor_labels),
    gauge("node_hwmon_chip_names", "1", &["chip", "chip_name"], &["system.temperatures[].device"],
        "What the device is", chip_names),

    gauge("system_agent_gpu_busy_ratio", "1", GPU, &["system.gpus[].busy_percent", "system.gpus[].index", "system.gpus[].name"],
        "The share of time in which the GPU computed something",
        |source, out| gpus(source, out, |gpu| gpu.busy_percent.map(ratio))),
    gauge("system_agent_gpu_memory_used_bytes", "By", GPU, &["system.gpus[].memory_used"],
        "Memory of the GPU in use",
        |source, out| gpus(source, out, |gpu| gpu.memory_used.map(|mib| mib * MIB))),
    gauge("system_agent_gpu_memory_bytes", "By", GPU, &["system.gpus[].memory_total"],
        "Memory of the GPU",
        |source, out| gpus(source, out, |gpu| gpu.memory_total.map(|mib| mib * MIB))),
    gauge("system_agent_gpu_temperature_celsius", "Cel", GPU, &["system.gpus[].celsius"],
        "The GPU's temperature",
        |source, out| gpus(source, out, |gpu| gpu.celsius)),
    gauge("system_agent_gpu_power_watts", "W", GPU, &["system.gpus[].watts"],
        "Power that the GPU draws",
        |source, out| gpus(source, out, |gpu| gpu.watts)),

    gauge("system_agent_processes", "{process}", &["state"], &["system.processes.running", "system.processes.sleeping", "system.processes.blocked",
            "system.processes.stopped", "system.processes.zombie", "system.processes.total"],
        "Processes by state", process_states),
    gauge("node_processes_threads", "{thread}", NONE, &["system.processes.threads"],
        "Threads of all processes",
        |source, out| host(source, out, |host| Some(host.processes?.threads as f64))),

    gauge("node_filefd_allocated", "{file}", NONE, &["system.file_handles.open"],
        "Open files",
        |source, out| host(source, out, |host| Some(host.file_handles?.open as f64))),
    gauge("node_filefd_maximum", "{file}", NONE, &["system.file_handles.max"],
        "The most files that may be open",
        |source, out| host(source, out, |host| Some(host.file_handles?.max as f64))),

    gauge("node_boot_time_seconds", "s", NONE, &["host.boot_time", "system.uptime"],
        "When the host booted, in Unix seconds",
        |source, out| host(source, out, |_| {
            let boot_time = source.snapshot.host.boot_time;
            (boot_time > 0).then_some(boot_time as f64)
        })),
    gauge("node_uname_info", "1", &["sysname", "nodename", "release", "machine"], &["host.hostname", "host.kernel", "host.arch"],
        "What uname says", uname),
    gauge("node_os_info", "1", &["pretty_name"], &["host.os"],
        "The operating system",
        |source, out| if has_host(source) { out(&[("pretty_name", &source.snapshot.host.os)], 1.0) }),
    gauge("node_systemd_unit_state", "1", &["name", "state"], &["system.failed_units[].name"],
        "The units of systemd that have failed; no others", failed_units),
];

/// Containers, as cAdvisor says them.
#[rustfmt::skip]
static CONTAINERS: &[FigureFamily] = &[
    counter("container_cpu_usage_seconds", "s", &["id", "image", "name", "cpu"], &["containers[].cpu_usage_ns", "containers[].cpu_percent"],
        "CPU time that the container has used, in seconds", container_cpu),
    gauge("container_spec_cpu_period", "us", CONTAINER, NONE,
        "The period of the CPU limit, in microseconds",
        |source, out| containers(source, out, |one| one.cpu_limit.map(|_| CPU_PERIOD))),
    gauge("container_spec_cpu_quota", "us", CONTAINER, &["containers[].cpu_limit"],
        "CPU time that the container may use in each such period, in microseconds",
        |source, out| containers(source, out, |one| one.cpu_limit.map(|cores| cores * CPU_PERIOD))),
    counter("container_cpu_cfs_periods", "{period}", CONTAINER, &["containers[].throttling.periods"],
        "Periods of the CPU limit in which the container ran",
        |source, out| containers(source, out, |one| Some(one.throttling?.periods as f64))),
    counter("container_cpu_cfs_throttled_periods", "{period}", CONTAINER, &["containers[].throttling.throttled_periods"],
        "Periods of the CPU limit in which the container was held back",
        |source, out| containers(source, out, |one| Some(one.throttling?.throttled_periods as f64))),
    counter("container_cpu_cfs_throttled_seconds", "s", CONTAINER, &["containers[].throttling.throttled_ns"],
        "Time that the CPU limit held the container back, in seconds",
        |source, out| containers(source, out, |one| Some(one.throttling?.throttled_ns as f64 / 1e9))),

    gauge("container_memory_working_set_bytes", "By", CONTAINER, &["containers[].memory_usage", "containers[].memory_percent"],
        "Memory in use, without inactive file cache",
        |source, out| containers(source, out, |one| Some(one.memory_usage? as f64))),
    gauge("container_memory_usage_bytes", "By", CONTAINER, NONE,
        "Memory in use, with all file cache",
        |source, out| containers(source, out, |one| Some(one.memory_with_cache? as f64))),
    gauge("container_memory_rss", "By", CONTAINER, &["containers[].memory_rss"],
        "Memory of the container's programs, in bytes: their own, not that of files",
        |source, out| containers(source, out, |one| Some(one.memory_rss? as f64))),
    gauge("container_memory_cache", "By", CONTAINER, &["containers[].memory_cache"],
        "Memory that caches files, in bytes",
        |source, out| containers(source, out, |one| Some(one.memory_cache? as f64))),
    gauge("container_spec_memory_limit_bytes", "By", CONTAINER, &["containers[].memory_limit"],
        "The memory limit; 0 where there is none", memory_limits),
    counter("container_oom_events", "{process}", CONTAINER, &["containers[].oom_kills"],
        "Processes that the kernel has killed for want of memory",
        |source, out| containers(source, out, |one| Some(one.oom_kills? as f64))),

    counter("container_network_receive_bytes", "By", INTERFACE, &["containers[].network.*.rx_bytes"],
        "Bytes that the container has received",
        |source, out| networks(source, out, |counters| counters.rx_bytes)),
    counter("container_network_transmit_bytes", "By", INTERFACE, &["containers[].network.*.tx_bytes"],
        "Bytes that the container has sent",
        |source, out| networks(source, out, |counters| counters.tx_bytes)),
    counter("container_network_receive_packets", "{packet}", INTERFACE, &["containers[].network.*.rx_packets"],
        "Packets that the container has received",
        |source, out| networks(source, out, |counters| counters.rx_packets)),
    counter("container_network_transmit_packets", "{packet}", INTERFACE, &["containers[].network.*.tx_packets"],
        "Packets that the container has sent",
        |source, out| networks(source, out, |counters| counters.tx_packets)),

    counter("container_fs_reads_bytes", "By", CONTAINER, &["containers[].block_io.read_bytes"],
        "Bytes read from all block devices together",
        |source, out| containers(source, out, |one| Some(one.block_io?.read_bytes as f64))),
    counter("container_fs_writes_bytes", "By", CONTAINER, &["containers[].block_io.write_bytes"],
        "Bytes written to all block devices together",
        |source, out| containers(source, out, |one| Some(one.block_io?.write_bytes as f64))),
    counter("container_fs_reads", "{operation}", CONTAINER, &["containers[].block_io.read_ops"],
        "Read operations of all block devices together",
        |source, out| containers(source, out, |one| Some(one.block_io?.read_ops? as f64))),
    counter("container_fs_writes", "{operation}", CONTAINER, &["containers[].block_io.write_ops"],
        "Write operations of all block devices together",
        |source, out| containers(source, out, |one| Some(one.block_io?.write_ops? as f64))),

    counter("container_pressure_cpu_waiting_seconds", "s", CONTAINER, &["containers[].pressure.cpu.some"], CPU_WAITING,
        |source, out| containers(source, out, |one| seconds(one.pressure.as_ref()?.cpu?.some.total_us))),
    counter("container_pressure_cpu_stalled_seconds", "s", CONTAINER, &["containers[].pressure.cpu.full"], CPU_STALLED,
        |source, out| containers(source, out, |one| seconds(one.pressure.as_ref()?.cpu?.full?.total_us))),
    counter("container_pressure_memory_waiting_seconds", "s", CONTAINER, &["containers[].pressure.memory.some"], MEMORY_WAITING,
        |source, out| containers(source, out, |one| seconds(one.pressure.as_ref()?.memory?.some.total_us))),
    counter("container_pressure_memory_stalled_seconds", "s", CONTAINER, &["containers[].pressure.memory.full"], MEMORY_STALLED,
        |source, out| containers(source, out, |one| seconds(one.pressure.as_ref()?.memory?.full?.total_us))),
    counter("container_pressure_io_waiting_seconds", "s", CONTAINER, &["containers[].pressure.io.some"], IO_WAITING,
        |source, out| containers(source, out, |one| seconds(one.pressure.as_ref()?.io?.some.total_us))),
    counter("container_pressure_io_stalled_seconds", "s", CONTAINER, &["containers[].pressure.io.full"], IO_STALLED,
        |source, out| containers(source, out, |one| seconds(one.pressure.as_ref()?.io?.full?.total_us))),

    gauge("container_threads", "{thread}", CONTAINER, &["containers[].pids"],
        "Processes and threads",
        |source, out| containers(source, out, |one| Some(one.pids? as f64))),
    gauge("container_threads_max", "{thread}", CONTAINER, &["containers[].pids_limit"],
        "The most processes and threads that the container may have; 0 where that is not limited",
        |source, out| containers(source, out, |one| Some(one.pids_limit.unwrap_or_default() as f64))),
    gauge("container_start_time_seconds", "s", CONTAINER, &["containers[].started_at"],
        "When the container was started last, in Unix seconds",
        |source, out| containers(source, out, |one| one.started_at.map(unix))),
    gauge("container_last_seen", "s", CONTAINER, &["sources.docker.collected_at"],
        "When the container was read last, in Unix seconds",
        |source, out| containers(source, out, |_| source.snapshot.sources.docker.collected_at.map(unix))),

    counter("system_agent_container_restarts", "{restart}", CONTAINER, &["containers[].restart_count"],
        "How often the container's restart policy has started it anew",
        |source, out| containers(source, out, |one| Some(one.restart_count? as f64))),
    gauge("system_agent_container_state", "1", &["id", "image", "name", "state"], &["docker_meta[].state"],
        "What the engine says that the container does: 1 for that, 0 for the others", container_states),
    gauge("system_agent_container_health", "1", &["id", "image", "name", "status"], &["containers[].health"],
        "What the container's health check says: 1 for that, 0 for the others", container_health),
    gauge("system_agent_container_info", "1",
        &["id", "image", "name", "image_digest", "compose_project", "compose_service", "network_of"],
        &["containers[].id", "containers[].name", "containers[].image", "containers[].image_digest", "containers[].compose.project",
            "containers[].compose.service", "containers[].network_of", "containers[].labels"],
        "What the container is: its image's digest, what docker compose calls it, and its labels that CONTAINER_LABELS asks for",
        container_info),
];

/// The agent itself, and how its sources are.
#[rustfmt::skip]
static AGENT: &[FigureFamily] = &[
    gauge("system_agent_source_up", "1", SOURCE, &["sources.*.status"],
        "Whether the source is well: the host's figures, the engine's containers, their logs",
        |source, out| sources(source, out, |one| Some(is(one.status == SourceStatus::Ok)))),
    gauge("system_agent_source_duration_seconds", "s", SOURCE, &["sources.*.duration_ms"],
        "How long the source's last round took",
        |source, out| sources(source, out, |one| Some(one.duration_ms? as f64 / 1000.0))),
    gauge("system_agent_source_interval_seconds", "s", SOURCE, &["sources.*.interval_ms"],
        "The time between the source's rounds",
        |source, out| sources(source, out, |one| Some(one.interval_ms? as f64 / 1000.0))),
    gauge("system_agent_source_collected_timestamp_seconds", "s", SOURCE, &["sources.*.collected_at"],
        "When the source's figures were read, in Unix seconds",
        |source, out| sources(source, out, |one| one.collected_at.map(unix))),
    gauge("system_agent_up", "1", NONE, &["status"],
        "Whether every source that is switched on is well",
        |source, out| out(&[], is(source.snapshot.status == Status::Ok))),
    gauge("system_agent_snapshot_timestamp_seconds", "s", NONE, &["timestamp"],
        "When the snapshot that these figures are of was composed, in Unix seconds",
        |source, out| out(&[], unix(source.snapshot.timestamp))),
    gauge("system_agent_snapshot_interval_seconds", "s", NONE, NONE,
        "The time between two snapshots",
        |source, out| out(&[], source.interval.as_secs_f64())),

    gauge("system_agent_build_info", "1", &["version"], &["agent.version"],
        "The agent's version",
        |source, out| out(&[("version", &source.snapshot.agent.version)], 1.0)),
    counter("system_agent_snapshots", "{snapshot}", NONE, &["agent.seq"],
        "Snapshots since the agent began",
        |source, out| out(&[], source.snapshot.agent.seq as f64)),
    gauge("system_agent_clients", "{client}", NONE, &["agent.clients"],
        "Clients that are sent snapshots",
        |source, out| out(&[], source.snapshot.agent.clients as f64)),
    gauge("system_agent_cpu_ratio", "1", NONE, &["agent.cpu_percent"],
        "CPU that the agent uses, in cores, over the last interval",
        |source, out| out(&[], ratio(source.snapshot.agent.cpu_percent))),
    gauge("system_agent_engine_cpu_ratio", "1", NONE, &["agent.engine_cpu_percent"],
        "CPU that the engine's processes use, in cores, over the last interval",
        |source, out| if_any(out, source.snapshot.agent.engine_cpu_percent.map(ratio))),
    counter("system_agent_connections_closed_early", "{connection}", NONE, &["agent.connections_closed_early"],
        "Connections whose peer closed them before it had sent anything, as health checks do",
        |source, out| if_any(out, source.snapshot.agent.connections_closed_early.map(|count| count as f64))),
    gauge("system_agent_certificate_not_after_seconds", "s", NONE, &["agent.certificate_expires_at"],
        "When the certificate that is served expires, in Unix seconds",
        |source, out| if_any(out, source.snapshot.agent.certificate_expires_at.map(unix))),
    gauge("process_resident_memory_bytes", "By", NONE, &["agent.memory_rss"],
        "The agent's resident memory",
        |source, out| out(&[], source.snapshot.agent.memory_rss as f64)),
    gauge("system_agent_memory_anon_bytes", "By", NONE, &["agent.memory_anon"],
        "The part of the agent's resident memory that no file is behind",
        |source, out| if_any(out, source.snapshot.agent.memory_anon.map(|bytes| bytes as f64))),
];

const CPU_WAITING: &str = "Time in which some work waited for a CPU, in seconds";
const CPU_STALLED: &str = "Time in which all work waited for a CPU at once, in seconds";
const MEMORY_WAITING: &str = "Time in which some work waited for memory, in seconds";
const MEMORY_STALLED: &str = "Time in which all work waited for memory at once, in seconds";
const IO_WAITING: &str = "Time in which some work waited for I/O, in seconds";
const IO_STALLED: &str = "Time in which all work waited for I/O at once, in seconds";

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

/// Whether the host has been read even once: before that there is nothing to say of it.
fn has_host(source: &FigureSource<'_>) -> bool {
    source.snapshot.sources.system.collected_at.is_some()
}

fn system<'s>(source: &FigureSource<'s>) -> Option<&'s SystemMetrics> {
    has_host(source).then_some(&*source.snapshot.system)
}

/// A list of the host's; empty before the host has been read.
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
            out(
                &[("gpu", &gpu.index.to_string()), ("name", &gpu.name)],
                value,
            );
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

fn failed_units(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for unit in list(source, |host| {
        host.failed_units.as_deref().unwrap_or_default()
    }) {
        out(&[("name", &unit.name), ("state", "failed")], 1.0);
    }
}

/// cAdvisor's labels of a container.
fn labels(container: &Container) -> [(&str, &str); 3] {
    [
        ("id", &container.id),
        ("image", &container.image),
        ("name", container.name.trim_start_matches('/')),
    ]
}

fn containers(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: impl Fn(&Container) -> Option<f64>,
) {
    for one in source.snapshot.containers.iter() {
        if let Some(value) = value(one) {
            out(&labels(one), value);
        }
    }
}

fn container_cpu(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for one in source.snapshot.containers.iter() {
        if let Some(used) = one.cpu_usage_ns {
            let [id, image, name] = labels(one);
            out(&[id, image, name, ("cpu", "total")], used as f64 / 1e9);
        }
    }
}

/// A limit that is none is the host's memory there, rounded in another place, and 0 here: which it is, that memory tells.
fn memory_limits(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    let host_memory = source.snapshot.system.memory_total * MIB;
    containers(source, out, |one| {
        let limit = one.memory_limit as f64;
        let is_limited = limit + MIB < host_memory;
        (host_memory > 0.0).then_some(if is_limited { limit } else { 0.0 })
    });
}

fn networks(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: fn(&InterfaceCounters) -> u64,
) {
    for one in source.snapshot.containers.iter() {
        let [id, image, name] = labels(one);
        for (interface, counters) in one.network.iter() {
            out(
                &[id, image, name, ("interface", interface)],
                value(counters) as f64,
            );
        }
    }
}

/// Also of those that have no figures, as they wait for their next start.
fn container_states(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for meta in source.snapshot.docker_meta.iter() {
        let name = meta.own_name().unwrap_or_default();
        for state in ["paused", "restarting", "running"] {
            let labels = [
                ("id", &*meta.id),
                ("image", &meta.image),
                ("name", name),
                ("state", state),
            ];
            out(&labels, is(meta.state == state));
        }
    }
}

fn container_health(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for one in source.snapshot.containers.iter() {
        let Some(health) = &one.health else {
            continue;
        };
        let [id, image, name] = labels(one);
        for status in ["healthy", "starting", "unhealthy"] {
            out(&[id, image, name, ("status", status)], is(status == health));
        }
    }
}

/// What is said of a container once, rather than with each of its figures.
fn container_info(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    for one in source.snapshot.containers.iter() {
        let compose = one.compose.as_ref();
        let project = compose.map(|compose| &*compose.project);
        let service = compose.and_then(|compose| compose.service.as_deref());
        let known = [
            ("image_digest", one.image_digest.as_deref()),
            ("compose_project", project),
            ("compose_service", service),
            ("network_of", one.network_of.as_deref()),
        ]
        .map(|(name, value)| (name, value.unwrap_or_default()));
        let named = one
            .labels
            .iter()
            .map(|(name, value)| (label_name(name), value));
        let named: Vec<_> = named.collect();
        // Two may come to the same name: the first has it.
        let mut names = BTreeSet::new();
        let chosen = named.iter().filter(|(name, _)| names.insert(name));
        let chosen = chosen.map(|(name, value)| (&**name, value.as_str()));
        let labels: Vec<_> = labels(one).into_iter().chain(known).chain(chosen).collect();
        out(&labels, 1.0);
    }
}

/// As cAdvisor calls a container's label.
fn label_name(label: &str) -> String {
    let allowed = |one: char| match one.is_ascii_alphanumeric() {
        true => one,
        false => '_',
    };
    let name: String = label.chars().map(allowed).collect();
    format!("container_label_{name}")
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
    use crate::model::Snapshot;

    /// Fields of the snapshot that are no figures, or are none here, with the reason.
    #[rustfmt::skip]
    const NO_FIGURES: &[(&str, &str)] = &[
        ("*.*[].read_bytes_per_second", RATE), ("*.*[].write_bytes_per_second", RATE),
        ("*.*[].read_ops_per_second", RATE), ("*.*[].write_ops_per_second", RATE),
        ("*.*[].bytes_recv_per_second", RATE), ("*.*[].bytes_sent_per_second", RATE),
        ("*.*[].packets_recv_per_second", RATE), ("*.*[].packets_sent_per_second", RATE),
        ("*.disk_io[].busy_percent", RATE),
        ("containers[].block_io.read_bytes_per_second", RATE), ("containers[].block_io.write_bytes_per_second", RATE),
        ("containers[].network.*.rx_bytes_per_second", RATE), ("containers[].network.*.tx_bytes_per_second", RATE),
        ("containers[].throttled_percent", RATE),
        ("containers[].uptime", "since started_at"), ("containers[].status", TEXT),
        ("containers[].memory_kernel", "cAdvisor has no series for it"),
        ("docker_meta", "what is counted of containers has their labels"),
        ("events", LINES), ("events_dropped", LINES), ("logs", LINES), ("logs_dropped", LINES),
        ("agent.skipped", "each client has its own"),
        ("host.cpus", "as many as node_cpu_seconds_total has"),
        ("sources.*.error", TEXT), ("sources.*.interval_reason", TEXT), ("sources.*.via", TEXT), ("sources.*.via_reason", TEXT),
        ("system.disks[].stuck", "one of the reasons for an error"),
        ("system.failed_units[].description", TEXT),
        ("system.gpus[].asleep", "its figures are absent then"),
        ("system.network[].container", "of veths, which are left out"), ("system.network[].kind", TEXT),
        ("system.top_processes", UNBOUND), ("system.top_memory", UNBOUND),
    ];
    const RATE: &str = "made of counters that are in the table";
    const TEXT: &str = "a text";
    const LINES: &str = "lines, no figures";
    const UNBOUND: &str = "processes come and go without a bound";

    fn schema() -> Value {
        serde_json::from_str(include_str!("../../config/snapshot.schema.json")).unwrap()
    }

    /// The leaves of a schema, each by its path: `a.b`, `list[].field`, `by_name.*.field`.
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

    /// Whether a field that the table names is this leaf, or has it below it.
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
    fn every_field_of_the_snapshot_is_in_the_table_or_is_said_to_be_no_figure() {
        let schema = schema();
        let mut found = BTreeSet::new();
        leaves(&schema, &schema, "", &mut found);
        let named: Vec<&str> = families()
            .flat_map(|family| family.fields)
            .copied()
            .collect();
        let excused = NO_FIGURES.iter().map(|(field, _)| *field);
        let all: Vec<&str> = named.iter().copied().chain(excused).collect();
        let missing: Vec<_> = found
            .iter()
            .filter(|leaf| !all.iter().any(|field| covers(field, leaf)))
            .collect();
        assert!(missing.is_empty(), "not in the table: {missing:#?}");
        let unknown: Vec<_> = all
            .iter()
            .filter(|field| !found.iter().any(|leaf| covers(field, leaf)))
            .collect();
        assert!(unknown.is_empty(), "no field of the snapshot: {unknown:#?}");
    }

    #[test]
    fn every_sample_has_the_labels_that_the_table_says() {
        let snapshot = Snapshot::recorded();
        let source = FigureSource {
            snapshot: &snapshot,
            interval: Duration::from_secs(5),
        };
        let (mut names, mut without) = (BTreeSet::new(), Vec::new());
        for family in families() {
            assert!(names.insert(family.name), "{} twice", family.name);
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
        assert!(without.is_empty(), "the snapshot has none: {without:#?}");
    }
}
