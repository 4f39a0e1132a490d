//! Reads the numbers of disks of RAID arrays. The states of the arrays are in the snapshot.

use super::devices::{filled, number};
use super::family::{Family, FamilyError, Roots, Rows, names_in};

/// Maximum number of arrays.
const MAX_ARRAYS: usize = 256;
/// The levels without a number of disks.
const CONTAINERS: [&str; 3] = ["container", "imsm", "ddf"];

/// The family. Source: `/sys/block/md*/md`. The files are described in the kernel's `Documentation/admin-guide/md.rst`.
pub(super) struct Mdadm(pub(super) Roots);

impl Family for Mdadm {
    fn name(&self) -> &'static str {
        "mdadm"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        // The kernel has the file only while the driver is loaded.
        if !self.0.proc.join("mdstat").exists() {
            return Err(FamilyError::Absent);
        }
        let folder = self.0.sys.join("block");
        let names = names_in(&folder)?;
        let arrays = names.iter().filter(|name| name.starts_with("md"));
        for device in arrays.take(MAX_ARRAYS) {
            let folder = folder.join(device).join("md");
            let Some(level) = filled(&folder.join("level")) else {
                continue;
            };
            let row = rows.add([("device", device)]);
            if !CONTAINERS.contains(&&*level)
                && let Some(disks) = filled(&folder.join("raid_disks"))
                // During a reshape, the old number follows in brackets.
                && let Some(Ok(disks)) = disks.split(' ').next().map(str::parse)
            {
                row.figure("raid_disks", disks);
            }
            // Arrays without redundancy do not have the file.
            let degraded = number(&folder.join("degraded"));
            row.figure("degraded", degraded.unwrap_or_default());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Mdadm, Roots};

    #[test]
    fn each_array_has_its_numbers_of_disks() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                ("mdstat", "Personalities : [raid1]\n"),
                ("block/md0/md/level", "raid0\n"),
                ("block/md0/md/raid_disks", "2\n"),
                ("block/md1/md/level", "raid5\n"),
                ("block/md1/md/raid_disks", "4 (3)\n"),
                ("block/md1/md/degraded", "1\n"),
                ("block/md2/md/level", "container\n"),
                ("block/md2/md/raid_disks", "0\n"),
                ("block/sda/size", "1\n"),
            ],
        );
        let roots = Roots {
            proc: folder.path().into(),
            sys: folder.path().into(),
        };
        let expected = [
            "device=md0 raid_disks 2",
            "device=md0 degraded 0",
            "device=md1 raid_disks 4",
            "device=md1 degraded 1",
            "device=md2 degraded 0",
        ];
        assert_eq!(lines_of(&mut Mdadm(roots)), expected);
    }
}
