//! Reads the number of open files. The snapshot has it, too, but a scrape needs to know whether it can be read.

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The family. Source: `/proc/sys/fs/file-nr`.
pub(super) struct Filefd(pub(super) Roots);

impl Family for Filefd {
    fn name(&self) -> &'static str {
        "filefd"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.0.proc.join("sys/fs/file-nr");
        let text = read_file(&path)?;
        let mut words = text.split_ascii_whitespace();
        // The second number has always been 0 since Linux 2.6.
        let numbers = (words.next(), words.nth(1));
        let row = rows.add([]);
        for (name, word) in [("allocated", numbers.0), ("maximum", numbers.1)] {
            let number = word.and_then(|word| word.parse().ok());
            row.figure(name, number.ok_or_else(|| FamilyError::parse(&path))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::read;
    use super::super::family::tests::{lines_of, write_files};
    use super::{Filefd, Roots};
    use crate::model::KernelStatus;

    #[test]
    fn open_files_are_read() {
        let folder = TempDir::new().unwrap();
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        write_files(folder.path(), &[("sys/fs/file-nr", "1024\t0\t1631329\n")]);
        let lines = lines_of(&mut Filefd(roots.clone()));
        assert_eq!(lines, ["allocated 1024", "maximum 1631329"]);
        write_files(folder.path(), &[("sys/fs/file-nr", "1024 0\n")]);
        let status = read(&mut Filefd(roots), false).status;
        assert!(matches!(status, KernelStatus::Failed(_)), "{status:?}");
    }
}
