//! Reads the properties and states of NVMe controllers.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use super::family::{MetricFamily, Round};
use super::lookup::{self, Lookup, text};
use crate::model::NvmeController;

/// Maximum number of controllers.
const MAX_CONTROLLERS: usize = 64;

/// The metric family. Source: `/sys/class/nvme`. The files are in the kernel's `drivers/nvme/host/sysfs.c`. The kernel answers from its own
/// memory, so a controller that hangs delays nothing.
pub(super) struct NvmeControllers {
    class: PathBuf,
    /// The files with the controllers' states, and the values that do not change.
    controllers: Lookup<(PathBuf, NvmeController)>,
}

impl MetricFamily for NvmeControllers {
    const NAME: &'static str = "nvme";

    type Figures = Vec<NvmeController>;
    /// The family never fails: it leaves out a controller that is removed.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<NvmeController>, Infallible> {
        let Self { class, controllers } = self;
        let found = controllers.found(|| find(class)).iter();
        let read = found.filter_map(|(state_file, controller)| {
            let state = text(state_file);
            let is_there = state.is_some() || state_file.parent()?.exists();
            is_there.then(|| NvmeController {
                state,
                ..controller.clone()
            })
        });
        Ok(read.collect())
    }

    fn publish(&mut self, controllers: Vec<NvmeController>, round: &mut Round<'_>) {
        round.metrics.nvme = controllers;
    }
}

impl NvmeControllers {
    /// Creates the family. `class` is `/sys/class/nvme`.
    pub(super) fn new(class: &Path) -> Self {
        Self {
            class: class.to_owned(),
            controllers: Lookup::default(),
        }
    }
}

fn find(class: &Path) -> Vec<(PathBuf, NvmeController)> {
    let is_controller = |name: &str| lookup::is_numbered(name, "nvme");
    let folders = lookup::entries(class, MAX_CONTROLLERS, is_controller);
    let found = folders.into_iter().map(|folder| {
        let controller = NvmeController {
            name: lookup::name_of(&folder),
            model: text(&folder.join("model")),
            serial: text(&folder.join("serial")),
            firmware: text(&folder.join("firmware_rev")),
            state: None,
            controller_id: text(&folder.join("cntlid")),
        };
        (folder.join("state"), controller)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::NvmeControllers;
    use crate::collect::system::family::read_once;
    use crate::model::NvmeController;

    #[test]
    fn the_properties_are_those_of_the_files() {
        let class = tempfile::tempdir().unwrap();
        let folder = class.path().join("nvme0");
        fs::create_dir(&folder).unwrap();
        // Values of node_exporter's fixtures.
        for (file, content) in [
            ("model", "Samsung SSD 970 PRO 512GB               \n"),
            ("serial", "S680HF8N190894I     \n"),
            ("firmware_rev", "1B2QEXP7\n"),
            ("state", "live\n"),
            ("cntlid", "1997\n"),
        ] {
            fs::write(folder.join(file), content).unwrap();
        }
        fs::create_dir(class.path().join("nvme-subsystem")).unwrap();
        let text = |text: &str| Some(text.to_owned());
        let mut expected = NvmeController {
            name: "nvme0".to_owned(),
            model: text("Samsung SSD 970 PRO 512GB"),
            serial: text("S680HF8N190894I"),
            firmware: text("1B2QEXP7"),
            state: text("live"),
            controller_id: text("1997"),
        };
        let mut controllers = NvmeControllers::new(class.path());
        assert_eq!(read_once(&mut controllers), [expected.clone()]);
        fs::write(folder.join("state"), "dead\n").unwrap();
        expected.state = text("dead");
        assert_eq!(read_once(&mut controllers), [expected.clone()]);
        // A kernel before Linux 4.15, and then a controller that is removed.
        fs::remove_file(folder.join("state")).unwrap();
        expected.state = None;
        assert_eq!(read_once(&mut controllers), [expected]);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(read_once(&mut controllers), []);
    }
}
