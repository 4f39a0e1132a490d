//! Keeps the newest file of a log open. The last lines of a container can then be read after the engine has deleted the file.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::open;

/// Maximum number of log files that stay open. The files of other logs are opened for each reading.
const MAX_KEPT_FILES: u64 = 1024;
/// Maximum time between two looks for a newer file of a log, if the kernel reports new files. If a report is missing, for example because
/// another host has rotated the log, the rotation is noticed after this time.
const MAX_LOOK_AGE: Duration = Duration::from_secs(15);
/// Log files use at most this share of the agent's limit of open files.
const SHARE_OF_FILES: u64 = 8;

/// Returns the maximum number of log files that stay open. `limit` is the agent's limit of open files.
#[must_use]
pub fn most_kept_files(limit: u64) -> u64 {
    (limit / SHARE_OF_FILES).min(MAX_KEPT_FILES)
}

/// Counts the log files that stay open. All clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptFiles(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    /// Each open file has a clone.
    open: Arc<()>,
    most: usize,
}

/// The newest file of one log, if it stays open.
#[derive(Debug, Default)]
pub(super) struct KeptFile(Mutex<Option<OpenFile>>);

#[derive(Debug)]
struct OpenFile {
    file: Arc<File>,
    inode: u64,
    /// When the agent last looked for a newer file at the path, and found this one.
    looked_at: Instant,
    _counted: Arc<()>,
}

impl KeptFiles {
    pub(super) fn within_limit() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self(Arc::new(Count {
            open: Arc::default(),
            most: usize::try_from(most_kept_files(limit)).unwrap_or(usize::MAX),
        }))
    }
}

impl KeptFile {
    /// Keeps a file open instead of the previous one. If too many files are open, closes the previous one and keeps none.
    pub(super) fn keep(&self, file: &Arc<File>, now: &Metadata, all: &KeptFiles) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = None;
        let KeptFiles(all) = all;
        // `all` itself has one clone.
        if Arc::strong_count(&all.open) <= all.most {
            *kept = Some(OpenFile {
                file: Arc::clone(file),
                inode: now.ino(),
                looked_at: Instant::now(),
                _counted: Arc::clone(&all.open),
            });
        }
    }

    /// Returns the open file and its inode number.
    pub(super) fn get(&self) -> Option<(Arc<File>, u64)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_ref()?;
        Some((Arc::clone(&kept.file), kept.inode))
    }

    /// Looks at the newest file at `path`, and returns the file too if it is kept open. If the newest file was deleted together with
    /// its container, looks at the file that is kept open.
    pub(super) fn look(&self, path: &Path) -> io::Result<(Metadata, Option<Arc<File>>)> {
        let kept = self.get();
        match open::look_at(path) {
            Ok(now) => {
                let is_newest = |(_, inode): &(_, u64)| *inode == now.ino();
                let kept = kept.filter(is_newest).map(|(file, _)| file);
                if kept.is_some() {
                    self.set_looked_at(Instant::now());
                }
                Ok((now, kept))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (file, _) = kept.ok_or(error)?;
                Ok((file.metadata()?, Some(file)))
            }
            Err(error) => Err(error),
        }
    }

    /// Works like [`Self::look`]. Looks only at the file that is kept open, if the agent has looked for a newer file a short time ago.
    /// The kernel must report to the agent when a newer file is created.
    pub(super) fn look_watched(&self, path: &Path) -> io::Result<(Metadata, Option<Arc<File>>)> {
        if let Some(file) = self.recently_newest() {
            let now = file.metadata()?;
            // A deleted file can have a successor.
            if now.nlink() > 0 {
                return Ok((now, Some(file)));
            }
        }
        self.look(path)
    }

    /// Returns the open file, if it was the newest one a short time ago.
    fn recently_newest(&self) -> Option<Arc<File>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_ref()?;
        (kept.looked_at.elapsed() < MAX_LOOK_AGE).then(|| Arc::clone(&kept.file))
    }

    fn set_looked_at(&self, at: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_mut() {
            kept.looked_at = at;
        }
    }

    /// Makes the next reading look for a newer file.
    #[cfg(test)]
    pub(super) fn forget_look(&self) {
        self.set_looked_at(Instant::now().checked_sub(MAX_LOOK_AGE).unwrap());
    }

    /// Closes the file.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
