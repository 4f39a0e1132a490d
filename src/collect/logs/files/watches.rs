//! Watches logs with inotify, for changes or for rotations. The kernel reports a changed log once, and again only after it is watched
//! again. So a container that writes fast causes no more work than one that writes slowly.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tracing::warn;

/// The changes of a file that the kernel reports once: the file was written, emptied, renamed or deleted.
const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::ONESHOT)
    .union(WatchFlags::DONT_FOLLOW);
/// The change of a folder that the kernel reports each time: a file was created. The engine creates a new file after it has renamed
/// the others.
const ROTATIONS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);
/// Size of the buffer for the kernel's reports, in bytes.
const REPORT_BYTES: usize = 4096;

/// What the kernel reports of the watched logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reports {
    /// The next change of each log.
    NextChange,
    /// Each rotation.
    Rotations,
}

/// The watched logs. A log is identified by the id of its container.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: Arc<OwnedFd>,
    reports: Reports,
    /// The containers by the numbers that the kernel has given to their watches.
    by_watch: HashMap<i32, Arc<str>>,
    watched: HashSet<Arc<str>>,
    /// Whether the kernel has refused a watch, because there are too many.
    is_full: bool,
}

/// Opens a queue for reports of the kernel.
pub(in crate::collect::logs) fn queue() -> io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)
}

/// Registers a queue with the runtime of the current thread.
pub(in crate::collect::logs) fn readable(queue: OwnedFd) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    #[expect(unsafe_code, reason = "tokio has no safe function for this")]
    // SAFETY: the `Arc` is the owner of the descriptor, and always returns the same open descriptor.
    let readable = unsafe { AsyncFd::register(Arc::new(queue)) };
    Ok(readable?)
}

impl Watches {
    /// Watches no log yet. `inotify` is a queue for reports of the kernel.
    pub(super) fn new(inotify: Arc<OwnedFd>, reports: Reports) -> Self {
        Self {
            inotify,
            reports,
            by_watch: HashMap::new(),
            watched: HashSet::new(),
            is_full: false,
        }
    }

    /// Whether the kernel reports to this queue.
    pub(super) fn report_to(&self, inotify: &Arc<OwnedFd>) -> bool {
        Arc::ptr_eq(&self.inotify, inotify)
    }

    /// Whether the log of a container is watched.
    pub(super) fn is_watched(&self, container: &str) -> bool {
        self.watched.contains(container)
    }

    /// Watches the log of a container. If only its next change is reported, it is watched until [`Self::changed`] returns it. Returns
    /// whether the log is watched.
    pub(super) fn watch(&mut self, container: &Arc<str>, path: &Path) -> bool {
        if self.watched.contains(container) {
            return true;
        }
        let watch = match (self.reports, path.parent()) {
            (Reports::Rotations, Some(folder)) => {
                inotify::add_watch(&self.inotify, folder, ROTATIONS)
            }
            _ => inotify::add_watch(&self.inotify, path, CHANGES),
        };
        match watch {
            Ok(watch) => {
                self.by_watch.insert(watch, Arc::clone(container));
                self.watched.insert(Arc::clone(container));
                true
            }
            Err(Errno::NOSPC | Errno::NOMEM) => {
                if !std::mem::replace(&mut self.is_full, true) {
                    warn!(
                        watched = self.watched.len(),
                        "too many inotify watches: some logs are read only once an interval; raise fs.inotify.max_user_watches"
                    );
                }
                // A retry does not help.
                true
            }
            Err(_) => false,
        }
    }

    /// Returns the containers whose logs have changed or were rotated.
    pub(super) fn changed(&mut self) -> HashSet<Arc<str>> {
        let mut changed = HashSet::new();
        let mut buffer = [MaybeUninit::uninit(); REPORT_BYTES];
        let mut reports = inotify::Reader::new(&*self.inotify, &mut buffer);
        loop {
            match reports.next() {
                Ok(report) if report.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    // Reports are missing. The logs are watched again at the next reading.
                    self.by_watch.clear();
                    changed.extend(self.watched.drain());
                }
                Ok(report) => {
                    let is_over = self.reports == Reports::NextChange
                        || report.events().contains(ReadFlags::IGNORED);
                    let container = match is_over {
                        true => self.by_watch.remove(&report.wd()),
                        false => self.by_watch.get(&report.wd()).cloned(),
                    };
                    if let Some(container) = container {
                        if is_over {
                            self.watched.remove(&container);
                        }
                        changed.insert(container);
                    }
                }
                Err(Errno::INTR) => {}
                // All reports were read.
                Err(_) => return changed,
            }
        }
    }
}
