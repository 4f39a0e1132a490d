//! From the engine's statistics to published figures.

use std::time::Instant;

use bollard::models::{ContainerCpuStats, ContainerMemoryStats, ContainerStatsResponse};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::listing::Listed;
use crate::model::{Container, InterfaceCounters, figure};

/// How far the time between two readings by the engine's clock may be from that by the agent's:
/// an answer waits for at most two of the engine's 1 Hz ticks.
const AGENT_SLACK_SECONDS: f64 = 3.0;
/// How far it may be from the CPU time that the host's CPUs had: a share, and some ticks.
const HOST_SLACK: f64 = 0.25;
const HOST_SLACK_SECONDS: f64 = 0.15;

/// What the next reading of a container's CPU is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// The container's CPU time so far, in nanoseconds.
    usage_ns: u64,
    /// The CPU time that the host's CPUs together have had, idle included, in nanoseconds.
    host_ns: Option<u64>,
    /// The host's CPUs.
    cpus: u32,
    /// When the engine read it, by its clock.
    read_at: Option<OffsetDateTime>,
    /// When the agent got it; none for a reading that the engine took before.
    received: Option<Instant>,
}

/// A container's figures, and the reading to compare the next one with. `previous` is the
/// agent's own last reading; without it the engine's, if the answer has one.
///
/// `None` where the container is no longer running: the engine then answers with zeros.
pub(super) fn measure(
    listed: &Listed,
    stats: ContainerStatsResponse,
    previous: Option<&Reading>,
) -> Option<(Container, Reading)> {
    let reading = reading(stats.cpu_stats.as_ref(), stats.read.as_deref());
    let reading = Reading {
        received: Some(Instant::now()),
        ..reading?
    };
    let engines_own = || self::reading(stats.precpu_stats.as_ref(), stats.preread.as_deref());
    let cpu_percent = previous
        .copied()
        .or_else(engines_own)
        .map_or(0.0, |previous| cpu_percent(&previous, &reading));
    let memory = stats.memory_stats.unwrap_or_default();
    let usage = memory_usage(&memory);
    let limit = memory.limit.unwrap_or_default();
    let network = stats
        .networks
        .unwrap_or_default()
        .into_iter()
        .map(|(name, counters)| {
            let counters = InterfaceCounters {
                rx_bytes: counters.rx_bytes.unwrap_or_default(),
                tx_bytes: counters.tx_bytes.unwrap_or_default(),
                rx_packets: counters.rx_packets.unwrap_or_default(),
                tx_packets: counters.tx_packets.unwrap_or_default(),
            };
            (name, counters)
        })
        .collect();
    let container = Container {
        id: listed.meta.id.clone(),
        name: listed.name.clone(),
        image: listed.meta.image.clone(),
        // One that is about to be restarted may be up again by the time it is measured.
        status: match listed.meta.state.as_str() {
            "paused" => "paused",
            _ => "running",
        }
        .to_owned(),
        cpu_percent: figure(cpu_percent, 2),
        memory_usage: usage,
        memory_limit: limit,
        memory_percent: if limit > 0 {
            figure(usage as f64 / limit as f64 * 100.0, 2)
        } else {
            0.0
        },
        network,
    };
    Some((container, reading))
}

/// `None` for the zeros that stand for "never read" and "not running".
fn reading(cpu: Option<&ContainerCpuStats>, read_at: Option<&str>) -> Option<Reading> {
    let cpu = cpu?;
    let usage = cpu.cpu_usage.as_ref()?;
    let usage_ns = usage.total_usage.filter(|usage| *usage > 0)?;
    let read_at = read_at
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
        .filter(|moment| moment.year() > 1);
    let per_cpu = usage.percpu_usage.as_ref().map_or(0, Vec::len);
    Some(Reading {
        usage_ns,
        host_ns: cpu.system_cpu_usage.filter(|host| *host > 0),
        cpus: cpu
            .online_cpus
            .filter(|cpus| *cpus > 0)
            .unwrap_or_else(|| u32::try_from(per_cpu).unwrap_or(u32::MAX)),
        read_at,
        received: None,
    })
}

/// CPU between two readings, 100 = one core, as `docker stats` shows it: 0 where the counter
/// went backwards (the container restarted) or no time has passed.
fn cpu_percent(before: &Reading, now: &Reading) -> f64 {
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
fn seconds_between(before: &Reading, now: &Reading) -> Option<f64> {
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

fn by_host(before: &Reading, now: &Reading) -> Option<f64> {
    let (before, after) = before.host_ns.zip(now.host_ns)?;
    let host_ns = after.checked_sub(before)?;
    (now.cpus > 0).then(|| host_ns as f64 / 1e9 / f64::from(now.cpus))
}

/// Memory without inactive file cache, as `docker stats` shows it: what the kernel could take
/// back at once does not count as used. The key tells cgroup v1 from v2.
fn memory_usage(memory: &ContainerMemoryStats) -> u64 {
    let usage = memory.usage.unwrap_or_default();
    let inactive_file = memory.stats.as_ref().and_then(|stats| {
        stats
            .get("total_inactive_file")
            .or_else(|| stats.get("inactive_file"))
            .copied()
    });
    match inactive_file {
        Some(inactive) if inactive < usage => usage - inactive,
        _ => usage,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bollard::models::{ContainerStatsResponse, ContainerSummary};

    use super::{Listed, Reading, cpu_percent, measure};

    const V1: &str = include_str!("../../../tests/fixtures/stats-20.10-cgroup-v1.json");
    const V2: &str = include_str!("../../../tests/fixtures/stats-24.0-cgroup-v2.json");

    fn listed() -> Listed {
        let summary: ContainerSummary =
            serde_json::from_str(r#"{"Id":"0123456789abcdef","Names":["/web"],"State":"running"}"#)
                .unwrap();
        Listed::from_summary(summary).unwrap()
    }

    fn stats(json: &str) -> ContainerStatsResponse {
        serde_json::from_str(json).unwrap()
    }

    fn without_host(reading: Reading) -> Reading {
        Reading {
            host_ns: None,
            ..reading
        }
    }

    fn after(before: &Reading, usage_ns: u64, seconds: u64) -> Reading {
        let elapsed = Duration::from_secs(seconds);
        Reading {
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
    fn a_first_answer_is_compared_with_the_engines_own_earlier_reading() {
        let (container, _) = measure(&listed(), stats(V1), None).unwrap();
        assert_eq!(container.cpu_percent, 50.41);
        assert_eq!(container.memory_usage, 51_204_096 - 1_048_576);
        assert_eq!(container.memory_limit, 67_108_864);
        assert_eq!(container.memory_percent, 74.74);
        assert_eq!(container.network["eth0"].rx_bytes, 946);
    }

    #[test]
    fn cgroup_v2_names_inactive_file_differently() {
        let (container, _) = measure(&listed(), stats(V2), None).unwrap();
        assert_eq!(container.memory_usage, 50_000_000 - 8_000_000);
        // Without memory limit nor earlier reading there is no percentage, and no NaN.
        assert_eq!(container.memory_percent, 0.0);
        assert_eq!(container.cpu_percent, 0.0);
        assert!(container.network.is_empty());
    }

    #[test]
    fn a_stopped_container_is_left_out() {
        let zeros = r#"{"read":"0001-01-01T00:00:00Z","preread":"0001-01-01T00:00:00Z",
            "cpu_stats":{"cpu_usage":{"total_usage":0}},"memory_stats":{}}"#;
        assert!(measure(&listed(), stats(zeros), None).is_none());
        assert!(measure(&listed(), stats("{}"), None).is_none());
    }

    #[test]
    fn cpu_is_the_difference_over_the_time_between() {
        let (_, mut before) = measure(&listed(), stats(V1), None).unwrap();
        before.received = Some(Instant::now());
        let half = after(&before, before.usage_ns + 2_500_000_000, 5);
        assert!((cpu_percent(&before, &half) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_counter_that_went_backwards_or_no_time_at_all_yields_0() {
        let (_, before) = measure(&listed(), stats(V1), None).unwrap();
        assert_eq!(cpu_percent(&before, &after(&before, 17, 5)), 0.0);
        assert_eq!(cpu_percent(&before, &before), 0.0);
    }

    #[test]
    fn a_clock_that_was_set_is_not_believed() {
        let (_, before) = measure(&listed(), stats(V1), None).unwrap();
        let honest = after(&before, before.usage_ns + 5_000_000_000, 5);
        for seconds in [-3600, -4, 3600] {
            let set = Reading {
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
        let (_, before) = measure(&listed(), stats(V1), None).unwrap();
        let before = Reading {
            read_at: None,
            received: None,
            ..before
        };
        let now = after(&before, before.usage_ns + 2_500_000_000, 5);
        assert!((cpu_percent(&before, &now) - 50.0).abs() < 1e-9);
    }
}
