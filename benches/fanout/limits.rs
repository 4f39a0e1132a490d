//! Limits of open files, and of connections that wait.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As the agent does at its start.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

/// How many connections the kernel keeps until they are accepted.
pub(crate) fn backlog() -> u64 {
    let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    most.trim().parse().unwrap()
}
