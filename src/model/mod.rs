//! The snapshot, as plain serde types: the wire contract of the agent.
//!
//! Field names, nesting and units are what clients see; a JSON Schema of the same shape is in
//! `config/snapshot.schema.json`. Nothing here does I/O or knows of actors.
//!
//! Parts that a source delivers whole are behind [`Arc`], so that composing a snapshot copies
//! pointers only.

mod docker;
mod events;
mod health;
mod lenient;
mod logs;
mod options;
mod system;
mod timestamp;

pub use docker::{
    BlockIo, Compose, Container, ContainerMeta, InterfaceCounters, Port, PortProtocol, Throttling,
};
pub use events::{ContainerEvent, EventAction, Events};
pub use health::{SourceHealth, SourceStatus, Sources, Status, Via};
pub(crate) use lenient::read;
pub use logs::{EncodedLines, EndedLog, LogLines, LogSample, Logs, NewLines, Place, Positions};
pub use options::{Encoding, LogMode, Options, Section, Sections, Variant};
pub use system::{
    CpuSeconds, CpuTimes, Disk, DiskIo, Exact, ExactMemory, FailedUnit, FileHandles, Gpu, HostInfo,
    InterfaceKind, LoadAverage, NetworkInterface, Pressure, Pressures, ProcessCounts, SensorChip,
    SensorLabel, Sensors, Space, Stalls, SystemMetrics, Temperature, TopProcess,
};
pub use timestamp::Timestamp;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Everything known about the host and its containers at one moment: one line on the wire. Sections that a client does not
/// ask for are absent there, and read as empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When the snapshot was composed.
    pub timestamp: Timestamp,
    /// `degraded` while an enabled source is failing.
    pub status: Status,
    /// The host's own figures.
    #[serde(default)]
    pub system: Arc<SystemMetrics>,
    /// The running containers' figures, by name.
    #[serde(default)]
    pub containers: Arc<Vec<Container>>,
    /// The running containers' metadata, as the engine lists them.
    #[serde(default)]
    pub docker_meta: Arc<Vec<Arc<ContainerMeta>>>,
    /// The running containers' newest log lines.
    #[serde(default)]
    pub logs: Arc<Logs>,
    /// How many lines were lost by container, where a client asked for each line once: the container
    /// wrote, or the client missed, more than is kept. At least so many. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_dropped: Option<BTreeMap<String, u64>>,
    /// What has happened to containers since the previous snapshot that this client was sent, in the order in
    /// which the engine told of it; since the agent's last one, in a client's first. 256 at most.
    #[serde(default)]
    pub events: Vec<ContainerEvent>,
    /// How many more events there were, before those, than are kept. Absent where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_dropped: Option<u64>,
    /// How each source is doing.
    pub sources: Sources,
    /// What the host is.
    pub host: Arc<HostInfo>,
    /// The agent itself.
    // Last, so that all of a line but a client's own `skipped` is shared.
    pub agent: AgentInfo,
}

impl Snapshot {
    /// One line for people: how many are served and watched, and what is unwell.
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
    /// The one of the tests, with what no line has of it: figures that are not rounded.
    pub(crate) fn recorded() -> Self {
        let text = include_str!("../../tests/fixtures/snapshot.json");
        let mut snapshot: Self = serde_json::from_str(text).unwrap();
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
        };
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
            asleep: None,
        }]);
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
        let pressure = system.pressure;
        for container in Arc::make_mut(&mut snapshot.containers) {
            container.memory_with_cache = Some(123_456_789);
            container.health = Some("healthy".to_owned());
            container.pressure = pressure;
        }
        snapshot.agent.connections_closed_early = Some(3);
        snapshot.agent.certificate_expires_at = Some(snapshot.timestamp);
        snapshot.agent.memory_anon = Some(4_321_280);
        snapshot
    }
}

/// The agent's account of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// The agent's version.
    pub version: String,
    /// The snapshot's number: 1 for the first, no gaps at the source.
    pub seq: u64,
    /// Authenticated clients that the snapshot is sent to.
    pub clients: u64,
    /// The agent's own CPU, in percent of one core, over the last system interval.
    /// Source: `utime` + `stime` of the agent in `/proc/<pid>/stat`.
    pub cpu_percent: f64,
    /// CPU of dockerd, containerd and its shims together, in percent of one core, over the last
    /// system interval: what the agent causes there is in it, and what others do. Absent where
    /// they cannot be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_cpu_percent: Option<f64>,
    /// The agent's resident memory, in bytes: its own, and the pages of its program that are mapped. Source: `/proc/self/statm`.
    pub memory_rss: u64,
    /// The part of it that no file is behind, in bytes: what the kernel could not drop without swapping. `RssAnon` in
    /// `/proc/self/status`. Source: `/proc/self/statm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_anon: Option<u64>,
    /// Connections, to whichever of the agent's sockets, whose peer closed them before it had sent anything, since the agent
    /// began: health checks do that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_closed_early: Option<u64>,
    /// When the certificate that is served expires, or the first of its chain does; absent without TLS. Source: `TLS_CERT_FILE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<Timestamp>,
    /// Snapshots that this client missed since it connected, because it read too slowly.
    // The last field of the line: see `crate::messages::EncodedSnapshot`.
    pub skipped: u64,
}

/// A figure as it is published: finite, not negative, with `decimals` places.
///
/// NaN and infinities, which JSON cannot say, become 0.
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
    fn figures_are_finite_positive_and_short() {
        assert_eq!(figure(12.345_678, 2), 12.35);
        assert_eq!(figure(-0.001, 2), 0.0);
        assert!(figure(-0.0, 2).is_sign_positive());
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(figure(odd, 2), 0.0);
        }
    }
}
