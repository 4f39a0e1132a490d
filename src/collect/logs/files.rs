//! The logs that are read from the engine's files, and which those are.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::file::LogFile;
use super::new::{Began, New};
use super::open;
use super::seen::Handover;
use crate::collect::docker::engine::{EngineError, Inspected};
use crate::collect::docker::{Inspection, ListedContainer, RunningContainer};
use crate::messages::EndedLog;
use crate::model::{LogLines, Positions};
use crate::settings::{CollectSettings, ContainerStats, HostRoot, Redaction};

/// The most containers that have ended whose position is kept.
pub(super) const MOST_ENDED: usize = 1024;
/// The most of them that are removed, and so cannot be started again: what is kept of those is for clients that are behind.
const MOST_REMOVED: usize = 128;
/// How long the last lines of a container that has ended are kept.
pub(super) const LAST_LINES: Duration = Duration::from_secs(60);
/// How often it is looked whether it is still there.
const LOOK_AGAIN: Duration = LAST_LINES;

/// After this long in a round the logs that are left stay as they are until the next one: some may
/// be long, and none keeps the others waiting.
const ENOUGH: Duration = Duration::from_secs(2);

/// The logs of the running containers, as far as their files yield them.
pub(super) struct LogFiles {
    lines: usize,
    redaction: Redaction,
    way: ContainerStats,
    root: HostRoot,
    /// RunningContainer containers, by id.
    known: HashMap<String, ReadLog>,
    /// Containers that have ended, by id: one that is started again goes on where it was.
    ended: HashMap<String, Ended>,
    /// When the first containers were met: what those that started later have written since is new.
    began: Option<Began>,
    /// Where the next round begins: at a container that the last one had no time for.
    first: usize,
}

/// How a container's log is read, and what was read last.
enum ReadLog {
    /// From its file.
    File {
        name: String,
        log: Box<LogFile>,
        /// None before the first reading.
        lines: Option<Arc<LogLines>>,
        /// How often in a row it could not be read.
        failed: u32,
        /// Why it cannot be read now, where that is not the file's fault.
        trouble: Option<EngineError>,
    },
    /// By calls; why, and where to go on.
    Engine(String, Option<Handover>),
    /// The engine does not answer for it.
    Unanswered(EngineError),
}

/// The log of a container that has ended.
struct Ended {
    name: String,
    at: Instant,
    log: Box<LogFile>,
    /// None once they are old.
    lines: Option<Arc<LogLines>>,
    /// When it was looked last whether the container is still there, and whether it was not.
    looked: Instant,
    removed: bool,
}

/// What came of reading one container's log from its file.
pub(super) enum LogReading {
    /// Its newest lines.
    Lines(Arc<LogLines>),
    /// Its lines as they were last, and why there are no newer ones.
    Stale(Arc<LogLines>, EngineError),
    /// There is no file that could be read: why. The engine is asked, for what comes after the lines that were read, if any were.
    Engine(String, Option<Handover>),
    /// The engine did not say where it is.
    Unanswered(EngineError),
    /// The container has just ended, or was just restarted.
    Absent,
}

/// Where logs go on of which the engine was asked last, by container id.
pub(super) type Handovers = HashMap<String, Handover>;

/// What came of a round.
pub(super) struct Readings {
    /// Of the running containers, in their order.
    pub(super) running: Vec<LogReading>,
    /// Of those that have ended, in that order.
    pub(super) ended: Vec<EndedLog>,
    /// How far all of them have been read, whatever came of this round.
    pub(super) positions: Positions,
}

impl LogFiles {
    /// The newest lines of each container; no files at all where calls are forced.
    pub(super) fn new(settings: &CollectSettings) -> Self {
        Self {
            lines: settings.log_lines,
            redaction: settings.log_redact.clone(),
            way: settings.container_stats,
            root: settings.host_root.clone(),
            known: HashMap::new(),
            ended: HashMap::new(),
            began: None,
            first: 0,
        }
    }

    /// Reads the files that have grown; `called` are the logs of which the engine was asked last. Blocks.
    pub(super) fn read(&mut self, running: &[RunningContainer], called: &Handovers) -> Readings {
        let end = Instant::now() + ENOUGH;
        self.update(running, called);
        self.began.get_or_insert_with(Began::now);
        self.first %= running.len().max(1);
        let (later, earlier) = running.split_at(self.first);
        for (place, container) in earlier.iter().chain(later).enumerate() {
            if Instant::now() >= end {
                self.first += place;
                break;
            }
            if let Some(known) = self.known.get_mut(&container.listed.id) {
                known.read();
            }
        }
        let known = self.known.values().filter_map(ReadLog::position);
        let ended = self.ended.values().map(Ended::position);
        let positions = known.chain(ended).collect();
        let last = |container: &RunningContainer| match self.known.get(&container.listed.id) {
            Some(known) => known.last(),
            None => LogReading::Absent,
        };
        let mut ended: Vec<&Ended> = self.ended.values().collect();
        ended.sort_unstable_by_key(|ended| ended.at);
        Readings {
            running: running.iter().map(last).collect(),
            ended: ended.into_iter().map(Ended::log).collect(),
            positions,
        }
    }

    /// Settles how containers that are not known yet are read, and lays aside those that no
    /// longer run.
    fn update(&mut self, running: &[RunningContainer], called: &Handovers) {
        let mut before = std::mem::replace(&mut self.known, HashMap::with_capacity(running.len()));
        for RunningContainer {
            listed, inspection, ..
        } in running
        {
            let known = match (before.remove(&listed.id), inspection) {
                (
                    Some(ReadLog::File {
                        log,
                        lines,
                        failed,
                        trouble,
                        ..
                    }),
                    _,
                ) => ReadLog::File {
                    name: listed.bare_name().to_owned(),
                    log,
                    lines,
                    failed,
                    trouble,
                },
                // What could not be read is tried again: the reason may have been a passing one.
                (_, Inspection::Failed { error, before, .. }) => match before {
                    Some(inspected) => self.meet(listed, inspected, called),
                    None => ReadLog::Unanswered(error.clone()),
                },
                (_, Inspection::Done(inspected)) => self.meet(listed, inspected, called),
                (_, Inspection::Due) => continue,
            };
            self.known.insert(listed.id.clone(), known);
        }
        for (id, known) in before {
            if let ReadLog::File {
                name, log, lines, ..
            } = known
            {
                self.ended.insert(id, Ended::of(name, log, lines));
            }
        }
        self.forget();
    }

    /// Forgets the last lines that are old, and the oldest of too many that have ended.
    fn forget(&mut self) {
        for ended in self.ended.values_mut() {
            if ended.at.elapsed() > LAST_LINES {
                ended.lines = None;
            }
            if !ended.removed && ended.looked.elapsed() > LOOK_AGAIN {
                ended.removed = !ended.log.is_there();
                ended.looked = Instant::now();
            }
        }
        self.keep_newest(MOST_REMOVED, |ended| ended.removed);
        self.keep_newest(MOST_ENDED, |_| true);
    }

    /// Of those that have ended and are of some kind, forgets the oldest beyond so many.
    fn keep_newest(&mut self, most: usize, of: fn(&Ended) -> bool) {
        let mut moments: Vec<Instant> = self
            .ended
            .values()
            .filter(|ended| of(ended))
            .map(|ended| ended.at)
            .collect();
        let surplus = moments.len().saturating_sub(most);
        if surplus == 0 {
            return;
        }
        let (_, last, _) = moments.select_nth_unstable(surplus - 1);
        let last = *last;
        self.ended.retain(|_, ended| !of(ended) || ended.at > last);
    }

    fn meet(
        &mut self,
        listed: &ListedContainer,
        inspected: &Inspected,
        called: &Handovers,
    ) -> ReadLog {
        let by_engine = |reason: String| ReadLog::Engine(reason, None);
        match &inspected.log_file {
            _ if self.way == ContainerStats::Engine => {
                by_engine("CONTAINER_STATS is engine".to_owned())
            }
            Some(path) => {
                if let Some(reason) = open::refusal(path, &listed.id) {
                    return by_engine(reason.to_owned());
                }
                let calls = called.get(&listed.id);
                let ended = self.ended.remove(&listed.id);
                let ended = ended.filter(|_| calls.is_none());
                let log = ended.map(|ended| ended.log).unwrap_or_else(|| {
                    let id = Arc::from(listed.id.as_str());
                    let new = match self.began {
                        Some(began) => began.new_of(listed.meta.created),
                        None => New::Nothing,
                    };
                    let log =
                        LogFile::new(id, self.root.file(path), inspected.tty, self.lines, new);
                    let log = log.redacting(&self.redaction);
                    Box::new(match calls {
                        Some(calls) => log.after(calls),
                        None => log,
                    })
                });
                ReadLog::File {
                    name: listed.bare_name().to_owned(),
                    log,
                    lines: None,
                    failed: 0,
                    trouble: None,
                }
            }
            None if inspected.log_driver == "json-file" => {
                by_engine("the log is in no file of Docker's".to_owned())
            }
            None => by_engine(format!("the logging driver is {}", inspected.log_driver)),
        }
    }
}

/// Whether an error is the agent's or the host's, and not the file's: descriptors or memory are short.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN)
    )
}

impl ReadLog {
    /// Reads what the file has more than before, if it is one.
    fn read(&mut self) {
        let Self::File {
            log,
            lines,
            failed,
            trouble,
            ..
        } = self
        else {
            return;
        };
        match log.update() {
            Ok(grown) => {
                (*failed, *trouble) = (0, None);
                if grown {
                    *lines = Some(Arc::new(log.lines()));
                }
            }
            // Once may be chance: between the end of a file and the beginning of the next there is
            // none for a moment.
            Err(_) if lines.is_some() && *failed == 0 => *failed = 1,
            // The engine would not be reached either, and its answer would cost more.
            Err(error) if is_passing(&error) => {
                *trouble = Some(EngineError::Failed {
                    call: "log file",
                    reason: error.to_string(),
                });
            }
            Err(error) => *self = Self::Engine(format!("its file: {error}"), log.handover()),
        }
    }

    /// What was read last.
    fn last(&self) -> LogReading {
        match self {
            Self::File { lines, trouble, .. } => match (lines, trouble) {
                (Some(lines), None) => LogReading::Lines(Arc::clone(lines)),
                (Some(lines), Some(trouble)) => {
                    LogReading::Stale(Arc::clone(lines), trouble.clone())
                }
                (None, Some(trouble)) => LogReading::Unanswered(trouble.clone()),
                (None, None) => LogReading::Absent,
            },
            Self::Engine(reason, handover) => LogReading::Engine(reason.clone(), handover.clone()),
            Self::Unanswered(error) => LogReading::Unanswered(error.clone()),
        }
    }

    /// How far a file has been read.
    fn position(&self) -> Option<(Arc<str>, u64)> {
        match self {
            Self::File { log, .. } => {
                let read = log.has_been_read();
                read.then(|| (Arc::clone(log.container()), log.position()))
            }
            Self::Engine(..) | Self::Unanswered(_) => None,
        }
    }
}

impl Ended {
    /// Reads the last lines, which may be the most interesting, before the log is laid aside.
    fn of(name: String, mut log: Box<LogFile>, lines: Option<Arc<LogLines>>) -> Self {
        let lines = match log.update() {
            Ok(true) => Some(Arc::new(log.lines())),
            // Nothing more, or removed with the container.
            Ok(false) | Err(_) => lines,
        };
        log.rest();
        let now = Instant::now();
        Self {
            name,
            at: now,
            lines,
            log,
            looked: now,
            removed: false,
        }
    }

    fn position(&self) -> (Arc<str>, u64) {
        (Arc::clone(self.log.container()), self.log.position())
    }

    fn log(&self) -> EndedLog {
        let (container, position) = self.position();
        EndedLog {
            name: self.name.clone(),
            container,
            position,
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

    use super::{Ended, LogFile, LogFiles, MOST_REMOVED, New};
    use crate::settings::CollectSettings;

    /// One that ended so many seconds ago.
    fn ended(path: &Path, seconds: u64) -> Ended {
        let at = Instant::now() - Duration::from_secs(seconds);
        let id = Arc::from(format!("{seconds}"));
        Ended {
            name: "web".to_owned(),
            at,
            log: Box::new(LogFile::new(id, path.to_owned(), false, 50, New::All)),
            lines: None,
            looked: at,
            removed: false,
        }
    }

    #[test]
    fn of_containers_that_are_removed_only_the_newest_are_kept() {
        let settings = CollectSettings::from_env(std::iter::empty()).unwrap();
        let mut files = LogFiles::new(&settings);
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there.log");
        fs::write(&there, "").unwrap();
        let gone = folder.path().join("gone.log");
        let removed = MOST_REMOVED as u64 + 50;
        for seconds in 0..removed {
            let one = ended(&gone, 100 + seconds);
            files.ended.insert(format!("removed-{seconds}"), one);
        }
        for seconds in 0..50 {
            let one = ended(&there, 1000 + seconds);
            files.ended.insert(format!("stopped-{seconds}"), one);
        }
        files.forget();
        let kept = |id: String| files.ended.contains_key(&id);
        assert_eq!(files.ended.len(), MOST_REMOVED + 50);
        assert!((0..50).all(|number| kept(format!("stopped-{number}"))));
        assert!(kept("removed-0".to_owned()) && !kept(format!("removed-{}", removed - 1)));
    }

    #[test]
    fn who_has_just_ended_is_not_looked_for_yet() {
        let settings = CollectSettings::from_env(std::iter::empty()).unwrap();
        let mut files = LogFiles::new(&settings);
        for number in 0..MOST_REMOVED + 50 {
            let one = ended(Path::new("/nonexistent"), 1);
            files.ended.insert(number.to_string(), one);
        }
        files.forget();
        assert_eq!(files.ended.len(), MOST_REMOVED + 50);
    }
}
