//! Containers that do not run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Compose, Timestamp};

/// A container that exists and does not run. Source: the engine's container list and one inspection after each stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoppedContainer {
    /// The first 12 hex digits of the container's id.
    pub id: String,
    /// The container's name, with its leading `/`.
    pub name: String,
    /// The image from which the container was created, with its name in the engine's container list.
    pub image: String,
    /// The engine's word for the state: `exited`, `created`, `dead`, `removing` or another word.
    pub state: String,
    /// The exit code of the container's first process. Absent if the container was never started, if the inspection failed, and until
    /// the engine reports the end. Source: the engine's `State.ExitCode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Whether the kernel has killed a process of the container because of too little memory. Absent if the inspection failed.
    /// Source: the engine's `State.OOMKilled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// The time of the container's newest start, by the engine's clock. Absent if the container was never started. Source: the
    /// engine's `State.StartedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The time when the container stopped, by the engine's clock. Absent if the container was never started. Source: the
    /// engine's `State.FinishedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The restart policy: `no`, `always`, `unless-stopped`, `on-failure` or another word of the engine. Source: the engine's
    /// `HostConfig.RestartPolicy.Name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// The container's project and service in `docker compose`. Absent for a container without `docker compose`. Source: as for a
    /// running container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<Compose>,
    /// Whether `docker compose run` created the container. Absent if not. Source: the label `com.docker.compose.oneoff`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_off: bool,
    /// The last result of the container's health check. Absent if the container has no health check. Source: the engine's
    /// `State.Health.Status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// What the newest failed health check has printed, as the engine reported it at the newest inspection. It is redacted by
    /// `LOG_REDACT` and cut at 1 KiB. Absent unless the container is unhealthy. Source: the engine's `State.Health.Log`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_output: Option<Arc<str>>,
    /// Why the engine could not start the container. Absent if there was no such error. Source: the engine's `State.Error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl StoppedContainer {
    /// Whether the container is meant to run. The restart policies `always` and `unless-stopped` mean it. The policy `on-failure`
    /// and a `docker compose` project mean it unless the container has ended with the exit code 0, as a finished job does, or was created
    /// by `docker compose run`.
    #[must_use]
    pub fn is_down(&self) -> bool {
        let has_failed = self.error.is_some() || self.exit_code.is_some_and(|code| code != 0);
        match self.restart_policy.as_deref() {
            Some("always" | "unless-stopped") => true,
            Some("on-failure") => has_failed,
            _ => self.compose.is_some() && !self.one_off && has_failed,
        }
    }

    /// Returns the name without the slash.
    #[must_use]
    pub fn bare_name(&self) -> &str {
        self.name.trim_start_matches('/')
    }
}

#[cfg(test)]
mod tests {
    use super::StoppedContainer;
    use crate::model::Compose;

    #[test]
    fn a_container_is_down_if_it_is_meant_to_run() {
        let mut stopped = StoppedContainer {
            id: "0123456789ab".to_owned(),
            name: "/db".to_owned(),
            image: String::new(),
            state: "exited".to_owned(),
            exit_code: None,
            oom_killed: None,
            started_at: None,
            finished_at: None,
            restart_policy: None,
            compose: None,
            one_off: false,
            health: None,
            health_output: None,
            error: None,
        };
        for (policy, compose, exit_code, is_down) in [
            (None, false, Some(1), false),
            (Some("no"), false, Some(1), false),
            (Some("no"), true, Some(1), true),
            (Some("no"), true, Some(0), false),
            (Some("on-failure"), false, Some(1), true),
            (Some("on-failure"), true, Some(0), false),
            (Some("always"), false, Some(0), true),
            (Some("unless-stopped"), false, None, true),
            (Some("strange"), false, Some(1), false),
        ] {
            stopped.restart_policy = policy.map(str::to_owned);
            stopped.compose = compose.then(Compose::default);
            stopped.exit_code = exit_code;
            assert_eq!(
                stopped.is_down(),
                is_down,
                "{policy:?} {compose} {exit_code:?}"
            );
        }
        stopped.compose = Some(Compose::default());
        stopped.error = Some("port is already allocated".to_owned());
        stopped.exit_code = None;
        stopped.restart_policy = None;
        assert!(stopped.is_down());
        stopped.one_off = true;
        assert!(!stopped.is_down());
    }
}
