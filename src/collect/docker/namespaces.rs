//! Which container a network namespace belongs to, by the number that the host's namespace knows it by: what tells whose end
//! of a pair a veth of the host is. The numbers of interfaces do not, as in every container `eth0` may have the same.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::inventory::RunningContainer;
use super::proc_cgroup::is_process_of;
use crate::collect::links::{Changes, Netlink};

/// How long the kernel may take to tell of the host's interfaces: others may hold its lock.
const TELLS_WITHIN: Duration = Duration::from_secs(1);

/// What is known of the containers' namespaces.
#[derive(Default)]
pub(super) struct Namespaces {
    /// By container, with its first process: the number, none where the kernel has given none.
    known: HashMap<String, (u32, Option<i32>)>,
    /// Tells when a namespace may have got a number. None before the first round, and where netlink is not allowed.
    changes: Option<Changes>,
}

impl Namespaces {
    /// The names of the containers by the numbers of their namespaces. Takes one system call where nothing has changed.
    pub(super) async fn names(
        &mut self,
        running: &[RunningContainer],
    ) -> Arc<BTreeMap<i32, String>> {
        // A namespace without an interface of the host's at its other end has no number, and gets one with such an interface.
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
        let strangers = running.iter().filter_map(own_network).filter(is_new);
        let strangers: Vec<&str> = strangers.map(|(one, _)| one.listed.id.as_str()).collect();
        self.look_up(running, may_have_numbers);
        let unnumbered = strangers.iter().any(|id| {
            let known = self.known.get(*id);
            known.is_some_and(|(_, number)| number.is_none())
        });
        if unnumbered {
            // A namespace has no number before its interfaces' other ends were asked for.
            let ask = spawn_blocking(|| Netlink::open().and_then(|mut netlink| netlink.links()));
            if let Ok(Ok(Ok(_))) = timeout(TELLS_WITHIN, ask).await {
                self.look_up(running, true);
            }
        }
        Arc::new(self.by_number(running))
    }

    /// Asks for the numbers that are not known. Forgets those of other containers. Those of one that the engine has not told
    /// of yet, as something has happened to it, are still true. Those that have none are asked for again if `may_have_numbers`.
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
                    // Not this container's process, or netlink is not allowed.
                    Err(_) => (pid, None),
                },
                (_, None) => continue,
            };
            self.known.insert(id.clone(), known);
        }
    }

    pub(super) fn by_number(&self, running: &[RunningContainer]) -> BTreeMap<i32, String> {
        let mut names = BTreeMap::new();
        let mut shared = Vec::new();
        for one in running {
            let Some((_, Some(number))) = self.known.get(&one.listed.id) else {
                continue;
            };
            let name = one.listed.bare_name().to_owned();
            if names.insert(*number, name).is_some() {
                shared.push(*number);
            }
        }
        // That of several containers is none's.
        for number in shared {
            names.remove(&number);
        }
        names
    }
}

/// A container that has a network namespace of its own, and its first process.
fn own_network(one: &RunningContainer) -> Option<(&RunningContainer, u32)> {
    let inspected = one.inspection.done()?;
    let own = inspected.own_network && inspected.network_of.is_none();
    (own && inspected.pid != 0).then_some((one, inspected.pid))
}

/// The number of the namespace of a container's first process.
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
    // Another process may have its id by now, or the engine be on another host.
    if is_process_of(Path::new("/proc"), pid, id) {
        Ok(Some(number))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}
