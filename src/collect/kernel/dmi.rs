//! Reads what the firmware says about the host's hardware.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::family::{Family, FamilyError, Roots, Rows, read_text};
use crate::model::KernelRow;

/// The labels, and the files of the kernel in the same order.
const FILES: [(&str, &str); 20] = [
    ("bios_date", "bios_date"),
    ("bios_release", "bios_release"),
    ("bios_vendor", "bios_vendor"),
    ("bios_version", "bios_version"),
    ("board_asset_tag", "board_asset_tag"),
    ("board_name", "board_name"),
    ("board_serial", "board_serial"),
    ("board_vendor", "board_vendor"),
    ("board_version", "board_version"),
    ("chassis_asset_tag", "chassis_asset_tag"),
    ("chassis_serial", "chassis_serial"),
    ("chassis_vendor", "chassis_vendor"),
    ("chassis_version", "chassis_version"),
    ("product_family", "product_family"),
    ("product_name", "product_name"),
    ("product_serial", "product_serial"),
    ("product_sku", "product_sku"),
    ("product_uuid", "product_uuid"),
    ("product_version", "product_version"),
    ("system_vendor", "sys_vendor"),
];

/// The family. Source: `/sys/class/dmi/id`. The files never change while the host runs, so they are read once.
pub(super) struct Dmi {
    roots: Roots,
    known: Option<Vec<(&'static str, String)>>,
}

impl Dmi {
    pub(super) fn new(roots: Roots) -> Self {
        Self { roots, known: None }
    }
}

impl Family for Dmi {
    fn name(&self) -> &'static str {
        "dmi"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.roots.sys.join("class/dmi/id");
        let known = self.known.get_or_insert_with(|| {
            // The kernel hides serial numbers from other users than root. The agent does not publish them, although it can read them as root.
            let text = |(label, file)| {
                let path = folder.join(file);
                let is_public = fs::metadata(&path).ok()?.permissions().mode() & 0o004 != 0;
                Some((label, read_text(&path).filter(|_| is_public)?))
            };
            FILES.into_iter().filter_map(text).collect()
        });
        if known.is_empty() {
            return Err(FamilyError::Absent);
        }
        let row: &mut KernelRow = rows.add([]);
        row.labels = known.clone();
        row.figure("info", 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Dmi, Roots};

    #[test]
    fn files_that_can_be_read_become_labels() {
        let folder = TempDir::new().unwrap();
        let files = [
            ("class/dmi/id/bios_vendor", "Dell Inc.\n"),
            ("class/dmi/id/chassis_version", "\n"),
            ("class/dmi/id/sys_vendor", "Dell Inc.\n"),
            ("class/dmi/id/product_serial", "secret\n"),
        ];
        write_files(folder.path(), &files);
        let secret = folder.path().join("class/dmi/id/product_serial");
        fs::set_permissions(secret, fs::Permissions::from_mode(0o400)).unwrap();
        let mut dmi = Dmi::new(Roots {
            sys: folder.path().into(),
            ..Roots::default()
        });
        assert_eq!(
            lines_of(&mut dmi),
            ["bios_vendor=Dell Inc. chassis_version= system_vendor=Dell Inc. info 1"]
        );
    }
}
