//! Lists the host's file systems, and reads how full each file system is.
//!
//! There are three reasons why a file system has no figures:
//! * The file system does not answer, or it answers with an error. Only this reason sets `failed`, which is meant for alarms.
//! * The agent's user has no permission.
//! * The file system does not count its space.

mod ask;
mod every;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;

use super::family::{MetricFamily, Round};
use super::volumes::Volumes;
use crate::collect::mountinfo::{self, Mount};
use crate::collect::net_dev::published_names;
use crate::model::Disk;
use crate::settings::{HostRoot, Patterns};
use ask::{Asker, MountPath, StatfsAnswer};

/// File systems with data, but without a device in the table of mounts. Most of them are network file systems.
const WITHOUT_DEVICE: [&str; 14] = [
    "9p", "afs", "beegfs", "ceph", "cifs", "fuseblk", "gpfs", "lustre", "nfs", "nfs4", "orangefs",
    "smb3", "virtiofs", "zfs",
];
/// FUSE file systems that do not hold data of their own.
const NO_DATA: [&str; 5] = [
    "fuse.fuse-overlayfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fuse.snapfuse",
];
/// File systems that are read-only images on a device. They are left out, because they are always full.
const IMAGES: [&str; 3] = ["erofs", "iso9660", "squashfs"];

/// The metric family, with the data that it stores between readings.
pub(in crate::collect) struct Disks {
    host: HostRoot,
    select: Select,
    /// The open table of mounts. Through this open file, the kernel reports that the table has changed. None before the first
    /// reading.
    table: Option<File>,
    /// The file systems in the table. None if the table must be read.
    mounted: Option<Vec<Mounted>>,
    asker: Asker,
    /// The mount points and devices that are left out, and the number of such file systems.
    exclude: Patterns,
    excluded: u64,
    volumes: Volumes,
}

/// Selects mounts from the table of visible mounts.
type Select = fn(Vec<Mount<'_>>, &HostRoot) -> Vec<Mounted>;

/// A file system and its mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    /// The mount point on the host. In a path that is not UTF-8, invalid bytes are replaced.
    point: String,
    /// The mount point as the agent sees it.
    place: MountPath,
    device: String,
    kind: String,
    file_system: String,
    /// The file system's number, for example `254:0`.
    number: String,
    /// Whether the whole file system is read-only, and not only its mount. The agent's unit or container can mount a writable
    /// file system read-only.
    readonly: bool,
}

/// Why the list of file systems cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read /proc/self/mountinfo")]
pub(super) struct DisksError(#[from] io::Error);

impl MetricFamily for Disks {
    const NAME: &'static str = "disks";

    type Figures = Vec<Disk>;
    type Error = DisksError;

    fn read(&mut self, round: &Round<'_>) -> Result<Vec<Disk>, DisksError> {
        if self.volumes.update(round.names.running()) {
            // The table of mounts must be read again, to find the file systems of the new volumes.
            self.mounted = None;
        }
        Ok(self.list()?)
    }

    fn publish(&mut self, disks: Vec<Disk>, round: &mut Round<'_>) {
        round.metrics.disks = disks;
        round.excluded += self.excluded;
        round.volumes = Arc::clone(self.volumes.found());
    }
}

impl Disks {
    /// Lists each file system with data once.
    pub(super) fn new(host: HostRoot) -> Self {
        Self::selecting(with_data, host)
    }

    /// Lists every mount that node_exporter lists by default.
    pub(in crate::collect) fn every_mount(host: HostRoot) -> Self {
        Self::selecting(every::mounts, host)
    }

    fn selecting(select: Select, host: HostRoot) -> Self {
        Self {
            host,
            select,
            table: None,
            mounted: None,
            asker: Asker::default(),
            exclude: Patterns::default(),
            excluded: 0,
            volumes: Volumes::default(),
        }
    }

    /// Leaves out the file systems with these mount points or devices. A device has its name with or without `/dev/`.
    pub(in crate::collect) fn without(mut self, names: Patterns) -> Self {
        self.exclude = names;
        self
    }

    /// Reads every file system with data. Sources: `/proc/self/mountinfo` and `fstatvfs`.
    pub(in crate::collect) fn list(&mut self) -> io::Result<Vec<Disk>> {
        let file = match &mut self.table {
            Some(file) => file,
            None => self.table.insert(File::open("/proc/self/mountinfo")?),
        };
        if self.mounted.is_none() || has_changed(file) {
            let mut table = Vec::new();
            // If the reading fails, the next round reads the table again.
            self.mounted = None;
            file.rewind()?;
            file.read_to_end(&mut table)?;
            let visible = mountinfo::visible(mountinfo::parse(&table).collect());
            let mut points = HashMap::new();
            if !self.volumes.is_empty() {
                let on_host = visible.iter().filter_map(|mount| {
                    Some((self.host.path_on_host(&mount.point)?, file_system(mount)))
                });
                points.extend(on_host);
            }
            let mut mounted = (self.select)(visible, &self.host);
            let all = mounted.len();
            mounted.retain(|one| {
                let name = one.device.trim_start_matches("/dev/");
                ![&one.point, &one.device, name]
                    .map(|name| self.exclude.matches(name))
                    .contains(&true)
            });
            self.excluded = (all - mounted.len()) as u64;
            let listed = mounted.iter().map(|one| (&*one.file_system, &*one.point));
            self.volumes.find(&points, &listed.collect());
            self.mounted = Some(mounted);
        }
        let mounted = self.mounted.as_deref().unwrap_or_default();
        let places: Vec<&MountPath> = mounted.iter().map(|one| &one.place).collect();
        self.asker.ask(&places);
        let mut has_moved = false;
        let disks = mounted.iter().filter_map(|mounted| {
            let place = &mounted.place;
            let disk = Disk {
                mount: mounted.point.clone(),
                device: mounted.device.clone(),
                kind: mounted.kind.clone(),
                readonly: mounted.readonly,
                ..Disk::default()
            };
            if self.asker.is_stuck(place) {
                return Some(Disk {
                    stuck: true,
                    failed: true,
                    ..disk
                });
            }
            // Leaves out a file system that has never answered and is not stuck yet.
            match self.asker.answer(place)? {
                StatfsAnswer::Full(full) => Some(Disk {
                    used: Some(full.used),
                    total: Some(full.total),
                    available: Some(full.available),
                    inodes_used: full.inodes.map(|(used, _)| used),
                    inodes_total: full.inodes.map(|(_, total)| total),
                    exact: Some(full.exact),
                    ..disk
                }),
                StatfsAnswer::NoFigures => Some(Disk {
                    error: Some("the file system reports no figures".to_owned()),
                    ..disk
                }),
                StatfsAnswer::Elsewhere => {
                    has_moved = true;
                    None
                }
                StatfsAnswer::Failed(errno) => {
                    let error = io::Error::from(*errno);
                    Some(Disk {
                        failed: error.kind() != io::ErrorKind::PermissionDenied,
                        error: Some(error.to_string()),
                        ..disk
                    })
                }
            }
        });
        let disks = disks.collect();
        if has_moved {
            // The table is out of date, so the next round reads it again.
            self.mounted = None;
        }
        Ok(disks)
    }

    /// Returns the mount points of the previous list, each with the number of its file system, for example `254:0`.
    pub(in crate::collect) fn numbers(&self) -> impl Iterator<Item = (&str, &str)> {
        let mounted = self.mounted.iter().flatten();
        mounted.map(|one| (&*one.point, &*one.number))
    }
}

/// Returns whether the table of mounts has changed since the previous call.
fn has_changed(table: &File) -> bool {
    let mut change = [PollFd::new(table, PollFlags::PRI)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // If `poll` fails, the table is read again, to be safe.
    poll(&mut change, Some(&at_once)).map_or(true, |changed| changed > 0)
}

/// Returns a text that identifies the file system of a mount. The subvolumes of a btrfs have different numbers but the same device.
/// Other file systems are identified by number, because a FUSE program can use the name of any device.
fn file_system(mount: &Mount<'_>) -> String {
    match &*mount.kind {
        "btrfs" => mount.source.clone(),
        _ => mount.number.clone().into_owned(),
    }
}

/// Returns the file systems with data, sorted by mount point. A file system with several mounts is listed once.
fn with_data(visible: Vec<Mount<'_>>, host: &HostRoot) -> Vec<Mounted> {
    let mut mounts: Vec<(PathBuf, Mount<'_>)> = visible
        .into_iter()
        .filter_map(|mount| Some((host.path_on_host(&mount.point)?, mount)))
        .filter(|(point, mount)| keeps_data(point, mount))
        .collect();
    // Among the mounts of a file system, prefers a mount of its root, then the shortest mount point.
    mounts.sort_by_key(|(point, mount)| {
        let is_part = mount.root.as_os_str() != "/";
        (is_part, point.as_os_str().len())
    });
    let mut seen = HashSet::new();
    mounts.retain(|(_, mount)| seen.insert(file_system(mount)));
    published(mounts)
}

/// Sorts mounts by mount point, and converts them.
fn published(mut mounts: Vec<(PathBuf, Mount<'_>)>) -> Vec<Mounted> {
    mounts.sort_by(|(a, _), (b, _)| a.cmp(b));
    let points = mounts.iter().map(|(point, _)| point.as_os_str().as_bytes());
    let points = published_names(points);
    mounts
        .into_iter()
        .zip(points)
        .map(|((_, mount), point)| Mounted {
            point,
            file_system: file_system(&mount),
            number: mount.number.clone().into_owned(),
            place: MountPath::new(mount.id, mount.point, &mount.kind),
            device: mount.source,
            kind: mount.kind.into_owned(),
            readonly: mount.options.split(',').any(|option| option == "ro"),
        })
        .collect()
}

fn keeps_data(point: &Path, mount: &Mount<'_>) -> bool {
    let kind = &*mount.kind;
    if point == Path::new("/") || kind == "fuse" {
        return true;
    }
    if kind.starts_with("fuse.") {
        return !NO_DATA.contains(&kind);
    }
    let on_device = mount.source.starts_with("/dev/") && !IMAGES.contains(&kind);
    on_device || WITHOUT_DEVICE.contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::{Disks, MountPath, Mounted, with_data};
    use crate::collect::mountinfo;
    use crate::collect::system::space::Full;
    use crate::settings::HostRoot;

    fn mounted(table: &str) -> Vec<Mounted> {
        let visible = mountinfo::visible(mountinfo::parse(table.as_bytes()).collect());
        with_data(visible, &HostRoot::default())
    }

    fn points(table: &str) -> Vec<String> {
        mounted(table).into_iter().map(|one| one.point).collect()
    }

    #[test]
    fn only_file_systems_with_data_are_listed() {
        let table = include_str!("../../../tests/fixtures/mountinfo-odd.txt");
        let expected = [
            "/",
            "/boot/efi",
            "/mnt/backup disk",
            "/mnt/nas",
            "/mnt/other",
            "/pool/data",
            "/srv/btrfs",
            "/srv/sshfs",
        ];
        assert_eq!(points(table), expected);
    }

    #[test]
    fn a_device_is_listed_once_by_its_root_and_shortest_mount_point() {
        let table = "\
1 3 8:1 /docker /var/lib/docker rw - ext4 /dev/sda1 rw
2 3 8:1 / /mnt/again rw - ext4 /dev/sda1 rw
3 0 8:1 / / rw - ext4 /dev/sda1 rw
4 3 0:40 /home /home rw - btrfs /dev/sdb rw,subvol=/home
5 3 0:41 / /data rw - btrfs /dev/sdb rw,subvol=/
6 3 0:50 / /nas/a rw - nfs4 server:/a rw
7 3 0:51 / /nas/b rw - nfs4 server:/b rw
";
        assert_eq!(points(table), ["/", "/data", "/nas/a", "/nas/b"]);
    }

    #[test]
    fn a_read_only_mount_of_a_writable_file_system_is_not_read_only() {
        let table = "\
1 0 8:1 / / ro - ext4 /dev/sda1 rw,errors=remount-ro
2 1 8:2 / /broken rw - ext4 /dev/sdb1 ro,errors=remount-ro
";
        let readonly = mounted(table).into_iter().map(|one| one.readonly);
        assert_eq!(readonly.collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_hidden_file_system_is_left_out_and_the_root_is_always_listed() {
        let table = "\
1 0 0:30 / / rw - overlay overlay rw
2 1 8:1 / /mnt rw - ext4 /dev/sda1 rw
3 2 0:31 / /mnt rw - tmpfs tmpfs rw
";
        let root = Mounted {
            point: "/".to_owned(),
            place: MountPath::new(1, "/".into(), "overlay"),
            device: "overlay".to_owned(),
            kind: "overlay".to_owned(),
            file_system: "0:30".to_owned(),
            number: "0:30".to_owned(),
            readonly: false,
        };
        assert_eq!(mounted(table), [root]);
        assert!(mounted("nonsense\n").is_empty());
    }

    #[test]
    fn fuse_file_systems_with_the_same_device_name_are_all_listed() {
        let table = "\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:41 / /keybase rw - fuse /dev/fuse rw
3 1 0:42 / /other rw - fuse /dev/fuse rw
4 1 0:43 / /sshfs rw - fuse.sshfs /dev/fuse rw
5 1 0:43 / /sshfs/again rw - fuse.sshfs /dev/fuse rw
6 1 0:44 / /doc rw - fuse.portal portal rw
";
        assert_eq!(points(table), ["/", "/keybase", "/other", "/sshfs"]);
    }

    #[test]
    fn mount_points_that_are_not_utf_8_stay_unique() {
        let table = b"1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /m\xe9 rw - ext4 /dev/b rw\n3 1 8:3 / /m\xe8 rw - ext4 /dev/c rw\n";
        let visible = mountinfo::visible(mountinfo::parse(table).collect());
        let mounted = with_data(visible, &HostRoot::default());
        let mut points: Vec<_> = mounted.iter().map(|one| &one.point).collect();
        points.dedup();
        assert_eq!(points.len(), 3, "{points:?}");
        assert!(
            points[1..]
                .iter()
                .all(|point| point.starts_with("/m\u{fffd}"))
        );
    }

    #[test]
    fn an_agent_in_a_container_lists_only_file_systems_of_the_host() {
        let table = "\
1 0 0:30 / / rw - overlay overlay rw
2 1 8:1 / /host rw - ext4 /dev/sda1 rw
3 2 8:2 / /host/srv rw - ext4 /dev/sda2 rw
4 1 8:1 /var/lib/docker/containers/1/hosts /etc/hosts rw - ext4 /dev/sda1 rw
5 1 8:3 / /hostile rw - ext4 /dev/sda3 rw
";
        let host = HostRoot::parse("/host").unwrap();
        let visible = mountinfo::visible(mountinfo::parse(table.as_bytes()).collect());
        let mounted = with_data(visible, &host);
        let places: Vec<(&str, &str)> = mounted
            .iter()
            .map(|one| (one.point.as_str(), one.place.path.to_str().unwrap()))
            .collect();
        assert_eq!(places, [("/", "/host"), ("/srv", "/host/srv")]);
    }

    #[test]
    fn figures_of_the_root_are_the_same_as_in_statvfs() {
        let mut disks = Disks::new(HostRoot::default());
        for _ in 0..2 {
            let read = disks.list().unwrap();
            let root = read.iter().find(|disk| disk.mount == "/").unwrap();
            let full = Full::of(&rustix::fs::statvfs("/").unwrap());
            assert_eq!(root.total, Some(full.total));
            assert!((root.used.unwrap() - full.used).abs() < 0.1);
            assert!(!root.stuck);
        }
        assert!(!disks.asker.is_waiting());
    }
}
