//! The containers: [`DockerCollector`], the engine's calls and the sums done with its figures.

pub(super) mod engine;
mod listing;
mod stats;
mod transport;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{Collector, Round, Source};
use crate::messages::DockerSample;
use crate::model::Container;
use crate::settings::DockerHost;
use engine::{Call, Engine, EngineError};
pub(super) use listing::Listed;
use stats::Reading;

/// Calls for statistics that are under way at once. Docker 20.10 answers them only at its own
/// 1 Hz tick, so a round is as short as this is large: all running containers at once, up to a
/// bound for the descriptors' sake.
const CALLS_AT_ONCE: usize = 512;

/// Measures the running containers, round after round.
pub type DockerCollector = Collector<ContainerSource>;

/// The engine's running containers as a source.
pub struct ContainerSource {
    engine: Engine,
    /// Each running container's last reading, by id: what its CPU is compared with.
    readings: HashMap<String, Reading>,
}

impl ContainerSource {
    /// A source that asks the engine at `host`.
    #[must_use]
    pub fn new(host: DockerHost) -> Self {
        Self {
            engine: Engine::new(host),
            readings: HashMap::new(),
        }
    }

    /// Measures each of `listed`; those that stop meanwhile are left out.
    async fn measure(&mut self, call: &Call, listed: &[Listed]) -> Measured {
        let readings = &self.readings;
        let mut answers = stream::iter(listed.iter().enumerate().map(|(index, container)| {
            let previous = readings.get(&container.id);
            async move {
                let answer = call.stats(&container.id, previous.is_some()).await;
                (
                    index,
                    container,
                    answer.map(|stats| stats::measure(container, stats, previous)),
                )
            }
        }))
        .buffer_unordered(CALLS_AT_ONCE);

        let mut measured = Measured::default();
        let mut containers = Vec::with_capacity(listed.len());
        while let Some((index, container, answer)) = answers.next().await {
            match answer {
                Ok(Some((figures, reading))) => {
                    measured.readings.insert(container.id.clone(), reading);
                    containers.push((index, figures));
                }
                // It stopped between the list and the answer.
                Ok(None) | Err(EngineError::Gone) => {}
                Err(error) => measured.failures.push((container.name.clone(), error)),
            }
        }
        containers.sort_unstable_by_key(|(index, _)| *index);
        measured.containers = containers.into_iter().map(|(_, figures)| figures).collect();
        measured
    }
}

/// What came of asking for every container's statistics.
#[derive(Default)]
struct Measured {
    containers: Vec<Container>,
    readings: HashMap<String, Reading>,
    failures: Vec<(String, EngineError)>,
}

impl Source for ContainerSource {
    const NAME: &'static str = "docker";

    type Sample = DockerSample;

    async fn collect(&mut self) -> Round<DockerSample> {
        let call = match self.engine.call().await {
            Ok(call) => call,
            Err(error) => return Round::failed(error.to_string()),
        };
        let listed = match call.list().await {
            Ok(listed) => listed,
            Err(error) => {
                self.engine.disconnect();
                return Round::failed(error.to_string());
            }
        };
        let Measured {
            containers,
            readings,
            failures,
        } = self.measure(&call, &listed).await;
        // Replaced as a whole, and so pruned: what is no longer listed is forgotten.
        self.readings = readings;
        let error = part_failed("statistics", &failures);
        if let Some(error) = error.as_ref().filter(|_| containers.is_empty()) {
            return Round::failed(error);
        }
        Round {
            sample: Some(DockerSample {
                containers: Arc::new(containers),
                meta: Arc::new(listed.into_iter().map(|one| one.meta).collect()),
            }),
            error,
        }
    }
}

/// One sentence about the containers that a round could not read.
pub(super) fn part_failed(what: &str, failures: &[(String, EngineError)]) -> Option<String> {
    let (name, error) = failures.first()?;
    let more = match failures.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!("{what} of {name}: {error}{more}"))
}

/// Reaches the engine at `host` and says what it is.
///
/// # Errors
/// Why it cannot be reached.
pub async fn server(host: &DockerHost) -> Result<String, String> {
    let mut engine = Engine::new(host.clone());
    let reached = async {
        let call = engine.call().await?;
        let listed = call.list().await?;
        Ok((call.api_version(), listed.len()))
    };
    match reached.await {
        Ok((api, running)) => Ok(format!("{host}, API {api}, {running} containers running")),
        Err(error @ EngineError::Gone) => Err(format!("{error}: not a Docker engine?")),
        Err(error) => Err(error.to_string()),
    }
}
