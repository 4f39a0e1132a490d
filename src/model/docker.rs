//! The figures and the metadata of containers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use litemap::LiteMap;
use serde::{Deserialize, Serialize, Serializer};

use super::{ContainerSpec, ControlGroup, ExactContainer, Pressures, Timestamp};

/// The figures of one running container, as `docker stats` shows them.
///
/// CPU time and `memory_with_cache` are read each time. While they do not change, the container is idle. The network traffic of an idle
/// container is at most 1 s old, or as old as the interval. Its other figures, also the inactive file cache that `memory_usage` does not
/// include, are at most 15 s old.
///
/// Of a container that is not idle, `memory_limit` is at most 15 s old, and current after the engine has reported a change. With
/// cgroup v1, the same is true of `throttling` if there is no CPU limit, and of the numbers of operations in `block_io` while no bytes are
/// read or written. `oom_kills` is then read when `oom_kill` in `/proc/vmstat` has changed, and at least every 15 s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// The first 12 hex digits of the container's id.
    pub id: Arc<str>,
    /// The container's name, with its leading `/`.
    pub name: Arc<str>,
    /// The image from which the container was created, with its name in the engine's container list.
    pub image: Arc<str>,
    /// The container's state: `running` or `paused`.
    pub status: Arc<str>,
    /// CPU use since the previous reading, in percent of one core. A container that uses two cores fully has 200. Source:
    /// `cpuacct.usage` (cgroup v1) or `cpu.stat` (v2), or the engine's `cpu_stats`.
    pub cpu_percent: f64,
    /// CPU time used since the container's creation, in nanoseconds. Source: as for `cpu_percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_usage_ns: Option<u64>,
    /// Memory in use without the inactive file cache, in bytes: usage − `total_inactive_file` (cgroup v1) or
    /// `inactive_file` (v2). Absent if the host does not count memory by control group. Source: `memory.usage_in_bytes` or
    /// `memory.current`, and `memory.stat`; or the engine's `memory_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_usage: Option<u64>,
    /// Memory in use with the inactive file cache, in bytes. Not on the wire.
    #[serde(skip)]
    pub memory_with_cache: Option<u64>,
    /// The memory limit, in bytes. For a container without a limit, this is the host's memory.
    pub memory_limit: u64,
    /// `memory_usage` in percent of `memory_limit`. Absent if one of these two figures is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<f64>,
    /// Memory of the container's programs, in bytes, without cached files. Source: `total_rss` (cgroup v1) or `anon` (v2)
    /// in `memory.stat`, or the engine's `memory_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_rss: Option<u64>,
    /// Memory that caches files, in bytes. Source: `total_cache` (cgroup v1) or `file` (v2) in
    /// `memory.stat`, or the engine's `memory_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_cache: Option<u64>,
    /// Memory that the kernel uses for the container, in bytes. Source: `memory.kmem.usage_in_bytes` (cgroup v1), or
    /// `kernel` in `memory.stat` (v2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_kernel: Option<u64>,
    /// The number of the container's processes that the kernel has killed because of too little memory. Source: `oom_kill`
    /// in `memory.oom_control` (cgroup v1) or `memory.events` (v2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// How long the container's work waited for CPU, memory and I/O. Absent with cgroup v1, and if the kernel does not
    /// report it. Source: `cpu.pressure`, `memory.pressure`, `io.pressure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressures>,
    /// Counters of each network interface since the container's start. Empty for a container without a network of its own, for
    /// example a container that shares the network of another container. Source: `/proc/<pid>/net/dev`, or the engine's
    /// `networks`. If all interfaces are ends of veth pairs, the file is read when the counters of the host's ends have changed, and after at
    /// most a minute.
    #[serde(serialize_with = "as_object")]
    pub network: Arc<Interfaces>,
    /// The number of processes and threads. Absent if the host does not count them. Source: `pids.current`,
    /// or the engine's `pids_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Block I/O since the container's start. Absent if the host does not count block I/O. Source: `blkio.throttle.*` (cgroup
    /// v1) or `io.stat` (v2), or the engine's `blkio_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIo>,
    /// The size of the container's writable layer: of the files that the container has created or changed in its file system, in
    /// bytes, without volumes and logs. Absent unless `CONTAINER_SIZES_INTERVAL` is set, and before the engine's first answer. Source:
    /// `SizeRw` in the engine's container list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_used: Option<u64>,
    /// How often the CPU limit has slowed the container. Absent if the host does not count this. Source: `cpu.stat`, or the
    /// engine's `throttling_data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<Throttling>,
    /// The share of CPU periods in which the CPU limit slowed the container, in percent, between the newest two readings. Absent
    /// if there was no CPU period between these readings. Source: as for `throttling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_percent: Option<f64>,
    /// Only for a container that shares the network of another container: the name of that other container, without the slash.
    /// The `network` of the other container has the counters of both containers. Source: the engine's `HostConfig.NetworkMode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_of: Option<String>,
    /// The limit of processes and threads. Absent without a limit. Source: the engine's `HostConfig.PidsLimit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// The CPU limit, in cores. Absent without a limit. Source: the engine's `HostConfig.NanoCpus`, or `CpuQuota` and
    /// `CpuPeriod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<f64>,
    /// The result of the container's health check: `starting`, `healthy`, `unhealthy` or another word of the engine. Absent
    /// if the container has no health check. Source: the engine's `State.Health.Status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// What the newest failed health check has printed, as the engine reported it at the newest inspection. It is redacted by
    /// `LOG_REDACT` and cut at 1 KiB. Absent unless the container is unhealthy. Source: the engine's `State.Health.Log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_output: Option<Arc<str>>,
    /// The number of restarts by the container's restart policy. Source: the engine's `RestartCount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u64>,
    /// The time of the container's newest start, by the engine's clock. Source: the engine's `State.StartedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How long the container has been running, in seconds. Source: the start time of the container's first process, by the
    /// clock since boot. If the agent cannot see that process, the agent subtracts `started_at` from the current time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime: Option<u64>,
    /// The digest of the image's configuration, `sha256:…`. This digest is the id of the image. If another image gets the name
    /// of this image, the digest does not change. Source: the engine's `Image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The container's project and service in `docker compose`. Absent for a container without `docker compose`. Source: the
    /// labels `com.docker.compose.project` and `com.docker.compose.service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<Compose>,
    /// Those labels of the container that `CONTAINER_LABELS` names. Source: the engine's `Config.Labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Those environment variables of the container that `CONTAINER_ENV` names. Not on the wire. Source: the engine's `Config.Env`.
    #[serde(skip)]
    pub env: Arc<BTreeMap<String, String>>,
    /// A directory on the file system of the writable layer. None if the engine has not told it. Not on the wire.
    #[serde(skip)]
    pub layer: Option<Arc<Path>>,
    /// The container's control group. Not on the wire.
    #[serde(skip)]
    pub group: Arc<ControlGroup>,
    /// More figures. Not on the wire.
    #[serde(skip)]
    pub exact: Arc<ExactContainer>,
    /// The limits that the engine reports. None if the engine has not answered. Not on the wire.
    #[serde(skip)]
    pub spec: Option<ContainerSpec>,
    /// The time when the container was created, in Unix seconds. 0 if the engine does not report the time. Not on the wire.
    #[serde(skip)]
    pub created: i64,
}

/// The names of a container in `docker compose`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compose {
    /// The name of the project.
    pub project: String,
    /// The name of the service in the project. Absent if the container does not have the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Block I/O of a container, as the sum of all devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockIo {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations. Absent with cgroup v2 if the figures come from the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_ops: Option<u64>,
    /// Write operations. Absent with cgroup v2 if the figures come from the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_ops: Option<u64>,
    /// Bytes read per second, between the newest two readings. Absent after the first reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<f64>,
    /// Bytes written per second, between the newest two readings. Absent after the first reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes_per_second: Option<f64>,
}

/// How often the CPU limit has slowed a container since its start. The kernel divides time into CPU periods, usually of 100 ms.
/// A container that has used its limit waits for the next period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// The number of CPU periods in which the container ran.
    pub periods: u64,
    /// The number of CPU periods in which the container reached its CPU limit.
    pub throttled_periods: u64,
    /// The time that the container had to wait because of the CPU limit, in nanoseconds.
    pub throttled_ns: u64,
}

/// Packets of one direction that did not arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PacketsLost {
    /// Packets with errors.
    pub errors: u64,
    /// Packets that were dropped.
    pub drops: u64,
}

/// The counters of the interfaces of a container, by the name of the interface.
pub type Interfaces = LiteMap<String, InterfaceCounters>;

/// Writes the interfaces as an object, even if there are none. `LiteMap` writes an empty map as an array.
fn as_object<S: Serializer>(interfaces: &Interfaces, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(interfaces.iter())
}

/// The counters of one interface of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct InterfaceCounters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Received packets with errors, and received packets that were dropped. Not on the wire.
    #[serde(skip)]
    pub rx_lost: PacketsLost,
    /// Packets that were not sent because of errors, and packets that were dropped before sending. Not on the wire.
    #[serde(skip)]
    pub tx_lost: PacketsLost,
    /// Bytes received per second, between the newest two readings. Absent after the first reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_bytes_per_second: Option<f64>,
    /// Bytes sent per second, between the newest two readings. Absent after the first reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_bytes_per_second: Option<f64>,
}

/// One running container, as in the engine's container list.
//
// The texts are shared, because the aggregator copies this for each snapshot, to add the size of the logs and the volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMeta {
    /// The first 12 hex digits of the container's id.
    pub id: Arc<str>,
    /// All names of the container, each with its leading `/`.
    pub names: Arc<[String]>,
    /// The image from which the container was created.
    pub image: Arc<str>,
    /// The engine's text about the container, e.g. `Up 2 hours (healthy)`.
    pub status: Arc<str>,
    /// The engine's word for the state, e.g. `running`. This is `unknown` if the engine does not report a state.
    pub state: Arc<str>,
    /// Published and exposed ports, in the engine's own format.
    pub ports: Arc<[Port]>,
    /// The time when the container was created, in Unix seconds. This is 0 if the engine does not report the time.
    pub created: i64,
    /// The size of the container's log files, in bytes: the newest file and the rotated files. Rotated files are looked at after a
    /// rotation and once a minute. Absent if the agent cannot read the log files, for example without root, and with `LOG_LINES=0`.
    /// Source: the sizes of the files of the drivers `json-file` and `local`, and of the engine's cache for other drivers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// The volumes and bind mounts of the container that have a file system of their own. Left out are mounts on the
    /// host's root file system, on the file system of the engine's data root, and on a file system that is not in `system.disks`.
    /// The array has at most 64 mounts. Source: the engine's `Mounts`, and `/proc/self/mountinfo`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
}

/// A volume or bind mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The name of the volume. Absent for a bind mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    /// The mount point of the file system of `source`. `system.disks` has an entry with this `mount`, which has the used and the
    /// total space. If `source` is a symbolic link, this is the file system with the link.
    pub mount: String,
}

impl ContainerMeta {
    /// Returns the container's own name, without a slash. Old Docker links add further names such as `/other/alias`. Returns
    /// none if the container has no name.
    #[must_use]
    pub fn own_name(&self) -> Option<&str> {
        let mut names = self.names.iter().map(|name| name.trim_start_matches('/'));
        names
            .clone()
            .find(|name| !name.contains('/'))
            .or_else(|| names.next())
    }
}

/// One port of a container, with the engine's own field names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Port {
    /// The address of the host at which the port is published. Absent if the port is not published.
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The port inside the container.
    pub private_port: u16,
    /// The port on the host. Absent if the port is not published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// The protocol.
    #[serde(rename = "Type")]
    pub protocol: PortProtocol,
}

/// The protocol of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// A protocol that this version does not know.
    #[serde(untagged)]
    Other(String),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Container, ContainerMeta, InterfaceCounters, Interfaces};

    #[test]
    fn the_interfaces_are_an_object_with_any_number_of_interfaces() {
        let network = |names: &[&str]| -> Value {
            let counters = InterfaceCounters::default;
            let interfaces = names.iter().map(|name| ((*name).to_owned(), counters()));
            let mut container: Container = serde_json::from_value(json!({
                "id": "0", "name": "web", "image": "", "status": "", "cpu_percent": 0.0, "memory_limit": 0, "network": {},
            }))
            .unwrap();
            container.network = Interfaces::from_iter(interfaces).into();
            let json = serde_json::to_value(&container).unwrap();
            assert_eq!(
                serde_json::from_value::<Container>(json.clone()).unwrap(),
                container
            );
            json["network"].clone()
        };
        assert_eq!(network(&[]), json!({}));
        let names: Vec<_> = network(&["eth1", "eth0"])
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(names, ["eth0", "eth1"]);
    }

    #[test]
    fn the_name_of_a_link_is_not_used_as_the_containers_own_name() {
        for (names, expected) in [
            (&["/web"][..], Some("web")),
            (&["/proxy/backend", "/web"], Some("web")),
            (&["/proxy/backend"], Some("proxy/backend")),
            (&[], None),
        ] {
            let meta = ContainerMeta {
                id: "".into(),
                names: names.iter().map(|&name| name.to_owned()).collect(),
                image: "".into(),
                status: "".into(),
                state: "".into(),
                ports: [].into(),
                created: 0,
                log_bytes: None,
                volumes: Vec::new(),
            };
            assert_eq!(meta.own_name(), expected);
        }
    }
}
