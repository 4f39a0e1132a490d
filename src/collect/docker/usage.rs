//! Calculates the published figures of one container from its usage. The usage comes from the kernel's files or from the engine.
//! This module does no I/O.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use time::OffsetDateTime;

use super::engine::Inspected;
use super::inventory::RunningContainer;
use super::listing::ListedContainer;
use crate::collect::cgroup::Usage;
use crate::model::{Container, ControlGroup, Interfaces, Timestamp, figure};
use crate::settings::Patterns;

/// Tolerance between the engine's clock and the agent's clock, for the time between two readings. An answer can be two seconds
/// late, because the engine reads the figures once a second.
const AGENT_TOLERANCE_SECONDS: f64 = 3.0;
/// Tolerance between the engine's clock and the host's CPU time, as a share of the time between two readings. The tolerance also
/// includes [`HOST_TOLERANCE_SECONDS`].
const HOST_TOLERANCE: f64 = 0.25;
const HOST_TOLERANCE_SECONDS: f64 = 0.15;
/// The state of almost all containers. They share its text.
static RUNNING: LazyLock<Arc<str>> = LazyLock::new(|| "running".into());

/// A reading of a container's CPU time. The next reading is compared with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CpuReading {
    /// The container's CPU time so far, in nanoseconds.
    pub(super) usage_ns: u64,
    /// The total time of all CPUs of the host, including idle time, in nanoseconds. None if the source does not report this time.
    pub(super) host_ns: Option<u64>,
    /// Number of the host's CPUs.
    pub(super) cpus: u32,
    /// When the engine took the reading, on the engine's clock.
    pub(super) read_at: Option<OffsetDateTime>,
    /// When the agent got the reading. None for the engine's own earlier reading.
    pub(super) received: Option<Instant>,
}

/// A reading of a container. The next reading is compared with it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerReading {
    pub(super) cpu: CpuReading,
    /// The usage. If the container is idle, this can be the usage of an earlier reading.
    pub(super) usage: Arc<Usage>,
    /// When the network traffic was read. None if the engine read it.
    pub(super) usage_at: Option<Instant>,
    /// When the other figures of the usage were read. They can be older, if the container is idle. None if the engine read them.
    pub(super) details_at: Option<Instant>,
    /// When the figures that change rarely were read, see [`Rare`](crate::collect::cgroup::Rare). Not later than `details_at`. None if
    /// they must be read again.
    pub(super) rare_at: Option<Instant>,
    /// How many processes of the host the kernel had killed for lack of memory before the reading. None if it is not known.
    pub(super) host_oom_kills: Option<u64>,
    /// Whether the container was idle between the previous reading and `usage_at`.
    pub(super) idle: bool,
}

impl ContainerReading {
    /// Creates a complete reading, with the rates since `before`.
    pub(super) fn since(
        before: Option<&Self>,
        cpu: CpuReading,
        mut usage: Usage,
        usage_at: Option<Instant>,
    ) -> Self {
        if let Some(before) = before {
            let seconds_since = |at: Option<Instant>| match at.zip(usage_at.or(cpu.received)) {
                Some((before, now)) => Some(now.saturating_duration_since(before).as_secs_f64()),
                None => seconds_between(&before.cpu, &cpu),
            };
            usage.add_network_rates(&before.usage, seconds_since(before.usage_at));
            usage.add_rates(&before.usage, seconds_since(before.details_at));
        }
        Self {
            idle: before.is_some_and(|before| {
                before.cpu.usage_ns == cpu.usage_ns && before.usage.memory == usage.memory
            }),
            cpu,
            usage: Arc::new(usage),
            usage_at,
            details_at: usage_at,
            // The caller sets these two if it has read the kernel's files.
            rare_at: None,
            host_oom_kills: None,
        }
    }

    /// Creates a reading of a container that has been idle since `before`. Only its network traffic was read.
    pub(super) fn idle_since(
        before: &Self,
        cpu: CpuReading,
        network: Arc<Interfaces>,
        at: Instant,
    ) -> Self {
        let mut usage = Usage {
            network,
            ..(*before.usage).clone()
        };
        let seconds = before.usage_at;
        let seconds = seconds.map(|before| at.saturating_duration_since(before).as_secs_f64());
        usage.add_network_rates(&before.usage, seconds);
        // No periods have passed.
        usage.throttled_percent = None;
        Self {
            cpu,
            usage: Arc::new(usage),
            usage_at: Some(at),
            ..*before
        }
    }
}

/// Returns the published figures of a container, with the engine's information about the container.
pub(super) fn publish(
    listed: &ListedContainer,
    inspected: Option<&Inspected>,
    patterns: &Patterns,
    ContainerReading { cpu, usage, .. }: &ContainerReading,
    before: Option<&CpuReading>,
) -> Container {
    let memory = usage
        .memory
        .map(|memory| without_cache(memory, usage.inactive_file));
    let share = |memory: u64| figure(memory as f64 / usage.memory_limit as f64 * 100.0, 2);
    let labels = inspected.map(|inspected| &inspected.labels);
    let started_at = inspected.and_then(|inspected| inspected.started_at);
    Container {
        id: Arc::clone(&listed.meta.id),
        name: Arc::clone(&listed.name),
        image: Arc::clone(&listed.meta.image),
        // The list can show a container as restarting. The container can already run when it is measured.
        status: match &*listed.meta.state {
            "paused" => "paused".into(),
            _ => Arc::clone(&RUNNING),
        },
        cpu_percent: before.map_or(0.0, |before| figure(cpu_percent(before, cpu), 2)),
        cpu_usage_ns: Some(cpu.usage_ns),
        memory_usage: memory,
        memory_with_cache: usage.memory,
        memory_limit: usage.memory_limit,
        memory_percent: memory.filter(|_| usage.memory_limit > 0).map(share),
        memory_rss: usage.rss,
        memory_cache: usage.cache,
        memory_kernel: usage.kernel,
        oom_kills: usage.oom_kills,
        pressure: usage.pressure,
        network: Arc::clone(&usage.network),
        pids: usage.pids,
        block_io: usage.block_io,
        throttling: usage.throttling,
        throttled_percent: usage.throttled_percent,
        // `share_networks` sets this field, because it needs all containers.
        network_of: None,
        pids_limit: inspected.and_then(|inspected| inspected.pids_limit),
        cpu_limit: inspected
            .and_then(|inspected| inspected.cpu_limit)
            .map(|cores| figure(cores, 3)),
        health: inspected.and_then(|inspected| inspected.health.status.clone()),
        health_output: inspected.and_then(|inspected| inspected.health.output.clone()),
        restart_count: inspected.and_then(|inspected| inspected.restart_count),
        started_at: started_at.map(Timestamp),
        uptime: started_at
            .and_then(|at| at.elapsed().ok())
            .map(|uptime| uptime.as_secs()),
        image_digest: inspected.and_then(|inspected| inspected.image_digest.clone()),
        compose: inspected.and_then(Inspected::compose),
        labels: labels
            .into_iter()
            .flatten()
            .filter(|(name, _)| patterns.matches(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        env: inspected.map_or_else(Arc::default, |inspected| Arc::clone(&inspected.env)),
        // The collector of the sizes sets these fields.
        disk_used: None,
        layer: inspected.and_then(|inspected| inspected.layer.clone()),
        group: usage.group.clone().unwrap_or_else(|| {
            Arc::new(ControlGroup {
                path: format!("/docker/{}", listed.id),
                directories: None,
            })
        }),
        exact: Arc::clone(&usage.exact),
        spec: inspected.map(|inspected| inspected.spec),
        created: listed.meta.created,
    }
}

/// Returns the ids or names of the containers whose network other containers share.
pub(super) fn network_owners(running: &[RunningContainer]) -> Vec<&str> {
    running.iter().filter_map(network_owner).collect()
}

fn network_owner(container: &RunningContainer) -> Option<&str> {
    container.inspection.done()?.network_of.as_deref()
}

/// Marks each container that shares the network of another container. Only the other container then has the counters. If the
/// other container does not run, the container has the counters itself.
pub(super) fn share_networks(containers: &mut [(usize, Container)], running: &[RunningContainer]) {
    for (index, container) in containers {
        let owner = running.get(*index).and_then(network_owner);
        let owner = owner.and_then(|owner| {
            let mut listed = running.iter().map(|one| &one.listed);
            listed.find(|listed| listed.is(owner))
        });
        if let Some(owner) = owner {
            container.network_of = Some(owner.bare_name().to_owned());
            container.network = Arc::default();
        }
    }
}

/// Returns the memory as `docker stats` shows it, without the file cache that the kernel can free immediately.
fn without_cache(memory: u64, inactive_file: u64) -> u64 {
    if inactive_file < memory {
        memory - inactive_file
    } else {
        memory
    }
}

/// Returns the CPU use between two readings in percent of one core, as `docker stats` shows it. Returns 0 if the counter went
/// backwards after a restart, or if no time has passed.
fn cpu_percent(before: &CpuReading, now: &CpuReading) -> f64 {
    let Some(used_ns) = now.usage_ns.checked_sub(before.usage_ns) else {
        return 0.0;
    };
    match seconds_between(before, now) {
        Some(seconds) if seconds > 0.0 => used_ns as f64 / 1e9 / seconds * 100.0,
        _ => 0.0,
    }
}

/// Returns the time between two readings, in seconds.
///
/// The engine's clock is the most exact, because the engine records the time of each reading in nanoseconds. But this clock can
/// be set between two readings. To detect this, the function compares the engine's clock with the host's CPU time. If the host's
/// CPU time is not known, it compares the engine's clock with the agent's monotonic clock. If the engine's clock was set, the
/// function returns the time according to the other source.
fn seconds_between(before: &CpuReading, now: &CpuReading) -> Option<f64> {
    let by_engine = before
        .read_at
        .zip(now.read_at)
        .map(|(before, now)| (now - before).as_seconds_f64());
    let by_agent = || {
        let (before, now) = before.received.zip(now.received)?;
        Some(now.saturating_duration_since(before).as_secs_f64())
    };
    let reference = by_host(before, now)
        .map(|seconds| (seconds, seconds * HOST_TOLERANCE + HOST_TOLERANCE_SECONDS))
        .or_else(|| by_agent().map(|seconds| (seconds, AGENT_TOLERANCE_SECONDS)));
    match (by_engine, reference) {
        (Some(engine), Some((seconds, tolerance))) if (engine - seconds).abs() > tolerance => {
            Some(seconds)
        }
        (Some(engine), _) if engine > 0.0 => Some(engine),
        (_, reference) => reference.map(|(seconds, _)| seconds),
    }
}

fn by_host(before: &CpuReading, now: &CpuReading) -> Option<f64> {
    let (before, after) = before.host_ns.zip(now.host_ns)?;
    let host_ns = after.checked_sub(before)?;
    (now.cpus > 0).then(|| host_ns as f64 / 1e9 / f64::from(now.cpus))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::{ContainerReading, CpuReading, cpu_percent, without_cache};
    use crate::collect::cgroup::Usage;
    use crate::model::{BlockIo, InterfaceCounters, Interfaces, Throttling};

    fn before() -> CpuReading {
        CpuReading {
            usage_ns: 17_000_000_000,
            host_ns: Some(4_338_740_000_000),
            cpus: 2,
            read_at: Some(OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            received: Some(Instant::now()),
        }
    }

    fn without_host(reading: CpuReading) -> CpuReading {
        CpuReading {
            host_ns: None,
            ..reading
        }
    }

    fn after(before: &CpuReading, usage_ns: u64, seconds: u64) -> CpuReading {
        let elapsed = Duration::from_secs(seconds);
        CpuReading {
            usage_ns,
            read_at: before.read_at.map(|moment| moment + elapsed),
            received: before.received.map(|moment| moment + elapsed),
            host_ns: before
                .host_ns
                .map(|host| host + seconds * 1_000_000_000 * u64::from(before.cpus)),
            ..*before
        }
    }

    #[test]
    fn cpu_percent_is_the_used_time_divided_by_the_elapsed_time() {
        let before = before();
        let half = after(&before, before.usage_ns + 2_500_000_000, 5);
        assert!((cpu_percent(&before, &half) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn cpu_percent_is_0_after_a_counter_reset_or_without_elapsed_time() {
        let before = before();
        assert_eq!(cpu_percent(&before, &after(&before, 17, 5)), 0.0);
        assert_eq!(cpu_percent(&before, &before), 0.0);
    }

    #[test]
    fn an_engine_clock_that_was_set_is_ignored() {
        let before = before();
        let honest = after(&before, before.usage_ns + 5_000_000_000, 5);
        for seconds in [-3600, -4, 3600] {
            let set = CpuReading {
                read_at: honest
                    .read_at
                    .map(|at| at + time::Duration::seconds(seconds)),
                ..honest
            };
            assert!((cpu_percent(&before, &set) - 100.0).abs() < 1e-6);
            // The host's CPU time is not known, so the agent's own clock is used.
            let (before, set) = (without_host(before), without_host(set));
            assert!((cpu_percent(&before, &set) - 100.0).abs() < 1e-6);
        }
    }

    #[test]
    fn the_hosts_cpu_time_is_used_if_there_are_no_clocks() {
        let before = CpuReading {
            read_at: None,
            received: None,
            ..before()
        };
        let now = after(&before, before.usage_ns + 2_500_000_000, 5);
        assert!((cpu_percent(&before, &now) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn published_memory_excludes_inactive_file_cache_and_is_never_negative() {
        assert_eq!(without_cache(50, 8), 42);
        assert_eq!(without_cache(50, 0), 50);
        assert_eq!(without_cache(50, 60), 50);
    }

    fn usage(numbers: [u64; 4]) -> Usage {
        let [a, b, c, d] = numbers;
        let counters = InterfaceCounters {
            rx_bytes: a,
            tx_bytes: b,
            ..InterfaceCounters::default()
        };
        Usage {
            throttling: Some(Throttling {
                periods: c,
                throttled_periods: d,
                throttled_ns: a,
            }),
            block_io: Some(BlockIo {
                read_bytes: c,
                write_bytes: d,
                ..BlockIo::default()
            }),
            network: Interfaces::from_iter([("eth0".to_owned(), counters)]).into(),
            ..Usage::default()
        }
    }

    proptest! {
        /// The readings include counters that go backwards or jump, and two readings at the same time.
        #[test]
        fn no_figure_is_negative_or_infinite(earlier: [u64; 4], later: [u64; 4], milliseconds in 0..10_000_u64) {
            let at = Instant::now();
            let before = ContainerReading::since(None, before(), usage(earlier), Some(at));
            prop_assert_eq!(before.usage.network.get("eth0").unwrap().rx_bytes_per_second, None);
            let at = at + Duration::from_millis(milliseconds);
            let now = ContainerReading::since(Some(&before), before.cpu, usage(later), Some(at));
            let (io, network) = (now.usage.block_io.unwrap(), now.usage.network.get("eth0").unwrap());
            for rate in [
                io.read_bytes_per_second,
                io.write_bytes_per_second,
                network.rx_bytes_per_second,
                network.tx_bytes_per_second,
            ] {
                prop_assert!(rate.is_some_and(|rate| rate.is_finite() && rate >= 0.0));
            }
            let share = now.usage.throttled_percent;
            prop_assert!(share.is_none_or(|share| (0.0..=100.0).contains(&share)));
        }
    }
}
