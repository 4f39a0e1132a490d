//! Reads the entropy of the kernel's random number generator, also if it is constant. Then the snapshot does not have it.

use super::family::{Family, FamilyError, Roots, Rows, read_number};

/// The family. Source: `/proc/sys/kernel/random`.
pub(super) struct Entropy(pub(super) Roots);

impl Family for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.proc.join("sys/kernel/random");
        let row = rows.add([]);
        for name in ["entropy_avail", "poolsize"] {
            let bits = read_number(&folder.join(name)).ok_or(FamilyError::Absent)?;
            row.figure(name, bits);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Entropy, Roots};

    #[test]
    fn both_figures_are_in_bits() {
        let folder = TempDir::new().unwrap();
        let files = [
            ("sys/kernel/random/entropy_avail", "1337\n"),
            ("sys/kernel/random/poolsize", "4096\n"),
        ];
        write_files(folder.path(), &files);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let bits = lines_of(&mut Entropy(roots));
        assert_eq!(bits, ["entropy_avail 1337", "poolsize 4096"]);
    }
}
