//! The figures of a snapshot as the page shows them.

use crate::feeds::share::share;
use crate::model::{Snapshot, SystemMetrics};

const MIB: f64 = 1024.0 * 1024.0;

/// Bytes of a figure in MiB.
pub(super) fn bytes(mib: f64) -> f64 {
    (mib * MIB).round()
}

/// Whether the snapshot has figures of the host.
pub(super) fn has_system(snapshot: &Snapshot) -> bool {
    snapshot.sources.system.collected_at.is_some()
}

/// The mount point with the largest share of used space, and this share in percent.
pub(super) fn fullest_disk(system: &SystemMetrics) -> Option<(&str, f64)> {
    let shares = system
        .disks
        .iter()
        .filter_map(|disk| Some((disk.mount.as_str(), share(disk.used?, disk.total?))));
    shares.max_by(|(_, one), (_, other)| one.total_cmp(other))
}

/// The name of a container without the slash.
pub(super) fn bare(name: &str) -> &str {
    name.trim_start_matches('/')
}
