//! The processes of the host.

use serde::{Deserialize, Serialize};

/// The number of processes, by state. Source: `/proc/<pid>/stat`.
///
/// A process that used less than 0.5 % of a core is read again after at most 15 s, or when the CPU time of the host shows that such
/// processes use more. One that has used no CPU time for a minute is read after at most a minute. A new process is read one round after the number of processes has changed, or when the CPU time shows that it is
/// active, and after at most 15 s and one round. Until then it counts as sleeping and as one thread. `total` is current.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessCounts {
    /// All processes.
    pub total: u64,
    /// Processes that run or wait for a CPU (`R`).
    pub running: u64,
    /// Processes that wait for an event (`S`), including idle kernel threads (`I`).
    pub sleeping: u64,
    /// Processes in a wait that no signal interrupts, usually for a disk (`D`).
    pub blocked: u64,
    /// Processes that a signal or a debugger has stopped (`T`, `t`).
    pub stopped: u64,
    /// Processes that have ended, but whose parent has not yet read the exit status (`Z`).
    pub zombie: u64,
    /// The threads of all processes.
    pub threads: u64,
}

/// A process with a high use of CPU or memory. `user`, `command`, `container`, and the `open_files` of an idle process are at most 15 s
/// old.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopProcess {
    /// The process's name (`comm`), up to 15 bytes.
    pub name: String,
    /// CPU use in percent of one core, since the previous reading of the process. Two readings are at least 300 ms apart, because
    /// the kernel counts CPU time in ticks of 10 ms. A process that used less than 0.5 % and is in no list is read again after at most
    /// 15 s. A process that has used nothing for a minute is read again after at most a minute. Both are read at once when the CPU time of the host shows that such processes use more. The figure of such a process is mostly from the time
    /// since the previous snapshot. The first figure of a new process covers all its CPU time.
    /// Source: `utime` + `stime` in `/proc/<pid>/stat`.
    pub cpu: f64,
    /// Resident memory, in percent of the host's memory. Source: `/proc/<pid>/stat`, `rss`.
    pub mem: f64,
    /// The process's id.
    pub pid: u32,
    /// Resident memory, in bytes. Source: `/proc/<pid>/stat`, `rss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_rss: Option<u64>,
    /// The number of the process's threads. Source: `/proc/<pid>/stat`, `num_threads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,
    /// The number of the process's open files. Absent with kernels before Linux 6.2. Source: the size of the folder
    /// `/proc/<pid>/fd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// The name of the process's user. If `/etc/passwd` does not contain the user, this is the user's number. Source: `Uid` in
    /// `/proc/<pid>/status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The process's command line, without the text that `LOG_REDACT` replaces. Absent unless `PROCESS_COMMANDS` is true, and for a
    /// thread of the kernel. Source: `/proc/<pid>/cmdline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The name of the process's container, without the slash. Absent if the process is not in a container. Source:
    /// `/proc/<pid>/cgroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// A process, a unit of systemd or a container with high I/O.
///
/// Only root may read the I/O of the processes of other users. If the agent can read no process of another user, and the kernel
/// refuses more processes than it allows, the entries are containers and the units in `units`, which are those with the highest CPU use. An entry then has `unit` or `container`,
/// and no `pid`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopIo {
    /// The process's name (`comm`), up to 15 bytes. Without `pid`, the name of the unit or of the container.
    pub name: String,
    /// The process's id. Absent for a unit and a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Only for an entry without `pid`: the name of the unit, e.g. `nginx.service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The name of the process's user. If `/etc/passwd` does not contain the user, this is the user's number. Absent for a unit
    /// and a container. Source: `Uid` in `/proc/<pid>/status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// With `pid`: the name of the process's container, without the slash. Absent if the process is not in a container. Without
    /// `pid`: the name of the container that the entry is about. Source: `/proc/<pid>/cgroup`, or the container list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Bytes read from storage per second, not from the page cache. A process that has used less than 10 ms of CPU time since
    /// the previous round is not read. Its I/O counts in the next round in which it is read. A process that used less than 0.5 % of a
    /// core and had no I/O is read again after at most 15 s, and one that has used no CPU time for a minute after at most a minute. The I/O of children counts if they have started and ended between two readings. Source: `read_bytes` in `/proc/<pid>/io`, or `block_io` of the unit or the container.
    pub read_bytes_per_second: f64,
    /// Bytes written to storage per second, as for `read_bytes_per_second`. The kernel counts a page when the process changes it,
    /// and writes it later. `cancelled_write_bytes`, for example of a file that was deleted before, is not subtracted. With
    /// cgroup v1, a write through the page cache counts for a container only if the container waits for it, for example with
    /// `fsync`. Source: `write_bytes` in `/proc/<pid>/io`, or `block_io` of the unit or the container.
    pub write_bytes_per_second: f64,
}
