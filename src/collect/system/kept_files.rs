//! Limits the number of files in `/proc/<pid>` that stay open between readings.

use rustix::process::{Resource, getrlimit};

/// The files that stay open are at most one sixteenth of the files that the agent may open.
const SHARE: u64 = 16;
/// Maximum number of files in `/proc/<pid>` that stay open, even if the agent may open many files.
const MAX_KEPT: u64 = 1024;

/// Returns the maximum number of files in `/proc/<pid>` that stay open, if the agent may open `limit` files.
#[must_use]
pub fn most_kept_files(limit: u64) -> u64 {
    (limit / SHARE).min(MAX_KEPT)
}

/// Returns the maximum number of files in `/proc/<pid>` that stay open, for the agent's own limit of open files.
pub(super) fn max_kept_files() -> u64 {
    let limit = getrlimit(Resource::Nofile).current;
    most_kept_files(limit.unwrap_or(u64::MAX))
}
