//! The host, as node_exporter says it.

use std::fmt;

use super::{Families, MIB, if_any, is, no_labels, pressure, ratio};
use crate::model::{
    CpuSeconds, ExactMemory, Gpu, InterfaceKind, NetworkInterface, Snapshot, SystemMetrics,
    Temperature,
};

pub(super) fn write(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let system = &snapshot.system;
    cpu(families, system)?;
    memory(families, system)?;
    file_systems(families, system)?;
    block_devices(families, system)?;
    interfaces(families, &system.network)?;
    let waited = [(no_labels(), system.pressure.as_ref())];
    pressure::write(families, &pressure::NODE, &waited)?;
    temperatures(families, system)?;
    gpus(families, system.gpus.as_deref().unwrap_or_default())?;
    processes(families, system)?;
    about(families, snapshot)
}

fn cpu(families: &mut Families<'_>, system: &SystemMetrics) -> fmt::Result {
    let cores: Vec<(String, &CpuSeconds)> = system
        .exact
        .cpu_seconds
        .iter()
        .map(|core| (core.core.to_string(), core))
        .collect();
    let seconds = cores.iter().flat_map(|(number, core)| {
        let modes = CpuSeconds::MODES.iter().zip(core.modes);
        modes.map(|(mode, seconds)| ([("cpu", number.as_str()), ("mode", mode)], seconds))
    });
    families.counter(
        "node_cpu_seconds",
        "Time that each core has spent in each mode, in seconds",
        seconds,
    )?;
    let load = system.exact.load_avg;
    families.gauge(
        "node_load1",
        "Load average over 1 minute",
        if_any(load.map(|load| load.one)),
    )?;
    families.gauge(
        "node_load5",
        "Load average over 5 minutes",
        if_any(load.map(|load| load.five)),
    )?;
    families.gauge(
        "node_load15",
        "Load average over 15 minutes",
        if_any(load.map(|load| load.fifteen)),
    )
}

fn memory(families: &mut Families<'_>, system: &SystemMetrics) -> fmt::Result {
    let memory = system.exact.memory;
    let bytes = |of: fn(&ExactMemory) -> u64| if_any(memory.map(|memory| of(&memory) as f64));
    families.gauge(
        "node_memory_MemTotal_bytes",
        "Memory",
        bytes(|memory| memory.total),
    )?;
    families.gauge(
        "node_memory_MemAvailable_bytes",
        "Memory that programs could still have without swapping",
        bytes(|memory| memory.available),
    )?;
    families.gauge(
        "system_agent_memory_cached_bytes",
        "Memory that caches files, with what of the kernel can be reclaimed",
        if_any(
            memory
                .and_then(|memory| memory.cached)
                .map(|bytes| bytes as f64),
        ),
    )?;
    families.gauge(
        "node_memory_SwapTotal_bytes",
        "Swap",
        bytes(|memory| memory.swap_total),
    )?;
    families.gauge(
        "node_memory_SwapFree_bytes",
        "Swap not in use",
        bytes(|memory| memory.swap_total.saturating_sub(memory.swap_used)),
    )
}

fn file_systems(families: &mut Families<'_>, system: &SystemMetrics) -> fmt::Result {
    let each = |value: fn(&crate::model::Disk) -> Option<f64>| {
        system.disks.iter().filter_map(move |disk| {
            let labels = [
                ("device", disk.device.as_str()),
                ("fstype", &disk.kind),
                ("mountpoint", &disk.mount),
            ];
            Some((labels, value(disk)?))
        })
    };
    families.gauge(
        "node_filesystem_size_bytes",
        "Size of the file system",
        each(|disk| Some(disk.exact?.size as f64)),
    )?;
    families.gauge(
        "node_filesystem_free_bytes",
        "Free space of the file system, with what is reserved for root",
        each(|disk| Some(disk.exact?.free as f64)),
    )?;
    families.gauge(
        "node_filesystem_avail_bytes",
        "Space of the file system that ordinary users may still fill",
        each(|disk| Some(disk.exact?.available as f64)),
    )?;
    families.gauge(
        "node_filesystem_files",
        "Inodes of the file system",
        each(|disk| disk.inodes_total.map(|inodes| inodes as f64)),
    )?;
    families.gauge(
        "node_filesystem_files_free",
        "Free inodes of the file system",
        each(|disk| Some((disk.inodes_total? - disk.inodes_used?) as f64)),
    )?;
    families.gauge(
        "node_filesystem_device_error",
        "Whether the file system cannot be asked: it answers with an error, or not for more than a second. A lack of permission does not count",
        each(|disk| Some(is(disk.failed))),
    )?;
    families.gauge(
        "node_filesystem_readonly",
        "Whether the file system as a whole cannot be written to",
        each(|disk| Some(is(disk.readonly))),
    )
}

fn block_devices(families: &mut Families<'_>, system: &SystemMetrics) -> fmt::Result {
    let each = |value: fn(&crate::model::DiskIo) -> f64| {
        let of = move |disk| (value(disk), disk);
        system
            .disk_io
            .iter()
            .map(of)
            .map(|(value, disk)| ([("device", disk.device.as_str())], value))
    };
    families.counter(
        "node_disk_read_bytes",
        "Bytes read",
        each(|disk| disk.read_bytes as f64),
    )?;
    families.counter(
        "node_disk_written_bytes",
        "Bytes written",
        each(|disk| disk.write_bytes as f64),
    )?;
    families.counter(
        "node_disk_reads_completed",
        "Read operations",
        each(|disk| disk.read_ops as f64),
    )?;
    families.counter(
        "node_disk_writes_completed",
        "Write operations",
        each(|disk| disk.write_ops as f64),
    )?;
    families.counter(
        "node_disk_io_time_seconds",
        "Time in which the device had something to do, in seconds",
        each(|disk| disk.busy_ms as f64 / 1000.0),
    )
}

fn interfaces(families: &mut Families<'_>, all: &[NetworkInterface]) -> fmt::Result {
    let each = |value: fn(&NetworkInterface) -> Option<f64>| {
        all.iter()
            .filter(|one| one.kind != Some(InterfaceKind::Veth))
            .filter_map(move |one| Some(([("device", one.name.as_str())], value(one)?)))
    };
    families.counter(
        "node_network_receive_bytes",
        "Bytes received",
        each(|one| Some(one.bytes_recv as f64)),
    )?;
    families.counter(
        "node_network_transmit_bytes",
        "Bytes sent",
        each(|one| Some(one.bytes_sent as f64)),
    )?;
    families.counter(
        "node_network_receive_packets",
        "Packets received",
        each(|one| Some(one.packets_recv as f64)),
    )?;
    families.counter(
        "node_network_transmit_packets",
        "Packets sent",
        each(|one| Some(one.packets_sent as f64)),
    )?;
    families.counter(
        "node_network_receive_errs",
        "Packets that were received broken",
        each(|one| Some(one.errors_recv? as f64)),
    )?;
    families.counter(
        "node_network_transmit_errs",
        "Packets that could not be sent",
        each(|one| Some(one.errors_sent? as f64)),
    )?;
    families.counter(
        "node_network_receive_drop",
        "Packets that were received and dropped",
        each(|one| Some(one.drops_recv? as f64)),
    )?;
    families.counter(
        "node_network_transmit_drop",
        "Packets that were dropped rather than sent",
        each(|one| Some(one.drops_sent? as f64)),
    )?;
    families.gauge(
        "system_agent_network_up",
        "Whether the interface is up: has a link, or needs none",
        each(|one| one.up.map(is)),
    )?;
    families.gauge(
        "node_network_speed_bytes",
        "The link's speed, in bytes a second",
        // Megabits.
        each(|one| Some(one.speed? as f64 * 1e6 / 8.0)),
    )
}

fn temperatures(families: &mut Families<'_>, system: &SystemMetrics) -> fmt::Result {
    let all = &system.temperatures;
    let labels = |one: &'_ Temperature| [("chip", one.chip.clone()), ("sensor", one.input.clone())];
    families.gauge(
        "node_hwmon_temp_celsius",
        "What the sensor shows",
        all.iter().map(|one| (labels(one), one.exact)),
    )?;
    families.gauge(
        "node_hwmon_temp_crit_celsius",
        "From where on the device itself is in danger",
        all.iter()
            .filter_map(|one| Some((labels(one), one.critical?))),
    )?;
    let sensors = &system.exact.sensors;
    let labelled = sensors.labels.iter().map(|one| {
        let labels = [
            ("chip", one.chip.as_str()),
            ("label", &one.label),
            ("sensor", &one.sensor),
        ];
        (labels, 1.0)
    });
    families.gauge(
        "node_hwmon_sensor_label",
        "What the device calls the sensor",
        labelled,
    )?;
    let chips = sensors.chips.iter().map(|one| {
        let labels = [("chip", one.chip.as_str()), ("chip_name", &one.device)];
        (labels, 1.0)
    });
    families.gauge("node_hwmon_chip_names", "What the device is", chips)
}

fn processes(families: &mut Families<'_>, system: &SystemMetrics) -> fmt::Result {
    let states = system.processes.into_iter().flat_map(|counts| {
        [
            ("running", counts.running),
            ("sleeping", counts.sleeping),
            ("blocked", counts.blocked),
            ("stopped", counts.stopped),
            ("zombie", counts.zombie),
        ]
    });
    families.gauge(
        "system_agent_processes",
        "Processes by state",
        states.map(|(state, count)| ([("state", state)], count as f64)),
    )?;
    families.gauge(
        "node_processes_threads",
        "Threads of all processes",
        if_any(system.processes.map(|counts| counts.threads as f64)),
    )
}

fn about(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let host = &snapshot.host;
    families.gauge(
        "node_boot_time_seconds",
        "When the host booted, in Unix seconds",
        if_any((host.boot_time > 0).then_some(host.boot_time as f64)),
    )?;
    let uname = [
        ("sysname", "Linux"),
        ("nodename", host.hostname.as_str()),
        ("release", &host.kernel),
        ("machine", &host.arch),
    ];
    families.gauge("node_uname_info", "What uname says", [(uname, 1.0)])?;
    let os = [("pretty_name", host.os.as_str())];
    families.gauge("node_os_info", "The operating system", [(os, 1.0)])?;
    let failed = snapshot.system.failed_units.iter().flatten();
    families.gauge(
        "node_systemd_unit_state",
        "The units of systemd that have failed; no others",
        failed.map(|unit| ([("name", unit.name.as_str()), ("state", "failed")], 1.0)),
    )
}

fn gpus(families: &mut Families<'_>, gpus: &[Gpu]) -> fmt::Result {
    let gpus: Vec<(String, &Gpu)> = gpus
        .iter()
        .map(|gpu| (gpu.index.to_string(), gpu))
        .collect();
    let each = |value: fn(&Gpu) -> Option<f64>| {
        gpus.iter().filter_map(move |(index, gpu)| {
            let labels = [("gpu", index.as_str()), ("name", gpu.name.as_str())];
            Some((labels, value(gpu)?))
        })
    };
    families.gauge(
        "system_agent_gpu_busy_ratio",
        "The share of time in which the GPU computed something",
        each(|gpu| gpu.busy_percent.map(ratio)),
    )?;
    families.gauge(
        "system_agent_gpu_memory_used_bytes",
        "Memory of the GPU in use",
        each(|gpu| gpu.memory_used.map(|mib| mib * MIB)),
    )?;
    families.gauge(
        "system_agent_gpu_memory_bytes",
        "Memory of the GPU",
        each(|gpu| gpu.memory_total.map(|mib| mib * MIB)),
    )?;
    families.gauge(
        "system_agent_gpu_temperature_celsius",
        "The GPU's temperature",
        each(|gpu| gpu.celsius),
    )?;
    families.gauge(
        "system_agent_gpu_power_watts",
        "Power that the GPU draws",
        each(|gpu| gpu.watts),
    )
}
