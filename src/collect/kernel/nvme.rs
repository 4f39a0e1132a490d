//! Reads the namespaces of NVMe controllers. The properties of the controllers are in the snapshot.

use std::path::Path;

use super::devices::{filled, number, numbered, value};
use super::family::{Family, FamilyError, Roots, Rows, names_in};

/// Maximum number of controllers, and of files of a controller.
const MAX_DEVICES: usize = 256;

/// The family. Source: `/sys/class/nvme`. The files are in the kernel's `drivers/nvme/host/sysfs.c`.
pub(super) struct Nvme(pub(super) Roots);

impl Family for Nvme {
    fn name(&self) -> &'static str {
        "nvme"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("class/nvme");
        let names = names_in(&folder)?;
        let devices = names.iter().filter(|name| numbered(name, "nvme").is_some());
        for device in devices.take(MAX_DEVICES) {
            let folder = folder.join(device);
            // For the used space, the kernel asks the controller. A controller that is not live would not answer.
            let is_live = value(&folder.join("state")).as_deref() == Some("live");
            // A controller can disappear after the list was read.
            let names = names_in(&folder).unwrap_or_default();
            for name in names.iter().take(MAX_DEVICES) {
                let rest = name
                    .strip_prefix(&**device)
                    .and_then(|rest| numbered(rest, "n"));
                if let Some(namespace) = rest {
                    read_namespace(&folder.join(name), [device, namespace], is_live, rows);
                }
            }
        }
        Ok(())
    }
}

fn read_namespace(folder: &Path, names: [&str; 2], is_live: bool, rows: &mut Rows) {
    let [device, nsid] = names;
    let state = filled(&folder.join("ana_state"));
    let state = state.as_deref().unwrap_or("unknown");
    rows.add([("ana_state", state), ("device", device), ("nsid", nsid)])
        .figure("ana_state", 1.0);
    let Some(block) = number(&folder.join("queue/logical_block_size")) else {
        return;
    };
    let row = rows.add([("device", device), ("nsid", nsid)]);
    row.figure("logical_block_size", block);
    if let Some(blocks) = number(&folder.join("size")) {
        // node_exporter counts blocks of the logical size. The kernel counts sectors of 512 bytes.
        row.figure("size", blocks * block);
        row.figure("capacity", blocks * block);
    }
    if let Some(blocks) = is_live.then(|| number(&folder.join("nuse"))).flatten() {
        row.figure("nuse", blocks * block);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Nvme, Roots};

    #[test]
    fn each_namespace_has_its_sizes() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| format!("class/nvme/nvme0/nvme0n1/{name}");
        write_files(
            folder.path(),
            &[
                ("class/nvme/nvme0/state", "live\n"),
                ("class/nvme/nvme0/hwmon1/name", "nvme\n"),
                (&file("ana_state"), "optimized\n"),
                (&file("nuse"), "488281250\n"),
                (&file("queue/logical_block_size"), "4096\n"),
                (&file("size"), "3906250000\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "ana_state=optimized device=nvme0 nsid=1 ana_state 1",
            "device=nvme0 nsid=1 logical_block_size 4096",
            "device=nvme0 nsid=1 size 16000000000000",
            "device=nvme0 nsid=1 capacity 16000000000000",
            "device=nvme0 nsid=1 nuse 2000000000000",
        ];
        assert_eq!(lines_of(&mut Nvme(roots)), expected);
    }
}
