//! Reads the time since the host booted.

use sysinfo::System;

use super::family::{MetricFamily, Round};

/// The metric family: the uptime, in seconds. Source: `/proc/uptime`, read by the library sysinfo.
#[derive(Default)]
pub(super) struct Uptime {
    last: u64,
}

/// Why the uptime cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum UptimeError {
    #[error("cannot read /proc/uptime")]
    Read(#[from] sysinfo::Error),
    #[error("cannot read /proc/uptime: invalid data")]
    Zero,
}

impl MetricFamily for Uptime {
    const NAME: &'static str = "uptime";

    type Figures = u64;
    type Error = UptimeError;

    fn read(&mut self, _round: &Round<'_>) -> Result<u64, UptimeError> {
        // sysinfo returns 0 for a file that it cannot read.
        match System::uptime()? {
            0 => Err(UptimeError::Zero),
            seconds => Ok(seconds),
        }
    }

    fn publish(&mut self, seconds: u64, round: &mut Round<'_>) {
        self.last = seconds;
        round.metrics.uptime = seconds;
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        round.metrics.uptime = self.last;
    }
}
