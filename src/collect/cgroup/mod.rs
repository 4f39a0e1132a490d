//! Reads the figures of a control group from the kernel's files, with cgroup v1 and v2. A control group belongs to a container or
//! to a unit of systemd.
//!
//! The files of a group have two parts. [`ActivityFiles`] show whether the group was active: CPU time and memory.
//! [`DetailFiles`] have all other figures. The figures of an inactive group do not change, so the details of such a group need
//! not be read again.

mod locate;
mod parse;
mod usage;

pub(super) use locate::{Groups, Mounts, group_path, locate, path_of};
pub(super) use parse::keyed;
use parse::{Devices, IoFigure};
pub(super) use usage::Usage;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;

use super::kernel_file::text;
use super::pressure;
use crate::model::{BlockIo, ExactContainer, Throttling};

/// Maximum number of files of one group: two of [`ActivityFiles`], and at most eight of [`DetailFiles`].
pub(super) const FILES_PER_GROUP: usize = 10;
/// Number of files of [`ActivityFiles`].
pub(super) const ACTIVITY_FILES: usize = 2;

/// Why the figures of a control group cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupError {
    /// A file cannot be opened or read.
    #[error("{}: {source}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file does not have the expected number.
    #[error("its {0} cannot be read")]
    Malformed(&'static str),
}

/// The open files that show whether a group was active. They stay the group's files. When the group is gone, reading fails, even
/// if a new group has the same path.
#[derive(Debug)]
pub(super) enum ActivityFiles {
    /// A file is none if the group does not have the file's controller.
    V1 {
        cpu_usage: Option<File>,
        memory_usage: Option<File>,
    },
    V2 {
        cpu_stat: File,
        /// None if the group has no memory controller.
        memory_current: Option<File>,
    },
}

/// The figures of [`ActivityFiles`].
#[derive(Debug, Default, PartialEq)]
pub(super) struct Activity {
    /// The group's CPU time so far, in nanoseconds. None if the group has no CPU controller.
    pub(super) cpu_ns: Option<u64>,
    /// Memory in bytes, including caches. None if the group has no memory controller.
    pub(super) memory: Option<u64>,
    /// Only with cgroup v2. With v1, it is one of the details.
    cpu_stat: CpuStat,
}

/// The figures of `cpu.stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct CpuStat {
    /// CPU time, in microseconds. These three are none with cgroup v1.
    usage_us: Option<u64>,
    user_us: Option<u64>,
    system_us: Option<u64>,
    periods: Option<u64>,
    throttled_periods: Option<u64>,
    /// In nanoseconds with cgroup v1, and in microseconds with v2. The same is true of `burst_time`.
    throttled_time: Option<u64>,
    bursts: Option<u64>,
    burst_time: Option<u64>,
}

impl CpuStat {
    fn parse(text: &str) -> Self {
        let mut stat = Self::default();
        parse::keyed_all!(text, {
            "usage_usec" => stat.usage_us,
            "user_usec" => stat.user_us,
            "system_usec" => stat.system_us,
            "nr_periods" => stat.periods,
            "nr_throttled" => stat.throttled_periods,
            "throttled_usec" | "throttled_time" => stat.throttled_time,
            "nr_bursts" => stat.bursts,
            "burst_usec" | "burst_time" => stat.burst_time,
        });
        stat
    }

    /// Returns the throttling figures. `nanoseconds` is the unit of the times: 1 for v1, and 1000 for v2.
    fn throttling(&self, nanoseconds: u64) -> Option<Throttling> {
        Some(Throttling {
            periods: self.periods?,
            throttled_periods: self.throttled_periods?,
            throttled_ns: self.throttled_time?.saturating_mul(nanoseconds),
        })
    }

    /// Returns how often the group used more than its limit, and for how many nanoseconds.
    fn bursts(&self, nanoseconds: u64) -> Option<(u64, u64)> {
        Some((self.bursts?, self.burst_time?.saturating_mul(nanoseconds)))
    }

    /// Returns the CPU time in programs and in the kernel, in nanoseconds.
    fn modes_ns(&self) -> Option<(u64, u64)> {
        let nanoseconds = |time: u64| time.saturating_mul(1000);
        Some((nanoseconds(self.user_us?), nanoseconds(self.system_us?)))
    }
}

impl ActivityFiles {
    /// Opens the files.
    pub(super) fn open(groups: &Groups) -> Result<Self, GroupError> {
        let in_group = |directory: &Option<PathBuf>, file| {
            let directory = directory.as_deref();
            directory
                .map(|directory| open(&directory.join(file)))
                .transpose()
        };
        Ok(match groups {
            Groups::V1 {
                cpuacct, memory, ..
            } => Self::V1 {
                cpu_usage: in_group(cpuacct, "cpuacct.usage")?,
                memory_usage: in_group(memory, "memory.usage_in_bytes")?,
            },
            Groups::V2(group) => Self::V2 {
                cpu_stat: open(&group.join("cpu.stat"))?,
                memory_current: open_if_exists(&group.join("memory.current"))?,
            },
        })
    }

    /// Reads the figures. `buffer` receives the texts of files, and the caller reuses it.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> Result<Activity, GroupError> {
        let mut number = |file: &Option<File>, what| {
            let Some(file) = file else { return Ok(None) };
            let number = text(file, buffer).and_then(parse::number);
            need(what, number).map(Some)
        };
        match self {
            Self::V1 {
                cpu_usage,
                memory_usage,
            } => Ok(Activity {
                cpu_ns: number(cpu_usage, "CPU time")?,
                memory: number(memory_usage, "memory")?,
                cpu_stat: CpuStat::default(),
            }),
            Self::V2 {
                cpu_stat,
                memory_current,
            } => {
                let memory = number(memory_current, "memory")?;
                let stat = need("CPU time", text(cpu_stat, buffer))?;
                let cpu_stat = CpuStat::parse(stat);
                let usage_us = need("CPU time", cpu_stat.usage_us)?;
                Ok(Activity {
                    cpu_ns: Some(usage_us.saturating_mul(1000)),
                    memory,
                    cpu_stat,
                })
            }
        }
    }
}

/// The open files with all other figures of a group. An optional file is none if the group does not have the file's controller.
#[derive(Debug)]
pub(super) struct DetailFiles {
    /// None if the group has no memory controller, or if the memory by type is not wanted.
    memory: Option<MemoryFiles>,
    pids: Option<File>,
    /// Whether the figures of each device and further counters are wanted.
    is_exact: bool,
    version: DetailsByVersion,
}

/// The figures of an earlier reading that change rarely: the memory limit, and with cgroup v1 also the OOM kills, the throttling
/// if there is no CPU limit, and the number of I/O operations if no bytes were read or written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rare<'u> {
    pub(super) usage: &'u Usage,
    /// Whether the kernel has killed no process of the host for lack of memory since then.
    pub(super) has_no_oom_kills: bool,
}

impl Rare<'_> {
    /// Whether the kernel has counted no periods. It counts them only for a group with a CPU limit.
    fn has_no_periods(&self) -> bool {
        self.usage.throttling.is_some_and(|one| one.periods == 0)
    }

    /// Whether the counters of bytes had these values at the earlier reading.
    fn has_same_bytes(&self, (read, written): (u64, u64)) -> bool {
        let io = self.usage.block_io;
        io.is_some_and(|io| (io.read_bytes, io.write_bytes) == (read, written))
    }
}

/// The memory by type, and the memory limit.
#[derive(Debug)]
struct MemoryFiles {
    stat: File,
    limit: File,
}

#[derive(Debug)]
enum DetailsByVersion {
    V1 {
        memory_kernel: Option<File>,
        oom_control: Option<File>,
        cpu_stat: Option<File>,
        io_bytes: Option<File>,
        io_ops: Option<File>,
    },
    V2 {
        memory_events: Option<File>,
        io_stat: Option<File>,
        /// The pressure files of CPU, memory and I/O. Some kernels do not have these files.
        pressure: [(&'static str, Option<File>); 3],
    },
}

impl DetailFiles {
    /// Opens the files. `with_memory_types` says whether the memory by type, the memory limit and [`Usage::exact`] are wanted. The
    /// kernel needs more time for the memory by type than for all others together.
    pub(super) fn open(groups: &Groups, with_memory_types: bool) -> Result<Self, GroupError> {
        let memory = |directory: &Path, limit| {
            Ok(MemoryFiles {
                stat: open(&directory.join("memory.stat"))?,
                limit: open(&directory.join(limit))?,
            })
        };
        match groups {
            Groups::V1 {
                memory: directory,
                cpu,
                pids,
                blkio,
                ..
            } => {
                let types = directory.as_deref().filter(|_| with_memory_types);
                let memory = types.map(|directory| memory(directory, "memory.limit_in_bytes"));
                let optional = |directory: &Option<PathBuf>, file| {
                    File::open(directory.as_deref()?.join(file)).ok()
                };
                Ok(Self {
                    memory: memory.transpose()?,
                    is_exact: with_memory_types,
                    pids: optional(pids, "pids.current"),
                    version: DetailsByVersion::V1 {
                        memory_kernel: types.and_then(|directory| {
                            File::open(directory.join("memory.kmem.usage_in_bytes")).ok()
                        }),
                        oom_control: optional(directory, "memory.oom_control"),
                        cpu_stat: optional(cpu, "cpu.stat"),
                        io_bytes: optional(blkio, "blkio.throttle.io_service_bytes_recursive"),
                        io_ops: optional(blkio, "blkio.throttle.io_serviced_recursive"),
                    },
                })
            }
            Groups::V2(group) => {
                let has_memory = with_memory_types && group.join("memory.current").exists();
                let memory = has_memory.then(|| memory(group, "memory.max"));
                let optional = |file: &str| File::open(group.join(file)).ok();
                Ok(Self {
                    memory: memory.transpose()?,
                    is_exact: with_memory_types,
                    pids: optional("pids.current"),
                    version: DetailsByVersion::V2 {
                        memory_events: optional("memory.events"),
                        io_stat: optional("io.stat"),
                        pressure: ["cpu", "memory", "io"]
                            .map(|resource| (resource, optional(&format!("{resource}.pressure")))),
                    },
                })
            }
        }
    }

    /// Reads all figures. `activity` is the reading of [`ActivityFiles`] in the same round. Figures that change rarely are reused from
    /// `rare`, or are read if it is none.
    pub(super) fn read(
        &self,
        activity: &Activity,
        rare: Option<&Rare<'_>>,
        buffer: &mut Vec<u8>,
    ) -> Result<Usage, GroupError> {
        let mut usage = Usage {
            memory: activity.memory,
            memory_limit: u64::MAX,
            ..Usage::default()
        };
        let mut exact = ExactContainer::default();
        if let Some(MemoryFiles { stat, limit }) = &self.memory {
            let stat = need("memory statistics", text(stat, buffer))?;
            match self.version {
                DetailsByVersion::V1 { .. } => memory_stat_v1(stat, &mut usage, &mut exact),
                DetailsByVersion::V2 { .. } => memory_stat_v2(stat, &mut usage, &mut exact),
            }
            usage.inactive_file = need("memory statistics", exact.inactive_file)?;
            usage.memory_limit = match rare {
                Some(rare) => rare.usage.memory_limit,
                None => {
                    let limit = text(limit, buffer).and_then(parse::number);
                    limit.unwrap_or(u64::MAX)
                }
            };
        }
        let mut devices = Devices::default();
        let mut each = |device: &str, figure, value| {
            if self.is_exact {
                devices.set(device, figure, value);
            }
        };
        usage.pids = optional(&self.pids, buffer, parse::number);
        match &self.version {
            DetailsByVersion::V1 {
                memory_kernel,
                oom_control,
                cpu_stat,
                io_bytes,
                io_ops,
            } => {
                usage.kernel = optional(memory_kernel, buffer, parse::number);
                usage.oom_kills = match rare.filter(|rare| rare.has_no_oom_kills) {
                    Some(rare) => rare.usage.oom_kills,
                    None => optional(oom_control, buffer, |text| keyed(text, "oom_kill")),
                };
                match rare.filter(|rare| rare.has_no_periods()) {
                    Some(Rare { usage: known, .. }) => {
                        usage.throttling = known.throttling;
                        exact.bursts = known.exact.bursts;
                    }
                    None => {
                        let cpu_stat =
                            optional(cpu_stat, buffer, |stat| Some(CpuStat::parse(stat)));
                        let cpu_stat = cpu_stat.unwrap_or_default();
                        usage.throttling = cpu_stat.throttling(1);
                        exact.bursts = cpu_stat.bursts(1);
                    }
                }
                let figures = [IoFigure::ReadBytes, IoFigure::WriteBytes];
                let sums = |text: &str| Some(parse::blkio(text, figures, &mut each));
                let bytes = optional(io_bytes, buffer, sums);
                let same =
                    rare.filter(|rare| bytes.is_some_and(|bytes| rare.has_same_bytes(bytes)));
                let ops = match same {
                    // The kernel has both files or none.
                    _ if bytes.is_none() => None,
                    Some(Rare { usage: known, .. }) => {
                        devices.0.clone_from(&known.exact.devices);
                        known.block_io.and_then(|io| io.read_ops.zip(io.write_ops))
                    }
                    None => {
                        let figures = [IoFigure::ReadOps, IoFigure::WriteOps];
                        let sums = |text: &str| Some(parse::blkio(text, figures, &mut each));
                        optional(io_ops, buffer, sums)
                    }
                };
                usage.block_io = bytes.zip(ops).map(|(bytes, ops)| BlockIo {
                    read_bytes: bytes.0,
                    write_bytes: bytes.1,
                    read_ops: Some(ops.0),
                    write_ops: Some(ops.1),
                    ..BlockIo::default()
                });
            }
            DetailsByVersion::V2 {
                memory_events,
                io_stat,
                pressure: files,
            } => {
                usage.throttling = activity.cpu_stat.throttling(1000);
                exact.bursts = activity.cpu_stat.bursts(1000);
                exact.cpu_modes_ns = activity.cpu_stat.modes_ns();
                optional(memory_events, buffer, |events| {
                    parse::keyed_all!(events, {
                        "oom_kill" => usage.oom_kills,
                        "high" => exact.high_events,
                        "max" => exact.max_events,
                    });
                    Some(())
                });
                usage.pressure = pressure::of_each(|resource| {
                    let (_, file) = files.iter().find(|(one, _)| *one == resource)?;
                    optional(file, buffer, pressure::parse)
                });
                usage.block_io = optional(io_stat, buffer, |stat| {
                    Some(parse::io_stat(stat, &mut each))
                });
            }
        }
        if self.is_exact {
            exact.devices = devices.0;
            usage.exact = Arc::new(exact);
        }
        Ok(usage)
    }
}

/// Reads `memory.stat` of cgroup v1. The figures whose names begin with `total_` include the groups below. The kernel writes them after the
/// figures of the group alone, which are about half of the lines. So those are skipped.
fn memory_stat_v1(stat: &str, usage: &mut Usage, exact: &mut ExactContainer) {
    let totals = match stat.starts_with("total_") {
        true => None,
        false => memmem::find(stat.as_bytes(), b"\ntotal_"),
    };
    parse::keyed_all!(&stat[totals.unwrap_or(0)..], {
        "total_inactive_file" => exact.inactive_file,
        "total_active_file" => exact.active_file,
        "total_rss" => usage.rss,
        "total_cache" => usage.cache,
        "total_mapped_file" => exact.mapped_file,
        "total_swap" => exact.swap,
        "total_pgfault" => exact.page_faults,
        "total_pgmajfault" => exact.major_page_faults,
        "total_dirty" => exact.file_dirty,
        "total_writeback" => exact.file_writeback,
        "total_workingset_refault_file" => exact.refaults_file,
        "total_workingset_refault_anon" => exact.refaults_anon,
    });
}

/// Reads `memory.stat` of cgroup v2.
fn memory_stat_v2(stat: &str, usage: &mut Usage, exact: &mut ExactContainer) {
    parse::keyed_all!(stat, {
        "anon" => usage.rss,
        "file" => usage.cache,
        "kernel" => usage.kernel,
        "inactive_file" => exact.inactive_file,
        "active_file" => exact.active_file,
        "file_mapped" => exact.mapped_file,
        "file_dirty" => exact.file_dirty,
        "file_writeback" => exact.file_writeback,
        "pgfault" => exact.page_faults,
        "pgmajfault" => exact.major_page_faults,
        "pgscan" => exact.pages_scanned,
        "pgsteal" => exact.pages_reclaimed,
        "workingset_refault_file" => exact.refaults_file,
        "workingset_refault_anon" => exact.refaults_anon,
    });
}

fn open(path: &Path) -> Result<File, GroupError> {
    File::open(path).map_err(|source| GroupError::File {
        path: path.to_owned(),
        source,
    })
}

fn open_if_exists(path: &Path) -> Result<Option<File>, GroupError> {
    match open(path) {
        Err(GroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Reads an optional file and parses it with `parse`. None if the host does not have the file.
fn optional<T>(
    file: &Option<File>,
    buffer: &mut Vec<u8>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    text(file.as_ref()?, buffer).and_then(parse)
}

/// Returns the value, or an error if a file that must have the value `what` does not have it.
pub(super) fn need<T>(what: &'static str, value: Option<T>) -> Result<T, GroupError> {
    value.ok_or(GroupError::Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::{ExactContainer, Usage, memory_stat_v1};

    #[test]
    fn the_totals_of_memory_are_found_wherever_they_begin() {
        let read = |stat: &str| {
            let (mut usage, mut exact) = (Usage::default(), ExactContainer::default());
            memory_stat_v1(stat, &mut usage, &mut exact);
            (usage.cache, usage.rss, exact.inactive_file)
        };
        let own = "cache 1\nrss 2\ninactive_file 3\n";
        let totals = "total_cache 10\ntotal_rss 20\ntotal_inactive_file 30\n";
        let expected = (Some(10), Some(20), Some(30));
        assert_eq!(read(totals), expected);
        assert_eq!(read(&format!("{own}{totals}")), expected);
        assert_eq!(read(&format!("{own}{totals}anon_cost 40\n")), expected);
        assert_eq!(read(own), (None, None, None));
        assert_eq!(read(""), (None, None, None));
    }
}
