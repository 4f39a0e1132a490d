//! The metrics of the dashboards and alerts that a host can lack, and how to see whether this host has them.

use std::fs;
use std::path::PathBuf;

/// Metrics that a host can lack.
pub(super) struct Optional {
    pub(super) metrics: &'static [&'static str],
    /// What has these figures.
    pub(super) needs: &'static str,
    /// Whether this host has it. Then the queries with these metrics must be answered.
    pub(super) is_here: fn() -> bool,
}

pub(super) const OPTIONAL: [Optional; 10] = [
    Optional {
        metrics: &[
            "node_md_state",
            "node_md_disks",
            "node_md_disks_required",
            "node_md_degraded",
            "node_md_blocks",
            "node_md_blocks_synced",
        ],
        needs: "a RAID array. /proc has no file for it without the driver, so the test cannot replace that file",
        is_here: || exists("/sys/block/md*/md"),
    },
    Optional {
        metrics: &["node_zfs_zpool_state"],
        needs: "a ZFS pool. /proc has no folder for it without the driver",
        is_here: || exists("/proc/spl/kstat/zfs/*/state"),
    },
    Optional {
        metrics: &[
            "node_systemd_unit_state",
            "node_systemd_service_restart_total",
            "node_systemd_virtualization_info",
            "system_agent_unit_cpu_seconds_total",
            "system_agent_unit_memory_bytes",
            "system_agent_unit_oom_kills_total",
        ],
        needs: "systemd",
        is_here: || exists("/run/systemd/system"),
    },
    Optional {
        metrics: &["node_schedstat_waiting_seconds_total"],
        needs: "a kernel with CONFIG_SCHEDSTATS",
        is_here: || exists("/proc/schedstat"),
    },
    Optional {
        metrics: &["node_kernel_hung_tasks_total"],
        needs: "Linux 6.15, and CONFIG_DETECT_HUNG_TASK",
        is_here: || exists("/proc/sys/kernel/hung_task_detect_count"),
    },
    Optional {
        metrics: &[
            "node_nf_conntrack_stat_drop",
            "node_nf_conntrack_stat_early_drop",
            "node_nf_conntrack_stat_insert_failed",
        ],
        needs: "a kernel with CONFIG_NF_CONNTRACK_PROCFS",
        is_here: || exists("/proc/net/stat/nf_conntrack"),
    },
    Optional {
        metrics: &[
            "system_agent_gpu_busy_ratio",
            "system_agent_gpu_memory_used_bytes",
            "system_agent_gpu_memory_bytes",
        ],
        needs: "a GPU of NVIDIA or AMD",
        is_here: || {
            exists("/dev/nvidiactl") || exists("/sys/class/drm/card*/device/gpu_busy_percent")
        },
    },
    Optional {
        metrics: &[
            "container_pressure_cpu_waiting_seconds_total",
            "container_pressure_cpu_stalled_seconds_total",
            "container_pressure_memory_waiting_seconds_total",
            "container_pressure_memory_stalled_seconds_total",
            "container_pressure_io_waiting_seconds_total",
            "container_pressure_io_stalled_seconds_total",
        ],
        needs: "control groups of version 2. With version 1 only the host has the figures, which have no name",
        is_here: || exists("/sys/fs/cgroup/cgroup.controllers"),
    },
    Optional {
        metrics: &["container_file_descriptors"],
        needs: "Linux 6.2, which has the number of open files as the size of /proc/<pid>/fd",
        is_here: || fs::metadata("/proc/self/fd").is_ok_and(|folder| folder.len() > 0),
    },
    Optional {
        metrics: &["node_hwmon_temp_alarm", "node_hwmon_fan_alarm"],
        needs: "a sensor with these alarms. The replaced sensor has another kind of alarm",
        is_here: || {
            exists("/sys/class/hwmon/hwmon*/temp*_alarm")
                || exists("/sys/class/hwmon/hwmon*/fan*_alarm")
        },
    },
];

/// Whether a file exists. `*` in a component stands for any text.
fn exists(pattern: &str) -> bool {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let Some((before, after)) = part.split_once('*') else {
            found = found.iter().map(|folder| folder.join(part)).collect();
            continue;
        };
        let fits = |name: &str| {
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        };
        let entries = found.iter().filter_map(|folder| fs::read_dir(folder).ok());
        found = entries
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(fits)
            })
            .collect();
    }
    found.iter().any(|path| path.exists())
}
