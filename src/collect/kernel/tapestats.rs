//! Reads the counters of tape drives.

use super::devices::number;
use super::family::{Family, FamilyError, Roots, Rows, names_in};

/// Maximum number of tape drives.
const MAX_DRIVES: usize = 256;
const COUNTS: [&str; 7] = [
    "in_flight",
    "other_cnt",
    "read_byte_cnt",
    "read_cnt",
    "resid_cnt",
    "write_byte_cnt",
    "write_cnt",
];
/// The files with times in nanoseconds, and the names of the figures.
const TIMES: [(&str, &str); 3] = [
    ("io_ns", "io_time"),
    ("read_ns", "read_time"),
    ("write_ns", "write_time"),
];

/// The family. Source: `/sys/class/scsi_tape/st*/stats`.
pub(super) struct Tapestats(pub(super) Roots);

impl Family for Tapestats {
    fn name(&self) -> &'static str {
        "tapestats"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("class/scsi_tape");
        let names = names_in(&folder)?;
        // A drive has further entries, such as `nst0a`, for its modes.
        let is_drive = |name: &&String| super::devices::numbered(name, "st").is_some();
        for device in names.iter().filter(is_drive).take(MAX_DRIVES) {
            let stats = folder.join(device).join("stats");
            let row = rows.add([("device", device)]);
            for file in COUNTS {
                if let Some(count) = number(&stats.join(file)) {
                    row.figure(file, count);
                }
            }
            for (file, name) in TIMES {
                if let Some(nanoseconds) = number(&stats.join(file)) {
                    row.figure(name, nanoseconds * 1e-9);
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
    use super::{Roots, Tapestats};

    #[test]
    fn only_drives_have_counters() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                ("class/scsi_tape/st0/stats/in_flight", "1\n"),
                ("class/scsi_tape/st0/stats/io_ns", "9247011087720\n"),
                ("class/scsi_tape/nst0/stats/in_flight", "1\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = ["device=st0 in_flight 1", "device=st0 io_time 9247.01108772"];
        assert_eq!(lines_of(&mut Tapestats(roots)), expected);
    }
}
