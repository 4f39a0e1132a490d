//! Calculates the space of a file system.

use rustix::fs::StatVfs;

use crate::model::{Space, figure};

const GIB: f64 = 1_073_741_824.0;

/// How full a file system is, calculated as in the command `df`: used = blocks − free blocks. The blocks that are reserved
/// for root count as free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Full {
    /// Used space, in GiB.
    pub(super) used: f64,
    /// Total space, in GiB.
    pub(super) total: f64,
    /// Free space without the space that is reserved for root, in GiB.
    pub(super) available: f64,
    /// The size, the free space and the available space, in bytes.
    pub(super) exact: Space,
    /// Used inodes and all inodes. None if the file system does not count inodes.
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
