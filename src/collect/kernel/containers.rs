//! Reads the figures of containers that a snapshot does not have. Each needs a file of its own, so they are read only for a request.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::param::clock_ticks_per_second;

use super::family::Roots;
use crate::collect::kernel_file;
use crate::model::{ControlGroup, GroupDirectories, RequestedContainer};

/// Maximum number of processes of a container whose open files are counted.
const MAX_PROCESSES: usize = 1024;
/// Maximum number of processes of all containers whose open files are counted for one request. Each costs a
/// system call of a few microseconds.
const MAX_PROCESSES_OF_ALL: usize = 4096;

/// Reads the figures of containers. Leaves out containers whose control group is not visible or gone.
pub(super) fn read(
    roots: &Roots,
    groups: &[Arc<ControlGroup>],
) -> HashMap<String, RequestedContainer> {
    let mut figures = HashMap::new();
    let mut files = Files::default();
    // The containers with few processes come first, so that one large container does not take the place of many small ones.
    let mut with_processes = Vec::new();
    for group in groups {
        let Some(directories) = &group.directories else {
            continue;
        };
        if let Some((container, processes)) = read_one(directories, &mut files) {
            with_processes.push((processes, &group.path));
            figures.insert(group.path.clone(), container);
        }
    }
    with_processes.sort_by_key(|(processes, _)| processes.len());
    // Before Linux 6.2, the number is not known, and no process must be looked at.
    let is_counted = open_files_of(&roots.proc.join("self")).is_some_and(|files| files > 0);
    let mut left = MAX_PROCESSES_OF_ALL;
    for (processes, path) in with_processes {
        let (Some(container), Some(first)) = (figures.get_mut(path), processes.first()) else {
            continue;
        };
        let limits = files.text(&process(&roots.proc, *first).join("limits"));
        container.open_files_limit = limits.and_then(open_files_limit);
        if is_counted && processes.len() <= left.min(MAX_PROCESSES) {
            left -= processes.len();
            container.open_files = open_files(&roots.proc, &processes);
        }
    }
    figures
}

/// Reads the figures of a container from the files of its control group. Also returns the ids of its visible processes.
fn read_one(
    directories: &GroupDirectories,
    files: &mut Files,
) -> Option<(RequestedContainer, Vec<u32>)> {
    let mut container = RequestedContainer::default();
    let group = match directories {
        GroupDirectories::V1 { cpuacct, memory } => {
            let cpuacct = cpuacct.as_deref()?;
            container.cpu_modes_ns = cpu_modes(files.text(&cpuacct.join("cpuacct.stat"))?);
            if let Some(memory) = memory {
                container.memory_max = files.number(&memory.join("memory.max_usage_in_bytes"));
                container.memory_failures = files.number(&memory.join("memory.failcnt"));
            }
            cpuacct
        }
        GroupDirectories::V2(group) => {
            container.memory_max = files.number(&group.join("memory.peak"));
            container.swap = files.number(&group.join("memory.swap.current"));
            group
        }
    };
    let processes = files.text(&group.join("cgroup.procs"))?;
    container.processes = Some(processes.lines().count() as u64);
    // A process of another PID namespace has the number 0.
    let visible = processes.lines().filter_map(|pid| pid.parse().ok());
    let visible = visible.filter(|pid: &u32| *pid != 0);
    // One more than the limit is enough to know that there are too many.
    let visible = visible.take(MAX_PROCESSES + 1);
    Some((container, visible.collect()))
}

/// Parses `cpuacct.stat`, with the lines `user 14` and `system 11` in clock ticks.
fn cpu_modes(stat: &str) -> Option<(u64, u64)> {
    let nanoseconds = |name: &str| {
        let ticks: u64 = stat
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())?;
        Some(ticks.saturating_mul(1_000_000_000 / clock_ticks_per_second()))
    };
    Some((nanoseconds("user ")?, nanoseconds("system ")?))
}

/// Returns the number of open files of processes.
fn open_files(proc: &Path, processes: &[u32]) -> Option<u64> {
    let sizes = processes.iter();
    let sizes = sizes.filter_map(|pid| open_files_of(&process(proc, *pid)));
    Some(sizes.fold(0, u64::saturating_add)).filter(|files| *files > 0)
}

fn process(proc: &Path, pid: u32) -> PathBuf {
    proc.join(pid.to_string())
}

/// Returns the number of open files of a process. The size of `/proc/<pid>/fd` is this number since Linux 6.2. Before, it is 0.
fn open_files_of(process: &Path) -> Option<u64> {
    Some(fs::metadata(process.join("fd")).ok()?.size())
}

/// Parses the line `Max open files            1048576              1048576              files`. Returns the first number.
fn open_files_limit(limits: &str) -> Option<i64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(-1),
        limit => limit.parse().ok(),
    }
}

/// Reads files one after another into the same memory, each with three system calls.
#[derive(Default)]
struct Files(Vec<u8>);

impl Files {
    fn text(&mut self, path: &Path) -> Option<&str> {
        kernel_file::text(&File::open(path).ok()?, &mut self.0)
    }

    fn number(&mut self, path: &Path) -> Option<u64> {
        self.text(path)?.trim_end().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::super::family::tests::write_files;
    use super::{
        GroupDirectories, MAX_PROCESSES, MAX_PROCESSES_OF_ALL, Roots, open_files, open_files_limit,
        read,
    };
    use crate::model::{ControlGroup, RequestedContainer};

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max processes             unlimited            unlimited            processes
Max open files            1024                 1048576              files
";

    fn read_with(folder: &TempDir, directories: GroupDirectories) -> Option<RequestedContainer> {
        let roots = Roots {
            proc: folder.path().join("proc"),
            ..Roots::default()
        };
        let group = ControlGroup {
            path: "/docker/01".to_owned(),
            directories: Some(directories),
        };
        read(&roots, &[Arc::new(group)]).remove("/docker/01")
    }

    #[test]
    fn the_files_of_v1_are_read() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                ("cpuacct/cpuacct.stat", "user 14\nsystem 11\n"),
                ("cpuacct/cgroup.procs", "4242\n4243\n"),
                ("memory/memory.max_usage_in_bytes", "8192000\n"),
                ("memory/memory.failcnt", "7\n"),
                ("proc/4242/limits", LIMITS),
            ],
        );
        let directories = GroupDirectories::V1 {
            cpuacct: Some(folder.path().join("cpuacct")),
            memory: Some(folder.path().join("memory")),
        };
        let expected = RequestedContainer {
            cpu_modes_ns: Some((140_000_000, 110_000_000)),
            memory_max: Some(8_192_000),
            memory_failures: Some(7),
            swap: None,
            processes: Some(2),
            open_files: None,
            open_files_limit: Some(1024),
        };
        assert_eq!(read_with(&folder, directories), Some(expected));
        let gone = GroupDirectories::V1 {
            cpuacct: Some(folder.path().join("gone")),
            memory: None,
        };
        assert_eq!(read_with(&folder, gone), None);
    }

    #[test]
    fn the_files_of_v2_are_read() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                ("group/memory.peak", "8192000\n"),
                ("group/memory.swap.current", "4096\n"),
                ("group/cgroup.procs", "0\n4242\n"),
                (
                    "proc/4242/limits",
                    "Max open files unlimited unlimited files\n",
                ),
            ],
        );
        let expected = RequestedContainer {
            memory_max: Some(8_192_000),
            swap: Some(4096),
            processes: Some(2),
            open_files_limit: Some(-1),
            ..RequestedContainer::default()
        };
        let group = GroupDirectories::V2(folder.path().join("group"));
        assert_eq!(read_with(&folder, group), Some(expected));
    }

    #[test]
    fn the_number_of_processes_whose_open_files_are_counted_is_limited() {
        let folder = TempDir::new().unwrap();
        let mut next = 1;
        let mut group = |name: String, processes: usize| {
            let directory = folder.path().join(&name);
            std::fs::create_dir(&directory).unwrap();
            let first = next;
            next += processes;
            let pids: Vec<_> = (0..processes).map(|number| first + number).collect();
            for pid in &pids {
                std::fs::create_dir_all(folder.path().join(format!("proc/{pid}/fd"))).unwrap();
            }
            let lines: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
            std::fs::write(directory.join("cgroup.procs"), lines).unwrap();
            Arc::new(ControlGroup {
                path: name,
                directories: Some(GroupDirectories::V2(directory)),
            })
        };
        let most = MAX_PROCESSES;
        let mut groups = vec![group("over".to_owned(), most + 1)];
        let full = MAX_PROCESSES_OF_ALL / most;
        groups.extend((0..full).map(|number| group(format!("full{number}"), most)));
        groups.push(group("small".to_owned(), 1));
        let roots = Roots {
            proc: folder.path().join("proc"),
            ..Roots::default()
        };
        let counted = || {
            let read = read(&roots, &groups);
            assert_eq!(read.len(), groups.len());
            // The number of processes itself is not limited.
            assert_eq!(read["over"].processes, Some(most as u64 + 1));
            let with_files = read.iter().filter(|(_, one)| one.open_files.is_some());
            let mut names: Vec<_> = with_files.map(|(name, _)| name.clone()).collect();
            names.sort();
            names
        };
        // A kernel before 6.2 does not tell the number of its own process either.
        assert!(counted().is_empty());
        std::fs::create_dir_all(folder.path().join("proc/self/fd")).unwrap();
        let all: Vec<_> = (0..full - 1)
            .map(|number| format!("full{number}"))
            .collect();
        assert_eq!(counted(), [&all[..], &["small".to_owned()]].concat());
    }

    #[test]
    fn the_open_files_of_this_process_are_counted() {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        assert!(open_files_limit(&limits).is_some_and(|limit| limit != 0));
        // Kernels before 6.2 do not have the number.
        let files = open_files(Path::new("/proc"), &[std::process::id()]);
        assert!(files.is_none_or(|files| files >= 3), "{files:?}");
        assert_eq!(open_files_limit("Max open files\n"), None);
    }
}
