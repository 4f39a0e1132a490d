//! Which container something on the host belongs to.

use std::sync::Arc;

use crate::collect::docker::RunningContainer;

/// How many hexadecimal digits an id has.
const ID: usize = 64;

/// The running containers, as they were known last.
#[derive(Default)]
pub(super) struct ContainerNames(Arc<Vec<RunningContainer>>);

impl ContainerNames {
    pub(super) fn new(running: Arc<Vec<RunningContainer>>) -> Self {
        Self(running)
    }

    /// The name of a container, without the slash.
    pub(super) fn by_id(&self, id: &str) -> Option<&str> {
        let one = self.0.iter().find(|one| one.listed.id == id);
        one.map(|one| one.listed.bare_name())
    }

    /// The name of the container that a process runs in, by its [`container_ids`].
    pub(super) fn by_ids(&self, ids: &[String]) -> Option<&str> {
        // A container in a container is in the group of both: the engine knows its own.
        ids.iter().find_map(|id| self.by_id(id))
    }
}

/// What may be the ids of the containers that a process runs in, by the text of its `/proc/<pid>/cgroup`: its groups are
/// named after the container, or in a group that is.
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
