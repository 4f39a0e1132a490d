//! The tables of the figures of the host and the agent.
//!
//! [`CONVERSIONS`] gives names of the semantic conventions to families of Prometheus. [`HOST`] has the figures that no single family
//! has in the form of the conventions. A family that is in no table gets a name by [`own_name`].

use super::points::{Kind, Number};
use super::{NameSet, Set};
use crate::model::{Disk, KernelRow, MemoryTypes, SensorKind};
use crate::publish::figures::FigureSource;

use Kind::{Counter, Gauge, UpDown};
use Set::{Both, Conventions, Receivers};

/// A family of Prometheus with other names. An empty name means the name by [`own_name`].
pub(super) struct Conversion {
    pub(super) family: &'static str,
    /// The name by the conventions, and the name of the receiver.
    pub(super) names: [&'static str; 2],
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    /// Each label, with the names of its attribute.
    labels: &'static [(&'static str, [&'static str; 2])],
    /// Further attributes, with their names and their value.
    constants: &'static [([&'static str; 2], &'static str)],
    /// The factor between both values.
    pub(super) scale: f64,
}

/// A figure that is read from the snapshot.
pub(super) struct HostRow {
    pub(super) set: Set,
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    /// The families of Prometheus that have the same figure. They are not sent themselves.
    pub(super) families: &'static [&'static str],
    pub(super) read: fn(&FigureSource<'_>, [&str; 2], &mut Values<'_>),
    /// The names of attributes for `read`, by the conventions and by the receiver.
    attributes: [[&'static str; 2]; 2],
}

/// The function that receives each value of a row, with its attributes.
pub(super) type Values<'f> = dyn FnMut(&[(&str, &str)], Number) + 'f;

/// The families of Prometheus that are not sent, and the reasons.
#[rustfmt::skip]
pub(super) const NOT_SENT: &[(&str, &str)] = &[
    ("node_uname_info", RESOURCE), ("node_os_info", RESOURCE), ("system_agent_container_info", RESOURCE),
    ("system_agent_build_info", "the version is in the resource and in the scope"),
    ("node_processes_state", "the same as system.process.count"), ("node_processes_pids", "the sum of system.process.count"),
    ("node_drm_gpu_busy_percent", "the same as hw.gpu.utilization"), ("node_drm_memory_vram_used_bytes", "the same as hw.gpu.memory.usage"),
    ("node_drm_memory_vram_size_bytes", "the same as hw.gpu.memory.limit"),
    ("container_memory_max_usage_bytes", REQUEST), ("container_processes", REQUEST), ("container_file_descriptors", REQUEST),
    ("container_ulimits_soft", REQUEST),
    ("container_last_seen", "each point has the time of its figures"),
    ("container_scrape_error", "the same as system_agent.source.up"),
];
const RESOURCE: &str = "attributes of the resource";
const REQUEST: &str = "read only for a scrape";

/// The labels of families without a conversion, and the names of their attributes.
const LABELS: &[(&str, [&str; 2])] = &[
    ("device", ["system.device", "device"]),
    ("fstype", ["system.filesystem.type", "type"]),
    ("mountpoint", ["system.filesystem.mountpoint", "mountpoint"]),
    ("short_id", ["container.id", "container.id"]),
    ("image", ["container.image.name", "container.image.name"]),
];
const CPU: (&str, [&str; 2]) = ("cpu", ["cpu.logical_number", "cpu"]);
const DISK: &[(&str, [&str; 2])] = &[("device", ["system.device", "device"])];
const INTERFACE: &[(&str, [&str; 2])] = &[("device", ["network.interface.name", "device"])];
const GPU: &[(&str, [&str; 2])] = &[
    ("gpu", ["hw.id", "hw.id"]),
    ("name", ["hw.name", "hw.name"]),
];
const BATTERY: &[(&str, [&str; 2])] = &[("power_supply", ["hw.id", "hw.id"])];
const MEMORY: &[(&str, [&str; 2])] = &[("controller", ["hw.id", "hw.id"])];
const NONE: &[(&str, [&str; 2])] = &[];
const READ: &[([&str; 2], &str)] = &[(["disk.io.direction", "direction"], "read")];
const WRITE: &[([&str; 2], &str)] = &[(["disk.io.direction", "direction"], "write")];
const RECEIVE: &[([&str; 2], &str)] = &[(["network.io.direction", "direction"], "receive")];
const TRANSMIT: &[([&str; 2], &str)] = &[(["network.io.direction", "direction"], "transmit")];
const GPU_TYPE: &[([&str; 2], &str)] = &[(["hw.type", "hw.type"], "gpu")];

const fn convert(
    family: &'static str,
    names: [&'static str; 2],
    unit: &'static str,
    kind: Kind,
    labels: &'static [(&'static str, [&'static str; 2])],
    constants: &'static [([&'static str; 2], &'static str)],
) -> Conversion {
    Conversion {
        family,
        names,
        unit,
        kind,
        labels,
        constants,
        scale: 1.0,
    }
}

#[rustfmt::skip]
pub(super) static CONVERSIONS: &[Conversion] = &[
    convert("node_cpu_seconds", ["system.cpu.time", "system.cpu.time"], "s", Counter, &[CPU, ("mode", ["cpu.mode", "state"])], &[]),
    convert("node_cpu_scaling_frequency_hertz", ["system.cpu.frequency", "system.cpu.frequency"], "Hz", Gauge, &[CPU], &[]),
    convert("node_load1", ["system_agent.load_average.1m", "system.cpu.load_average.1m"], "{thread}", Gauge, NONE, &[]),
    convert("node_load5", ["system_agent.load_average.5m", "system.cpu.load_average.5m"], "{thread}", Gauge, NONE, &[]),
    convert("node_load15", ["system_agent.load_average.15m", "system.cpu.load_average.15m"], "{thread}", Gauge, NONE, &[]),
    convert("node_memory_MemTotal_bytes", ["system.memory.limit", "system.memory.limit"], "By", UpDown, NONE, &[]),
    convert("node_memory_MemAvailable_bytes", ["system.memory.linux.available", "system.linux.memory.available"], "By", UpDown, NONE, &[]),
    convert("node_memory_SwapTotal_bytes", ["system_agent.paging.limit", "system_agent.paging.limit"], "By", UpDown, NONE, &[]),

    convert("node_disk_read_bytes", ["system.disk.io", "system.disk.io"], "By", Counter, DISK, READ),
    convert("node_disk_written_bytes", ["system.disk.io", "system.disk.io"], "By", Counter, DISK, WRITE),
    convert("node_disk_reads_completed", ["system.disk.operations", "system.disk.operations"], "{operation}", Counter, DISK, READ),
    convert("node_disk_writes_completed", ["system.disk.operations", "system.disk.operations"], "{operation}", Counter, DISK, WRITE),
    convert("node_disk_io_time_seconds", ["system.disk.io_time", "system.disk.io_time"], "s", Counter, DISK, &[]),

    convert("node_network_receive_bytes", ["system.network.io", "system.network.io"], "By", Counter, INTERFACE, RECEIVE),
    convert("node_network_transmit_bytes", ["system.network.io", "system.network.io"], "By", Counter, INTERFACE, TRANSMIT),
    convert("node_network_receive_packets", ["system.network.packet.count", "system.network.packets"], "{packet}", Counter, DISK, RECEIVE),
    convert("node_network_transmit_packets", ["system.network.packet.count", "system.network.packets"], "{packet}", Counter, DISK, TRANSMIT),
    convert("node_network_receive_errs", ["system.network.errors", "system.network.errors"], "{error}", Counter, INTERFACE, RECEIVE),
    convert("node_network_transmit_errs", ["system.network.errors", "system.network.errors"], "{error}", Counter, INTERFACE, TRANSMIT),
    convert("node_network_receive_drop", ["system.network.packet.dropped", "system.network.dropped"], "{packet}", Counter, INTERFACE, RECEIVE),
    convert("node_network_transmit_drop", ["system.network.packet.dropped", "system.network.dropped"], "{packet}", Counter, INTERFACE, TRANSMIT),
    convert("system_agent_network_up", ["", ""], "", Gauge, INTERFACE, &[]),
    convert("node_network_speed_bytes", ["", ""], "By/s", Gauge, INTERFACE, &[]),
    convert("node_nf_conntrack_entries", ["", "system.network.conntrack.count"], "{entries}", UpDown, NONE, &[]),
    convert("node_nf_conntrack_entries_limit", ["", "system.network.conntrack.max"], "{entries}", UpDown, NONE, &[]),

    convert("system_agent_processes", ["system.process.count", "system.processes.count"], "{process}", UpDown,
        &[("state", ["process.state", "status"])], &[]),
    convert("system_agent_gpu_busy_ratio", ["hw.gpu.utilization", "hw.gpu.utilization"], "1", Gauge, GPU, &[]),
    convert("system_agent_gpu_memory_used_bytes", ["hw.gpu.memory.usage", "hw.gpu.memory.usage"], "By", UpDown, GPU, &[]),
    convert("system_agent_gpu_memory_bytes", ["hw.gpu.memory.limit", "hw.gpu.memory.limit"], "By", UpDown, GPU, &[]),
    convert("system_agent_gpu_temperature_celsius", ["hw.temperature", "hw.temperature"], "Cel", Gauge, GPU, GPU_TYPE),
    convert("system_agent_gpu_power_watts", ["hw.power", "hw.power"], "W", Gauge, GPU, GPU_TYPE),
    convert("system_agent_gpu_frequency_hertz", ["", ""], "Hz", Gauge, GPU, &[]),
    convert("system_agent_gpu_rc6_ratio", ["", ""], "1", Gauge, GPU, &[]),
    Conversion { scale: 0.01, ..convert("node_power_supply_capacity", ["hw.battery.charge", "hw.battery.charge"], "1", Gauge, BATTERY, &[]) },
    convert("node_power_supply_time_to_empty_seconds", ["hw.battery.time_left", "hw.battery.time_left"], "s", Gauge, BATTERY,
        &[(["hw.state", "hw.state"], "discharging")]),
    convert("node_power_supply_time_to_full_seconds", ["hw.battery.time_left", "hw.battery.time_left"], "s", Gauge, BATTERY,
        &[(["hw.state", "hw.state"], "charging")]),
    convert("node_edac_correctable_errors", ["hw.errors", "hw.errors"], "{error}", Counter, MEMORY,
        &[(["hw.type", "hw.type"], "memory"), (["error.type", "error.type"], "correctable")]),
    convert("node_edac_uncorrectable_errors", ["hw.errors", "hw.errors"], "{error}", Counter, MEMORY,
        &[(["hw.type", "hw.type"], "memory"), (["error.type", "error.type"], "uncorrectable")]),

    convert("process_resident_memory_bytes", ["process.memory.usage", "process.memory.usage"], "By", UpDown, NONE, &[]),
    convert("system_agent_cpu_ratio", ["system_agent.cpu.usage", "system_agent.cpu.usage"], "{cpu}", Gauge, NONE, &[]),
    convert("system_agent_engine_cpu_ratio", ["system_agent.engine.cpu.usage", "system_agent.engine.cpu.usage"], "{cpu}", Gauge, NONE, &[]),
];

/// The kernel's own families that are read for each export.
pub(super) const KERNEL_FAMILIES: [&str; 4] = ["stat", "vmstat", "meminfo", "diskstats"];

const NO_ATTRIBUTES: [[&str; 2]; 2] = [["", ""], ["", ""]];
const DISK_IO: [[&str; 2]; 2] = [
    ["disk.io.direction", "system.device"],
    ["direction", "device"],
];
const SENSOR: [[&str; 2]; 2] = [["hw.id", "hw.name"], ["hw.id", "hw.name"]];

const fn row(
    set: Set,
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    families: &'static [&'static str],
    attributes: [[&'static str; 2]; 2],
    read: fn(&FigureSource<'_>, [&str; 2], &mut Values<'_>),
) -> HostRow {
    HostRow {
        set,
        name,
        unit,
        kind,
        families,
        read,
        attributes,
    }
}

#[rustfmt::skip]
pub(super) static HOST: &[HostRow] = &[
    row(Both, "system.uptime", "s", Gauge, &[], NO_ATTRIBUTES,
        |source, _, out| if has_host(source) { out(&[], source.snapshot.system.uptime.into()) }),
    row(Both, "system.cpu.logical.count", "{cpu}", UpDown, &[], NO_ATTRIBUTES,
        |source, _, out| if has_host(source) { out(&[], u64::from(source.snapshot.host.cpus).into()) }),
    row(Both, "system.memory.usage", "By", UpDown, &[], [["system.memory.state", ""], ["state", ""]],
        |source, [state, _], out| {
            let Some(memory) = source.snapshot.system.exact.memory else { return };
            let Some(MemoryTypes { free, cached, .. }) = memory.types else { return };
            let used = memory.total.saturating_sub(free).saturating_sub(cached);
            for (name, bytes) in [("used", used), ("free", free), ("cached", cached)] {
                out(&[(state, name)], bytes.into());
            }
        }),
    row(Both, "system.paging.usage", "By", UpDown, &["node_memory_SwapFree_bytes"], [["system.paging.state", ""], ["state", ""]],
        |source, [state, _], out| if let Some(memory) = source.snapshot.system.exact.memory {
            out(&[(state, "used")], memory.swap_used.into());
            out(&[(state, "free")], memory.swap_total.saturating_sub(memory.swap_used).into());
        }),
    row(Both, "system.filesystem.usage", "By", UpDown, &["node_filesystem_free_bytes", "node_filesystem_avail_bytes"],
        [["system.filesystem.state", ""], ["state", ""]], filesystem_usage),
    row(Conventions, "system.filesystem.limit", "By", UpDown, &["node_filesystem_size_bytes"], [["", ""], ["", ""]],
        |source, _, out| for disk in &source.snapshot.system.disks {
            if let Some(space) = disk.exact {
                out(&of_disk(disk, true), space.size.into());
            }
        }),
    row(Receivers, "system.filesystem.inodes.usage", "{inodes}", UpDown, &["node_filesystem_files", "node_filesystem_files_free"],
        [["", ""], ["state", ""]],
        |source, [state, _], out| for disk in &source.snapshot.system.disks {
            if let (Some(total), Some(used)) = (disk.inodes_total, disk.inodes_used) {
                for (name, count) in [("used", used), ("free", total.saturating_sub(used))] {
                    let [device, mount, kind, mode] = of_disk(disk, false);
                    out(&[device, mount, kind, mode, (state, name)], count.into());
                }
            }
        }),
    row(Both, "hw.temperature", "Cel", Gauge, &["node_hwmon_temp_celsius"], SENSOR,
        |source, names, out| for one in &source.snapshot.system.temperatures {
            sensor(names, (&one.chip, &one.input, &one.sensor), one.exact, out);
        }),
    row(Both, "hw.temperature.limit", "Cel", Gauge, &["node_hwmon_temp_crit_celsius"], SENSOR,
        |source, names, out| for one in &source.snapshot.system.temperatures {
            if let Some(critical) = one.critical {
                sensor(names, (&one.chip, &one.input, &one.sensor), critical, out);
            }
        }),
    row(Both, "hw.fan.speed", "rpm", Gauge, &["node_hwmon_fan_rpm"], SENSOR,
        |source, names, out| sensors(source, names, &SensorKind::Fan, out)),
    row(Both, "hw.voltage", "V", Gauge, &["node_hwmon_in_volts"], SENSOR,
        |source, names, out| sensors(source, names, &SensorKind::Voltage, out)),
    row(Both, "hw.power", "W", Gauge, &["node_hwmon_power_watt"], SENSOR,
        |source, names, out| sensors(source, names, &SensorKind::Power, out)),

    row(Conventions, "system.process.created", "{process}", Counter, &[], NO_ATTRIBUTES,
        |source, _, out| of_kernel(source, "stat", "processes", &[], out)),
    row(Receivers, "system.processes.created", "{processes}", Counter, &[], NO_ATTRIBUTES,
        |source, _, out| of_kernel(source, "stat", "processes", &[], out)),
    row(Both, "system_agent.context_switches", "{switch}", Counter, &[], NO_ATTRIBUTES,
        |source, _, out| of_kernel(source, "stat", "ctxt", &[], out)),
    row(Both, "system.paging.faults", "{fault}", Counter, &[], [["system.paging.fault.type", ""], ["type", ""]],
        |source, [kind, _], out| {
            let of = |field| kernel_rows(source, "vmstat").find_map(|row| row.get(field));
            let (Some(all), Some(major)) = (of("pgfault"), of("pgmajfault")) else { return };
            out(&[(kind, "major")], whole(major));
            out(&[(kind, "minor")], whole(all - major));
        }),
    row(Conventions, "system.paging.operations", "{operation}", Counter, &[], [["system.paging.direction", "system.paging.fault.type"]; 2],
        |source, [direction, kind], out| for (way, field) in [("in", "pswpin"), ("out", "pswpout")] {
            of_kernel(source, "vmstat", field, &[(direction, way), (kind, "major")], out);
        }),
    row(Receivers, "system.paging.operations", "{operations}", Counter, &[], [["direction", "type"]; 2],
        |source, [direction, kind], out| for (way, field) in [("page_in", "pswpin"), ("page_out", "pswpout")] {
            of_kernel(source, "vmstat", field, &[(direction, way), (kind, "major")], out);
        }),
    row(Conventions, "system.memory.linux.slab.usage", "By", UpDown, &[], [["system.memory.linux.slab.state", ""]; 2],
        |source, [state, _], out| for (name, field) in [("reclaimable", "SReclaimable"), ("unreclaimable", "SUnreclaim")] {
            of_kernel(source, "meminfo", field, &[(state, name)], out);
        }),
    row(Both, "system.disk.merged", "{operation}", Counter, &[], DISK_IO,
        |source, names, out| both_ways(source, names, ["reads_merged", "writes_merged"], out, whole)),
    row(Both, "system.disk.operation_time", "s", Counter, &[], DISK_IO,
        |source, names, out| both_ways(source, names, ["read_time", "write_time"], out, Number::Double)),
    row(Receivers, "system.disk.pending_operations", "{operations}", UpDown, &[], DISK_IO,
        |source, [_, device], out| of_disks(source, device, "io_now", out, whole)),
    row(Receivers, "system.disk.weighted_io_time", "s", Counter, &[], DISK_IO,
        |source, [_, device], out| of_disks(source, device, "io_time_weighted", out, Number::Double)),
];

impl HostRow {
    /// Passes the values to `out`.
    pub(super) fn values(&self, source: &FigureSource<'_>, names: NameSet, out: &mut Values<'_>) {
        (self.read)(source, self.attributes[names.place()], out);
    }
}

impl Conversion {
    /// Passes the attributes of a sample with these labels to `each`.
    pub(super) fn attributes(
        &self,
        labels: &[(&str, &str)],
        names: NameSet,
        each: &mut dyn FnMut(&str, &str),
    ) {
        for (label, value) in labels {
            let known = self.labels.iter().find(|(known, _)| known == label);
            let name = known.map_or(*label, |(_, attribute)| attribute[names.place()]);
            let text = match (name, *value) {
                // The receiver's names of the modes of a CPU.
                ("state", "iowait") => "wait",
                ("state" | "cpu.mode", "irq") => "interrupt",
                (_, value) => value,
            };
            match name {
                "cpu" => each(name, &format!("cpu{text}")),
                _ => each(name, text),
            }
        }
        for (name, value) in self.constants {
            each(name[names.place()], value);
        }
    }
}

/// Returns the attribute of a label of a family without a conversion.
pub(super) fn attribute(label: &str, names: NameSet) -> &str {
    let known = LABELS.iter().find(|(known, _)| *known == label);
    known.map_or(label, |(_, attribute)| attribute[names.place()])
}

/// Returns the name of a family that the conventions do not have. A unit is no part of the name, because it is a field of its own.
pub(super) fn own_name(family: &str) -> String {
    let prefixes = ["system_agent_", "node_", "process_"];
    let bare = prefixes
        .iter()
        .find_map(|prefix| family.strip_prefix(prefix));
    let bare = bare.unwrap_or(family);
    let units = [
        "_seconds", "_bytes", "_ratio", "_celsius", "_hertz", "_watts",
    ];
    let named = units.iter().find_map(|unit| bare.strip_suffix(unit));
    let words = named.unwrap_or(bare).to_lowercase();
    format!("system_agent.{}", words.replacen('_', ".", 1))
}

fn has_host(source: &FigureSource<'_>) -> bool {
    source.snapshot.sources.system.collected_at.is_some()
}

/// Returns the attributes of a file system.
fn of_disk(disk: &Disk, by_conventions: bool) -> [(&str, &str); 4] {
    let mode = if disk.readonly { "ro" } else { "rw" };
    let names = match by_conventions {
        true => [
            "system.device",
            "system.filesystem.mountpoint",
            "system.filesystem.type",
            "system.filesystem.mode",
        ],
        false => ["device", "mountpoint", "type", "mode"],
    };
    let [device, mount, kind, mode_name] = names;
    [
        (device, &disk.device),
        (mount, &disk.mount),
        (kind, &disk.kind),
        (mode_name, mode),
    ]
}

fn filesystem_usage(source: &FigureSource<'_>, [state, _]: [&str; 2], out: &mut Values<'_>) {
    let by_conventions = state == "system.filesystem.state";
    for disk in &source.snapshot.system.disks {
        let Some(space) = disk.exact else { continue };
        for (name, bytes) in [
            ("used", space.size.saturating_sub(space.free)),
            ("free", space.available),
            ("reserved", space.free.saturating_sub(space.available)),
        ] {
            let [device, mount, kind, mode] = of_disk(disk, by_conventions);
            out(&[device, mount, kind, mode, (state, name)], bytes.into());
        }
    }
}

/// Returns the rows of one of [`KERNEL_FAMILIES`]. Empty if it could not be read.
fn kernel_rows<'s>(
    source: &FigureSource<'s>,
    family: &'static str,
) -> impl Iterator<Item = &'s KernelRow> {
    let families = source
        .kernel
        .into_iter()
        .flat_map(|kernel| &kernel.families);
    let found = families.filter(move |one| one.name == family);
    found.flat_map(|one| &one.rows)
}

/// Returns a count as a whole number.
fn whole(value: f64) -> Number {
    Number::Int(value.max(0.0) as u64)
}

/// Passes a figure of the whole host to `out`.
fn of_kernel(
    source: &FigureSource<'_>,
    family: &'static str,
    field: &str,
    attributes: &[(&str, &str)],
    out: &mut Values<'_>,
) {
    let found = kernel_rows(source, family).find_map(|row| row.get(field));
    if let Some(value) = found {
        out(attributes, whole(value));
    }
}

/// Passes a figure of each block device to `out`. The snapshot has the same devices.
fn of_disks(
    source: &FigureSource<'_>,
    device: &str,
    field: &str,
    out: &mut Values<'_>,
    number: fn(f64) -> Number,
) {
    each_disk(source, |name, row| {
        if let Some(value) = row.get(field) {
            out(&[(device, name)], number(value));
        }
    });
}

/// Passes two figures of each block device to `out`: of reading and of writing.
fn both_ways(
    source: &FigureSource<'_>,
    [direction, device]: [&str; 2],
    fields: [&str; 2],
    out: &mut Values<'_>,
    number: fn(f64) -> Number,
) {
    each_disk(source, |name, row| {
        for (way, field) in ["read", "write"].into_iter().zip(fields) {
            if let Some(value) = row.get(field) {
                out(&[(direction, way), (device, name)], number(value));
            }
        }
    });
}

fn each_disk(source: &FigureSource<'_>, mut each: impl FnMut(&str, &KernelRow)) {
    let known = &source.snapshot.system.disk_io;
    for row in kernel_rows(source, "diskstats") {
        let name = row.labels.iter().find(|(label, _)| *label == "device");
        let Some((_, name)) = name else { continue };
        if known.iter().any(|disk| disk.device == *name) {
            each(name, row);
        }
    }
}

fn sensors(source: &FigureSource<'_>, names: [&str; 2], kind: &SensorKind, out: &mut Values<'_>) {
    let all = source.snapshot.system.sensors.iter();
    for one in all.filter(|one| one.kind == *kind) {
        sensor(names, (&one.chip, &one.input, &one.sensor), one.value, out);
    }
}

fn sensor(
    [id, name]: [&str; 2],
    (chip, input, label): (&str, &str, &str),
    value: f64,
    out: &mut Values<'_>,
) {
    let unique = format!("{chip}/{input}");
    out(
        &[(id, &unique), (name, label), ("hw.parent", chip)],
        value.into(),
    );
}
