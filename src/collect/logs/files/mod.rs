//! Decides for each container whether the agent can read its log file, and reads the log files. This module makes no calls to the
//! engine. It only reports which logs must be read by calls to the engine.
//!
//! In this module, a position is the number of a log line: the last finished line that was read. The number stays the same if the
//! log file is rotated.

mod ended;
mod entries;
mod file;
mod format;
mod json_file;
mod kept;
mod local;
mod offset;
mod open;
mod part;
mod parts;
mod position;
mod range;
mod read_log;
mod reader;
mod rotated;
mod search;
mod size;
pub(super) mod stopped;
mod unpacked;
pub(super) mod watches;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use foldhash::{HashMap, HashMapExt as _};

use crate::collect::docker::engine::Inspected;
use crate::collect::docker::{Inspection, ListedContainer, RunningContainer, StartedContainer};
use crate::collect::logs::new::{AgentStart, New};
use crate::collect::logs::seen::Handover;
use crate::messages::EndedLog;
use crate::model::{FileLog, LogLines, Positions};
use crate::settings::{CollectSettings, ContainerStats, DockerHost, HostRoot, Redaction};
use ended::EndedLogs;
pub(super) use ended::{LAST_LINES, MAX_ENDED};
use file::LogFile;
use kept::KeptFiles;
pub use kept::most_kept_files;
pub(super) use read_log::LogReading;
use read_log::ReadLog;
use watches::{Reports, Watches};

/// Limit on the time of a round. After this time, the round does not start to read another log. The next round begins with the
/// logs that were not read. So a long log does not delay the other logs for long.
const MAX_ROUND_TIME: Duration = Duration::from_secs(2);

/// The folder with a folder for each container, if the engine has its default data root.
const DEFAULT_FOLDER: &str = "/var/lib/docker/containers";
/// Number of attempts to watch a log again after it has changed. While the engine rotates a log, its file is missing for a moment.
const WATCH_ATTEMPTS: u8 = 5;

/// The log files of the running containers, and of containers that have ended.
pub(super) struct LogFiles {
    lines: usize,
    redaction: Redaction,
    container_stats: ContainerStats,
    root: HostRoot,
    /// Whether the engine is on this host and the agent sees the host's own journal.
    reads_journal: bool,
    /// The running containers, by id.
    known: HashMap<String, ReadLog>,
    /// The containers that have ended, by id. If such a container starts again, its log continues at the remembered position. Also
    /// the containers that have just started and are not in the container list yet.
    ended: EndedLogs,
    /// The folder in which the engine has a folder for each container.
    folder: PathBuf,
    kept: KeptFiles,
    /// See [`ReadLog::read`].
    read_from: Option<PathBuf>,
    /// The logs that are watched for changes. None while there are no live clients.
    watches: Option<Watches>,
    /// The logs that are watched for rotations. A log that is rotated is read immediately. Otherwise, a container that writes very
    /// fast could rotate away lines between two rounds that the agent has not counted.
    rotations: Option<Watches>,
    /// The logs that could not be watched again after a change, with the number of attempts.
    unwatched: HashMap<Arc<str>, u8>,
    /// When the agent started. A container that started earlier is in the first container list, or has ended before it.
    start: AgentStart,
    /// Whether the containers of the first list are known.
    has_first_list: bool,
    /// The index of the container at which the next round begins. If a round runs out of time, this is the first container that
    /// the round did not read.
    first: usize,
}

/// What has changed since the newest round.
pub(super) struct LogNews {
    /// The newest lines of each running container, by name.
    pub(super) lines: Vec<(String, Arc<LogLines>)>,
    /// See [`Readings::ended`].
    pub(super) ended: Vec<EndedLog>,
    /// See [`Readings::positions`].
    pub(super) positions: Positions,
    /// See [`Readings::files`].
    pub(super) files: HashMap<Arc<str>, FileLog>,
    /// See [`Readings::bytes`].
    pub(super) bytes: HashMap<Arc<str>, u64>,
}

/// For each container id, how far calls to the engine have read its log.
pub(super) type Handovers = HashMap<String, Handover>;

/// The results of a round.
#[derive(Default)]
pub(super) struct Readings {
    /// One result for each running container, in the same order.
    pub(super) running: Vec<LogReading>,
    /// The containers that have ended. The container that ended first is first.
    pub(super) ended: Vec<EndedLog>,
    /// For each container id, how far its log file was read, in this round or earlier.
    pub(super) positions: Positions,
    /// For each container id, what reads its log file again.
    pub(super) files: HashMap<Arc<str>, FileLog>,
    /// For each running container whose log is read from files, the size of all these files in bytes.
    pub(super) bytes: HashMap<Arc<str>, u64>,
    /// See [`LogFiles::folder`]. None if nothing was read.
    pub(super) folder: Option<PathBuf>,
}

impl Readings {
    /// Whether there is no log, also of a container that has ended.
    pub(super) fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.positions.is_empty() && self.files.is_empty()
    }
}

impl LogFiles {
    /// Prepares to read the newest lines of each container. If `CONTAINER_STATS` is `engine`, no log file is read.
    pub(super) fn new(settings: &CollectSettings) -> Self {
        Self {
            lines: settings.log_lines,
            redaction: settings.log_redact.clone(),
            container_stats: settings.container_stats,
            root: settings.host_root.clone(),
            reads_journal: settings.host_root == HostRoot::default()
                && !matches!(settings.docker, Some(DockerHost::Tcp(_))),
            known: HashMap::new(),
            ended: EndedLogs::default(),
            folder: settings.host_root.file(Path::new(DEFAULT_FOLDER)),
            kept: KeptFiles::within_limit(),
            read_from: None,
            watches: None,
            rotations: None,
            unwatched: HashMap::new(),
            start: AgentStart::now(),
            has_first_list: false,
            first: 0,
        }
    }

    /// Reads the log files that have grown. `called` has the positions up to which calls to the engine have read logs. `rotations`
    /// is the queue for the kernel's reports of rotations, if there is one. `excludes` tells whether the settings leave out a container.
    /// Blocks the thread while it reads the files.
    pub(super) fn read(
        &mut self,
        running: &[RunningContainer],
        called: &Handovers,
        rotations: Option<Arc<OwnedFd>>,
        excludes: impl Fn(&str) -> bool,
    ) -> Readings {
        if self.rotations.is_none() {
            self.rotations = rotations.map(|queue| Watches::new(queue, Reports::Rotations));
        }
        let end = Instant::now() + MAX_ROUND_TIME;
        self.update(running, called, excludes);
        self.has_first_list = true;
        self.first %= running.len().max(1);
        let (later, earlier) = running.split_at(self.first);
        for (place, container) in earlier.iter().chain(later).enumerate() {
            if Instant::now() >= end {
                self.first += place;
                break;
            }
            if let Some(known) = self.known.get_mut(&container.listed.id) {
                let mut is_watched = false;
                if let Some(log) = known.log_file() {
                    // A file that was opened before the log was watched can be rotated already.
                    let rotations = self.rotations.as_ref();
                    is_watched = rotations.is_some_and(|one| one.is_watched(log.container()));
                    for watches in self.watches.iter_mut().chain(&mut self.rotations) {
                        watches.watch(log.container(), log.path());
                    }
                }
                known.read(&mut self.read_from, is_watched);
            }
        }
        self.ended.read();
        let last = |container: &RunningContainer| match self.known.get(&container.listed.id) {
            Some(known) => known.last(),
            None => LogReading::Absent,
        };
        let (positions, files) = self.positions();
        Readings {
            running: running.iter().map(last).collect(),
            ended: self.ended.logs(),
            positions,
            files,
            bytes: size::bytes(self.known.values_mut()),
            folder: Some(self.folder.clone()),
        }
    }

    /// Reads the logs that have changed, and opens the logs of containers that have just started. Returns none if there is nothing
    /// new, or if `inotify` is none because there are no live clients. `inotify` is the queue for the kernel's reports of changes.
    /// Blocks the thread while it reads the files.
    pub(super) fn read_news(
        &mut self,
        started: Vec<StartedContainer>,
        inotify: Option<Arc<OwnedFd>>,
    ) -> Option<LogNews> {
        let started: Vec<_> = started
            .into_iter()
            .filter_map(|container| self.open_started(container))
            .collect();
        let has_rotated = self.read_rotated();
        let Some(inotify) = inotify else {
            self.watches = None;
            return None;
        };
        let watches = self.watches.take_if(|watches| watches.report_to(&inotify));
        let is_first = watches.is_none();
        let mut watches = watches.unwrap_or_else(|| Watches::new(inotify, Reports::NextChange));
        let mut changed = watches.changed();
        if is_first {
            let known = self.known.values().filter_map(ReadLog::log_file);
            let started = self.ended.files().filter(|log| log.is_kept());
            changed.extend(known.chain(started).map(|log| Arc::clone(log.container())));
            self.unwatched.clear();
        }
        let mut is_new = !started.is_empty() || has_rotated;
        changed.extend(started);
        let retried = std::mem::take(&mut self.unwatched);
        let first = changed.into_iter().map(|container| (container, 0));
        for (container, attempts) in retried.into_iter().chain(first) {
            is_new |= self.read_changed(&mut watches, container, attempts);
        }
        self.watches = Some(watches);
        let (positions, files) = self.positions();
        let bytes = size::bytes(self.known.values_mut());
        let lines = self.known.values().filter_map(ReadLog::named_lines);
        is_new.then(|| LogNews {
            lines: lines.collect(),
            ended: self.ended.logs(),
            positions,
            files,
            bytes,
        })
    }

    /// Whether a log has changed and could not be watched again yet.
    pub(super) fn must_retry(&self) -> bool {
        !self.unwatched.is_empty()
    }

    /// Reads the logs that have been rotated. Returns whether there are new lines.
    fn read_rotated(&mut self) -> bool {
        let Some(mut rotations) = self.rotations.take() else {
            return false;
        };
        let mut is_new = false;
        for container in rotations.changed() {
            is_new |= self.read_changed(&mut rotations, container, WATCH_ATTEMPTS);
        }
        self.rotations = Some(rotations);
        is_new
    }

    /// Watches and reads a log that has changed. Returns whether it has new lines.
    fn read_changed(&mut self, watches: &mut Watches, container: Arc<str>, attempts: u8) -> bool {
        // The log is watched before it is read, so that no change is missed.
        if let Some(ended) = self.ended.get_mut(&container) {
            watches.watch(&container, ended.file().path());
            return ended.read();
        }
        let Some(known) = self.known.get_mut(&*container) else {
            return false;
        };
        if let Some(log) = known.log_file()
            && !watches.watch(&container, log.path())
            && attempts < WATCH_ATTEMPTS
        {
            self.unwatched.insert(container, attempts + 1);
        }
        known.read_changed()
    }

    /// Opens the log of a container that has just started, before the container can be removed. Returns the container's id. None if
    /// there is no such log.
    fn open_started(&mut self, container: StartedContainer) -> Option<Arc<str>> {
        let StartedContainer { id, name, at } = container;
        if let Some(ended) = self.ended.get_mut(&id) {
            ended.start_again(name);
            return Some(Arc::clone(ended.file().container()));
        }
        if !self.has_first_list || !self.start.is_before(at) {
            return None;
        }
        let folder = self.folder.join(&id);
        if self.container_stats == ContainerStats::Engine || self.known.contains_key(&id) {
            return None;
        }
        // If there is no file, only the engine can read the log, or the container was removed already.
        let (path, now) = open::paths(&folder, &id).into_iter().find_map(|path| {
            let now = match open::refusal(&path, &id) {
                None => open::look_at(&path).ok()?,
                Some(_) => return None,
            };
            Some((path, now))
        })?;
        let created = now.created().ok();
        let created = created.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let created = created.map_or(0, |since| since.as_secs() as i64);
        let tty = open::has_terminal(&folder);
        let new = self.start.new_of(created);
        let container = Arc::from(id.as_str());
        let log = LogFile::new(Arc::clone(&container), path, tty, self.lines, new);
        let log = log.redacting(&self.redaction).created(created);
        let log = Box::new(log.keeping(&self.kept));
        if let Some(rotations) = &mut self.rotations {
            rotations.watch(&container, log.path());
        }
        self.ended.insert(id, name, log, None);
        Some(container)
    }

    /// Returns how far each log was read, and what reads it again.
    fn positions(&self) -> (Positions, HashMap<Arc<str>, FileLog>) {
        let known = self.known.values().filter_map(ReadLog::log_file);
        let ended = self.ended.files();
        let (mut positions, mut files) = (Positions::new(), HashMap::new());
        for log in known.chain(ended).filter(|log| log.has_been_read()) {
            positions.insert(Arc::clone(log.container()), log.log_position());
            files.insert(Arc::clone(log.container()), log.reader().clone());
        }
        (positions, files)
    }

    /// Decides how the logs of new containers are read. If a container no longer runs, moves it to `ended`.
    fn update(
        &mut self,
        running: &[RunningContainer],
        called: &Handovers,
        excludes: impl Fn(&str) -> bool,
    ) {
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
                // A new name can be one that is left out.
                && !excludes(&id)
            {
                self.ended.insert(id, name, log, lines);
            }
        }
        self.ended.forget();
    }

    /// Decides how a container's log is read. If the log was read earlier, reading continues at its position.
    fn start_log(
        &mut self,
        listed: &ListedContainer,
        inspected: &Inspected,
        called: &Handovers,
    ) -> ReadLog {
        let by_engine = |reason: String| ReadLog::Engine(reason, None);
        let is_in_journal = inspected.log_driver == "journald"
            && self.reads_journal
            && self.container_stats != ContainerStats::Engine;
        if is_in_journal {
            return ReadLog::Journal { tty: inspected.tty };
        }
        match self.log_path(&listed.id, inspected) {
            Err(reason) => by_engine(reason),
            Ok(path) => {
                let calls = called.get(&listed.id);
                let ended = self.ended.take(&listed.id);
                let ended = ended.filter(|_| calls.is_none());
                let ended =
                    ended.map(|(log, lines)| (Box::new(log.of_terminal(inspected.tty)), lines));
                let (log, lines) = ended.unwrap_or_else(|| {
                    let id = Arc::from(listed.id.as_str());
                    let new = match self.has_first_list {
                        true => self.start.new_of(listed.meta.created),
                        false => New::OnlyKept,
                    };
                    let log = LogFile::new(id, path, inspected.tty, self.lines, new);
                    let log = log.redacting(&self.redaction).created(listed.meta.created);
                    let log = log.keeping(&self.kept);
                    let log = match calls {
                        Some(calls) => log.after(calls),
                        None => log,
                    };
                    (Box::new(log), None)
                });
                ReadLog::File {
                    name: listed.bare_name().to_owned(),
                    log,
                    lines,
                    failed: 0,
                    host_error: None,
                }
            }
        }
    }

    /// Returns the path of a container's log, or the reason why the engine must read the log.
    fn log_path(&mut self, id: &str, inspected: &Inspected) -> Result<PathBuf, String> {
        if self.container_stats == ContainerStats::Engine {
            return Err("CONTAINER_STATS is engine".to_owned());
        }
        if let Some(path) = &inspected.log_file {
            return match open::refusal(path, id) {
                Some(reason) => Err(reason.to_owned()),
                None => {
                    self.learn_folder(path.parent());
                    Ok(self.root.file(path))
                }
            };
        }
        if inspected.log_driver == "json-file" {
            return Err("the engine reports no log file".to_owned());
        }
        let own = inspected.folder.as_deref();
        self.learn_folder(own.filter(|own| open::is_folder_of(own, id)));
        let folder = self.folder.join(id);
        let is_missing = |path: &Path| {
            let found = open::look_at(path);
            found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        open::path_of_driver(&inspected.log_driver, &folder)
            .filter(|path| open::is_folder_of(&folder, id) && !is_missing(path))
            .ok_or_else(|| format!("the logging driver is {}", inspected.log_driver))
    }

    /// Remembers where the engine has the folders of its containers. `own` is the folder of one container on the host.
    fn learn_folder(&mut self, own: Option<&Path>) {
        if let Some(containers) = own.and_then(Path::parent) {
            self.folder = self.root.file(containers);
        }
    }
}
