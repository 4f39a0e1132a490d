//! Reads the space of the host's root file system.

use std::io;

use rustix::fs::statvfs;

use super::family::{MetricFamily, Round};
use super::space::Full;
use crate::settings::HostRoot;

/// The metric family: used and total space of the host's root file system, in GiB. Source: `statvfs` of the host's `/`. This
/// system call blocks the thread until the file system answers.
pub(super) struct RootDisk {
    root: HostRoot,
    last: (f64, f64),
}

/// Why the root file system cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the host's root directory")]
pub(super) struct RootDiskError(#[from] io::Error);

impl RootDisk {
    pub(super) fn new(root: HostRoot) -> Self {
        Self {
            root,
            last: (0.0, 0.0),
        }
    }
}

impl MetricFamily for RootDisk {
    const NAME: &'static str = "root_disk";

    type Figures = (f64, f64);
    type Error = RootDiskError;

    fn read(&mut self, _round: &Round<'_>) -> Result<(f64, f64), RootDiskError> {
        let stat = statvfs(self.root.directory()).map_err(io::Error::from)?;
        let full = Full::of(&stat);
        Ok((full.used, full.total))
    }

    fn publish(&mut self, figures: (f64, f64), round: &mut Round<'_>) {
        self.last = figures;
        self.publish_last(round);
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        (round.metrics.disk_used, round.metrics.disk_total) = self.last;
    }
}
