//! How many files may be kept open between readings.

use rustix::process::{Resource, getrlimit};

/// One kind of figures may keep a sixteenth of the files open that the process may open.
const SHARE: u64 = 16;
/// Maximum number of files of processes that are kept open.
const MAX_KEPT: u64 = 1024;

/// How many files of processes are kept open where the process may open `limit` files.
#[must_use]
pub fn most_kept_files(limit: u64) -> u64 {
    (limit / SHARE).min(MAX_KEPT)
}

/// How many files of processes may be kept open.
pub(super) fn may_keep() -> u64 {
    let limit = getrlimit(Resource::Nofile).current;
    most_kept_files(limit.unwrap_or(u64::MAX))
}
