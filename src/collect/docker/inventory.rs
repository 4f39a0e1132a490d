//! The containers that exist, as one round of a collector sees them.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::choice::ContainerChoice;
use super::engine::{Call, EngineError};
use super::inspection::Inspection;
use super::listing::{Excluded, ListedContainer};
use super::process::FirstProcess;
use super::stopped::with_ended;
use crate::messages::Stopped;
use crate::model::Timestamp;

/// A running container.
#[derive(Debug, Clone)]
pub(crate) struct RunningContainer {
    pub(crate) listed: Arc<ListedContainer>,
    pub(crate) inspection: Inspection,
    /// The container's first process. None if the container has no process, or if the agent cannot see the process.
    pub(super) process: Option<FirstProcess>,
}

impl RunningContainer {
    /// Returns how long the first process has run.
    pub(super) fn uptime(&self) -> Option<Duration> {
        self.process?.uptime()
    }
}

/// The running containers of the newest container list.
#[derive(Clone)]
pub(crate) struct Inventory {
    pub(super) running: Arc<Vec<RunningContainer>>,
    pub(super) stopped: Arc<Stopped>,
    pub(super) excluded: Excluded,
    pub(super) choice: Arc<ContainerChoice>,
    /// A handle for more calls to the engine. None in an outage.
    pub(crate) call: Option<Call>,
    /// Set while the engine does not answer.
    pub(crate) outage: Option<Outage>,
    /// False in an outage, and if the follower has not answered the request of this round in time. Some containers have then
    /// possibly ended.
    pub(super) confirmed: bool,
}

/// The engine does not answer.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    pub(super) error: EngineError,
    /// When the engine confirmed the container list for the last time.
    pub(super) listed: SystemTime,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = Timestamp(self.listed);
        write!(
            f,
            "engine: {}; containers as listed at {listed}",
            self.error
        )
    }
}

impl Outage {
    /// Returns the error for a call that was not made because of the outage.
    pub(crate) fn error(&self) -> EngineError {
        self.error.clone()
    }
}

impl Inventory {
    /// Returns the containers that still run. If the engine has not confirmed that a container runs, this function checks
    /// whether the container's first process still exists. A container whose first process is not known counts as running.
    /// Blocks the thread while it reads `/proc`.
    pub(crate) fn running(&self) -> Arc<Vec<RunningContainer>> {
        let has_ended = |one: &RunningContainer| {
            let doubtful = !self.confirmed || matches!(one.inspection, Inspection::Failed { .. });
            let process = one.process.filter(|_| doubtful);
            process.is_some_and(|process| process.has_ended(Path::new("/proc")))
        };
        let ended: HashSet<&str> = self
            .running
            .iter()
            .filter(|one| has_ended(one))
            .map(|one| one.listed.id.as_str())
            .collect();
        if ended.is_empty() {
            return Arc::clone(&self.running);
        }
        let left = self.running.iter();
        let left = left.filter(|one| !ended.contains(one.listed.id.as_str()));
        Arc::new(left.cloned().collect())
    }

    /// Returns the stopped containers: those of the newest list that has them, and the containers that [`Self::running`] left out of
    /// `running` because they have ended.
    pub(super) fn stopped_beside(&self, running: &[RunningContainer]) -> Arc<Stopped> {
        if running.len() == self.running.len() {
            return Arc::clone(&self.stopped);
        }
        let running: HashSet<&str> = running.iter().map(|one| one.listed.id.as_str()).collect();
        let ended = self.running.iter();
        let ended = ended.filter(|one| !running.contains(one.listed.id.as_str()));
        let ended = ended.map(|one| (&*one.listed, one.inspection.done()));
        Arc::new(with_ended(&self.stopped, ended))
    }

    /// Whether the settings leave out the container with this id.
    pub(crate) fn excludes(&self, id: &str) -> bool {
        self.choice.excludes(id)
    }

    /// Returns the number of containers that the settings leave out.
    pub(super) fn excluded(&self) -> u64 {
        (self.excluded.running + self.excluded.stopped) as u64
    }

    /// Returns the containers of the newest container list. Some of these containers have possibly ended.
    pub(crate) fn as_listed(&self) -> &Arc<Vec<RunningContainer>> {
        &self.running
    }
}
