//! Which container a process belongs to, by its `/proc/<pid>/cgroup`.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether the text of a `/proc/<pid>/cgroup` names the container: a process that has taken over
/// the id of a container's first process is in another group.
pub(super) fn names(cgroup: &str, id: &str) -> bool {
    cgroup.contains(id)
}

/// The path of a process's file.
pub(super) fn of_process(proc: &Path, pid: u32, file: &str) -> PathBuf {
    proc.join(pid.to_string()).join(file)
}

/// Whether a process is the container's, as far as its groups tell.
pub(super) fn is_process_of(proc: &Path, pid: u32, id: &str) -> bool {
    fs::read_to_string(of_process(proc, pid, "cgroup")).is_ok_and(|cgroup| names(&cgroup, id))
}
