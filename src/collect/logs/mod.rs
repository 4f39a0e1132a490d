//! The containers' logs: [`LogCollector`] and the assembly of lines.

mod tail;

use std::collections::HashSet;
use std::sync::Arc;

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::docker::engine::{Call, DEADLINE, Engine, EngineError, classify};
use super::docker::{Listed, part_failed};
use super::{Collector, Round, Source};
use crate::messages::LogSample;
use crate::model::Logs;
use crate::settings::DockerHost;
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
pub struct LogSource {
    engine: Engine,
    lines: usize,
    /// Containers whose logging driver keeps nothing: the log has said so once.
    unreadable: HashSet<String>,
}

impl LogSource {
    /// A source that reads the newest `lines` lines per container from the engine at `host`.
    #[must_use]
    pub fn new(host: DockerHost, lines: usize) -> Self {
        Self {
            engine: Engine::new(host),
            lines,
            unreadable: HashSet::new(),
        }
    }

    async fn read_all(&mut self, call: &Call, listed: &[Listed]) -> Round<LogSample> {
        let lines = self.lines;
        let mut answers = stream::iter(listed)
            .map(|container| async move { (container, read(call, &container.id, lines).await) })
            .buffer_unordered(CALLS_AT_ONCE);
        let mut logs = Logs::new();
        let mut unreadable = HashSet::new();
        let mut failures = Vec::new();
        while let Some((container, answer)) = answers.next().await {
            match answer {
                Ok(lines) => {
                    logs.insert(container.bare_name().to_owned(), lines);
                }
                Err(EngineError::Gone) => {}
                Err(EngineError::Unreadable) => {
                    if !self.unreadable.contains(&container.id) {
                        info!(
                            container = container.bare_name(),
                            "logging driver unreadable"
                        );
                    }
                    logs.insert(container.bare_name().to_owned(), Vec::new());
                    unreadable.insert(container.id.clone());
                }
                Err(error) => failures.push((container.name.clone(), error)),
            }
        }
        // Replaced as a whole, and so pruned: what is no longer listed is forgotten.
        self.unreadable = unreadable;
        let error = part_failed("logs", &failures);
        if let Some(error) = error.as_ref().filter(|_| logs.is_empty()) {
            return Round::failed(error);
        }
        Round {
            sample: Some(LogSample {
                logs: Arc::new(logs),
            }),
            error,
        }
    }
}

impl Source for LogSource {
    const NAME: &'static str = "logs";

    type Sample = LogSample;

    async fn collect(&mut self) -> Round<LogSample> {
        let call = match self.engine.call().await {
            Ok(call) => call,
            Err(error) => return Round::failed(error.to_string()),
        };
        match call.list().await {
            Ok(listed) => self.read_all(&call, &listed).await,
            Err(error) => {
                self.engine.disconnect();
                Round::failed(error.to_string())
            }
        }
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
            Ok(()) => return Ok(tail.into_lines()),
            Err(_) if best.is_some() => break,
            Err(FetchError::CutShort(error)) if messages > FEWEST => {
                messages = (tail.messages() / 2).clamp(FEWEST, messages - 1);
                outcome = Err(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match (best, outcome) {
        (Some(tail), _) => Ok(tail.into_lines()),
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
