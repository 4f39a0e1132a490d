//! Finds the container of each network namespace. In the host's network namespace, other network namespaces have numbers.
//!
//! A veth is a pair of interfaces. One end is on the host, and the other end is in a container. The number of the namespace shows
//! which container this is. The number of the interface is not enough, because `eth0` can have the same number in every
//! container.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::inventory::RunningContainer;
use super::proc_cgroup::is_process_of;
use crate::collect::links::{Changes, Netlink};

/// Timeout for the kernel's list of the host's interfaces. The kernel can be slow while another process holds a lock.
const NETLINK_TIMEOUT: Duration = Duration::from_secs(1);

/// The known numbers of the containers' namespaces.
#[derive(Default)]
pub(super) struct Namespaces {
    /// For each container id, the id of the container's first process and the number of its namespace. The number is none if the
    /// kernel has assigned no number.
    known: HashMap<String, (u32, Option<i32>)>,
    /// The newest names.
    names: Arc<BTreeMap<i32, String>>,
    /// Reports changes of interfaces. After such a change, a namespace can have a number. None before the first round, or if
    /// netlink is not permitted.
    changes: Option<Changes>,
}

impl Namespaces {
    /// Returns the names of the containers by the numbers of their namespaces. Needs only one system call if nothing has changed.
    pub(super) async fn names(
        &mut self,
        running: &[RunningContainer],
    ) -> Arc<BTreeMap<i32, String>> {
        // A namespace gets a number only when an interface connects it to the host. Any change of interfaces can be such a
        // connection.
        let may_have_numbers = match &self.changes {
            Some(changes) => changes.any(),
            None => {
                self.changes = Changes::follow().ok();
                self.changes.is_some()
            }
        };
        let is_new = |(one, pid): &(&RunningContainer, u32)| {
            let known = self.known.get(&one.listed.id);
            known.is_none_or(|(process, _)| process != pid)
        };
        let unknown = running.iter().filter_map(own_network).filter(is_new);
        let unknown: Vec<&str> = unknown.map(|(one, _)| one.listed.id.as_str()).collect();
        self.look_up(running, may_have_numbers);
        let unnumbered = unknown.iter().any(|id| {
            let known = self.known.get(*id);
            known.is_some_and(|(_, number)| number.is_none())
        });
        if unnumbered {
            // The kernel assigns a number only when a process requests the other ends of the host's interfaces.
            let ask = spawn_blocking(|| Netlink::open().and_then(|mut netlink| netlink.links()));
            if let Ok(Ok(Ok(_))) = timeout(NETLINK_TIMEOUT, ask).await {
                self.look_up(running, true);
            }
        }
        self.names = self.known_names(running);
        Arc::clone(&self.names)
    }

    /// Looks up the numbers that are not known. Removes the numbers of containers that no longer run. The number of a container
    /// without an inspection does not change. If `may_have_numbers` is false, does not look up a namespace without a number
    /// again.
    fn look_up(&mut self, running: &[RunningContainer], may_have_numbers: bool) {
        let mut before = std::mem::take(&mut self.known);
        let mut netlink = None;
        for one in running {
            let id = &one.listed.id;
            let before = before.remove(id);
            let known = match (before, own_network(one)) {
                (Some(known), None) if one.inspection.done().is_none() => known,
                (Some(known @ (same, number)), Some((_, pid)))
                    if same == pid && (number.is_some() || !may_have_numbers) =>
                {
                    known
                }
                (_, Some((_, pid))) => match number(&mut netlink, id, pid) {
                    Ok(number) => (pid, number),
                    // The process does not belong to the container, or netlink is not permitted.
                    Err(_) => (pid, None),
                },
                (_, None) => continue,
            };
            self.known.insert(id.clone(), known);
        }
    }

    /// Returns the names of the containers by the numbers of their namespaces, as far as the numbers are known.
    pub(super) fn known_names(&self, running: &[RunningContainer]) -> Arc<BTreeMap<i32, String>> {
        let names = self.by_number(running);
        let before = self.names.iter().map(|(number, name)| (*number, &**name));
        if names
            .iter()
            .map(|(number, name)| (*number, *name))
            .eq(before)
        {
            return Arc::clone(&self.names);
        }
        let names = names.into_iter();
        Arc::new(
            names
                .map(|(number, name)| (number, name.to_owned()))
                .collect(),
        )
    }

    fn by_number<'r>(&self, running: &'r [RunningContainer]) -> BTreeMap<i32, &'r str> {
        let mut names = BTreeMap::new();
        let mut shared = Vec::new();
        for one in running {
            let Some((_, Some(number))) = self.known.get(&one.listed.id) else {
                continue;
            };
            let name = one.listed.bare_name();
            if names.insert(*number, name).is_some() {
                shared.push(*number);
            }
        }
        // If several containers share a namespace, its traffic does not belong to one of them alone.
        for number in shared {
            names.remove(&number);
        }
        names
    }
}

/// Returns the container and the id of its first process. None if the container has no network namespace of its own.
fn own_network(one: &RunningContainer) -> Option<(&RunningContainer, u32)> {
    let inspected = one.inspection.done()?;
    let own = inspected.own_network && inspected.network_of.is_none();
    (own && inspected.pid != 0).then_some((one, inspected.pid))
}

/// Returns the number of the namespace of a container's first process.
fn number(netlink: &mut Option<Netlink>, id: &str, pid: u32) -> io::Result<Option<i32>> {
    if netlink.is_none() {
        *netlink = Some(Netlink::open()?);
    }
    let Some(netlink) = netlink else {
        return Ok(None);
    };
    let Some(number) = netlink.namespace_of(pid)? else {
        return Ok(None);
    };
    // Another process can have this id now, or the engine can be on another host.
    if is_process_of(Path::new("/proc"), pid, id) {
        Ok(Some(number))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}
