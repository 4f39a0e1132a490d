//! Reads how full each mounted file system is.

use std::collections::HashMap;

use super::family::{Family, FamilyError, Rows};
use crate::collect::system::disks::Disks;
use crate::model::Disk;
use crate::settings::{HostRoot, Patterns};

/// The family: every mount that node_exporter lists by default. A file system that does not answer cannot block the reading.
pub(super) struct Filesystem(Disks);

impl Filesystem {
    pub(super) fn new(host: HostRoot, exclude: Patterns) -> Self {
        Self(Disks::every_mount(host).without(exclude))
    }
}

impl Family for Filesystem {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let disks = self.0.list().map_err(|source| FamilyError::Read {
            path: "/proc/self/mountinfo".into(),
            source,
        })?;
        let numbers: HashMap<&str, &str> = self.0.numbers().collect();
        for disk in &disks {
            let number = numbers.get(&*disk.mount).copied();
            describe(disk, number.unwrap_or_default(), rows);
        }
        Ok(())
    }
}

/// Adds the rows of a mount. `number` is the number of its file system, for example `254:0`.
fn describe(disk: &Disk, number: &str, rows: &mut Rows) {
    let error = match (disk.failed, disk.stuck) {
        (false, _) => "",
        (true, true) => "mountpoint timeout",
        (true, false) => disk.error.as_deref().unwrap_or("unknown error"),
    };
    let row = rows.add([
        ("device", &disk.device),
        ("device_error", error),
        ("fstype", &disk.kind),
        ("mountpoint", &disk.mount),
    ]);
    row.figure("device_error", f64::from(u8::from(disk.failed)));
    row.figure("readonly", f64::from(u8::from(disk.readonly)));
    let Some(space) = disk.exact else { return };
    let inodes = disk.inodes_total.unwrap_or_default();
    let used = disk.inodes_used.unwrap_or_default();
    for (name, count) in [
        ("size", space.size),
        ("free", space.free),
        ("avail", space.available),
        ("files", inodes),
        ("files_free", inodes.saturating_sub(used)),
    ] {
        row.figure(name, count as f64);
    }
    if let Some((major, minor)) = number.split_once(':') {
        rows.add([
            ("device", &disk.device),
            ("major", major),
            ("minor", minor),
            ("mountpoint", &disk.mount),
        ])
        .figure("mount_info", 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::family::tests::lines_of;
    use super::super::family::{Family, FamilyError, Rows};
    use super::{Disk, Filesystem, HostRoot, Patterns, describe};
    use crate::model::Space;

    struct Described(Vec<(Disk, &'static str)>);

    impl Family for Described {
        fn name(&self) -> &'static str {
            "described"
        }

        fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
            for (disk, number) in &self.0 {
                describe(disk, number, rows);
            }
            Ok(())
        }
    }

    #[test]
    fn a_mount_has_its_space_or_its_error() {
        let full = Disk {
            mount: "/".to_owned(),
            device: "/dev/sda1".to_owned(),
            kind: "ext4".to_owned(),
            inodes_total: Some(100),
            inodes_used: Some(40),
            exact: Some(Space {
                size: 4096,
                free: 2048,
                available: 1024,
            }),
            ..Disk::default()
        };
        let stuck = Disk {
            mount: "/nas".to_owned(),
            device: "server:/a".to_owned(),
            kind: "nfs4".to_owned(),
            failed: true,
            stuck: true,
            ..Disk::default()
        };
        let labels = "device=/dev/sda1 device_error= fstype=ext4 mountpoint=/";
        let mut expected = [
            "device_error 0",
            "readonly 0",
            "size 4096",
            "free 2048",
            "avail 1024",
            "files 100",
            "files_free 60",
        ]
        .map(|figure| format!("{labels} {figure}"))
        .to_vec();
        expected.extend(
            [
                "device=/dev/sda1 major=8 minor=1 mountpoint=/ mount_info 1",
                "device=server:/a device_error=mountpoint timeout fstype=nfs4 mountpoint=/nas device_error 1",
                "device=server:/a device_error=mountpoint timeout fstype=nfs4 mountpoint=/nas readonly 0",
            ]
            .map(str::to_owned),
        );
        let mut described = Described(vec![(full, "8:1"), (stuck, "0:40")]);
        assert_eq!(lines_of(&mut described), expected);
    }

    #[test]
    fn the_root_of_this_host_is_read() {
        let mut family = Filesystem::new(HostRoot::default(), Patterns::default());
        let lines = lines_of(&mut family);
        for figure in [" size ", " mount_info 1"] {
            let is_root = |line: &&String| line.contains("mountpoint=/ ") && line.contains(figure);
            assert!(lines.iter().any(|line| is_root(&line)), "{lines:#?}");
        }
    }
}
