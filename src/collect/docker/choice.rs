//! Decides which containers the settings leave out, and remembers each decision. The container list and the events have different names
//! for an image whose name was given to another image. With the first decision, both treat a container alike.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::settings::{ContainerFacts, ContainerFilter};

/// Maximum number of remembered decisions.
const MAX_DECISIONS: usize = 20_000;

/// The decisions of a filter, by container id.
#[derive(Debug, Default)]
pub(super) struct ContainerChoice {
    filter: ContainerFilter,
    decisions: Mutex<HashMap<String, bool>>,
}

impl ContainerChoice {
    pub(super) fn new(filter: ContainerFilter) -> Self {
        Self {
            filter,
            decisions: Mutex::default(),
        }
    }

    /// Whether the agent measures the container with this id. `facts` is called only before the first decision about the container.
    pub(super) fn wants<'c>(
        &self,
        id: &str,
        facts: impl FnOnce(&ContainerFilter) -> ContainerFacts<'c>,
    ) -> bool {
        let mut decisions = self.decisions();
        if let Some(wanted) = decisions.get(id) {
            return *wanted;
        }
        let wanted = self.filter.wants(&facts(&self.filter));
        if decisions.len() < MAX_DECISIONS {
            decisions.insert(id.to_owned(), wanted);
        }
        wanted
    }

    /// Whether it was decided that the container is left out.
    pub(super) fn excludes(&self, id: &str) -> bool {
        self.decisions().get(id) == Some(&false)
    }

    /// Forgets the decision about a container, because its name has changed.
    pub(super) fn forget(&self, id: &str) {
        self.decisions().remove(id);
    }

    /// Forgets the decisions about all containers except these.
    pub(super) fn keep_only(&self, ids: &HashSet<String>) {
        self.decisions().retain(|id, _| ids.contains(id));
    }

    fn decisions(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        // No code panics while it holds this lock.
        self.decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::ContainerChoice;
    use crate::settings::{CollectSettings, ContainerFacts};

    #[test]
    fn the_first_decision_about_a_container_holds() {
        let variables = [("CONTAINERS_EXCLUDE".into(), "image=runner:*,old-*".into())];
        let settings = CollectSettings::from_env(variables.into_iter()).unwrap();
        let choice = ContainerChoice::new(settings.containers);
        let wants = |id: &str, name: &'static str, image: &'static str| {
            choice.wants(id, |_| ContainerFacts {
                name,
                image,
                labels: Vec::new(),
            })
        };
        assert!(!wants("1", "web", "runner:2"));
        // The image has lost its name.
        assert!(!wants("1", "web", "sha256:0123"));
        assert!(choice.excludes("1") && !choice.excludes("2"));
        assert!(wants("2", "web", "sha256:0123"));
        assert!(wants("2", "web", "runner:2"));
        choice.forget("2");
        assert!(!wants("2", "old-web", "x"));
        choice.keep_only(&["1".to_owned()].into());
        assert!(choice.excludes("1") && wants("2", "web", "x"));
    }
}
