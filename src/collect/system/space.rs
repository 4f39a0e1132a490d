//! The space of a file system.

use rustix::fs::StatVfs;

use crate::model::{Space, figure};

const GIB: f64 = 1_073_741_824.0;

/// How full a file system is, counted as `df` counts: used = blocks − free blocks, those reserved for root
/// among the free ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Full {
    /// In GiB.
    pub(super) used: f64,
    pub(super) total: f64,
    /// Without what is reserved for root.
    pub(super) available: f64,
    pub(super) exact: Space,
    /// Used and all; none where it does not count them.
    pub(super) inodes: Option<(u64, u64)>,
}

impl Full {
    pub(super) fn of(stat: &StatVfs) -> Self {
        let gib = |blocks: u64| figure(blocks as f64 * stat.f_frsize as f64 / GIB, 4);
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Self {
            exact: Space {
                size: bytes(stat.f_blocks),
                free: bytes(stat.f_bfree),
                available: bytes(stat.f_bavail),
            },
            used: gib(stat.f_blocks.saturating_sub(stat.f_bfree)),
            total: gib(stat.f_blocks),
            available: gib(stat.f_bavail),
            inodes: (stat.f_files > 0)
                .then(|| (stat.f_files.saturating_sub(stat.f_ffree), stat.f_files)),
        }
    }
}
