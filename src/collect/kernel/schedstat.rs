//! Reads how long tasks ran and waited on each CPU.

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The family. Source: `/proc/schedstat`.
pub(super) struct Schedstat(pub(super) Roots);

impl Family for Schedstat {
    fn name(&self) -> &'static str {
        "schedstat"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.0.proc.join("schedstat");
        for line in read_file(&path)?.lines() {
            let Some(line) = line.strip_prefix("cpu") else {
                continue;
            };
            // The last three of the nine numbers: running and waiting in nanoseconds, and the count of time slices.
            let mut words = line.split_ascii_whitespace();
            let cpu = words.next().unwrap_or_default();
            let mut words = words.skip(6);
            let row = rows.add([("cpu", cpu)]);
            for (name, unit) in [("running", 1e9), ("waiting", 1e9), ("timeslices", 1.0)] {
                let number = words.next().and_then(|word| word.parse::<f64>().ok());
                let number = number.ok_or_else(|| FamilyError::parse(&path))?;
                row.figure(name, number / unit);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, Schedstat};

    #[test]
    fn times_of_each_cpu_are_in_seconds() {
        let folder = TempDir::new().unwrap();
        let text = "version 15\ntimestamp 15819019232\n\
            cpu0 498494191 0 3533438552 2553969831 3853684107 2465731542 2045936778163039 343796328169361 4767485306\n\
            domain0 00000000,00000003 212499247 210112015 1861015\n";
        write_files(folder.path(), &[("schedstat", text)]);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        assert_eq!(
            lines_of(&mut Schedstat(roots)),
            [
                "cpu=0 running 2045936.778163039",
                "cpu=0 waiting 343796.328169361",
                "cpu=0 timeslices 4767485306"
            ]
        );
    }
}
