//! Every message between actors, in flow order: collect → aggregate → publish.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use actix::{Message, Recipient};

use crate::model::{Container, ContainerMeta, Events, HostInfo, Options, SystemMetrics, Via};
pub use crate::model::{EndedLog, LogSample};
use crate::published::{EncodedSnapshot, Published, StreamPosition};

/// What a collector publishes after each round.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Collected<T> {
    /// What was read; none where the round failed as a whole.
    pub sample: Option<T>,
    /// What went wrong, in the round as a whole or in a part of it.
    pub error: Option<String>,
    /// When the round ended, by the wall clock.
    pub collected_at: SystemTime,
    /// How long the round took.
    pub duration: Duration,
    /// The time between rounds where it is more than the interval, as rounds take too long for
    /// that.
    pub stretched: Option<Duration>,
}

/// One reading of the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SystemSample {
    /// The `system` section.
    pub metrics: Arc<SystemMetrics>,
    /// The `host` section.
    pub host: Arc<HostInfo>,
    /// The agent's own share.
    pub agent: AgentUsage,
}

/// What the agent itself uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AgentUsage {
    /// CPU in percent of one core, over the last interval.
    pub cpu_percent: f64,
    /// CPU of the engine's processes, likewise; none where they cannot be seen.
    pub engine_cpu_percent: Option<f64>,
    /// Resident memory in bytes.
    pub memory_rss: u64,
    /// The anonymous part of it (`RssAnon`), in bytes.
    pub memory_anon: Option<u64>,
}

/// One reading of the engine's running containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DockerSample {
    /// The `containers` section.
    pub containers: Arc<Vec<Container>>,
    /// The `docker_meta` section.
    pub meta: Arc<Vec<Arc<ContainerMeta>>>,
    /// The containers' names, without the slash, by the numbers of their network namespaces in the agent's.
    pub namespaces: Arc<BTreeMap<i32, String>>,
    /// What has happened to containers up to now.
    pub events: Arc<Events>,
    /// Where the figures come from.
    pub via: Via,
    /// Why not all of them come from the kernel.
    pub via_reason: Option<String>,
}

/// What snapshots tell of the agent's own sockets and certificate. It is shared, as it goes against the stages' order, and a message
/// for each connection would cost more than the connection.
#[derive(Debug, Default)]
pub struct Reports {
    closed_early: AtomicU64,
    /// Those that the log has told of, and when it did so last.
    told: Mutex<(u64, Option<Instant>)>,
    /// In Unix seconds; 0: there is no certificate.
    certificate_expires: AtomicU64,
}

impl Reports {
    /// How often the log tells of connections that were closed early, at most.
    const TELL_EVERY: Duration = Duration::from_secs(60);

    /// A peer closed its connection before it had sent anything. Returns how many the log is to tell of now.
    pub fn closed_early(&self, now: Instant) -> Option<u64> {
        let all = self.closed_early.fetch_add(1, Ordering::Relaxed) + 1;
        // A panic ends the process.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, at) = *told;
        if at.is_some_and(|at| now.duration_since(at) < Self::TELL_EVERY) {
            return None;
        }
        *told = (all, Some(now));
        Some(all - before)
    }

    /// How many connections were closed early since the agent began.
    #[must_use]
    pub fn connections_closed_early(&self) -> u64 {
        self.closed_early.load(Ordering::Relaxed)
    }

    /// Takes note of when the certificate that is served expires.
    pub fn set_certificate_expires(&self, at: Option<SystemTime>) {
        let since_1970 = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        // One that expired in 1970 has expired as well a second later.
        let seconds = since_1970.map_or(0, |since| since.as_secs().max(1));
        self.certificate_expires.store(seconds, Ordering::Relaxed);
    }

    /// When the certificate that is served expires; none where there is none.
    #[must_use]
    pub fn certificate_expires(&self) -> Option<SystemTime> {
        let seconds = self.certificate_expires.load(Ordering::Relaxed);
        (seconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

/// Ends a collector: it starts no further round.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopCollecting;

/// The number of a connection, for the log and the list of subscribers.
pub type ClientId = u64;

/// From a session to the aggregator: send me snapshots, the newest one at once.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Subscribe {
    /// Who asks.
    pub client: ClientId,
    /// For which snapshots.
    pub options: Options,
    /// Where snapshots go.
    pub deliveries: Recipient<Delivery>,
}

/// From a session to the aggregator: the snapshot that came follows on one that I was not sent, so
/// send me the newest one with all log lines since the last that I was.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct CatchUp {
    /// Who asks.
    pub client: ClientId,
    /// What it was sent last.
    pub since: StreamPosition,
}

/// From a session to the aggregator: no more snapshots.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Unsubscribe {
    /// Who leaves.
    pub client: ClientId,
}

/// From an output to the aggregator: which snapshot is the newest? None before the first.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<Arc<Published>>")]
pub struct NewestSnapshot;

/// From an output to the aggregator: hand me every snapshot, the newest one at once.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AddOutput {
    /// Where they go.
    pub output: Recipient<Publication>,
}

/// From the aggregator to an output that it hands every snapshot.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Publication {
    /// The next snapshot.
    Published(Arc<Published>),
    /// The agent is stopping: finish within this time.
    End(Duration),
}

/// From the aggregator to a session.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Delivery {
    /// The next snapshot.
    Snapshot(Arc<EncodedSnapshot>),
    /// The agent is stopping: finish the line that is being written, then close, within this
    /// time.
    End(Duration),
}

/// From the app to the aggregator: publish nothing more and send every session
/// [`Delivery::End`].
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopPublishing {
    /// How long a session may take to finish its line and close.
    pub within: Duration,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use super::Reports;

    #[test]
    fn connections_closed_early_are_counted_one_by_one_and_told_of_once_a_minute() {
        let reports = Reports::default();
        let start = Instant::now();
        let at = |seconds| reports.closed_early(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(1));
        let told: Vec<_> = (1..43_200).filter_map(|number| at(2 * number)).collect();
        assert_eq!(told.len(), 43_199 / 30);
        assert!(told.iter().all(|count| *count == 30), "{told:?}");
        assert_eq!(reports.connections_closed_early(), 43_200);
    }

    #[test]
    fn a_certificate_has_an_end_or_is_not_there() {
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
