//! Which container something on the host belongs to.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::collect::docker::Running;

/// How many hexadecimal digits an id has.
const ID: usize = 64;

/// The running containers, as they were known last.
#[derive(Default)]
pub(super) struct ContainerNames(Arc<Vec<Running>>);

impl ContainerNames {
    pub(super) fn new(running: Arc<Vec<Running>>) -> Self {
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

    /// The ids of containers by the numbers of their interfaces; none where several have an interface of that number.
    /// Source: `/proc/<pid>/net/dev_mcast`, which everybody may read.
    pub(super) fn interface_owners(&self) -> HashMap<u64, Option<String>> {
        let mut owners = HashMap::new();
        for one in self.0.iter() {
            let Some(inspected) = one.inspection.done() else {
                continue;
            };
            if inspected.pid == 0 || !inspected.own_network || inspected.network_of.is_some() {
                continue;
            }
            let process = Path::new("/proc").join(inspected.pid.to_string());
            let read = |file: &str| fs::read_to_string(process.join(file)).unwrap_or_default();
            // The engine may be on another host, or the container have ended.
            if !read("cgroup").contains(&one.listed.id) {
                continue;
            }
            for number in numbers(&read("net/dev_mcast")) {
                owners
                    .entry(number)
                    .and_modify(|owner: &mut Option<String>| {
                        if owner.as_ref().is_some_and(|owner| *owner != one.listed.id) {
                            *owner = None;
                        }
                    })
                    .or_insert_with(|| Some(one.listed.id.clone()));
            }
        }
        owners
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

/// `17   eth0            1     0     01005e000001`
fn numbers(table: &str) -> impl Iterator<Item = u64> {
    let number = |line: &str| line.split_ascii_whitespace().next()?.parse().ok();
    table.lines().filter_map(number)
}
