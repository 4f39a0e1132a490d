//! The host's file systems: which there are, and how full they are.
//!
//! Asking a file system may take for ever (a network's, whose server is gone; one in a program that hangs), so
//! a thread asks. One that hangs is left to it, and another thread asks the rest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{StatVfs, Timespec};

use crate::collect::mountinfo::{self, Mount};
use crate::model::{Disk, Space, figure};
use crate::settings::HostRoot;

const GIB: f64 = 1_073_741_824.0;
/// How long a file system may take to answer before it counts as stuck; also what a reading waits at the most,
/// for all of them together.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How long a reading waits for one whose last figures are known.
const PATIENCE: Duration = Duration::from_millis(100);
/// The most threads that wait for file systems that hang.
const MOST_WAITING: usize = 64;

/// File systems of other hosts, and those that keep data on devices which they do not name.
const WITHOUT_DEVICE: [&str; 14] = [
    "9p", "afs", "beegfs", "ceph", "cifs", "fuseblk", "gpfs", "lustre", "nfs", "nfs4", "orangefs",
    "smb3", "virtiofs", "zfs",
];
/// In programs, but no place for data.
const NO_DATA: [&str; 5] = [
    "fuse.fuse-overlayfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fuse.snapfuse",
];
/// On devices, but images that are always full.
const IMAGES: [&str; 3] = ["erofs", "iso9660", "squashfs"];

/// Used and total space of the host's `/`, in GiB. Blocks while the file system does not answer.
pub(super) fn root(host: &HostRoot) -> io::Result<(f64, f64)> {
    let full = Full::of(&rustix::fs::statvfs(host.directory())?);
    Ok((full.used, full.total))
}

/// How full a file system is, counted as `df` counts: used = blocks − free blocks, those reserved for root
/// among the free ones.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Full {
    /// In GiB.
    used: f64,
    total: f64,
    /// Without what is reserved for root.
    available: f64,
    exact: Space,
    /// Used and all; none where it does not count them.
    inodes: Option<(u64, u64)>,
}

impl Full {
    fn of(stat: &StatVfs) -> Self {
        let gib = |blocks: u64| figure(blocks as f64 * stat.f_frsize as f64 / GIB, 4);
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Self {
            exact: Space {
                size: bytes(stat.f_blocks),
                free: bytes(stat.f_bfree),
                available: bytes(stat.f_bavail),
            },
            used: gib(stat.f_blocks.saturating_sub(stat.f_bfree)),
            total: gib(stat.f_blocks),
            available: gib(stat.f_bavail),
            inodes: (stat.f_files > 0)
                .then(|| (stat.f_files.saturating_sub(stat.f_ffree), stat.f_files)),
        }
    }
}

/// What is kept of the file systems between two readings.
pub(super) struct Disks {
    host: HostRoot,
    /// The table of mounts, once it could be opened. The kernel says when it has changed.
    table: Option<File>,
    /// None until it has been read.
    mounted: Option<Vec<Mounted>>,
    /// The last answers, by mount point; none where it was an error.
    known: HashMap<String, Option<Full>>,
    asker: Asker,
}

/// A file system and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    /// On the host.
    point: String,
    /// By this process.
    seen_at: String,
    device: String,
    kind: String,
    /// As a whole: that it is mounted so for this process, by its unit or in a container, says nothing.
    readonly: bool,
}

impl Disks {
    pub(super) fn new(host: HostRoot) -> Self {
        Self {
            host,
            table: None,
            mounted: None,
            known: HashMap::new(),
            asker: Asker::default(),
        }
    }

    /// Every file system that keeps data. Sources: `/proc/self/mountinfo` and `statvfs`.
    pub(super) fn read(&mut self) -> io::Result<Vec<Disk>> {
        let file = match &mut self.table {
            Some(file) => file,
            None => self.table.insert(File::open("/proc/self/mountinfo")?),
        };
        if self.mounted.is_none() || has_changed(file) {
            let mut table = Vec::new();
            // Should reading fail, the next round reads it again.
            self.mounted = None;
            file.rewind()?;
            file.read_to_end(&mut table)?;
            let table = String::from_utf8_lossy(&table);
            self.mounted = Some(with_data(mountinfo::parse(&table), &self.host));
        }
        let mounted = self.mounted.as_deref().unwrap_or_default();
        let points: Vec<&str> = mounted.iter().map(|one| one.seen_at.as_str()).collect();
        self.asker.ask(&points, &mut self.known);
        let there: HashSet<&str> = points.into_iter().collect();
        self.known.retain(|point, _| there.contains(point.as_str()));
        let disks = mounted.iter().filter_map(|mounted| {
            let stuck = self.asker.is_stuck(&mounted.seen_at);
            // One that has been asked for the first time may answer yet.
            let known = self.known.get(&mounted.seen_at).filter(|_| !stuck);
            let full = match known {
                Some(full) => *full,
                None if stuck => None,
                None => return None,
            };
            Some(Disk {
                mount: mounted.point.clone(),
                device: mounted.device.clone(),
                kind: mounted.kind.clone(),
                used: full.map(|full| full.used),
                total: full.map(|full| full.total),
                available: full.map(|full| full.available),
                inodes_used: full.and_then(|full| full.inodes).map(|(used, _)| used),
                inodes_total: full.and_then(|full| full.inodes).map(|(_, total)| total),
                stuck,
                readonly: mounted.readonly,
                exact: full.map(|full| full.exact),
            })
        });
        Ok(disks.collect())
    }
}

/// Whether the table of mounts has changed since this was asked last.
fn has_changed(table: &File) -> bool {
    let mut change = [PollFd::new(table, PollFlags::PRI)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // If in doubt it is read anew.
    poll(&mut change, Some(&at_once)).map_or(true, |changed| changed > 0)
}

/// Those that keep data, each once, by mount point.
fn with_data<'t>(mounts: impl Iterator<Item = Mount<'t>>, host: &HostRoot) -> Vec<Mounted> {
    // What is mounted last at a point hides what was there before.
    let visible: BTreeMap<String, Mount<'_>> =
        mounts.map(|mount| (mount.point.clone(), mount)).collect();
    let on_host = |mount: Mount<'t>| Some((host.path_on_host(&mount.point)?, mount));
    let mut mounts: Vec<(String, Mount<'_>)> = visible
        .into_values()
        .filter_map(on_host)
        .filter(|(point, mount)| keeps_data(point, mount))
        .collect();
    // Rather the whole than one of its directories, and rather where it is easy to find.
    mounts.sort_by_key(|(point, mount)| (mount.root != "/", point.len()));
    let mut seen = HashSet::new();
    mounts.retain(|(_, mount)| {
        // The parts of a file system (btrfs) have numbers of their own, and one device.
        let device = match mount.source.as_str() {
            source if source.starts_with("/dev/") => source,
            _ => mount.id,
        };
        seen.insert(device.to_owned())
    });
    let mut mounted: Vec<Mounted> = mounts
        .into_iter()
        .map(|(point, mount)| Mounted {
            point,
            seen_at: mount.point,
            device: mount.source,
            kind: mount.kind.to_owned(),
            readonly: mount.options.split(',').any(|option| option == "ro"),
        })
        .collect();
    mounted.sort_by(|a, b| a.point.cmp(&b.point));
    mounted
}

fn keeps_data(point: &str, mount: &Mount<'_>) -> bool {
    let kind = mount.kind;
    if point == "/" {
        return true;
    }
    if kind.starts_with("fuse.") {
        return !NO_DATA.contains(&kind);
    }
    let on_device = mount.source.starts_with("/dev/") && !IMAGES.contains(&kind);
    on_device || WITHOUT_DEVICE.contains(&kind)
}

/// Asks file systems how full they are.
#[derive(Default)]
struct Asker {
    /// None before the first question, and where it was left to a file system that hangs.
    thread: Option<Thread>,
    /// Those that wait for an answer, by mount point, with the moment of the question.
    waiting: HashMap<String, (Instant, Thread)>,
}

/// A thread that asks one file system after the other.
struct Thread {
    points: Sender<String>,
    answers: Receiver<io::Result<Full>>,
}

impl Asker {
    /// Notes the answers of these file systems, as far as they come in time.
    fn ask(&mut self, points: &[&str], known: &mut HashMap<String, Option<Full>>) {
        let end = Instant::now() + STUCK_AFTER;
        self.waiting
            .retain(|point, (_, thread)| match thread.answers.try_recv() {
                Ok(answer) => {
                    known.insert(point.clone(), answer.ok());
                    false
                }
                Err(_) => true,
            });
        for &point in points {
            let now = Instant::now();
            if now >= end || self.waiting.len() >= MOST_WAITING {
                return;
            }
            if self.waiting.contains_key(point) {
                continue;
            }
            let patience = if known.contains_key(point) {
                PATIENCE
            } else {
                STUCK_AFTER
            };
            let Some(thread) = self.thread.take().or_else(Thread::start) else {
                return;
            };
            if thread.points.send(point.to_owned()).is_err() {
                continue;
            }
            match thread.answers.recv_timeout(patience.min(end - now)) {
                Ok(answer) => {
                    known.insert(point.to_owned(), answer.ok());
                    self.thread = Some(thread);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.waiting.insert(point.to_owned(), (now, thread));
                }
                Err(RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Whether a file system has not answered for so long that it counts as stuck.
    fn is_stuck(&self, point: &str) -> bool {
        let asked = self.waiting.get(point);
        asked.is_some_and(|(asked, _)| asked.elapsed() >= STUCK_AFTER)
    }
}

impl Thread {
    /// None where the system has no more threads to give.
    fn start() -> Option<Self> {
        let (points, asked) = channel::<String>();
        let (answer, answers) = channel();
        let ask = move || {
            for point in asked {
                let full = rustix::fs::statvfs(Path::new(&point)).map(|stat| Full::of(&stat));
                if answer.send(full.map_err(io::Error::from)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("file systems".to_owned())
            .spawn(ask)
            .ok()?;
        Some(Self { points, answers })
    }
}

#[cfg(test)]
mod tests {
    use super::{Disks, Mounted, with_data};
    use crate::collect::mountinfo;
    use crate::settings::HostRoot;

    fn mounted(table: &str) -> Vec<Mounted> {
        with_data(mountinfo::parse(table), &HostRoot::default())
    }

    fn points(table: &str) -> Vec<String> {
        mounted(table).into_iter().map(|one| one.point).collect()
    }

    #[test]
    fn file_systems_with_data_are_told_from_the_rest() {
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
    fn a_device_counts_once_where_it_is_whole_and_near() {
        let table = "\
1 0 8:1 /docker /var/lib/docker rw - ext4 /dev/sda1 rw
2 0 8:1 / /mnt/again rw - ext4 /dev/sda1 rw
3 0 8:1 / / rw - ext4 /dev/sda1 rw
4 0 0:40 /home /home rw - btrfs /dev/sdb rw,subvol=/home
5 0 0:41 / /data rw - btrfs /dev/sdb rw,subvol=/
6 0 0:50 / /nas/a rw - nfs4 server:/a rw
7 0 0:51 / /nas/b rw - nfs4 server:/b rw
";
        assert_eq!(points(table), ["/", "/data", "/nas/a", "/nas/b"]);
    }

    #[test]
    fn read_only_is_the_file_system_and_not_the_mount() {
        let table = "\
1 0 8:1 / / ro - ext4 /dev/sda1 rw,errors=remount-ro
2 0 8:2 / /broken rw - ext4 /dev/sdb1 ro,errors=remount-ro
";
        let readonly = mounted(table).into_iter().map(|one| one.readonly);
        assert_eq!(readonly.collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_is_hidden_is_not_there_and_the_root_always_is() {
        let table = "\
1 0 0:30 / / rw - overlay overlay rw
2 0 8:1 / /mnt rw - ext4 /dev/sda1 rw
3 0 0:31 / /mnt rw - tmpfs tmpfs rw
";
        let root = Mounted {
            point: "/".to_owned(),
            seen_at: "/".to_owned(),
            device: "overlay".to_owned(),
            kind: "overlay".to_owned(),
            readonly: false,
        };
        assert_eq!(mounted(table), [root]);
        assert!(mounted("nonsense\n").is_empty());
    }

    #[test]
    fn in_a_container_only_the_hosts_count() {
        let table = "\
1 0 0:30 / / rw - overlay overlay rw
2 0 8:1 / /host rw - ext4 /dev/sda1 rw
3 0 8:2 / /host/srv rw - ext4 /dev/sda2 rw
4 0 8:1 /var/lib/docker/containers/1/hosts /etc/hosts rw - ext4 /dev/sda1 rw
5 0 8:3 / /hostile rw - ext4 /dev/sda3 rw
";
        let host = HostRoot::parse("/host").unwrap();
        let mounted = with_data(mountinfo::parse(table), &host);
        let places: Vec<(&str, &str)> = mounted
            .iter()
            .map(|one| (one.point.as_str(), one.seen_at.as_str()))
            .collect();
        assert_eq!(places, [("/", "/host"), ("/srv", "/host/srv")]);
    }

    #[test]
    fn the_root_is_as_full_as_df_says() {
        let host = HostRoot::default();
        let mut disks = Disks::new(host.clone());
        for _ in 0..2 {
            let read = disks.read().unwrap();
            let root = read.iter().find(|disk| disk.mount == "/").unwrap();
            let (used, total) = super::root(&host).unwrap();
            assert_eq!(root.total, Some(total));
            assert!((root.used.unwrap() - used).abs() < 0.1);
            assert!(!root.stuck);
        }
        assert!(disks.asker.waiting.is_empty());
    }
}
