//! What one container uses, however it was read: from usage to published figures. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use time::OffsetDateTime;

use super::engine::Inspected;
use super::inventory::RunningContainer;
use super::listing::ListedContainer;
use crate::collect::rate::per_second;
use crate::model::{
    BlockIo, Compose, Container, InterfaceCounters, Pressures, Throttling, Timestamp, figure,
};
use crate::settings::LabelPatterns;

/// How far the time between two readings by the engine's clock may be from that by the agent's:
/// an answer waits for at most two of the engine's 1 Hz ticks.
const AGENT_SLACK_SECONDS: f64 = 3.0;
/// How far it may be from the CPU time that the host's CPUs had: a share, and some ticks.
const HOST_SLACK: f64 = 0.25;
const HOST_SLACK_SECONDS: f64 = 0.15;

/// What a container uses, and has used since it started.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Usage {
    /// Memory, in bytes, inactive file cache included; none where the host does not count it.
    pub(super) memory: Option<u64>,
    /// File cache that the kernel could take back at once, in bytes.
    pub(super) inactive_file: u64,
    /// The memory limit, in bytes; 0 where it is not known.
    pub(super) memory_limit: u64,
    /// Memory by what it is for, in bytes.
    pub(super) rss: Option<u64>,
    pub(super) cache: Option<u64>,
    pub(super) kernel: Option<u64>,
    pub(super) oom_kills: Option<u64>,
    pub(super) pressure: Option<Pressures>,
    pub(super) pids: Option<u64>,
    pub(super) block_io: Option<BlockIo>,
    pub(super) throttling: Option<Throttling>,
    /// Of the periods since the reading before, the share in which it was held back, in percent; none where there
    /// were none.
    pub(super) throttled_percent: Option<f64>,
    pub(super) network: Arc<BTreeMap<String, InterfaceCounters>>,
}

/// A reading of a container's CPU time: what the next one is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CpuReading {
    /// The container's CPU time so far, in nanoseconds.
    pub(super) usage_ns: u64,
    /// The CPU time that the host's CPUs together have had, idle included, in nanoseconds.
    pub(super) host_ns: Option<u64>,
    /// The host's CPUs.
    pub(super) cpus: u32,
    /// When the engine read it, by its clock.
    pub(super) read_at: Option<OffsetDateTime>,
    /// When the agent had it; none for a reading that the engine took before.
    pub(super) received: Option<Instant>,
}

/// A reading of a container: what the next one is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerReading {
    pub(super) cpu: CpuReading,
    /// May be that of an earlier reading, where nothing has happened since.
    pub(super) usage: Arc<Usage>,
    /// When that was read; none where the engine did it.
    pub(super) usage_at: Option<Instant>,
    /// Whether the container had done nothing between that and the reading before.
    pub(super) idle: bool,
}

impl ContainerReading {
    /// A reading of everything, with the rates since `before`.
    pub(super) fn since(
        before: Option<&Self>,
        cpu: CpuReading,
        mut usage: Usage,
        usage_at: Option<Instant>,
    ) -> Self {
        if let Some(before) = before {
            let seconds = match before.usage_at.zip(usage_at.or(cpu.received)) {
                Some((before, now)) => Some(now.saturating_duration_since(before).as_secs_f64()),
                None => seconds_between(&before.cpu, &cpu),
            };
            usage.compare(&before.usage, seconds);
        }
        Self {
            idle: before.is_some_and(|before| {
                before.cpu.usage_ns == cpu.usage_ns && before.usage.memory == usage.memory
            }),
            cpu,
            usage: Arc::new(usage),
            usage_at,
        }
    }
}

impl Usage {
    /// Notes what there is to say of the time since `before`, so many seconds ago.
    fn compare(&mut self, before: &Self, seconds: Option<f64>) {
        self.throttled_percent = before
            .throttling
            .zip(self.throttling)
            .and_then(|(before, now)| throttled_percent(before, now));
        let Some(seconds) = seconds else { return };
        let rate = |before, now| Some(per_second(before, now, seconds));
        for (name, now) in Arc::make_mut(&mut self.network) {
            if let Some(before) = before.network.get(name) {
                now.rx_bytes_per_second = rate(before.rx_bytes, now.rx_bytes);
                now.tx_bytes_per_second = rate(before.tx_bytes, now.tx_bytes);
            }
        }
        if let Some((now, before)) = self.block_io.as_mut().zip(before.block_io) {
            now.read_bytes_per_second = rate(before.read_bytes, now.read_bytes);
            now.write_bytes_per_second = rate(before.write_bytes, now.write_bytes);
        }
    }
}

/// The published figures of a container, with what the engine says of it.
pub(super) fn publish(
    listed: &ListedContainer,
    inspected: Option<&Inspected>,
    patterns: &LabelPatterns,
    ContainerReading { cpu, usage, .. }: &ContainerReading,
    before: Option<&CpuReading>,
) -> Container {
    let memory = usage
        .memory
        .map(|memory| without_cache(memory, usage.inactive_file));
    let share = |memory: u64| figure(memory as f64 / usage.memory_limit as f64 * 100.0, 2);
    let labels = inspected.map(|inspected| &inspected.labels);
    let label = |name: &str| labels?.get(name).cloned();
    let started_at = inspected.and_then(|inspected| inspected.started_at);
    Container {
        id: listed.meta.id.clone(),
        name: listed.name.clone(),
        image: listed.meta.image.clone(),
        // One that is about to be restarted may be up again by the time it is measured.
        status: match listed.meta.state.as_str() {
            "paused" => "paused",
            _ => "running",
        }
        .to_owned(),
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
        // Of the list as a whole: see `share_networks`.
        network_of: None,
        pids_limit: inspected.and_then(|inspected| inspected.pids_limit),
        cpu_limit: inspected
            .and_then(|inspected| inspected.cpu_limit)
            .map(|cores| figure(cores, 3)),
        health: inspected.and_then(|inspected| inspected.health.clone()),
        restart_count: inspected.and_then(|inspected| inspected.restart_count),
        started_at: started_at.map(Timestamp),
        uptime: started_at
            .and_then(|at| at.elapsed().ok())
            .map(|uptime| uptime.as_secs()),
        image_digest: inspected.and_then(|inspected| inspected.image_digest.clone()),
        compose: label("com.docker.compose.project").map(|project| Compose {
            project,
            service: label("com.docker.compose.service"),
        }),
        labels: labels
            .into_iter()
            .flatten()
            .filter(|(name, _)| patterns.match_name(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}

/// Of the periods between two readings, the share in which the container was held back; none where there were none.
fn throttled_percent(before: Throttling, now: Throttling) -> Option<f64> {
    let periods = now.periods.checked_sub(before.periods)?;
    let throttled = now
        .throttled_periods
        .checked_sub(before.throttled_periods)?;
    (periods > 0).then(|| figure(throttled as f64 / periods as f64 * 100.0, 2).min(100.0))
}

/// The ids or names of the containers whose network others share.
pub(super) fn network_lenders(running: &[RunningContainer]) -> Vec<&str> {
    running.iter().filter_map(network_lender).collect()
}

fn network_lender(borrower: &RunningContainer) -> Option<&str> {
    borrower.inspection.done()?.network_of.as_deref()
}

/// Says of each container that shares another's network whose that is: the counters are the other's. Where that
/// one does not run, they are its own.
pub(super) fn share_networks(containers: &mut [(usize, Container)], running: &[RunningContainer]) {
    for (index, container) in containers {
        let lender = running.get(*index).and_then(network_lender);
        let lender = lender.and_then(|lender| {
            let mut listed = running.iter().map(|one| &one.listed);
            listed.find(|listed| listed.is(lender))
        });
        if let Some(lender) = lender {
            container.network_of = Some(lender.bare_name().to_owned());
            container.network = Arc::default();
        }
    }
}

/// Memory as `docker stats` shows it: what the kernel could take back at once does not count.
fn without_cache(memory: u64, inactive_file: u64) -> u64 {
    if inactive_file < memory {
        memory - inactive_file
    } else {
        memory
    }
}

/// CPU between two readings, 100 = one core, as `docker stats` shows it: 0 where the counter
/// went backwards (the container restarted) or no time has passed.
fn cpu_percent(before: &CpuReading, now: &CpuReading) -> f64 {
    let Some(used_ns) = now.usage_ns.checked_sub(before.usage_ns) else {
        return 0.0;
    };
    match seconds_between(before, now) {
        Some(seconds) if seconds > 0.0 => used_ns as f64 / 1e9 / seconds * 100.0,
        _ => 0.0,
    }
}

/// The time between two readings: by the engine's clock, which notes the moment of a reading to
/// the nanosecond, unless that clock was set in between. What tells is the CPU time that the
/// host's CPUs had meanwhile, or else the agent's monotonic clock; either then serves instead.
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
        .map(|seconds| (seconds, seconds * HOST_SLACK + HOST_SLACK_SECONDS))
        .or_else(|| by_agent().map(|seconds| (seconds, AGENT_SLACK_SECONDS)));
    match (by_engine, reference) {
        (Some(engine), Some((seconds, slack))) if (engine - seconds).abs() > slack => Some(seconds),
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
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::{ContainerReading, CpuReading, Usage, cpu_percent, without_cache};
    use crate::model::{BlockIo, InterfaceCounters, Throttling};

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
    fn cpu_is_the_difference_over_the_time_between() {
        let before = before();
        let half = after(&before, before.usage_ns + 2_500_000_000, 5);
        assert!((cpu_percent(&before, &half) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_counter_that_went_backwards_or_no_time_at_all_yields_0() {
        let before = before();
        assert_eq!(cpu_percent(&before, &after(&before, 17, 5)), 0.0);
        assert_eq!(cpu_percent(&before, &before), 0.0);
    }

    #[test]
    fn a_clock_that_was_set_is_not_believed() {
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
            // Where the host's CPU time is not told, the agent's own clock serves.
            let (before, set) = (without_host(before), without_host(set));
            assert!((cpu_percent(&before, &set) - 100.0).abs() < 1e-6);
        }
    }

    #[test]
    fn without_clocks_the_hosts_cpu_time_serves() {
        let before = CpuReading {
            read_at: None,
            received: None,
            ..before()
        };
        let now = after(&before, before.usage_ns + 2_500_000_000, 5);
        assert!((cpu_percent(&before, &now) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn memory_is_without_inactive_file_cache_and_never_negative() {
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
            network: BTreeMap::from([("eth0".to_owned(), counters)]).into(),
            ..Usage::default()
        }
    }

    proptest! {
        /// Counters that go backwards, that jump, and readings at one moment included.
        #[test]
        fn no_figure_is_odd(earlier: [u64; 4], later: [u64; 4], milliseconds in 0..10_000_u64) {
            let at = Instant::now();
            let before = ContainerReading::since(None, before(), usage(earlier), Some(at));
            prop_assert_eq!(before.usage.network["eth0"].rx_bytes_per_second, None);
            let at = at + Duration::from_millis(milliseconds);
            let now = ContainerReading::since(Some(&before), before.cpu, usage(later), Some(at));
            let (io, network) = (now.usage.block_io.unwrap(), now.usage.network["eth0"]);
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
