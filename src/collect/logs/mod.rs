//! The containers' logs: [`LogCollector`] and the assembly of lines.

mod file;
mod tail;

use std::collections::HashMap;
use std::sync::Arc;

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::docker::engine::{Call, DEADLINE, EngineError, Inspected, classify};
use super::docker::{Containers, Inspection, Listed, Running, part_failed};
use super::{Collector, Round, Source};
use crate::messages::LogSample;
use crate::model::{LogLines, Logs, Via};
use crate::settings::ContainerStats;
use file::LogFile;
use tail::{Channel, Tail};

/// Containers whose logs are read at once: enough that a slow one does not hold up the rest,
/// few enough that their tails fit in memory.
const CALLS_AT_ONCE: usize = 16;
/// How often one container's tail is asked for in a round, at most.
const TRIES: u32 = 3;
/// How much longer it is asked for where fragments took the room of whole lines.
const MORE: usize = 8;
/// The messages that are asked for at least: as many of the longest as are kept of a container.
const FEWEST: usize = 64;

/// Reads the running containers' logs, round after round.
pub type LogCollector = Collector<LogSource>;

/// The running containers' logs as a source.
///
/// They are read from the files that the engine keeps, which costs it nothing; those that are
/// kept otherwise, or cannot be read here, by calls.
pub struct LogSource {
    containers: Containers,
    lines: usize,
    way: ContainerStats,
    /// What is known of each running container, by id.
    known: HashMap<String, Known>,
}

/// How a container's log is read, and what was read last.
enum Known {
    /// From its file.
    File(Box<LogFile>, Arc<LogLines>),
    /// By calls; why.
    Engine(String),
    /// The engine does not answer for it.
    Unanswered(EngineError),
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
            way,
            known: HashMap::new(),
        }
    }

    /// Forgets containers that no longer run, and settles how those not known yet are read.
    fn update(&mut self, running: &[Running]) {
        let mut before = std::mem::replace(&mut self.known, HashMap::with_capacity(running.len()));
        for container in running {
            let known = match (before.remove(&container.listed.id), &container.inspection) {
                (Some(known @ (Known::File(..) | Known::Unreadable)), _) => known,
                (_, Inspection::Done(inspected)) => self.meet(inspected),
                (_, Inspection::Failed(error, _)) => Known::Unanswered(error.clone()),
                (_, Inspection::Due) => continue,
            };
            self.known.insert(container.listed.id.clone(), known);
        }
    }

    fn meet(&self, inspected: &Inspected) -> Known {
        match &inspected.log_file {
            _ if self.way == ContainerStats::Engine => {
                Known::Engine("CONTAINER_STATS is engine".to_owned())
            }
            Some(path) => {
                let file = LogFile::new(path.clone(), inspected.tty, self.lines);
                Known::File(Box::new(file), Arc::default())
            }
            None => Known::Engine(format!("the logging driver is {}", inspected.log_driver)),
        }
    }

    /// Reads the files that have grown. Blocks, so on a thread of its own.
    async fn read_files(&mut self) {
        let mut known = std::mem::take(&mut self.known);
        let read = spawn_blocking(move || {
            for way in known.values_mut() {
                if let Known::File(file, lines) = way {
                    match file.update() {
                        Ok(true) => *lines = Arc::new(file.lines().into()),
                        Ok(false) => {}
                        Err(error) => *way = Known::Engine(format!("its file: {error}")),
                    }
                }
            }
            known
        });
        // Cancelled only with the runtime itself.
        self.known = read.await.unwrap_or_default();
    }

    /// Reads by calls what has no file to be read.
    async fn ask_engine(&mut self, call: &Call, running: &[Running], gathered: &mut Gathered) {
        let (lines, known) = (self.lines, &self.known);
        let asked = running
            .iter()
            .map(|one| &*one.listed)
            .filter(|container| matches!(known.get(&container.id), Some(Known::Engine(_))));
        let mut answers = stream::iter(asked)
            .map(|container| async move { (container, read(call, &container.id, lines).await) })
            .buffer_unordered(CALLS_AT_ONCE);
        let mut unreadable = Vec::new();
        while let Some((container, answer)) = answers.next().await {
            match answer {
                Ok(lines) => {
                    gathered.by_engine += 1;
                    gathered.add(container, Arc::new(lines.into()));
                }
                Err(EngineError::Gone) => {}
                Err(EngineError::Unreadable) => {
                    info!(
                        container = container.bare_name(),
                        "logging driver unreadable"
                    );
                    unreadable.push(container.id.clone());
                    gathered.add(container, Arc::default());
                }
                Err(error) => gathered.failures.push((container.name.clone(), error)),
            }
        }
        drop(answers);
        for id in unreadable {
            self.known.insert(id, Known::Unreadable);
        }
    }
}

/// The logs of a round.
#[derive(Default)]
struct Gathered {
    logs: Logs,
    failures: Vec<(String, EngineError)>,
    /// How many were read by calls, and why the first of them was.
    by_engine: usize,
    reason: Option<String>,
}

impl Gathered {
    fn add(&mut self, container: &Listed, lines: Arc<LogLines>) {
        self.logs.insert(container.bare_name().to_owned(), lines);
    }

    fn finish(self) -> Round<LogSample> {
        let error = part_failed("logs", &self.failures);
        if let Some(error) = error.as_ref().filter(|_| self.logs.is_empty()) {
            return Round::failed(error);
        }
        Round {
            sample: Some(LogSample {
                via: Via::of(self.by_engine, self.logs.len()),
                via_reason: self.reason,
                logs: Arc::new(self.logs),
            }),
            error,
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
        self.update(&running);
        self.read_files().await;
        let mut gathered = Gathered::default();
        for container in running.iter().map(|one| &one.listed) {
            match self.known.get(&container.id) {
                Some(Known::File(_, lines)) => gathered.add(container, Arc::clone(lines)),
                Some(Known::Engine(reason)) => {
                    gathered.reason.get_or_insert_with(|| reason.clone());
                }
                Some(Known::Unanswered(error)) => {
                    gathered
                        .failures
                        .push((container.name.clone(), error.clone()));
                }
                Some(Known::Unreadable) => gathered.add(container, Arc::default()),
                None => {}
            }
        }
        self.ask_engine(&call, &running, &mut gathered).await;
        gathered.finish()
    }
}

/// The newest `lines` whole lines of a container, within the deadline of one call.
///
/// Asks for a longer tail where fragments of long lines took the room of lines, and for a
/// shorter one where the answer was too long to be read.
async fn read(call: &Call, id: &str, lines: usize) -> Result<Vec<String>, EngineError> {
    let deadline = Instant::now() + DEADLINE;
    // One more than wanted: the oldest message may be the end of a line that began before.
    let mut messages = lines + 1;
    let mut best = None;
    let mut outcome = Ok(());
    for _ in 0..TRIES {
        let mut tail = Tail::new(lines, messages);
        let fetched = timeout_at(deadline, fetch(call, id, &mut tail)).await;
        match fetched.unwrap_or(Err(FetchError::Late)) {
            Ok(()) if tail.lacks_lines() => {
                messages *= MORE;
                best = Some(tail);
            }
            Ok(()) => return Ok(tail.lines()),
            Err(_) if best.is_some() => break,
            Err(FetchError::CutShort(error)) if messages > FEWEST => {
                messages = (tail.messages() / 2).clamp(FEWEST, messages - 1);
                outcome = Err(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match (best, outcome) {
        (Some(tail), _) => Ok(tail.lines()),
        (None, Err(error)) => Err(FetchError::CutShort(error).into()),
        (None, Ok(())) => Ok(Vec::new()),
    }
}

/// Why a tail was not read to its end.
enum FetchError {
    Late,
    /// The answer broke off: most likely it was longer than is read.
    CutShort(BollardError),
    Other(EngineError),
}

impl From<FetchError> for EngineError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Late => Self::Deadline { call: CALL },
            FetchError::CutShort(error) => classify(CALL, &error),
            FetchError::Other(error) => error,
        }
    }
}

/// What the engine is asked for, in errors.
const CALL: &str = "container logs";

async fn fetch(call: &Call, id: &str, tail: &mut Tail) -> Result<(), FetchError> {
    let mut outputs = std::pin::pin!(call.logs(id, tail.messages_asked()));
    loop {
        let output = outputs.try_next().await.map_err(|error| match error {
            BollardError::IOError { .. } => FetchError::CutShort(error),
            error => FetchError::Other(classify(CALL, &error)),
        })?;
        match output {
            None => return Ok(()),
            Some(LogOutput::StdErr { message }) => tail.push(Channel::Stderr, &message),
            Some(LogOutput::StdOut { message } | LogOutput::StdIn { message }) => {
                tail.push(Channel::Stdout, &message);
            }
            Some(LogOutput::Console { message }) => match engine_error(&message) {
                Some(reason) => {
                    return Err(FetchError::Other(EngineError::Failed {
                        call: CALL,
                        reason,
                    }));
                }
                None => tail.push(Channel::Console, &message),
            },
        }
    }
}

/// What the engine says in a frame of type 3: that it cannot read the log. bollard takes such a
/// frame for a console's, whose lines begin with the digit of a year.
fn engine_error(message: &[u8]) -> Option<String> {
    match message {
        [3, 0, 0, 0, _, _, _, _, text @ ..] => {
            Some(String::from_utf8_lossy(text).trim_end().to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::engine_error;

    #[test]
    fn tells_the_engines_complaint_from_a_console() {
        let complaint = b"\x03\0\0\0\0\0\0\x1dError grabbing logs: EOF\n";
        assert_eq!(
            engine_error(complaint).as_deref(),
            Some("Error grabbing logs: EOF")
        );
        assert_eq!(engine_error(b"2024-01-01T12:00:00Z x\r\n"), None);
        assert_eq!(engine_error(b"\x03"), None);
    }
}
