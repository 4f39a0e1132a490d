//! Decides for each container whether the agent can read its log file, and reads the log files. This module makes no calls to the
//! engine. It only reports which logs must be read by calls to the engine.
//!
//! In this module, a position is the number of a log line: the last finished line that was read. The number stays the same if the
//! log file is rotated.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::file::LogFile;
use super::new::{FirstRound, New};
use super::open;
use super::seen::Handover;
use crate::collect::docker::engine::{EngineError, Inspected};
use crate::collect::docker::{Inspection, ListedContainer, RunningContainer};
use crate::messages::EndedLog;
use crate::model::{FileLog, LogLines, Positions};
use crate::settings::{CollectSettings, ContainerStats, HostRoot, Redaction};

/// Maximum number of ended containers whose positions the agent remembers.
pub(super) const MAX_ENDED: usize = 1024;
/// Maximum number of removed containers that the agent remembers. A removed container cannot start again. Its position is
/// only for clients that lag.
const MAX_REMOVED: usize = 128;
/// Time for which the agent stores the last lines of an ended container.
pub(super) const LAST_LINES: Duration = Duration::from_secs(60);
/// Time between two checks whether the log file of an ended container still exists. If the file is gone, the container was
/// removed.
const CHECK_INTERVAL: Duration = LAST_LINES;

/// Limit on the time of a round. After this time, the round does not start to read another log. The next round begins with the
/// logs that were not read. So a long log does not delay the other logs for long.
const MAX_ROUND_TIME: Duration = Duration::from_secs(2);

/// The log files of the running containers, and of containers that have ended.
pub(super) struct LogFiles {
    lines: usize,
    redaction: Redaction,
    container_stats: ContainerStats,
    root: HostRoot,
    /// The running containers, by id.
    known: HashMap<String, ReadLog>,
    /// The containers that have ended, by id. If such a container starts again, its log continues at the remembered position.
    ended: HashMap<String, Ended>,
    /// The time of the first round. None before the first round.
    first_round: Option<FirstRound>,
    /// The index of the container at which the next round begins. If a round runs out of time, this is the first container that
    /// the round did not read.
    first: usize,
}

/// The way in which a container's log is read, and the result of the newest reading.
enum ReadLog {
    /// The log is read from its file.
    File {
        name: String,
        log: Box<LogFile>,
        /// None before the first reading.
        lines: Option<Arc<LogLines>>,
        /// Number of failures that were ignored after the newest success: 0 or 1. A second failure is not ignored.
        failed: u32,
        /// The reason why the file cannot be read now, if the agent or the host is the cause.
        host_error: Option<EngineError>,
    },
    /// The log is read by calls to the engine. The fields are the reason, and the position where the calls continue.
    Engine(String, Option<Handover>),
    /// The engine did not answer the inspection of the container.
    Unanswered(EngineError),
}

/// The log of a container that has ended.
struct Ended {
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

/// The result of reading one container's log from its file.
pub(super) enum LogReading {
    /// The newest lines.
    Lines(Arc<LogLines>),
    /// The lines of an earlier reading, and the reason why newer lines cannot be read.
    Stale(Arc<LogLines>, EngineError),
    /// The log must be read by calls to the engine. The fields are the reason, and the position where the calls continue. The
    /// position is None if the file was never read.
    Engine(String, Option<Handover>),
    /// There are no lines. The engine did not answer the inspection, or the agent or the host cannot open files now.
    Unanswered(EngineError),
    /// There are no lines. The container has just ended or started, or the round had no time for its log.
    Absent,
}

/// For each container id, how far calls to the engine have read its log.
pub(super) type Handovers = HashMap<String, Handover>;

/// The results of a round.
pub(super) struct Readings {
    /// One result for each running container, in the same order.
    pub(super) running: Vec<LogReading>,
    /// The containers that have ended. The container that ended first is first.
    pub(super) ended: Vec<EndedLog>,
    /// For each container id, how far its log file was read, in this round or earlier.
    pub(super) positions: Positions,
    /// For each container id, what reads its log file again.
    pub(super) files: HashMap<Arc<str>, FileLog>,
}

impl LogFiles {
    /// Prepares to read the newest lines of each container. If `CONTAINER_STATS` is `engine`, no log file is read.
    pub(super) fn new(settings: &CollectSettings) -> Self {
        Self {
            lines: settings.log_lines,
            redaction: settings.log_redact.clone(),
            container_stats: settings.container_stats,
            root: settings.host_root.clone(),
            known: HashMap::new(),
            ended: HashMap::new(),
            first_round: None,
            first: 0,
        }
    }

    /// Reads the log files that have grown. `called` has the positions up to which calls to the engine have read logs. Blocks the
    /// thread while it reads the files.
    pub(super) fn read(&mut self, running: &[RunningContainer], called: &Handovers) -> Readings {
        let end = Instant::now() + MAX_ROUND_TIME;
        self.update(running, called);
        self.first_round.get_or_insert_with(FirstRound::now);
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
        let known = self.known.values().filter_map(ReadLog::log_file);
        let ended = self.ended.values().map(|ended| &*ended.log);
        let (mut positions, mut files) = (Positions::new(), HashMap::new());
        for log in known.chain(ended) {
            positions.insert(Arc::clone(log.container()), log.log_position());
            files.insert(Arc::clone(log.container()), log.reader().clone());
        }
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
            files,
        }
    }

    /// Decides how the logs of new containers are read. If a container no longer runs, moves it to `ended`.
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
                        host_error,
                        ..
                    }),
                    _,
                ) => ReadLog::File {
                    name: listed.bare_name().to_owned(),
                    log,
                    lines,
                    failed,
                    host_error,
                },
                // The log was not read from its file in the previous round. The cause can be temporary, so each round tries the
                // file again.
                (_, Inspection::Failed { error, before, .. }) => match before {
                    Some(inspected) => self.start_log(listed, inspected, called),
                    None => ReadLog::Unanswered(error.clone()),
                },
                (_, Inspection::Done(inspected)) => self.start_log(listed, inspected, called),
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

    /// Forgets the last lines of containers that ended long ago. If there are too many ended containers, forgets those that ended
    /// first.
    fn forget(&mut self) {
        for ended in self.ended.values_mut() {
            if ended.at.elapsed() > LAST_LINES {
                ended.lines = None;
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
            .ended
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
        self.ended.retain(|_, ended| !of(ended) || ended.at > last);
    }

    /// Decides how a container's log is read. If the log was read earlier, reading continues at its position.
    fn start_log(
        &mut self,
        listed: &ListedContainer,
        inspected: &Inspected,
        called: &Handovers,
    ) -> ReadLog {
        let by_engine = |reason: String| ReadLog::Engine(reason, None);
        match &inspected.log_file {
            _ if self.container_stats == ContainerStats::Engine => {
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
                    let new = match self.first_round {
                        Some(first_round) => first_round.new_of(listed.meta.created),
                        None => New::OnlyKept,
                    };
                    let log =
                        LogFile::new(id, self.root.file(path), inspected.tty, self.lines, new);
                    let log = log.redacting(&self.redaction).created(listed.meta.created);
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
                    host_error: None,
                }
            }
            None if inspected.log_driver == "json-file" => {
                by_engine("the engine reports no log file".to_owned())
            }
            None => by_engine(format!("the logging driver is {}", inspected.log_driver)),
        }
    }
}

/// Whether an error is the fault of the agent or the host, and not of the file. Examples are too few file descriptors and too
/// little memory.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN)
    )
}

impl ReadLog {
    /// Reads the new lines of a log that is read from its file. Does nothing for other logs.
    fn read(&mut self) {
        let Self::File {
            log,
            lines,
            failed,
            host_error,
            ..
        } = self
        else {
            return;
        };
        match log.update() {
            Ok(grown) => {
                (*failed, *host_error) = (0, None);
                if grown {
                    *lines = Some(Arc::new(log.lines()));
                }
            }
            // The first failure is ignored, because there is no file for a moment during a rotation.
            Err(_) if lines.is_some() && *failed == 0 => *failed = 1,
            // A call to the engine would also fail, and costs more than a retry.
            Err(error) if is_temporary(&error) => {
                *host_error = Some(EngineError::Failed {
                    call: "log file",
                    reason: error.to_string(),
                });
            }
            Err(error) => {
                *self = Self::Engine(format!("cannot read the log file: {error}"), log.handover());
            }
        }
    }

    /// Returns the result of the newest reading.
    fn last(&self) -> LogReading {
        match self {
            Self::File {
                lines, host_error, ..
            } => match (lines, host_error) {
                (Some(lines), None) => LogReading::Lines(Arc::clone(lines)),
                (Some(lines), Some(host_error)) => {
                    LogReading::Stale(Arc::clone(lines), host_error.clone())
                }
                (None, Some(host_error)) => LogReading::Unanswered(host_error.clone()),
                (None, None) => LogReading::Absent,
            },
            Self::Engine(reason, handover) => LogReading::Engine(reason.clone(), handover.clone()),
            Self::Unanswered(error) => LogReading::Unanswered(error.clone()),
        }
    }

    /// Returns the log, if it is read from its file and has been read.
    fn log_file(&self) -> Option<&LogFile> {
        match self {
            Self::File { log, .. } => log.has_been_read().then_some(&**log),
            Self::Engine(..) | Self::Unanswered(_) => None,
        }
    }
}

impl Ended {
    /// Reads the last lines of a container that has just ended. After that, stores only these lines and the position.
    fn of(name: String, mut log: Box<LogFile>, lines: Option<Arc<LogLines>>) -> Self {
        let lines = match log.update() {
            Ok(true) => Some(Arc::new(log.lines())),
            // There are no new lines, or the file was removed with its container.
            Ok(false) | Err(_) => lines,
        };
        log.drop_lines();
        let now = Instant::now();
        Self {
            name,
            at: now,
            lines,
            log,
            checked: now,
            removed: false,
        }
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

    use super::{Ended, LogFile, LogFiles, MAX_REMOVED, New};
    use crate::settings::CollectSettings;

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
        let settings = CollectSettings::from_env(std::iter::empty()).unwrap();
        let mut files = LogFiles::new(&settings);
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there.log");
        fs::write(&there, "").unwrap();
        let gone = folder.path().join("gone.log");
        let removed = MAX_REMOVED as u64 + 50;
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
        assert_eq!(files.ended.len(), MAX_REMOVED + 50);
        assert!((0..50).all(|number| kept(format!("stopped-{number}"))));
        assert!(kept("removed-0".to_owned()) && !kept(format!("removed-{}", removed - 1)));
    }

    #[test]
    fn a_container_that_has_just_ended_is_not_checked_yet() {
        let settings = CollectSettings::from_env(std::iter::empty()).unwrap();
        let mut files = LogFiles::new(&settings);
        for number in 0..MAX_REMOVED + 50 {
            let one = ended(Path::new("/nonexistent"), 1);
            files.ended.insert(number.to_string(), one);
        }
        files.forget();
        assert_eq!(files.ended.len(), MAX_REMOVED + 50);
    }
}
