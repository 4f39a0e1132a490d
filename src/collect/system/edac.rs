//! Reads the errors that memory controllers have counted (EDAC).

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use super::family::{MetricFamily, Round};
use super::lookup::{self, Lookup, number, text};
use crate::model::MemoryController;

/// Maximum number of controllers.
const MAX_CONTROLLERS: usize = 64;

/// The metric family. Source: `/sys/devices/system/edac/mc`. The files are described in the kernel's
/// `Documentation/ABI/testing/sysfs-devices-edac`.
pub(super) struct MemoryControllers {
    folder: PathBuf,
    /// The folders of the controllers, with the values that do not change.
    controllers: Lookup<(PathBuf, MemoryController)>,
}

impl MetricFamily for MemoryControllers {
    const NAME: &'static str = "memory_controllers";

    type Figures = Vec<MemoryController>;
    /// The family never fails: it leaves out a controller that cannot be read.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<MemoryController>, Infallible> {
        let Self {
            folder,
            controllers,
        } = self;
        let read = |(folder, controller): &(PathBuf, MemoryController)| {
            Some(MemoryController {
                correctable_errors: number(&folder.join("ce_count"))?,
                uncorrectable_errors: number(&folder.join("ue_count"))?,
                ..controller.clone()
            })
        };
        let found = controllers.found(|| find(folder));
        Ok(found.iter().filter_map(read).collect())
    }

    fn publish(&mut self, controllers: Vec<MemoryController>, round: &mut Round<'_>) {
        round.metrics.memory_controllers = controllers;
    }
}

impl MemoryControllers {
    /// Creates the family. `folder` is `/sys/devices/system/edac/mc`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            controllers: Lookup::default(),
        }
    }
}

fn find(folder: &Path) -> Vec<(PathBuf, MemoryController)> {
    let is_controller = |name: &str| lookup::is_numbered(name, "mc");
    let folders = lookup::entries(folder, MAX_CONTROLLERS, is_controller);
    let named = folders.into_iter().map(|folder| {
        let controller = MemoryController {
            name: lookup::name_of(&folder),
            kind: text(&folder.join("mc_name")),
            ..MemoryController::default()
        };
        (folder, controller)
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::MemoryControllers;
    use crate::collect::system::family::read_once;
    use crate::model::MemoryController;

    #[test]
    fn the_counts_are_those_of_the_files() {
        let folder = tempfile::tempdir().unwrap();
        for (name, files) in [
            // Values of node_exporter's fixtures.
            (
                "mc0",
                &[
                    ("ce_count", "1\n"),
                    ("ue_count", "5\n"),
                    ("mc_name", "F17h\n"),
                ][..],
            ),
            ("mc1", &[("ce_count", "0\n"), ("ue_count", "-1\n")]),
            ("mc10", &[("ce_count", "2\n"), ("ue_count", "0\n")]),
            ("power", &[("ce_count", "1\n"), ("ue_count", "1\n")]),
        ] {
            fs::create_dir(folder.path().join(name)).unwrap();
            for (file, content) in files {
                fs::write(folder.path().join(name).join(file), content).unwrap();
            }
        }
        let expected = [
            MemoryController {
                name: "mc0".to_owned(),
                kind: Some("F17h".to_owned()),
                correctable_errors: 1,
                uncorrectable_errors: 5,
            },
            MemoryController {
                name: "mc10".to_owned(),
                correctable_errors: 2,
                ..MemoryController::default()
            },
        ];
        let mut controllers = MemoryControllers::new(folder.path());
        assert_eq!(read_once(&mut controllers), expected);
        // A driver that is unloaded removes the folder.
        fs::remove_dir_all(folder.path().join("mc0")).unwrap();
        assert_eq!(read_once(&mut controllers), expected[1..]);
    }
}
