//! The table of the figures of containers. Each container is a resource, so the points have no attributes that name the container.
//!
//! The columns are: which names, name, unit, kind, the families of Prometheus with the same figure, and the function that reads it.

use super::points::{Described, Kind, Number};
use super::{NameSet, Set};
use crate::model::{Container, DeviceIo, Disk, InterfaceCounters, Pressures, Timestamp};
use crate::publish::figures::FigureSource;
use crate::publish::figures::containers::{cpu_shares, disk_of_layer, layer_limit, swap_limit};

use Kind::{Counter, Gauge, UpDown};
use Read::{Double, Int, Many};
use Set::{Both, Conventions, Receivers};

/// A row of the table.
pub(super) struct ContainerRow {
    pub(super) set: Set,
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    /// The families of Prometheus that have the figure.
    pub(super) families: &'static [&'static str],
    read: Read,
}

/// The function that receives each value of a row, with its attributes.
type Values<'f> = dyn FnMut(&[(&str, &str)], Number) + 'f;

/// How a row is read.
enum Read {
    Int(fn(&Container) -> Option<u64>),
    Double(fn(&Container) -> Option<f64>),
    Many(fn(&FigureSource<'_>, &Container, &mut Values<'_>)),
}

impl ContainerRow {
    /// Passes the values of a container to `out`.
    pub(super) fn values(&self, source: &FigureSource<'_>, one: &Container, out: &mut Values<'_>) {
        match self.read {
            Int(read) => {
                if let Some(value) = read(one) {
                    out(&[], value.into());
                }
            }
            Double(read) => {
                if let Some(value) = read(one) {
                    out(&[], value.into());
                }
            }
            Many(read) => read(source, one, out),
        }
    }

    pub(super) fn described(&self) -> Described<'static> {
        Described {
            name: self.name,
            unit: self.unit,
            kind: self.kind,
        }
    }

    pub(super) fn is_in(&self, names: NameSet) -> bool {
        self.set.has(names)
    }
}

const fn row(
    set: Set,
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    families: &'static [&'static str],
    read: Read,
) -> ContainerRow {
    ContainerRow {
        set,
        name,
        unit,
        kind,
        families,
        read,
    }
}

#[rustfmt::skip]
pub(super) static CONTAINERS: &[ContainerRow] = &[
    row(Both, "container.uptime", "s", Gauge, &["container_start_time_seconds"], Int(|one| one.uptime)),
    row(Conventions, "container.cpu.time", "s", Counter, &["container_cpu_usage_seconds"],
        Double(|one| Some(one.cpu_usage_ns? as f64 / 1e9))),
    row(Conventions, "container.cpu.usage", "{cpu}", Gauge, &[], Double(|one| Some(one.cpu_percent / 100.0))),
    row(Conventions, "system_agent.container.cpu.mode_time", "s", Counter,
        &["container_cpu_user_seconds", "container_cpu_system_seconds"],
        Many(|_, one, out| if let Some((user, system)) = one.exact.cpu_modes_ns {
            out(&[("cpu.mode", "user")], (user as f64 / 1e9).into());
            out(&[("cpu.mode", "system")], (system as f64 / 1e9).into());
        })),
    row(Receivers, "container.cpu.usage.total", "ns", Counter, &["container_cpu_usage_seconds"], Int(|one| one.cpu_usage_ns)),
    row(Receivers, "container.cpu.usage.usermode", "ns", Counter, &["container_cpu_user_seconds"],
        Int(|one| Some(one.exact.cpu_modes_ns?.0))),
    row(Receivers, "container.cpu.usage.kernelmode", "ns", Counter, &["container_cpu_system_seconds"],
        Int(|one| Some(one.exact.cpu_modes_ns?.1))),
    row(Receivers, "container.cpu.utilization", "1", Gauge, &[], Double(|one| Some(one.cpu_percent))),
    row(Receivers, "container.cpu.limit", "{cpus}", Gauge, &["container_spec_cpu_quota", "container_spec_cpu_period"],
        Double(|one| one.cpu_limit)),
    row(Conventions, "system_agent.container.cpu.limit", "{cpu}", Gauge, &["container_spec_cpu_quota", "container_spec_cpu_period"],
        Double(|one| one.cpu_limit)),
    row(Receivers, "container.cpu.shares", "1", Gauge, &["container_spec_cpu_shares"], Int(shares)),
    row(Conventions, "system_agent.container.cpu.shares", "", Gauge, &["container_spec_cpu_shares"], Int(shares)),
    row(Receivers, "container.cpu.throttling_data.periods", "{periods}", Counter, &["container_cpu_cfs_periods"],
        Int(|one| limited(one, one.throttling?.periods))),
    row(Receivers, "container.cpu.throttling_data.throttled_periods", "{periods}", Counter, &["container_cpu_cfs_throttled_periods"],
        Int(|one| limited(one, one.throttling?.throttled_periods))),
    row(Receivers, "container.cpu.throttling_data.throttled_time", "ns", Counter, &["container_cpu_cfs_throttled_seconds"],
        Int(|one| limited(one, one.throttling?.throttled_ns))),
    row(Conventions, "system_agent.container.cpu.periods", "{period}", Counter, &["container_cpu_cfs_periods"],
        Int(|one| limited(one, one.throttling?.periods))),
    row(Conventions, "system_agent.container.cpu.throttled_periods", "{period}", Counter, &["container_cpu_cfs_throttled_periods"],
        Int(|one| limited(one, one.throttling?.throttled_periods))),
    row(Conventions, "system_agent.container.cpu.throttled_time", "s", Counter, &["container_cpu_cfs_throttled_seconds"],
        Double(|one| Some(limited(one, one.throttling?.throttled_ns)? as f64 / 1e9))),
    row(Both, "system_agent.container.cpu.burst_periods", "{period}", Counter, &["container_cpu_cfs_burst_periods"],
        Int(|one| limited(one, one.exact.bursts?.0))),
    row(Both, "system_agent.container.cpu.burst_time", "s", Counter, &["container_cpu_cfs_burst_seconds"],
        Double(|one| Some(limited(one, one.exact.bursts?.1)? as f64 / 1e9))),

    row(Conventions, "container.memory.usage", "By", UpDown, &["container_memory_usage_bytes"], Int(|one| one.memory_with_cache)),
    row(Conventions, "container.memory.working_set", "By", UpDown, &["container_memory_working_set_bytes"], Int(|one| one.memory_usage)),
    row(Receivers, "container.memory.usage.total", "By", UpDown, &["container_memory_working_set_bytes", "container_memory_usage_bytes"],
        Int(|one| one.memory_usage)),
    row(Receivers, "container.memory.usage.limit", "By", UpDown, &["container_spec_memory_limit_bytes"], Int(|one| Some(one.memory_limit))),
    row(Conventions, "system_agent.container.memory.limit", "By", UpDown, &["container_spec_memory_limit_bytes"],
        Int(|one| Some(one.memory_limit))),
    row(Receivers, "container.memory.percent", "1", Gauge, &[], Double(|one| one.memory_percent)),
    row(Both, "container.memory.rss", "By", UpDown, &["container_memory_rss"], Int(|one| one.memory_rss)),
    row(Receivers, "container.memory.file", "By", UpDown, &["container_memory_cache"], Int(|one| one.memory_cache)),
    row(Conventions, "system_agent.container.memory.cache", "By", UpDown, &["container_memory_cache"], Int(|one| one.memory_cache)),
    row(Both, "system_agent.container.memory.mapped_file", "By", UpDown, &["container_memory_mapped_file"], Int(|one| one.exact.mapped_file)),
    row(Both, "system_agent.container.memory.swap", "By", UpDown, &["container_memory_swap"], Int(|one| one.exact.swap)),
    row(Both, "system_agent.container.memory.kernel", "By", UpDown, &["container_memory_kernel_usage"], Int(|one| one.memory_kernel)),
    row(Both, "system_agent.container.memory.active_file", "By", UpDown, &["container_memory_total_active_file_bytes"],
        Int(|one| one.exact.active_file)),
    row(Both, "system_agent.container.memory.inactive_file", "By", UpDown, &["container_memory_total_inactive_file_bytes"],
        Int(|one| one.exact.inactive_file)),
    row(Both, "system_agent.container.memory.file_dirty", "By", UpDown, &["container_memory_file_dirty_bytes"], Int(|one| one.exact.file_dirty)),
    row(Both, "system_agent.container.memory.file_writeback", "By", UpDown, &["container_memory_file_writeback_bytes"],
        Int(|one| one.exact.file_writeback)),
    row(Conventions, "container.memory.paging.faults", "{fault}", Counter, &["container_memory_failures"],
        Many(|_, one, out| if let (Some(all), Some(major)) = (one.exact.page_faults, one.exact.major_page_faults) {
            out(&[("system.paging.fault.type", "minor")], all.saturating_sub(major).into());
            out(&[("system.paging.fault.type", "major")], major.into());
        })),
    row(Receivers, "container.memory.pgfault", "{faults}", Counter, &["container_memory_failures"], Int(|one| one.exact.page_faults)),
    row(Receivers, "container.memory.pgmajfault", "{faults}", Counter, &["container_memory_failures"], Int(|one| one.exact.major_page_faults)),
    row(Receivers, "container.memory.fails", "{fails}", Counter, &["container_memory_failcnt", "container_memory_events_max"],
        Int(|one| one.exact.max_events)),
    row(Conventions, "system_agent.container.memory.max_events", "{event}", Counter, &["container_memory_failcnt", "container_memory_events_max"],
        Int(|one| one.exact.max_events)),
    row(Both, "system_agent.container.memory.high_events", "{event}", Counter, &["container_memory_events_high"],
        Int(|one| one.exact.high_events)),
    row(Both, "system_agent.container.memory.pages_scanned", "{page}", Counter, &["container_memory_pgscan"], Int(|one| one.exact.pages_scanned)),
    row(Both, "system_agent.container.memory.pages_reclaimed", "{page}", Counter, &["container_memory_pgsteal"],
        Int(|one| one.exact.pages_reclaimed)),
    row(Both, "system_agent.container.memory.refaults", "{page}", Counter,
        &["container_memory_workingset_refault_file", "container_memory_workingset_refault_anon"],
        Many(|_, one, out| {
            for (kind, count) in [("file", one.exact.refaults_file), ("anonymous", one.exact.refaults_anon)] {
                if let Some(count) = count {
                    out(&[("system_agent.page.type", kind)], count.into());
                }
            }
        })),
    row(Both, "system_agent.container.memory.swap_limit", "By", UpDown, &["container_spec_memory_swap_limit_bytes"],
        Int(|one| swap_limit(one.spec?, is_v2(one)))),
    row(Both, "system_agent.container.memory.reservation", "By", UpDown, &["container_spec_memory_reservation_limit_bytes"],
        Int(|one| Some(one.spec?.memory_reservation))),
    row(Both, "system_agent.container.oom_kills", "{process}", Counter, &["container_oom_events"], Int(|one| one.oom_kills)),

    row(Conventions, "container.network.io", "By", Counter, &["container_network_receive_bytes", "container_network_transmit_bytes"],
        Many(|_, one, out| directions(one, out, |all| [all.rx_bytes, all.tx_bytes]))),
    row(Conventions, "system_agent.container.network.packet.count", "{packet}", Counter,
        &["container_network_receive_packets", "container_network_transmit_packets"],
        Many(|_, one, out| directions(one, out, |all| [all.rx_packets, all.tx_packets]))),
    row(Conventions, "system_agent.container.network.errors", "{error}", Counter,
        &["container_network_receive_errors", "container_network_transmit_errors"],
        Many(|_, one, out| directions(one, out, |all| [all.rx_lost.errors, all.tx_lost.errors]))),
    row(Conventions, "system_agent.container.network.packet.dropped", "{packet}", Counter,
        &["container_network_receive_packets_dropped", "container_network_transmit_packets_dropped"],
        Many(|_, one, out| directions(one, out, |all| [all.rx_lost.drops, all.tx_lost.drops]))),
    row(Receivers, "container.network.io.usage.rx_bytes", "By", Counter, &["container_network_receive_bytes"],
        Many(|_, one, out| interfaces(one, out, |all| all.rx_bytes))),
    row(Receivers, "container.network.io.usage.tx_bytes", "By", Counter, &["container_network_transmit_bytes"],
        Many(|_, one, out| interfaces(one, out, |all| all.tx_bytes))),
    row(Receivers, "container.network.io.usage.rx_packets", "{packets}", Counter, &["container_network_receive_packets"],
        Many(|_, one, out| interfaces(one, out, |all| all.rx_packets))),
    row(Receivers, "container.network.io.usage.tx_packets", "{packets}", Counter, &["container_network_transmit_packets"],
        Many(|_, one, out| interfaces(one, out, |all| all.tx_packets))),
    row(Receivers, "container.network.io.usage.rx_errors", "{errors}", Counter, &["container_network_receive_errors"],
        Many(|_, one, out| interfaces(one, out, |all| all.rx_lost.errors))),
    row(Receivers, "container.network.io.usage.tx_errors", "{errors}", Counter, &["container_network_transmit_errors"],
        Many(|_, one, out| interfaces(one, out, |all| all.tx_lost.errors))),
    row(Receivers, "container.network.io.usage.rx_dropped", "{packets}", Counter, &["container_network_receive_packets_dropped"],
        Many(|_, one, out| interfaces(one, out, |all| all.rx_lost.drops))),
    row(Receivers, "container.network.io.usage.tx_dropped", "{packets}", Counter, &["container_network_transmit_packets_dropped"],
        Many(|_, one, out| interfaces(one, out, |all| all.tx_lost.drops))),

    row(Conventions, "container.disk.io", "By", Counter,
        &["container_fs_reads_bytes", "container_fs_writes_bytes", "container_blkio_device_usage"],
        Many(|source, one, out| devices(source, one, out, ["disk.io.direction", "system.device"], |io| [io.read_bytes, io.write_bytes]))),
    row(Both, "system_agent.container.disk.operations", "{operation}", Counter, &["container_fs_reads", "container_fs_writes"],
        Many(|source, one, out| devices(source, one, out, ["disk.io.direction", "system.device"], |io| [io.read_ops, io.write_ops]))),
    row(Receivers, "container.blockio.io_service_bytes_recursive", "By", Counter,
        &["container_fs_reads_bytes", "container_fs_writes_bytes", "container_blkio_device_usage"],
        Many(|_, one, out| for io in all_devices(one) {
            let (major, minor) = (io.number.0.to_string(), io.number.1.to_string());
            for (operation, bytes) in [("read", io.read_bytes), ("write", io.write_bytes)] {
                out(&[("device_major", &major), ("device_minor", &minor), ("operation", operation)], bytes.into());
            }
        })),
    row(Both, "container.filesystem.usage", "By", UpDown, &["container_fs_usage_bytes"], Int(|one| one.disk_used)),
    row(Both, "container.filesystem.capacity", "By", UpDown, &["container_fs_limit_bytes"],
        Many(|source, one, out| if let Some(limit) = layer_limit(one, disk(source, one)) { out(&[], limit.into()) })),
    row(Both, "system_agent.container.filesystem.inodes", "{inode}", UpDown, &["container_fs_inodes_total"],
        Many(|source, one, out| if let Some(all) = disk(source, one).and_then(|disk| disk.inodes_total) { out(&[], all.into()) })),
    row(Both, "system_agent.container.filesystem.inodes_free", "{inode}", UpDown, &["container_fs_inodes_free"],
        Many(|source, one, out| {
            let free = disk(source, one).and_then(|disk| disk.inodes_total?.checked_sub(disk.inodes_used?));
            if let Some(free) = free { out(&[], free.into()) }
        })),

    row(Both, "system_agent.container.pressure.waiting", "s", Counter,
        &["container_pressure_cpu_waiting_seconds", "container_pressure_memory_waiting_seconds", "container_pressure_io_waiting_seconds"],
        Many(|_, one, out| pressures(one, out, |all| [all.cpu.map(|one| one.some.total_us),
            all.memory.map(|one| one.some.total_us), all.io.map(|one| one.some.total_us)]))),
    row(Both, "system_agent.container.pressure.stalled", "s", Counter,
        &["container_pressure_cpu_stalled_seconds", "container_pressure_memory_stalled_seconds", "container_pressure_io_stalled_seconds"],
        Many(|_, one, out| pressures(one, out, |all| [all.cpu.and_then(|one| Some(one.full?.total_us)),
            all.memory.and_then(|one| Some(one.full?.total_us)), all.io.and_then(|one| Some(one.full?.total_us))]))),

    row(Receivers, "container.pids.count", "{pids}", UpDown, &["container_threads"], Int(|one| one.pids)),
    row(Conventions, "system_agent.container.threads", "{thread}", UpDown, &["container_threads"], Int(|one| one.pids)),
    row(Receivers, "container.pids.limit", "{pids}", UpDown, &["container_threads_max"], Int(|one| one.pids_limit)),
    row(Conventions, "system_agent.container.threads.limit", "{thread}", UpDown, &["container_threads_max"], Int(|one| one.pids_limit)),
    row(Receivers, "container.restarts", "{restarts}", Counter, &["system_agent_container_restarts"], Int(|one| one.restart_count)),
    row(Conventions, "system_agent.container.restarts", "{restart}", Counter, &["system_agent_container_restarts"], Int(|one| one.restart_count)),
    row(Both, "system_agent.container.created", "s", Gauge, &["container_creation_time_seconds"],
        Int(|one| u64::try_from(one.created).ok().filter(|created| *created > 0))),
    row(Both, "system_agent.container.health", "", Gauge, &["container_health_state", "system_agent_container_health"],
        Many(|_, one, out| if let Some(health) = &one.health { out(&[("system_agent.container.health", health)], 1_u64.into()) })),
    row(Both, "system_agent.container.state", "", Gauge, &["system_agent_container_state"],
        Many(|_, one, out| out(&[("container.state", &one.status)], 1_u64.into()))),
    row(Both, "system_agent.container.log.size", "By", UpDown, &["system_agent_container_log_bytes"],
        Many(|source, one, out| {
            let meta = source.snapshot.docker_meta.iter().find(|meta| meta.id == one.id);
            if let Some(bytes) = meta.and_then(|meta| meta.log_bytes) { out(&[], bytes.into()) }
        })),
];

/// Returns a figure of the CPU limit. Containers without a limit have none.
fn limited(one: &Container, value: u64) -> Option<u64> {
    one.cpu_limit.map(|_| value)
}

fn shares(one: &Container) -> Option<u64> {
    cpu_shares(one.spec?, is_v2(one))
}

fn is_v2(one: &Container) -> bool {
    !matches!(
        one.group.directories,
        Some(crate::model::GroupDirectories::V1 { .. })
    )
}

fn disk<'s>(source: &FigureSource<'s>, one: &Container) -> Option<&'s Disk> {
    disk_of_layer(&source.snapshot.system.disks, one)
}

fn directions(one: &Container, out: &mut Values<'_>, value: fn(&InterfaceCounters) -> [u64; 2]) {
    for (interface, counters) in one.network.iter() {
        for (direction, value) in ["receive", "transmit"].into_iter().zip(value(counters)) {
            let attributes = [
                ("network.interface.name", &**interface),
                ("network.io.direction", direction),
            ];
            out(&attributes, value.into());
        }
    }
}

fn interfaces(one: &Container, out: &mut Values<'_>, value: fn(&InterfaceCounters) -> u64) {
    for (interface, counters) in one.network.iter() {
        out(&[("interface", interface)], value(counters).into());
    }
}

/// Returns the block I/O of each device. If the engine does not tell the devices, returns the sum as one device.
fn all_devices(one: &Container) -> Vec<DeviceIo> {
    match (one.exact.devices.is_empty(), one.block_io) {
        (true, Some(io)) => vec![DeviceIo {
            number: (0, 0),
            read_bytes: io.read_bytes,
            write_bytes: io.write_bytes,
            read_ops: io.read_ops.unwrap_or_default(),
            write_ops: io.write_ops.unwrap_or_default(),
        }],
        _ => one.exact.devices.clone(),
    }
}

fn devices(
    source: &FigureSource<'_>,
    one: &Container,
    out: &mut Values<'_>,
    [direction, device]: [&str; 2],
    value: fn(&DeviceIo) -> [u64; 2],
) {
    for io in all_devices(one) {
        let disks = &source.snapshot.system.disk_io;
        let disk = disks.iter().find(|disk| disk.number == io.number);
        let name = match disk {
            Some(disk) => disk.device.clone(),
            None => format!("{}:{}", io.number.0, io.number.1),
        };
        for (way, value) in ["read", "write"].into_iter().zip(value(&io)) {
            out(&[(direction, way), (device, &name)], value.into());
        }
    }
}

fn pressures(
    one: &Container,
    out: &mut Values<'_>,
    microseconds: fn(&Pressures) -> [Option<u64>; 3],
) {
    let Some(all) = &one.pressure else { return };
    for (resource, us) in ["cpu", "memory", "io"].into_iter().zip(microseconds(all)) {
        if let Some(us) = us {
            out(
                &[("system_agent.pressure.resource", resource)],
                (us as f64 / 1e6).into(),
            );
        }
    }
}

/// Returns the time at which the counters of a container began, in nanoseconds since 1970. None if it is not known.
pub(super) fn start(one: &Container) -> Option<u64> {
    let Timestamp(time) = one.started_at?;
    let since_1970 = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since_1970.as_nanos()).ok()
}
