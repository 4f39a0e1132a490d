//! Finds the container that a process belongs to.

use std::sync::Arc;

use crate::collect::docker::RunningContainer;

/// The number of hexadecimal digits in a container's id.
const ID: usize = 64;

/// The running containers, from the engine's newest container list.
#[derive(Default)]
pub(super) struct ContainerNames(Arc<Vec<RunningContainer>>);

impl ContainerNames {
    pub(super) fn new(running: Arc<Vec<RunningContainer>>) -> Self {
        Self(running)
    }

    /// Returns the running containers.
    pub(super) fn running(&self) -> &Arc<Vec<RunningContainer>> {
        &self.0
    }

    /// Returns the name of a container, without the slash at its start.
    pub(super) fn by_id(&self, id: &str) -> Option<&str> {
        let one = self.0.iter().find(|one| one.listed.id == id);
        one.map(|one| one.listed.bare_name())
    }

    /// Returns the name of the container that a process runs in. `ids` are the [`container_ids`] of the process.
    pub(super) fn by_ids(&self, ids: &[String]) -> Option<&str> {
        // A process in a nested container has the ids of both containers. The engine knows only its own containers.
        ids.iter().find_map(|id| self.by_id(id))
    }
}

/// Returns the possible ids of the containers that a process runs in. `cgroup` is the text of `/proc/<pid>/cgroup`. The path of
/// a control group contains the id of its container.
pub(super) fn container_ids(cgroup: &str) -> Vec<String> {
    let parts = cgroup.split(|character: char| !character.is_ascii_hexdigit());
    let mut ids: Vec<String> = Vec::new();
    for id in parts.filter(|part| part.len() == ID) {
        if !ids.iter().any(|one| one == id) {
            ids.push(id.to_owned());
        }
    }
    ids
}
