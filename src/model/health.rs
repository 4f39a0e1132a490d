//! How the sources are doing.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Whether all enabled sources are well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every enabled source is well.
    Ok,
    /// An enabled source is failing; [`Sources`] says which and why.
    Degraded,
    /// One that a later version knows.
    #[serde(untagged)]
    Other(String),
}

/// The health of each source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    /// The host's own figures.
    pub system: SourceHealth,
    /// The engine's containers and their figures.
    pub docker: SourceHealth,
    /// The containers' logs.
    pub logs: SourceHealth,
}

impl Sources {
    /// Each with its name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &SourceHealth)> {
        [
            ("system", &self.system),
            ("docker", &self.docker),
            ("logs", &self.logs),
        ]
        .into_iter()
    }

    /// `degraded` if any source is failing.
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
    /// Whether it is well.
    pub status: SourceStatus,
    /// When the figures in this snapshot were read; null while there are none.
    pub collected_at: Option<Timestamp>,
    /// How long the last round took, in milliseconds; null before the first.
    pub duration_ms: Option<u64>,
    /// The time between its rounds, in milliseconds: as it was configured, or longer while rounds
    /// take more than half of that. Absent where the source is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Why that is longer than what was configured; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_reason: Option<String>,
    /// Why the source is failing; null while it is not.
    pub error: Option<String>,
    /// Where its figures come from; absent where there is only one way, or no figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// Why not all of them come from the kernel; absent where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via_reason: Option<String>,
}

/// Where figures come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Files that the kernel or the engine keeps on this host, which costs the engine nothing.
    #[default]
    Kernel,
    /// Calls to the engine.
    Engine,
    /// Some the one way, some the other.
    Mixed,
    /// One that a later version knows.
    #[serde(untagged)]
    Other(String),
}

impl Via {
    /// Where the figures of `all` containers come from, `by_engine` of them by calls.
    #[must_use]
    pub fn of(by_engine: usize, all: usize) -> Self {
        match by_engine {
            0 => Self::Kernel,
            engine if engine == all => Self::Engine,
            _ => Self::Mixed,
        }
    }
}

/// Whether a source is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceStatus {
    /// Its last round succeeded.
    Ok,
    /// Its last round failed, wholly or in part, or it does not answer.
    Failing,
    /// It is switched off.
    Disabled,
    /// One that a later version knows.
    #[serde(untagged)]
    Other(String),
}
