//! The units of systemd.

use serde::{Deserialize, Serialize};

use super::{BlockIo, Pressures, Timestamp};

/// A unit of systemd: a service, a scope, or all services and sessions of one user. States come from systemd by D-Bus. Figures
/// come from the unit's control group, and include all processes of the unit.
///
/// A figure is absent if the unit has no control group, for example after it has failed, and if the kernel does not count it for
/// this unit. With cgroup v1, systemd enables the counting of CPU time and I/O only for units with `CPUAccounting=yes` or
/// `IOAccounting=yes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// The name of the unit, e.g. `nginx.service`. `user-1000.slice` is everything that the user with the id 1000 runs.
    pub name: String,
    /// The active state, e.g. `active`, `activating`, `deactivating`, `reloading` or `failed`. Absent if systemd does not answer.
    /// Source: `ActiveState`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The sub-state, e.g. `running`, `exited`, `start-pre` or `auto-restart`. Source: `SubState`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_state: Option<String>,
    /// When the unit came into its active state. For a unit that is starting, the time when the start began. Source:
    /// `ActiveEnterTimestamp`, `InactiveExitTimestamp`, `InactiveEnterTimestamp` or `ActiveExitTimestamp`, as in `systemctl status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The process id of a service's main process. Source: `MainPID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<u32>,
    /// How often systemd has restarted a service because of `Restart=`. Source: `NRestarts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u64>,
    /// CPU use in percent of one core, since the previous reading. Source: `usage_usec` in `cpu.stat`, or `cpuacct.usage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// CPU time since the creation of the control group, in nanoseconds. Source: as `cpu_percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_usage_ns: Option<u64>,
    /// Memory in bytes, including caches, as `systemctl status` shows it. Source: `memory.current`, or `memory.usage_in_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The number of processes and threads. Source: `pids.current`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// The number of processes that the kernel has killed for lack of memory. Source: `oom_kill` in `memory.events`, or in
    /// `memory.oom_control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Data read from and written to block devices. Source: `io.stat`, or `blkio.throttle.*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIo>,
    /// How long the unit's processes waited for CPU, memory and I/O. Only with cgroup v2. Source: `*.pressure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressures>,
}

/// A failed unit of systemd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUnit {
    /// The name of the unit, e.g. `nginx.service`.
    pub name: String,
    /// The description in the unit's file.
    pub description: String,
}
