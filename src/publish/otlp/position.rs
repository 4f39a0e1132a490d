//! The file with the position in the logs and events. After a restart, the agent continues at this position.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::Cursor;

/// The name of the file in `STATE_DIRECTORY`.
const FILE: &str = "otlp-cursor";
/// Limit on the file, in bytes. The longest cursor is shorter.
const MAX_FILE: u64 = 256 * 1024;

/// The file with the position.
pub(super) struct PositionFile(PathBuf);

impl PositionFile {
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self(directory.join(FILE))
    }

    /// Reads the position. None if there is no file.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or has no cursor.
    pub(super) fn read(&self) -> io::Result<Option<Cursor>> {
        let length = match fs::metadata(&self.0) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if length > MAX_FILE {
            return Err(io::Error::other("the file is too long"));
        }
        let text = fs::read_to_string(&self.0)?;
        let cursor = Cursor::parse(text.trim());
        cursor
            .map(Some)
            .map_err(|error| io::Error::other(error.to_string()))
    }

    /// Replaces the file. After a failure, the file has its earlier contents.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(super) fn write(&self, cursor: &str) -> io::Result<()> {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{cursor}\n"))?;
        fs::rename(&new, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FILE, PositionFile};
    use crate::model::{Cursor, CursorOwner, Events};

    #[test]
    fn a_written_position_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = PositionFile::in_directory(folder.path());
        assert_eq!(file.read().unwrap(), None);
        let owner = CursorOwner {
            host: "web-1".to_owned(),
            run: 5,
        };
        for seen in [1, 2] {
            let cursor = Cursor::of_events(&owner, seen, &Events::default(), 77);
            file.write(&cursor.to_text()).unwrap();
            assert_eq!(file.read().unwrap(), Some(cursor));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(folder.path().join(FILE), "not a cursor").unwrap();
        assert!(file.read().is_err());
    }
}
