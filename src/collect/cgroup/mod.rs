//! Reads the figures of a control group from the kernel's files, with cgroup v1 and v2. A control group belongs to a container or
//! to a unit of systemd.
//!
//! The files of a group have two parts. [`ActivityFiles`] show whether the group was active: CPU time and memory.
//! [`DetailFiles`] have all other figures. The figures of an inactive group do not change, so the details of such a group need
//! not be read again.

mod locate;
mod parse;
mod usage;

pub(super) use locate::{Groups, Mounts, locate, path_of};
pub(super) use parse::keyed;
pub(super) use usage::Usage;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::pressure;
use crate::model::{BlockIo, Throttling};

/// Size of the parts in which the kernel returns the text of a file, in bytes.
const PAGE: usize = 4096;
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
    throttling: Option<Throttling>,
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
                throttling: None,
            }),
            Self::V2 {
                cpu_stat,
                memory_current,
            } => {
                let memory = number(memory_current, "memory")?;
                let stat = need("CPU time", text(cpu_stat, buffer))?;
                let usage_us = need("CPU time", keyed(stat, "usage_usec"))?;
                Ok(Activity {
                    cpu_ns: Some(usage_us.saturating_mul(1000)),
                    memory,
                    throttling: throttling(stat, "throttled_usec", 1000),
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
    version: DetailsByVersion,
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
    /// Opens the files. `with_memory_types` says whether the memory by type and the memory limit are wanted. The kernel needs
    /// more time for these figures than for all others together.
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

    /// Reads all figures. `activity` is the reading of [`ActivityFiles`] in the same round.
    pub(super) fn read(
        &self,
        activity: &Activity,
        buffer: &mut Vec<u8>,
    ) -> Result<Usage, GroupError> {
        let mut usage = Usage {
            memory: activity.memory,
            throttling: activity.throttling,
            memory_limit: u64::MAX,
            ..Usage::default()
        };
        if let Some(MemoryFiles { stat, limit }) = &self.memory {
            let keys = match self.version {
                DetailsByVersion::V1 { .. } => {
                    ["total_inactive_file", "total_rss", "total_cache", ""]
                }
                DetailsByVersion::V2 { .. } => ["inactive_file", "anon", "file", "kernel"],
            };
            let stat = text(stat, buffer).map(|stat| parse::keyed_all(stat, keys));
            let [inactive_file, rss, cache, kernel] = stat.unwrap_or_default();
            usage.inactive_file = need("memory statistics", inactive_file)?;
            (usage.rss, usage.cache, usage.kernel) = (rss, cache, kernel);
            let limit = text(limit, buffer).and_then(parse::number);
            usage.memory_limit = limit.unwrap_or(u64::MAX);
        }
        usage.pids = optional(&self.pids, buffer, parse::number);
        let oom_kills = |text: &str| keyed(text, "oom_kill");
        match &self.version {
            DetailsByVersion::V1 {
                memory_kernel,
                oom_control,
                cpu_stat,
                io_bytes,
                io_ops,
            } => {
                usage.kernel = optional(memory_kernel, buffer, parse::number);
                usage.oom_kills = optional(oom_control, buffer, oom_kills);
                usage.throttling = optional(cpu_stat, buffer, |stat| {
                    throttling(stat, "throttled_time", 1)
                });
                usage.block_io = block_io_v1(io_bytes, io_ops, buffer);
            }
            DetailsByVersion::V2 {
                memory_events,
                io_stat,
                pressure: files,
            } => {
                usage.oom_kills = optional(memory_events, buffer, oom_kills);
                usage.pressure = pressure::of_each(|resource| {
                    let (_, file) = files.iter().find(|(one, _)| *one == resource)?;
                    optional(file, buffer, pressure::parse)
                });
                usage.block_io = optional(io_stat, buffer, |stat| Some(parse::io_stat(stat)));
            }
        }
        Ok(usage)
    }
}

fn block_io_v1(
    io_bytes: &Option<File>,
    io_ops: &Option<File>,
    buffer: &mut Vec<u8>,
) -> Option<BlockIo> {
    let sums = |text: &str| Some(parse::blkio(text));
    let (read_bytes, write_bytes) = optional(io_bytes, buffer, sums)?;
    let (read_ops, write_ops) = optional(io_ops, buffer, sums)?;
    Some(BlockIo {
        read_bytes,
        write_bytes,
        read_ops: Some(read_ops),
        write_ops: Some(write_ops),
        ..BlockIo::default()
    })
}

/// Reads the throttling figures from `cpu.stat`. `nanoseconds` is the unit of the throttled time: 1 for v1, and 1000 for v2.
fn throttling(stat: &str, time_key: &str, nanoseconds: u64) -> Option<Throttling> {
    Some(Throttling {
        periods: keyed(stat, "nr_periods")?,
        throttled_periods: keyed(stat, "nr_throttled")?,
        throttled_ns: keyed(stat, time_key)?.saturating_mul(nanoseconds),
    })
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

/// Reads the current text of a file into `buffer`. None if the file cannot be read, or if the text is not UTF-8.
fn text<'a>(file: &File, buffer: &'a mut Vec<u8>) -> Option<&'a str> {
    std::str::from_utf8(read_all(file, buffer)?).ok()
}

/// Reads the current bytes of a file of the kernel into `buffer`. None if the file cannot be read.
pub(super) fn read_all<'a>(file: &File, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if buffer.is_empty() {
        buffer.resize(4 * PAGE, 0);
    }
    let mut length = 0;
    loop {
        match file.read_at(&mut buffer[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => {
                length += read;
                // The kernel returns a file in pages. It fills each page except for at most one line. So a much shorter answer is
                // the end of the file, and one system call is saved.
                if read < PAGE * 3 / 4 && length < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        if length == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
    }
    Some(&buffer[..length])
}
