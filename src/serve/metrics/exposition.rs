//! A snapshot as Prometheus reads it.
//!
//! Names and units are those of its conventions. Where node_exporter or cAdvisor have a series of the same meaning, it has their
//! name and labels here, so that dashboards and alerts which were made for them work; of cAdvisor's labels `id` is the container's
//! short id. Everything else begins with `system_agent_`. Nothing has a label of which there is no bound: no processes, and no
//! veths, which come and go with containers.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::model::{
    AgentInfo, Container, CpuSeconds, Gpu, InterfaceKind, NetworkInterface, Pressures, Snapshot,
    SourceStatus, Status, SystemMetrics, Timestamp,
};

const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;
/// The kernel's default period of a CPU limit, in microseconds, in which docker sets limits, too.
const CPU_PERIOD: f64 = 100_000.0;

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own, version 0.0.4.
    Classic,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a client accepts, by its `Accept` header: OpenMetrics where it says so, and not that it likes the other better.
    pub(super) fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            let of = |range: &str| {
                let mut parts = range.split(';').map(str::trim);
                if !parts.next()?.eq_ignore_ascii_case(wanted) {
                    return None;
                }
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                Some(quality.map_or(1.0, |text| text.parse::<f64>().unwrap_or(0.0)))
            };
            accept.split(',').filter_map(of).reduce(f64::max)
        };
        match quality("application/openmetrics-text") {
            Some(open) if open > 0.0 && open >= quality("text/plain").unwrap_or(0.0) => {
                Self::OpenMetrics
            }
            _ => Self::Classic,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Classic => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The snapshot's figures.
///
/// # Errors
/// None that could be named: memory is written to.
pub(super) fn write(snapshot: Arc<Snapshot>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures(snapshot)));
    let mut written = String::new();
    match format {
        Format::Classic => prometheus_text::encode(&mut written, &registry)?,
        Format::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

#[derive(Debug)]
struct Figures(Arc<Snapshot>);

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = &*self.0;
        let mut families = Families(encoder);
        // Of a source that has not been read even once there is nothing to say.
        if snapshot.sources.system.collected_at.is_some() {
            cpu(&mut families, &snapshot.system)?;
            memory(&mut families, &snapshot.system)?;
            file_systems(&mut families, &snapshot.system)?;
            block_devices(&mut families, &snapshot.system)?;
            interfaces(&mut families, &snapshot.system.network)?;
            pressure(
                &mut families,
                &NODE,
                &[(no_labels(), snapshot.system.pressure.as_ref())],
            )?;
            host(&mut families, snapshot)?;
        }
        containers(&mut families, snapshot)?;
        sources(&mut families, snapshot)?;
        agent(&mut families, &snapshot.agent)
    }
}

/// What is written to, family by family.
struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples)
    }

    /// `_total` is added to its name.
    fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, samples)
    }

    /// Nothing where there are no samples.
    fn family<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            let mut sample = family.encode_family(&labels)?;
            match kind {
                MetricType::Counter => sample.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                _ => sample.encode_gauge(&value)?,
            }
        }
        Ok(())
    }
}

type Labels<'l, const N: usize> = [(&'l str, &'l str); N];

fn no_labels() -> Labels<'static, 0> {
    []
}

fn alone(value: f64) -> [(Labels<'static, 0>, f64); 1] {
    [(no_labels(), value)]
}

fn if_any(value: Option<f64>) -> impl Iterator<Item = (Labels<'static, 0>, f64)> {
    value.into_iter().flat_map(alone)
}

fn cpu(families: &mut Families<'_>, system: &SystemMetrics) -> fmt::Result {
    let cores: Vec<(String, &CpuSeconds)> = system
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
    let load = system.load_avg;
    families.gauge("node_load1", "Load average over 1 minute", alone(load.one))?;
    families.gauge(
        "node_load5",
        "Load average over 5 minutes",
        alone(load.five),
    )?;
    families.gauge(
        "node_load15",
        "Load average over 15 minutes",
        alone(load.fifteen),
    )
}

fn memory(families: &mut Families<'_>, system: &SystemMetrics) -> fmt::Result {
    let bytes = |mib: f64| alone(mib * MIB);
    families.gauge(
        "node_memory_MemTotal_bytes",
        "Memory",
        bytes(system.memory_total),
    )?;
    families.gauge(
        "node_memory_MemAvailable_bytes",
        "Memory that programs could still have without swapping",
        if_any(system.memory_available.map(|mib| mib * MIB)),
    )?;
    families.gauge(
        "system_agent_memory_cached_bytes",
        "Memory that caches files, with what of the kernel can be reclaimed",
        if_any(system.memory_cached.map(|mib| mib * MIB)),
    )?;
    let swap = system.swap_total.unwrap_or_default();
    let free = swap - system.swap_used.unwrap_or_default();
    families.gauge("node_memory_SwapTotal_bytes", "Swap", bytes(swap))?;
    families.gauge("node_memory_SwapFree_bytes", "Swap not in use", bytes(free))
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
        each(|disk| disk.total.map(|gib| gib * GIB)),
    )?;
    families.gauge(
        "node_filesystem_free_bytes",
        "Free space of the file system, with what is reserved for root",
        each(|disk| Some((disk.total? - disk.used?) * GIB)),
    )?;
    families.gauge(
        "node_filesystem_avail_bytes",
        "Space of the file system that ordinary users may still fill",
        each(|disk| disk.available.map(|gib| gib * GIB)),
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
        "Whether the file system cannot be asked: it has not answered for more than a second",
        each(|disk| Some(is(disk.stuck))),
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
        "node_network_up",
        "Whether the interface has a link",
        each(|one| one.up.map(is)),
    )?;
    families.gauge(
        "node_network_speed_bytes",
        "The link's speed, in bytes a second",
        // Megabits.
        each(|one| Some(one.speed? as f64 * 1e6 / 8.0)),
    )
}

/// The names of pressure's families.
struct PressureNames {
    cpu_waiting: &'static str,
    cpu_stalled: &'static str,
    memory_waiting: &'static str,
    memory_stalled: &'static str,
    io_waiting: &'static str,
    io_stalled: &'static str,
}

const NODE: PressureNames = PressureNames {
    cpu_waiting: "node_pressure_cpu_waiting_seconds",
    cpu_stalled: "system_agent_pressure_cpu_stalled_seconds",
    memory_waiting: "node_pressure_memory_waiting_seconds",
    memory_stalled: "node_pressure_memory_stalled_seconds",
    io_waiting: "node_pressure_io_waiting_seconds",
    io_stalled: "node_pressure_io_stalled_seconds",
};

const CONTAINER: PressureNames = PressureNames {
    cpu_waiting: "container_pressure_cpu_waiting_seconds",
    cpu_stalled: "container_pressure_cpu_stalled_seconds",
    memory_waiting: "container_pressure_memory_waiting_seconds",
    memory_stalled: "container_pressure_memory_stalled_seconds",
    io_waiting: "container_pressure_io_waiting_seconds",
    io_stalled: "container_pressure_io_stalled_seconds",
};

fn pressure<L: EncodeLabelSet + Copy>(
    families: &mut Families<'_>,
    names: &PressureNames,
    all: &[(L, Option<&Pressures>)],
) -> fmt::Result {
    let mut write = |name, help, total: fn(&Pressures) -> Option<u64>| {
        let seconds = |us: u64| us as f64 / 1e6;
        let samples = all
            .iter()
            .filter_map(|(labels, of)| Some((*labels, seconds(total((*of)?)?))));
        families.counter(name, help, samples)
    };
    write(
        names.cpu_waiting,
        "Time in which some work waited for a CPU, in seconds",
        |of| Some(of.cpu?.some.total_us),
    )?;
    write(
        names.cpu_stalled,
        "Time in which all work waited for a CPU at once, in seconds",
        |of| Some(of.cpu?.full?.total_us),
    )?;
    write(
        names.memory_waiting,
        "Time in which some work waited for memory, in seconds",
        |of| Some(of.memory?.some.total_us),
    )?;
    write(
        names.memory_stalled,
        "Time in which all work waited for memory at once, in seconds",
        |of| Some(of.memory?.full?.total_us),
    )?;
    write(
        names.io_waiting,
        "Time in which some work waited for I/O, in seconds",
        |of| Some(of.io?.some.total_us),
    )?;
    write(
        names.io_stalled,
        "Time in which all work waited for I/O at once, in seconds",
        |of| Some(of.io?.full?.total_us),
    )
}

/// What is left of the host.
fn host(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let (system, host) = (&snapshot.system, &snapshot.host);
    families.gauge(
        "node_boot_time_seconds",
        "When the host booted, in Unix seconds",
        alone(host.boot_time as f64),
    )?;
    families.gauge(
        "node_time_seconds",
        "The host's clock when it was read, in Unix seconds",
        if_any(snapshot.sources.system.collected_at.map(unix)),
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
    let failed = system.failed_units.iter().flatten();
    families.gauge(
        "node_systemd_unit_state",
        "The units of systemd that have failed; no others",
        failed.map(|unit| ([("name", unit.name.as_str()), ("state", "failed")], 1.0)),
    )?;
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
        "system_agent_threads",
        "Threads of all processes",
        if_any(system.processes.map(|counts| counts.threads as f64)),
    )?;
    let sensor = |value: fn(&crate::model::Temperature) -> Option<f64>| {
        system.temperatures.iter().filter_map(move |one| {
            let labels = [
                ("device", one.device.as_str()),
                ("sensor", one.sensor.as_str()),
            ];
            Some((labels, value(one)?))
        })
    };
    families.gauge(
        "system_agent_temperature_celsius",
        "What the sensor shows",
        sensor(|one| Some(one.celsius)),
    )?;
    families.gauge(
        "system_agent_temperature_critical_celsius",
        "From where on the device itself is in danger",
        sensor(|one| one.critical),
    )?;
    gpus(families, system.gpus.as_deref().unwrap_or_default())
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

/// cAdvisor's labels of a container.
fn labels(container: &Container) -> Labels<'_, 3> {
    [
        ("id", &container.id),
        ("image", &container.image),
        ("name", container.name.trim_start_matches('/')),
    ]
}

fn containers(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let all = &snapshot.containers;
    let host_memory = snapshot.system.memory_total * MIB;
    let each = |value: fn(&Container) -> Option<f64>| {
        all.iter()
            .filter_map(move |one| Some((labels(one), value(one)?)))
    };
    let cpu = all.iter().filter_map(|one| {
        let [id, image, name] = labels(one);
        let seconds = one.cpu_usage_ns? as f64 / 1e9;
        Some(([id, image, name, ("cpu", "total")], seconds))
    });
    families.counter(
        "container_cpu_usage_seconds",
        "CPU time that the container has used, in seconds",
        cpu,
    )?;
    families.gauge(
        "container_spec_cpu_period",
        "The period of the CPU limit, in microseconds",
        each(|one| one.cpu_limit.map(|_| CPU_PERIOD)),
    )?;
    families.gauge(
        "container_spec_cpu_quota",
        "CPU time that the container may use in each such period, in microseconds",
        each(|one| one.cpu_limit.map(|cores| cores * CPU_PERIOD)),
    )?;
    families.counter(
        "container_cpu_cfs_periods",
        "Periods of the CPU limit in which the container ran",
        each(|one| Some(one.throttling?.periods as f64)),
    )?;
    families.counter(
        "container_cpu_cfs_throttled_periods",
        "Periods of the CPU limit in which the container was held back",
        each(|one| Some(one.throttling?.throttled_periods as f64)),
    )?;
    families.counter(
        "container_cpu_cfs_throttled_seconds",
        "Time that the CPU limit held the container back, in seconds",
        each(|one| Some(one.throttling?.throttled_ns as f64 / 1e9)),
    )?;
    families.gauge(
        "container_memory_working_set_bytes",
        "Memory in use, without inactive file cache",
        each(|one| Some(one.memory_usage as f64)),
    )?;
    families.gauge(
        "container_memory_rss",
        "Memory of the container's programs, in bytes: their own, not that of files",
        each(|one| Some(one.memory_rss? as f64)),
    )?;
    families.gauge(
        "container_memory_cache",
        "Memory that caches files, in bytes",
        each(|one| Some(one.memory_cache? as f64)),
    )?;
    let limits = all.iter().map(|one| {
        // No limit is the host's memory there, rounded in another place, and 0 here.
        let limit = one.memory_limit as f64;
        let is_limited = host_memory == 0.0 || limit + MIB < host_memory;
        (labels(one), if is_limited { limit } else { 0.0 })
    });
    families.gauge(
        "container_spec_memory_limit_bytes",
        "The memory limit; 0 where there is none",
        limits,
    )?;
    families.counter(
        "container_oom_events",
        "Processes that the kernel has killed for want of memory",
        each(|one| Some(one.oom_kills? as f64)),
    )?;
    networks(families, all)?;
    families.counter(
        "container_fs_reads_bytes",
        "Bytes read from block devices",
        each(|one| Some(one.block_io?.read_bytes as f64)),
    )?;
    families.counter(
        "container_fs_writes_bytes",
        "Bytes written to block devices",
        each(|one| Some(one.block_io?.write_bytes as f64)),
    )?;
    families.counter(
        "container_fs_reads",
        "Read operations of block devices",
        each(|one| Some(one.block_io?.read_ops as f64)),
    )?;
    families.counter(
        "container_fs_writes",
        "Write operations of block devices",
        each(|one| Some(one.block_io?.write_ops as f64)),
    )?;
    families.gauge(
        "container_threads",
        "Processes and threads",
        each(|one| Some(one.pids? as f64)),
    )?;
    families.gauge(
        "container_threads_max",
        "The most processes and threads that the container may have; 0 where that is not limited",
        each(|one| Some(one.pids_limit.unwrap_or_default() as f64)),
    )?;
    families.gauge(
        "container_start_time_seconds",
        "When the container was started last, in Unix seconds",
        each(|one| one.started_at.map(unix)),
    )?;
    let seen = snapshot.sources.docker.collected_at.map(unix);
    families.gauge(
        "container_last_seen",
        "When the container was read last, in Unix seconds",
        all.iter().filter_map(|one| Some((labels(one), seen?))),
    )?;
    let pressures: Vec<_> = all
        .iter()
        .map(|one| (labels(one), one.pressure.as_ref()))
        .collect();
    pressure(families, &CONTAINER, &pressures)?;
    families.counter(
        "system_agent_container_restarts",
        "How often the container's restart policy has started it anew",
        each(|one| Some(one.restart_count? as f64)),
    )?;
    families.gauge(
        "system_agent_container_paused",
        "Whether the container's processes are frozen",
        each(|one| Some(is(one.status == "paused"))),
    )?;
    let health = all
        .iter()
        .filter_map(|one| Some((one, one.health.as_deref()?)));
    let health = health.flat_map(|(one, health)| {
        let [id, image, name] = labels(one);
        ["healthy", "starting", "unhealthy"]
            .map(|status| ([id, image, name, ("status", status)], is(status == health)))
    });
    families.gauge(
        "system_agent_container_health",
        "What the container's health check says: 1 for that, 0 for the others",
        health,
    )?;
    families.gauge(
        "system_agent_container_info",
        "What the container is: its image's digest, what docker compose calls it, and its labels that CONTAINER_LABELS asks for",
        all.iter().map(|one| (Info(one), 1.0)),
    )
}

fn networks(families: &mut Families<'_>, all: &[Container]) -> fmt::Result {
    let each = |value: fn(&crate::model::InterfaceCounters) -> u64| {
        all.iter().flat_map(move |one| {
            let [id, image, name] = labels(one);
            one.network.iter().map(move |(interface, counters)| {
                let labels = [id, image, name, ("interface", interface.as_str())];
                (labels, value(counters) as f64)
            })
        })
    };
    families.counter(
        "container_network_receive_bytes",
        "Bytes that the container has received",
        each(|counters| counters.rx_bytes),
    )?;
    families.counter(
        "container_network_transmit_bytes",
        "Bytes that the container has sent",
        each(|counters| counters.tx_bytes),
    )?;
    families.counter(
        "container_network_receive_packets",
        "Packets that the container has received",
        each(|counters| counters.rx_packets),
    )?;
    families.counter(
        "container_network_transmit_packets",
        "Packets that the container has sent",
        each(|counters| counters.tx_packets),
    )
}

/// What is said of a container once, rather than with each of its figures.
struct Info<'c>(&'c Container);

impl EncodeLabelSet for Info<'_> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> fmt::Result {
        let container = self.0;
        labels(container).encode(encoder)?;
        let compose = container.compose.as_ref();
        [
            ("image_digest", container.image_digest.as_deref()),
            (
                "compose_project",
                compose.map(|compose| compose.project.as_str()),
            ),
            (
                "compose_service",
                compose.and_then(|compose| compose.service.as_deref()),
            ),
            ("network_of", container.network_of.as_deref()),
        ]
        .map(|(name, value)| (name, value.unwrap_or_default()))
        .encode(encoder)?;
        // Two may come to the same name: the first has it.
        let mut names = BTreeSet::new();
        for (name, value) in &container.labels {
            let name = label_name(name);
            if !names.contains(&name) {
                [(Cow::from(name.as_str()), value.as_str())].encode(encoder)?;
                names.insert(name);
            }
        }
        Ok(())
    }
}

/// As cAdvisor calls a container's label.
fn label_name(label: &str) -> String {
    let allowed = |one: char| {
        if one.is_ascii_alphanumeric() {
            one
        } else {
            '_'
        }
    };
    format!(
        "container_label_{}",
        label.chars().map(allowed).collect::<String>()
    )
}

fn sources(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let enabled = || {
        let all = snapshot.sources.named();
        all.filter(|(_, source)| source.status != SourceStatus::Disabled)
    };
    let each = |value: fn(&crate::model::SourceHealth) -> Option<f64>| {
        enabled().filter_map(move |(name, source)| Some(([("source", name)], value(source)?)))
    };
    families.gauge(
        "system_agent_source_up",
        "Whether the source is well: the host's figures, the engine's containers, their logs",
        each(|source| Some(is(source.status == SourceStatus::Ok))),
    )?;
    families.gauge(
        "system_agent_source_duration_seconds",
        "How long the source's last round took",
        each(|source| Some(source.duration_ms? as f64 / 1000.0)),
    )?;
    families.gauge(
        "system_agent_source_interval_seconds",
        "The time between the source's rounds",
        each(|source| Some(source.interval_ms? as f64 / 1000.0)),
    )?;
    families.gauge(
        "system_agent_source_collected_timestamp_seconds",
        "When the source's figures were read, in Unix seconds",
        each(|source| source.collected_at.map(unix)),
    )?;
    families.gauge(
        "system_agent_up",
        "Whether every source that is switched on is well",
        alone(is(snapshot.status == Status::Ok)),
    )?;
    families.gauge(
        "system_agent_snapshot_timestamp_seconds",
        "When the snapshot that these figures are of was composed, in Unix seconds",
        alone(unix(snapshot.timestamp)),
    )
}

fn agent(families: &mut Families<'_>, agent: &AgentInfo) -> fmt::Result {
    let version = [("version", agent.version.as_str())];
    families.gauge(
        "system_agent_build_info",
        "The agent's version",
        [(version, 1.0)],
    )?;
    families.counter(
        "system_agent_snapshots",
        "Snapshots since the agent began",
        alone(agent.seq as f64),
    )?;
    families.gauge(
        "system_agent_clients",
        "Clients that are sent snapshots",
        alone(agent.clients as f64),
    )?;
    families.gauge(
        "system_agent_cpu_ratio",
        "CPU that the agent uses, in cores, over the last interval",
        alone(ratio(agent.cpu_percent)),
    )?;
    families.gauge(
        "system_agent_engine_cpu_ratio",
        "CPU that the engine's processes use, in cores, over the last interval",
        if_any(agent.engine_cpu_percent.map(ratio)),
    )?;
    families.gauge(
        "process_resident_memory_bytes",
        "The agent's resident memory",
        alone(agent.memory_rss as f64),
    )
}

fn is(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn ratio(percent: f64) -> f64 {
    percent / 100.0
}

fn unix(Timestamp(time): Timestamp) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
