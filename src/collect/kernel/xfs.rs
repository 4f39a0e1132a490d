//! Reads the counters of XFS file systems.

use super::family::{Family, FamilyError, Roots, Rows, names_if_any, read_file};

/// Maximum number of file systems.
const MAX_FILE_SYSTEMS: usize = 256;
/// The lines that are read, and the names of their numbers. The lines are those of `xfs_stats_format` in the kernel's
/// `fs/xfs/xfs_stats.c`.
const LINES: [(&str, &[&str]); 8] = [
    (
        "extent_alloc",
        &[
            "extent_allocation_extents_allocated",
            "extent_allocation_blocks_allocated",
            "extent_allocation_extents_freed",
            "extent_allocation_blocks_freed",
        ],
    ),
    (
        "abt",
        &[
            "allocation_btree_lookups",
            "allocation_btree_compares",
            "allocation_btree_records_inserted",
            "allocation_btree_records_deleted",
        ],
    ),
    (
        "blk_map",
        &[
            "block_mapping_reads",
            "block_mapping_writes",
            "block_mapping_unmaps",
            "block_mapping_extent_list_insertions",
            "block_mapping_extent_list_deletions",
            "block_mapping_extent_list_lookups",
            "block_mapping_extent_list_compares",
        ],
    ),
    (
        "bmbt",
        &[
            "block_map_btree_lookups",
            "block_map_btree_compares",
            "block_map_btree_records_inserted",
            "block_map_btree_records_deleted",
        ],
    ),
    (
        "dir",
        &[
            "directory_operation_lookup",
            "directory_operation_create",
            "directory_operation_remove",
            "directory_operation_getdents",
        ],
    ),
    (
        "ig",
        &[
            "inode_operation_attempts",
            "inode_operation_found",
            "inode_operation_recycled",
            "inode_operation_missed",
            "inode_operation_duplicates",
            "inode_operation_reclaims",
            "inode_operation_attribute_changes",
        ],
    ),
    ("rw", &["write_calls", "read_calls"]),
    (
        "vnodes",
        &[
            "vnode_active",
            "vnode_allocate",
            "vnode_get",
            "vnode_hold",
            "vnode_release",
            "vnode_reclaim",
            "vnode_remove",
        ],
    ),
];

/// The family. Source: `/sys/fs/xfs/*/stats/stats`.
pub(super) struct Xfs(pub(super) Roots);

impl Family for Xfs {
    fn name(&self) -> &'static str {
        "xfs"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("fs/xfs");
        let names = names_if_any(&folder)?;
        // Beside the file systems, the folder has folders of the module.
        let file_systems = names
            .iter()
            .filter(|name| !["debug", "stats"].contains(&&***name));
        for device in file_systems.take(MAX_FILE_SYSTEMS) {
            let path = folder.join(device).join("stats/stats");
            let text = match read_file(&path) {
                Ok(text) => text,
                Err(FamilyError::Absent) => continue,
                Err(error) => return Err(error),
            };
            let row = rows.add([("device", device)]);
            for line in text.lines() {
                let mut words = line.split_ascii_whitespace();
                let first = words.next().unwrap_or_default();
                let Some((_, names)) = LINES.iter().find(|(start, _)| *start == first) else {
                    continue;
                };
                for (name, word) in names.iter().zip(words) {
                    let value = word.parse().map_err(|_| FamilyError::parse(&path))?;
                    row.figure(*name, value);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, Xfs};

    #[test]
    fn each_file_system_has_its_counters() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                (
                    "fs/xfs/sda1/stats/stats",
                    "extent_alloc 1 872 0 0\ntrans 4 40 0\nrw 28 0\nvnodes 4 0 0 0 1 1 1 0\nabtb2 1 1\n",
                ),
                ("fs/xfs/stats/stats", "rw 1 1\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "extent_allocation_extents_allocated 1",
            "extent_allocation_blocks_allocated 872",
            "extent_allocation_extents_freed 0",
            "extent_allocation_blocks_freed 0",
            "write_calls 28",
            "read_calls 0",
            "vnode_active 4",
            "vnode_allocate 0",
            "vnode_get 0",
            "vnode_hold 0",
            "vnode_release 1",
            "vnode_reclaim 1",
            "vnode_remove 1",
        ];
        let expected = expected.map(|line| format!("device=sda1 {line}"));
        assert_eq!(lines_of(&mut Xfs(roots)), expected);
    }
}
