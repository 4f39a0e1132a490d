//! The health of the sources, as in the snapshot's `status` and `sources`.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Whether all enabled sources work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No enabled source is failing.
    Ok,
    /// An enabled source is failing. [`Sources`] has the reason.
    Degraded,
    /// A value of a later version.
    #[serde(untagged)]
    Other(String),
}

/// The health of each source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    /// The source of `system`.
    pub system: SourceHealth,
    /// The source of `containers`, `docker_meta`, `stopped` and `events`.
    pub docker: SourceHealth,
    /// The source of `logs`.
    pub logs: SourceHealth,
    /// The source of `textfile`. It is also read while no client gets the section, once a minute. `failing`: a file or a metric of a
    /// file is left out, or the directory cannot be read. Absent without `TEXTFILE_DIR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub textfile: Option<SourceHealth>,
}

impl Sources {
    /// Returns the sources with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &SourceHealth)> {
        let always = [
            ("system", &self.system),
            ("docker", &self.docker),
            ("logs", &self.logs),
        ];
        let textfile = self.textfile.iter().map(|source| ("textfile", source));
        always.into_iter().chain(textfile)
    }

    /// Returns `degraded` if any source is failing, else `ok`.
    #[must_use]
    pub fn status(&self) -> Status {
        let failing = self
            .named()
            .any(|(_, source)| source.status == SourceStatus::Failing);
        if failing {
            Status::Degraded
        } else {
            Status::Ok
        }
    }
}

/// The health of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceHealth {
    /// `ok`: the newest round succeeded. `failing`: the newest round failed completely or partly, or the source does not answer.
    /// `disabled`: the source is switched off by the configuration.
    pub status: SourceStatus,
    /// The time when the figures in this snapshot were read. Null while there are no figures.
    pub collected_at: Option<Timestamp>,
    /// How long the newest round took, in milliseconds. Null before the first round.
    pub duration_ms: Option<u64>,
    /// The time between rounds, in milliseconds. It is usually the configured interval. It is longer while a round takes more
    /// than half of the configured interval. Absent if the source is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Why `interval_ms` is longer than the configured interval. Absent while the configured interval is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_reason: Option<String>,
    /// Why the source is failing. Null if the source is not failing.
    pub error: Option<String>,
    /// Where the figures come from. `kernel`: files of the kernel or of the engine on this host. The engine does no work for
    /// these figures. `engine`: calls to the engine. `mixed`: both. Absent for the source `system`, and while there are no
    /// figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// The number of containers, or of file systems, block devices and network interfaces, that the settings leave out. Absent if
    /// it is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<u64>,
    /// Why `via` is not `kernel`. Absent if `via` is `kernel` or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via_reason: Option<String>,
}

/// The health of the outputs that connect to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The output to a NATS server. Absent without `NATS_URL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<OutputHealth>,
    /// The output to a receiver of OpenTelemetry. Absent without `OTLP_ENDPOINT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OutputHealth>,
}

impl Outputs {
    /// Returns the outputs with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &OutputHealth)> {
        let all = [("nats", &self.nats), ("otlp", &self.otlp)];
        all.into_iter()
            .filter_map(|(name, output)| Some((name, output.as_ref()?)))
    }
}

/// The health of one output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputHealth {
    /// `ok`: the newest attempt succeeded, or there was none yet. `failing`: the server is away or has refused something.
    pub status: SourceStatus,
    /// Why the output is failing. Null if the output is not failing.
    pub error: Option<String>,
    /// The number of log lines and events that the server has accepted since the start of the agent.
    pub sent: u64,
    /// The number of log lines and events that were dropped since the start of the agent, because they were too many or because the
    /// server refused them for ever.
    pub dropped: u64,
    /// How long log lines or events have been waiting for the server, in milliseconds. Absent if none wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
}

/// Where the figures of a source come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Files of the kernel or of the engine on this host. The engine does no work when the agent reads these files.
    #[default]
    Kernel,
    /// Calls to the engine.
    Engine,
    /// Some figures come from files, and some figures come from calls to the engine.
    Mixed,
    /// A value of a later version.
    #[serde(untagged)]
    Other(String),
}

impl Via {
    /// Returns the value for `all` containers. The figures of `by_engine` of these containers come from calls to the engine.
    #[must_use]
    pub fn of(by_engine: usize, all: usize) -> Self {
        match by_engine {
            0 => Self::Kernel,
            engine if engine == all => Self::Engine,
            _ => Self::Mixed,
        }
    }
}

/// Whether a source or an output works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceStatus {
    /// The newest round succeeded.
    Ok,
    /// The newest round failed completely or partly, or the source does not answer.
    Failing,
    /// The source is switched off by the configuration.
    Disabled,
    /// A value of a later version.
    #[serde(untagged)]
    Other(String),
}
