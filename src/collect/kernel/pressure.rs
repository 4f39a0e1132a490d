//! Reads how long the handling of interrupts stopped all tasks. The snapshot has the other kinds of pressure.

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The family. Source: `/proc/pressure/irq`, which kernels older than 6.1 do not have.
pub(super) struct Pressure(pub(super) Roots);

impl Family for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.proc.join("pressure");
        let path = folder.join("irq");
        let text = match read_file(&path) {
            // The kernel has the other kinds, so the family is not absent.
            Err(FamilyError::Absent) if folder.exists() => return Ok(()),
            text => text?,
        };
        // For example `full avg10=0.00 avg60=0.00 avg300=0.00 total=8494`. The total is in microseconds.
        let full = text.lines().find(|line| line.starts_with("full "));
        let total = full.and_then(|line| line.rsplit_once("total="));
        let total = total.and_then(|(_, total)| total.trim().parse::<f64>().ok());
        let total = total.ok_or_else(|| FamilyError::parse(&path))?;
        rows.add([]).figure("irq_full", total / 1e6);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Pressure, Roots};

    #[test]
    fn the_total_is_in_seconds() {
        let folder = TempDir::new().unwrap();
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        write_files(folder.path(), &[("pressure/cpu", "")]);
        assert!(lines_of(&mut Pressure(roots.clone())).is_empty());
        let text = "full avg10=0.00 avg60=0.00 avg300=0.00 total=8494\n";
        write_files(folder.path(), &[("pressure/irq", text)]);
        assert_eq!(lines_of(&mut Pressure(roots)), ["irq_full 0.008494"]);
    }
}
