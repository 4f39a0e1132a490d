//! The logs of containers that have ended, and of containers that have just started and are not in the container list yet.
//!
//! For a short time, their last lines and their open files are stored, so that clients get what a container wrote last. After that,
//! only the position is stored. If the container starts again, reading continues there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::file::LogFile;
use crate::messages::EndedLog;
use crate::model::LogLines;

/// Maximum number of ended containers whose positions the agent remembers.
pub(in crate::collect::logs) const MAX_ENDED: usize = 1024;
/// Maximum number of removed containers that the agent remembers. A removed container cannot start again. Its position is
/// only for clients that lag.
const MAX_REMOVED: usize = 128;
/// Time for which the agent stores the last lines of an ended container.
pub(in crate::collect::logs) const LAST_LINES: Duration = Duration::from_secs(60);
/// Time between two checks whether the log file of an ended container still exists. If the file is gone, the container was
/// removed.
const CHECK_INTERVAL: Duration = LAST_LINES;

/// The logs by container id.
#[derive(Default)]
pub(super) struct EndedLogs(HashMap<String, Ended>);

/// The log of a container that has ended.
pub(super) struct Ended {
    name: String,
    at: Instant,
    log: Box<LogFile>,
    /// The last lines of the log. None after [`LAST_LINES`].
    lines: Option<Arc<LogLines>>,
    /// The time of the newest check whether the log file exists.
    checked: Instant,
    /// Whether the container was removed.
    removed: bool,
}

impl EndedLogs {
    /// Reads the last lines of a container that has just ended, or the first lines of one that has just started. `lines` are its
    /// newest lines so far.
    pub(super) fn insert(
        &mut self,
        id: String,
        name: String,
        log: Box<LogFile>,
        lines: Option<Arc<LogLines>>,
    ) {
        self.0.insert(id, Ended::of(name, log, lines));
    }

    /// Removes the log of a container that runs, and returns it with its newest lines.
    pub(super) fn take(&mut self, id: &str) -> Option<(Box<LogFile>, Option<Arc<LogLines>>)> {
        let ended = self.0.remove(id)?;
        Some((ended.log, ended.lines))
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Ended> {
        self.0.get_mut(id)
    }

    /// Reads the new lines of all logs that are kept open.
    pub(super) fn read(&mut self) {
        for ended in self.0.values_mut() {
            ended.read();
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &LogFile> {
        self.0.values().map(|ended| &*ended.log)
    }

    /// Returns the last lines and the position of each log. The container that ended first is first.
    pub(super) fn logs(&self) -> Vec<EndedLog> {
        let ended = self.0.values();
        let mut ended: Vec<_> = ended.filter(|ended| ended.log.has_been_read()).collect();
        ended.sort_unstable_by_key(|ended| ended.at);
        ended.into_iter().map(Ended::log).collect()
    }

    /// Forgets the last lines of containers that ended long ago. If there are too many ended containers, forgets those that ended
    /// first.
    pub(super) fn forget(&mut self) {
        for ended in self.0.values_mut() {
            if ended.at.elapsed() > LAST_LINES {
                ended.lines = None;
                ended.log.drop_lines();
                ended.log.close();
            }
            if !ended.removed && ended.checked.elapsed() > CHECK_INTERVAL {
                ended.removed = !ended.log.exists();
                ended.checked = Instant::now();
            }
        }
        self.keep_newest(MAX_REMOVED, |ended| ended.removed);
        self.keep_newest(MAX_ENDED, |_| true);
    }

    /// Looks at the ended containers for which `of` returns true. Forgets those that ended first, until `limit` of them are left.
    fn keep_newest(&mut self, limit: usize, of: fn(&Ended) -> bool) {
        let mut moments: Vec<Instant> = self
            .0
            .values()
            .filter(|ended| of(ended))
            .map(|ended| ended.at)
            .collect();
        let surplus = moments.len().saturating_sub(limit);
        if surplus == 0 {
            return;
        }
        let (_, last, _) = moments.select_nth_unstable(surplus - 1);
        let last = *last;
        self.0.retain(|_, ended| !of(ended) || ended.at > last);
    }
}

impl Ended {
    /// Reads the last lines of a container that has just ended, or the first lines of one that has just started.
    fn of(name: String, log: Box<LogFile>, lines: Option<Arc<LogLines>>) -> Self {
        let now = Instant::now();
        let mut ended = Self {
            name,
            at: now,
            lines,
            log,
            checked: now,
            removed: false,
        };
        ended.update();
        if !ended.log.is_kept() {
            ended.log.drop_lines();
        }
        ended
    }

    pub(super) fn file(&self) -> &LogFile {
        &self.log
    }

    /// Notes that the container has started again, and reads its log.
    pub(super) fn start_again(&mut self, name: String) {
        (self.name, self.at) = (name, Instant::now());
        // The file is possibly not open any more.
        self.update();
    }

    /// Reads the new lines of a log that is kept open, because its container can still write or was just removed. Returns whether
    /// there are new lines.
    pub(super) fn read(&mut self) -> bool {
        self.log.is_kept() && self.update()
    }

    fn update(&mut self) -> bool {
        // There is an error if the file was removed with its container and is not kept open.
        let has_grown = self.log.update().is_ok_and(|has_grown| has_grown);
        if has_grown {
            self.lines = Some(Arc::new(self.log.lines()));
        }
        has_grown
    }

    fn log(&self) -> EndedLog {
        EndedLog {
            name: self.name.clone(),
            container: Arc::clone(self.log.container()),
            position: self.log.position(),
            lines: self.lines.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Ended, EndedLogs, LogFile, MAX_REMOVED};
    use crate::collect::logs::new::New;

    /// Creates a container that ended `seconds` seconds ago.
    fn ended(path: &Path, seconds: u64) -> Ended {
        let at = Instant::now() - Duration::from_secs(seconds);
        let id = Arc::from(format!("{seconds}"));
        Ended {
            name: "web".to_owned(),
            at,
            log: Box::new(LogFile::new(id, path.to_owned(), false, 50, New::All)),
            lines: None,
            checked: at,
            removed: false,
        }
    }

    #[test]
    fn only_the_newest_removed_containers_are_remembered() {
        let mut logs = EndedLogs::default();
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there.log");
        fs::write(&there, "").unwrap();
        let gone = folder.path().join("gone.log");
        let removed = MAX_REMOVED as u64 + 50;
        for seconds in 0..removed {
            let one = ended(&gone, 100 + seconds);
            logs.0.insert(format!("removed-{seconds}"), one);
        }
        for seconds in 0..50 {
            let one = ended(&there, 1000 + seconds);
            logs.0.insert(format!("stopped-{seconds}"), one);
        }
        logs.forget();
        let kept = |id: String| logs.0.contains_key(&id);
        assert_eq!(logs.0.len(), MAX_REMOVED + 50);
        assert!((0..50).all(|number| kept(format!("stopped-{number}"))));
        assert!(kept("removed-0".to_owned()) && !kept(format!("removed-{}", removed - 1)));
    }

    #[test]
    fn a_container_that_has_just_ended_is_not_checked_yet() {
        let mut logs = EndedLogs::default();
        for number in 0..MAX_REMOVED + 50 {
            let one = ended(Path::new("/nonexistent"), 1);
            logs.0.insert(number.to_string(), one);
        }
        logs.forget();
        assert_eq!(logs.0.len(), MAX_REMOVED + 50);
    }
}
