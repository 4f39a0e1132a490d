//! Reads the load averages. The snapshot has them, too, but a scrape needs to know whether they can be read.

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The family. Source: `/proc/loadavg`.
pub(super) struct Loadavg(pub(super) Roots);

impl Family for Loadavg {
    fn name(&self) -> &'static str {
        "loadavg"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.0.proc.join("loadavg");
        let text = read_file(&path)?;
        let mut words = text.split_ascii_whitespace();
        let row = rows.add([]);
        for name in ["load1", "load5", "load15"] {
            let load = words.next().and_then(|word| word.parse().ok());
            row.figure(name, load.ok_or_else(|| FamilyError::parse(&path))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::read;
    use super::super::family::tests::{lines_of, write_files};
    use super::{Loadavg, Roots};
    use crate::model::KernelStatus;

    #[test]
    fn three_averages_are_read() {
        let folder = TempDir::new().unwrap();
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        write_files(
            folder.path(),
            &[("loadavg", "0.21 0.37 0.39 1/719 19737\n")],
        );
        let lines = lines_of(&mut Loadavg(roots.clone()));
        assert_eq!(lines, ["load1 0.21", "load5 0.37", "load15 0.39"]);
        write_files(folder.path(), &[("loadavg", "0.21 0.37\n")]);
        let status = read(&mut Loadavg(roots), false).status;
        assert!(matches!(status, KernelStatus::Failed(_)), "{status:?}");
    }
}
