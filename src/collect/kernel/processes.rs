//! Reads the limits on processes and threads. The snapshot counts the processes.

use super::family::{Family, FamilyError, Roots, Rows, read_number};

/// The family. Source: `/proc/sys/kernel`.
pub(super) struct Processes(pub(super) Roots);

impl Family for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.proc.join("sys/kernel");
        let row = rows.add([]);
        for name in ["pid_max", "threads-max"] {
            let number = read_number(&folder.join(name)).ok_or(FamilyError::Absent)?;
            row.figure(name, number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Processes, Roots};

    #[test]
    fn both_limits_are_read() {
        let folder = TempDir::new().unwrap();
        let files = [
            ("sys/kernel/pid_max", "123\n"),
            ("sys/kernel/threads-max", "7801\n"),
        ];
        write_files(folder.path(), &files);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let limits = lines_of(&mut Processes(roots));
        assert_eq!(limits, ["pid_max 123", "threads-max 7801"]);
    }
}
