//! The engine's answer to a call for statistics, as a container's usage.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use bollard::models::{
    ContainerBlkioStatEntry, ContainerBlkioStats, ContainerCpuStats, ContainerMemoryStats,
    ContainerNetworkStats, ContainerStatsResponse,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::usage::{CpuReading, Reading, Usage};
use crate::model::{BlockIo, InterfaceCounters, Throttling};

/// The engine's own earlier reading of the CPU, if the answer has one, and the present one, with the rates
/// since `previous`.
///
/// `None` where the container is no longer running: the engine then answers with zeros.
pub(super) fn read(
    stats: ContainerStatsResponse,
    previous: Option<&Reading>,
) -> Option<(Option<CpuReading>, Reading)> {
    let now = CpuReading {
        received: Some(Instant::now()),
        ..reading(stats.cpu_stats.as_ref(), stats.read.as_deref())?
    };
    let before = reading(stats.precpu_stats.as_ref(), stats.preread.as_deref());
    let memory = stats.memory_stats.unwrap_or_default();
    let network = stats.networks.unwrap_or_default().into_iter();
    let usage = Usage {
        memory: memory.usage.unwrap_or_default(),
        inactive_file: of_memory(&memory, ["total_inactive_file", "inactive_file"])
            .unwrap_or_default(),
        memory_limit: memory.limit.unwrap_or_default(),
        rss: of_memory(&memory, ["total_rss", "anon"]),
        cache: of_memory(&memory, ["total_cache", "file"]),
        kernel: of_memory(&memory, ["kernel"; 2]),
        // Of OOM kills and pressure it does not tell.
        pids: stats.pids_stats.and_then(|pids| pids.current),
        block_io: stats.blkio_stats.and_then(block_io),
        throttling: stats.cpu_stats.and_then(throttling),
        network: network
            .map(|(name, counters)| (name, interface(&counters)))
            .collect::<BTreeMap<_, _>>()
            .into(),
        ..Usage::default()
    };
    Some((before, Reading::since(previous, now, usage, None)))
}

/// Whether an engine that did read says of a running container that it has used no CPU at all: it cannot know.
pub(super) fn are_empty(stats: &ContainerStatsResponse) -> bool {
    let cpu = stats
        .cpu_stats
        .as_ref()
        .and_then(|cpu| cpu.cpu_usage.as_ref());
    let used = cpu.and_then(|usage| usage.total_usage).unwrap_or_default();
    used == 0 && moment(stats.read.as_deref()).is_some()
}

/// None for "never".
fn moment(text: Option<&str>) -> Option<OffsetDateTime> {
    let moment = OffsetDateTime::parse(text?, &Rfc3339).ok()?;
    (moment.year() > 1).then_some(moment)
}

/// `None` for the zeros that stand for "never read" and "not running".
fn reading(cpu: Option<&ContainerCpuStats>, read_at: Option<&str>) -> Option<CpuReading> {
    let cpu = cpu?;
    let usage = cpu.cpu_usage.as_ref()?;
    let usage_ns = usage.total_usage.filter(|usage| *usage > 0)?;
    let read_at = moment(read_at);
    let per_cpu = usage.percpu_usage.as_ref().map_or(0, Vec::len);
    Some(CpuReading {
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

/// A figure of `memory.stat`, by its key in cgroup v1 or in v2.
fn of_memory(memory: &ContainerMemoryStats, keys: [&str; 2]) -> Option<u64> {
    let stats: &HashMap<_, _> = memory.stats.as_ref()?;
    keys.iter().find_map(|key| stats.get(*key)).copied()
}

fn interface(counters: &ContainerNetworkStats) -> InterfaceCounters {
    InterfaceCounters {
        rx_bytes: counters.rx_bytes.unwrap_or_default(),
        tx_bytes: counters.tx_bytes.unwrap_or_default(),
        rx_packets: counters.rx_packets.unwrap_or_default(),
        tx_packets: counters.tx_packets.unwrap_or_default(),
        ..InterfaceCounters::default()
    }
}

/// Absent where the host has no such controller; a container that has done no I/O has no entries
/// either, but an empty list.
fn block_io(stats: ContainerBlkioStats) -> Option<BlockIo> {
    let sum = |entries: &[ContainerBlkioStatEntry], kind: &str| {
        entries
            .iter()
            .filter(|entry| {
                let op = entry.op.as_deref();
                op.is_some_and(|op| op.eq_ignore_ascii_case(kind))
            })
            .fold(0_u64, |sum, entry| {
                sum.saturating_add(entry.value.unwrap_or_default())
            })
    };
    let bytes = stats.io_service_bytes_recursive?;
    let ops = stats.io_serviced_recursive.unwrap_or_default();
    Some(BlockIo {
        read_bytes: sum(&bytes, "read"),
        write_bytes: sum(&bytes, "write"),
        read_ops: sum(&ops, "read"),
        write_ops: sum(&ops, "write"),
        ..BlockIo::default()
    })
}

fn throttling(stats: ContainerCpuStats) -> Option<Throttling> {
    let data = stats.throttling_data?;
    Some(Throttling {
        periods: data.periods?,
        throttled_periods: data.throttled_periods.unwrap_or_default(),
        throttled_ns: data.throttled_time.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerStatsResponse, ContainerSummary};

    use super::read;
    use crate::collect::docker::listing::Listed;
    use crate::collect::docker::usage::publish;
    use crate::model::{BlockIo, Container};
    use crate::settings::LabelPatterns;

    // V1 is an answer of Docker 20.10 with its inactive file cache edited; V2 is written by hand
    // after the API's description.
    const V1: &str = include_str!("../../../tests/fixtures/stats-cgroup-v1.json");
    const V2: &str = include_str!("../../../tests/fixtures/stats-cgroup-v2.json");

    fn stats(json: &str) -> ContainerStatsResponse {
        serde_json::from_str(json).unwrap()
    }

    /// What is published of a first answer.
    fn published(json: &str) -> Container {
        let summary: ContainerSummary =
            serde_json::from_str(r#"{"Id":"0123456789abcdef","Names":["/web"],"State":"running"}"#)
                .unwrap();
        let (engines_own, now) = read(stats(json), None).unwrap();
        let before = engines_own.as_ref();
        let listed = Listed::from_summary(summary).unwrap();
        publish(&listed, None, &LabelPatterns::default(), &now, before)
    }

    #[test]
    fn a_first_answer_is_compared_with_the_engines_own_earlier_reading() {
        let container = published(V1);
        assert_eq!(container.cpu_percent, 50.41);
        assert_eq!(container.memory_usage, 51_204_096 - 1_048_576);
        assert_eq!(container.memory_limit, 67_108_864);
        assert_eq!(container.memory_percent, 74.74);
        assert_eq!(container.network["eth0"].rx_bytes, 946);
        assert_eq!(container.pids, Some(1));
        assert!(container.throttling.unwrap().throttled_periods > 0);
        assert_eq!(container.block_io, Some(BlockIo::default()));
    }

    #[test]
    fn cgroup_v2_names_inactive_file_differently() {
        let container = published(V2);
        assert_eq!(container.memory_usage, 50_000_000 - 8_000_000);
        // Without memory limit nor earlier reading there is no percentage, and no NaN.
        assert_eq!(container.memory_percent, 0.0);
        assert_eq!(container.cpu_percent, 0.0);
        assert!(container.network.is_empty());
        assert_eq!(container.block_io, None);
    }

    #[test]
    fn an_engine_that_cannot_know_is_told_from_a_container_that_has_stopped() {
        // Podman's, rootless, with cgroup v1.
        let zeros = r#"{"read":"2026-01-01T00:00:00.5Z","cpu_stats":{"cpu_usage":{"total_usage":0}},
            "memory_stats":{"usage":6166548480,"limit":25276514304}}"#;
        assert!(super::are_empty(&stats(zeros)));
        let stopped =
            r#"{"read":"0001-01-01T00:00:00Z","cpu_stats":{"cpu_usage":{"total_usage":0}}}"#;
        for known in [stopped, "{}", V1, V2] {
            assert!(!super::are_empty(&stats(known)), "{known}");
        }
    }

    #[test]
    fn a_stopped_container_is_left_out() {
        let zeros = r#"{"read":"0001-01-01T00:00:00Z","preread":"0001-01-01T00:00:00Z",
            "cpu_stats":{"cpu_usage":{"total_usage":0}},"memory_stats":{}}"#;
        assert!(read(stats(zeros), None).is_none());
        assert!(read(stats("{}"), None).is_none());
    }

    #[test]
    fn fuzz_lists_and_statistics() {
        let summary = r#"[{"Id":"0123456789abcdef","Names":["/web"],"Image":"redis:7","Created":1640995200,"State":"running",
            "Ports":[{"IP":"0.0.0.0","PrivatePort":6379,"PublicPort":16379,"Type":"tcp"}],"Labels":{"a":"b"}}]"#;
        let seeds = [V1, V2, summary].map(str::as_bytes);
        crate::fuzzing::run("lists_and_statistics", &seeds, |bytes| {
            let summaries: Vec<ContainerSummary> =
                serde_json::from_slice(bytes).unwrap_or_default();
            summaries
                .into_iter()
                .for_each(|summary| drop(Listed::from_summary(summary)));
            let Ok(stats) = serde_json::from_slice::<ContainerStatsResponse>(bytes) else {
                return;
            };
            let listed = r#"{"Id":"0123456789abcdef","Names":["/web"],"State":"running"}"#;
            let listed = Listed::from_summary(serde_json::from_str(listed).unwrap()).unwrap();
            let Some((before, now)) = read(stats, None) else {
                return;
            };
            let shown = publish(
                &listed,
                None,
                &LabelPatterns::default(),
                &now,
                before.as_ref(),
            );
            assert!(
                shown.cpu_percent >= 0.0 && shown.cpu_percent.is_finite(),
                "{shown:?}"
            );
            assert!(
                shown.memory_percent >= 0.0 && shown.memory_percent.is_finite(),
                "{shown:?}"
            );
        });
    }
}
