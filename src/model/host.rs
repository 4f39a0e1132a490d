//! The description of the host.

use serde::{Deserialize, Serialize};

/// The description of the host: the section `host`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// The host's name. Source: `uname(2)`.
    pub hostname: String,
    /// The operating system's name and version. Source: `/etc/os-release`.
    pub os: String,
    /// The kernel's release. Source: `uname(2)`.
    pub kernel: String,
    /// The machine's architecture, e.g. `x86_64`. Source: `uname(2)`.
    pub arch: String,
    /// The number of logical CPUs. In a container with smaller limits: the number of CPUs that the container can use. Source:
    /// `/proc/stat`, or the container's control group.
    pub cpus: u32,
    /// The time when the host booted, in Unix seconds. Source: `/proc/stat`, `btime`.
    pub boot_time: u64,
    /// The kind of virtual machine or container in which the host runs, in the words of `systemd-detect-virt`, e.g. `kvm` or
    /// `lxc`. `none` means real hardware. Absent if it is not known. Found once, at the start of the agent. If the agent runs in a
    /// container and measures the host outside of it, this is the kind of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtualization: Option<String>,
}
