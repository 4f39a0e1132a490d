//! Reads a container's usage from the engine's answer to a call for statistics.

use std::time::Instant;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::json::Json;
use super::usage::{ContainerReading, CpuReading};
use crate::collect::cgroup::Usage;
use crate::model::{
    BlockIo, ExactContainer, InterfaceCounters, Interfaces, PacketsLost, Throttling,
};

/// Returns the engine's own earlier CPU reading, if the answer has one. Also returns the current reading, with its rates since
/// `previous`.
///
/// Returns `None` if the container no longer runs. For such a container, the engine answers with zeros.
#[allow(
    clippy::needless_pass_by_value,
    reason = "each answer is read only once"
)]
pub(super) fn read(
    stats: Json,
    previous: Option<&ContainerReading>,
) -> Option<(Option<CpuReading>, ContainerReading)> {
    let now = CpuReading {
        received: Some(Instant::now()),
        ..reading(stats.get("cpu_stats"), stats.get("read"))?
    };
    let before = reading(stats.get("precpu_stats"), stats.get("preread"));
    let memory = stats.get("memory_stats");
    // A running container always uses memory. If the answer says 0, the host does not count memory.
    let used = memory.get("usage").count().filter(|used| *used > 0);
    let of_memory = |keys| used.and_then(|_| of_memory(memory, keys));
    let usage = Usage {
        memory: used,
        inactive_file: of_memory(["total_inactive_file", "inactive_file"]).unwrap_or_default(),
        memory_limit: memory.get("limit").count().unwrap_or_default(),
        rss: of_memory(["total_rss", "anon"]),
        cache: of_memory(["total_cache", "file"]),
        kernel: of_memory(["kernel"; 2]),
        // The engine does not report OOM kills and pressure.
        pids: stats.get("pids_stats").get("current").count(),
        block_io: block_io(stats.get("blkio_stats")),
        exact: exact(&stats).into(),
        throttling: throttling(stats.get("cpu_stats").get("throttling_data")),
        network: stats
            .get("networks")
            .members()
            .iter()
            .filter_map(|(name, counters)| Some((name.clone(), interface(counters)?)))
            .collect::<Interfaces>()
            .into(),
        ..Usage::default()
    };
    Some((before, ContainerReading::since(previous, now, usage, None)))
}

/// Whether the engine has read the statistics but reports no CPU time. Because a running container always uses CPU time, the
/// engine does not know the figures.
pub(super) fn are_unknown(stats: &Json) -> bool {
    let used = stats.get("cpu_stats").get("cpu_usage").get("total_usage");
    used.count().unwrap_or_default() == 0 && moment(stats.get("read")).is_some()
}

/// Parses a time from the engine. None for the year 1, which means "never".
fn moment(value: &Json) -> Option<OffsetDateTime> {
    let moment = OffsetDateTime::parse(&value.text()?, &Rfc3339).ok()?;
    (moment.year() > 1).then_some(moment)
}

/// Reads the CPU figures. `None` for zeros, which mean "never read" or "not running".
fn reading(cpu: &Json, read_at: &Json) -> Option<CpuReading> {
    let usage = cpu.get("cpu_usage");
    let usage_ns = usage
        .get("total_usage")
        .count()
        .filter(|usage| *usage > 0)?;
    let per_cpu = usage.get("percpu_usage").items().len();
    let system = cpu.get("system_cpu_usage");
    Some(CpuReading {
        usage_ns,
        host_ns: system.count().filter(|host| *host > 0),
        cpus: cpu
            .get("online_cpus")
            .number()
            .filter(|cpus| *cpus > 0)
            .unwrap_or_else(|| u32::try_from(per_cpu).unwrap_or(u32::MAX)),
        read_at: moment(read_at),
        received: None,
    })
}

/// Returns a figure of `memory.stat`. `keys` has the figure's key in cgroup v1 and its key in cgroup v2.
fn of_memory(memory: &Json, keys: [&str; 2]) -> Option<u64> {
    let stats = memory.get("stats");
    keys.iter().find_map(|key| stats.get(key).count())
}

/// Reads more figures, with the keys of cgroup v1 and v2. Leaves out the devices.
fn exact(stats: &Json) -> ExactContainer {
    let cpu = stats.get("cpu_stats").get("cpu_usage");
    let modes = ["usage_in_usermode", "usage_in_kernelmode"].map(|key| cpu.get(key).count());
    let memory = |keys| of_memory(stats.get("memory_stats"), keys);
    ExactContainer {
        cpu_modes_ns: modes[0].zip(modes[1]),
        mapped_file: memory(["total_mapped_file", "file_mapped"]),
        swap: memory(["total_swap"; 2]),
        active_file: memory(["total_active_file", "active_file"]),
        inactive_file: memory(["total_inactive_file", "inactive_file"]),
        page_faults: memory(["total_pgfault", "pgfault"]),
        major_page_faults: memory(["total_pgmajfault", "pgmajfault"]),
        ..ExactContainer::default()
    }
}

/// Reads the counters of an interface. None if the value is not an object with members.
fn interface(counters: &Json) -> Option<InterfaceCounters> {
    if counters.members().is_empty() {
        return None;
    }
    let counter = |key: &str| counters.get(key).count().unwrap_or_default();
    Some(InterfaceCounters {
        rx_bytes: counter("rx_bytes"),
        tx_bytes: counter("tx_bytes"),
        rx_packets: counter("rx_packets"),
        tx_packets: counter("tx_packets"),
        rx_lost: PacketsLost {
            errors: counter("rx_errors"),
            drops: counter("rx_dropped"),
        },
        tx_lost: PacketsLost {
            errors: counter("tx_errors"),
            drops: counter("tx_dropped"),
        },
        ..InterfaceCounters::default()
    })
}

/// Reads the block I/O. None if the host has no controller for block I/O. A container without I/O has an empty list, so the
/// result is 0. With cgroup v2 the engine does not report the numbers of operations.
fn block_io(stats: &Json) -> Option<BlockIo> {
    let sum = |list: &Json, kind: &str| {
        let Json::List(entries) = list else {
            return None;
        };
        let of_kind = |entry: &&Json| match entry.get("op") {
            Json::Text(op) => op.eq_ignore_ascii_case(kind),
            _ => false,
        };
        let values = entries.iter().filter(of_kind);
        let values = values.filter_map(|entry| entry.get("value").count());
        Some(values.fold(0, u64::saturating_add))
    };
    let bytes = stats.get("io_service_bytes_recursive");
    let ops = stats.get("io_serviced_recursive");
    Some(BlockIo {
        read_bytes: sum(bytes, "read")?,
        write_bytes: sum(bytes, "write")?,
        read_ops: sum(ops, "read"),
        write_ops: sum(ops, "write"),
        ..BlockIo::default()
    })
}

fn throttling(data: &Json) -> Option<Throttling> {
    Some(Throttling {
        periods: data.get("periods").count()?,
        throttled_periods: data.get("throttled_periods").count().unwrap_or_default(),
        throttled_ns: data.get("throttled_time").count().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::read;
    use crate::collect::docker::json::Json;
    use crate::collect::docker::listing::ListedContainer;
    use crate::collect::docker::usage::publish;
    use crate::model::{BlockIo, Container};
    use crate::settings::Patterns;

    // V1 is an answer of Docker 20.10 with an edited inactive file cache. V2 is written by hand from the API's description.
    const V1: &str = include_str!("../../../tests/fixtures/stats-cgroup-v1.json");
    const V2: &str = include_str!("../../../tests/fixtures/stats-cgroup-v2.json");

    fn stats(json: &str) -> Json {
        Json::parse(json.as_bytes()).unwrap()
    }

    fn listed() -> ListedContainer {
        let listed = r#"{"Id":"0123456789abcdef","Names":["/web"],"State":"running"}"#;
        ListedContainer::read(&stats(listed)).unwrap()
    }

    /// Returns the published figures of a container after the first answer.
    fn published(json: &str) -> Container {
        let (engines_own, now) = read(stats(json), None).unwrap();
        let before = engines_own.as_ref();
        publish(&listed(), None, &Patterns::default(), &now, before)
    }

    #[test]
    fn a_first_answer_is_compared_with_the_engines_own_earlier_reading() {
        let container = published(V1);
        assert_eq!(container.cpu_percent, 50.41);
        assert_eq!(container.memory_usage, Some(51_204_096 - 1_048_576));
        assert_eq!(container.memory_limit, 67_108_864);
        assert_eq!(container.memory_percent, Some(74.74));
        assert_eq!(container.network.get("eth0").unwrap().rx_bytes, 946);
        assert_eq!(container.pids, Some(1));
        assert!(container.throttling.unwrap().throttled_periods > 0);
        let nothing = BlockIo {
            read_ops: Some(0),
            write_ops: Some(0),
            ..BlockIo::default()
        };
        assert_eq!(container.block_io, Some(nothing));
    }

    #[test]
    fn inactive_file_is_read_by_its_cgroup_v2_name() {
        let container = published(V2);
        assert_eq!(container.memory_usage, Some(50_000_000 - 8_000_000));
        // Without a memory limit there is no memory percentage. Without an earlier reading, the CPU percentage is 0.
        assert_eq!(container.memory_percent, None);
        assert_eq!(container.cpu_percent, 0.0);
        assert!(container.network.is_empty());
        assert_eq!(container.block_io, None);
    }

    #[test]
    fn unknown_statistics_differ_from_those_of_a_stopped_container() {
        // An answer of rootless Podman with cgroup v1.
        let zeros = r#"{"read":"2026-01-01T00:00:00.5Z","cpu_stats":{"cpu_usage":{"total_usage":0}},
            "memory_stats":{"usage":6166548480,"limit":25276514304}}"#;
        assert!(super::are_unknown(&stats(zeros)));
        let stopped =
            r#"{"read":"0001-01-01T00:00:00Z","cpu_stats":{"cpu_usage":{"total_usage":0}}}"#;
        for known in [stopped, "{}", V1, V2] {
            assert!(!super::are_unknown(&stats(known)), "{known}");
        }
    }

    #[test]
    fn operations_are_absent_with_cgroup_v2() {
        let json = r#"{"cpu_stats":{"cpu_usage":{"total_usage":1}},"blkio_stats":{"io_service_bytes_recursive":
            [{"op":"read","value":4096},{"op":"Write","value":1},{"op":null,"value":7},{"op":"read","value":"4"}, 5],
            "io_serviced_recursive":null}}"#;
        let io = published(json).block_io.unwrap();
        assert_eq!((io.read_bytes, io.write_bytes), (4100, 1));
        assert_eq!((io.read_ops, io.write_ops), (None, None));
        assert!(!serde_json::to_string(&io).unwrap().contains("ops"));
    }

    #[test]
    fn an_invalid_value_does_not_affect_other_values() {
        let odd = [
            json!(null),
            json!([]),
            json!("x"),
            json!(-1),
            json!(1e300),
            json!({"a": 1}),
        ];
        let all: Value = serde_json::from_str(V1).unwrap();
        let places = [
            "/read",
            "/preread",
            "/pids_stats",
            "/blkio_stats",
            "/blkio_stats/io_serviced_recursive",
            "/networks",
            "/networks/eth0",
            "/memory_stats/stats",
            "/precpu_stats",
            "/cpu_stats/throttling_data",
            "/cpu_stats/online_cpus",
            "/cpu_stats/system_cpu_usage",
            "/cpu_stats/cpu_usage/percpu_usage",
        ];
        for place in places {
            for value in &odd {
                let mut stats = all.clone();
                *stats.pointer_mut(place).unwrap() = value.clone();
                let container = published(&stats.to_string());
                assert_eq!(container.memory_limit, 67_108_864, "{place} {value}");
                assert!(container.memory_usage > Some(50_000_000), "{place} {value}");
                assert!(
                    container.network.contains_key("eth0") || place.starts_with("/networks"),
                    "{place} {value}"
                );
            }
        }
    }

    #[test]
    fn a_stopped_container_has_no_reading() {
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
            let Ok(stats) = Json::parse(bytes) else {
                return;
            };
            stats
                .items()
                .iter()
                .for_each(|entry| drop(ListedContainer::read(entry)));
            let listed = listed();
            let Some((before, now)) = read(stats, None) else {
                return;
            };
            let shown = publish(&listed, None, &Patterns::default(), &now, before.as_ref());
            assert!(
                shown.cpu_percent >= 0.0 && shown.cpu_percent.is_finite(),
                "{shown:?}"
            );
            let is_share = |percent: f64| percent >= 0.0 && percent.is_finite();
            assert!(shown.memory_percent.is_none_or(is_share), "{shown:?}");
        });
    }
}
