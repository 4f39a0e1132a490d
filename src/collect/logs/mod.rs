//! The containers' logs: [`LogCollector`], the two ways to them, and the assembly of lines.

mod calls;
mod entries;
mod fetch;
mod file;
mod files;
mod line;
mod new;
mod open;
mod pace;
mod part;
mod position;
mod rotated;
mod seen;
mod tail;
mod unpacked;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tracing::info;

use super::blocking::Blocking;
use super::docker::engine::{Call, EngineError};
use super::docker::{
    Containers, Inventory, ListedContainer, RunningContainer, part_failed, patience,
};
use super::{Collector, Round, Source};
use crate::messages::{EndedLog, LogSample};
use crate::model::{LogLines, Logs, Positions, Via};
use crate::settings::{CollectSettings, Redaction};
use calls::CalledLog;
use files::{Handovers, LAST_LINES, LogFiles, LogReading, MOST_ENDED, Readings};
use new::{Began, New};
use seen::Handover;

/// Containers whose logs are asked for at once: enough that a slow one does not hold up the rest,
/// few enough that their tails fit in memory.
const CALLS_AT_ONCE: usize = 16;

/// Reads the running containers' logs, round after round.
pub type LogCollector = Collector<LogSource>;

/// The running containers' logs as a source.
///
/// They are read from the files that the engine keeps, which costs it nothing; those that are
/// kept otherwise, or cannot be read here, by calls.
pub struct LogSource {
    containers: Containers,
    lines: usize,
    redaction: Redaction,
    /// How long a round waits for the engine.
    patience: Duration,
    /// Read for the containers that run.
    files: Blocking<LogFiles, (Arc<Vec<RunningContainer>>, Readings)>,
    /// The logs that are read by calls, by container id; also those of containers that have ended.
    called: HashMap<String, Called>,
    /// When the first containers were met.
    began: Option<Began>,
}

/// A container whose log is asked of the engine, and where it goes on if it was read from its file before.
struct LogRequest<'r> {
    container: &'r ListedContainer,
    handover: Option<Handover>,
}

/// A log that is read by calls.
struct Called {
    name: String,
    /// None where its logging driver keeps nothing that could be read. The log has said so.
    log: Option<Box<CalledLog>>,
    /// When its container had ended.
    ended: Option<Instant>,
}

impl LogSource {
    /// A source of the newest `log_lines` lines of each of `containers`, without what `log_redact` takes out of them:
    /// by calls alone, or from files where there are any, as `container_stats` says.
    #[must_use]
    pub fn new(containers: Containers, settings: &CollectSettings) -> Self {
        Self {
            containers,
            lines: settings.log_lines,
            redaction: settings.log_redact.clone(),
            patience: patience(settings.log_interval),
            files: Blocking::new("log files", LogFiles::new(settings)),
            called: HashMap::new(),
            began: None,
        }
    }

    /// Reads by calls what has no file to be read, and the last lines of those that have ended since
    /// the last round.
    async fn ask_engine(&mut self, call: &Call, asked: &[LogRequest<'_>], gathered: &mut Gathered) {
        let due = self.due(asked);
        let redaction = &self.redaction;
        let mut answers = stream::iter(due)
            .map(|(id, mut called)| async move {
                let answer = match &mut called.log {
                    Some(log) => log.read(call, &id, redaction).await,
                    None => Ok(Arc::default()),
                };
                (id, called, answer)
            })
            .buffer_unordered(CALLS_AT_ONCE);
        while let Some((id, mut called, answer)) = answers.next().await {
            match answer {
                // The last lines are taken from it below.
                Ok(_) if called.ended.is_some() => {}
                Ok(lines) => {
                    gathered.by_engine += usize::from(called.log.is_some());
                    gathered.add(&called.name, lines);
                }
                Err(EngineError::Gone) => {}
                Err(EngineError::Unreadable) => {
                    info!(container = called.name, "logging driver unreadable");
                    called.log = None;
                    gathered.add(&called.name, Arc::default());
                }
                Err(_) if called.ended.is_some() => {}
                Err(error) => gathered.failures.push((called.name.clone(), error)),
            }
            self.called.insert(id, called);
        }
        drop(answers);
        self.lay_aside(gathered);
    }

    /// In an outage, what has no file to be read cannot be read at all. The positions stand.
    fn go_without_engine(
        &mut self,
        inventory: &Inventory,
        asked: &[LogRequest<'_>],
        gathered: &mut Gathered,
    ) {
        if let Some(outage) = &inventory.outage {
            let failure = |asked: &LogRequest<'_>| (asked.container.name.clone(), outage.error());
            gathered.failures.extend(asked.iter().map(failure));
        }
        self.lay_aside(gathered);
    }

    /// The logs that are to be read now.
    fn due(&mut self, asked: &[LogRequest<'_>]) -> Vec<(String, Called)> {
        let mut due: Vec<_> = asked
            .iter()
            .map(
                |LogRequest {
                     container,
                     handover,
                 }| {
                    let name = container.bare_name().to_owned();
                    let log = match self.called.remove(&container.id) {
                        Some(called) => called.log,
                        None => Some(Box::new(self.meet(container, handover.as_ref()))),
                    };
                    let ended = None;
                    (container.id.clone(), Called { name, log, ended })
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

    fn meet(&self, container: &ListedContainer, handover: Option<&Handover>) -> CalledLog {
        let new = match self.began {
            Some(began) => began.new_of(container.meta.created),
            None => New::Nothing,
        };
        let log = CalledLog::new(&container.id, self.lines, new);
        match handover {
            Some(file) => log.after(file),
            None => log,
        }
    }

    /// Where the logs go on that are read by calls, should there be a file to be read.
    fn handovers(&self) -> Handovers {
        let handover = |(id, called): (&String, &Called)| {
            let handover = called.log.as_ref()?.handover()?;
            Some((id.clone(), handover))
        };
        self.called.iter().filter_map(handover).collect()
    }

    /// Notes how far all have been read. Of those that have ended it keeps the last lines for a
    /// while, and the positions of so many.
    fn lay_aside(&mut self, gathered: &mut Gathered) {
        let ended = |called: &Called| called.ended.filter(|_| called.log.is_some());
        let mut moments: Vec<Instant> = self.called.values().filter_map(ended).collect();
        moments.sort_unstable();
        let oldest = moments.len().checked_sub(MOST_ENDED);
        let oldest = oldest.map(|surplus| moments[surplus]);
        self.called.retain(|_, called| match called.ended {
            Some(moment) => called.log.is_some() && oldest.is_none_or(|oldest| moment >= oldest),
            None => true,
        });
        for Called { name, log, ended } in self.called.values_mut() {
            let Some(log) = log else { continue };
            let Some((container, position)) = log.position() else {
                continue;
            };
            if let Some(moment) = ended {
                if moment.elapsed() > LAST_LINES {
                    log.rest();
                }
                gathered.ended.push(EndedLog {
                    name: name.clone(),
                    container: Arc::clone(&container),
                    position,
                    lines: log.lines(),
                });
            }
            gathered.positions.insert(container, position);
        }
    }
}

/// The logs of a round.
#[derive(Default)]
struct Gathered {
    logs: Logs,
    ended: Vec<EndedLog>,
    positions: Positions,
    failures: Vec<(String, EngineError)>,
    /// How many were read from files, and by calls, and why the first of those was.
    by_file: usize,
    by_engine: usize,
    reason: Option<String>,
}

impl Gathered {
    fn add(&mut self, name: &str, lines: Arc<LogLines>) {
        self.logs.insert(name.to_owned(), lines);
    }

    fn finish(self) -> Round<LogSample> {
        let error = part_failed("logs", &self.failures);
        if let Some(error) = error.as_ref().filter(|_| self.logs.is_empty()) {
            return Round::failed(error);
        }
        let via = Via::of(self.by_engine, self.by_file + self.by_engine);
        Round {
            error,
            ..Round::whole(LogSample {
                via: via.clone(),
                via_reason: self.reason.filter(|_| via != Via::Kernel),
                logs: Arc::new(self.logs),
                ended: Arc::new(self.ended),
                positions: Arc::new(self.positions),
            })
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
        let read = move |files: &mut LogFiles| {
            let running = known.running();
            let readings = files.read(&running, &called);
            (running, readings)
        };
        let (running, readings) = match self.files.read(read).await {
            Ok(read) => read,
            Err(late) => return Round::failed(late),
        };
        let mut gathered = Gathered {
            ended: readings.ended,
            positions: readings.positions,
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
                    gathered.failures.push((container.name.clone(), error));
                }
                LogReading::Engine(reason, handover) => {
                    gathered.reason.get_or_insert(reason);
                    others.push(LogRequest {
                        container,
                        handover,
                    });
                }
                LogReading::Unanswered(error) => {
                    gathered.failures.push((container.name.clone(), error));
                }
                LogReading::Absent => {}
            }
        }
        match &inventory.call {
            Some(call) => self.ask_engine(call, &others, &mut gathered).await,
            None => self.go_without_engine(&inventory, &others, &mut gathered),
        }
        self.began.get_or_insert_with(Began::now);
        Round {
            retry: inventory.outage.is_some(),
            ..gathered.finish()
        }
    }
}
