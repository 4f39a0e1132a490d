//! The containers: [`DockerCollector`], the engine's calls and the sums done with its figures.

mod cgroup;
mod direct;
pub(super) mod engine;
mod events;
mod inspected;
mod inventory;
mod json;
mod listing;
mod namespaces;
mod pieces;
mod proc_cgroup;
mod process;
mod stats;
mod transport;
mod usage;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{StreamExt, stream};

use super::blocking::Blocking;
use super::{Collector, Round, Source};
use crate::messages::DockerSample;
use crate::model::{Container, ContainerMeta, Via};
use crate::settings::{CollectSettings, ContainerStats, DockerHost, LabelPatterns};
pub use direct::most_kept_files;
use direct::{Direct, Figured, Figures, Miss};
use engine::{Engine, EngineError};
pub use inventory::Containers;
pub(super) use inventory::{Inspection, Inventory, Outage, RunningContainer, patience};
pub(super) use listing::ListedContainer;
use namespaces::Namespaces;
use usage::{ContainerReading, CpuReading, publish, share_networks};

/// Calls for statistics that are under way at once. Docker 20.10 answers them only at its own
/// 1 Hz tick, so a round is as short as this is large: all running containers at once, up to a
/// bound for the descriptors' sake.
const CALLS_AT_ONCE: usize = 512;
/// How long after its first reading a container is read again, so that not even its first figures
/// have a CPU of 0: the kernel counts CPU time to the nanosecond.
const FIRST_INTERVAL: Duration = Duration::from_millis(200);
/// How long a round waits for the kernel's files. If they are slow, it goes on with the list and the events.
const KERNEL_PATIENCE: Duration = Duration::from_secs(1);
/// Up to this interval files stay open from one round to the next. An exit is noticed with the next round, and until then
/// they keep the network and the control group of the container that has ended.
const KEEPS_OPEN: Duration = Duration::from_secs(15);

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
    /// How long a round waits for the engine.
    patience: Duration,
    /// How long figures are published while no newer ones can be read.
    stand_for: Duration,
    /// Whether the kernel's files stay open between rounds.
    keeps_open: bool,
    direct: Blocking<Option<Direct>, Figured>,
    namespaces: Namespaces,
    /// The last readings by the engine, by container id: what the next are compared with.
    readings: HashMap<String, ContainerReading>,
    last: Option<Last>,
}

/// The figures that were read last.
struct Last {
    containers: Arc<Vec<Container>>,
    at: Instant,
    read_at: SystemTime,
}

impl ContainerSource {
    /// A source of the figures of `containers`, measured in the way that the settings name, with those of their labels
    /// that match.
    #[must_use]
    pub fn new(containers: Containers, settings: &CollectSettings) -> Self {
        Self {
            containers,
            way: settings.container_stats,
            labels: settings.container_labels.clone(),
            patience: patience(settings.docker_interval),
            stand_for: super::stand_for(settings.docker_interval),
            keeps_open: settings.docker_interval <= KEEPS_OPEN,
            direct: Blocking::new("the containers' control groups", None),
            namespaces: Namespaces::default(),
            readings: HashMap::new(),
            last: None,
        }
    }

    /// Measures the containers of an inventory. A container that stops meanwhile is left out.
    ///
    /// # Errors
    /// The kernel's files hang. None where they have not been read yet.
    async fn measure(&mut self, inventory: &Inventory) -> Result<Option<Measured>, String> {
        let mut measured = Measured::default();
        let mut others = Vec::new();
        if self.way == ContainerStats::Engine {
            measured.reason = Some("CONTAINER_STATS is engine".to_owned());
            measured.running = Arc::clone(inventory.as_listed());
            others.extend(0..measured.running.len());
        } else {
            let (inventory, keeps_open) = (inventory.clone(), self.keeps_open);
            let read = move |direct: &mut Option<Direct>| {
                let direct = direct.get_or_insert_with(|| Direct::new(keeps_open));
                direct.read_all(&inventory)
            };
            match self.direct.read_within(KERNEL_PATIENCE, read).await? {
                Some(figured) if figured.is_whole => {
                    self.take_in(figured, &mut measured, &mut others).await;
                }
                _ => return Ok(None),
            }
        }
        self.ask_engine(inventory, others, &mut measured).await;
        measured
            .containers
            .sort_unstable_by_key(|(index, _)| *index);
        share_networks(&mut measured.containers, &measured.running);
        Ok(Some(measured))
    }

    /// Takes in what the kernel's files say. Containers that have none to be read here go to `others`.
    async fn take_in(
        &mut self,
        figured: Figured,
        measured: &mut Measured,
        others: &mut Vec<usize>,
    ) {
        measured.running = figured.running;
        measured.read_at = Some(figured.read_at);
        let running = Arc::clone(&measured.running);
        let mut lost = Vec::new();
        let mut fresh = Vec::new();
        for (index, (container, figures)) in running.iter().zip(figured.figures).enumerate() {
            // Its figures are right. What the engine says of it may be stale.
            if let (Ok(_), Inspection::Failed { error, .. }) = (&figures, &container.inspection) {
                measured.fail(container, error.clone());
            }
            match figures {
                Ok(Figures { now, before }) => match before {
                    Some(before) => measured.add(index, &self.labels, &now, Some(&before)),
                    None => fresh.push(index),
                },
                Err(Miss::Lost) => lost.push(index),
                Err(Miss::Idle) => {}
                Err(Miss::Failed(error)) => measured.fail(container, error),
                Err(Miss::Refused(reason)) if self.way == ContainerStats::Auto => {
                    measured.reason.get_or_insert(reason);
                    others.push(index);
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
        self.read_again(fresh, lost, measured).await;
    }

    /// Reads some containers a second time: new containers, and containers whose files have gone.
    async fn read_again(&mut self, fresh: Vec<usize>, lost: Vec<usize>, measured: &mut Measured) {
        let id = |index: &usize| measured.running[*index].listed.id.clone();
        let mut ids: Vec<String> = lost.iter().map(id).collect();
        let anew = if lost.is_empty() {
            None
        } else {
            // Restarted, most likely: other files, and counters that begin anew. One whose files cannot be read
            // after all is refused in the next round.
            let anew = self.containers.anew(ids.clone(), self.patience).await;
            anew.ok()
        };
        ids.extend(fresh.iter().map(id));
        if ids.is_empty() {
            return;
        }
        measured.waited = FIRST_INTERVAL;
        let keeps_open = self.keeps_open;
        let read = move |direct: &mut Option<Direct>| {
            let direct = direct.get_or_insert_with(|| Direct::new(keeps_open));
            direct.read_twice(&ids, anew.as_ref(), FIRST_INTERVAL)
        };
        // If it takes too long, the next round says so.
        let patience = KERNEL_PATIENCE + FIRST_INTERVAL;
        if let Ok(Some(again)) = self.direct.read_within(patience, read).await {
            for (index, figures) in lost.into_iter().chain(fresh).zip(again.figures) {
                if let Ok(Figures { now, before }) = figures {
                    measured.add(index, &self.labels, &now, before.as_ref());
                }
            }
        }
    }

    /// By calls for statistics, all at once.
    async fn ask_engine(&self, inventory: &Inventory, others: Vec<usize>, measured: &mut Measured) {
        let running = Arc::clone(&measured.running);
        let Some(call) = &inventory.call else {
            for index in others {
                let error = inventory.outage.as_ref().map(Outage::error);
                let error = error.unwrap_or(EngineError::Gone);
                measured.fail(&running[index], error);
            }
            return;
        };
        let (readings, patterns) = (&self.readings, &self.labels);
        let mut answers = stream::iter(others)
            .map(|index| {
                let id = &running[index].listed.id;
                let previous = readings.get(id);
                async move {
                    let answer = call.stats(id, previous.is_some()).await;
                    (index, previous, answer)
                }
            })
            .buffer_unordered(CALLS_AT_ONCE);
        while let Some((index, previous, answer)) = answers.next().await {
            let container = &running[index];
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
                    measured.add(index, patterns, &reading, before);
                    let id = container.listed.id.clone();
                    measured.readings.insert(id, reading);
                }
                // It stopped between the list and the answer.
                Ok(None) | Err(EngineError::Gone) => {}
                Err(error) => measured.fail(container, error),
            }
        }
    }

    /// The last figures, while the kernel's files yield no newer ones: with their age, and not for ever.
    fn last_figures(
        &self,
        running: &[RunningContainer],
        error: Option<String>,
    ) -> Round<DockerSample> {
        let last = self.last.as_ref();
        let last = last.filter(|last| last.at.elapsed() < self.stand_for);
        Round {
            read_at: last.map(|last| last.read_at),
            error,
            ..Round::whole(DockerSample {
                namespaces: Arc::new(self.namespaces.by_number(running)),
                containers: last.map_or_else(Arc::default, |last| Arc::clone(&last.containers)),
                events: self.containers.events(),
                meta: meta(running),
                via: Via::Kernel,
                via_reason: None,
            })
        }
    }
}

fn meta(running: &[RunningContainer]) -> Arc<Vec<Arc<ContainerMeta>>> {
    let meta = running.iter().map(|one| Arc::clone(&one.listed.meta));
    Arc::new(meta.collect())
}

/// What came of measuring every container.
#[derive(Default)]
struct Measured {
    /// The list.
    running: Arc<Vec<RunningContainer>>,
    /// With each container's place in the list.
    containers: Vec<(usize, Container)>,
    /// When the kernel's files were read.
    read_at: Option<SystemTime>,
    /// Those of the engine, by container id.
    readings: HashMap<String, ContainerReading>,
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
        patterns: &LabelPatterns,
        now: &ContainerReading,
        before: Option<&CpuReading>,
    ) {
        let one = &self.running[index];
        let inspected = one.inspection.done();
        let mut published = publish(&one.listed, inspected, patterns, now, before);
        // The clock may have been set since the engine noted when it started the container.
        if let Some(uptime) = one.uptime() {
            published.uptime = Some(uptime.as_secs());
        }
        self.containers.push((index, published));
    }

    fn fail(&mut self, container: &RunningContainer, error: EngineError) {
        self.failures.push((container.listed.name.clone(), error));
    }
}

impl Source for ContainerSource {
    const NAME: &'static str = "docker";

    type Sample = DockerSample;

    async fn collect(&mut self) -> Round<DockerSample> {
        let inventory = match self.containers.now(self.patience).await {
            Ok(inventory) => inventory,
            Err(error) => return Round::failed(error.to_string()),
        };
        let outage = inventory.outage.as_ref().map(Outage::to_string);
        let measured = match self.measure(&inventory).await {
            Ok(Some(measured)) => measured,
            Ok(None) => return self.last_figures(inventory.as_listed(), outage),
            Err(late) => {
                return self.last_figures(inventory.as_listed(), Some(outage.unwrap_or(late)));
            }
        };
        let via = Via::of(measured.by_engine, measured.containers.len());
        let error = outage.or_else(|| part_failed("statistics", &measured.failures));
        // Replaced as a whole, and so pruned: what is no longer listed is forgotten.
        self.readings = measured.readings;
        let nothing = measured.containers.is_empty() && !measured.failures.is_empty();
        if let Some(error) = error.as_ref().filter(|_| nothing) {
            return Round::failed(error);
        }
        // The containers that can be read are shown all the same.
        let error = error.or_else(|| inventory.call.as_ref()?.unreadable());
        let containers = measured
            .containers
            .into_iter()
            .map(|(_, one)| one)
            .collect();
        let containers = Arc::new(containers);
        self.last = measured.read_at.map(|read_at| Last {
            containers: Arc::clone(&containers),
            at: Instant::now(),
            read_at,
        });
        Round {
            error,
            waited: measured.waited,
            retry: inventory.outage.is_some(),
            ..Round::whole(DockerSample {
                containers,
                namespaces: self.namespaces.names(&measured.running).await,
                events: self.containers.events(),
                meta: meta(&measured.running),
                via: via.clone(),
                via_reason: measured.reason.filter(|_| via != Via::Kernel),
            })
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
