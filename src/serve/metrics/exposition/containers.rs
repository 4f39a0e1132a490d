//! Containers, as cAdvisor says them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

use super::{Families, Labels, MIB, is, pressure, unix};
use crate::model::{Container, InterfaceCounters, Snapshot};

/// The kernel's default period of a CPU limit, in microseconds, in which docker sets limits, too.
const CPU_PERIOD: f64 = 100_000.0;

pub(super) fn write(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let all = &snapshot.containers;
    cpu(families, all)?;
    memory(families, all, snapshot.system.memory_total * MIB)?;
    networks(families, all)?;
    block_io(families, all)?;
    let pressures: Vec<_> = all
        .iter()
        .map(|one| (labels(one), one.pressure.as_ref()))
        .collect();
    pressure::write(families, &pressure::CONTAINER, &pressures)?;
    life(families, snapshot)?;
    state(families, snapshot)
}

/// cAdvisor's labels of a container.
fn labels(container: &Container) -> Labels<'_, 3> {
    [
        ("id", &container.id),
        ("image", &container.image),
        ("name", container.name.trim_start_matches('/')),
    ]
}

/// A sample of each container that has such a figure.
fn each(
    all: &[Container],
    value: fn(&Container) -> Option<f64>,
) -> impl Iterator<Item = (Labels<'_, 3>, f64)> {
    all.iter()
        .filter_map(move |one| Some((labels(one), value(one)?)))
}

fn cpu(families: &mut Families<'_>, all: &[Container]) -> fmt::Result {
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
        each(all, |one| one.cpu_limit.map(|_| CPU_PERIOD)),
    )?;
    families.gauge(
        "container_spec_cpu_quota",
        "CPU time that the container may use in each such period, in microseconds",
        each(all, |one| one.cpu_limit.map(|cores| cores * CPU_PERIOD)),
    )?;
    families.counter(
        "container_cpu_cfs_periods",
        "Periods of the CPU limit in which the container ran",
        each(all, |one| Some(one.throttling?.periods as f64)),
    )?;
    families.counter(
        "container_cpu_cfs_throttled_periods",
        "Periods of the CPU limit in which the container was held back",
        each(all, |one| Some(one.throttling?.throttled_periods as f64)),
    )?;
    families.counter(
        "container_cpu_cfs_throttled_seconds",
        "Time that the CPU limit held the container back, in seconds",
        each(all, |one| Some(one.throttling?.throttled_ns as f64 / 1e9)),
    )
}

fn memory(families: &mut Families<'_>, all: &[Container], host_memory: f64) -> fmt::Result {
    families.gauge(
        "container_memory_working_set_bytes",
        "Memory in use, without inactive file cache",
        each(all, |one| Some(one.memory_usage? as f64)),
    )?;
    families.gauge(
        "container_memory_usage_bytes",
        "Memory in use, with all file cache",
        each(all, |one| Some(one.memory_with_cache? as f64)),
    )?;
    families.gauge(
        "container_memory_rss",
        "Memory of the container's programs, in bytes: their own, not that of files",
        each(all, |one| Some(one.memory_rss? as f64)),
    )?;
    families.gauge(
        "container_memory_cache",
        "Memory that caches files, in bytes",
        each(all, |one| Some(one.memory_cache? as f64)),
    )?;
    // No limit is the host's memory there, rounded in another place, and 0 here: which it is, that memory tells.
    let limits = all.iter().filter(|_| host_memory > 0.0).map(|one| {
        let limit = one.memory_limit as f64;
        let is_limited = limit + MIB < host_memory;
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
        each(all, |one| Some(one.oom_kills? as f64)),
    )
}

fn block_io(families: &mut Families<'_>, all: &[Container]) -> fmt::Result {
    families.counter(
        "container_fs_reads_bytes",
        "Bytes read from all block devices together",
        each(all, |one| Some(one.block_io?.read_bytes as f64)),
    )?;
    families.counter(
        "container_fs_writes_bytes",
        "Bytes written to all block devices together",
        each(all, |one| Some(one.block_io?.write_bytes as f64)),
    )?;
    families.counter(
        "container_fs_reads",
        "Read operations of all block devices together",
        each(all, |one| Some(one.block_io?.read_ops? as f64)),
    )?;
    families.counter(
        "container_fs_writes",
        "Write operations of all block devices together",
        each(all, |one| Some(one.block_io?.write_ops? as f64)),
    )
}

fn life(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let all = &snapshot.containers;
    families.gauge(
        "container_threads",
        "Processes and threads",
        each(all, |one| Some(one.pids? as f64)),
    )?;
    families.gauge(
        "container_threads_max",
        "The most processes and threads that the container may have; 0 where that is not limited",
        each(all, |one| Some(one.pids_limit.unwrap_or_default() as f64)),
    )?;
    families.gauge(
        "container_start_time_seconds",
        "When the container was started last, in Unix seconds",
        each(all, |one| one.started_at.map(unix)),
    )?;
    let seen = snapshot.sources.docker.collected_at.map(unix);
    families.gauge(
        "container_last_seen",
        "When the container was read last, in Unix seconds",
        all.iter().filter_map(|one| Some((labels(one), seen?))),
    )
}

fn state(families: &mut Families<'_>, snapshot: &Snapshot) -> fmt::Result {
    let all = &snapshot.containers;
    families.counter(
        "system_agent_container_restarts",
        "How often the container's restart policy has started it anew",
        each(all, |one| Some(one.restart_count? as f64)),
    )?;
    // Also of those that have no figures, as they wait for their next start.
    let states = snapshot.docker_meta.iter().flat_map(|meta| {
        let name = meta.own_name().unwrap_or_default();
        let labels = [
            ("id", meta.id.as_str()),
            ("image", &meta.image),
            ("name", name),
        ];
        ["paused", "restarting", "running"].map(|state| {
            let [id, image, name] = labels;
            ([id, image, name, ("state", state)], is(meta.state == state))
        })
    });
    families.gauge(
        "system_agent_container_state",
        "What the engine says that the container does: 1 for that, 0 for the others",
        states,
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
    let each = |value: fn(&InterfaceCounters) -> u64| {
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
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
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
