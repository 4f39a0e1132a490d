//! Limits the number of the kernel's files that stay open between readings.

use rustix::process::{Resource, getrlimit};

/// The families that keep files open: processes, units and the frequencies of cores.
const FAMILIES: u64 = 3;
/// Each family keeps at most one sixteenth of the files that the agent may open.
const SHARE: u64 = 16;
/// Maximum number of files that a family keeps open, even if the agent may open many files.
const MAX_KEPT: u64 = 1024;

/// Returns the maximum number of files that all families together keep open, if the agent may open `limit` files.
#[must_use]
pub fn most_kept_files(limit: u64) -> u64 {
    FAMILIES * of_a_family(limit)
}

fn of_a_family(limit: u64) -> u64 {
    (limit / SHARE).min(MAX_KEPT)
}

/// Returns the maximum number of files that one family keeps open, for the agent's own limit of open files.
pub(super) fn max_kept_files() -> u64 {
    let limit = getrlimit(Resource::Nofile).current;
    of_a_family(limit.unwrap_or(u64::MAX))
}
