//! Reads the kernel's use of memory.

use super::family::{Family, FamilyError, Roots, Rows, read_file};

/// The family. Source: `/proc/meminfo`.
pub(super) struct Meminfo(pub(super) Roots);

impl Family for Meminfo {
    fn name(&self) -> &'static str {
        "meminfo"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.0.proc.join("meminfo");
        let text = read_file(&path)?;
        let row = rows.add([]);
        for line in text.lines() {
            // For example `MemTotal:  16384 kB`, or `HugePages_Total:  0` without a unit.
            let (name, rest) = line
                .split_once(':')
                .ok_or_else(|| FamilyError::parse(&path))?;
            let mut words = rest.split_ascii_whitespace();
            let number = words.next().and_then(|word| word.parse::<f64>().ok());
            let number = number.ok_or_else(|| FamilyError::parse(&path))?;
            let unit = match words.next() {
                Some("kB") => 1024.0,
                _ => 1.0,
            };
            row.figure(name.to_owned(), number * unit);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Meminfo, Roots};

    #[test]
    fn amounts_are_in_bytes_and_counts_have_no_unit() {
        let folder = TempDir::new().unwrap();
        let text = "MemTotal:       16384 kB\nActive(anon):  2 kB\nHugePages_Total:    3\n";
        write_files(folder.path(), &[("meminfo", text)]);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        assert_eq!(
            lines_of(&mut Meminfo(roots)),
            [
                "MemTotal 16777216",
                "Active(anon) 2048",
                "HugePages_Total 3"
            ]
        );
    }
}
