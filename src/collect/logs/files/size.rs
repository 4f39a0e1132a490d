//! The size of all files of a log.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;

use super::ReadLog;
use super::rotated::rotated_bytes;
use crate::model::FileOffset;

/// Maximum age of the size of the rotated files. Rotated files change in a rotation. Later, the engine can
/// compress them.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Returns the size of all files of each log that is read from files, in bytes, by container id.
pub(super) fn bytes<'l>(logs: impl Iterator<Item = &'l mut ReadLog>) -> HashMap<Arc<str>, u64> {
    let bytes = |log: &mut ReadLog| {
        let ReadLog::File { log, .. } = log else {
            return None;
        };
        Some((Arc::clone(log.container()), log.bytes()?))
    };
    logs.filter_map(bytes).collect()
}

/// The size of the rotated files of a log, from an earlier look at them.
#[derive(Debug, Default)]
pub(super) struct RotatedSize {
    bytes: u64,
    /// None before the first look, and after a rotation.
    read_at: Option<Instant>,
}

impl RotatedSize {
    /// Records that the log was rotated. The inode number of the newest file does not show this, because a new file can get the number of
    /// a file that was deleted a moment ago.
    pub(super) fn note_rotation(&mut self) {
        self.read_at = None;
    }

    /// Returns the size of all files of the log at `path`, in bytes. `newest` is the end of the newest file. Looks at the rotated
    /// files after a rotation, and once a minute.
    pub(super) fn with_newest(&mut self, path: &Path, newest: &FileOffset) -> u64 {
        let is_fresh = self.read_at.is_some_and(|at| at.elapsed() < MAX_AGE);
        if !is_fresh {
            *self = Self {
                bytes: rotated_bytes(path, newest.inode),
                read_at: Some(Instant::now()),
            };
        }
        self.bytes.saturating_add(newest.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FileOffset, RotatedSize};

    #[test]
    fn the_rotated_files_are_looked_at_again_after_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0123-json.log");
        let write = |suffix: &str, bytes: usize| {
            let path = format!("{}{suffix}", path.display());
            fs::write(path, vec![0; bytes]).unwrap();
        };
        let mut size = RotatedSize::default();
        let bytes = |size: &mut RotatedSize, offset| {
            let newest = FileOffset {
                inode: 1,
                offset,
                fingerprint: 0,
            };
            size.with_newest(&path, &newest)
        };
        assert_eq!(bytes(&mut size, 10), 10);
        // One file can be missing while the engine renames the files.
        write(".1", 100);
        write(".3.gz", 5000);
        write(".7", 90_000);
        fs::create_dir(format!("{}.2", path.display())).unwrap();
        assert_eq!(bytes(&mut size, 20), 20);
        size.note_rotation();
        assert_eq!(bytes(&mut size, 0), 5100);
    }
}
