//! The kernel's own figures, which the agent reads only if somebody asks for them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// The largest whole number up to which a floating-point number has every whole number.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// One reading of the kernel's own figures: the section `kernel`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kernel {
    /// The families, in the order in which they were read.
    pub families: Vec<KernelFamily>,
    /// Figures of containers. The key is the path of the control group.
    pub containers: HashMap<String, RequestedContainer>,
}

/// Figures of a container that the agent reads only if somebody asks for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestedContainer {
    /// CPU time in programs and in the kernel, in nanoseconds. Only with cgroup v1.
    pub cpu_modes_ns: Option<(u64, u64)>,
    /// The most memory that the container has used, in bytes.
    pub memory_max: Option<u64>,
    /// How often the container reached its memory limit. Only with cgroup v1.
    pub memory_failures: Option<u64>,
    /// Swap, in bytes. Only with cgroup v2.
    pub swap: Option<u64>,
    /// Number of processes.
    pub processes: Option<u64>,
    /// Number of open files of all processes.
    pub open_files: Option<u64>,
    /// Limit on the open files of each process: the soft limit of the first process. -1 means no limit.
    pub open_files_limit: Option<i64>,
}

/// The figures of one kind, for example those of `/proc/meminfo`.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelFamily {
    /// The name of node_exporter's collector with the same figures, for example `meminfo`.
    pub name: &'static str,
    /// How the reading ended.
    pub status: KernelStatus,
    /// How long the reading took.
    pub duration: Duration,
    /// For example one row for each network interface. A family without devices has one row.
    pub rows: Vec<KernelRow>,
}

/// How the reading of a family ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelStatus {
    /// The rows have all figures of the family.
    Read,
    /// This host does not have the figures.
    Absent,
    /// The figures cannot be read. The text says why.
    Failed(String),
}

/// The figures of one device, or of the whole host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KernelRow {
    /// What the figures belong to: names and values, for example `device` and `eth0`.
    pub labels: Vec<(&'static str, String)>,
    /// The names that the kernel gives to the figures, and the figures. The units are bytes and seconds.
    pub figures: Vec<(Cow<'static, str>, f64)>,
}

impl KernelRow {
    /// Returns the figure with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        let found = self.figures.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| *value)
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: impl Into<Cow<'static, str>>, value: f64) {
        self.figures.push((name.into(), value));
    }
}

/// In JSON, a reading is an object with the families by name. A family without devices is an object. A family with devices is an array of
/// objects. A family that cannot be read is an object with the field `error`. Families that the host does not have are absent.
impl Serialize for Kernel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let families = self.families.iter();
        serializer.collect_map(families.filter_map(|family| Some((family.name, family.json()?))))
    }
}

/// A family in JSON.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum FamilyJson<'f> {
    Failed { error: &'f str },
    Host(&'f KernelRow),
    Devices(&'f [KernelRow]),
}

impl KernelFamily {
    fn json(&self) -> Option<FamilyJson<'_>> {
        match (&self.status, &self.rows[..]) {
            (KernelStatus::Failed(error), _) => Some(FamilyJson::Failed { error }),
            (KernelStatus::Absent, _) | (KernelStatus::Read, []) => None,
            (KernelStatus::Read, [row]) if row.labels.is_empty() => Some(FamilyJson::Host(row)),
            (KernelStatus::Read, rows) => Some(FamilyJson::Devices(rows)),
        }
    }
}

impl Serialize for KernelRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let length = self.labels.len() + self.figures.len();
        let mut fields = serializer.serialize_map(Some(length))?;
        for (name, value) in &self.labels {
            fields.serialize_entry(name, value)?;
        }
        for (name, value) in &self.figures {
            fields.serialize_entry(name, &FigureJson(*value))?;
        }
        fields.end()
    }
}

/// A figure in JSON.
struct FigureJson(f64);

impl Serialize for FigureJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_figure(self.0, serializer)
    }
}

/// Writes a figure. A whole number has no fraction in JSON.
pub(super) fn serialize_figure<S: Serializer>(value: f64, to: S) -> Result<S::Ok, S::Error> {
    match value.fract() == 0.0 && value.abs() < MAX_EXACT {
        true => to.serialize_i64(value as i64),
        false => to.serialize_f64(value),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{Kernel, KernelFamily, KernelRow, KernelStatus};

    #[test]
    fn families_are_objects_and_devices_are_arrays() {
        let family = |name, status, rows| KernelFamily {
            name,
            status,
            duration: Duration::ZERO,
            rows,
        };
        let mut host = KernelRow::default();
        host.figure("pgfault", 5.0);
        let mut device = KernelRow {
            labels: vec![("device", "eth0".to_owned())],
            figures: Vec::new(),
        };
        device.figure("mtu", 1500.0);
        device.figure("load", 0.5);
        device.figure("large", 1e30);
        let failed = KernelStatus::Failed("denied".to_owned());
        let kernel = Kernel {
            families: vec![
                family("vmstat", KernelStatus::Read, vec![host]),
                family("netclass", KernelStatus::Read, vec![device]),
                family("bonding", KernelStatus::Absent, Vec::new()),
                family("nfs", failed, Vec::new()),
            ],
            ..Kernel::default()
        };
        let expected = json!({
            "vmstat": {"pgfault": 5},
            "netclass": [{"device": "eth0", "mtu": 1500, "load": 0.5, "large": 1e30}],
            "nfs": {"error": "denied"},
        });
        assert_eq!(serde_json::to_value(&kernel).unwrap(), expected);
    }
}
