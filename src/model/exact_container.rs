//! Figures and settings of a container that are not on the wire. The metrics have them.

use std::path::PathBuf;

/// The control group of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlGroup {
    /// The path below the root of the hierarchy, for example `/system.slice/docker-<id>.scope`. If the agent cannot see the group,
    /// this is Docker's default path.
    pub path: String,
    /// The directories of the group. None if the agent cannot see the group.
    pub directories: Option<GroupDirectories>,
}

/// The directories with the files of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupDirectories {
    /// Cgroup v1: a directory for each controller.
    V1 {
        /// The directory of the controller `cpuacct`.
        cpuacct: Option<PathBuf>,
        /// The directory of the controller `memory`.
        memory: Option<PathBuf>,
    },
    /// Cgroup v2: one directory.
    V2(PathBuf),
}

/// Counters and memory of a container. A figure is none if the kernel does not report it in the files that the agent reads in each round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExactContainer {
    /// CPU time in programs and in the kernel, in nanoseconds. Source: `user_usec` and `system_usec` in `cpu.stat` (v2).
    pub cpu_modes_ns: Option<(u64, u64)>,
    /// How often the container used more CPU time than its limit, and for how many nanoseconds. Source: `nr_bursts` and `burst_time` in
    /// `cpu.stat`.
    pub bursts: Option<(u64, u64)>,
    /// Files that programs have mapped, in bytes.
    pub mapped_file: Option<u64>,
    /// Swap, in bytes. Only with cgroup v1.
    pub swap: Option<u64>,
    /// File cache that was used recently, in bytes.
    pub active_file: Option<u64>,
    /// File cache that was not used recently, in bytes.
    pub inactive_file: Option<u64>,
    /// File cache that is not written to disk yet, in bytes.
    pub file_dirty: Option<u64>,
    /// File cache that is being written to disk, in bytes.
    pub file_writeback: Option<u64>,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Page faults for which the kernel read from a disk.
    pub major_page_faults: Option<u64>,
    /// Pages that the kernel looked at when it reclaimed memory.
    pub pages_scanned: Option<u64>,
    /// Pages that the kernel reclaimed.
    pub pages_reclaimed: Option<u64>,
    /// Pages of files that were read again after they were reclaimed.
    pub refaults_file: Option<u64>,
    /// Anonymous pages that were read again after they were reclaimed.
    pub refaults_anon: Option<u64>,
    /// How often the container was slowed because it used more than `memory.high`. Source: `memory.events` (v2).
    pub high_events: Option<u64>,
    /// How often the container reached its memory limit. Source: `memory.events` (v2).
    pub max_events: Option<u64>,
    /// Block I/O of each device.
    pub devices: Vec<DeviceIo>,
}

/// Block I/O of a container on one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// The major and minor number of the device.
    pub number: (u32, u32),
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
}

/// The limits with which a container was created or updated. Source: the engine's `HostConfig`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Period of the CPU limit, in microseconds.
    pub cpu_period: u64,
    /// CPU time in each period, in microseconds. None without a limit.
    pub cpu_quota: Option<u64>,
    /// Weight against other containers. 0 means the engine's default.
    pub cpu_shares: u64,
    /// Memory limit, in bytes. 0 means no limit.
    pub memory: u64,
    /// Limit of memory and swap together, in bytes. 0 means no limit.
    pub memory_and_swap: u64,
    /// Memory that the container should keep, in bytes. 0 means none.
    pub memory_reservation: u64,
    /// Limit of the writable layer (`--storage-opt size`), in bytes. 0 means no limit.
    pub storage: u64,
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::{ContainerSpec, ControlGroup, DeviceIo, ExactContainer, GroupDirectories};
    use crate::model::{Container, Kernel, PacketsLost, RequestedContainer, Snapshot};

    impl Container {
        /// Adds figures for tests to those fields that are not on the wire.
        pub(crate) fn record_exact(&mut self) {
            self.group = Arc::new(ControlGroup {
                path: format!("/docker/{}{}", self.id, "0".repeat(52)),
                directories: Some(GroupDirectories::V1 {
                    cpuacct: None,
                    memory: None,
                }),
            });
            let device = DeviceIo {
                number: (254, 0),
                read_bytes: 4096,
                write_bytes: 8192,
                read_ops: 1,
                write_ops: 2,
            };
            let unknown = DeviceIo {
                number: (7, 1),
                ..device
            };
            self.exact = Arc::new(ExactContainer {
                cpu_modes_ns: None,
                bursts: Some((3, 4_000_000)),
                mapped_file: Some(4096),
                swap: Some(8192),
                active_file: Some(12_288),
                inactive_file: Some(16_384),
                file_dirty: Some(20_480),
                file_writeback: Some(24_576),
                page_faults: Some(2278),
                major_page_faults: Some(2),
                pages_scanned: Some(2048),
                pages_reclaimed: Some(1024),
                refaults_file: Some(180),
                refaults_anon: Some(90),
                high_events: Some(5),
                max_events: Some(145),
                devices: vec![device, unknown],
            });
            self.spec = Some(ContainerSpec {
                cpu_period: 100_000,
                cpu_quota: Some(50_000),
                memory: 67_108_864,
                memory_and_swap: 134_217_728,
                ..ContainerSpec::default()
            });
            self.created = 1_795_665_027;
            self.layer = Some(Path::new("/").into());
            for (_, interface) in Arc::make_mut(&mut self.network) {
                let lost = |errors, drops| PacketsLost { errors, drops };
                (interface.rx_lost, interface.tx_lost) = (lost(1, 2), lost(3, 4));
            }
        }
    }

    impl Kernel {
        /// Returns a reading with figures of the containers of a snapshot.
        pub(crate) fn recorded(snapshot: &Snapshot) -> Self {
            let figures = RequestedContainer {
                cpu_modes_ns: Some((140_000_000, 110_000_000)),
                memory_max: Some(8_192_000),
                memory_failures: Some(7),
                swap: None,
                processes: Some(2),
                open_files: Some(9),
                open_files_limit: Some(1_048_576),
            };
            let containers = snapshot.containers.iter();
            let containers = containers.map(|one| (one.group.path.clone(), figures));
            Self {
                containers: containers.collect(),
                ..Self::default()
            }
        }
    }
}
