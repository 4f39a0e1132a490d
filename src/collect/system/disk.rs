//! The root file system.

use std::io;

use crate::model::figure;

const GIB: f64 = 1_073_741_824.0;

/// Used and total space of `/`, in GiB, counted as `df` counts: used = blocks − free blocks,
/// those reserved for root among the free ones. Blocks while the file system does not answer.
pub(super) fn root() -> io::Result<(f64, f64)> {
    let stat = rustix::fs::statvfs("/")?;
    let gib = |blocks: u64| figure(blocks as f64 * stat.f_frsize as f64 / GIB, 4);
    Ok((
        gib(stat.f_blocks.saturating_sub(stat.f_bfree)),
        gib(stat.f_blocks),
    ))
}
