//! Checks in `/proc/<pid>/cgroup` whether a process belongs to a container.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether `cgroup`, the text of a `/proc/<pid>/cgroup`, contains the id of the container. If the kernel has reused the process
/// id, the new process is in another control group.
pub(super) fn names(cgroup: &str, id: &str) -> bool {
    cgroup.contains(id)
}

/// Returns the path of a file of a process.
pub(super) fn of_process(proc: &Path, pid: u32, file: &str) -> PathBuf {
    proc.join(pid.to_string()).join(file)
}

/// Whether a process is in a control group of the container. False if the file cannot be read.
pub(super) fn is_process_of(proc: &Path, pid: u32, id: &str) -> bool {
    fs::read_to_string(of_process(proc, pid, "cgroup")).is_ok_and(|cgroup| names(&cgroup, id))
}
