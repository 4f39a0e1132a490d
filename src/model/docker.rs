//! The containers: figures and metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Pressures, Timestamp};

/// The figures of one running container, as `docker stats` shows them. At intervals of less than half a second those of
/// one that does nothing, but for its CPU and memory, are up to a second old.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// The first 12 hex digits of the container's id.
    pub id: String,
    /// The container's name, with its leading `/`.
    pub name: String,
    /// The image that it was made from, as the engine lists it.
    pub image: String,
    /// The container's state: `running`, or `paused`.
    pub status: String,
    /// CPU over the last interval; 100 = one core. Source: `cpuacct.usage` (cgroup v1) or
    /// `cpu.stat` (v2), or the engine's `cpu_stats`.
    pub cpu_percent: f64,
    /// CPU time used since it was created, in nanoseconds. Source: as `cpu_percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_usage_ns: Option<u64>,
    /// Memory in use, in bytes, without inactive file cache: usage − `total_inactive_file` (cgroup
    /// v1) or `inactive_file` (v2); absent where the host does not count memory by control group. Source:
    /// `memory.usage_in_bytes` or `memory.current`, and `memory.stat`; or the engine's `memory_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_usage: Option<u64>,
    /// The same with inactive file cache. Not on the wire.
    #[serde(skip)]
    pub memory_with_cache: Option<u64>,
    /// Memory limit, in bytes; the host's memory where none is set.
    pub memory_limit: u64,
    /// `memory_usage` in percent of `memory_limit`; absent where one of them is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<f64>,
    /// Memory of its programs, in bytes: their own, not that of files. Source: `total_rss` (cgroup v1) or
    /// `anon` (v2) in `memory.stat`, or the engine's `memory_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_rss: Option<u64>,
    /// Memory that caches files, in bytes. Source: `total_cache` (cgroup v1) or `file` (v2) in
    /// `memory.stat`, or the engine's `memory_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_cache: Option<u64>,
    /// Memory of the kernel's on its behalf, in bytes. Source: `memory.kmem.usage_in_bytes` (cgroup v1), or
    /// `kernel` in `memory.stat` (v2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_kernel: Option<u64>,
    /// How many of its processes the kernel has killed for want of memory. Source: `oom_kill` in
    /// `memory.oom_control` (cgroup v1) or `memory.events` (v2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// How long its work waited for CPU, memory and I/O; absent where the kernel does not tell, and with cgroup
    /// v1. Source: `cpu.pressure`, `memory.pressure`, `io.pressure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressures>,
    /// Counters by interface, since the container started; empty for a container that has no
    /// network of its own, and for one that shares another's. Source: `/proc/<pid>/net/dev`, or the
    /// engine's `networks`.
    pub network: Arc<BTreeMap<String, InterfaceCounters>>,
    /// Processes and threads; absent where the host does not count them. Source: `pids.current`,
    /// or the engine's `pids_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Block I/O since the container started; absent where the host does not count it. Source:
    /// `blkio.throttle.*` (cgroup v1) or `io.stat` (v2), or the engine's `blkio_stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIo>,
    /// How often a CPU limit held the container back; absent where the host does not count it.
    /// Source: `cpu.stat`, or the engine's `throttling_data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<Throttling>,
    /// Of the periods between the last two readings, the share in which it was held back, in percent; absent where
    /// there were none. Source: as `throttling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_percent: Option<f64>,
    /// The name of the container whose network it shares, without the slash: that one has the counters of
    /// both. Absent where it has its own. Source: the engine's `HostConfig.NetworkMode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_of: Option<String>,
    /// The most processes and threads that it may have; absent where that is not limited. Source: the
    /// engine's `HostConfig.PidsLimit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// How many cores it may use at most; absent where that is not limited. Source: the engine's
    /// `HostConfig.NanoCpus`, or `CpuQuota` and `CpuPeriod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<f64>,
    /// What its health check says, in the engine's word: `starting`, `healthy` or `unhealthy`; absent where it has none.
    /// Source: the engine's `State.Health.Status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// How often its restart policy has started it anew. Source: the engine's `RestartCount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u64>,
    /// When it was started last, by the engine's clock. Source: the engine's `State.StartedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// For how long it has been running, in seconds. Source: the start time of its first process, by the clock since boot;
    /// where that process cannot be seen, the agent's clock less `started_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime: Option<u64>,
    /// The digest of its image's configuration, `sha256:…`: the image's id, which stays the same where a name
    /// is given to another image. Source: the engine's `Image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// What `docker compose` calls it; absent where that did not make it. Source: the labels
    /// `com.docker.compose.project` and `com.docker.compose.service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<Compose>,
    /// Those of its labels that `CONTAINER_LABELS` asks for. Source: the engine's `Config.Labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What `docker compose` calls a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compose {
    /// The project.
    pub project: String,
    /// The service in the project; absent where the label is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Block I/O of a container, summed over devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockIo {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations; absent with cgroup v2 where the engine measures the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_ops: Option<u64>,
    /// Write operations; absent as `read_ops` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_ops: Option<u64>,
    /// Bytes read per second, between the last two readings; absent at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<f64>,
    /// Bytes written per second, between the last two readings; absent at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes_per_second: Option<f64>,
}

/// How often a CPU limit held a container back, since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// Periods in which the container ran.
    pub periods: u64,
    /// Periods in which it used up its share.
    pub throttled_periods: u64,
    /// Time that it was held back, in nanoseconds.
    pub throttled_ns: u64,
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
    /// Bytes received per second, between the last two readings; absent at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_bytes_per_second: Option<f64>,
    /// Bytes sent per second, between the last two readings; absent at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_bytes_per_second: Option<f64>,
}

/// One running container, as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMeta {
    /// The first 12 hex digits of the container's id.
    pub id: String,
    /// All its names, each with its leading `/`.
    pub names: Vec<String>,
    /// The image that it was made from.
    pub image: String,
    /// Docker's text, e.g. `Up 2 hours (healthy)`.
    pub status: String,
    /// Docker's state, e.g. `running`; `unknown` where it tells none.
    pub state: String,
    /// Published and exposed ports, as Docker's own objects.
    pub ports: Vec<Port>,
    /// When the container was created, in Unix seconds; 0 where the engine does not tell.
    pub created: i64,
}

impl ContainerMeta {
    /// Its own name, without a slash: legacy links add such as `/other/alias`. None where it has no name.
    #[must_use]
    pub fn own_name(&self) -> Option<&str> {
        let mut names = self.names.iter().map(|name| name.trim_start_matches('/'));
        names
            .clone()
            .find(|name| !name.contains('/'))
            .or_else(|| names.next())
    }
}

/// One port of a container, in the engine's own spelling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Port {
    /// The host's address that the port is published on; absent where it is not published.
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The port inside the container.
    pub private_port: u16,
    /// The host's port; absent where it is not published.
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
    /// One that this version does not know.
    #[serde(untagged)]
    Other(String),
}

#[cfg(test)]
mod tests {
    use super::ContainerMeta;

    #[test]
    fn its_own_name_is_not_what_another_container_calls_it() {
        for (names, expected) in [
            (&["/web"][..], Some("web")),
            (&["/proxy/backend", "/web"], Some("web")),
            (&["/proxy/backend"], Some("proxy/backend")),
            (&[], None),
        ] {
            let meta = ContainerMeta {
                id: String::new(),
                names: names.iter().map(|&name| name.to_owned()).collect(),
                image: String::new(),
                status: String::new(),
                state: String::new(),
                ports: Vec::new(),
                created: 0,
            };
            assert_eq!(meta.own_name(), expected);
        }
    }
}
