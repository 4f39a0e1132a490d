//! The figures of a control group, and their rates between two readings. Does no I/O.

use std::sync::Arc;

use crate::collect::rate::per_second;
use crate::model::{
    BlockIo, ControlGroup, ExactContainer, InterfaceCounters, Interfaces, Pressures, Throttling,
    figure,
};

/// What a container or another control group uses now, and what it has used since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Usage {
    /// Memory in bytes, including the inactive file cache. None if the host does not count memory.
    pub(crate) memory: Option<u64>,
    /// File cache that the kernel can free immediately, in bytes.
    pub(crate) inactive_file: u64,
    /// The memory limit in bytes. 0 if it is not known.
    pub(crate) memory_limit: u64,
    /// `rss`, `cache` and `kernel` are memory by type, in bytes.
    pub(crate) rss: Option<u64>,
    pub(crate) cache: Option<u64>,
    pub(crate) kernel: Option<u64>,
    pub(crate) oom_kills: Option<u64>,
    pub(crate) pressure: Option<Pressures>,
    pub(crate) pids: Option<u64>,
    pub(crate) block_io: Option<BlockIo>,
    pub(crate) throttling: Option<Throttling>,
    /// Share of the periods in which the kernel throttled the group, in percent. Counts the periods after the previous
    /// reading. None if there were no periods.
    pub(crate) throttled_percent: Option<f64>,
    /// The traffic of a container. Empty for other groups.
    pub(crate) network: Arc<Interfaces>,
    /// More figures of a container. Empty for other groups.
    pub(crate) exact: Arc<ExactContainer>,
    /// The container's control group. None if the figures are from the engine, and for other groups.
    pub(crate) group: Option<Arc<ControlGroup>>,
}

impl Usage {
    /// Adds the rates of the network traffic since `before`. `seconds` is the time between the two readings of the traffic. If
    /// `seconds` is none, adds no rates.
    pub(crate) fn add_network_rates(&mut self, before: &Self, seconds: Option<f64>) {
        let Some(seconds) = seconds else { return };
        let is_zero = |one: &InterfaceCounters| {
            one.rx_bytes_per_second == Some(0.0) && one.tx_bytes_per_second == Some(0.0)
        };
        if Arc::ptr_eq(&before.network, &self.network) && self.network.values().all(is_zero) {
            // The counters were not read again, because they have not changed.
            return;
        }
        let rate = |before, now| Some(per_second(before, now, seconds));
        for (name, now) in Arc::make_mut(&mut self.network) {
            if let Some(before) = before.network.get(name) {
                now.rx_bytes_per_second = rate(before.rx_bytes, now.rx_bytes);
                now.tx_bytes_per_second = rate(before.tx_bytes, now.tx_bytes);
            }
        }
    }

    /// Adds the rates of I/O and the share of throttled periods since `before`. `seconds` is the time between the two readings of
    /// these figures. If `seconds` is none, adds no rates.
    pub(crate) fn add_rates(&mut self, before: &Self, seconds: Option<f64>) {
        self.throttled_percent = before
            .throttling
            .zip(self.throttling)
            .and_then(|(before, now)| throttled_percent(before, now));
        let Some(seconds) = seconds else { return };
        let rate = |before, now| Some(per_second(before, now, seconds));
        if let Some((now, before)) = self.block_io.as_mut().zip(before.block_io) {
            now.read_bytes_per_second = rate(before.read_bytes, now.read_bytes);
            now.write_bytes_per_second = rate(before.write_bytes, now.write_bytes);
        }
    }
}

impl Usage {
    /// Whether nothing of the figures changes while the group is idle: no rate of I/O, and no pressure that has yet to fall.
    pub(crate) fn is_settled(&self) -> bool {
        let has_io = self.block_io.is_some_and(|io| {
            let rates = [io.read_bytes_per_second, io.write_bytes_per_second];
            rates.into_iter().flatten().any(|rate| rate > 0.0)
        });
        let pressures = self.pressure.iter();
        let pressures = pressures.flat_map(|one| [&one.cpu, &one.memory, &one.io]);
        let stalls = pressures
            .flatten()
            .flat_map(|one| [Some(one.some), one.full]);
        let has_pressure = stalls
            .flatten()
            .any(|one| one.avg10 > 0.0 || one.avg60 > 0.0 || one.avg300 > 0.0);
        !has_io && !has_pressure
    }
}

/// Returns the share of the periods between two readings in which the group was throttled, in percent. None if there were no
/// periods.
fn throttled_percent(before: Throttling, now: Throttling) -> Option<f64> {
    let periods = now.periods.checked_sub(before.periods)?;
    let throttled = now
        .throttled_periods
        .checked_sub(before.throttled_periods)?;
    (periods > 0).then(|| figure(throttled as f64 / periods as f64 * 100.0, 2).min(100.0))
}
