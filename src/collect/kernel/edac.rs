//! Reads the errors that memory controllers have counted (EDAC), also for each row and channel of chips.

use super::devices::{filled, number, numbered};
use super::family::{Family, FamilyError, Roots, Rows, names_if_any, names_in};

/// Maximum number of controllers, and of rows of a controller.
const MAX_DEVICES: usize = 64;

/// The family. Source: `/sys/devices/system/edac/mc`. The files are described in the kernel's
/// `Documentation/ABI/testing/sysfs-devices-edac`.
pub(super) struct Edac(pub(super) Roots);

impl Family for Edac {
    fn name(&self) -> &'static str {
        "edac"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("devices/system/edac/mc");
        let names = names_if_any(&folder)?;
        for name in names.iter().take(MAX_DEVICES) {
            let Some(controller) = numbered(name, "mc") else {
                continue;
            };
            let folder = folder.join(name);
            let labels = [("controller", controller)];
            for count in ["ce_count", "ue_count"] {
                if let Some(errors) = number(&folder.join(count)) {
                    rows.add(labels).figure(count, errors);
                }
            }
            // These errors belong to no known row.
            let labels = [("controller", controller), ("csrow", "unknown")];
            for (file, count) in [
                ("ce_noinfo_count", "csrow_ce_count"),
                ("ue_noinfo_count", "csrow_ue_count"),
            ] {
                if let Some(errors) = number(&folder.join(file)) {
                    rows.add(labels).figure(count, errors);
                }
            }
            for row in names_in(&folder)
                .unwrap_or_default()
                .iter()
                .take(MAX_DEVICES)
            {
                if let Some(number) = numbered(row, "csrow") {
                    read_row(&folder.join(row), [controller, number], rows);
                }
            }
        }
        Ok(())
    }
}

/// Reads a row of chips, and its channels. `numbers` are the numbers of the controller and of the row.
fn read_row(folder: &std::path::Path, numbers: [&str; 2], rows: &mut Rows) {
    let [controller, csrow] = numbers;
    let labels = [("controller", controller), ("csrow", csrow)];
    for (file, count) in [
        ("ce_count", "csrow_ce_count"),
        ("ue_count", "csrow_ue_count"),
    ] {
        if let Some(errors) = number(&folder.join(file)) {
            rows.add(labels).figure(count, errors);
        }
    }
    for file in names_in(folder).unwrap_or_default() {
        let channel = file.strip_suffix("_ce_count");
        let Some(channel) = channel.and_then(|channel| numbered(channel, "ch")) else {
            continue;
        };
        let label = filled(&folder.join(format!("ch{channel}_dimm_label")));
        let label = label.map_or_else(|| "unknown".to_owned(), |label| dimm_label(&label));
        let row = rows.add([
            ("controller", controller),
            ("csrow", csrow),
            ("channel", channel),
            ("dimm_label", &label),
        ]);
        for (end, count) in [
            ("ce_count", "channel_ce_count"),
            ("ue_count", "channel_ue_count"),
        ] {
            if let Some(errors) = number(&folder.join(format!("ch{channel}_{end}"))) {
                row.figure(count, errors);
            }
        }
    }
}

/// Converts the kernel's default label `mc#0csrow#1channel#0` to node_exporter's `mc0_csrow1_channel0`.
fn dimm_label(label: &str) -> String {
    let label = label.replace('#', "");
    label
        .replace("csrow", "_csrow")
        .replace("channel", "_channel")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Edac, Roots};

    #[test]
    fn controllers_rows_and_channels_are_read() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| format!("devices/system/edac/mc/mc0/{name}");
        write_files(
            folder.path(),
            &[
                (&file("ce_count"), "1\n"),
                (&file("ce_noinfo_count"), "2\n"),
                (&file("ue_count"), "5\n"),
                (&file("ue_noinfo_count"), "6\n"),
                (&file("csrow0/ce_count"), "3\n"),
                (&file("csrow0/ue_count"), "4\n"),
                (&file("csrow0/ch1_ce_count"), "0\n"),
                (&file("csrow0/ch1_ue_count"), "2\n"),
                (&file("csrow0/ch1_dimm_label"), "mc#0csrow#0channel#1\n"),
                (&file("csrow1/ch0_ce_count"), "7\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "controller=0 ce_count 1",
            "controller=0 ue_count 5",
            "controller=0 csrow=unknown csrow_ce_count 2",
            "controller=0 csrow=unknown csrow_ue_count 6",
            "controller=0 csrow=0 csrow_ce_count 3",
            "controller=0 csrow=0 csrow_ue_count 4",
            "controller=0 csrow=0 channel=1 dimm_label=mc0_csrow0_channel1 channel_ce_count 0",
            "controller=0 csrow=0 channel=1 dimm_label=mc0_csrow0_channel1 channel_ue_count 2",
            "controller=0 csrow=1 channel=0 dimm_label=unknown channel_ce_count 7",
        ];
        assert_eq!(lines_of(&mut Edac(roots)), expected);
    }
}
