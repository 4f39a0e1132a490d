//! The kernel's own figures, which the agent reads only if somebody asks for them.

use std::borrow::Cow;
use std::time::Duration;

/// One reading of the kernel's own figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kernel {
    /// The families, in the order in which they were read.
    pub families: Vec<KernelFamily>,
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
    /// Adds a figure.
    pub fn figure(&mut self, name: impl Into<Cow<'static, str>>, value: f64) {
        self.figures.push((name.into(), value));
    }
}
