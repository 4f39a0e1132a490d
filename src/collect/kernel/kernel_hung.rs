//! Reads how many tasks the kernel has found hung.

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The family. Source: `/proc/sys/kernel/hung_task_detect_count`, which exists since Linux 6.13.
pub(super) struct KernelHung(pub(super) Roots);

impl Family for KernelHung {
    fn name(&self) -> &'static str {
        "kernel_hung"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.0.proc.join("sys/kernel/hung_task_detect_count");
        let count = read_file(&path)?.trim().parse();
        let count = count.map_err(|_| FamilyError::parse(&path))?;
        rows.add([]).figure("hung_task_detect_count", count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{KernelHung, Roots};

    #[test]
    fn the_count_is_read() {
        let folder = TempDir::new().unwrap();
        let file = "sys/kernel/hung_task_detect_count";
        write_files(folder.path(), &[(file, "42\n")]);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let lines = lines_of(&mut KernelHung(roots));
        assert_eq!(lines, ["hung_task_detect_count 42"]);
    }
}
