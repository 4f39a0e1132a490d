//! Reads how Btrfs file systems use their space, and how long their commits take. The errors of the devices are in the snapshot.

use std::path::Path;

use super::devices::{filled, number};
use super::family::{Family, FamilyError, Roots, Rows, names_if_any, names_in, read_file};

/// Maximum number of file systems, and of devices of a file system.
const MAX_ENTRIES: usize = 64;
/// The size of a sector in the kernel's sizes of devices, in bytes.
const SECTOR: f64 = 512.0;

/// The lines in the file `commit_stats`, the names of the figures, and by what a value must be divided.
const COMMITS: [(&str, &str, f64); 4] = [
    ("commits", "commits", 1.0),
    ("last_commit_ms", "last_commit", 1000.0),
    ("max_commit_ms", "max_commit", 1000.0),
    ("total_commit_ms", "total_commit", 1000.0),
];

/// The family. Source: `/sys/fs/btrfs`. The files are in the kernel's `fs/btrfs/sysfs.c`.
pub(super) struct Btrfs(pub(super) Roots);

impl Family for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("fs/btrfs");
        let names = names_if_any(&folder)?;
        // Beside the file systems, the folder has the folders `features` and `debug`.
        let file_systems = names.iter().filter(|name| name.contains('-'));
        for name in file_systems.take(MAX_ENTRIES) {
            let folder = folder.join(name);
            let uuid = filled(&folder.join("metadata_uuid"));
            read_file_system(&folder, uuid.as_deref().unwrap_or(name), rows);
        }
        Ok(())
    }
}

fn read_file_system(folder: &Path, uuid: &str, rows: &mut Rows) {
    let row = rows.add([("uuid", uuid)]);
    let reserve = number(&folder.join("allocation/global_rsv_size"));
    row.figure("global_rsv_size", reserve.unwrap_or_default());
    // The file exists since Linux 6.0. Without it, node_exporter shows 0.
    let commits = read_file(&folder.join("commit_stats")).unwrap_or_default();
    for (name, figure, factor) in COMMITS {
        let mut lines = commits.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value: Option<u64> = value.and_then(|value| value.trim().parse().ok());
        row.figure(figure, value.unwrap_or_default() as f64 / factor);
    }
    let devices = names_in(&folder.join("devices")).unwrap_or_default();
    for device in devices.iter().take(MAX_ENTRIES) {
        if let Some(sectors) = number(&folder.join("devices").join(device).join("size")) {
            rows.add([("device", device), ("uuid", uuid)])
                .figure("device_size", sectors * SECTOR);
        }
    }
    for kind in ["data", "metadata", "system"] {
        let folder = folder.join("allocation").join(kind);
        if let Some(bytes) = number(&folder.join("bytes_reserved")) {
            rows.add([("block_group_type", kind), ("uuid", uuid)])
                .figure("bytes_reserved", bytes);
        }
        for mode in names_in(&folder).unwrap_or_default() {
            // Only the folders of the modes have this file in them.
            let Some(total) = number(&folder.join(&mode).join("total_bytes")) else {
                continue;
            };
            let labels = [("block_group_type", kind), ("mode", &mode), ("uuid", uuid)];
            let row = rows.add(labels);
            row.figure("total_bytes", total);
            row.figure("ratio", ratio(&mode, devices.len() as f64));
            if let Some(used) = number(&folder.join(&mode).join("used_bytes")) {
                row.figure("used_bytes", used);
            }
        }
    }
}

/// Returns how many bytes of devices a byte of data needs.
fn ratio(mode: &str, devices: f64) -> f64 {
    let ratio = match mode {
        "single" | "raid0" => 1.0,
        "dup" | "raid1" | "raid10" => 2.0,
        "raid1c3" => 3.0,
        "raid1c4" => 4.0,
        "raid5" => devices / (devices - 1.0),
        "raid6" => devices / (devices - 2.0),
        _ => 0.0,
    };
    if ratio.is_finite() { ratio } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Btrfs, Roots, ratio};

    #[test]
    fn each_file_system_has_its_space_and_its_commits() {
        let folder = TempDir::new().unwrap();
        let uuid = "0abb23a9-579b-43e6-ad30-227ef47fcb9d";
        let file = |name: &str| format!("fs/btrfs/{uuid}/{name}");
        write_files(
            folder.path(),
            &[
                ("fs/btrfs/features/raid56", "0\n"),
                (
                    &file("commit_stats"),
                    "commits 258051\nlast_commit_ms 1000\nmax_commit_ms 51462\ntotal_commit_ms 47836090\n",
                ),
                (&file("allocation/global_rsv_size"), "16777216\n"),
                (&file("allocation/data/bytes_reserved"), "0\n"),
                (&file("allocation/data/total_bytes"), "1\n"),
                (
                    &file("allocation/metadata/raid1/total_bytes"),
                    "1073741824\n",
                ),
                (&file("allocation/metadata/raid1/used_bytes"), "933888\n"),
                (&file("devices/loop25/size"), "20971520\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "global_rsv_size 16777216",
            "commits 258051",
            "last_commit 1",
            "max_commit 51.462",
            "total_commit 47836.09",
            "device_size 10737418240",
            "bytes_reserved 0",
            "total_bytes 1073741824",
            "ratio 2",
            "used_bytes 933888",
        ];
        let lines = lines_of(&mut Btrfs(roots));
        let short: Vec<_> = lines
            .iter()
            .filter_map(|line| Some(line.split_once(&format!("uuid={uuid} "))?.1))
            .collect();
        assert_eq!(short, expected);
        assert_eq!(ratio("raid5", 1.0), 0.0);
        assert_eq!(ratio("raid6", 4.0), 2.0);
    }
}
