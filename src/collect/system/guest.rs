//! Reads the limits and the figures of the container that the agent measures as its machine, for example an LXC container.
//!
//! In a container, `/proc` has the figures of the host, unless lxcfs provides its files. If the limits of the container's
//! control group are smaller than the host, the families of memory, CPU and load publish the figures of the control group. A
//! guest is such a container. If the agent measures a host, it reads nothing of this.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use rustix::system::sysinfo;

use super::virtualization::is_in_initial_pid_namespace;
use crate::collect::cgroup::{keyed, path_of};
use crate::collect::mountinfo;
use crate::settings::HostRoot;

/// The number of the first control group namespace, `PROC_CGROUP_INIT_INO` of the kernel.
const INITIAL_CGROUP_NAMESPACE: &str = "cgroup:[4026531835]";
/// Maximum number of ranges in a list of cores. The kernel supports at most 8192 cores.
const MAX_RANGES: usize = 4096;

/// The container that the agent measures as its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Guest {
    memory: Option<Group>,
    /// The quota of v1, and all figures of the CPU of v2.
    cpu: Option<Group>,
    cpuset: Option<Group>,
    /// The CPU time of v1. With v2, the same as `cpu`.
    cpuacct: Option<Group>,
    lxcfs: Lxcfs,
}

/// The directory of the container's control group in the hierarchy of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Group {
    V1(PathBuf),
    V2(PathBuf),
}

/// The files of `/proc` that lxcfs provides. They already have the figures of the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lxcfs {
    meminfo: bool,
    stat: bool,
    loadavg: bool,
}

/// The size of the host, by system calls and files that limits do not change.
#[derive(Debug, Clone, Copy)]
struct HostSize {
    /// Memory, in bytes.
    memory: u64,
    /// The number of cores that are switched on.
    cpus: u64,
}

/// The figures of a guest. A figure is none if the host's file already has it, or if no limit is smaller than the host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GuestFigures {
    pub(super) memory: Option<GuestMemory>,
    pub(super) cpu: Option<GuestCpu>,
    /// Whether the load averages must be computed, because `/proc/loadavg` has those of the host.
    pub(super) computes_load: bool,
}

/// The memory of a guest, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GuestMemory {
    pub(super) limit: u64,
    /// Memory in use, without file cache that was not used for a while.
    pub(super) used: u64,
    /// Memory that caches files.
    pub(super) cached: Option<u64>,
    /// The limit of swap and the swap in use. Without a limit, the limit is very large. None if the kernel does not count the
    /// swap of control groups.
    pub(super) swap: Option<(u64, u64)>,
}

/// The CPUs of a guest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GuestCpu {
    pub(super) read_at: Instant,
    /// CPU time used since the creation of the control group.
    pub(super) used: Duration,
    pub(super) user: Duration,
    pub(super) system: Duration,
    /// How much CPU time the guest can use, in cores. With a quota, this is not always a whole number.
    pub(super) usable: f64,
    /// The cores of the guest. None with a quota, because the guest then uses any core of the host for a part of the time.
    pub(super) cores: Option<Cores>,
}

/// Ranges of core numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cores(Vec<(u32, u32)>);

impl GuestCpu {
    /// The number of CPUs, as programs in the guest should see it.
    pub(super) fn cpus(&self) -> u32 {
        // The cast limits a number that is too large.
        (self.usable.ceil() as u32).max(1)
    }
}

impl Guest {
    /// Returns none if the agent measures a host: it is in no container, or in one that sees the host's processes or has the
    /// host's root directory.
    pub(super) fn find(host: &HostRoot) -> Option<Self> {
        let root = Path::new("/");
        if *host != HostRoot::default() || is_in_initial_pid_namespace(root) {
            return None;
        }
        Some(Self::of(
            &fs::read(root.join("proc/self/mountinfo")).ok()?,
            &own_groups(root),
        ))
    }

    /// Finds the control groups and the files of lxcfs in the table of mounts. `groups` has lines such as `4:memory:/group`.
    fn of(mountinfo: &[u8], groups: &str) -> Self {
        let mounts = mountinfo::visible(mountinfo::parse(mountinfo).collect());
        let is_lxcfs = |file: &str| {
            let mut of_lxcfs = mounts.iter().filter(|mount| mount.kind == "fuse.lxcfs");
            of_lxcfs.any(|mount| mount.point == Path::new("/proc").join(file))
        };
        let group = |controller: &str| {
            let v1 = mounts.iter().find_map(|mount| {
                let has = mount.options.split(',').any(|one| one == controller);
                let found = mount.kind == "cgroup" && has;
                found.then(|| below(mount, path_of(groups, Some(controller))?))?
            });
            let v2 = || {
                let mut of_v2 = mounts.iter().filter(|mount| mount.kind == "cgroup2");
                of_v2.find_map(|mount| below(mount, path_of(groups, None)?))
            };
            v1.map(Group::V1).or_else(|| v2().map(Group::V2))
        };
        Self {
            memory: group("memory"),
            cpu: group("cpu"),
            cpuset: group("cpuset"),
            cpuacct: group("cpuacct"),
            lxcfs: Lxcfs {
                meminfo: is_lxcfs("meminfo"),
                stat: is_lxcfs("stat"),
                loadavg: is_lxcfs("loadavg"),
            },
        }
    }

    /// Reads the limits and figures. The limits can change at any time. Returns none if the files of the host are right, because
    /// no limit is smaller than the host.
    pub(super) fn read(&self) -> Option<GuestFigures> {
        let info = sysinfo();
        let memory = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
        let online = fs::read("/sys/devices/system/cpu/online").unwrap_or_default();
        let cpus = Cores::parse(&String::from_utf8_lossy(&online)).map_or(0, |cores| cores.count());
        self.compare(HostSize { memory, cpus })
    }

    /// Reads the limits and figures. Leaves out memory or CPU if its limit is not smaller than the host.
    fn compare(&self, host: HostSize) -> Option<GuestFigures> {
        let Lxcfs {
            meminfo,
            stat,
            loadavg,
        } = self.lxcfs;
        let memory = self
            .memory()
            .filter(|memory| (1..host.memory).contains(&memory.limit));
        let cpu = self.cpu(host);
        let is_guest = meminfo || stat || loadavg || memory.is_some() || cpu.is_some();
        is_guest.then_some(GuestFigures {
            memory: memory.filter(|_| !meminfo),
            cpu: cpu.filter(|_| !stat),
            computes_load: !loadavg,
        })
    }

    /// Reads the memory. Returns none without a limit.
    fn memory(&self) -> Option<GuestMemory> {
        let group = self.memory.as_ref()?;
        let stat = group.text("memory.stat").unwrap_or_default();
        let value = |key: &str| keyed(&stat, key);
        let (limit, current, inactive, cached, swap);
        match group {
            Group::V2(_) => {
                limit = group.number("memory.max")?;
                current = group.number("memory.current")?;
                inactive = value("inactive_file");
                let reclaimable = value("slab_reclaimable").unwrap_or_default();
                cached = value("file").map(|file| file.saturating_add(reclaimable));
                swap = group.number("memory.swap.current").map(|used| {
                    // The text `max` means no limit.
                    let limit = group.number("memory.swap.max").unwrap_or(u64::MAX);
                    (limit, used)
                });
            }
            Group::V1(_) => {
                // The limit in `memory.stat` is the smallest one of the group and the groups above it.
                let least = |file: &str, key: &str| {
                    let own = group.number(file);
                    own.into_iter().chain(value(key)).min()
                };
                limit = least("memory.limit_in_bytes", "hierarchical_memory_limit")?;
                current = group.number("memory.usage_in_bytes")?;
                inactive = value("total_inactive_file");
                cached = value("total_cache");
                // The limit of v1 is one of memory and swap together.
                let both = least("memory.memsw.limit_in_bytes", "hierarchical_memsw_limit");
                let swap_limit = both.map(|both| both.saturating_sub(limit));
                swap = swap_limit.zip(value("total_swap"));
            }
        }
        Some(GuestMemory {
            limit,
            used: current.saturating_sub(inactive.unwrap_or_default()),
            cached,
            swap,
        })
    }

    /// Reads the CPUs. Returns none if the guest can use all of the host's CPUs.
    fn cpu(&self, host: HostSize) -> Option<GuestCpu> {
        let cores = self.cores();
        let number = cores.as_ref().map_or(host.cpus, Cores::count) as f64;
        let quota = self.quota().filter(|quota| *quota < number);
        let usable = quota.unwrap_or(number);
        if usable >= host.cpus as f64 || usable <= 0.0 {
            return None;
        }
        let [used, user, system] = self.cpu_time()?;
        Some(GuestCpu {
            read_at: Instant::now(),
            used,
            user,
            system,
            usable,
            cores: cores.filter(|_| quota.is_none()),
        })
    }

    /// Reads the quota, in cores. Returns none without a quota.
    fn quota(&self) -> Option<f64> {
        let group = self.cpu.as_ref()?;
        let (quota, period) = match group {
            Group::V2(_) => {
                let text = group.text("cpu.max")?;
                let (quota, period) = text.trim_end().split_once(' ')?;
                (quota.parse::<u64>().ok()?, period.parse().ok()?)
            }
            Group::V1(_) => (
                // The number -1 means no quota.
                group.number("cpu.cfs_quota_us")?,
                group.number("cpu.cfs_period_us")?,
            ),
        };
        (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
    }

    /// Reads the set of cores. Returns none if it is not known or empty.
    fn cores(&self) -> Option<Cores> {
        let group = self.cpuset.as_ref()?;
        let files: &[&str] = match group {
            Group::V2(_) => &["cpuset.cpus.effective"],
            Group::V1(_) => &["cpuset.effective_cpus", "cpuset.cpus"],
        };
        let mut texts = files.iter().filter_map(|file| group.text(file));
        texts.find_map(|text| Cores::parse(&text))
    }

    /// Reads the CPU time: all, of programs, of the kernel.
    fn cpu_time(&self) -> Option<[Duration; 3]> {
        let group = self.cpuacct.as_ref()?;
        match group {
            Group::V2(_) => {
                let stat = group.text("cpu.stat")?;
                let time = |key: &str| keyed(&stat, key).map(Duration::from_micros);
                Some([
                    time("usage_usec")?,
                    time("user_usec")?,
                    time("system_usec")?,
                ])
            }
            Group::V1(_) => {
                let stat = group.text("cpuacct.stat")?;
                let ticks = clock_ticks_per_second().max(1);
                let time = |key: &str| {
                    let millis = keyed(&stat, key)?.saturating_mul(1000) / ticks;
                    Some(Duration::from_millis(millis))
                };
                let used = Duration::from_nanos(group.number("cpuacct.usage")?);
                Some([used, time("user")?, time("system")?])
            }
        }
    }
}

impl Group {
    fn text(&self, file: &str) -> Option<String> {
        let (Self::V1(directory) | Self::V2(directory)) = self;
        let text = fs::read(directory.join(file)).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim_end().parse().ok()
    }
}

impl Cores {
    /// Parses a list such as `0-3,8`. Returns none if it is empty or invalid.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then_some((first, last))
        };
        let parts = text.trim().split(',').take(MAX_RANGES);
        parts.map(range).collect::<Option<_>>().map(Self)
    }

    fn count(&self) -> u64 {
        let sizes = self
            .0
            .iter()
            .map(|(first, last)| u64::from(last - first) + 1);
        sizes.sum()
    }

    pub(super) fn contains(&self, core: u32) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&core))
    }
}

/// Returns the paths of the container's own groups, as in `/proc/1/cgroup`. In a namespace of control groups, the container's
/// groups are the roots, and the first process can be in a group below.
fn own_groups(root: &Path) -> String {
    let namespace = fs::read_link(root.join("proc/self/ns/cgroup"));
    let is_initial = namespace.is_ok_and(|name| name == Path::new(INITIAL_CGROUP_NAMESPACE));
    let text = fs::read(root.join("proc/1/cgroup")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if is_initial {
        return text.into_owned();
    }
    let roots = text.lines().filter_map(|line| {
        let controllers = line.split(':').nth(1)?;
        Some(format!("0:{controllers}:/\n"))
    });
    roots.collect()
}

/// Returns the directory of the group `path`. Returns none if the mount shows other groups.
fn below(mount: &mountinfo::Mount<'_>, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    // A mount of a namespace above this one has the root `/..`.
    let is_outside = |path: &Path| path.components().any(|part| part.as_os_str() == "..");
    if is_outside(path) || is_outside(&mount.root) {
        return None;
    }
    Some(mount.point.join(path.strip_prefix(&mount.root).ok()?))
}
