//! Reads block devices that are reached over several paths (DM-multipath).

use std::path::Path;

use super::devices::{filled, number};
use super::family::{Family, FamilyError, Roots, Rows, names_in};

/// Maximum number of devices, and of paths of a device.
const MAX_DEVICES: usize = 1024;
/// The states of a path that works: of a SCSI device and of an NVMe device.
const WORKING: [&str; 2] = ["running", "live"];
/// The size of a sector in the kernel's sizes of devices, in bytes.
const SECTOR: f64 = 512.0;

/// The family. Source: `/sys/block/dm-*`.
pub(super) struct Dmmultipath(pub(super) Roots);

impl Family for Dmmultipath {
    fn name(&self) -> &'static str {
        "dmmultipath"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let block = self.0.sys.join("block");
        let names = names_in(&block)?;
        let devices = names.iter().filter(|name| name.starts_with("dm-"));
        for name in devices.take(MAX_DEVICES) {
            let uuid = filled(&block.join(name).join("dm/uuid")).unwrap_or_default();
            // Other devices are volumes of LVM, encrypted devices and so on.
            if uuid.starts_with("mpath-") {
                read_device(&block, name, &uuid, rows);
            }
        }
        Ok(())
    }
}

fn read_device(block: &Path, name: &str, uuid: &str, rows: &mut Rows) {
    let folder = block.join(name);
    let device = filled(&folder.join("dm/name")).unwrap_or_default();
    rows.add([("device", &device), ("sysfs_name", name), ("uuid", uuid)])
        .figure("info", 1.0);
    let (mut working, mut failed) = (0.0, 0.0);
    let paths = names_in(&folder.join("slaves")).unwrap_or_default();
    for path in paths.iter().take(MAX_DEVICES) {
        let state = filled(&block.join(path).join("device/state")).unwrap_or_default();
        match WORKING.contains(&&*state) {
            true => working += 1.0,
            false => failed += 1.0,
        }
        rows.add([("device", &device), ("path", path), ("state", &state)])
            .figure("state", 1.0);
    }
    let row = rows.add([("device", &device), ("sysfs_name", name)]);
    if let Some(suspended) = number(&folder.join("dm/suspended")) {
        row.figure("active", 1.0 - suspended);
    }
    if let Some(sectors) = number(&folder.join("size")) {
        row.figure("size", sectors * SECTOR);
    }
    row.figure("paths", working + failed);
    row.figure("paths_active", working);
    row.figure("paths_failed", failed);
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Dmmultipath, Roots};

    #[test]
    fn a_device_has_its_paths() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                ("block/dm-5/dm/uuid", "mpath-3600508b1001c\n"),
                ("block/dm-5/dm/name", "mpathA\n"),
                ("block/dm-5/dm/suspended", "0\n"),
                ("block/dm-5/size", "104857600\n"),
                ("block/dm-5/slaves/sdi/size", ""),
                ("block/dm-5/slaves/sdl/size", ""),
                ("block/dm-7/dm/uuid", "LVM-abc\n"),
                ("block/sdi/device/state", "running\n"),
                ("block/sdl/device/state", "offline\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "device=mpathA sysfs_name=dm-5 uuid=mpath-3600508b1001c info 1",
            "device=mpathA path=sdi state=running state 1",
            "device=mpathA path=sdl state=offline state 1",
            "device=mpathA sysfs_name=dm-5 active 1",
            "device=mpathA sysfs_name=dm-5 size 53687091200",
            "device=mpathA sysfs_name=dm-5 paths 2",
            "device=mpathA sysfs_name=dm-5 paths_active 1",
            "device=mpathA sysfs_name=dm-5 paths_failed 1",
        ];
        assert_eq!(lines_of(&mut Dmmultipath(roots)), expected);
    }
}
