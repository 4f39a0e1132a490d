//! Measures the running containers, and collects their metadata and events. Does not read logs.
//!
//! In each round, [`ContainerSource`] gets the running containers from `follower`. It reads their figures from the kernel's
//! files (`direct`) or calls the engine (`engine`, `stats`). `usage` calculates the published figures.

mod choice;
mod direct;
pub(super) mod engine;
mod engine_error;
mod events;
mod files;
mod follower;
mod health;
mod inspected;
mod inspection;
mod inventory;
mod json;
mod listing;
mod namespaces;
mod pieces;
mod proc_cgroup;
mod process;
mod sizes;
mod stats;
mod stopped;
mod transport;
mod usage;

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use foldhash::{HashMap, HashMapExt as _};
use futures_util::{StreamExt, stream};
use rustix::process::{Resource, getrlimit};
use tokio::sync::watch;

use super::blocking::Blocking;
use super::{Collector, Round, Source};
use crate::messages::DockerSample;
use crate::model::{Container, ContainerMeta, Events, Via};
use crate::settings::{CollectSettings, ContainerStats, DockerHost, Patterns};
use choice::ContainerChoice;
pub use direct::most_kept_files;
use direct::{Direct, FigureSet, Figures, Missing};
use engine::{Engine, EngineError};
pub(super) use events::StartedContainer;
pub use follower::Containers;
pub(super) use follower::patience;
pub(super) use inspected::VolumeMount;
pub(super) use inspection::Inspection;
pub(super) use inventory::{Inventory, Outage, RunningContainer};
use listing::ListScope;
pub(super) use listing::ListedContainer;
use namespaces::Namespaces;
use sizes::Sizes;
pub(super) use transport::next_bytes;
use usage::{ContainerReading, CpuReading, publish, share_networks};

/// Maximum number of calls for statistics at the same time. Docker 20.10 answers such a call only once a second, so a round sends
/// all its calls at the same time. Each call needs a file descriptor, so there is a limit.
const CALLS_AT_ONCE: usize = 512;
/// Pause between the first and the second reading of a new container. Because of the second reading, the first published figures
/// already have a CPU percentage. The pause can be short, because the kernel counts CPU time in nanoseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Timeout for reading the kernel's files. After the timeout, the round publishes the container list, the events and the previous
/// figures.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest interval with which the kernel's files stay open between rounds. With a longer interval, the files are closed after
/// each round. An open file keeps the network and the control group of an ended container alive until the next round.
const MAX_INTERVAL_KEPT_OPEN: Duration = Duration::from_secs(15);

/// The actor that measures the running containers at each interval.
pub type DockerCollector = Collector<ContainerSource>;

/// The source of the figures of the engine's running containers.
///
/// The source reads the kernel's files, because they cost the engine no work. If the agent cannot read the files of a container,
/// the source calls the engine for the statistics of that container.
pub struct ContainerSource {
    containers: Containers,
    /// Is notified of every new event.
    event_changes: watch::Receiver<()>,
    method: ContainerStats,
    labels: Patterns,
    /// How long a round waits for the engine.
    patience: Duration,
    /// Maximum age of the previous figures, which are published while no newer figures can be read.
    stand_for: Duration,
    /// Maximum number of the kernel's files that stay open between rounds.
    kept_files: u64,
    direct: Blocking<Option<Direct>, FigureSet>,
    /// Whether `direct` has no open files, because there was no container at the newest reading.
    has_no_files: bool,
    namespaces: Namespaces,
    /// The previous readings from the engine, by container id. The next readings are compared with them.
    readings: HashMap<String, ContainerReading>,
    last: Option<Last>,
    /// The sizes of the writable layers. None if the settings do not want them.
    sizes: Option<Sizes>,
}

/// The previous figures from the kernel's files.
struct Last {
    containers: Arc<Vec<Container>>,
    at: Instant,
    read_at: SystemTime,
}

/// Whether the kernel's files stay open between two rounds that are `interval` apart.
#[must_use]
pub fn keeps_files_open(interval: Duration) -> bool {
    interval <= MAX_INTERVAL_KEPT_OPEN
}

impl ContainerSource {
    /// Creates a source for `containers`. The settings choose the method (kernel or engine) and the labels to publish.
    #[must_use]
    pub fn new(containers: Containers, settings: &CollectSettings) -> Self {
        Self {
            event_changes: containers.event_changes(),
            containers,
            method: settings.container_stats,
            labels: settings.container_labels.clone(),
            patience: patience(settings.docker_interval),
            stand_for: super::stand_for(settings.docker_interval),
            kept_files: if keeps_files_open(settings.docker_interval) {
                let limit = getrlimit(Resource::Nofile).current;
                most_kept_files(limit.unwrap_or(u64::MAX), 0)
            } else {
                0
            },
            direct: Blocking::new("the containers' control groups", None),
            has_no_files: true,
            namespaces: Namespaces::default(),
            readings: HashMap::new(),
            last: None,
            sizes: settings
                .container_sizes
                .zip(settings.docker.clone())
                .map(|(interval, host)| Sizes::new(host, interval)),
        }
    }

    /// Sets how many files of containers stay open between rounds. By default a quarter of the files that the process can open.
    #[must_use]
    pub fn with_kept_files(self, kept_files: u64) -> Self {
        Self { kept_files, ..self }
    }

    /// Measures the containers of an inventory. Omits a container that stops during the measurement. Returns `None` if the files
    /// are still being read at the timeout.
    ///
    /// # Errors
    /// Fails if a reading of the kernel's files hangs.
    async fn measure(&mut self, inventory: &Inventory) -> Result<Option<Measured>, String> {
        let mut measured = Measured::default();
        let mut for_engine = Vec::new();
        if self.method == ContainerStats::Engine {
            measured.reason = Some("CONTAINER_STATS is engine".to_owned());
            measured.running = Arc::clone(inventory.as_listed());
            for_engine.extend(0..measured.running.len());
        } else if self.has_no_files && inventory.as_listed().is_empty() {
            // Another thread would have nothing to read and no file to close.
            measured.read_at = Some(SystemTime::now());
        } else {
            self.has_no_files = false;
            let (inventory, kept_files) = (inventory.clone(), self.kept_files);
            let read = move |direct: &mut Option<Direct>| {
                let direct = direct.get_or_insert_with(|| Direct::new(kept_files));
                direct.read_all(&inventory)
            };
            match self.direct.read_within(KERNEL_TIMEOUT, read).await? {
                Some(figure_set) if figure_set.is_whole => {
                    self.has_no_files = figure_set.running.is_empty();
                    self.add_kernel_figures(figure_set, &mut measured, &mut for_engine)
                        .await;
                }
                _ => return Ok(None),
            }
        }
        self.ask_engine(inventory, for_engine, &mut measured).await;
        measured
            .containers
            .sort_unstable_by_key(|(index, _)| *index);
        share_networks(&mut measured.containers, &measured.running);
        if let Some(sizes) = &self.sizes {
            let sizes = sizes.newest();
            for (index, container) in &mut measured.containers {
                let one = &measured.running[*index];
                container.disk_used = sizes.get(&one.listed.id).copied();
            }
        }
        Ok(Some(measured))
    }

    /// Adds the figures from the kernel's files. If the files of a container cannot be read, adds the container to `for_engine`.
    async fn add_kernel_figures(
        &mut self,
        figure_set: FigureSet,
        measured: &mut Measured,
        for_engine: &mut Vec<usize>,
    ) {
        measured.running = figure_set.running;
        measured.read_at = Some(figure_set.read_at);
        let running = Arc::clone(&measured.running);
        let mut lost = Vec::new();
        let mut fresh = Vec::new();
        for (index, (container, figures)) in running.iter().zip(figure_set.figures).enumerate() {
            // The figures are correct, but the engine's information about the container can be stale.
            if let (Ok(_), Inspection::Failed { error, .. }) = (&figures, &container.inspection) {
                measured.fail(container, error.clone());
            }
            match figures {
                Ok(Figures { now, before }) => match before {
                    Some(before) => measured.add(index, &self.labels, &now, Some(&before)),
                    None => fresh.push(index),
                },
                Err(Missing::Lost) => lost.push(index),
                Err(Missing::Idle) => {}
                Err(Missing::Failed(error)) => measured.fail(container, error),
                Err(Missing::Refused(reason)) if self.method == ContainerStats::Auto => {
                    measured.reason.get_or_insert(reason);
                    for_engine.push(index);
                }
                Err(Missing::Refused(reason)) => measured.fail(
                    container,
                    EngineError::Failed {
                        call: "CONTAINER_STATS is kernel, but the kernel's files cannot be read",
                        reason,
                    },
                ),
            }
        }
        self.read_again(fresh, lost, measured).await;
    }

    /// Reads new containers a second time. If the files of a container are gone, inspects the container again and reads its new
    /// files.
    async fn read_again(&mut self, fresh: Vec<usize>, lost: Vec<usize>, measured: &mut Measured) {
        let id = |index: &usize| measured.running[*index].listed.id.clone();
        let mut ids: Vec<String> = lost.iter().map(id).collect();
        let inspected_again = if lost.is_empty() {
            None
        } else {
            // Most likely these containers have restarted. Their files are new, and their counters start at 0. If the new files
            // cannot be read, the next round reports the error.
            let inspected_again = self
                .containers
                .inspected_again(ids.clone(), self.patience)
                .await;
            inspected_again.ok()
        };
        ids.extend(fresh.iter().map(id));
        if ids.is_empty() {
            return;
        }
        measured.waited = FIRST_PAUSE;
        let kept_files = self.kept_files;
        let read = move |direct: &mut Option<Direct>| {
            let direct = direct.get_or_insert_with(|| Direct::new(kept_files));
            direct.read_twice(&ids, inspected_again.as_ref(), FIRST_PAUSE)
        };
        // If this reading takes too long, the next round reports the error.
        let patience = KERNEL_TIMEOUT + FIRST_PAUSE;
        if let Ok(Some(again)) = self.direct.read_within(patience, read).await {
            for (index, figures) in lost.into_iter().chain(fresh).zip(again.figures) {
                if let Ok(Figures { now, before }) = figures {
                    measured.add(index, &self.labels, &now, before.as_ref());
                }
            }
        }
    }

    /// Calls the engine for the statistics of the containers `for_engine`, for all of them at the same time.
    async fn ask_engine(
        &self,
        inventory: &Inventory,
        for_engine: Vec<usize>,
        measured: &mut Measured,
    ) {
        let running = Arc::clone(&measured.running);
        let Some(call) = &inventory.call else {
            for index in for_engine {
                let error = inventory.outage.as_ref().map(Outage::error);
                let error = error.unwrap_or(EngineError::Gone);
                measured.fail(&running[index], error);
            }
            return;
        };
        let (readings, patterns) = (&self.readings, &self.labels);
        let mut answers = stream::iter(for_engine)
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
            if answer.as_ref().is_ok_and(stats::are_unknown) {
                let reason = "the engine has no figures; a rootless engine needs cgroup v2";
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
                // The container stopped after the container list was read.
                Ok(None) | Err(EngineError::Gone) => {}
                Err(error) => measured.fail(container, error),
            }
        }
    }

    /// Returns the previous figures, for a round that gets no newer figures from the kernel's files. `read_at` is the time when
    /// the figures were read. Omits figures that are older than `stand_for`.
    fn last_figures(&self, inventory: &Inventory, error: Option<String>) -> Round<DockerSample> {
        let running = inventory.as_listed();
        let last = self.last.as_ref();
        let last = last.filter(|last| last.at.elapsed() < self.stand_for);
        Round {
            read_at: last.map(|last| last.read_at),
            error,
            ..Round::whole(DockerSample {
                namespaces: self.namespaces.known_names(running),
                containers: last.map_or_else(Arc::default, |last| Arc::clone(&last.containers)),
                events: self.containers.events(),
                stopped: inventory.stopped_beside(running),
                excluded: inventory.excluded(),
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

/// The results of one round.
#[derive(Default)]
struct Measured {
    /// The running containers.
    running: Arc<Vec<RunningContainer>>,
    /// The figures of each measured container, with its index in `running`.
    containers: Vec<(usize, Container)>,
    /// When the kernel's files were read.
    read_at: Option<SystemTime>,
    /// The readings from the engine, by container id.
    readings: HashMap<String, ContainerReading>,
    failures: Vec<(String, EngineError)>,
    /// Number of containers whose figures come from the engine.
    by_engine: usize,
    /// The first reason in this round for a call to the engine.
    reason: Option<String>,
    /// The time between the first and the second reading of new containers.
    waited: Duration,
}

impl Measured {
    fn add(
        &mut self,
        index: usize,
        patterns: &Patterns,
        now: &ContainerReading,
        before: Option<&CpuReading>,
    ) {
        let one = &self.running[index];
        let inspected = one.inspection.done();
        let mut published = publish(&one.listed, inspected, patterns, now, before);
        // The engine's start time is wrong if the host's clock was set after the start. The process's uptime is always right.
        if let Some(uptime) = one.uptime() {
            published.uptime = Some(uptime.as_secs());
        }
        self.containers.push((index, published));
    }

    fn fail(&mut self, container: &RunningContainer, error: EngineError) {
        self.failures
            .push((container.listed.name.to_string(), error));
    }
}

impl Source for ContainerSource {
    const NAME: &'static str = "docker";

    type Sample = DockerSample;

    type News = Arc<Events>;

    async fn wait_for_news(&mut self) {
        if self.event_changes.changed().await.is_err() {
            // The agent is stopping.
            pending::<()>().await;
        }
    }

    async fn read_news(&mut self) -> Option<Arc<Events>> {
        Some(self.containers.events())
    }

    async fn collect(&mut self) -> Round<DockerSample> {
        let inventory = match self.containers.now(self.patience).await {
            Ok(inventory) => inventory,
            Err(error) => return Round::failed(error.to_string()),
        };
        if let Some(sizes) = &mut self.sizes {
            sizes.begin_round();
        }
        let outage = inventory.outage.as_ref().map(Outage::to_string);
        let measured = match self.measure(&inventory).await {
            Ok(Some(measured)) => measured,
            Ok(None) => return self.last_figures(&inventory, outage),
            Err(late) => {
                return self.last_figures(&inventory, Some(outage.unwrap_or(late)));
            }
        };
        let via = Via::of(measured.by_engine, measured.containers.len());
        let error = outage.or_else(|| part_failed("statistics", &measured.failures));
        // Replaces all readings, so the readings of containers that are no longer in the list are removed.
        self.readings = measured.readings;
        let nothing = measured.containers.is_empty() && !measured.failures.is_empty();
        if let Some(error) = error.as_ref().filter(|_| nothing) {
            return Round::failed(error);
        }
        // Some entries of the container list could not be read. The other containers are published together with this error.
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
                stopped: inventory.stopped_beside(&measured.running),
                excluded: inventory.excluded(),
                meta: meta(&measured.running),
                via: via.clone(),
                via_reason: measured.reason.filter(|_| via != Via::Kernel),
            })
        }
    }
}

/// Returns one sentence about the containers that a round could not read. None if the round could read all containers.
pub(super) fn part_failed(what: &str, failures: &[(String, EngineError)]) -> Option<String> {
    let (name, error) = failures.first()?;
    let more = match failures.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!("{what} of {name}: {error}{more}"))
}

/// Number of attempts of [`server`] to reach an engine that does not answer in time.
const ATTEMPTS: u32 = 3;

/// Connects to the engine at `host`. Tries again if the engine does not answer in time, because a connection to a socket of systemd
/// can start the engine first. Returns the engine's address, its API version and the number of running containers as a
/// text.
///
/// # Errors
/// Fails if the engine cannot be reached. The error says why.
pub async fn server(host: &DockerHost) -> Result<String, String> {
    let mut engine = Engine::new(host.clone());
    let reached = async |engine: &mut Engine| {
        let call = engine.call().await?;
        let listed = call
            .list(ListScope::Running, &ContainerChoice::default())
            .await?;
        Ok((call.api_version(), listed.running.len(), call.unreadable()))
    };
    let mut outcome = reached(&mut engine).await;
    for _ in 1..ATTEMPTS {
        if matches!(outcome, Err(EngineError::Deadline { .. })) {
            outcome = reached(&mut engine).await;
        }
    }
    match outcome {
        Ok((api, running, unreadable)) => {
            let unreadable = unreadable.map_or_else(String::new, |reason| format!("; {reason}"));
            Ok(format!(
                "{host}, API {api}, {running} containers running{unreadable}"
            ))
        }
        Err(EngineError::Gone) => Err("no container list: is this a Docker engine?".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
