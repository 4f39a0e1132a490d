//! Selects every mount that node_exporter lists by default.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Mounted, published};
use crate::collect::mountinfo::{self, Mount};
use crate::settings::HostRoot;

/// File systems of the kernel, layers of containers, and images. They do not have space that can run out.
const EXCLUDED_TYPES: [&str; 25] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];
/// Directories with mounts of the kernel.
const EXCLUDED: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Directories with mounts of services and containers. A mount at the directory itself is listed.
const EXCLUDED_BELOW: [&str; 3] = [
    "/run/credentials",
    "/var/lib/docker",
    "/var/lib/containers/storage",
];

/// Returns the mounts, sorted by mount point.
pub(super) fn mounts(visible: Vec<Mount<'_>>, host: &HostRoot) -> Vec<Mounted> {
    let table = match *host == HostRoot::default() {
        true => fs::read("/proc/1/mountinfo").unwrap_or_default(),
        // In a container, the mounts below the host's root are those of the host.
        false => Vec::new(),
    };
    select(visible, host, &table)
}

/// Selects the mounts. If `of_first` is not empty, it is the table of mounts of the host's first process. The service manager adds mounts
/// that only the agent has, for example for `PrivateTmp=`: directories of the host's file systems, and file systems in memory. These mounts
/// are left out.
fn select(visible: Vec<Mount<'_>>, host: &HostRoot, of_first: &[u8]) -> Vec<Mounted> {
    let of_first: HashSet<_> = mountinfo::parse(of_first)
        .map(|mount| (mount.number.into_owned(), mount.root, mount.point))
        .collect();
    let numbers: HashSet<_> = of_first.iter().map(|(number, _, _)| &**number).collect();
    let is_of_host = |mount: &Mount<'_>| {
        let same = (
            mount.number.clone().into_owned(),
            mount.root.clone(),
            mount.point.clone(),
        );
        let is_of_agent = numbers.contains(&*mount.number) || mount.kind == "tmpfs";
        of_first.is_empty() || of_first.contains(&same) || !is_of_agent
    };
    let mounts: Vec<(PathBuf, Mount<'_>)> = visible
        .into_iter()
        .filter(is_of_host)
        .filter_map(|mount| Some((host.path_on_host(&mount.point)?, mount)))
        .filter(|(point, mount)| is_listed(point, &mount.kind))
        .collect();
    published(mounts)
}

fn is_listed(point: &Path, kind: &str) -> bool {
    if point == Path::new("/") {
        return true;
    }
    let is_at_or_below = |folder: &str| point.starts_with(folder);
    let is_below = |folder: &str| point.starts_with(folder) && point != Path::new(folder);
    !EXCLUDED_TYPES.contains(&kind)
        && !EXCLUDED.iter().any(|folder| is_at_or_below(folder))
        && !EXCLUDED_BELOW.iter().any(|folder| is_below(folder))
}

#[cfg(test)]
mod tests {
    use super::{Mounted, select};
    use crate::collect::mountinfo;
    use crate::settings::HostRoot;

    const TABLE: &str = "\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:5 / /dev rw - devtmpfs udev rw
3 2 0:6 / /dev/shm rw - tmpfs tmpfs rw
4 1 0:7 / /run rw - tmpfs tmpfs rw
5 4 0:8 / /run/credentials/systemd-journald.service ro - tmpfs tmpfs ro
6 1 8:1 /srv /mnt/bound rw - ext4 /dev/sda1 rw
7 1 8:2 / /var/lib/docker rw - ext4 /dev/sda2 rw
8 7 0:9 / /var/lib/docker/overlay2/1/merged rw - overlay overlay rw
9 7 0:10 / /var/lib/docker/containers/1/mounts/shm rw - tmpfs shm rw
10 1 0:11 / /nas rw - nfs4 server:/a rw
11 1 0:12 / /snap rw - squashfs /dev/loop0 ro
12 1 8:1 /tmp/systemd-private-1/tmp /tmp rw - ext4 /dev/sda1 rw
13 1 0:13 / /device rw - tmpfs tmpfs rw
";

    fn points(host: &str, of_first: &str) -> Vec<String> {
        let visible = mountinfo::visible(mountinfo::parse(TABLE.as_bytes()).collect());
        let host = HostRoot::parse(host).unwrap();
        let mounts = select(visible, &host, of_first.as_bytes());
        let point = |one: Mounted| one.point;
        mounts.into_iter().map(point).collect()
    }

    #[test]
    fn mounts_of_the_kernel_and_of_containers_are_left_out() {
        let expected = [
            "/",
            "/device",
            "/mnt/bound",
            "/nas",
            "/run",
            "/tmp",
            "/var/lib/docker",
        ];
        assert_eq!(points("/", ""), expected);
    }

    #[test]
    fn mounts_that_only_the_agent_has_are_left_out() {
        let of_first: String = TABLE
            .lines()
            .filter(|line| !line.contains(" /tmp "))
            .map(|line| format!("9{line}\n"))
            .collect();
        let points = points("/", &of_first);
        assert_eq!(points.len(), 6, "{points:?}");
        assert!(!points.contains(&"/tmp".to_owned()));
    }
}
