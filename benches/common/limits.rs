//! Limits of open files and of connections that wait to be accepted.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files to the hard limit, as the agent does at its start. Returns the limit.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

/// The kernel's limit on connections that wait until a program accepts them.
pub(crate) fn backlog() -> u64 {
    let max = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    max.trim().parse().unwrap()
}
