//! The logs source: reads the newest log lines of the running containers, and the last lines of containers that have ended.
//!
//! If the agent can read a container's log file, [`LogCollector`] reads the file (`files`). If not, [`LogCollector`] calls the
//! engine (`calls`). This module does not send log lines to clients.

mod calls;
mod entry;
mod files;
mod line;
mod line_piece;
mod new;
mod seen;
mod stopped;
mod tail;

use std::future::pending;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt as _};
use futures_util::{StreamExt, stream};
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::blocking::Blocking;
use super::docker::engine::{Call, EngineError};
use super::docker::{
    Containers, Inventory, ListedContainer, RunningContainer, StartedContainer, part_failed,
    patience,
};
use super::{Collector, Round, Source};
use crate::messages::{EndedLog, LogSample};
use crate::model::{FileLog, LogLines, LogOpener, Logs, Positions, Via};
use crate::settings::{CollectSettings, Redaction};
use calls::{CalledLog, MessageSource, SharedJournal};
pub use files::most_kept_files;
use files::{Handovers, LAST_LINES, LogFiles, LogNews, LogReading, MAX_ENDED, Readings};
use new::{AgentStart, New};
use seen::Handover;
use stopped::StoppedLogs;

/// Maximum number of calls for logs at the same time. Because several calls run at the same time, a slow answer does not delay
/// all other logs. The limit bounds the memory for the answers.
const MAX_PARALLEL_CALLS: usize = 16;

/// Pause before the next attempt to watch a log file that is missing.
const WATCH_RETRY: Duration = Duration::from_millis(20);

/// The actor that reads the containers' logs once per round, and more often while there are live clients.
pub type LogCollector = Collector<LogSource>;

/// The containers' logs as a [`Source`].
///
/// The source reads the engine's log files, because a file costs the engine no work. The source calls the engine only for a log
/// without a log file, and for a log file that the agent cannot read.
pub struct LogSource {
    containers: Containers,
    /// Number of log lines to show for each container.
    lines: usize,
    redaction: Redaction,
    /// How long a round waits for the container list.
    patience: Duration,
    /// Reads the log files.
    files: Blocking<LogFiles, FilesRead>,
    /// Whether there are live clients.
    has_live: watch::Receiver<bool>,
    /// The queue for the kernel's reports of changed log files. None while there are no live clients.
    inotify: Option<AsyncFd<Arc<OwnedFd>>>,
    /// The queue for the kernel's reports of rotated log files. None before the first round.
    rotations: Option<AsyncFd<Arc<OwnedFd>>>,
    /// Whether log files could not be watched. The agent does not try again.
    cannot_watch: bool,
    /// Whether a changed log file must be watched again.
    must_retry: bool,
    starts: broadcast::Receiver<StartedContainer>,
    /// The containers whose start was received after the newest reading.
    started: Vec<StartedContainer>,
    /// Whether `files` has no logs, because there was no container at the newest reading and since then.
    has_no_files: bool,
    /// The folder in which the engine has a folder for each container. None before the first reading.
    folder: Option<PathBuf>,
    /// How the newest round read the logs, and the reason if it is not from files alone.
    via: (Via, Option<String>),
    /// The journal, for containers with the driver `journald`.
    journal: SharedJournal,
    /// The logs that are read by calls to the engine or from the journal, by container id. Logs of containers that have ended are included.
    called: HashMap<String, Called>,
    start: AgentStart,
    /// Whether the containers of the first list are known.
    has_first_list: bool,
    stopped: Arc<StoppedLogs>,
}

/// The result of reading log files.
enum FilesRead {
    /// The running containers and one result for each of them.
    Round(Arc<Vec<RunningContainer>>, Readings),
    /// What has changed, and whether a log must be watched again.
    News(Option<LogNews>, bool),
}

/// A container whose log must be read by a call to the engine.
struct LogRequest<'r> {
    container: &'r ListedContainer,
    /// If the log is in the journal: whether the container has a TTY.
    journal: Option<bool>,
    /// The position at which reading continues, if the log file was read earlier.
    handover: Option<Handover>,
}

/// A log that is read by calls to the engine.
struct Called {
    name: String,
    /// None if the container's logging driver does not support reading. The agent logs this fact only once.
    log: Option<Box<CalledLog>>,
    /// If the log is in the journal: whether the container has a TTY.
    journal: Option<bool>,
    /// When the container ended. None while the container runs.
    ended: Option<Instant>,
}

impl LogSource {
    /// Creates a source of the newest `log_lines` log lines of each container, redacted by `log_redact`. If `container_stats`
    /// is `engine`, the source reads no log files.
    #[must_use]
    pub fn new(containers: Containers, settings: &CollectSettings) -> Self {
        Self {
            starts: containers.starts(),
            started: Vec::new(),
            has_live: watch::channel(false).1,
            inotify: None,
            rotations: None,
            cannot_watch: false,
            must_retry: false,
            has_no_files: false,
            folder: None,
            via: (Via::Kernel, None),
            containers,
            lines: settings.log_lines,
            redaction: settings.log_redact.clone(),
            patience: patience(settings.log_interval),
            files: Blocking::new("log files", LogFiles::new(settings)),
            journal: SharedJournal::default(),
            called: HashMap::new(),
            start: AgentStart::now(),
            has_first_list: false,
            stopped: Arc::new(StoppedLogs::new(settings)),
        }
    }

    /// Reads log files as soon as they change, while `has_live` is true.
    #[must_use]
    pub fn with_live(self, has_live: watch::Receiver<bool>) -> Self {
        Self { has_live, ..self }
    }

    /// Opens the queue for the kernel's reports of rotations, if it is not open.
    fn follow_rotations(&mut self) {
        if self.rotations.is_none() && !self.cannot_watch {
            self.rotations = self.queue("a container that writes very fast can lose log lines");
        }
    }

    /// Opens a queue for reports of the kernel. If this fails, logs the consequence.
    fn queue(&mut self, consequence: &str) -> Option<AsyncFd<Arc<OwnedFd>>> {
        let queue = files::watches::queue().and_then(files::watches::readable);
        match queue {
            Ok(queue) => Some(queue),
            Err(error) => {
                self.cannot_watch = true;
                warn!(%error, consequence, "cannot watch log files");
                None
            }
        }
    }

    /// Starts or stops to watch log files. Returns whether it has started or stopped.
    fn follow_live_clients(&mut self) -> bool {
        let has_live = *self.has_live.borrow_and_update();
        if has_live == self.inotify.is_some() {
            return false;
        }
        self.inotify = None;
        if !has_live {
            return true;
        }
        if !self.cannot_watch {
            self.inotify = self.queue("live clients get log lines with each snapshot");
        }
        self.inotify.is_some()
    }

    /// Reads the logs in `asked` by calls to the engine. Also reads the last lines of containers that have ended after the
    /// previous round.
    async fn ask_engine(&mut self, call: &Call, asked: &[LogRequest<'_>], gathered: &mut Gathered) {
        let due = self.due(asked);
        let (redaction, journal) = (&self.redaction, &self.journal);
        let mut answers = stream::iter(due)
            .map(|(id, mut called)| async move {
                let source = |tty| MessageSource::Journal(journal.clone(), tty);
                let source = called.journal.map(source);
                let answer = match &mut called.log {
                    Some(log) => log.read(call, source, &id, redaction).await,
                    None => Ok(Arc::default()),
                };
                (id, called, answer)
            })
            .buffer_unordered(MAX_PARALLEL_CALLS);
        while let Some((id, mut called, answer)) = answers.next().await {
            match answer {
                // `record_positions` adds the last lines of a container that has ended.
                Ok(_) if called.ended.is_some() => {}
                Ok(lines) => {
                    if let Some(log) = &called.log {
                        gathered.count(log, called.journal.is_some());
                    }
                    gathered.add(&called.name, lines);
                }
                Err(EngineError::Gone) => {}
                Err(EngineError::Unreadable) => {
                    info!(
                        container = called.name,
                        "the container's logging driver does not support reading"
                    );
                    called.log = None;
                    gathered.add(&called.name, Arc::default());
                }
                Err(_) if called.ended.is_some() => {}
                Err(error) => gathered.failures.push((called.name.clone(), error)),
            }
            self.called.insert(id, called);
        }
        drop(answers);
        self.record_positions(gathered);
    }

    /// If the engine does not answer, reports the containers in `asked` as failed. The positions of their logs do not change.
    fn report_outage(
        &mut self,
        inventory: &Inventory,
        asked: &[LogRequest<'_>],
        gathered: &mut Gathered,
    ) {
        if let Some(outage) = &inventory.outage {
            let failure =
                |asked: &LogRequest<'_>| (asked.container.name.to_string(), outage.error());
            gathered.failures.extend(asked.iter().map(failure));
        }
        self.record_positions(gathered);
    }

    /// Removes the logs for this round from `called`, and returns them. These are the logs in `asked`, and the logs of containers
    /// that have just ended.
    fn due(&mut self, asked: &[LogRequest<'_>]) -> Vec<(String, Called)> {
        let mut due: Vec<_> = asked
            .iter()
            .map(
                |LogRequest {
                     container,
                     journal,
                     handover,
                 }| {
                    let name = container.bare_name().to_owned();
                    let log = match self.called.remove(&container.id) {
                        Some(called) => called.log,
                        None => Some(Box::new(self.start_log(container, handover.as_ref()))),
                    };
                    let called = Called {
                        name,
                        log,
                        journal: *journal,
                        ended: None,
                    };
                    (container.id.clone(), called)
                },
            )
            .collect();
        let running = self.called.extract_if(|_, called| called.ended.is_none());
        due.extend(running.map(|(id, called)| {
            let ended = Some(Instant::now());
            (id, Called { ended, ..called })
        }));
        due
    }

    /// Prepares to read a log by calls to the engine. If there is a `handover`, reading continues at the position of the
    /// handover.
    fn start_log(&self, container: &ListedContainer, handover: Option<&Handover>) -> CalledLog {
        let new = match self.has_first_list {
            true => self.start.new_of(container.meta.created),
            false => New::OnlyKept,
        };
        let log = CalledLog::new(&container.id, self.lines, new);
        match handover {
            Some(file) => log.after(file),
            None => log,
        }
    }

    /// Returns how far calls to the engine have read the logs. If a log file becomes readable, reading continues there.
    fn handovers(&self) -> Handovers {
        let handover = |(id, called): (&String, &Called)| {
            let handover = called.log.as_ref()?.handover()?;
            Some((id.clone(), handover))
        };
        self.called.iter().filter_map(handover).collect()
    }

    /// Records how far each log has been read. If a container has ended, stores its last lines for the time [`LAST_LINES`].
    /// Remembers the positions of the newest [`MAX_ENDED`] ended containers.
    fn record_positions(&mut self, gathered: &mut Gathered) {
        let ended = |called: &Called| called.ended.filter(|_| called.log.is_some());
        let mut moments: Vec<Instant> = self.called.values().filter_map(ended).collect();
        moments.sort_unstable();
        let oldest = moments.len().checked_sub(MAX_ENDED);
        let oldest = oldest.map(|surplus| moments[surplus]);
        self.called.retain(|_, called| match called.ended {
            Some(moment) => called.log.is_some() && oldest.is_none_or(|oldest| moment >= oldest),
            None => true,
        });
        for Called {
            name, log, ended, ..
        } in self.called.values_mut()
        {
            let Some(log) = log else { continue };
            let Some(position) = log.position() else {
                continue;
            };
            let container = Arc::clone(log.container());
            if let Some(moment) = ended {
                if moment.elapsed() > LAST_LINES {
                    log.drop_lines();
                }
                gathered.ended.push(EndedLog {
                    name: name.clone(),
                    container: Arc::clone(&container),
                    position: position.line,
                    lines: log.lines(),
                });
            }
            if let Some(reader) = log.reader() {
                gathered.files.insert(Arc::clone(&container), reader);
            }
            gathered.positions.insert(container, position);
        }
    }
}

/// The results of a round.
#[derive(Default)]
struct Gathered {
    logs: Logs,
    ended: Vec<EndedLog>,
    positions: Positions,
    /// The logs that can be read from files, by container id.
    files: HashMap<Arc<str>, FileLog>,
    /// The sizes of logs that are read from files, by container id.
    bytes: HashMap<Arc<str>, u64>,
    failures: Vec<(String, EngineError)>,
    /// Number of logs that were read from files or from the journal.
    by_file: usize,
    /// Number of logs that were read by calls to the engine.
    by_engine: usize,
    /// The first reason in this round for reading a log by calls to the engine. None if there were no such logs.
    reason: Option<String>,
    opener: Option<LogOpener>,
}

impl Gathered {
    fn add(&mut self, name: &str, lines: Arc<LogLines>) {
        self.logs.insert(name.to_owned(), lines);
    }

    /// Counts a log that was read from the journal or by calls to the engine.
    fn count(&mut self, log: &CalledLog, has_journal: bool) {
        if log.is_in_journal() {
            self.by_file += 1;
            return;
        }
        self.by_engine += 1;
        if has_journal {
            let reason = match log.journal_error() {
                Some(error) => format!("the logging driver is journald, and {error}"),
                None => "the logging driver is journald".to_owned(),
            };
            self.reason.get_or_insert(reason);
        }
    }

    fn finish(self) -> Round<LogSample> {
        let error = part_failed("logs", &self.failures);
        if let Some(error) = error.as_ref().filter(|_| self.logs.is_empty()) {
            return Round::failed(error);
        }
        let via = Via::of(self.by_engine, self.by_file + self.by_engine);
        let reason = self.reason.clone().filter(|_| via != Via::Kernel);
        Round {
            error,
            ..Round::whole(self.sample(via, reason))
        }
    }

    fn sample(self, via: Via, via_reason: Option<String>) -> LogSample {
        LogSample {
            via,
            via_reason,
            logs: Arc::new(self.logs),
            ended: Arc::new(self.ended),
            positions: Arc::new(self.positions),
            files: Arc::new(self.files),
            bytes: Arc::new(self.bytes),
            opener: self.opener,
        }
    }
}

impl Source for LogSource {
    const NAME: &'static str = "logs";

    type Sample = LogSample;

    async fn collect(&mut self) -> Round<LogSample> {
        let inventory = match self.containers.now(self.patience).await {
            Ok(inventory) => inventory,
            Err(error) => return Round::failed(error.to_string()),
        };
        let known = inventory.clone();
        let called = self.handovers();
        self.follow_rotations();
        let rotations = self.rotations.as_ref();
        let rotations = rotations.map(|queue| Arc::clone(queue.get_ref()));
        let read = move |files: &mut LogFiles| {
            let running = known.running();
            let readings = files.read(&running, &called, rotations, |id| known.excludes(id));
            FilesRead::Round(running, readings)
        };
        let (running, readings) = if self.has_no_files && inventory.as_listed().is_empty() {
            // Another thread would have nothing to read.
            Default::default()
        } else {
            match self.files.read(read).await {
                Ok(FilesRead::Round(running, readings)) => (running, readings),
                Ok(FilesRead::News(..)) => return Round::failed("the log files were not read"),
                Err(late) => return Round::failed(late),
            }
        };
        self.has_no_files = running.is_empty() && readings.is_empty();
        self.folder = readings.folder.or(self.folder.take());
        if let Some(folder) = &self.folder {
            self.stopped.update(folder.clone(), inventory.call.clone());
        }
        let mut gathered = Gathered {
            ended: readings.ended,
            positions: readings.positions,
            files: readings.files,
            bytes: readings.bytes,
            opener: Some(LogOpener(self.stopped.clone())),
            ..Gathered::default()
        };
        let mut others = Vec::new();
        for (container, reading) in running.iter().map(|one| &*one.listed).zip(readings.running) {
            match reading {
                LogReading::Lines(lines) => {
                    gathered.by_file += 1;
                    gathered.add(container.bare_name(), lines);
                    self.called.remove(&container.id);
                }
                LogReading::Stale(lines, error) => {
                    gathered.by_file += 1;
                    gathered.add(container.bare_name(), lines);
                    gathered.failures.push((container.name.to_string(), error));
                }
                LogReading::Engine(reason, handover) => {
                    gathered.reason.get_or_insert(reason);
                    others.push(LogRequest {
                        container,
                        journal: None,
                        handover,
                    });
                }
                LogReading::Journal { tty } => others.push(LogRequest {
                    container,
                    journal: Some(tty),
                    handover: None,
                }),
                LogReading::Unanswered(error) => {
                    gathered.failures.push((container.name.to_string(), error));
                }
                LogReading::Absent => {}
            }
        }
        match &inventory.call {
            Some(call) => self.ask_engine(call, &others, &mut gathered).await,
            None => self.report_outage(&inventory, &others, &mut gathered),
        }
        self.has_first_list = true;
        let round = gathered.finish();
        if let Some(sample) = &round.sample {
            self.via = (sample.via.clone(), sample.via_reason.clone());
        }
        Round {
            retry: inventory.outage.is_some(),
            ..round
        }
    }

    type News = LogSample;

    async fn wait_for_news(&mut self) {
        loop {
            if self.follow_live_clients() {
                return;
            }
            let changed = reported(self.inotify.as_ref());
            let rotated = reported(self.rotations.as_ref());
            tokio::select! {
                started = self.starts.recv() => match started {
                    Ok(started) => {
                        self.started.push(started);
                        return;
                    }
                    Err(RecvError::Lagged(_)) => {}
                    // The agent is stopping.
                    Err(RecvError::Closed) => pending().await,
                },
                changed = self.has_live.changed() => if changed.is_err() {
                    // The agent is stopping.
                    pending::<()>().await;
                },
                () = changed => return,
                () = rotated => return,
                () = sleep(WATCH_RETRY), if self.must_retry => return,
            }
        }
    }

    async fn read_news(&mut self) -> Option<LogSample> {
        while let Ok(started) = self.starts.try_recv() {
            self.started.push(started);
        }
        let started = std::mem::take(&mut self.started);
        self.has_no_files &= started.is_empty();
        let inotify = self
            .inotify
            .as_ref()
            .map(|queue| Arc::clone(queue.get_ref()));
        let read = move |files: &mut LogFiles| {
            let news = files.read_news(started, inotify);
            FilesRead::News(news, files.must_retry())
        };
        let Ok(FilesRead::News(news, must_retry)) = self.files.read(read).await else {
            // The next round tries again, and reports an error.
            return None;
        };
        self.must_retry = must_retry;
        let news = news?;
        let mut gathered = Gathered {
            ended: news.ended,
            positions: news.positions,
            files: news.files,
            bytes: news.bytes,
            opener: Some(LogOpener(self.stopped.clone())),
            ..Gathered::default()
        };
        for (name, lines) in news.lines {
            gathered.add(&name, lines);
        }
        for called in self.called.values().filter(|called| called.ended.is_none()) {
            // A log that cannot be read has an empty list of lines.
            let lines = called
                .log
                .as_ref()
                .map_or(Some(Arc::default()), |log| log.lines());
            if let Some(lines) = lines {
                gathered.add(&called.name, lines);
            }
        }
        self.record_positions(&mut gathered);
        let (via, via_reason) = self.via.clone();
        Some(gathered.sample(via, via_reason))
    }
}

/// Waits until the kernel reports something. Waits forever without a queue.
async fn reported(queue: Option<&AsyncFd<Arc<OwnedFd>>>) {
    match queue {
        Some(queue) => {
            if let Ok(mut ready) = queue.readable().await {
                // `read_news` reads all reports.
                ready.clear_ready();
            }
        }
        None => pending().await,
    }
}
