//! The containers' logs: [`LogCollector`] and the assembly of lines.

mod tail;

use std::collections::HashSet;
use std::sync::Arc;

use bollard::container::LogOutput;
use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::info;

use super::docker::engine::{Call, Engine, EngineError, within};
use super::docker::{Listed, part_failed};
use super::{Collector, Round, Source};
use crate::messages::LogSample;
use crate::model::Logs;
use crate::settings::DockerHost;
use tail::{Channel, Tail};

/// Containers whose logs are read at once: enough that a slow one does not hold up the rest,
/// few enough that their tails fit in memory.
const CALLS_AT_ONCE: usize = 16;
/// How often a tail is asked for again, [`MORE`] times as long, where fragments of long lines
/// took the room of whole lines.
const TRIES: u32 = 3;
const MORE: usize = 8;

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
        Round {
            sample: Some(LogSample {
                logs: Arc::new(logs),
            }),
            error: part_failed("logs", &failures),
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
async fn read(call: &Call, id: &str, lines: usize) -> Result<Vec<String>, EngineError> {
    let newest = async {
        // One more than wanted: the oldest message may be the end of a line that began before.
        let mut messages = lines + 1;
        for _ in 1..TRIES {
            let tail = fetch(call, id, lines, messages).await?;
            if !tail.lacks_lines() {
                return Ok(tail.into_lines());
            }
            messages *= MORE;
        }
        fetch(call, id, lines, messages).await.map(Tail::into_lines)
    };
    within("container logs", newest).await
}

async fn fetch(
    call: &Call,
    id: &str,
    lines: usize,
    messages: usize,
) -> Result<Tail, bollard::errors::Error> {
    let mut outputs = std::pin::pin!(call.logs(id, messages));
    let mut tail = Tail::new(lines, messages);
    while let Some(output) = outputs.try_next().await? {
        match output {
            LogOutput::StdErr { message } => tail.push(Channel::Stderr, &message),
            LogOutput::StdOut { message } | LogOutput::StdIn { message } => {
                tail.push(Channel::Stdout, &message);
            }
            LogOutput::Console { message } => tail.push(Channel::Console, &message),
        }
    }
    Ok(tail)
}
