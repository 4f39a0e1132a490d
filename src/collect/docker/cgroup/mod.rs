//! Reads a container's figures from the kernel. The figures are in the files of the container's control group, and in the table
//! of network interfaces of its first process. This module makes no call to the engine.

mod locate;
mod network;
mod parse;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use locate::{Groups, Mounts, locate};
use network::Network;

use super::proc_cgroup::{names, of_process};
use super::usage::{ContainerReading, CpuReading, Usage};
use crate::collect::pressure;
use crate::model::{BlockIo, Throttling};

/// Size of the parts in which the kernel returns the text of a file, in bytes.
const PAGE: usize = 4096;
/// Maximum number of open files for one container.
pub(super) const FILES_PER_CONTAINER: usize = 11;
/// Maximum age of the figures of an idle container.
const MAX_IDLE_AGE: Duration = Duration::from_secs(1);

/// The location of the kernel's files: the directory `/proc`, and the mounted control groups.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    proc: PathBuf,
    mounts: Mounts,
}

/// Why a container's figures cannot be read from the kernel.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    /// A file cannot be opened or read.
    #[error("{}: {source}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The agent cannot see the container's control group.
    #[error("its control group is not visible to the agent")]
    GroupNotVisible,
    /// The process with this id does not belong to the container. The kernel has reused the id, or the engine is on another host.
    #[error("its first process is not visible to the agent")]
    ProcessNotVisible,
    /// A file does not have the expected number.
    #[error("its {0} cannot be read")]
    Malformed(&'static str),
}

impl Kernel {
    /// Finds the mounted control groups in the file `self/mountinfo` below `proc`.
    pub(super) fn new(proc: &Path) -> Result<Self, KernelError> {
        let path = proc.join("self/mountinfo");
        let mounts = Mounts::parse(&read_text(&path)?);
        Ok(Self {
            proc: proc.to_owned(),
            mounts,
        })
    }

    /// Opens the files of the container `id`. The id of its first process is `pid`.
    pub(super) fn open(
        &self,
        id: &str,
        pid: u32,
        own_network: bool,
    ) -> Result<ContainerFiles, KernelError> {
        let cgroup = of_process(&self.proc, pid, "cgroup");
        let text = read_text(&cgroup)?;
        let groups = locate(&self.mounts, &text, id).ok_or(KernelError::GroupNotVisible)?;
        let network = own_network
            .then(|| open(&of_process(&self.proc, pid, "net/dev")))
            .transpose()?
            .filter(|table| !self.is_our_network(table))
            .map(|table| Network::new(table, &self.proc, pid));
        let files = ContainerFiles::open(&groups, network)?;
        // The kernel reuses process ids. The opened files belong to the container only if the process is still in the container's
        // group.
        if read_text(&cgroup).ok().as_ref() != Some(&text) || !names(&text, id) {
            return Err(KernelError::ProcessNotVisible);
        }
        Ok(files)
    }
}

impl Kernel {
    /// Whether a process has the same network as the agent, which is the host's network. One example is a container that shares
    /// the network of another container, if that network is the host's. Each network has its own file `net/dev`, so equal inodes
    /// mean the same network. The links in `/proc/<pid>/ns` would show the same, but only a privileged process can read these
    /// links.
    fn is_our_network(&self, table: &File) -> bool {
        let file = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let theirs = table.metadata().ok().map(file);
        let ours = fs::metadata(self.proc.join("self/net/dev")).ok().map(file);
        theirs.is_some() && theirs == ours
    }
}

/// The open files of one container. They stay the container's files even if the kernel reuses the id of its first process. When
/// the group is gone, reading fails. Reading never returns the numbers of another container.
#[derive(Debug)]
pub(super) struct ContainerFiles {
    files: GroupFiles,
    /// None for a container without a network of its own.
    network: Option<Network>,
}

#[derive(Debug)]
enum GroupFiles {
    V1(V1Files),
    V2(V2Files),
}

/// The files of cgroup v1. An optional file is none if the host does not have the file's controller.
#[derive(Debug)]
struct V1Files {
    cpu_usage: File,
    memory_usage: File,
    memory_stat: File,
    memory_limit: File,
    memory_kernel: Option<File>,
    oom_control: Option<File>,
    cpu_stat: Option<File>,
    pids: Option<File>,
    io_bytes: Option<File>,
    io_ops: Option<File>,
}

/// The files of cgroup v2.
#[derive(Debug)]
struct V2Files {
    cpu_stat: File,
    /// None if the group has no memory controller.
    memory: Option<V2Memory>,
    memory_events: Option<File>,
    pids: Option<File>,
    io_stat: Option<File>,
    /// The pressure files of CPU, memory and I/O. Some kernels do not have these files.
    pressure: [(&'static str, Option<File>); 3],
}

#[derive(Debug)]
struct V2Memory {
    current: File,
    stat: File,
    max: File,
}

impl V2Memory {
    fn open(group: &Path) -> Result<Option<Self>, KernelError> {
        let current = match open(&group.join("memory.current")) {
            Err(KernelError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            other => other?,
        };
        Ok(Some(Self {
            current,
            stat: open(&group.join("memory.stat"))?,
            max: open(&group.join("memory.max"))?,
        }))
    }
}

impl ContainerFiles {
    fn open(groups: &Groups, network: Option<Network>) -> Result<Self, KernelError> {
        let files = match groups {
            Groups::V1 {
                cpuacct,
                memory,
                cpu,
                pids,
                blkio,
            } => GroupFiles::V1(V1Files {
                cpu_usage: open(&cpuacct.join("cpuacct.usage"))?,
                memory_usage: open(&memory.join("memory.usage_in_bytes"))?,
                memory_stat: open(&memory.join("memory.stat"))?,
                memory_limit: open(&memory.join("memory.limit_in_bytes"))?,
                memory_kernel: open_optional(Some(memory), "memory.kmem.usage_in_bytes"),
                oom_control: open_optional(Some(memory), "memory.oom_control"),
                cpu_stat: open_optional(cpu.as_deref(), "cpu.stat"),
                pids: open_optional(pids.as_deref(), "pids.current"),
                io_bytes: open_optional(
                    blkio.as_deref(),
                    "blkio.throttle.io_service_bytes_recursive",
                ),
                io_ops: open_optional(blkio.as_deref(), "blkio.throttle.io_serviced_recursive"),
            }),
            Groups::V2(group) => GroupFiles::V2(V2Files {
                cpu_stat: open(&group.join("cpu.stat"))?,
                memory: V2Memory::open(group)?,
                memory_events: open_optional(Some(group), "memory.events"),
                pids: open_optional(Some(group), "pids.current"),
                io_stat: open_optional(Some(group), "io.stat"),
                pressure: ["cpu", "memory", "io"].map(|resource| {
                    let file = open_optional(Some(group), &format!("{resource}.pressure"));
                    (resource, file)
                }),
            }),
        };
        Ok(Self { files, network })
    }

    /// Reads all figures once, with their rates since `before`. `buffer` receives the texts of files, and the caller reuses it.
    /// `host_memory`, in bytes, is the memory limit of a container without its own limit.
    ///
    /// Most containers are idle most of the time. If the CPU time and the memory of a container have not changed, most of its
    /// files have not changed either. The first idle reading still reads all files. Later idle readings reuse the figures of the
    /// first idle reading while these figures are younger than [`MAX_IDLE_AGE`]. Older figures are not reused, because an idle
    /// container can still receive network traffic. If other containers share its network (`shares_network`), each reading reads
    /// all files, because the other containers can be busy.
    pub(super) fn read(
        &self,
        before: Option<&ContainerReading>,
        shares_network: bool,
        buffer: &mut Vec<u8>,
        host_memory: u64,
    ) -> Result<ContainerReading, KernelError> {
        let received = Instant::now();
        let (usage_ns, begun) = self.begin(buffer)?;
        let cpu = CpuReading {
            usage_ns,
            host_ns: None,
            cpus: 0,
            read_at: None,
            received: Some(received),
        };
        if let Some(before) = before
            && !shares_network
            && before.idle
            && before.cpu.usage_ns == usage_ns
            && before.usage.memory == begun.memory
            && is_valid_until_next(before, received)
        {
            return Ok(ContainerReading {
                cpu,
                ..before.clone()
            });
        }
        let mut usage = self.complete(begun, buffer)?;
        // A limit above the host's memory counts as no limit. The engine does the same.
        usage.memory_limit = usage.memory_limit.min(host_memory);
        if let Some(network) = &self.network {
            let table = need("network counters", bytes(&network.table, buffer))?;
            usage.network = Arc::new(network.interfaces(table));
        }
        Ok(ContainerReading::since(before, cpu, usage, Some(received)))
    }

    /// Reads the CPU time in nanoseconds, and the memory. These figures show whether the container was idle.
    fn begin(&self, buffer: &mut Vec<u8>) -> Result<(u64, Usage), KernelError> {
        match &self.files {
            GroupFiles::V1(files) => files.begin(buffer),
            GroupFiles::V2(files) => files.begin(buffer),
        }
    }

    /// Reads all other files of the group.
    fn complete(&self, begun: Usage, buffer: &mut Vec<u8>) -> Result<Usage, KernelError> {
        match &self.files {
            GroupFiles::V1(files) => files.complete(begun, buffer),
            GroupFiles::V2(files) => files.complete(begun, buffer),
        }
    }
}

/// Whether the previous figures stay fresh until the next reading. Assumes that the next interval is as long as the previous
/// interval.
fn is_valid_until_next(before: &ContainerReading, now: Instant) -> bool {
    let (Some(read_at), Some(last)) = (before.usage_at, before.cpu.received) else {
        return false;
    };
    let since = |at| now.saturating_duration_since(at);
    since(read_at) + since(last) < MAX_IDLE_AGE
}

impl V1Files {
    fn begin(&self, buffer: &mut Vec<u8>) -> Result<(u64, Usage), KernelError> {
        let usage_ns = text(&self.cpu_usage, buffer).and_then(parse::number);
        let memory = text(&self.memory_usage, buffer).and_then(parse::number);
        let usage = Usage {
            memory: Some(need("memory", memory)?),
            ..Usage::default()
        };
        Ok((need("CPU time", usage_ns)?, usage))
    }

    fn complete(&self, begun: Usage, buffer: &mut Vec<u8>) -> Result<Usage, KernelError> {
        let keys = ["total_inactive_file", "total_rss", "total_cache"];
        let stat = text(&self.memory_stat, buffer).map(|stat| parse::keyed_all(stat, keys));
        let [inactive_file, rss, cache] = stat.unwrap_or_default();
        let limit = text(&self.memory_limit, buffer).and_then(parse::number);
        Ok(Usage {
            inactive_file: need("memory statistics", inactive_file)?,
            memory_limit: limit.unwrap_or(u64::MAX),
            rss,
            cache,
            kernel: optional(&self.memory_kernel, buffer, parse::number),
            oom_kills: optional(&self.oom_control, buffer, |text| {
                parse::keyed(text, "oom_kill")
            }),
            pids: optional(&self.pids, buffer, parse::number),
            block_io: self.block_io(buffer),
            throttling: optional(&self.cpu_stat, buffer, |stat| {
                throttling(stat, "throttled_time", 1)
            }),
            ..begun
        })
    }

    fn block_io(&self, buffer: &mut Vec<u8>) -> Option<BlockIo> {
        let sums = |text: &str| Some(parse::blkio(text));
        let (read_bytes, write_bytes) = optional(&self.io_bytes, buffer, sums)?;
        let (read_ops, write_ops) = optional(&self.io_ops, buffer, sums)?;
        Some(BlockIo {
            read_bytes,
            write_bytes,
            read_ops: Some(read_ops),
            write_ops: Some(write_ops),
            ..BlockIo::default()
        })
    }
}

impl V2Files {
    fn begin(&self, buffer: &mut Vec<u8>) -> Result<(u64, Usage), KernelError> {
        let stat = need("CPU time", text(&self.cpu_stat, buffer))?;
        let usage_us = need("CPU time", parse::keyed(stat, "usage_usec"))?;
        let throttling = throttling(stat, "throttled_usec", 1000);
        let memory = self.memory.as_ref().map(|memory| {
            let memory = text(&memory.current, buffer).and_then(parse::number);
            need("memory", memory)
        });
        let usage = Usage {
            memory: memory.transpose()?,
            throttling,
            ..Usage::default()
        };
        Ok((usage_us.saturating_mul(1000), usage))
    }

    fn complete(&self, begun: Usage, buffer: &mut Vec<u8>) -> Result<Usage, KernelError> {
        let keys = ["inactive_file", "anon", "file", "kernel"];
        // If the kernel does not count memory, the inactive file cache is 0.
        let (mut stat, mut limit) = ([Some(0), None, None, None], None);
        if let Some(memory) = &self.memory {
            let text_of_stat = text(&memory.stat, buffer);
            stat = text_of_stat.map_or_else(Default::default, |stat| parse::keyed_all(stat, keys));
            limit = text(&memory.max, buffer).and_then(parse::number);
        }
        let [inactive_file, rss, cache, kernel] = stat;
        Ok(Usage {
            inactive_file: need("memory statistics", inactive_file)?,
            memory_limit: limit.unwrap_or(u64::MAX),
            rss,
            cache,
            kernel,
            oom_kills: optional(&self.memory_events, buffer, |text| {
                parse::keyed(text, "oom_kill")
            }),
            pressure: pressure::of_each(|resource| {
                let (_, file) = self.pressure.iter().find(|(one, _)| *one == resource)?;
                optional(file, buffer, pressure::parse)
            }),
            pids: optional(&self.pids, buffer, parse::number),
            block_io: optional(&self.io_stat, buffer, |stat| Some(parse::io_stat(stat))),
            ..begun
        })
    }
}

/// Reads the throttling figures from `cpu.stat`. `nanoseconds` is the unit of the throttled time: 1 for v1, and 1000 for v2.
fn throttling(stat: &str, time_key: &str, nanoseconds: u64) -> Option<Throttling> {
    Some(Throttling {
        periods: parse::keyed(stat, "nr_periods")?,
        throttled_periods: parse::keyed(stat, "nr_throttled")?,
        throttled_ns: parse::keyed(stat, time_key)?.saturating_mul(nanoseconds),
    })
}

fn open(path: &Path) -> Result<File, KernelError> {
    File::open(path).map_err(|source| KernelError::File {
        path: path.to_owned(),
        source,
    })
}

fn open_optional(directory: Option<&Path>, file: &str) -> Option<File> {
    File::open(directory?.join(file)).ok()
}

/// Reads an optional file and parses it with `parse`. None if the host does not have the file.
fn optional<T>(
    file: &Option<File>,
    buffer: &mut Vec<u8>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    text(file.as_ref()?, buffer).and_then(parse)
}

fn read_text(path: &Path) -> Result<String, KernelError> {
    fs::read_to_string(path).map_err(|source| KernelError::File {
        path: path.to_owned(),
        source,
    })
}

fn need<T>(what: &'static str, value: Option<T>) -> Result<T, KernelError> {
    value.ok_or(KernelError::Malformed(what))
}

/// Reads the current text of a file into `buffer`. None if the file cannot be read, or if the text is not UTF-8.
fn text<'a>(file: &File, buffer: &'a mut Vec<u8>) -> Option<&'a str> {
    std::str::from_utf8(bytes(file, buffer)?).ok()
}

/// Reads the current bytes of a file into `buffer`. None if the file cannot be read.
fn bytes<'a>(file: &File, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
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

#[cfg(test)]
mod tests;
