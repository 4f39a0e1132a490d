//! Containers that have ended, and that earlier scrapes had.

use super::containers::{chosen_labels, labels};
use crate::model::{Container, Timestamp};

/// A container that has ended, and that an earlier scrape had.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::publish) struct EndedContainer {
    pub(super) labels: Vec<(String, String)>,
    /// When the container was last read.
    pub(in crate::publish) seen: Timestamp,
}

impl EndedContainer {
    /// Returns a container as it is now, for the time after its end.
    pub(in crate::publish) fn new(container: &Container, seen: Timestamp) -> Self {
        let own = labels(container).map(|(name, value)| (name.to_owned(), value.to_owned()));
        let chosen = chosen_labels(container).into_iter();
        let chosen = chosen.map(|(name, value)| (name, value.to_owned()));
        Self {
            labels: own.into_iter().chain(chosen).collect(),
            seen,
        }
    }

    /// Whether the container still has this name.
    pub(in crate::publish) fn has_name(&self, container: &Container) -> bool {
        let name = container.name.trim_start_matches('/');
        self.labels
            .iter()
            .any(|(label, value)| label == "name" && value == name)
    }
}
