//! Finds the control groups of systemd's units. systemd names the directory of a group after its unit.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::collect::system::containers::container_ids;

/// Maximum number of units whose groups are read.
const MAX_UNITS: usize = 1024;
/// Maximum number of slices. Containers and virtual machines can have a slice each.
const MAX_SLICES: usize = 1024;
/// Slices are in slices. This is the maximum depth that is searched.
const MAX_DEPTH: usize = 6;
/// The slice that has a slice for each user.
const USERS: &str = "/user.slice";

/// The groups of all units, and the directories that were searched.
#[derive(Debug, Default)]
pub(super) struct UnitTree {
    pub(super) units: Vec<UnitGroup>,
    slices: Vec<Slice>,
}

/// The control group of a unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnitGroup {
    /// The name of the unit.
    pub(super) name: String,
    /// The path of the group below the root of the hierarchy, e.g. `/system.slice/ssh.service`.
    pub(super) path: String,
}

/// A directory that was searched.
#[derive(Debug)]
struct Slice {
    directory: PathBuf,
    links: u64,
}

impl UnitTree {
    /// Searches the hierarchy below `root`.
    pub(super) fn find(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.search(root, "", 0);
        tree
    }

    /// Whether groups of units were added or removed since the search. The kernel counts the groups in a directory as its links.
    /// If one group was added and another was removed, the number is the same. Then reading the removed group fails.
    pub(super) fn has_changed(&self) -> bool {
        let links = |slice: &Slice| fs::metadata(&slice.directory).map(|found| found.nlink());
        self.slices
            .iter()
            .any(|slice| links(slice).ok() != Some(slice.links))
    }

    fn search(&mut self, directory: &Path, path: &str, depth: usize) {
        let Ok(found) = fs::metadata(directory) else {
            return;
        };
        self.slices.push(Slice {
            directory: directory.to_owned(),
            links: found.nlink(),
        });
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let directory_name = entry.file_name();
            let Some(name) = unit_name(&directory_name) else {
                continue;
            };
            let path = format!("{path}/{}", directory_name.to_string_lossy());
            let is_user = path.starts_with(USERS) && depth > 0;
            if name.ends_with(".slice") && !is_user {
                if depth < MAX_DEPTH && self.slices.len() < MAX_SLICES {
                    self.search(&entry.path(), &path, depth + 1);
                }
            } else if self.units.len() < MAX_UNITS {
                let name = name.to_owned();
                self.units.push(UnitGroup { name, path });
            }
        }
    }
}

/// Returns the name of the unit whose group has this directory. Returns none if it is no group of a service, scope or slice, or
/// the group of a container, which is in the section `containers`.
fn unit_name(directory: &OsStr) -> Option<&str> {
    let name = directory.to_str()?;
    // systemd escapes a name that could be a file of the kernel, for example `memory.service`.
    let name = name.strip_prefix('_').unwrap_or(name);
    let is_unit = [".service", ".scope", ".slice"]
        .iter()
        .any(|kind| name.ends_with(kind));
    (is_unit && container_ids(name).is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::{MAX_UNITS, UnitTree};

    const ID: &str = "f578d361bfcaff9f0290622db5df2766338472ecfb9b4602a60c37cc8dc0d8d8";

    fn found(root: &TempDir) -> Vec<(String, String)> {
        let tree = UnitTree::find(root.path());
        let units = tree.units.into_iter().map(|unit| (unit.path, unit.name));
        let mut units: Vec<_> = units.collect();
        units.sort();
        units
    }

    #[test]
    fn the_groups_of_units_are_found_and_those_of_containers_are_not() {
        let root = TempDir::new().unwrap();
        for group in [
            "init.scope",
            "system.slice/ssh.service",
            "system.slice/_memory.service",
            "system.slice/system-getty.slice/getty@tty1.service",
            "system.slice/run-docker.mount",
            "machine.slice/machine-web.scope",
            "user.slice/user-1000.slice/session-1.scope",
            "user.slice/user-1000.slice/user@1000.service/app.slice/sync.service",
            &format!("system.slice/docker-{ID}.scope"),
            &format!("machine.slice/libpod-{ID}.scope/container"),
            &format!("docker/{ID}"),
            &format!("kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
        ] {
            fs::create_dir_all(root.path().join(group)).unwrap();
        }
        fs::write(root.path().join("system.slice/odd.service"), "a file").unwrap();
        let unit = |path: &str, name: &str| (path.to_owned(), name.to_owned());
        let expected = [
            unit("/init.scope", "init.scope"),
            unit("/machine.slice/machine-web.scope", "machine-web.scope"),
            unit("/system.slice/_memory.service", "memory.service"),
            unit("/system.slice/ssh.service", "ssh.service"),
            unit(
                "/system.slice/system-getty.slice/getty@tty1.service",
                "getty@tty1.service",
            ),
            unit("/user.slice/user-1000.slice", "user-1000.slice"),
        ];
        assert_eq!(found(&root), expected);
    }

    #[test]
    fn a_new_or_removed_group_changes_the_tree() {
        let root = TempDir::new().unwrap();
        let slice = root.path().join("system.slice");
        fs::create_dir_all(slice.join("a.service")).unwrap();
        let tree = UnitTree::find(root.path());
        assert!(!tree.has_changed());
        fs::create_dir(slice.join("b.service")).unwrap();
        assert!(tree.has_changed());
        fs::remove_dir(slice.join("b.service")).unwrap();
        assert!(!tree.has_changed());
        fs::remove_dir_all(&slice).unwrap();
        assert!(tree.has_changed());
        assert!(found(&root).is_empty());
    }

    #[test]
    fn the_number_of_units_is_limited() {
        let root = TempDir::new().unwrap();
        for number in 0..MAX_UNITS + 10 {
            fs::create_dir(root.path().join(format!("{number}.service"))).unwrap();
        }
        assert_eq!(found(&root).len(), MAX_UNITS);
    }
}
