//! The short history: figures of the past that a client gets before its first snapshot. Also the series of a history, and how each
//! is calculated from a snapshot.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use super::{Container, InterfaceKind, Pressure, Snapshot, SystemMetrics};

/// The names of the host's series, in the order of [`host_figures`]. There is also a series [`DISK_USED`] for each file system.
pub const HOST_SERIES: [&str; 21] = [
    "cpu",
    "cpu.user",
    "cpu.system",
    "cpu.iowait",
    "cpu.steal",
    "memory.used",
    "memory.cached",
    "memory.available",
    "swap.used",
    "load1",
    "disk.read",
    "disk.write",
    "disk.busy",
    "net.in",
    "net.out",
    "pressure.cpu",
    "pressure.memory",
    "pressure.io",
    "temperature",
    "containers.up",
    "containers.down",
];
/// The beginning of the name of a file system's series. The mount point follows.
pub const DISK_USED: &str = "disk.used:";
/// The number of series at the end of [`HOST_SERIES`] that come from the source `docker`. The others come from the source `system`.
pub const DOCKER_SERIES: usize = 2;
/// The names of a container's series, in the order of [`container_figures`].
pub const CONTAINER_SERIES: [&str; 7] = [
    "cpu",
    "memory",
    "net.in",
    "net.out",
    "io.read",
    "io.write",
    "throttled",
];

const MIB: f64 = 1024.0 * 1024.0;

/// The figures of the past, from the agent's memory. A client with the option `history` gets them before its first snapshot, as
/// `{"history":{…}}`, in one or more lines. The first line has the figures of the host. Each line has figures of other containers, or
/// of a later time. [protocol.md](protocol.md#history) lists the series. This is not a part of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct History {
    /// The usual time between two samples, in milliseconds. 0 if the agent keeps no history.
    pub interval_ms: u64,
    /// The time of each sample in milliseconds since 1970, by the host's clock, oldest first. Each array of figures in this line has
    /// the same length.
    pub times: Vec<u64>,
    /// The host's figures by the name of the series. A series without a figure is absent. So is the whole object in a line
    /// that has only containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host: BTreeMap<String, HistoryColumn>,
    /// The figures of containers: by the name of the container without the slash, then by the name of the series. Absent if this line has
    /// no container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, BTreeMap<String, HistoryColumn>>,
}

/// The figures of one series. None where there was no figure, for example because the source failed or the container did not run.
#[derive(Clone, Default, PartialEq)]
pub struct HistoryColumn(pub Vec<Option<f32>>);

impl fmt::Debug for HistoryColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for HistoryColumn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Limit on the numbers that are written as integers. Every integer below it is exact in `i64`.
        const MAX_INTEGER: f32 = 1e15;
        let mut column = serializer.serialize_seq(Some(self.0.len()))?;
        for figure in &self.0 {
            match figure {
                // `0` needs two bytes less than `0.0`.
                Some(figure) if figure.fract() == 0.0 && figure.abs() < MAX_INTEGER => {
                    column.serialize_element(&(*figure as i64))?;
                }
                figure => column.serialize_element(figure)?,
            }
        }
        column.end()
    }
}

impl<'de> Deserialize<'de> for HistoryColumn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

/// Returns the host's figures in the order of [`HOST_SERIES`]. A figure that was not read is none.
///
/// Works for a snapshot of the agent and for a snapshot that a client received.
#[must_use]
pub fn host_figures(snapshot: &Snapshot) -> [Option<f64>; HOST_SERIES.len()] {
    let system = &*snapshot.system;
    let times = system.cpu_times.as_ref();
    let bytes = |mib: Option<f64>| mib.map(|mib| mib * MIB);
    // These two fields keep their last figure if a reading fails. The others of their family are then absent.
    let cpu = times.map(|_| system.cpu_percent[0]);
    let memory = system.memory_available.map(|_| system.memory_used);
    let (read, written) = disk_traffic(system).unzip();
    let (received, sent) = traffic(system).unzip();
    let pressure = system.pressure.unwrap_or_default();
    let waited = |pressure: Option<Pressure>| pressure.map(|pressure| pressure.some.avg10);
    let stopped = snapshot.stopped.len() as u64 + snapshot.stopped_dropped.unwrap_or(0);
    [
        cpu,
        times.map(|times| times.user),
        times.map(|times| times.system),
        times.map(|times| times.iowait),
        times.map(|times| times.steal),
        bytes(memory),
        bytes(system.memory_cached),
        bytes(system.memory_available),
        bytes(system.swap_used),
        Some(system.load_avg.one),
        read,
        written,
        highest(system.disk_io.iter().map(|disk| disk.busy_percent)),
        received,
        sent,
        waited(pressure.cpu),
        waited(pressure.memory),
        waited(pressure.io),
        highest(system.temperatures.iter().map(|sensor| sensor.celsius)),
        Some(snapshot.containers.len() as f64),
        Some(stopped as f64),
    ]
}

/// Returns the mount point and the used space, in percent, of each file system with figures.
pub fn disk_figures(system: &SystemMetrics) -> impl Iterator<Item = (&str, f64)> {
    system.disks.iter().filter_map(|disk| {
        let (used, total) = disk.used.zip(disk.total)?;
        (total > 0.0).then(|| (disk.mount.as_str(), 100.0 * used / total))
    })
}

/// Returns the figures of a container in the order of [`CONTAINER_SERIES`]. A figure that was not read is none.
#[must_use]
pub fn container_figures(container: &Container) -> [Option<f64>; CONTAINER_SERIES.len()] {
    let (received, sent) = container_traffic(container).unzip();
    let io = container.block_io.unwrap_or_default();
    [
        Some(container.cpu_percent),
        container.memory_usage.map(|bytes| bytes as f64),
        received,
        sent,
        io.read_bytes_per_second,
        io.write_bytes_per_second,
        container.throttled_percent,
    ]
}

/// Returns the bytes received and sent per second by all physical interfaces. An interface of unknown kind counts as physical. If
/// there is no physical interface, for example in a container, returns the bytes of all virtual and veth interfaces. None if no
/// interface has rates.
#[must_use]
pub fn traffic(system: &SystemMetrics) -> Option<(f64, f64)> {
    let kind = |one: &super::NetworkInterface| one.kind.clone().unwrap_or(InterfaceKind::Physical);
    let is_physical = |one: &&super::NetworkInterface| kind(one) == InterfaceKind::Physical;
    let has_physical = system.network.iter().any(|one| is_physical(&one));
    let counts = |one: &&super::NetworkInterface| match has_physical {
        true => is_physical(one),
        false => matches!(kind(one), InterfaceKind::Virtual | InterfaceKind::Veth),
    };
    let interfaces = system.network.iter().filter(counts);
    sums(interfaces.map(|one| (one.bytes_recv_per_second, one.bytes_sent_per_second)))
}

/// Returns the bytes read and written per second by all disks. Omits RAID and device-mapper devices, because the disks below them
/// already count the same bytes. None without a disk.
#[must_use]
pub fn disk_traffic(system: &SystemMetrics) -> Option<(f64, f64)> {
    let made_of_others = |name: &str| name.starts_with("dm-") || name.starts_with("md");
    let disks = system.disk_io.iter();
    let disks = disks.filter(|disk| !made_of_others(&disk.device));
    sums(disks.map(|disk| {
        let (read, written) = (disk.read_bytes_per_second, disk.write_bytes_per_second);
        (Some(read), Some(written))
    }))
}

/// Returns the bytes received and sent per second by all interfaces of a container. None if no interface has rates.
#[must_use]
pub fn container_traffic(container: &Container) -> Option<(f64, f64)> {
    let interfaces = container.network.values();
    sums(interfaces.map(|one| (one.rx_bytes_per_second, one.tx_bytes_per_second)))
}

/// Returns the sums of pairs. A missing number counts as 0. None if all numbers are missing.
fn sums(pairs: impl Iterator<Item = (Option<f64>, Option<f64>)>) -> Option<(f64, f64)> {
    pairs
        .filter(|(first, second)| first.is_some() || second.is_some())
        .map(|(first, second)| (first.unwrap_or_default(), second.unwrap_or_default()))
        .reduce(|sum, pair| (sum.0 + pair.0, sum.1 + pair.1))
}

fn highest(figures: impl Iterator<Item = f64>) -> Option<f64> {
    figures.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::{
        CONTAINER_SERIES, DOCKER_SERIES, HOST_SERIES, History, HistoryColumn, container_figures,
        disk_figures, host_figures,
    };
    use crate::model::{Snapshot, SystemMetrics};

    fn figure(figures: &[Option<f64>], names: &[&str], name: &str) -> Option<f64> {
        let at = names.iter().position(|known| *known == name).unwrap();
        figures[at]
    }

    #[test]
    fn each_series_has_its_figure_of_the_snapshot() {
        let snapshot = Snapshot::recorded();
        let figures = host_figures(&snapshot);
        let host = |name| figure(&figures, &HOST_SERIES, name);
        let system = &snapshot.system;
        assert_eq!(host("cpu"), Some(system.cpu_percent[0]));
        assert_eq!(
            host("cpu.iowait"),
            Some(system.cpu_times.as_ref().unwrap().iowait)
        );
        assert_eq!(host("memory.used"), Some(system.memory_used * 1_048_576.0));
        assert_eq!(host("load1"), Some(system.load_avg.one));
        assert_eq!(host("temperature"), Some(45.1));
        assert_eq!(
            host("containers.up"),
            Some(snapshot.containers.len() as f64)
        );
        // One stopped container is listed, and 44 are not.
        assert_eq!(host("containers.down"), Some(45.0));
        assert_eq!(
            HOST_SERIES[HOST_SERIES.len() - DOCKER_SERIES..],
            ["containers.up", "containers.down"]
        );
        let container = &snapshot.containers[0];
        let figures = container_figures(container);
        let of_container = |name| figure(&figures, &CONTAINER_SERIES, name);
        assert_eq!(of_container("cpu"), Some(container.cpu_percent));
        assert_eq!(
            of_container("memory"),
            container.memory_usage.map(|it| it as f64)
        );
        assert_eq!(of_container("throttled"), container.throttled_percent);
        let disk = &system.disks[0];
        let percent = 100.0 * disk.used.unwrap() / disk.total.unwrap();
        let first = disk_figures(system).next();
        assert_eq!(first, Some((disk.mount.as_str(), percent)));
    }

    #[test]
    fn a_figure_that_was_not_read_is_none_and_not_zero() {
        let mut snapshot = Snapshot::recorded();
        snapshot.system = SystemMetrics::default().into();
        let figures = host_figures(&snapshot);
        for (name, figure) in HOST_SERIES.iter().zip(figures) {
            let is_known = ["load1", "containers.up", "containers.down"].contains(name);
            assert_eq!(figure.is_some(), is_known, "{name}: {figure:?}");
        }
    }

    #[test]
    fn a_column_is_short_on_the_wire() {
        let column = HistoryColumn(vec![
            Some(0.0),
            None,
            Some(12.5),
            Some(-3.0),
            Some(8_123_456_512.0),
            Some(1e20),
            Some(0.1),
        ]);
        let text = serde_json::to_string(&column).unwrap();
        assert_eq!(text, "[0,null,12.5,-3,8123456512,1e+20,0.1]");
        assert_eq!(
            serde_json::from_str::<HistoryColumn>(&text).unwrap(),
            column
        );
    }

    #[test]
    fn a_history_of_a_later_version_is_read() {
        let text = r#"{"interval_ms":5000,"times":[1],"host":{"cpu":[0.5]},"more":{"x":1}}"#;
        let history: History = serde_json::from_str(text).unwrap();
        assert_eq!(history.host["cpu"].0, [Some(0.5)]);
        assert!(history.containers.is_empty());
    }
}
