//! The metrics of containers that cAdvisor has under the same names, with the same labels.
//!
//! The label `id` is the path of the container's control group, as in cAdvisor. The host itself has the id `/`.
//!
//! This file is long: half of it is one table, and each function after the table reads the samples of one of its rows.

use std::collections::BTreeSet;

use super::{
    CPU_STALLED, CPU_WAITING, FigureFamily, FigureSource, IO_STALLED, IO_WAITING, MEMORY_STALLED,
    MEMORY_WAITING, MIB, MetricKind, NONE, Samples, counter, gauge, has_host, if_any, is, seconds,
    system, unix,
};
use crate::model::{
    Container, ContainerSpec, CpuSeconds, DeviceIo, Disk, DiskIo, ExactMemory, GroupDirectories,
    InterfaceCounters, InterfaceKind, MemoryTypes, NetworkInterface, Pressures, RequestedContainer,
    SourceStatus,
};

const CONTAINER: &[&str] = &["id", "image", "name"];
const DEVICE: &[&str] = &["id", "image", "name", "device"];
const INTERFACE: &[&str] = &["id", "image", "name", "interface"];
/// The kernel's fixed settings of the root of the control groups. cAdvisor publishes them for the host.
const ROOT_CPU_PERIOD: f64 = 100_000.0;
const ROOT_CPU_SHARES: f64 = 1024.0;
/// The labels of the host. cAdvisor publishes the host as the root of the control groups.
const ROOT: [(&str, &str); 3] = [("id", "/"), ("image", ""), ("name", "")];

// The columns are: name, unit, labels, fields, help text, and the function that reads the samples.

#[rustfmt::skip]
pub(super) static CONTAINERS: &[FigureFamily] = &[
    counter("container_cpu_usage_seconds", "s", &["id", "image", "name", "cpu"], &["containers[].cpu_usage_ns", "containers[].cpu_percent"],
        "CPU time that the container has used, in seconds", cpu_usage),
    counter("container_cpu_user_seconds", "s", CONTAINER, NONE,
        "CPU time that the container's programs have used, in seconds",
        |source, out| {
            root(source, out, cpu_modes(source, &["user", "nice"]));
            containers(source, out, |one| Some(cpu_modes_ns(source, one)?.0 as f64 / 1e9));
        }),
    counter("container_cpu_system_seconds", "s", CONTAINER, NONE,
        "CPU time that the kernel has used for the container, in seconds",
        |source, out| {
            root(source, out, cpu_modes(source, &["system", "irq", "softirq"]));
            containers(source, out, |one| Some(cpu_modes_ns(source, one)?.1 as f64 / 1e9));
        }),
    gauge("container_spec_cpu_period", "us", CONTAINER, NONE,
        "Period of the CPU limit, in microseconds",
        |source, out| {
            root(source, out, Some(ROOT_CPU_PERIOD));
            specs(source, out, |spec, _| Some(spec.cpu_period));
        }),
    gauge("container_spec_cpu_quota", "us", CONTAINER, &["containers[].cpu_limit"],
        "CPU time that the container may use in each period of the CPU limit, in microseconds",
        |source, out| specs(source, out, |spec, _| spec.cpu_quota)),
    gauge("container_spec_cpu_shares", "1", CONTAINER, NONE,
        "Weight of the container against other containers when the CPUs are busy",
        |source, out| {
            root(source, out, Some(ROOT_CPU_SHARES));
            specs(source, out, cpu_shares);
        }),
    counter("container_cpu_cfs_periods", "{period}", CONTAINER, &["containers[].throttling.periods"],
        "Periods of the CPU limit in which the container ran",
        |source, out| limited(source, out, |one| Some(one.throttling?.periods as f64))),
    counter("container_cpu_cfs_throttled_periods", "{period}", CONTAINER, &["containers[].throttling.throttled_periods"],
        "Periods of the CPU limit in which the container was throttled",
        |source, out| limited(source, out, |one| Some(one.throttling?.throttled_periods as f64))),
    counter("container_cpu_cfs_throttled_seconds", "s", CONTAINER, &["containers[].throttling.throttled_ns"],
        "Time in which the CPU limit throttled the container, in seconds",
        |source, out| limited(source, out, |one| Some(one.throttling?.throttled_ns as f64 / 1e9))),
    counter("container_cpu_cfs_burst_periods", "{period}", CONTAINER, NONE,
        "Periods of the CPU limit in which the container used saved CPU time",
        |source, out| limited(source, out, |one| Some(one.exact.bursts?.0 as f64))),
    counter("container_cpu_cfs_burst_seconds", "s", CONTAINER, NONE,
        "Saved CPU time that the container has used, in seconds",
        |source, out| limited(source, out, |one| Some(one.exact.bursts?.1 as f64 / 1e9))),

    gauge("container_memory_working_set_bytes", "By", CONTAINER, &["containers[].memory_usage", "containers[].memory_percent"],
        "Used memory, without inactive file cache",
        |source, out| {
            root_memory(source, out, |memory, types| (memory.total.saturating_sub(types.free)).saturating_sub(types.inactive_file));
            containers(source, out, |one| Some(one.memory_usage? as f64));
        }),
    gauge("container_memory_usage_bytes", "By", CONTAINER, NONE,
        "Used memory, with all file cache",
        |source, out| {
            root_memory(source, out, |memory, types| memory.total.saturating_sub(types.free));
            containers(source, out, |one| Some(one.memory_with_cache? as f64));
        }),
    gauge("container_memory_max_usage_bytes", "By", CONTAINER, NONE,
        "The most memory that the container has used, with all file cache",
        |source, out| requested(source, out, |one| one.memory_max)),
    gauge("container_memory_rss", "By", CONTAINER, &["containers[].memory_rss"],
        "Anonymous memory of the container, in bytes: without file cache",
        |source, out| {
            root_memory(source, out, |_, types| types.anonymous);
            containers(source, out, |one| Some(one.memory_rss? as f64));
        }),
    gauge("container_memory_cache", "By", CONTAINER, &["containers[].memory_cache"],
        "Memory that caches files, in bytes",
        |source, out| {
            root_memory(source, out, |_, types| types.cached);
            containers(source, out, |one| Some(one.memory_cache? as f64));
        }),
    gauge("container_memory_mapped_file", "By", CONTAINER, NONE,
        "Memory of files that programs have mapped, in bytes",
        |source, out| {
            root_memory(source, out, |_, types| types.mapped);
            exact(source, out, |one| one.exact.mapped_file);
        }),
    gauge("container_memory_swap", "By", CONTAINER, NONE,
        "Swap that the container uses, in bytes",
        |source, out| {
            root_memory(source, out, |memory, _| memory.swap_used);
            exact(source, out, |one| one.exact.swap.or_else(|| request(source, one)?.swap));
        }),
    gauge("container_memory_kernel_usage", "By", CONTAINER, &["containers[].memory_kernel"],
        "Memory that the kernel uses for the container, in bytes",
        |source, out| exact(source, out, |one| one.memory_kernel)),
    gauge("container_memory_total_active_file_bytes", "By", CONTAINER, NONE,
        "File cache that was used recently",
        |source, out| {
            root_memory(source, out, |_, types| types.active_file);
            exact(source, out, |one| one.exact.active_file);
        }),
    gauge("container_memory_total_inactive_file_bytes", "By", CONTAINER, NONE,
        "File cache that was not used recently",
        |source, out| {
            root_memory(source, out, |_, types| types.inactive_file);
            exact(source, out, |one| one.exact.inactive_file);
        }),
    gauge("container_memory_file_dirty_bytes", "By", CONTAINER, NONE,
        "File cache that is not written to disk yet",
        |source, out| exact(source, out, |one| one.exact.file_dirty)),
    gauge("container_memory_file_writeback_bytes", "By", CONTAINER, NONE,
        "File cache that is being written to disk",
        |source, out| exact(source, out, |one| one.exact.file_writeback)),
    // It is a counter. cAdvisor publishes it without `_total`, and OpenMetrics does not allow this name for a counter.
    FigureFamily { kind: MetricKind::Unknown, ..gauge("container_memory_failcnt", "1", CONTAINER, NONE,
        "How often the container reached its memory limit",
        |source, out| exact(source, out, |one| one.exact.max_events.or_else(|| request(source, one)?.memory_failures))) },
    counter("container_memory_failures", "{fault}", &["id", "image", "name", "failure_type", "scope"], NONE,
        "Page faults of the container: all, and those for which the kernel read from a disk", page_faults),
    counter("container_memory_events_high", "1", CONTAINER, NONE,
        "How often the kernel slowed the container because it used more than memory.high",
        |source, out| exact(source, out, |one| one.exact.high_events)),
    counter("container_memory_events_max", "1", CONTAINER, NONE,
        "How often the container reached its memory limit",
        |source, out| exact(source, out, |one| one.exact.max_events)),
    counter("container_memory_pgscan", "{page}", CONTAINER, NONE,
        "Pages that the kernel looked at to free memory of the container",
        |source, out| exact(source, out, |one| one.exact.pages_scanned)),
    counter("container_memory_pgsteal", "{page}", CONTAINER, NONE,
        "Pages of the container that the kernel has freed",
        |source, out| exact(source, out, |one| one.exact.pages_reclaimed)),
    counter("container_memory_workingset_refault_file", "{page}", CONTAINER, NONE,
        "Pages of files that the container read again after the kernel had freed them",
        |source, out| exact(source, out, |one| one.exact.refaults_file)),
    counter("container_memory_workingset_refault_anon", "{page}", CONTAINER, NONE,
        "Anonymous pages that the container read again after the kernel had swapped them out",
        |source, out| exact(source, out, |one| one.exact.refaults_anon)),
    gauge("container_spec_memory_limit_bytes", "By", CONTAINER, &["containers[].memory_limit"],
        "Memory limit, or 0 without a limit. For the host, its memory", memory_limits),
    gauge("container_spec_memory_swap_limit_bytes", "By", CONTAINER, NONE,
        "Limit of swap with cgroup v2, and of memory and swap together with v1. 0 without a limit",
        |source, out| {
            root_memory(source, out, |memory, _| memory.swap_total);
            specs(source, out, swap_limit);
        }),
    gauge("container_spec_memory_reservation_limit_bytes", "By", CONTAINER, NONE,
        "Memory that the container keeps when memory is short, or 0",
        |source, out| {
            root(source, out, Some(0.0));
            specs(source, out, |spec, _| Some(spec.memory_reservation));
        }),
    counter("container_oom_events", "{process}", CONTAINER, &["containers[].oom_kills"],
        "Processes that the kernel has killed because memory was exhausted",
        |source, out| exact(source, out, |one| one.oom_kills)),

    counter("container_network_receive_bytes", "By", INTERFACE, &["containers[].network.*.rx_bytes"],
        "Bytes that the container has received",
        |source, out| networks(source, out, |one| Some(one.bytes_recv), |counters| counters.rx_bytes)),
    counter("container_network_transmit_bytes", "By", INTERFACE, &["containers[].network.*.tx_bytes"],
        "Bytes that the container has sent",
        |source, out| networks(source, out, |one| Some(one.bytes_sent), |counters| counters.tx_bytes)),
    counter("container_network_receive_packets", "{packet}", INTERFACE, &["containers[].network.*.rx_packets"],
        "Packets that the container has received",
        |source, out| networks(source, out, |one| Some(one.packets_recv), |counters| counters.rx_packets)),
    counter("container_network_transmit_packets", "{packet}", INTERFACE, &["containers[].network.*.tx_packets"],
        "Packets that the container has sent",
        |source, out| networks(source, out, |one| Some(one.packets_sent), |counters| counters.tx_packets)),
    counter("container_network_receive_errors", "{packet}", INTERFACE, NONE,
        "Received packets with errors",
        |source, out| networks(source, out, |one| one.errors_recv, |counters| counters.rx_lost.errors)),
    counter("container_network_transmit_errors", "{packet}", INTERFACE, NONE,
        "Packets that were not sent because of errors",
        |source, out| networks(source, out, |one| one.errors_sent, |counters| counters.tx_lost.errors)),
    counter("container_network_receive_packets_dropped", "{packet}", INTERFACE, NONE,
        "Received packets that were dropped",
        |source, out| networks(source, out, |one| one.drops_recv, |counters| counters.rx_lost.drops)),
    counter("container_network_transmit_packets_dropped", "{packet}", INTERFACE, NONE,
        "Packets that were dropped before sending",
        |source, out| networks(source, out, |one| one.drops_sent, |counters| counters.tx_lost.drops)),

    counter("container_fs_reads_bytes", "By", DEVICE, &["containers[].block_io.read_bytes"],
        "Bytes read from the block device",
        |source, out| devices(source, out, |disk| disk.read_bytes, |device| device.read_bytes)),
    counter("container_fs_writes_bytes", "By", DEVICE, &["containers[].block_io.write_bytes"],
        "Bytes written to the block device",
        |source, out| devices(source, out, |disk| disk.write_bytes, |device| device.write_bytes)),
    counter("container_fs_reads", "{operation}", DEVICE, &["containers[].block_io.read_ops"],
        "Read operations of the block device",
        |source, out| devices(source, out, |disk| disk.read_ops, |device| device.read_ops)),
    counter("container_fs_writes", "{operation}", DEVICE, &["containers[].block_io.write_ops"],
        "Write operations of the block device",
        |source, out| devices(source, out, |disk| disk.write_ops, |device| device.write_ops)),
    counter("container_blkio_device_usage", "By", &["id", "image", "name", "device", "major", "minor", "operation"], NONE,
        "Bytes read from and written to the block device, by operation", device_usage),
    gauge("container_fs_limit_bytes", "By", DEVICE, NONE,
        "Limit of the container's writable layer, or the size of the file system", |source, out| {
            file_systems(source, out, |disk| Some(disk.exact?.size));
            layers(source, out, layer_limit);
        }),
    gauge("container_fs_usage_bytes", "By", DEVICE, &["containers[].disk_used"],
        "Size of the container's writable layer, or for the host, used space of the file system", |source, out| {
            file_systems(source, out, |disk| disk.exact?.size.checked_sub(disk.exact?.free));
            layers(source, out, |one, _| one.disk_used);
        }),
    gauge("container_fs_inodes_total", "{inode}", DEVICE, NONE,
        "Inodes of the file system. For a container, the file system of its writable layer", |source, out| {
            file_systems(source, out, |disk| disk.inodes_total);
            layers(source, out, |_, disk| disk?.inodes_total);
        }),
    gauge("container_fs_inodes_free", "{inode}", DEVICE, NONE,
        "Free inodes of the file system. For a container, the file system of its writable layer", |source, out| {
            file_systems(source, out, |disk| disk.inodes_total?.checked_sub(disk.inodes_used?));
            layers(source, out, |_, disk| disk?.inodes_total?.checked_sub(disk?.inodes_used?));
        }),

    counter("container_pressure_cpu_waiting_seconds", "s", CONTAINER, &["containers[].pressure.cpu.some"], CPU_WAITING,
        |source, out| pressures(source, out, |all| Some(all.cpu?.some.total_us))),
    counter("container_pressure_cpu_stalled_seconds", "s", CONTAINER, &["containers[].pressure.cpu.full"], CPU_STALLED,
        |source, out| pressures(source, out, |all| Some(all.cpu?.full?.total_us))),
    counter("container_pressure_memory_waiting_seconds", "s", CONTAINER, &["containers[].pressure.memory.some"], MEMORY_WAITING,
        |source, out| pressures(source, out, |all| Some(all.memory?.some.total_us))),
    counter("container_pressure_memory_stalled_seconds", "s", CONTAINER, &["containers[].pressure.memory.full"], MEMORY_STALLED,
        |source, out| pressures(source, out, |all| Some(all.memory?.full?.total_us))),
    counter("container_pressure_io_waiting_seconds", "s", CONTAINER, &["containers[].pressure.io.some"], IO_WAITING,
        |source, out| pressures(source, out, |all| Some(all.io?.some.total_us))),
    counter("container_pressure_io_stalled_seconds", "s", CONTAINER, &["containers[].pressure.io.full"], IO_STALLED,
        |source, out| pressures(source, out, |all| Some(all.io?.full?.total_us))),

    gauge("container_threads", "{thread}", CONTAINER, &["containers[].pids"],
        "Number of processes and threads",
        |source, out| exact(source, out, |one| one.pids)),
    gauge("container_threads_max", "{thread}", CONTAINER, &["containers[].pids_limit"],
        "Limit on processes and threads of the container, or 0 without a limit",
        |source, out| exact(source, out, |one| Some(one.pids_limit.unwrap_or_default()))),
    gauge("container_processes", "{process}", CONTAINER, NONE,
        "Number of processes",
        |source, out| requested(source, out, |one| one.processes)),
    gauge("container_file_descriptors", "{file}", CONTAINER, NONE,
        "Number of open files of all processes. Absent before Linux 6.2",
        |source, out| requested(source, out, |one| one.open_files)),
    gauge("container_ulimits_soft", "1", &["id", "image", "name", "ulimit"], NONE,
        "Limit on the open files of each process, or -1 without a limit", |source, out| {
            for one in source.snapshot.containers.iter() {
                if let Some(limit) = request(source, one).and_then(|figures| figures.open_files_limit) {
                    sample(out, one, &[("ulimit", "max_open_files")], limit as f64);
                }
            }
        }),
    gauge("container_start_time_seconds", "s", CONTAINER, &["containers[].started_at"],
        "Time at which the container was last started, or the host booted, in Unix seconds",
        |source, out| {
            root(source, out, boot_time(source));
            containers(source, out, |one| one.started_at.map(unix));
        }),
    gauge("container_creation_time_seconds", "s", CONTAINER, NONE,
        "Time at which the container was created, or the host booted, in Unix seconds",
        |source, out| {
            root(source, out, boot_time(source));
            containers(source, out, |one| (one.created > 0).then_some(one.created as f64));
        }),
    gauge("container_last_seen", "s", CONTAINER, &["sources.docker.collected_at"],
        "Time at which the container was last read, in Unix seconds. The sample of a container that has ended stays for five minutes",
        |source, out| {
            let sources = &source.snapshot.sources;
            root(source, out, sources.system.collected_at.map(unix));
            containers(source, out, |_| sources.docker.collected_at.map(unix));
            for one in source.ended {
                let labels: Vec<_> = one.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                out(&labels, unix(one.seen));
            }
        }),
    gauge("container_health_state", "1", CONTAINER, NONE,
        "Result of the container's health check: 1 if it is healthy, 0 if not, and -1 without a health check",
        |source, out| containers(source, out, |one| Some(match one.health.as_deref() {
            Some("healthy") => 1.0,
            Some(_) => 0.0,
            None => -1.0,
        }))),
    gauge("container_scrape_error", "1", NONE, NONE,
        "Whether the figures of containers could not be read",
        |source, out| {
            let status = &source.snapshot.sources.docker.status;
            if_any(out, (*status != SourceStatus::Disabled).then(|| is(*status != SourceStatus::Ok)));
        }),
];

/// Returns the labels of a container, as cAdvisor names them.
pub(super) fn labels(container: &Container) -> [(&str, &str); 3] {
    [
        ("id", &container.group.path),
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
            sample(out, one, &[], value);
        }
    }
}

fn boot_time(source: &FigureSource<'_>) -> Option<f64> {
    let boot_time = source.snapshot.host.boot_time;
    (boot_time > 0).then_some(boot_time as f64)
}

/// Passes a sample of a container to `out`. `more` are labels after those that each sample has. As in cAdvisor, the labels that
/// `CONTAINER_LABELS` and `CONTAINER_ENV` select follow.
fn sample(out: &mut Samples<'_>, one: &Container, more: &[(&str, &str)], value: f64) {
    let chosen = chosen_labels(one);
    let chosen = chosen.iter().map(|(name, value)| (&**name, *value));
    let more = more.iter().copied().chain(chosen);
    let all: Vec<_> = labels(one).into_iter().chain(more).collect();
    out(&all, value);
}

/// Returns the labels of the container that `CONTAINER_LABELS` selects and the environment variables that `CONTAINER_ENV` selects, with
/// the names that cAdvisor gives to them. Of several with the same name, only the first is used.
pub(super) fn chosen_labels(container: &Container) -> Vec<(String, &str)> {
    let mut names = BTreeSet::new();
    let labels = container.labels.iter();
    let labels = labels.map(|(name, value)| (label_name("container_label_", name), value.as_str()));
    let env = container.env.iter().map(|(name, value)| {
        // cAdvisor writes the names of environment variables in lower case.
        let name = label_name("container_env_", &name.to_lowercase());
        (name, value.as_str())
    });
    labels
        .chain(env)
        .filter(|(name, _)| names.insert(name.clone()))
        .collect()
}

/// Returns the name that cAdvisor gives to a container's label or environment variable.
fn label_name(prefix: &str, name: &str) -> String {
    let allowed = |one: char| match one.is_ascii_alphanumeric() {
        true => one,
        false => '_',
    };
    prefix.chars().chain(name.chars().map(allowed)).collect()
}

fn exact(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: impl Fn(&Container) -> Option<u64>,
) {
    containers(source, out, |one| Some(value(one)? as f64));
}

/// Passes figures of the containers with a CPU limit to `out`. As in cAdvisor, other containers have no such figures.
fn limited(source: &FigureSource<'_>, out: &mut Samples<'_>, value: fn(&Container) -> Option<f64>) {
    containers(source, out, |one| one.cpu_limit.and_then(|_| value(one)));
}

/// Returns the figures of a container that were read for this request.
fn request<'s>(source: &FigureSource<'s>, one: &Container) -> Option<&'s RequestedContainer> {
    source.kernel?.containers.get(&one.group.path)
}

fn requested(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: fn(&RequestedContainer) -> Option<u64>,
) {
    exact(source, out, |one| value(request(source, one)?));
}

/// Passes a figure of the host to `out`.
fn root(source: &FigureSource<'_>, out: &mut Samples<'_>, value: Option<f64>) {
    if let Some(value) = value.filter(|_| has_host(source)) {
        out(&ROOT, value);
    }
}

fn root_memory(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: fn(&ExactMemory, &MemoryTypes) -> u64,
) {
    let memory = system(source).and_then(|host| host.exact.memory);
    let types = memory.and_then(|memory| memory.types.map(|types| (memory, types)));
    let value = types.map(|(memory, types)| value(&memory, &types) as f64);
    root(source, out, value);
}

/// Returns the CPU time of the host in these modes, in seconds.
fn cpu_modes(source: &FigureSource<'_>, modes: &[&str]) -> Option<f64> {
    let cores = &system(source)?.exact.cpu_seconds;
    let of_core = |core: &CpuSeconds| {
        let all = CpuSeconds::MODES.iter().zip(core.modes);
        let wanted = all.filter(|(mode, _)| modes.contains(mode));
        wanted.map(|(_, seconds)| seconds).sum::<f64>()
    };
    (!cores.is_empty()).then(|| cores.iter().map(of_core).sum())
}

/// Returns the CPU time of a container in programs and in the kernel. Only with cgroup v2, each round reads it.
fn cpu_modes_ns(source: &FigureSource<'_>, one: &Container) -> Option<(u64, u64)> {
    let of_round = one.exact.cpu_modes_ns;
    of_round.or_else(|| request(source, one)?.cpu_modes_ns)
}

fn cpu_usage(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    let total = ("cpu", "total");
    let all = ["user", "nice", "system", "irq", "softirq", "steal"];
    if let Some(used) = cpu_modes(source, &all) {
        let [id, image, name] = ROOT;
        out(&[id, image, name, total], used);
    }
    for one in source.snapshot.containers.iter() {
        if let Some(used) = one.cpu_usage_ns {
            sample(out, one, &[total], used as f64 / 1e9);
        }
    }
}

/// Passes a limit of each container to `out`. The second argument of `value` is whether the container has cgroup v2.
fn specs(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: fn(ContainerSpec, bool) -> Option<u64>,
) {
    exact(source, out, |one| {
        let directories = one.group.directories.as_ref();
        value(
            one.spec?,
            !matches!(directories, Some(GroupDirectories::V1 { .. })),
        )
    });
}

pub(in crate::publish) fn cpu_shares(spec: ContainerSpec, is_v2: bool) -> Option<u64> {
    /// Docker's default weight with cgroup v1.
    const DEFAULT: u64 = 1024;
    /// The default weight of 100 with cgroup v2, on the scale of v1.
    const DEFAULT_V2: u64 = 2597;
    Some(match spec.cpu_shares {
        0 if is_v2 => DEFAULT_V2,
        0 => DEFAULT,
        shares => shares,
    })
}

pub(in crate::publish) fn swap_limit(spec: ContainerSpec, is_v2: bool) -> Option<u64> {
    let memory = if is_v2 { spec.memory } else { 0 };
    Some(spec.memory_and_swap.saturating_sub(memory))
}

/// Passes the memory limit of each container to `out`, or 0 for a container without a memory limit.
///
/// In the snapshot, `memory_limit` of a container without a limit is approximately the host's memory. Therefore, a limit counts
/// only if it is more than 1 MiB below the host's memory.
fn memory_limits(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    root_memory(source, out, |memory, _| memory.total);
    let host_memory = source.snapshot.system.memory_total * MIB;
    containers(source, out, |one| {
        let limit = one.memory_limit as f64;
        let is_limited = limit + MIB < host_memory;
        (host_memory > 0.0).then_some(if is_limited { limit } else { 0.0 })
    });
}

/// Passes the page faults of each container to `out`. cAdvisor has the same figures for both scopes.
///
/// The samples of all containers with the same scope and kind follow each other. With this order, gzip finds the name of the container in the
/// lines before: it looks back only 32 KiB.
fn page_faults(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    let count = |one: &Container, kind| match kind {
        "pgfault" => one.exact.page_faults,
        _ => one.exact.major_page_faults,
    };
    for scope in ["container", "hierarchy"] {
        for kind in ["pgfault", "pgmajfault"] {
            for one in source.snapshot.containers.iter() {
                if let Some(count) = count(one, kind) {
                    let labels = [("failure_type", kind), ("scope", scope)];
                    sample(out, one, &labels, count as f64);
                }
            }
        }
    }
}

fn networks(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    of_host: fn(&NetworkInterface) -> Option<u64>,
    value: fn(&InterfaceCounters) -> u64,
) {
    // cAdvisor leaves out the same interfaces.
    let is_shown = |one: &&NetworkInterface| {
        one.kind != Some(InterfaceKind::Veth)
            && !["lo", "veth", "docker"]
                .iter()
                .any(|start| one.name.starts_with(start))
    };
    let host = system(source).map_or(&[][..], |host| &host.network);
    for one in host.iter().filter(is_shown) {
        if let Some(value) = of_host(one) {
            let [id, image, name] = ROOT;
            out(&[id, image, name, ("interface", &one.name)], value as f64);
        }
    }
    for one in source.snapshot.containers.iter() {
        for (interface, counters) in one.network.iter() {
            let labels = [("interface", interface.as_str())];
            sample(out, one, &labels, value(counters) as f64);
        }
    }
}

/// Returns the path of a block device.
fn device_path(source: &FigureSource<'_>, (major, minor): (u32, u32)) -> String {
    let disks = system(source).map_or(&[][..], |host| &host.disk_io);
    let disk = disks.iter().find(|disk| disk.number == (major, minor));
    match disk {
        Some(disk) => format!("/dev/{}", disk.device),
        None => format!("/dev/block/{major}:{minor}"),
    }
}

/// Calls `each` with each container, its block I/O on each device, and the device's path.
fn each_device(source: &FigureSource<'_>, mut each: impl FnMut(&Container, &DeviceIo, &str)) {
    for one in source.snapshot.containers.iter() {
        for device in &one.exact.devices {
            each(one, device, &device_path(source, device.number));
        }
        // The engine does not always tell the devices.
        if let Some(io) = one.block_io.filter(|_| one.exact.devices.is_empty()) {
            let sum = DeviceIo {
                number: (0, 0),
                read_bytes: io.read_bytes,
                write_bytes: io.write_bytes,
                read_ops: io.read_ops.unwrap_or_default(),
                write_ops: io.write_ops.unwrap_or_default(),
            };
            if sum != DeviceIo::default() {
                each(one, &sum, "");
            }
        }
    }
}

fn devices(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    of_host: fn(&DiskIo) -> u64,
    value: fn(&DeviceIo) -> u64,
) {
    for disk in system(source).map_or(&[][..], |host| &host.disk_io) {
        let [id, image, name] = ROOT;
        let path = format!("/dev/{}", disk.device);
        out(&[id, image, name, ("device", &path)], of_host(disk) as f64);
    }
    each_device(source, |one, device, path| {
        sample(out, one, &[("device", path)], value(device) as f64);
    });
}

fn device_usage(source: &FigureSource<'_>, out: &mut Samples<'_>) {
    each_device(source, |one, device, path| {
        let (major, minor) = device.number;
        let (major, minor) = (major.to_string(), minor.to_string());
        let operations = [("Read", device.read_bytes), ("Write", device.write_bytes)];
        for (operation, bytes) in operations {
            let labels = [
                ("device", path),
                ("major", &major),
                ("minor", &minor),
                ("operation", operation),
            ];
            sample(out, one, &labels, bytes as f64);
        }
    });
}

/// Passes a figure of the host's file systems to `out`.
fn file_systems(source: &FigureSource<'_>, out: &mut Samples<'_>, value: fn(&Disk) -> Option<u64>) {
    let disks = system(source).map_or(&[][..], |host| &host.disks);
    let mut known = BTreeSet::new();
    for disk in disks {
        // A device can be mounted several times.
        if let Some(value) = value(disk)
            && known.insert(&disk.device)
        {
            let [id, image, name] = ROOT;
            out(&[id, image, name, ("device", &disk.device)], value as f64);
        }
    }
}

/// Passes a figure of the writable layer of each container to `out`. The second argument of `value` is the file system of the layer.
fn layers(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    value: fn(&Container, Option<&Disk>) -> Option<u64>,
) {
    let disks = system(source).map_or(&[][..], |host| &host.disks);
    for one in source.snapshot.containers.iter() {
        let disk = disk_of_layer(disks, one);
        if let Some(value) = value(one, disk) {
            let device = disk.map_or("", |disk| &*disk.device);
            sample(out, one, &[("device", device)], value as f64);
        }
    }
}

/// Returns the file system of a container's writable layer.
pub(in crate::publish) fn disk_of_layer<'d>(
    disks: &'d [Disk],
    one: &Container,
) -> Option<&'d Disk> {
    let is_below = |disk: &&Disk| {
        let layer = one.layer.as_deref();
        layer.is_some_and(|layer| layer.starts_with(&disk.mount))
    };
    let below = disks.iter().filter(is_below);
    below.max_by_key(|disk| disk.mount.len())
}

/// Returns the limit of a writable layer. Without a limit, it is the size of the file system, as in cAdvisor.
pub(in crate::publish) fn layer_limit(one: &Container, disk: Option<&Disk>) -> Option<u64> {
    let limit = one.spec.map_or(0, |spec| spec.storage);
    match limit {
        0 => Some(disk?.exact?.size),
        limit => Some(limit),
    }
}

fn pressures(
    source: &FigureSource<'_>,
    out: &mut Samples<'_>,
    total_us: fn(&Pressures) -> Option<u64>,
) {
    let of = |all: Option<&Pressures>| seconds(total_us(all?)?);
    root(
        source,
        out,
        of(system(source).and_then(|host| host.pressure.as_ref())),
    );
    containers(source, out, |one| of(one.pressure.as_ref()));
}
