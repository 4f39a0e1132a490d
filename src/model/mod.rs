//! Defines the snapshot as plain serde types. This is the format that clients receive.
//!
//! Field names, nesting and units are the same as in the JSON Schema `config/snapshot.schema.json`. This module does no I/O
//! and does not use actors.
//!
//! Large parts of a snapshot are in an [`Arc`], so that composing a snapshot copies only pointers.

mod cursor;
mod docker;
mod encoded_lines;
mod events;
mod exact_container;
mod hardware;
mod health;
mod history;
mod host;
mod kernel;
mod lenient;
mod log_range;
mod log_sample;
mod log_stream;
mod logs;
mod options;
mod processes;
mod stopped;
mod system;
mod textfile;
mod timestamp;
mod units;

pub use cursor::{Cursor, CursorOwner, NotACursor, ResumeOutcome, Resumed};
pub use docker::{
    BlockIo, Compose, Container, ContainerMeta, InterfaceCounters, Interfaces, PacketsLost, Port,
    PortProtocol, Throttling, Volume,
};
pub use encoded_lines::{EncodedLines, LinesBuilder};
pub use events::{ContainerEvent, EventAction, Events};
pub use exact_container::{
    ContainerSpec, ControlGroup, DeviceIo, ExactContainer, GroupDirectories,
};
pub use hardware::{
    BtrfsDevice, BtrfsFileSystem, ClockStatus, Conntrack, CpuThrottles, Entropy, Gpu,
    MemoryController, NvmeController, PowerSupply, RaidArray, SensorChip, SensorKind, SensorLabel,
    SensorReading, Sensors, Temperature, Zfs, ZfsArc, ZfsPool,
};
pub use health::{OutputHealth, Outputs, SourceHealth, SourceStatus, Sources, Status, Via};
pub use history::{
    CONTAINER_SERIES, DISK_USED, DOCKER_SERIES, HOST_SERIES, History, HistoryColumn,
    container_figures, container_traffic, disk_figures, disk_traffic, host_figures, traffic,
};
pub use host::HostInfo;
pub use kernel::{Kernel, KernelFamily, KernelRow, KernelStatus, RequestedContainer};
pub(crate) use lenient::read;
pub use log_range::{
    DEFAULT_RANGE_LINES, LogRange, MOST_RANGE_LINES, RangeEnd, RangeLines, text_of, time_of,
};
pub use log_sample::{EndedLog, LogSample};
pub use log_stream::{LogStream, StderrLines};
pub use logs::{
    CUT_LINE, FileLog, FileOffset, FilePlace, LogLines, LogOpener, LogPosition, Logs, NewLines,
    OpenLog, Place, Positions, ReadLimits, ReadLines, ReadLog,
};
pub use options::{
    DEFAULT_MAX_LINE, Encoding, LogMode, MOST_HISTORY, MOST_MAX_LINE, Options, Section, Sections,
    Variant,
};
pub use processes::{ProcessCounts, TopIo, TopProcess};
pub use stopped::StoppedContainer;
pub use system::{
    CoreThrottles, CpuSeconds, CpuTimes, Disk, DiskIo, Exact, ExactMemory, FileHandles,
    InterfaceKind, LoadAverage, MemoryTypes, NetworkInterface, Pressure, Pressures, Space, Stalls,
    SystemMetrics,
};
pub(crate) use textfile::number_text;
pub use textfile::{SamplePart, TextFamily, TextKind, TextSample, Textfile, Textfiles};
pub use timestamp::Timestamp;
pub use units::{FailedUnit, Unit};

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The host and its containers at one moment. On the wire, a snapshot is one JSON line. A section that a client has not
/// requested is absent on the wire. The agent's client library reads an absent section as empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The time when the snapshot was composed.
    pub timestamp: Timestamp,
    /// `degraded` while an enabled source is failing, else `ok`.
    pub status: Status,
    /// The figures of the host.
    #[serde(default)]
    pub system: Arc<SystemMetrics>,
    /// The figures of the running containers.
    #[serde(default)]
    pub containers: Arc<Vec<Container>>,
    /// The metadata of the running containers, from the engine's container list.
    #[serde(default)]
    pub docker_meta: Arc<Vec<Arc<ContainerMeta>>>,
    /// The containers that do not run. The container that stopped last is the first. The array contains only the newest 256.
    #[serde(default)]
    pub stopped: Arc<Vec<Arc<StoppedContainer>>>,
    /// The number of other stopped containers. Absent if all are in `stopped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_dropped: Option<u64>,
    /// The newest log lines of the running containers.
    #[serde(default)]
    pub logs: Arc<Logs>,
    /// The number of dropped log lines of each container. Log lines are dropped if a container writes, or the client misses,
    /// more log lines than the agent stores. The real number can be higher. Absent unless the client asked for each log line
    /// once (`"logs":"new"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_dropped: Option<BTreeMap<String, u64>>,
    /// Events of containers since the previous snapshot to this client, in the engine's order. The first snapshot to a client
    /// has the events since the agent's previous snapshot. The array contains only the newest 256 events.
    #[serde(default)]
    pub events: Vec<ContainerEvent>,
    /// The number of dropped events. They are older than the events in `events`. Absent if no event was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_dropped: Option<u64>,
    /// The kernel's own figures, see [below](#kernel). Only for clients that name the section `kernel`. Absent until the agent has read
    /// them. Source: the kernel's files.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Arc<Kernel>>,
    /// The figures of other programs, see [below](#textfile). Only for clients that name the section `textfile`. Absent without
    /// `TEXTFILE_DIR`. Source: the files in `TEXTFILE_DIR`.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub textfile: Option<Arc<Textfiles>>,
    /// The health of each source.
    pub sources: Sources,
    /// The health of the outputs to servers. Absent without such an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Outputs>,
    /// The description of the host.
    pub host: Arc<HostInfo>,
    /// Data about the agent itself.
    // This must be the final field. All clients of a variant then share the whole JSON line except the value of `skipped`.
    pub agent: AgentInfo,
}

/// The events and log lines that a live client gets between two snapshots. On the wire, they are one JSON line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct News {
    /// The time when the agent had read these log lines and events.
    pub timestamp: Timestamp,
    /// The new log lines of each container.
    #[serde(default)]
    pub logs: BTreeMap<String, Vec<String>>,
    /// The number of dropped log lines of each container. They are older than the lines in `logs`.
    #[serde(default)]
    pub logs_dropped: BTreeMap<String, u64>,
    /// The new events of containers.
    #[serde(default)]
    pub events: Vec<ContainerEvent>,
    /// The number of dropped events. They are older than the events in `events`.
    #[serde(default)]
    pub events_dropped: Option<u64>,
    /// Data about the agent itself.
    pub agent: NewsAgent,
}

/// Data about the agent, in a line between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NewsAgent {
    /// See [`AgentInfo::run`].
    #[serde(default)]
    pub run: String,
    /// See [`AgentInfo::cursor`].
    #[serde(default)]
    pub cursor: Option<String>,
    /// The number of the newest snapshot.
    pub seq: u64,
}

/// One JSON line of an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamLine {
    /// A complete snapshot.
    Snapshot(Box<Snapshot>),
    /// The events and log lines between two snapshots. Only clients with the option `live` get such lines.
    News(Box<News>),
    /// The figures of the past. Only clients with the option `history` get such lines, before their first snapshot.
    History(Box<History>),
}

impl StreamLine {
    /// Reads a JSON line.
    ///
    /// # Errors
    /// Fails if the line is neither a snapshot, nor the news between two snapshots, nor a history.
    pub fn read(line: &[u8]) -> serde_json::Result<Self> {
        if line.starts_with(br#"{"history":"#) {
            return read::<HistoryLine<Box<History>>>(line).map(|line| Self::History(line.history));
        }
        // The field `live` comes directly after the timestamp.
        let beginning = &line[..line.len().min(64)];
        let mark = br#"Z","live":true,"#;
        if beginning.windows(mark.len()).any(|text| text == mark) {
            read(line).map(Self::News)
        } else {
            read(line).map(Self::Snapshot)
        }
    }
}

/// The JSON line of a history.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HistoryLine<T> {
    /// The history.
    pub(crate) history: T,
}

impl Snapshot {
    /// Returns one line of text for people: the numbers of clients and containers, and the sources that are failing.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut summary = format!(
            "snapshot {}, {} clients, {} containers",
            self.agent.seq,
            self.agent.clients,
            self.containers.len()
        );
        for (name, source) in self.sources.named() {
            if let Some(error) = &source.error {
                summary += &format!("; {name} is failing: {error}");
            }
        }
        summary
    }
}

#[cfg(test)]
impl Snapshot {
    /// Returns the snapshot for tests, with the fields that are not on the wire.
    pub(crate) fn recorded() -> Self {
        fn read_json<T: serde::de::DeserializeOwned>(text: &str) -> T {
            serde_json::from_str(text).unwrap()
        }
        let text = include_str!("../../tests/fixtures/snapshot.json");
        let mut snapshot: Self = serde_json::from_str(text).unwrap();
        Arc::make_mut(&mut snapshot.host).virtualization = Some("kvm".to_owned());
        let system = Arc::make_mut(&mut snapshot.system);
        let core = |core: u32| CpuSeconds {
            core,
            modes: [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
                .map(|mode| f64::from(core) + mode / 100.0),
        };
        system.exact = Exact {
            cpu_seconds: vec![core(0), core(11)],
            memory: Some(ExactMemory {
                total: 8_123_456_512,
                available: 4_000_000_001,
                cached: Some(1_234_567_890),
                swap_total: 2_147_479_552,
                swap_used: 4096,
                types: Some(MemoryTypes {
                    free: 1_000_000_512,
                    cached: 1_200_000_000,
                    anonymous: 300_000_256,
                    mapped: 200_000_000,
                    active_file: 400_000_000,
                    inactive_file: 500_000_000,
                }),
            }),
            load_avg: Some(LoadAverage {
                one: 0.12,
                five: 1.5,
                fifteen: 20.25,
            }),
            sensors: Arc::new(Sensors {
                chips: vec![SensorChip {
                    chip: "platform_coretemp_0".to_owned(),
                    device: "coretemp".to_owned(),
                }],
                labels: vec![SensorLabel {
                    chip: "platform_coretemp_0".to_owned(),
                    sensor: "temp1".to_owned(),
                    label: "Package id 0".to_owned(),
                }],
            }),
            cpu_hertz: vec![(0, 1_699_981_000), (11, 8_000_000)],
            core_throttles: vec![CoreThrottles {
                package: 0,
                core: 11,
                throttles: 5,
            }],
        };
        for disk in &mut system.disk_io {
            disk.number = (254, 0);
        }
        for (number, disk) in (1..).zip(&mut system.disks) {
            disk.exact = Some(Space {
                size: number * 1_000_000_007,
                free: number * 500_000_003,
                available: number * 400_000_001,
            });
        }
        system.gpus = Some(vec![Gpu {
            index: 0,
            name: "NVIDIA A100-SXM4-40GB".to_owned(),
            busy_percent: Some(37.0),
            memory_used: Some(1024.5),
            memory_total: Some(40_960.0),
            celsius: Some(41.0),
            watts: Some(61.25),
            ..Gpu::default()
        }]);
        system.gpus.get_or_insert_default().push(Gpu {
            index: 1,
            name: "AMD GPU 1002:687f".to_owned(),
            busy_percent: Some(4.0),
            card: Some("card1".to_owned()),
            frequency_mhz: Some(1100.0),
            rc6_percent: Some(75.0),
            exact_memory: [Some(1_490_378_752), Some(8_573_157_376)],
            ..Gpu::default()
        });
        system.file_handles = Some(FileHandles {
            open: 1504,
            max: 1_615_276,
        });
        for interface in &mut system.network {
            interface.speed = Some(1000);
        }
        system.temperatures = vec![Temperature {
            device: "coretemp".to_owned(),
            sensor: "Package id 0".to_owned(),
            chip: "platform_coretemp_0".to_owned(),
            input: "temp1".to_owned(),
            celsius: 45.1,
            critical: Some(100.0),
            exact: 45.125,
        }];
        system.failed_units = Some(vec![FailedUnit {
            name: "backup.service".to_owned(),
            ..FailedUnit::default()
        }]);
        system.units = read_json(
            r#"[{"name": "backup.service", "state": "failed", "sub_state": "failed", "since": "2026-11-26T03:40:00.000Z",
                "restarts": 5},
                {"name": "nginx.service", "state": "active", "sub_state": "running", "since": "2026-11-26T03:45:00.000Z",
                "main_pid": 4242, "restarts": 0, "cpu_percent": 12.5, "cpu_usage_ns": 7250000000, "memory": 23456768,
                "tasks": 5, "oom_kills": 1, "block_io": {"read_bytes": 4096, "write_bytes": 8192, "read_ops": 1, "write_ops": 2,
                "read_bytes_per_second": 0.0, "write_bytes_per_second": 1638.4}}]"#,
        );
        system.units[1].pressure = system.pressure;
        system.sensors = [
            SensorKind::Fan,
            SensorKind::Voltage,
            SensorKind::Current,
            SensorKind::Power,
            SensorKind::AveragePower,
            SensorKind::Humidity,
        ]
        .map(|kind| SensorReading {
            device: "nct6779".to_owned(),
            sensor: "first".to_owned(),
            chip: "nct6779".to_owned(),
            input: format!("{kind:?}1"),
            kind,
            value: 1.5,
        })
        .into();
        system.raid = read_json(
            r#"[{"device": "md6", "level": "raid1", "state": "recovering", "disks_required": 2, "disks_active": 1,
                "disks_failed": 1, "disks_spare": 1, "blocks": 195310144, "blocks_synced": 16775552}]"#,
        );
        system.power_supplies = read_json(
            r#"[{"name": "BAT0", "type": "Battery", "online": false, "present": true, "status": "Discharging",
                "capacity_percent": 81.0, "capacity_level": "Normal", "cycle_count": 7, "energy": 36.58, "energy_full": 45.07,
                "energy_full_design": 47.52, "charge": 3.1, "charge_full": 3.9, "charge_full_design": 4.0, "power": 5.002,
                "current": 0.4, "voltage": 11.66, "voltage_min_design": 10.8, "celsius": 31.5, "seconds_to_empty": 9000,
                "seconds_to_full": 0, "technology": "Li-ion", "manufacturer": "LGC", "model_name": "LNV-45N1",
                "serial_number": "38109"}]"#,
        );
        system.conntrack = read_json(r#"{"entries": 123, "limit": 65536}"#);
        system.entropy = read_json(r#"{"available_bits": 1337, "pool_bits": 4096}"#);
        system.clock = read_json(
            r#"{"synchronized": true, "offset_seconds": -0.0015, "max_error_seconds": 0.25, "estimated_error_seconds": 0.000125}"#,
        );
        system.memory_controllers = read_json(
            r#"[{"name": "mc0", "type": "F17h", "correctable_errors": 1, "uncorrectable_errors": 5}]"#,
        );
        system.zfs = read_json(
            r#"{"pools": [{"name": "tank", "state": "degraded"}],
                "arc": {"size": 1603939792, "target": 1643208777, "target_max": 8367976448, "hits": 8772612, "misses": 604635}}"#,
        );
        system.btrfs = read_json(
            r#"[{"uuid": "0abb23a9-579b-43e6-ad30-227ef47fcb9d", "label": "backup", "devices": [{"id": 1, "missing": false,
                "write_errors": 1, "read_errors": 2, "flush_errors": 3, "corruption_errors": 4, "generation_errors": 5}]}]"#,
        );
        system.nvme = read_json(
            r#"[{"name": "nvme0", "model": "Samsung SSD 970 PRO 512GB", "serial": "S680HF8N190894I", "firmware": "1B2QEXP7",
                "state": "live", "controller_id": "1997"}]"#,
        );
        system.cpu_mhz = vec![1700.0, 8.0];
        system.cpu_throttles =
            read_json(r#"[{"package": 0, "throttles": 30, "core_throttles": 5}]"#);
        snapshot.stopped = read_json(
            r#"[{"id": "0123456789ab", "name": "/db", "image": "postgres:16", "state": "exited", "exit_code": 137,
                "oom_killed": true, "started_at": "2026-11-26T03:40:00.000Z", "finished_at": "2026-11-26T03:50:00.000Z",
                "restart_policy": "always", "compose": {"project": "shop", "service": "db"}, "health": "unhealthy"}]"#,
        );
        snapshot.stopped_dropped = Some(44);
        for meta in Arc::make_mut(&mut snapshot.docker_meta) {
            let meta = Arc::make_mut(meta);
            meta.log_bytes = Some(123_456);
            meta.volumes = read_json(
                r#"[{"name": "data", "source": "/var/lib/docker/volumes/data/_data", "destination": "/data",
                    "mount": "/var/lib/docker/volumes/data/_data"}, {"source": "/srv/in", "destination": "/in", "mount": "/srv"}]"#,
            );
        }
        snapshot.sources.docker.excluded = Some(2);
        let pressure = system.pressure;
        for container in Arc::make_mut(&mut snapshot.containers) {
            container.memory_with_cache = Some(123_456_789);
            container.health = Some("healthy".to_owned());
            container.disk_used = Some(1_048_576);
            container.layer = Some(std::path::Path::new("/var/lib/docker/overlay2/01/diff").into());
            container.pressure = pressure;
            container.record_exact();
        }
        snapshot.outputs = read_json(
            r#"{"otlp": {"status": "failing", "error": "503", "sent": 12, "dropped": 3, "lag_ms": 1500}}"#,
        );
        snapshot.agent.connections_closed_early = Some(3);
        snapshot.agent.certificate_expires_at = Some(snapshot.timestamp);
        snapshot.agent.memory_anon = Some(4_321_280);
        snapshot
    }
}

/// Data about the agent itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// The agent's version.
    pub version: String,
    /// The version of the [protocol](protocol.md#versions), 1. Absent with agents of earlier versions, which have the same protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u64>,
    /// Identifies the run of the agent. A restart of the agent begins another run, with `seq` 1. Absent with agents of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// The position of the client after this snapshot, as text of the letters `A` to `Z`, `a` to `z`, `0` to `9`, `-` and `_`. A
    /// client can connect again with the option `resume` and this text. Absent unless the client asked for each log line once
    /// (`"logs":"new"`), or sent `sections` with `events`, or sent `resume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only in the first snapshot after the option `resume`. `continued`: log lines and events continue after the cursor.
    /// `other_host`: the cursor is from another host, so the snapshot is that of a client without a cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// The number of the snapshot. The first snapshot after the agent's start has number 1, and each next snapshot has the next
    /// number.
    pub seq: u64,
    /// The number of authenticated clients at this moment.
    pub clients: u64,
    /// CPU use of the agent since the previous reading of the host, in percent of one core. Source: `utime` + `stime` of the
    /// agent in `/proc/<pid>/stat`.
    pub cpu_percent: f64,
    /// CPU use of dockerd, containerd and its shims together since the previous reading of the host, in percent of one core. It
    /// includes the work that the agent and all other programs cause in these processes. The use of a shim that used less than 0.5 % is
    /// at most 15 s old, and that of a shim that used nothing for a minute is at most a minute old. Absent if the agent cannot see
    /// these processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_cpu_percent: Option<f64>,
    /// Resident memory of the agent, in bytes. It includes the part of the agent's program file that is in memory. Source:
    /// `/proc/self/statm`.
    pub memory_rss: u64,
    /// The part of `memory_rss` that does not belong to a file, in bytes. The kernel can free this part only by swapping. It is
    /// the same figure as `RssAnon` in `/proc/self/status`. Source: `/proc/self/statm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_anon: Option<u64>,
    /// The number of connections that the peer closed before the peer sent anything, since the start of the agent. Counts the
    /// connections to all sockets of the agent. Health checks often close a connection in this way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_closed_early: Option<u64>,
    /// The earliest time at which a certificate of the agent's TLS chain expires. Absent without TLS. Source: `TLS_CERT_FILE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<Timestamp>,
    /// The number of skipped snapshots since this client connected. The agent skips snapshots if a client reads too slowly.
    // The final field of the JSON line: see `crate::published::EncodedSnapshot`.
    pub skipped: u64,
}

/// The version of the protocol, see docs/protocol.md. It grows only if clients must change.
pub const PROTOCOL_VERSION: u64 = 1;

/// Rounds a figure for a snapshot to `decimals` decimal places. The result is finite and not negative.
///
/// Returns 0 for NaN and infinite values, because JSON has no such values.
#[must_use]
pub fn figure(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    if rounded.is_finite() && rounded > 0.0 {
        rounded
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_are_rounded_finite_and_not_negative() {
        assert_eq!(figure(12.345_678, 2), 12.35);
        assert_eq!(figure(-0.001, 2), 0.0);
        assert!(figure(-0.0, 2).is_sign_positive());
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(figure(odd, 2), 0.0);
        }
    }
}
