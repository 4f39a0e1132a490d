//! Reads the errors of the devices of Btrfs file systems.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use super::family::{MetricFamily, Round};
use super::lookup::{self, Lookup, number, text};
use crate::model::{BtrfsDevice, BtrfsFileSystem};

/// Maximum number of file systems.
const MAX_FILE_SYSTEMS: usize = 64;
/// Maximum number of devices of one file system.
const MAX_DEVICES: usize = 64;
/// The length of the text of a UUID.
const UUID_LENGTH: usize = 36;

/// The metric family. Source: `/sys/fs/btrfs`. The files are in the kernel's `fs/btrfs/sysfs.c`. `error_stats` exists since Linux 5.14.
pub(super) struct Btrfs {
    folder: PathBuf,
    file_systems: Lookup<(BtrfsFileSystem, Vec<PathBuf>)>,
}

impl MetricFamily for Btrfs {
    const NAME: &'static str = "btrfs";

    type Figures = Vec<BtrfsFileSystem>;
    /// The family never fails: it leaves out a device that cannot be read.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<BtrfsFileSystem>, Infallible> {
        let Self {
            folder,
            file_systems,
        } = self;
        let found = file_systems.found(|| find(folder)).iter();
        let read = found.map(|(file_system, devices)| BtrfsFileSystem {
            devices: devices.iter().filter_map(|folder| device(folder)).collect(),
            ..file_system.clone()
        });
        Ok(read.collect())
    }

    fn publish(&mut self, file_systems: Vec<BtrfsFileSystem>, round: &mut Round<'_>) {
        round.metrics.btrfs = file_systems;
    }
}

impl Btrfs {
    /// Creates the family. `folder` is `/sys/fs/btrfs`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            file_systems: Lookup::default(),
        }
    }
}

/// Returns the file systems without their devices, and the folders of the devices.
fn find(folder: &Path) -> Vec<(BtrfsFileSystem, Vec<PathBuf>)> {
    // Beside the file systems, the folder has the folders `features` and `debug`.
    let is_uuid = |name: &str| name.len() == UUID_LENGTH && name.contains('-');
    let mut folders = lookup::entries(folder, usize::MAX, is_uuid);
    folders.sort();
    folders.truncate(MAX_FILE_SYSTEMS);
    let found = folders.into_iter().map(|folder| {
        let is_id = |name: &str| lookup::is_numbered(name, "");
        let devices = lookup::entries(&folder.join("devinfo"), MAX_DEVICES, is_id);
        let file_system = BtrfsFileSystem {
            uuid: lookup::name_of(&folder),
            label: text(&folder.join("label")),
            devices: Vec::new(),
        };
        (file_system, devices)
    });
    found.collect()
}

fn device(folder: &Path) -> Option<BtrfsDevice> {
    let device = BtrfsDevice {
        id: lookup::name_of(folder).parse().ok()?,
        missing: number(&folder.join("missing")) == Some(1),
        ..BtrfsDevice::default()
    };
    counts(device, &text(&folder.join("error_stats"))?)
}

/// Parses five lines such as `write_errs 0`. While the file system is being mounted, the text is `invalid`.
fn counts(device: BtrfsDevice, error_stats: &str) -> Option<BtrfsDevice> {
    let count = |wanted: &str| {
        error_stats.lines().find_map(|line| {
            let (name, count) = line.split_once(' ')?;
            // The kernel prints its 32-bit counts as numbers with a sign.
            let count: i32 = (name == wanted).then(|| count.trim().parse().ok())??;
            Some(u64::from(count.cast_unsigned()))
        })
    };
    Some(BtrfsDevice {
        write_errors: count("write_errs")?,
        read_errors: count("read_errs")?,
        flush_errors: count("flush_errs")?,
        corruption_errors: count("corruption_errs")?,
        generation_errors: count("generation_errs")?,
        ..device
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Btrfs, counts};
    use crate::collect::system::family::read_once;
    use crate::model::{BtrfsDevice, BtrfsFileSystem};

    const STATS: &str =
        "write_errs 1\nread_errs 2\nflush_errs 3\ncorruption_errs 4\ngeneration_errs 5\n";

    const DEVICE: BtrfsDevice = BtrfsDevice {
        id: 1,
        missing: false,
        write_errors: 1,
        read_errors: 2,
        flush_errors: 3,
        corruption_errors: 4,
        generation_errors: 5,
    };

    #[test]
    fn each_device_has_its_counts() {
        let folder = tempfile::tempdir().unwrap();
        let uuid = "0abb23a9-579b-43e6-ad30-227ef47fcb9d";
        let write = |file: &str, content: &str| {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        };
        write("features/raid56", "0\n");
        write(&format!("{uuid}/label"), "backup\n");
        for (id, stats, missing) in [
            ("1", STATS, "0\n"),
            ("2", "invalid\n", "0\n"),
            ("10", STATS, "1\n"),
        ] {
            write(&format!("{uuid}/devinfo/{id}/error_stats"), stats);
            write(&format!("{uuid}/devinfo/{id}/missing"), missing);
        }
        // A file system with a kernel before Linux 5.14.
        let old = "7f07c59f-6136-449c-ab87-e1cf2328731b";
        write(&format!("{old}/label"), "\n");
        write(&format!("{old}/devinfo/1/missing"), "0\n");
        let missing = BtrfsDevice {
            id: 10,
            missing: true,
            ..DEVICE
        };
        let expected = [
            BtrfsFileSystem {
                uuid: uuid.to_owned(),
                label: Some("backup".to_owned()),
                devices: vec![DEVICE, missing],
            },
            BtrfsFileSystem {
                uuid: old.to_owned(),
                ..BtrfsFileSystem::default()
            },
        ];
        assert_eq!(read_once(&mut Btrfs::new(folder.path())), expected);
    }

    #[test]
    fn a_count_above_the_largest_signed_number_is_printed_with_a_sign() {
        let device = counts(DEVICE, &STATS.replace("write_errs 1", "write_errs -1"));
        assert_eq!(device.unwrap().write_errors, u64::from(u32::MAX));
        assert_eq!(counts(DEVICE, &STATS.replace("flush_errs 3\n", "")), None);
    }

    #[test]
    fn fuzz_btrfs() {
        crate::fuzzing::run("btrfs", &[STATS.as_bytes()], |bytes| {
            let _ = counts(DEVICE, &String::from_utf8_lossy(bytes));
        });
    }
}
