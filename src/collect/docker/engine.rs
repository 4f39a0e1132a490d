//! The engine's calls, through bollard, each with a deadline and an error that says what to do.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bollard::models::{ContainerInspectResponse, ContainerStatsResponse, EventMessage, HostConfig};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    LogsOptionsBuilder, StatsOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, TryStreamExt};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::debug;

use super::listing::Listed;
use super::transport::Transport;
use crate::collect::with_causes;
use crate::settings::DockerHost;

/// How long one call may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// The events that are published, or change which containers run or what is known of one.
const EVENTS: [&str; 12] = [
    "start",
    "die",
    "oom",
    "restart",
    "pause",
    "unpause",
    "rename",
    "update",
    "destroy",
    "health_status",
    // Podman's words.
    "died",
    "remove",
];

/// Why the engine did not give what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum EngineError {
    /// The container is no longer there.
    #[error("no such container")]
    Gone,
    /// The container's logging driver keeps nothing that could be read.
    #[error("its logging driver does not support reading")]
    Unreadable,
    /// No answer in time.
    #[error("{call}: no answer within {} s", DEADLINE.as_secs())]
    Deadline {
        /// What was asked for.
        call: &'static str,
    },
    /// No connection, or an answer that is none.
    #[error("{call}: {reason}")]
    Failed {
        /// What was asked for.
        call: &'static str,
        /// Why it failed, with all causes.
        reason: String,
    },
}

/// An engine: connects when needed, and anew after [`Engine::disconnect`].
pub(crate) struct Engine {
    host: DockerHost,
    /// Speaks the API version negotiated with the engine, which may be another one after an
    /// outage.
    connected: Option<Call>,
}

impl Engine {
    pub(crate) fn new(host: DockerHost) -> Self {
        Self {
            host,
            connected: None,
        }
    }

    /// A handle for calls; settles the API version with a fresh engine first.
    pub(crate) async fn call(&mut self) -> Result<Call, EngineError> {
        if let Some(call) = &self.connected {
            return Ok(call.clone());
        }
        let call = Call::negotiate(&self.host).await?;
        debug!(engine = %self.host, api = call.api_version(), "engine connected");
        Ok(self.connected.insert(call).clone())
    }

    /// Forgets what was negotiated: the engine may come back as another version.
    pub(crate) fn disconnect(&mut self) {
        self.connected = None;
    }
}

/// A connected engine.
#[derive(Clone)]
pub(crate) struct Call {
    client: Docker,
    transport: Transport,
}

impl Call {
    /// Settles on the newest API version that both sides know. An engine behind a proxy that
    /// keeps its version to itself is spoken to in its own.
    async fn negotiate(host: &DockerHost) -> Result<Self, EngineError> {
        let transport = Transport::new(host);
        let client = {
            let transport = transport.clone();
            Docker::connect_with_custom_transport(
                move |request| transport.clone().send(request),
                Some("http://docker"),
                DEADLINE.as_secs(),
                API_DEFAULT_VERSION,
            )
            .map_err(|error| classify("connect", &error))?
        };
        let negotiated = client.clone().negotiate_version();
        match within("connect", async { Ok(negotiated.await) }).await? {
            Ok(client) => transport.speak(client.client_version()),
            Err(BollardError::DockerResponseServerError { status_code, .. })
                if (400..500).contains(&status_code) => {}
            Err(error) => return Err(classify("connect", &error)),
        }
        Ok(Self { client, transport })
    }

    /// The API version that was negotiated.
    pub(crate) fn api_version(&self) -> String {
        match self.transport.version() {
            Some(version) => format!("{}.{}", version.major_version, version.minor_version),
            None => "of the engine's choice".to_owned(),
        }
    }

    /// The running containers, with their metadata. Never asks for sizes, which make the engine
    /// walk the containers' disks.
    pub(crate) async fn list(&self) -> Result<Vec<Listed>, EngineError> {
        let options = ListContainersOptionsBuilder::default().all(false).build();
        let summaries = within(
            "list containers",
            self.client.list_containers(Some(options)),
        )
        .await?;
        Ok(summaries
            .into_iter()
            .filter_map(Listed::from_summary)
            .collect())
    }

    /// Whether it is there.
    pub(crate) async fn ping(&self) -> Result<(), EngineError> {
        let ping = self.client.ping();
        match within("ping", async { Ok(ping.await) }).await? {
            // A proxy that denies it has answered as well.
            Ok(_)
            | Err(BollardError::DockerResponseServerError {
                status_code: 400..500,
                ..
            }) => Ok(()),
            Err(error) => Err(classify("ping", &error)),
        }
    }

    /// What happens to containers, from `since` on: whatever changes the list of those that run,
    /// or what is known of one.
    pub(crate) fn events(
        &self,
        since: SystemTime,
    ) -> impl Stream<Item = Result<EventMessage, BollardError>> + Send + use<> {
        let since = since
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let filters = HashMap::from([("type", vec!["container"]), ("event", EVENTS.to_vec())]);
        let options = EventsOptionsBuilder::default()
            .since(&since.as_secs().to_string())
            .filters(&filters)
            .build();
        self.client.events(Some(options))
    }

    /// What the kernel's and the engine's own files need to be read.
    pub(crate) async fn inspect(&self, id: &str) -> Result<Inspected, EngineError> {
        let options = None::<InspectContainerOptions>;
        let inspect = self.client.inspect_container(id, options);
        within("inspect container", inspect)
            .await
            .map(Inspected::from)
    }

    /// One container's statistics. With `one_shot` the engine takes one reading; without, it
    /// takes two and waits a second or two in between.
    pub(crate) async fn stats(
        &self,
        id: &str,
        one_shot: bool,
    ) -> Result<ContainerStatsResponse, EngineError> {
        let options = StatsOptionsBuilder::default()
            .stream(false)
            .one_shot(one_shot)
            .build();
        let mut answers = std::pin::pin!(self.client.stats(id, Some(options)));
        within("container statistics", answers.try_next())
            .await?
            .ok_or(EngineError::Gone)
    }

    /// The newest `tail` messages of a container's log, with timestamps; of those since a Unix
    /// time, if one is given. The caller keeps the [`DEADLINE`].
    pub(crate) fn logs(
        &self,
        id: &str,
        tail: usize,
        since: Option<i32>,
    ) -> impl Stream<Item = Result<LogOutput, BollardError>> + use<> {
        let mut options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .tail(&tail.to_string());
        if let Some(since) = since {
            options = options.since(since);
        }
        self.client.logs(id, Some(options.build()))
    }
}

/// What the engine knows of a container beside its metadata.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Inspected {
    /// Its first process; 0 where it does not run.
    pub(crate) pid: u32,
    /// Whether it has a network namespace of its own, or shares another container's: not the
    /// host's.
    pub(crate) own_network: bool,
    /// The container whose network namespace it shares, by id; none where it has its own, or the host's.
    pub(crate) network_of: Option<String>,
    /// When it was started last.
    pub(crate) started_at: Option<SystemTime>,
    /// What its health check says; none where it has none.
    pub(crate) health: Option<String>,
    /// How often its restart policy has started it anew.
    pub(crate) restart_count: Option<u64>,
    /// The digest of its image's configuration.
    pub(crate) image_digest: Option<String>,
    /// The most processes and threads that it may have; none where that is not limited.
    pub(crate) pids_limit: Option<u64>,
    /// How many cores it may use; none where that is not limited.
    pub(crate) cpu_limit: Option<f64>,
    pub(crate) labels: HashMap<String, String>,
    /// Whether its output is that of a terminal.
    pub(crate) tty: bool,
    /// The logging driver.
    pub(crate) log_driver: String,
    /// The newest file of its log, where the driver is `json-file`.
    pub(crate) log_file: Option<PathBuf>,
}

impl From<ContainerInspectResponse> for Inspected {
    fn from(container: ContainerInspectResponse) -> Self {
        let state = container.state.unwrap_or_default();
        let config = container.config.unwrap_or_default();
        let host = container.host_config.unwrap_or_default();
        let cpu_limit = cpu_limit(&host);
        let driver = host.log_config.and_then(|log| log.typ);
        // Podman calls its own format by that name, too: only Docker's files are called so.
        let in_file =
            |path: &String| driver.as_deref() == Some("json-file") && path.ends_with("-json.log");
        Self {
            pid: u32::try_from(state.pid.unwrap_or_default()).unwrap_or_default(),
            started_at: state.started_at.as_deref().and_then(moment),
            // The engine's word for "it has no check".
            health: state
                .health
                .and_then(|health| health.status)
                .map(|status| status.to_string())
                .filter(|status| !status.is_empty() && status != "none"),
            restart_count: container
                .restart_count
                .and_then(|count| u64::try_from(count).ok()),
            image_digest: container.image.filter(|image| image.starts_with("sha256:")),
            pids_limit: host
                .pids_limit
                .and_then(|limit| u64::try_from(limit).ok())
                .filter(|limit| *limit > 0),
            cpu_limit,
            labels: config.labels.unwrap_or_default(),
            own_network: host.network_mode.as_deref() != Some("host"),
            network_of: host
                .network_mode
                .as_deref()
                .and_then(|mode| mode.strip_prefix("container:"))
                .map(str::to_owned),
            tty: config.tty.unwrap_or_default(),
            log_file: container.log_path.filter(in_file).map(PathBuf::from),
            log_driver: driver.unwrap_or_default(),
        }
    }
}

/// A moment that the engine tells; none for its year 1, which stands for "never".
fn moment(text: &str) -> Option<SystemTime> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (at.year() > 1).then(|| SystemTime::from(at))
}

/// As `docker run --cpus`, or its share of each period.
fn cpu_limit(host: &HostConfig) -> Option<f64> {
    /// In microseconds.
    const PERIOD: i64 = 100_000;
    let positive = |value: Option<i64>| value.filter(|value| *value > 0);
    if let Some(billionths) = positive(host.nano_cpus) {
        return Some(billionths as f64 / 1e9);
    }
    let period = positive(host.cpu_period).unwrap_or(PERIOD);
    positive(host.cpu_quota).map(|quota| quota as f64 / period as f64)
}

/// Waits for a call until its deadline, and tells errors of interest from the rest.
async fn within<T>(
    call: &'static str,
    answer: impl Future<Output = Result<T, BollardError>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(classify(call, &error)),
        Err(_) => Err(EngineError::Deadline { call }),
    }
}

/// The most of an engine's own words that is passed on.
const LONGEST_REASON: usize = 300;

/// Tells errors of interest from the rest.
pub(crate) fn classify(call: &'static str, error: &BollardError) -> EngineError {
    match error {
        BollardError::RequestTimeoutError => EngineError::Deadline { call },
        // 409: it is being removed.
        BollardError::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        } => EngineError::Gone,
        BollardError::DockerResponseServerError { message, .. }
            if message.contains("does not support reading") =>
        {
            EngineError::Unreadable
        }
        _ => {
            let mut reason = with_causes(error);
            if is_denied(error) {
                reason.push_str(
                    "; the agent must run as root or in the group that owns the socket (docker)",
                );
            }
            if let Some((cut, _)) = reason.char_indices().nth(LONGEST_REASON) {
                reason.truncate(cut);
                reason.push('…');
            }
            EngineError::Failed { call, reason }
        }
    }
}

fn is_denied(error: &BollardError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerInspectResponse;

    use super::Inspected;

    #[test]
    fn fuzz_inspections() {
        let usual = r#"{"Id":"0123456789abcdef","Created":"2026-01-01T00:00:00Z","RestartCount":1,"LogPath":"/x-json.log",
            "Image":"sha256:0123","Config":{"Tty":true,"Labels":{"a":"b"}},
            "State":{"Status":"running","Pid":7,"StartedAt":"2026-01-01T00:00:00.5Z","Health":{"Status":"healthy"}},
            "HostConfig":{"NanoCpus":5,"PidsLimit":9,"LogConfig":{"Type":"json-file","Config":{}},"NetworkMode":"bridge"}}"#;
        let odd = r#"{"State":{"Pid":0,"StartedAt":"0001-01-01T00:00:00Z","Health":{"Status":"none"}},"LogPath":"",
            "HostConfig":{"CpuQuota":-1,"CpuPeriod":0,"PidsLimit":-1,"LogConfig":{"Type":"local"},"NetworkMode":"container:01"}}"#;
        let inspected = |bytes: &[u8]| {
            serde_json::from_slice::<ContainerInspectResponse>(bytes)
                .ok()
                .map(Inspected::from)
        };
        assert_eq!(inspected(usual.as_bytes()).map(|of| of.pid), Some(7));
        assert_eq!(inspected(odd.as_bytes()).map(|of| of.pid), Some(0));
        crate::fuzzing::run("inspections", &[usual, odd].map(str::as_bytes), |bytes| {
            let Some(inspected) = inspected(bytes) else {
                return;
            };
            let limit = inspected.cpu_limit;
            assert!(
                limit.is_none_or(|cores| cores > 0.0 && cores.is_finite()),
                "{limit:?}"
            );
            assert!(inspected.pids_limit != Some(0));
        });
    }
}
