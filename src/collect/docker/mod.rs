//! The containers: [`DockerCollector`], the engine's calls and the sums done with its figures.

mod cgroup;
mod direct;
pub(super) mod engine;
mod events;
mod inspected;
mod inventory;
mod json;
mod listing;
mod pieces;
mod stats;
mod transport;
mod usage;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::{Collector, Round, Source};
use crate::messages::DockerSample;
use crate::model::{Container, Via};
use crate::settings::{ContainerStats, DockerHost, LabelPatterns};
pub use direct::most_kept_files;
use direct::{Direct, Miss};
use engine::{Call, Engine, EngineError};
pub use inventory::Containers;
pub(super) use inventory::{Inspection, Running};
pub(super) use listing::Listed;
use usage::{CpuReading, Reading, network_lenders, publish, share_networks};

/// Calls for statistics that are under way at once. Docker 20.10 answers them only at its own
/// 1 Hz tick, so a round is as short as this is large: all running containers at once, up to a
/// bound for the descriptors' sake.
const CALLS_AT_ONCE: usize = 512;
/// How long after its first reading a container is read again, so that not even its first figures
/// have a CPU of 0: the kernel counts CPU time to the nanosecond.
const FIRST_INTERVAL: Duration = Duration::from_millis(200);

/// Measures the running containers, round after round.
pub type DockerCollector = Collector<ContainerSource>;

/// The engine's running containers as a source.
///
/// They are measured from the kernel's files, which costs the engine nothing; those whose files
/// cannot be read here, by calls for the engine's statistics.
pub struct ContainerSource {
    containers: Containers,
    way: ContainerStats,
    labels: LabelPatterns,
    direct: Direct,
    /// Each running container's last reading, by id: what the next is compared with.
    readings: HashMap<String, Reading>,
}

impl ContainerSource {
    /// A source of the figures of `containers`, measured in the given way, with those of their labels that
    /// match.
    #[must_use]
    pub fn new(containers: Containers, way: ContainerStats, labels: LabelPatterns) -> Self {
        Self {
            containers,
            way,
            labels,
            direct: Direct::new(),
            readings: HashMap::new(),
        }
    }

    /// Measures each of `running`; those that stop meanwhile are left out.
    async fn measure(&mut self, call: &Call, running: &[Running]) -> Measured {
        let mut measured = Measured::default();
        let mut others = Vec::new();
        if self.way == ContainerStats::Engine {
            measured.reason = Some("CONTAINER_STATS is engine".to_owned());
            others.extend(running.iter().enumerate());
        } else {
            self.measure_directly(running, &mut measured, &mut others)
                .await;
        }
        self.ask_engine(call, others, &mut measured).await;
        measured
            .containers
            .sort_unstable_by_key(|(index, _)| *index);
        share_networks(&mut measured.containers, running);
        measured
    }

    /// From the kernel's files. Containers that have none to be read here go to `others`.
    async fn measure_directly<'a>(
        &mut self,
        running: &'a [Running],
        measured: &mut Measured,
        others: &mut Vec<(usize, &'a Running)>,
    ) {
        for id in self.direct.update(running) {
            self.readings.remove(&id);
        }
        let mut lost = Vec::new();
        let mut fresh = Vec::new();
        let patterns = &self.labels;
        let lenders = network_lenders(running);
        for (index, container) in running.iter().enumerate() {
            let id = &container.listed.id;
            let before = self.readings.get(id);
            let lends = lenders.iter().any(|lender| container.listed.is(lender));
            match self.direct.read(id, before, lends) {
                Ok(reading) => match before {
                    Some(before) => {
                        measured.add(index, container, patterns, reading, Some(&before.cpu));
                    }
                    None => fresh.push((index, container, reading)),
                },
                Err(Miss::Lost) => lost.push((index, container)),
                Err(Miss::Idle) => {}
                Err(Miss::Failed(error)) => measured.fail(container, error),
                Err(Miss::Refused(reason)) if self.way == ContainerStats::Auto => {
                    measured.reason.get_or_insert(reason);
                    others.push((index, container));
                }
                Err(Miss::Refused(reason)) => measured.fail(
                    container,
                    EngineError::Failed {
                        call: "CONTAINER_STATS is kernel, and",
                        reason,
                    },
                ),
            }
        }
        if !lost.is_empty() {
            // Restarted, most likely: other files, and counters that begin anew.
            let ids: Vec<_> = lost.iter().map(|(_, one)| one.listed.id.as_str()).collect();
            if let Ok((_, running)) = self.containers.anew(&ids).await {
                self.direct.update(&running);
            }
            for (index, container) in lost {
                // One whose files cannot be read after all is refused in the next round.
                if let Ok(reading) = self.direct.read(&container.listed.id, None, false) {
                    fresh.push((index, container, reading));
                }
            }
        }
        if !fresh.is_empty() {
            tokio::time::sleep(FIRST_INTERVAL).await;
            measured.waited = FIRST_INTERVAL;
        }
        for (index, container, before) in fresh {
            if let Ok(reading) = self.direct.read(&container.listed.id, Some(&before), false) {
                measured.add(index, container, patterns, reading, Some(&before.cpu));
            }
        }
    }

    /// By calls for statistics, all at once.
    async fn ask_engine(
        &self,
        call: &Call,
        others: Vec<(usize, &Running)>,
        measured: &mut Measured,
    ) {
        let (readings, patterns) = (&self.readings, &self.labels);
        let mut answers = stream::iter(others)
            .map(|(index, container)| {
                let id = &container.listed.id;
                let previous = readings.get(id);
                async move {
                    let answer = call.stats(id, previous.is_some()).await;
                    (index, container, previous, answer)
                }
            })
            .buffer_unordered(CALLS_AT_ONCE);
        while let Some((index, container, previous, answer)) = answers.next().await {
            if answer.as_ref().is_ok_and(stats::are_empty) {
                let reason = "it has none: a rootless engine without cgroup v2, most likely";
                let error = EngineError::Failed {
                    call: "statistics",
                    reason: reason.to_owned(),
                };
                measured.fail(container, error);
                continue;
            }
            match answer.map(|stats| stats::read(stats, previous)) {
                Ok(Some((engines_own, reading))) => {
                    measured.by_engine += 1;
                    let before = previous.map(|previous| &previous.cpu);
                    let before = before.or(engines_own.as_ref());
                    measured.add(index, container, patterns, reading, before);
                }
                // It stopped between the list and the answer.
                Ok(None) | Err(EngineError::Gone) => {}
                Err(error) => measured.fail(container, error),
            }
        }
    }
}

/// What came of measuring every container.
#[derive(Default)]
struct Measured {
    /// With each container's place in the list.
    containers: Vec<(usize, Container)>,
    readings: HashMap<String, Reading>,
    failures: Vec<(String, EngineError)>,
    /// How many were measured by the engine, and why.
    by_engine: usize,
    reason: Option<String>,
    /// Between the two first readings of containers.
    waited: Duration,
}

impl Measured {
    fn add(
        &mut self,
        index: usize,
        container: &Running,
        patterns: &LabelPatterns,
        now: Reading,
        before: Option<&CpuReading>,
    ) {
        let Running { listed, inspection } = container;
        let published = publish(listed, inspection.done(), patterns, &now, before);
        self.containers.push((index, published));
        self.readings.insert(listed.id.clone(), now);
    }

    fn fail(&mut self, container: &Running, error: EngineError) {
        self.failures.push((container.listed.name.clone(), error));
    }
}

impl Source for ContainerSource {
    const NAME: &'static str = "docker";

    type Sample = DockerSample;

    async fn collect(&mut self) -> Round<DockerSample> {
        let (call, running) = match self.containers.now().await {
            Ok(now) => now,
            Err(error) => return Round::failed(error.to_string()),
        };
        let measured = self.measure(&call, &running).await;
        let via = Via::of(measured.by_engine, measured.containers.len());
        let error = part_failed("statistics", &measured.failures);
        // Replaced as a whole, and so pruned: what is no longer listed is forgotten.
        self.readings = measured.readings;
        if let Some(error) = error.as_ref().filter(|_| measured.containers.is_empty()) {
            return Round::failed(error);
        }
        // The containers that can be read are shown all the same.
        let error = error.or_else(|| call.unreadable());
        let containers = measured
            .containers
            .into_iter()
            .map(|(_, one)| one)
            .collect();
        Round {
            sample: Some(DockerSample {
                containers: Arc::new(containers),
                events: self.containers.events(),
                meta: Arc::new(
                    running
                        .iter()
                        .map(|one| Arc::clone(&one.listed.meta))
                        .collect(),
                ),
                via,
                via_reason: measured.reason.filter(|_| via != Via::Kernel),
            }),
            error,
            waited: measured.waited,
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
        Ok((call.api_version(), listed.len(), call.unreadable()))
    };
    match reached.await {
        Ok((api, running, unreadable)) => {
            let unreadable = unreadable.map_or_else(String::new, |reason| format!("; {reason}"));
            Ok(format!(
                "{host}, API {api}, {running} containers running{unreadable}"
            ))
        }
        Err(error @ EngineError::Gone) => Err(format!("{error}: not a Docker engine?")),
        Err(error) => Err(error.to_string()),
    }
}
