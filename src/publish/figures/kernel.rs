//! The table of the kernel's own figures: what each is called in Prometheus. The names, types and labels are those of node_exporter.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use super::MetricKind;
use crate::model::{Kernel, KernelRow};

/// A row of the table. A `*` in `field` stands for any text. The same text then replaces each `*` in `name` and `help`.
pub(in crate::publish) struct KernelMetric {
    /// The name of the kernel's family.
    pub(in crate::publish) family: &'static str,
    /// The name that the kernel gives to the figure.
    pub(in crate::publish) field: &'static str,
    /// The name in Prometheus, without the suffix `_total` of a counter.
    pub(in crate::publish) name: &'static str,
    pub(in crate::publish) kind: MetricKind,
    pub(in crate::publish) help: &'static str,
}

const fn row(
    family: &'static str,
    field: &'static str,
    kind: MetricKind,
    name: &'static str,
    help: &'static str,
) -> KernelMetric {
    KernelMetric {
        family,
        field,
        name,
        kind,
        help,
    }
}

/// Families with more devices or labels than the snapshot has, and families of which a scrape shows whether they could be read. If there are kernel figures, they replace the snapshot's metrics of the same names.
const REPLACING: [&str; 12] = [
    "loadavg",
    "filefd",
    "processes",
    "netdev",
    "netclass",
    "diskstats",
    "hwmon",
    "filesystem",
    "entropy",
    "os",
    "uname",
    "process",
];

use MetricKind::{Counter, Gauge, Unknown};

/// The first row that fits a figure is used.
#[rustfmt::skip]
const TABLE: &[KernelMetric] = &[
    row("stat", "intr", Counter, "node_intr", "Interrupts that the CPUs have handled"),
    row("stat", "ctxt", Counter, "node_context_switches", "Switches of the CPUs from one task to another"),
    row("stat", "processes", Counter, "node_forks", "Processes and threads that were started"),
    row("stat", "procs_running", Gauge, "node_procs_running", "Tasks that run or wait for a CPU"),
    row("stat", "procs_blocked", Gauge, "node_procs_blocked", "Tasks that wait for I/O"),
    row("cpu", "guest", Counter, "node_cpu_guest_seconds", "Time that the core has spent in virtual machines, in seconds. It is a part of the modes user and nice"),
    row("cpu", "isolated", Gauge, "node_cpu_isolated", "Cores that the scheduler does not use by itself"),
    row("cpu", "online", Gauge, "node_cpu_online", "Whether the core is switched on"),
    row("schedstat", "running", Counter, "node_schedstat_running_seconds", "Time in which tasks ran on the CPU, in seconds"),
    row("schedstat", "waiting", Counter, "node_schedstat_waiting_seconds", "Time in which tasks waited for the CPU, in seconds"),
    row("schedstat", "timeslices", Counter, "node_schedstat_timeslices", "Time slices that the CPU has run"),
    row("diskstats", "reads_completed", Counter, "node_disk_reads_completed", "Read operations"),
    row("diskstats", "reads_merged", Counter, "node_disk_reads_merged", "Read requests that were merged with a neighbor"),
    row("diskstats", "read_bytes", Counter, "node_disk_read_bytes", "Bytes read"),
    row("diskstats", "read_time", Counter, "node_disk_read_time_seconds", "Time of all read operations together, in seconds"),
    row("diskstats", "writes_completed", Counter, "node_disk_writes_completed", "Write operations"),
    row("diskstats", "writes_merged", Counter, "node_disk_writes_merged", "Write requests that were merged with a neighbor"),
    row("diskstats", "written_bytes", Counter, "node_disk_written_bytes", "Bytes written"),
    row("diskstats", "write_time", Counter, "node_disk_write_time_seconds", "Time of all write operations together, in seconds"),
    row("diskstats", "io_now", Gauge, "node_disk_io_now", "Operations in progress"),
    row("diskstats", "io_time", Counter, "node_disk_io_time_seconds", "Time in which the device was busy, in seconds"),
    row("diskstats", "io_time_weighted", Counter, "node_disk_io_time_weighted_seconds", "Time in which the device was busy, multiplied by the number of operations in progress, in seconds"),
    row("diskstats", "discards_completed", Counter, "node_disk_discards_completed", "Discard operations"),
    row("diskstats", "discards_merged", Counter, "node_disk_discards_merged", "Discard requests that were merged with a neighbor"),
    row("diskstats", "discarded_sectors", Counter, "node_disk_discarded_sectors", "Sectors of 512 bytes discarded"),
    row("diskstats", "discard_time", Counter, "node_disk_discard_time_seconds", "Time of all discard operations together, in seconds"),
    row("diskstats", "flush_requests", Counter, "node_disk_flush_requests", "Flush requests"),
    row("diskstats", "flush_requests_time", Counter, "node_disk_flush_requests_time_seconds", "Time of all flush requests together, in seconds"),
    row("diskstats", "info", Gauge, "node_disk_info", "Numbers, model, serial number and path of the device. The value is always 1"),
    row("diskstats", "filesystem_info", Gauge, "node_disk_filesystem_info", "File system on the device. The value is always 1"),
    row("diskstats", "device_mapper_info", Gauge, "node_disk_device_mapper_info", "Names of the device in the device mapper. The value is always 1"),
    row("diskstats", "ata_write_cache", Gauge, "node_disk_ata_write_cache", "Whether the ATA disk has a write cache"),
    row("diskstats", "ata_write_cache_enabled", Gauge, "node_disk_ata_write_cache_enabled", "Whether the write cache of the ATA disk is switched on"),
    row("diskstats", "ata_rotation_rate_rpm", Gauge, "node_disk_ata_rotation_rate_rpm", "Rotations of the ATA disk in a minute. 0 for a solid-state disk"),
    row("filesystem", "size", Gauge, "node_filesystem_size_bytes", "Size of the file system"),
    row("filesystem", "free", Gauge, "node_filesystem_free_bytes", "Free space of the file system, including space reserved for root"),
    row("filesystem", "avail", Gauge, "node_filesystem_avail_bytes", "Free space of the file system for users other than root"),
    row("filesystem", "files", Gauge, "node_filesystem_files", "Inodes of the file system"),
    row("filesystem", "files_free", Gauge, "node_filesystem_files_free", "Free inodes of the file system"),
    row("filesystem", "device_error", Gauge, "node_filesystem_device_error", "Whether the file system cannot be read: it returns an error, or no answer within a second. Missing permission does not count"),
    row("filesystem", "readonly", Gauge, "node_filesystem_readonly", "Whether the whole file system is read-only"),
    row("filesystem", "mount_info", Gauge, "node_filesystem_mount_info", "Number of the mounted file system. The value is always 1"),
    row("pressure", "irq_full", Counter, "node_pressure_irq_stalled_seconds", "Time in which all tasks waited because a CPU handled interrupts, in seconds"),
    row("loadavg", "load*", Gauge, "node_load*", "Average number of tasks that run or wait over the last minutes: *"),
    row("filefd", "allocated", Gauge, "node_filefd_allocated", "Open files of all processes"),
    row("filefd", "maximum", Gauge, "node_filefd_maximum", "Limit on open files of all processes"),
    row("processes", "state", Gauge, "node_processes_state", "Number of processes in each state, by the letter of the state"),
    row("processes", "pids", Gauge, "node_processes_pids", "Number of processes"),
    row("processes", "threads", Gauge, "node_processes_threads", "Number of threads of all processes"),
    row("processes", "pid_max", Gauge, "node_processes_max_processes", "Limit on the number of a process, and so on the number of processes"),
    row("processes", "threads_state", Gauge, "node_processes_threads_state", "Number of threads in each state, by the letter of the state"),
    row("processes", "threads-max", Gauge, "node_processes_max_threads", "Limit on threads of all processes"),
    row("process", "cpu", Counter, "process_cpu_seconds", "CPU time of the agent, in seconds"),
    row("process", "resident", Gauge, "process_resident_memory_bytes", "Resident memory of the agent"),
    row("process", "virtual", Gauge, "process_virtual_memory_bytes", "Virtual memory of the agent"),
    row("process", "virtual_max", Gauge, "process_virtual_memory_max_bytes", "Limit on the virtual memory of the agent"),
    row("process", "open_fds", Gauge, "process_open_fds", "Open files of the agent"),
    row("process", "max_fds", Gauge, "process_max_fds", "Limit on open files of the agent"),
    row("process", "start_time", Gauge, "process_start_time_seconds", "Time at which the agent started, in Unix seconds"),
    row("entropy", "entropy_avail", Gauge, "node_entropy_available_bits", "Available entropy of the kernel's random number generator"),
    row("entropy", "poolsize", Gauge, "node_entropy_pool_size_bits", "Size of the entropy pool"),
    row("time", "seconds", Gauge, "node_time_seconds", "Time of the host's clock, in Unix seconds"),
    row("time", "zone_offset", Gauge, "node_time_zone_offset_seconds", "How far the time zone is east of UTC, in seconds"),
    row("time", "clocksource_*", Gauge, "node_time_clocksource_*_info", "Sources for the kernel's clock: each that is available, or the current source. The value is always 1"),
    row("timex", "sync_status", Gauge, "node_timex_sync_status", "Whether the clock is synchronized"),
    row("timex", "offset", Gauge, "node_timex_offset_seconds", "Difference between the clock and its reference, in seconds"),
    row("timex", "freq", Gauge, "node_timex_frequency_adjustment_ratio", "Correction of the clock's speed. 1 means no correction"),
    row("timex", "maxerror", Gauge, "node_timex_maxerror_seconds", "Maximum error of the clock, in seconds"),
    row("timex", "esterror", Gauge, "node_timex_estimated_error_seconds", "Estimated error of the clock, in seconds"),
    row("timex", "status", Gauge, "node_timex_status", "Status bits of the clock"),
    row("timex", "constant", Gauge, "node_timex_loop_time_constant", "Time constant of the phase-locked loop"),
    row("timex", "tick", Gauge, "node_timex_tick_seconds", "Time between two ticks of the clock, in seconds"),
    row("timex", "ppsfreq", Gauge, "node_timex_pps_frequency_hertz", "Frequency of the pulse-per-second signal"),
    row("timex", "jitter", Gauge, "node_timex_pps_jitter_seconds", "Jitter of the pulse-per-second signal, in seconds"),
    row("timex", "shift", Gauge, "node_timex_pps_shift_seconds", "Duration of a calibration interval of the pulse-per-second signal"),
    row("timex", "stabil", Gauge, "node_timex_pps_stability_hertz", "Stability of the pulse-per-second signal"),
    row("timex", "jitcnt", Counter, "node_timex_pps_jitter", "How often the jitter of the pulse-per-second signal was above its limit"),
    row("timex", "calcnt", Counter, "node_timex_pps_calibration", "Calibration intervals of the pulse-per-second signal"),
    row("timex", "errcnt", Counter, "node_timex_pps_error", "Calibration errors of the pulse-per-second signal"),
    row("timex", "stbcnt", Counter, "node_timex_pps_stability_exceeded", "How often the stability of the pulse-per-second signal was above its limit"),
    row("timex", "tai", Gauge, "node_timex_tai_offset_seconds", "Difference between International Atomic Time and UTC, in seconds"),
    row("selinux", "enabled", Gauge, "node_selinux_enabled", "Whether SELinux is switched on"),
    row("selinux", "*_mode", Gauge, "node_selinux_*_mode", "Mode of SELinux: 1 for enforcing, 0 for permissive, and -1 for disabled"),
    row("dmi", "info", Gauge, "node_dmi_info", "What the firmware says about the hardware. The value is always 1"),
    row("os", "info", Gauge, "node_os_info", "Names and versions of the operating system. The value is always 1"),
    row("os", "version", Gauge, "node_os_version", "First two parts of the operating system's version, as a number"),
    row("os", "support_end", Gauge, "node_os_support_end_timestamp_seconds", "Time at which support for the operating system ends, in Unix seconds"),
    row("uname", "info", Gauge, "node_uname_info", "Names of the host and the kernel, as the command uname shows them. The value is always 1"),
    row("meminfo", "HugePages_*", Gauge, "node_memory_HugePages_*", "Memory information field HugePages_*"),
    row("meminfo", "*", Gauge, "node_memory_*_bytes", "Memory information field *, in bytes"),
    row("vmstat", "*", Unknown, "node_vmstat_*", "Field * of /proc/vmstat"),
    row("thermal_zone", "temp", Gauge, "node_thermal_zone_temp", "Temperature of the thermal zone, in Celsius"),
    row("machine", "scrape_error", Gauge, "machine_scrape_error", "Whether the size of the host could not be read"),
    row("machine", "cpu_cores", Gauge, "machine_cpu_cores", "Number of cores, with each thread of a core counted"),
    row("machine", "cpu_physical_cores", Gauge, "machine_cpu_physical_cores", "Number of physical cores"),
    row("machine", "cpu_sockets", Gauge, "machine_cpu_sockets", "Number of processors"),
    row("machine", "memory_bytes", Gauge, "machine_memory_bytes", "Total memory of the host, in bytes"),
    row("machine", "swap_bytes", Gauge, "machine_swap_bytes", "Total swap space of the host, in bytes"),
    row("thermal_zone", "*_state", Gauge, "node_cooling_device_*_state", "State of the cooling device: how much it cools, or the highest state"),
    row("netdev", "*", Counter, "node_network_*", "Counter * of the network interface"),
    row("netclass", "up", Gauge, "node_network_up", "Whether the network interface is up"),
    row("netclass", "info", Gauge, "node_network_info", "Addresses and states of the network interface, as labels. The value is always 1"),
    row("netclass", "carrier_changes", Counter, "node_network_carrier_changes", "How often the network interface has got or lost its link"),
    row("netclass", "carrier_*_changes", Counter, "node_network_carrier_*_changes", "How often the link of the network interface has gone *"),
    row("netclass", "*", Gauge, "node_network_*", "Property * of the network interface"),
    row("netstat", "*", Unknown, "node_netstat_*", "Field * of /proc/net/netstat, snmp or snmp6"),
    row("sockstat", "sockets_used", Gauge, "node_sockstat_sockets_used", "Sockets in use"),
    row("sockstat", "*", Gauge, "node_sockstat_*", "Field * of /proc/net/sockstat or sockstat6"),
    row("softnet", "processed", Counter, "node_softnet_processed", "Packets that the CPU processed"),
    row("softnet", "dropped", Counter, "node_softnet_dropped", "Packets that the CPU dropped because its queue was full"),
    row("softnet", "times_squeezed", Counter, "node_softnet_times_squeezed", "How often the CPU had packets left when its time or budget ended"),
    row("softnet", "cpu_collision", Counter, "node_softnet_cpu_collision", "How often another CPU held the lock of the device while this CPU wanted to send"),
    row("softnet", "received_rps", Counter, "node_softnet_received_rps", "How often another CPU woke the CPU to process packets"),
    row("softnet", "flow_limit_count", Counter, "node_softnet_flow_limit_count", "How often the flow limit was reached"),
    row("softnet", "backlog_len", Gauge, "node_softnet_backlog_len", "Packets in the queue of the CPU"),
    row("udp_queues", "queues", Gauge, "node_udp_queues", "Bytes in the queues of UDP sockets"),
    row("arp", "entries", Gauge, "node_arp_entries", "Neighbors in the ARP table, by network interface"),
    row("bonding", "slaves", Gauge, "node_bonding_slaves", "Network interfaces that belong to the bond"),
    row("bonding", "active", Gauge, "node_bonding_active", "Network interfaces of the bond that have a link"),
    row("conntrack", "*", Gauge, "node_nf_conntrack_stat_*", "Field * of /proc/net/stat/nf_conntrack, the sum of all CPUs"),
    row("nfs", "packets", Counter, "node_nfs_packets", "Packets of the NFS client, by transport protocol"),
    row("nfs", "requests", Counter, "node_nfs_requests", "Requests of the NFS client, by version of NFS and method"),
    row("nfs", "*", Counter, "node_nfs_*", "Counter * of the NFS client"),
    row("nfsd", "packets", Counter, "node_nfsd_packets", "Packets of the NFS server, by transport protocol"),
    row("nfsd", "requests", Counter, "node_nfsd_requests", "Requests of the NFS server, by version of NFS and method"),
    row("nfsd", "rpc_errors", Counter, "node_nfsd_rpc_errors", "Invalid calls to the NFS server, by kind of error"),
    row("nfsd", "server_threads", Gauge, "node_nfsd_server_threads", "Threads of the NFS server"),
    row("nfsd", "read_ahead_cache_size_blocks", Gauge, "node_nfsd_read_ahead_cache_size_blocks", "Size of the read-ahead cache of the NFS server, in blocks"),
    row("nfsd", "*", Counter, "node_nfsd_*", "Counter * of the NFS server"),
    row("ipvs", "backend_*", Gauge, "node_ipvs_backend_*", "Figure * of the backend, by service and address"),
    row("ipvs", "*", Counter, "node_ipvs_*", "Counter * of the load balancer IPVS"),
    row("hwmon", "name", Gauge, "node_hwmon_chip_names", "Own name of the device with sensors"),
    row("hwmon", "label", Gauge, "node_hwmon_sensor_label", "Label of the sensor"),
    row("hwmon", "beep_enable", Gauge, "node_hwmon_beep_enabled", "Whether the device beeps for an alarm"),
    row("hwmon", "vrm", Gauge, "node_hwmon_voltage_regulator_version", "Version of the standard for the voltage of the processor"),
    row("hwmon", "update_interval", Gauge, "node_hwmon_update_interval_seconds", "Interval at which the device updates its values, in seconds"),
    row("hwmon", "*_beep", Gauge, "node_hwmon_*_beep_enabled", "Whether the device beeps for an alarm of the sensor"),
    row("hwmon", "temp_alarm", Gauge, "node_hwmon_temp_alarm", "Whether the sensor reports an alarm"),
    row("hwmon", "temp_fault", Gauge, "node_hwmon_temp_fault", "Whether the sensor is broken or not connected"),
    row("hwmon", "temp_type", Gauge, "node_hwmon_temp_type", "Type of the sensor, as a number of the kernel"),
    row("hwmon", "temp_input", Gauge, "node_hwmon_temp_celsius", "Temperature, in Celsius"),
    row("hwmon", "temp_*", Gauge, "node_hwmon_temp_*_celsius", "Temperature, in Celsius: *"),
    row("hwmon", "in_alarm", Gauge, "node_hwmon_in_alarm", "Whether the sensor reports an alarm"),
    row("hwmon", "in_fault", Gauge, "node_hwmon_in_fault", "Whether the sensor is broken or not connected"),
    row("hwmon", "in_input", Gauge, "node_hwmon_in_volts", "Voltage, in volts"),
    row("hwmon", "in_*", Gauge, "node_hwmon_in_*_volts", "Voltage, in volts: *"),
    row("hwmon", "cpu_alarm", Gauge, "node_hwmon_cpu_alarm", "Whether the sensor reports an alarm"),
    row("hwmon", "cpu_fault", Gauge, "node_hwmon_cpu_fault", "Whether the sensor is broken or not connected"),
    row("hwmon", "cpu_input", Gauge, "node_hwmon_cpu_volts", "Voltage of the processor, in volts"),
    row("hwmon", "cpu_*", Gauge, "node_hwmon_cpu_*_volts", "Voltage of the processor, in volts: *"),
    row("hwmon", "curr_alarm", Gauge, "node_hwmon_curr_alarm", "Whether the sensor reports an alarm"),
    row("hwmon", "curr_fault", Gauge, "node_hwmon_curr_fault", "Whether the sensor is broken or not connected"),
    row("hwmon", "curr_input", Gauge, "node_hwmon_curr_amps", "Current, in amperes"),
    row("hwmon", "curr_*", Gauge, "node_hwmon_curr_*_amps", "Current, in amperes: *"),
    row("hwmon", "energy_input", Counter, "node_hwmon_energy_joule", "Energy used, in joules"),
    row("hwmon", "energy_*", Counter, "node_hwmon_energy_*_joule", "Energy used, in joules: *"),
    row("hwmon", "power_alarm", Gauge, "node_hwmon_power_alarm", "Whether the sensor reports an alarm"),
    row("hwmon", "power_fault", Gauge, "node_hwmon_power_fault", "Whether the sensor is broken or not connected"),
    row("hwmon", "power_accuracy", Gauge, "node_hwmon_power_accuracy", "Accuracy of the sensor, as a ratio"),
    row("hwmon", "power_average_interval", Gauge, "node_hwmon_power_average_interval_seconds", "Time over which the average is taken, in seconds"),
    row("hwmon", "power_average_interval_*", Gauge, "node_hwmon_power_average_interval_*_seconds", "Time over which the average is taken, in seconds: *"),
    row("hwmon", "power_input", Gauge, "node_hwmon_power_watt", "Power, in watts"),
    row("hwmon", "power_*", Gauge, "node_hwmon_power_*_watt", "Power, in watts: *"),
    row("hwmon", "humidity_input", Gauge, "node_hwmon_humidity", "Humidity in the unit of node_exporter: multiplied by 1000, it is a percentage"),
    row("hwmon", "fan_input", Gauge, "node_hwmon_fan_rpm", "Speed of the fan, in revolutions per minute"),
    row("hwmon", "fan_min", Gauge, "node_hwmon_fan_min_rpm", "Speed of the fan, in revolutions per minute: min"),
    row("hwmon", "fan_max", Gauge, "node_hwmon_fan_max_rpm", "Speed of the fan, in revolutions per minute: max"),
    row("hwmon", "fan_target", Gauge, "node_hwmon_fan_target_rpm", "Speed of the fan, in revolutions per minute: target"),
    row("hwmon", "freq_input", Gauge, "node_hwmon_freq_freq_mhz", "Frequency, in MHz"),
    row("hwmon", "*", Gauge, "node_hwmon_*", "Value * of the sensor"),
    row("cpufreq", "cpuinfo_avg_freq", Gauge, "node_cpu_frequency_avg_hertz", "Average frequency of the core, in hertz"),
    row("cpufreq", "cpuinfo_max_freq", Gauge, "node_cpu_frequency_max_hertz", "Highest frequency of the core, in hertz"),
    row("cpufreq", "cpuinfo_min_freq", Gauge, "node_cpu_frequency_min_hertz", "Lowest frequency of the core, in hertz"),
    row("cpufreq", "scaling_max_freq", Gauge, "node_cpu_scaling_frequency_max_hertz", "Highest frequency that is allowed for the core, in hertz"),
    row("cpufreq", "scaling_min_freq", Gauge, "node_cpu_scaling_frequency_min_hertz", "Lowest frequency that is allowed for the core, in hertz"),
    row("cpufreq", "scaling_governor", Gauge, "node_cpu_scaling_governor", "Whether the governor decides on the frequency of the core"),
    row("edac", "ce_count", Counter, "node_edac_correctable_errors", "Correctable memory errors of the controller"),
    row("edac", "csrow_ce_count", Counter, "node_edac_csrow_correctable_errors", "Correctable memory errors of the row"),
    row("edac", "channel_ce_count", Counter, "node_edac_channel_correctable_errors", "Correctable memory errors of the channel"),
    row("edac", "ue_count", Counter, "node_edac_uncorrectable_errors", "Uncorrectable memory errors of the controller"),
    row("edac", "csrow_ue_count", Counter, "node_edac_csrow_uncorrectable_errors", "Uncorrectable memory errors of the row"),
    row("edac", "channel_ue_count", Counter, "node_edac_channel_uncorrectable_errors", "Uncorrectable memory errors of the channel"),
    row("mdadm", "raid_disks", Gauge, "node_md_raid_disks", "Disks of the complete array"),
    row("mdadm", "degraded", Gauge, "node_md_degraded", "Disks that the array lacks"),
    row("powersupplyclass", "cycle_count", Gauge, "node_power_supply_cyclecount", "Value cycle_count of the power supply"),
    row("powersupplyclass", "time_to_empty_now", Gauge, "node_power_supply_time_to_empty_seconds", "Value time_to_empty_now of the power supply"),
    row("powersupplyclass", "time_to_full_now", Gauge, "node_power_supply_time_to_full_seconds", "Value time_to_full_now of the power supply"),
    row("powersupplyclass", "charge_now", Gauge, "node_power_supply_charge_ampere", "Value charge_now of the power supply"),
    row("powersupplyclass", "current_now", Gauge, "node_power_supply_current_ampere", "Value current_now of the power supply"),
    row("powersupplyclass", "energy_now", Gauge, "node_power_supply_energy_watthour", "Value energy_now of the power supply"),
    row("powersupplyclass", "power_now", Gauge, "node_power_supply_power_watt", "Value power_now of the power supply"),
    row("powersupplyclass", "voltage_now", Gauge, "node_power_supply_voltage_volt", "Value voltage_now of the power supply"),
    row("powersupplyclass", "temp", Gauge, "node_power_supply_temp_celsius", "Value temp of the power supply"),
    row("powersupplyclass", "temp_*", Gauge, "node_power_supply_temp_*_celsius", "Value temp_* of the power supply"),
    row("powersupplyclass", "*", Gauge, "node_power_supply_*", "Value * of the power supply"),
    row("nvme", "ana_state", Gauge, "node_nvme_namespace_info", "State of the access to the namespace. The value is always 1"),
    row("nvme", "logical_block_size", Gauge, "node_nvme_namespace_logical_block_size_bytes", "Size of a block of the namespace, in bytes"),
    row("nvme", "size", Gauge, "node_nvme_namespace_size_bytes", "Size of the namespace, in bytes"),
    row("nvme", "capacity", Gauge, "node_nvme_namespace_capacity_bytes", "Size of the namespace, in bytes"),
    row("nvme", "nuse", Gauge, "node_nvme_namespace_used_bytes", "Used space of the namespace, in bytes"),
    row("rapl", "*", Counter, "node_rapl_*_joules", "Energy that the part * of the processor has used, in joules"),
    row("watchdog", "info", Gauge, "node_watchdog_info", "Properties and state of the watchdog. The value is always 1"),
    row("watchdog", "pretimeout", Gauge, "node_watchdog_pretimeout_seconds", "Value pretimeout of the watchdog, in seconds"),
    row("watchdog", "timeleft", Gauge, "node_watchdog_timeleft_seconds", "Value timeleft of the watchdog, in seconds"),
    row("watchdog", "timeout", Gauge, "node_watchdog_timeout_seconds", "Value timeout of the watchdog, in seconds"),
    row("watchdog", "*", Gauge, "node_watchdog_*", "Value * of the watchdog"),
    row("kernel_hung", "hung_task_detect_count", Counter, "node_kernel_hung_tasks", "Tasks that the kernel has found hung since the host booted"),
    row("zfs", "abdstats.*", Unknown, "node_zfs_abd_*", "Value * in the file abdstats of ZFS"),
    row("zfs", "arcstats.*", Unknown, "node_zfs_arc_*", "Value * in the file arcstats of ZFS"),
    row("zfs", "dbufstats.*", Unknown, "node_zfs_dbuf_*", "Value * in the file dbufstats of ZFS"),
    row("zfs", "dmu_tx.*", Unknown, "node_zfs_dmu_tx_*", "Value * in the file dmu_tx of ZFS"),
    row("zfs", "dnodestats.*", Unknown, "node_zfs_dnode_*", "Value * in the file dnodestats of ZFS"),
    row("zfs", "fm.*", Unknown, "node_zfs_fm_*", "Value * in the file fm of ZFS"),
    row("zfs", "vdev_cache_stats.*", Unknown, "node_zfs_vdev_cache_*", "Value * in the file vdev_cache_stats of ZFS"),
    row("zfs", "vdev_mirror_stats.*", Unknown, "node_zfs_vdev_mirror_*", "Value * in the file vdev_mirror_stats of ZFS"),
    row("zfs", "xuio_stats.*", Unknown, "node_zfs_xuio_*", "Value * in the file xuio_stats of ZFS"),
    row("zfs", "zfetchstats.*", Unknown, "node_zfs_zfetch_*", "Value * in the file zfetchstats of ZFS"),
    row("zfs", "zil.*", Unknown, "node_zfs_zil_*", "Value * in the file zil of ZFS"),
    row("zfs", "io.*", Unknown, "node_zfs_zpool_*", "Value * of the pool"),
    row("zfs", "objset.*", Unknown, "node_zfs_zpool_dataset_*", "Value * of the data set"),
    row("xfs", "*", Counter, "node_xfs_*", "Counter * of the XFS file system"),
    row("btrfs", "global_rsv_size", Gauge, "node_btrfs_global_rsv_size_bytes", "Space that the file system reserves for itself, in bytes"),
    row("btrfs", "commits", Counter, "node_btrfs_commits", "Commits"),
    row("btrfs", "last_commit", Gauge, "node_btrfs_last_commit_seconds", "Duration of the newest commit, in seconds"),
    row("btrfs", "max_commit", Gauge, "node_btrfs_max_commit_seconds", "Duration of the longest commit, in seconds"),
    row("btrfs", "total_commit", Counter, "node_btrfs_commit_seconds", "Duration of all commits, in seconds"),
    row("btrfs", "device_size", Gauge, "node_btrfs_device_size_bytes", "Size of the device, in bytes"),
    row("btrfs", "bytes_reserved", Gauge, "node_btrfs_reserved_bytes", "Space that is reserved, in bytes"),
    row("btrfs", "total_bytes", Gauge, "node_btrfs_size_bytes", "Allocated space, in bytes"),
    row("btrfs", "used_bytes", Gauge, "node_btrfs_used_bytes", "Used space, in bytes"),
    row("btrfs", "ratio", Gauge, "node_btrfs_allocation_ratio", "Bytes of devices for each byte of data"),
    row("tapestats", "in_flight", Gauge, "node_tape_io_now", "Requests that the tape drive has not finished"),
    row("tapestats", "io_time", Counter, "node_tape_io_time_seconds", "Time that all requests took, in seconds"),
    row("tapestats", "other_cnt", Counter, "node_tape_io_others", "Requests other than reads and writes"),
    row("tapestats", "read_byte_cnt", Counter, "node_tape_read_bytes", "Bytes read"),
    row("tapestats", "read_cnt", Counter, "node_tape_reads_completed", "Reads"),
    row("tapestats", "read_time", Counter, "node_tape_read_time_seconds", "Time that reads took, in seconds"),
    row("tapestats", "resid_cnt", Counter, "node_tape_residual", "Requests that did not transfer all bytes"),
    row("tapestats", "write_byte_cnt", Counter, "node_tape_written_bytes", "Bytes written"),
    row("tapestats", "write_cnt", Counter, "node_tape_writes_completed", "Writes"),
    row("tapestats", "write_time", Counter, "node_tape_write_time_seconds", "Time that writes took, in seconds"),
    row("fibrechannel", "info", Gauge, "node_fibrechannel_info", "Properties and state of the adapter. The value is always 1"),
    row("fibrechannel", "*", Counter, "node_fibrechannel_*", "Counter * of the adapter"),
    row("infiniband", "info", Gauge, "node_infiniband_info", "Properties of the adapter. The value is always 1"),
    row("infiniband", "*_id", Gauge, "node_infiniband_*_id", "Number of the *"),
    row("infiniband", "*_seconds", Gauge, "node_infiniband_*_seconds", "Value * of the port, in seconds"),
    row("infiniband", "rate_bytes_per_second", Gauge, "node_infiniband_rate_bytes_per_second", "Speed of the port, in bytes per second"),
    row("infiniband", "*", Counter, "node_infiniband_*", "Counter * of the port"),
    row("dmmultipath", "info", Gauge, "node_dmmultipath_device_info", "Names of the device. The value is always 1"),
    row("dmmultipath", "state", Gauge, "node_dmmultipath_path_state", "State of the path. The value is always 1"),
    row("dmmultipath", "active", Gauge, "node_dmmultipath_device_active", "Whether the device is active, and not suspended"),
    row("dmmultipath", "size", Gauge, "node_dmmultipath_device_size_bytes", "Size of the device, in bytes"),
    row("dmmultipath", "paths", Gauge, "node_dmmultipath_device_paths", "Paths of the device"),
    row("dmmultipath", "paths_active", Gauge, "node_dmmultipath_device_paths_active", "Paths that work"),
    row("dmmultipath", "paths_failed", Gauge, "node_dmmultipath_device_paths_failed", "Paths that do not work"),
    row("bcache", "average_key_size", Gauge, "node_bcache_average_key_size_sectors", "Average data of a key in the tree, in sectors"),
    row("bcache", "btree_cache_size", Gauge, "node_bcache_btree_cache_size_bytes", "Memory of the cache of the tree, in bytes"),
    row("bcache", "btree_read_average_duration", Gauge, "node_bcache_btree_read_average_duration_seconds", "Average duration of a read of the tree in the unit of node_exporter: multiplied by 1000, it is in seconds"),
    row("bcache", "cache_read_races", Counter, "node_bcache_cache_read_races", "Reads whose bucket was reused meanwhile"),
    row("bcache", "bypassed", Counter, "node_bcache_bypassed_bytes", "Reads and writes past the cache, in bytes"),
    row("bcache", "cache_hits", Counter, "node_bcache_cache_hits", "Requests that the cache answered"),
    row("bcache", "cache_misses", Counter, "node_bcache_cache_misses", "Requests that the cache did not answer"),
    row("bcache", "cache_bypass_hits", Counter, "node_bcache_cache_bypass_hits", "Requests meant to bypass the cache whose data was in the cache"),
    row("bcache", "cache_bypass_misses", Counter, "node_bcache_cache_bypass_misses", "Requests meant to bypass the cache whose data was not in the cache"),
    row("bcache", "cache_miss_collisions", Counter, "node_bcache_cache_miss_collisions", "Misses whose data was written meanwhile"),
    row("bcache", "cache_readaheads", Counter, "node_bcache_cache_readaheads", "Readaheads"),
    row("bcache", "dirty_data", Gauge, "node_bcache_dirty_data_bytes", "Data that the cache has not written back, in bytes"),
    row("bcache", "dirty_target", Gauge, "node_bcache_dirty_target_bytes", "Data that the cache aims to keep unwritten, in bytes"),
    row("bcache", "metadata_written", Counter, "node_bcache_metadata_written_bytes", "Metadata written to the cache, in bytes"),
    row("bcache", "written", Counter, "node_bcache_written_bytes", "Data written to the cache, in bytes"),
    row("bcache", "*", Gauge, "node_bcache_*", "Value * of bcache"),
    row("bcachefs", "info", Gauge, "node_bcachefs_info", "Number of the file system. The value is always 1"),
    row("bcachefs", "btree_cache_size", Gauge, "node_bcachefs_btree_cache_size_bytes", "Size of the cache of the B-trees, in bytes"),
    row("bcachefs", "compressed", Gauge, "node_bcachefs_compression_compressed_bytes", "Compressed size of the data, by algorithm, in bytes"),
    row("bcachefs", "uncompressed", Gauge, "node_bcachefs_compression_uncompressed_bytes", "Uncompressed size of the data, by algorithm, in bytes"),
    row("bcachefs", "errors", Counter, "node_bcachefs_errors", "Errors of the file system, by kind"),
    row("bcachefs", "btree_writes", Counter, "node_bcachefs_btree_writes", "Writes of the B-trees, by kind"),
    row("bcachefs", "btree_write_average_size", Gauge, "node_bcachefs_btree_write_average_size_bytes", "Average size of a write of the B-trees, by kind, in bytes"),
    row("bcachefs", "device_info", Gauge, "node_bcachefs_device_info", "Label and state of the device. The value is always 1"),
    row("bcachefs", "bucket_size", Gauge, "node_bcachefs_device_bucket_size_bytes", "Size of a bucket of the device, in bytes"),
    row("bcachefs", "nbuckets", Gauge, "node_bcachefs_device_buckets", "Buckets of the device"),
    row("bcachefs", "durability", Gauge, "node_bcachefs_device_durability", "As how many copies the data on the device counts"),
    row("bcachefs", "io_done", Counter, "node_bcachefs_device_io_done_bytes", "Bytes read and written, by operation and kind of data"),
    row("bcachefs", "io_errors", Counter, "node_bcachefs_device_io_errors", "I/O errors of the device, by kind"),
    row("bcachefs", "counters.*", Counter, "node_bcachefs_*", "Counter * of the file system, since it was created"),
    row("interrupts", "interrupts", Counter, "node_interrupts", "Interrupts, by CPU, kind and device"),
    row("softirqs", "functions", Counter, "node_softirqs_functions", "Software interrupts, by CPU and kind"),
    row("tcpstat", "connection_states", Gauge, "node_tcp_connection_states", "TCP sockets in each state, and the bytes in their queues"),
];

/// The rows of the table by the name of their family.
static BY_FAMILY: LazyLock<BTreeMap<&str, Vec<&KernelMetric>>> = LazyLock::new(|| {
    let mut by_family: BTreeMap<&str, Vec<&KernelMetric>> = BTreeMap::new();
    for row in TABLE {
        by_family.entry(row.family).or_default().push(row);
    }
    by_family
});

/// The names of the snapshot's metrics.
static IN_SNAPSHOT: LazyLock<HashSet<&str>> =
    LazyLock::new(|| super::families().map(|family| family.name).collect());

/// Returns all rows of the table.
#[cfg(test)]
pub(in crate::publish) fn rows() -> &'static [KernelMetric] {
    TABLE
}

/// Returns the names of all families in the table.
pub(in crate::publish) fn families() -> impl Iterator<Item = &'static str> {
    BY_FAMILY.keys().copied()
}

/// Whether a reading can have a metric with this name, which has no suffix `_total`.
pub(super) fn can_have(name: &str) -> bool {
    TABLE.iter().any(|row| stars(row.name, name).is_some())
}

/// A metric of a reading: its description, and its samples in all rows of the family.
pub(in crate::publish) struct KernelSamples<'k> {
    pub(in crate::publish) name: Cow<'static, str>,
    pub(in crate::publish) kind: MetricKind,
    pub(in crate::publish) help: Cow<'static, str>,
    /// The row of each sample, which has the labels, and the value.
    pub(in crate::publish) samples: Vec<(&'k KernelRow, f64)>,
}

/// Returns the metrics of the families of a reading that `is_wanted` accepts by name, and the names of the snapshot's metrics that they
/// replace. Leaves out metrics that the snapshot has.
pub(in crate::publish) fn metrics<'k>(
    kernel: &'k Kernel,
    is_wanted: impl Fn(&str) -> bool,
) -> (Vec<KernelSamples<'k>>, HashSet<String>) {
    let mut replaced = HashSet::new();
    let mut all: Vec<KernelSamples<'_>> = Vec::new();
    let wanted = kernel.families.iter();
    for family in wanted.filter(|family| is_wanted(family.name)) {
        // The place in `all` of each figure's metric. None for a figure that is left out.
        let mut places: HashMap<&str, Option<usize>> = HashMap::new();
        for row in &family.rows {
            for (field, value) in &row.figures {
                let place = *places.entry(field).or_insert_with(|| {
                    let metric = described(family.name, field)?;
                    if IN_SNAPSHOT.contains(&*metric.name) {
                        if !REPLACING.contains(&family.name) {
                            return None;
                        }
                        replaced.insert(metric.name.clone().into_owned());
                    }
                    all.push(metric);
                    Some(all.len() - 1)
                });
                if let Some(place) = place {
                    all[place].samples.push((row, *value));
                }
            }
        }
    }
    (all, replaced)
}

/// Returns the metric of a figure, without samples. None if the table does not have the figure.
fn described<'k>(family: &str, field: &str) -> Option<KernelSamples<'k>> {
    BY_FAMILY.get(family)?.iter().find_map(|row| {
        let text = stars(row.field, field)?;
        let fill = |pattern: &'static str, text: &str| match pattern.contains('*') {
            true => Cow::Owned(pattern.replace('*', text)),
            false => Cow::Borrowed(pattern),
        };
        Some(KernelSamples {
            name: fill(row.name, &name_part(text)),
            kind: row.kind,
            help: fill(row.help, text),
            samples: Vec::new(),
        })
    })
}

/// Returns the text for which the `*` of a pattern stands. Returns an empty text for a pattern without `*`. Returns none if the pattern
/// does not fit.
fn stars<'t>(pattern: &str, text: &'t str) -> Option<&'t str> {
    match pattern.split_once('*') {
        Some((before, after)) => text.strip_prefix(before)?.strip_suffix(after),
        None => (pattern == text).then_some(""),
    }
}

/// Converts a name of the kernel to a part of a metric's name, as node_exporter does: `Active(anon)` becomes `Active_anon`.
fn name_part(text: &str) -> String {
    let text = text.strip_suffix(')').unwrap_or(text);
    let valid = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' => character,
        _ => '_',
    };
    text.chars().map(valid).collect()
}

#[cfg(test)]
mod tests {
    use super::{name_part, stars};

    #[test]
    fn a_star_stands_for_any_text() {
        assert_eq!(stars("HugePages_*", "HugePages_Free"), Some("Free"));
        assert_eq!(stars("*", "Active(anon)"), Some("Active(anon)"));
        assert_eq!(stars("mtu", "mtu"), Some(""));
        assert_eq!(stars("mtu", "mtus"), None);
        assert_eq!(name_part("Active(anon)"), "Active_anon");
        assert_eq!(name_part("a.b-c"), "a_b_c");
    }
}
