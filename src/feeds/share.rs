//! Shares in percent, and sums over interfaces and disks. An unknown sum counts as 0.

use crate::model::{self, Container, SystemMetrics};

/// The share of `part` in `whole`, in percent. Returns 0 if `whole` is 0.
pub(crate) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        100.0 * part / whole
    } else {
        0.0
    }
}

/// Bytes received and sent per second by the host, as [`model::traffic`] counts them.
pub(crate) fn traffic(system: &SystemMetrics) -> (f64, f64) {
    model::traffic(system).unwrap_or_default()
}

/// Bytes read and written per second by all disks, as [`model::disk_traffic`] counts them.
pub(crate) fn disk_traffic(system: &SystemMetrics) -> (f64, f64) {
    model::disk_traffic(system).unwrap_or_default()
}

/// Bytes received and sent per second by all interfaces of a container.
pub(crate) fn container_traffic(container: &Container) -> (f64, f64) {
    model::container_traffic(container).unwrap_or_default()
}
