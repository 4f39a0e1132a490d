//! All messages between actors, in the order of the data flow: collect, aggregate, publish. Contains no logic except the counters
//! in [`Reports`].

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use actix::{Message, Recipient};
use bytes::Bytes;

use crate::model::{
    Container, ContainerMeta, ControlGroup, Events, FileLog, HostInfo, Kernel, Options,
    OutputHealth, Outputs, Sections, SourceStatus, StoppedContainer, SystemMetrics, Textfiles, Via,
    Volume,
};
pub use crate::model::{EndedLog, LogSample};
use crate::published::{EncodedSnapshot, Published, StreamPosition};

/// The result of a collector's round. The collector sends it to the aggregator.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Collected<T> {
    /// The figures that were read. None if the whole round failed.
    pub sample: Option<T>,
    /// The error, if the whole round or a part of it failed.
    pub error: Option<String>,
    /// The end of the round, by the wall clock.
    pub collected_at: SystemTime,
    /// The duration of the round.
    pub duration: Duration,
    /// The interval in use, if it is longer than the configured interval. The collector uses a longer interval while rounds take
    /// too long. None if the configured interval is in use.
    pub stretched: Option<Duration>,
}

/// Asks for the kernel's own figures. The collector reads them for this request, unless it has read them just before.
#[derive(Debug, Clone, Default, Message)]
#[rtype(result = "Result<Arc<Kernel>, String>")]
pub struct ReadKernel {
    /// The families to read.
    pub families: WantedFamilies,
    /// The containers to read.
    pub containers: Vec<Arc<ControlGroup>>,
}

/// The families of the kernel's own figures that a request wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WantedFamilies {
    /// Those that are on by default, and those that `METRICS_COLLECTORS` names.
    #[default]
    Default,
    /// Those with these names.
    Only(Vec<String>),
    /// The default without these.
    Without(Vec<String>),
}

impl WantedFamilies {
    /// Whether the request names the family.
    #[must_use]
    pub fn names(&self, family: &str) -> bool {
        matches!(self, Self::Only(names) if names.iter().any(|name| name == family))
    }

    /// Whether the request does not leave out the family.
    #[must_use]
    pub fn allows(&self, family: &str) -> bool {
        match self {
            Self::Default => true,
            Self::Only(_) => self.names(family),
            Self::Without(names) => names.iter().all(|name| name != family),
        }
    }
}

/// The kernel's own figures, for the snapshots of clients that want them. Their collector sends them to the aggregator at each of its
/// intervals, while there are such clients.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct KernelReading(pub Arc<Kernel>);

/// A reading of the files in `TEXTFILE_DIR`. Their collector sends each reading to the aggregator.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct TextfileReading {
    /// The reading, with the error for `sources`.
    pub collected: Collected<Arc<Textfiles>>,
    /// The time until the next reading, if nobody asks for one earlier.
    pub interval: Duration,
}

/// Asks for the figures of other programs in `TEXTFILE_DIR`. The collector reads only files that have changed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Arc<Textfiles>")]
pub struct ReadTextfiles;

/// Volumes and bind mounts of containers. The key is the container's full id.
pub type ContainerVolumes = HashMap<String, Vec<Volume>>;

/// One reading of the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SystemSample {
    /// The `system` section.
    pub metrics: Arc<SystemMetrics>,
    /// The `host` section.
    pub host: Arc<HostInfo>,
    /// The number of file systems, block devices and network interfaces that the settings leave out.
    pub excluded: u64,
    /// The volumes of containers that have a file system of their own.
    pub volumes: Arc<ContainerVolumes>,
    /// The use of CPU and memory by the agent and the engine.
    pub agent: AgentUsage,
}

/// The use of CPU and memory by the agent, and the CPU use of the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AgentUsage {
    /// CPU use of the agent since the previous reading, in percent of one core.
    pub cpu_percent: f64,
    /// CPU use of the engine's processes since the previous reading, in percent of one core. None if the agent cannot see these
    /// processes.
    pub engine_cpu_percent: Option<f64>,
    /// Resident memory of the agent, in bytes.
    pub memory_rss: u64,
    /// The anonymous part of the resident memory (`RssAnon`), in bytes.
    pub memory_anon: Option<u64>,
}

/// The stopped containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stopped {
    /// The container that stopped last is the first.
    pub containers: Arc<Vec<Arc<StoppedContainer>>>,
    /// The number of stopped containers that are not in `containers`.
    pub surplus: u64,
}

/// One reading of the engine's containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DockerSample {
    /// The `containers` section.
    pub containers: Arc<Vec<Container>>,
    /// The `docker_meta` section.
    pub meta: Arc<Vec<Arc<ContainerMeta>>>,
    /// The number of containers that the settings leave out.
    pub excluded: u64,
    /// The `stopped` section.
    pub stopped: Arc<Stopped>,
    /// The names of containers, without the slash. The key is the id of the container's network namespace, as seen from the
    /// agent's own network namespace.
    pub namespaces: Arc<BTreeMap<i32, String>>,
    /// The newest events of containers.
    pub events: Arc<Events>,
    /// The origin of the figures: the kernel, the engine or both.
    pub via: Via,
    /// The reason why not all figures come from the kernel. None if all figures come from the kernel.
    pub via_reason: Option<String>,
}

/// Figures about the agent's own sockets and certificate, for snapshots. The sockets and the reload of certificates write these
/// figures, and the aggregator reads them.
///
/// The figures are in shared memory, because a message for each connection would cost more than the connection itself.
#[derive(Debug, Default)]
pub struct Reports {
    closed_early: AtomicU64,
    /// How many connections had been closed early at the newest log event about such connections, and the time of that log
    /// event. Before the first log event, the time is none.
    logged: Mutex<(u64, Option<Instant>)>,
    /// The expiry of the certificate in Unix seconds. 0 means that there is no certificate.
    certificate_expires: AtomicU64,
    /// The health of the output to a NATS server.
    pub nats: OutputReport,
    /// The health of the output to a receiver of OpenTelemetry.
    pub otlp: OutputReport,
}

/// The health of an output. The output writes it, and the aggregator reads it.
#[derive(Debug, Default)]
pub struct OutputReport(Mutex<Option<OutputState>>);

#[derive(Debug, Default)]
struct OutputState {
    /// The newest error of each part of the output that fails.
    errors: BTreeMap<&'static str, String>,
    sent: u64,
    dropped: u64,
    /// Since when log lines or events wait. None if none wait.
    waiting: Option<Instant>,
}

impl OutputReport {
    fn with<T>(&self, change: impl FnOnce(&mut OutputState) -> T) -> T {
        // The lock is never poisoned, because a panic ends the process.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(state.get_or_insert_default())
    }

    /// Reports that the output is on.
    pub fn start(&self) {
        self.with(|_| ());
    }

    /// Reports that a part of the output works.
    pub fn succeeded(&self, part: &'static str) {
        self.with(|state| state.errors.remove(part));
    }

    /// Reports that a part of the output fails.
    pub fn failed(&self, part: &'static str, error: impl Into<String>) {
        self.with(|state| state.errors.insert(part, error.into()));
    }

    /// Counts log lines and events that the server has accepted.
    pub fn sent(&self, count: u64) {
        self.with(|state| state.sent += count);
    }

    /// Counts log lines and events that were dropped.
    pub fn dropped(&self, count: u64) {
        self.with(|state| state.dropped += count);
    }

    /// Reports whether log lines or events wait for the server.
    pub fn waiting(&self, is_waiting: bool) {
        self.with(|state| match is_waiting {
            true => _ = state.waiting.get_or_insert_with(Instant::now),
            false => state.waiting = None,
        });
    }

    /// Returns the health for snapshots. None if the output is off.
    #[must_use]
    pub fn health(&self) -> Option<OutputHealth> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.as_ref()?;
        let errors: Vec<&str> = state.errors.values().map(String::as_str).collect();
        Some(OutputHealth {
            status: match errors.is_empty() {
                true => SourceStatus::Ok,
                false => SourceStatus::Failing,
            },
            error: (!errors.is_empty()).then(|| errors.join("; ")),
            sent: state.sent,
            dropped: state.dropped,
            lag_ms: state
                .waiting
                .map(|since| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)),
        })
    }
}

impl Reports {
    /// The minimum time between two log events about connections that were closed early.
    const LOG_INTERVAL: Duration = Duration::from_secs(60);

    /// Counts a connection that the peer closed before the peer sent anything.
    ///
    /// Returns the number of such connections since the previous log event, if the next log event is due. Returns none if it is
    /// not due.
    pub fn closed_early(&self, now: Instant) -> Option<u64> {
        let all = self.closed_early.fetch_add(1, Ordering::Relaxed) + 1;
        // The lock is never poisoned, because a panic ends the process.
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, at) = *logged;
        if at.is_some_and(|at| now.duration_since(at) < Self::LOG_INTERVAL) {
            return None;
        }
        *logged = (all, Some(now));
        Some(all - before)
    }

    /// Returns the number of connections that were closed early since the start of the agent.
    #[must_use]
    pub fn connections_closed_early(&self) -> u64 {
        self.closed_early.load(Ordering::Relaxed)
    }

    /// Stores the expiry of the certificate that the agent uses. None means that there is no certificate.
    pub fn set_certificate_expires(&self, at: Option<SystemTime>) {
        let since_1970 = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        // 0 means that there is no certificate, so an expiry at second 0 is stored as second 1.
        let seconds = since_1970.map_or(0, |since| since.as_secs().max(1));
        self.certificate_expires.store(seconds, Ordering::Relaxed);
    }

    /// Returns the health of the outputs. None if all are off.
    #[must_use]
    pub fn outputs(&self) -> Option<Outputs> {
        let outputs = Outputs {
            nats: self.nats.health(),
            otlp: self.otlp.health(),
        };
        (outputs != Outputs::default()).then_some(outputs)
    }

    /// Returns the expiry of the certificate that the agent uses. None if there is no certificate.
    #[must_use]
    pub fn certificate_expires(&self) -> Option<SystemTime> {
        let seconds = self.certificate_expires.load(Ordering::Relaxed);
        (seconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

/// From a collector to the aggregator: what has changed since the source's newest round. Only live clients get it before the next
/// snapshot.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct News<T>(pub T);

/// From the app to a collector: stop, and publish no further round.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopCollecting;

/// The number of a connection, for the log and the list of subscribers.
pub type ClientId = u64;

/// From a session to the aggregator: send the newest snapshot immediately, if there is one, and each later snapshot as it is
/// published.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Subscribe {
    /// The client of the session.
    pub client: ClientId,
    /// The options of the client.
    pub options: Options,
    /// The recipient of the snapshots.
    pub deliveries: Recipient<Delivery>,
}

/// From a session to the aggregator: send the newest snapshot again, with all events and log lines after the position `since`.
///
/// A session sends this message if its client did not get the previous snapshot. The delivered snapshot has only the events and
/// log lines that are newer than that previous snapshot.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct CatchUp {
    /// The client of the session.
    pub client: ClientId,
    /// The position up to which the client has received events and log lines.
    pub since: StreamPosition,
    /// Whether the client needs only the events and log lines. If false, it also needs the figures.
    pub is_news: bool,
}

/// From a session to the aggregator: the client has received the figures of [`Delivery::History`]. Send the next of them, or else the
/// newest snapshot.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct HistorySent {
    /// The client of the session.
    pub client: ClientId,
}

/// From a session to the aggregator: send no more snapshots.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Unsubscribe {
    /// The client of the session.
    pub client: ClientId,
}

/// From a client's connection to the aggregator: asks what reads the log files of a container. The answer is an error for the client
/// if there is no such log.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<FileLog, String>")]
pub struct FindLog {
    /// The name of the container, or its id with at least 12 digits.
    pub container: String,
}

/// From an output to the aggregator: asks for the newest snapshot. The answer is none before the first snapshot.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<Arc<Published>>")]
pub struct NewestSnapshot;

/// From an output to the aggregator: send the newest snapshot immediately, if there is one, and each later snapshot as it is
/// published.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AddOutput {
    /// The recipient of the snapshots.
    pub output: Recipient<Publication>,
    /// The sections that the output needs in the snapshots.
    pub sections: Sections,
}

/// From the aggregator to an output that has sent [`AddOutput`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Publication {
    /// The next snapshot.
    Published(Arc<Published>),
    /// The agent stops. The output must finish within this time.
    End(Duration),
}

/// From the aggregator to a session.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Delivery {
    /// The next snapshot.
    Snapshot(Arc<EncodedSnapshot>),
    /// A complete line with figures of the past, as the client gets it. Comes before the first snapshot, to a session whose options
    /// ask for it. The session answers with [`HistorySent`].
    History(Bytes),
    /// The agent stops. Within this time, the session must finish the JSON line that it is writing, and close the connection.
    End(Duration),
}

/// From the app to the aggregator: stop publishing, and send [`Delivery::End`] to every session and [`Publication::End`] to every
/// output.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopPublishing {
    /// The time limit for a session to finish its JSON line and close the connection.
    pub within: Duration,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::Reports;
    use crate::model::{OutputHealth, SourceStatus};

    #[test]
    fn connections_closed_early_are_all_counted_and_logged_once_a_minute() {
        let reports = Reports::default();
        let start = Instant::now();
        let at = |seconds| reports.closed_early(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        let logged: Vec<_> = (1..43_200).filter_map(|number| at(2 * number)).collect();
        assert_eq!(logged.len(), 43_199 / 30);
        assert!(logged.iter().all(|count| *count == 30), "{logged:?}");
        assert_eq!(reports.connections_closed_early(), 43_200);
    }

    #[test]
    fn an_output_is_failing_while_one_of_its_parts_fails() {
        let reports = Reports::default();
        assert_eq!(reports.outputs(), None);
        reports.otlp.start();
        let health = || reports.outputs().unwrap().otlp.unwrap();
        assert_eq!((health().status, health().error), (SourceStatus::Ok, None));
        reports.otlp.failed("metrics", "refused");
        reports.otlp.failed("logs", "timed out");
        reports.otlp.waiting(true);
        assert_eq!(health().error.unwrap(), "timed out; refused");
        assert!(health().lag_ms.is_some());
        reports.otlp.succeeded("metrics");
        assert_eq!(health().status, SourceStatus::Failing);
        reports.otlp.succeeded("logs");
        reports.otlp.sent(3);
        reports.otlp.dropped(2);
        reports.otlp.waiting(false);
        let expected = OutputHealth {
            status: SourceStatus::Ok,
            error: None,
            sent: 3,
            dropped: 2,
            lag_ms: None,
        };
        assert_eq!(health(), expected);
        assert_eq!(reports.outputs().unwrap().nats, None);
    }

    #[test]
    fn the_expiry_of_the_certificate_is_stored_and_removed() {
        let reports = Reports::default();
        assert_eq!(reports.certificate_expires(), None);
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        reports.set_certificate_expires(Some(end));
        assert_eq!(reports.certificate_expires(), Some(end));
        reports.set_certificate_expires(Some(SystemTime::UNIX_EPOCH));
        assert!(reports.certificate_expires().is_some());
        reports.set_certificate_expires(None);
        assert_eq!(reports.certificate_expires(), None);
    }
}
