//! Reads files of the kernel that can be long, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::family::{FamilyError, read_error};

/// Maximum number of bytes that are read of a file.
const MAX_BYTES: u64 = 64 << 20;

/// Passes each line of a file to `take`. Does not hold the whole file in memory.
///
/// # Errors
/// Fails with [`FamilyError::Absent`] if the file does not exist. Fails if `take` returns none, because the line is invalid.
pub(super) fn each_line(
    path: &Path,
    mut take: impl FnMut(&str) -> Option<()>,
) -> Result<(), FamilyError> {
    let failed = |source| read_error(path, source);
    let mut reader = BufReader::new(File::open(path).map_err(failed)?.take(MAX_BYTES));
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        take(text.trim_ascii_end()).ok_or_else(|| FamilyError::parse(path))?;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::super::family::tests::write_files;
    use super::{FamilyError, each_line};

    #[test]
    fn an_invalid_line_fails() {
        let folder = TempDir::new().unwrap();
        write_files(folder.path(), &[("file", "one\ntwo \n\nfour")]);
        let path = folder.path().join("file");
        let mut lines = Vec::new();
        let add = |line: &str| {
            lines.push(line.to_owned());
            Some(())
        };
        each_line(&path, add).unwrap();
        assert_eq!(lines, ["one", "two", "", "four"]);
        let failed = each_line(&path, |line| (line != "two").then_some(()));
        assert!(matches!(failed, Err(FamilyError::Parse { .. })));
        let absent = each_line(Path::new("/proc/missing"), |_| None);
        assert!(matches!(absent, Err(FamilyError::Absent)));
    }
}
