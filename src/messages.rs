//! Every message between actors, in flow order: collect → aggregate → serve.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use actix::{Message, Recipient};
use bytes::Bytes;

use crate::model::{
    Container, ContainerMeta, Encoding, Events, HostInfo, LogLines, Logs, Options, Positions,
    Snapshot, SystemMetrics, Variant, Via,
};

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
    /// The part of it that no file is behind, in bytes.
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

/// One reading of the running containers' logs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogSample {
    /// The `logs` section.
    pub logs: Arc<Logs>,
    /// The logs of containers that have ended, those that ended first at the front.
    pub ended: Arc<Vec<EndedLog>>,
    /// How far all these logs have been read.
    pub positions: Arc<Positions>,
    /// Where the lines come from.
    pub via: Via,
    /// Why not all of them come from the engine's files.
    pub via_reason: Option<String>,
}

/// The log of a container that has ended, and may be started again.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedLog {
    /// The container's name, without the slash.
    pub name: String,
    /// The container's id.
    pub container: Arc<str>,
    /// How far it has been read.
    pub position: u64,
    /// Its last lines; none once they are old.
    pub lines: Option<Arc<LogLines>>,
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

/// From this number on subscribers are parts of the agent itself, and do not count as clients: as many connections as there
/// are numbers before it never come.
pub const FIRST_OF_THE_AGENTS_OWN: ClientId = 1 << 63;

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
    pub since: Since,
}

/// From a session to the aggregator: no more snapshots.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Unsubscribe {
    /// Who leaves.
    pub client: ClientId,
}

/// From whoever shows figures in a form of its own to the aggregator: which snapshot is the newest? None before the first.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<Published>")]
pub struct NewestSnapshot;

/// A snapshot, and when it was published.
#[derive(Debug, Clone)]
pub struct Published {
    /// Without events: each is told once, and has been.
    pub snapshot: Arc<Snapshot>,
    /// By the monotonic clock.
    pub at: Instant,
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

/// A snapshot's line, encoded once and shared by all sessions that asked for the same.
///
/// Only `agent.skipped` differs between them. It is the last field of the line, so that each
/// session ends the shared bytes with its own count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSnapshot {
    /// The snapshot's number.
    pub seq: u64,
    /// The number of the snapshot after which its log lines are new; none where it holds the
    /// newest, whatever was sent before.
    pub follows: Option<u64>,
    /// The number of the last event before those in it; none where it holds no events.
    pub events_after: Option<u64>,
    /// Where the next one may follow on.
    pub since: Since,
    /// What it holds, and how it is written.
    pub variant: Variant,
    /// All of the line up to the value of `skipped`.
    pub shared: Bytes,
}

/// What a snapshot has said of what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// The snapshot's number.
    pub seq: u64,
    /// How far the logs in it had been read.
    pub positions: Arc<Positions>,
    /// The number of the last event in it, or before it.
    pub events: u64,
}

/// The end of a line.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    bytes: [u8; Self::LONGEST],
    length: usize,
}

impl EncodedSnapshot {
    /// Whether log lines or events are missing for a client that was sent `since` last.
    #[must_use]
    pub fn lacks_something_after(&self, since: &Since) -> bool {
        self.follows.is_some_and(|follows| follows != since.seq)
            || self.events_after.is_some_and(|after| after > since.events)
    }

    /// The end of the line for a client that missed `skipped` snapshots.
    #[must_use]
    pub fn ending(&self, skipped: u64) -> Ending {
        let mut ending = Ending {
            bytes: [0; Ending::LONGEST],
            length: 0,
        };
        if self.variant.encoding == Encoding::Zstd {
            // The last block of the frame, as it is: its length and two bits for its type, one for last.
            ending.length = 3;
        }
        // Always fits.
        let mut room = &mut ending.bytes[ending.length..];
        let _ = writeln!(room, "{skipped}}}}}");
        let left = room.len();
        let text = Ending::LONGEST - ending.length - left;
        ending.length += text;
        if self.variant.encoding == Encoding::Zstd {
            ending.bytes[0] = (text as u8) << 3 | 1;
        }
        ending
    }
}

impl Ending {
    /// A block's header, 20 digits, `}}` and the line's end.
    const LONGEST: usize = 26;
}

impl AsRef<[u8]> for Ending {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
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
