//! How long work waited, of the host and of containers.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;

use super::Families;
use crate::model::Pressures;

/// The names of pressure's families.
pub(super) struct Names {
    cpu_waiting: &'static str,
    cpu_stalled: &'static str,
    memory_waiting: &'static str,
    memory_stalled: &'static str,
    io_waiting: &'static str,
    io_stalled: &'static str,
}

pub(super) const NODE: Names = Names {
    cpu_waiting: "node_pressure_cpu_waiting_seconds",
    cpu_stalled: "system_agent_pressure_cpu_stalled_seconds",
    memory_waiting: "node_pressure_memory_waiting_seconds",
    memory_stalled: "node_pressure_memory_stalled_seconds",
    io_waiting: "node_pressure_io_waiting_seconds",
    io_stalled: "node_pressure_io_stalled_seconds",
};

pub(super) const CONTAINER: Names = Names {
    cpu_waiting: "container_pressure_cpu_waiting_seconds",
    cpu_stalled: "container_pressure_cpu_stalled_seconds",
    memory_waiting: "container_pressure_memory_waiting_seconds",
    memory_stalled: "container_pressure_memory_stalled_seconds",
    io_waiting: "container_pressure_io_waiting_seconds",
    io_stalled: "container_pressure_io_stalled_seconds",
};

pub(super) fn write<L: EncodeLabelSet + Copy>(
    families: &mut Families<'_>,
    names: &Names,
    all: &[(L, Option<&Pressures>)],
) -> fmt::Result {
    let mut counter = |name, help, total: fn(&Pressures) -> Option<u64>| {
        let seconds = |us: u64| us as f64 / 1e6;
        let samples = all
            .iter()
            .filter_map(|(labels, of)| Some((*labels, seconds(total((*of)?)?))));
        families.counter(name, help, samples)
    };
    counter(
        names.cpu_waiting,
        "Time in which some work waited for a CPU, in seconds",
        |of| Some(of.cpu?.some.total_us),
    )?;
    counter(
        names.cpu_stalled,
        "Time in which all work waited for a CPU at once, in seconds",
        |of| Some(of.cpu?.full?.total_us),
    )?;
    counter(
        names.memory_waiting,
        "Time in which some work waited for memory, in seconds",
        |of| Some(of.memory?.some.total_us),
    )?;
    counter(
        names.memory_stalled,
        "Time in which all work waited for memory at once, in seconds",
        |of| Some(of.memory?.full?.total_us),
    )?;
    counter(
        names.io_waiting,
        "Time in which some work waited for I/O, in seconds",
        |of| Some(of.io?.some.total_us),
    )?;
    counter(
        names.io_stalled,
        "Time in which all work waited for I/O at once, in seconds",
        |of| Some(of.io?.full?.total_us),
    )
}
