//! Reads the watchdogs, which restart the host when it hangs.

use super::devices::{number, value};
use super::family::{Family, FamilyError, Roots, Rows, names_in};

/// Maximum number of watchdogs.
const MAX_WATCHDOGS: usize = 32;
const NUMBERS: [&str; 7] = [
    "access_cs0",
    "bootstatus",
    "fw_version",
    "nowayout",
    "pretimeout",
    "timeleft",
    "timeout",
];

/// The family. Source: `/sys/class/watchdog`. The files are described in the kernel's `Documentation/ABI/testing/sysfs-class-watchdog`.
pub(super) struct Watchdog(pub(super) Roots);

impl Family for Watchdog {
    fn name(&self) -> &'static str {
        "watchdog"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("class/watchdog");
        let names = names_in(&folder)?;
        for name in names.iter().take(MAX_WATCHDOGS) {
            let folder = folder.join(name);
            let figures = NUMBERS.iter();
            let figures = figures.filter_map(|file| Some((*file, number(&folder.join(file))?)));
            let figures: Vec<_> = figures.collect();
            if !figures.is_empty() {
                let row = rows.add([("name", name)]);
                for (file, value) in figures {
                    row.figure(file, value);
                }
            }
            let text = |file: &str| value(&folder.join(file)).unwrap_or_default();
            rows.add([
                ("identity", &text("identity")),
                ("name", name),
                ("options", &text("options")),
                ("pretimeout_governor", &text("pretimeout_governor")),
                ("state", &text("state")),
                ("status", &text("status")),
            ])
            .figure("info", 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, Watchdog};

    #[test]
    fn a_watchdog_without_sysfs_files_has_only_its_name() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| format!("class/watchdog/watchdog0/{name}");
        write_files(
            folder.path(),
            &[
                (&file("identity"), "Software Watchdog\n"),
                (&file("options"), "0x8380\n"),
                (&file("timeout"), "60\n"),
                (&file("state"), "active\n"),
                ("class/watchdog/watchdog1/other", ""),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "name=watchdog0 timeout 60",
            "identity=Software Watchdog name=watchdog0 options=0x8380 pretimeout_governor= state=active status= info 1",
            "identity= name=watchdog1 options= pretimeout_governor= state= status= info 1",
        ];
        assert_eq!(lines_of(&mut Watchdog(roots)), expected);
    }
}
