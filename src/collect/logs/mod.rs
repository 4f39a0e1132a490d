//! The containers' logs: [`LogCollector`], the two ways to them, and the assembly of lines.

mod calls;
mod file;
mod files;
mod tail;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tracing::info;

use super::blocking::Blocking;
use super::docker::engine::{Call, EngineError};
use super::docker::{Containers, Listed, part_failed};
use super::{Collector, Round, Source};
use crate::messages::LogSample;
use crate::model::{LogLines, Logs, Positions, Via};
use crate::settings::ContainerStats;
use calls::CalledLog;
use files::{Files, MOST_ENDED, Reading, Readings};

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
    files: Blocking<Files, Readings>,
    /// The logs that are read by calls, by container id; also those of containers that have ended.
    called: HashMap<String, Called>,
}

/// A log that is read by calls.
enum Called {
    Log(Box<CalledLog>),
    /// Not at all: its logging driver keeps nothing that could be read. The log has said so.
    Unreadable,
}

impl LogSource {
    /// A source of the newest `lines` lines of each of `containers`, read in the given way: by
    /// calls alone, or from files where there are any.
    #[must_use]
    pub fn new(containers: Containers, lines: usize, way: ContainerStats) -> Self {
        Self {
            containers,
            lines,
            files: Blocking::new("log files", Files::new(lines, way)),
            called: HashMap::new(),
        }
    }

    /// Reads by calls what has no file to be read.
    async fn ask_engine(&mut self, call: &Call, asked: Vec<&Listed>, gathered: &mut Gathered) {
        let lines = self.lines;
        let asked: Vec<_> = asked
            .into_iter()
            .map(|container| {
                let called = self.called.remove(&container.id);
                let new = || Called::Log(Box::new(CalledLog::new(&container.id)));
                (container, called.unwrap_or_else(new))
            })
            .collect();
        self.lay_aside(gathered);
        let mut answers = stream::iter(asked)
            .map(|(container, mut called)| async move {
                let answer = match &mut called {
                    Called::Log(log) => log.read(call, &container.id, lines).await,
                    Called::Unreadable => Ok(Arc::default()),
                };
                (container, called, answer)
            })
            .buffer_unordered(CALLS_AT_ONCE);
        while let Some((container, mut called, answer)) = answers.next().await {
            match answer {
                Ok(lines) => {
                    gathered.by_engine += usize::from(matches!(called, Called::Log(_)));
                    gathered.add(container, lines);
                }
                Err(EngineError::Gone) => {}
                Err(EngineError::Unreadable) => {
                    info!(
                        container = container.bare_name(),
                        "logging driver unreadable"
                    );
                    called = Called::Unreadable;
                    gathered.add(container, Arc::default());
                }
                Err(error) => gathered.failures.push((container.name.clone(), error)),
            }
            if let Called::Log(log) = &called {
                gathered.note_position(log);
            }
            self.called.insert(container.id.clone(), called);
        }
    }

    /// Keeps the positions in the logs of containers that have ended, of so many of them.
    fn lay_aside(&mut self, gathered: &mut Gathered) {
        let mut left = MOST_ENDED;
        self.called.retain(|_, called| {
            let Called::Log(log) = called else {
                return false;
            };
            log.rest();
            gathered.note_position(log);
            left = left.saturating_sub(1);
            left > 0
        });
    }
}

/// The logs of a round.
#[derive(Default)]
struct Gathered {
    logs: Logs,
    ended: Vec<(String, Arc<LogLines>)>,
    positions: Positions,
    failures: Vec<(String, EngineError)>,
    /// How many were read from files, and by calls, and why the first of those was.
    by_file: usize,
    by_engine: usize,
    reason: Option<String>,
}

impl Gathered {
    fn note_position(&mut self, log: &CalledLog) {
        let place = log.place();
        self.positions
            .insert(Arc::clone(&place.container), place.end);
    }

    fn add(&mut self, container: &Listed, lines: Arc<LogLines>) {
        let place = lines.place();
        self.positions
            .insert(Arc::clone(&place.container), place.end);
        self.logs.insert(container.bare_name().to_owned(), lines);
    }

    fn finish(self) -> Round<LogSample> {
        let error = part_failed("logs", &self.failures);
        if let Some(error) = error.as_ref().filter(|_| self.logs.is_empty()) {
            return Round::failed(error);
        }
        let via = Via::of(self.by_engine, self.by_file + self.by_engine);
        Round {
            sample: Some(LogSample {
                via,
                via_reason: self.reason.filter(|_| via != Via::Kernel),
                logs: Arc::new(self.logs),
                ended: Arc::new(self.ended),
                positions: Arc::new(self.positions),
            }),
            error,
            waited: Duration::ZERO,
        }
    }
}

impl Source for LogSource {
    const NAME: &'static str = "logs";

    type Sample = LogSample;

    async fn collect(&mut self) -> Round<LogSample> {
        let (call, running) = match self.containers.now().await {
            Ok(now) => now,
            Err(error) => return Round::failed(error.to_string()),
        };
        let containers = Arc::clone(&running);
        let read = self.files.read(move |files| files.read(&containers));
        let readings = match read.await {
            Ok(readings) => readings,
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
                Reading::Lines(lines) => {
                    gathered.by_file += 1;
                    gathered.add(container, lines);
                }
                Reading::Engine(reason) => {
                    gathered.reason.get_or_insert(reason);
                    others.push(container);
                }
                Reading::Unanswered(error) => {
                    gathered.failures.push((container.name.clone(), error));
                }
                Reading::Absent => {}
            }
        }
        self.ask_engine(&call, others, &mut gathered).await;
        gathered.finish()
    }
}
