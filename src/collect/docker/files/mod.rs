//! Reads a container's figures from the kernel. The figures are in the files of the container's control group, and in the table
//! of network interfaces of its first process. This module makes no call to the engine.

mod host_ends;
mod network;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use host_ends::HostEnds;
use network::{Network, has_traffic};

use super::proc_cgroup::{names, of_process};
use super::usage::{ContainerReading, CpuReading};
use crate::collect::cgroup::{
    ActivityFiles, DetailFiles, FILES_PER_GROUP, GroupError, Mounts, Rare, group_path, locate, need,
};
use crate::collect::kernel_file::read_all;
use crate::model::{ControlGroup, Interfaces};

/// Maximum number of open files for one container.
pub(super) const FILES_PER_CONTAINER: usize = FILES_PER_GROUP + 1;
/// Maximum age of the network traffic of an idle container.
const MAX_IDLE_AGE: Duration = Duration::from_secs(1);
/// Maximum age of the other figures of an idle container, except CPU time and memory with its cache, which are read each time. Also the
/// maximum age of the figures of [`Rare`].
const MAX_DETAILS_AGE: Duration = Duration::from_secs(15);

/// Maximum age of the network traffic of a container while the counters of the host's ends of its interfaces stay the same. The container's
/// ends can have dropped packets.
const MAX_UNCHANGED_AGE: Duration = Duration::from_mins(1);

/// The location of the kernel's files: the directory `/proc`, and the mounted control groups.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    proc: PathBuf,
    mounts: Mounts,
}

/// The figures of the host that the readings of containers need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host<'e> {
    /// Memory in bytes. This is the memory limit of a container without its own limit.
    pub(super) memory: u64,
    /// How many processes the kernel has killed for lack of memory since boot. None if the kernel does not report it,
    /// or if [`ContainerFiles::needs_oom_kills`] is false for all containers.
    pub(super) oom_kills: Option<u64>,
    /// The network interfaces. None for a container whose files do not stay open.
    pub(super) ends: Option<&'e HostEnds>,
}

/// Why a container's figures cannot be read from the kernel.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelError {
    /// A file cannot be read.
    #[error(transparent)]
    Files(#[from] GroupError),
    /// The agent cannot see the container's control group.
    #[error("its control group is not visible to the agent")]
    GroupNotVisible,
    /// The process with this id does not belong to the container. The kernel has reused the id, or the engine is on another host.
    #[error("its first process is not visible to the agent")]
    ProcessNotVisible,
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
        let table = of_process(&self.proc, pid, "net/dev");
        let network = own_network
            .then(|| File::open(&table).map_err(|source| file_error(&table, source)))
            .transpose()?
            .filter(|table| !self.is_our_network(table))
            .map(|table| Box::new(Network::new(table, &self.proc, pid)));
        let group = ControlGroup {
            path: group_path(&text, id).ok_or(KernelError::GroupNotVisible)?,
            directories: Some(groups.directories()),
        };
        let files = ContainerFiles {
            group: Arc::new(group),
            activity: ActivityFiles::open(&groups)?,
            details: DetailFiles::open(&groups, true)?,
            network,
        };
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
    group: Arc<ControlGroup>,
    activity: ActivityFiles,
    details: DetailFiles,
    /// None for a container without a network of its own.
    network: Option<Box<Network>>,
}

impl ContainerFiles {
    /// Whether reading needs [`Host::oom_kills`].
    pub(super) fn needs_oom_kills(&self) -> bool {
        matches!(self.activity, ActivityFiles::V1 { .. })
    }

    /// Whether the container has a network of its own.
    pub(super) fn has_network(&self) -> bool {
        self.network.is_some()
    }

    /// Reads all figures once, with their rates since `before`. `buffer` receives the texts of files, and the caller reuses it.
    ///
    /// Figures that change rarely are reused up to [`MAX_DETAILS_AGE`], see [`Rare`].
    ///
    /// Most containers are idle most of the time. If the CPU time and the memory of a container have not changed, most of its
    /// files have not changed either. The first idle reading still reads all files. Later idle readings reuse its figures:
    ///
    /// * the network traffic up to [`MAX_IDLE_AGE`], because an idle container can still receive traffic. If other containers share its
    ///   network (`shares_network`), the traffic is not reused, because the other containers can be busy.
    /// * all others up to [`MAX_DETAILS_AGE`], because the kernel can still write data of an idle container to a disk, and can change its
    ///   limits.
    pub(super) fn read(
        &self,
        before: Option<&ContainerReading>,
        shares_network: bool,
        buffer: &mut Vec<u8>,
        host: &Host<'_>,
    ) -> Result<ContainerReading, KernelError> {
        let received = Instant::now();
        let activity = self.activity.read(buffer)?;
        let usage_ns = need("CPU time", activity.cpu_ns)?;
        let cpu = CpuReading {
            usage_ns,
            host_ns: None,
            cpus: 0,
            read_at: None,
            received: Some(received),
        };
        let idle = before.filter(|before| {
            before.idle && before.cpu.usage_ns == usage_ns && before.usage.memory == activity.memory
        });
        if let Some(before) = idle
            && is_valid_until_next(before, before.rare_at, received, MAX_DETAILS_AGE)
        {
            let at = before.usage_at;
            if !shares_network && is_valid_until_next(before, at, received, MAX_IDLE_AGE) {
                return Ok(ContainerReading {
                    cpu,
                    ..before.clone()
                });
            }
            if before.usage.is_settled() {
                let network = self.read_network(Some(before), received, host.ends, buffer)?;
                return Ok(ContainerReading::idle_since(before, cpu, network, received));
            }
        }
        let rare = before.filter(|before| {
            is_valid_until_next(before, before.rare_at, received, MAX_DETAILS_AGE)
        });
        let rare = rare.map(|before| Rare {
            usage: &before.usage,
            has_no_oom_kills: host.oom_kills.is_some() && before.host_oom_kills == host.oom_kills,
        });
        let mut usage = self.details.read(&activity, rare.as_ref(), buffer)?;
        // A limit above the host's memory counts as no limit. The engine does the same.
        usage.memory_limit = usage.memory_limit.min(host.memory);
        usage.group = Some(Arc::clone(&self.group));
        usage.network = self.read_network(before, received, host.ends, buffer)?;
        let rare_at = match (before, rare) {
            (Some(before), Some(_)) => before.rare_at,
            (Some(_), None) => Some(received),
            // In its first moments, a container with a CPU limit has no periods yet.
            (None, _) => None,
        };
        Ok(ContainerReading {
            rare_at,
            host_oom_kills: host.oom_kills,
            ..ContainerReading::since(before, cpu, usage, Some(received))
        })
    }

    /// Reads the network traffic. Returns an empty map for a container without a network of its own. Returns the counters of `before` up
    /// to [`MAX_UNCHANGED_AGE`] if those of the host's ends have not changed, unless the engine has reported a change of the container,
    /// which can be another interface.
    fn read_network(
        &self,
        before: Option<&ContainerReading>,
        now: Instant,
        host: Option<&HostEnds>,
        buffer: &mut Vec<u8>,
    ) -> Result<Arc<Interfaces>, GroupError> {
        let Some(network) = &self.network else {
            return Ok(Arc::default());
        };
        if let (Some(before), Some(host)) = (before, host)
            && before.rare_at.is_some()
            && let Some(read_at) = network.unchanged_since(host, now)
            && is_valid_until_next(before, Some(read_at), now, MAX_UNCHANGED_AGE)
        {
            return Ok(Arc::clone(&before.usage.network));
        }
        let table = need("network counters", read_all(&network.table, buffer))?;
        let interfaces = Arc::new(network.interfaces(table));
        if let Some(host) = host {
            let before = before.map(|before| &before.usage.network);
            let has_traffic = before.is_some_and(|before| has_traffic(before, &interfaces));
            network.note_read(host, now, has_traffic);
        }
        Ok(interfaces)
    }
}

/// Whether the figures of the reading `before`, which were read at `read_at`, stay younger than `max_age` until the next reading. Assumes
/// that the next interval is as long as the previous interval.
fn is_valid_until_next(
    before: &ContainerReading,
    read_at: Option<Instant>,
    now: Instant,
    max_age: Duration,
) -> bool {
    let (Some(read_at), Some(last)) = (read_at, before.cpu.received) else {
        return false;
    };
    let since = |at| now.saturating_duration_since(at);
    since(read_at) + since(last) < max_age
}

fn read_text(path: &Path) -> Result<String, GroupError> {
    fs::read_to_string(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> GroupError {
    GroupError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
