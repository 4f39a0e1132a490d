//! Tells which containers had network traffic, without a system call for each container.
//!
//! The interface of most containers is one end of a veth pair, and the other end is on the host. With few exceptions, a packet changes the
//! counters of both ends. So a container's counters have not changed while those of the host's end stay the same. The kernel needs 0.7 µs
//! for an interface in the host's table, and 9 µs for the table of a container.

use std::hash::{BuildHasher, Hasher};
use std::io;

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashMapExt as _};

use crate::collect::kernel_file::KernelFile;
use crate::collect::links::{Changes, Netlink};
use crate::collect::net_dev;

/// The counters of the host's interfaces, and which of them are the ends of pairs.
#[derive(Debug)]
pub(in crate::collect::docker) struct HostEnds {
    table: KernelFile,
    /// Reports changes of the interfaces. None if netlink is not allowed.
    changes: Option<Changes>,
    hashes: RandomState,
    /// The names in the newest table, as a hash.
    names: u64,
    /// The counters of each interface in the newest table, as hashes, in the order of the table.
    counters: Vec<u64>,
    /// The positions in `counters` of the ends of veth pairs whose other ends are in other network namespaces.
    ends: HashMap<OtherEnd, usize>,
    /// Increases when `ends` is read again.
    generation: u64,
}

/// The end of a veth pair in another network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct OtherEnd {
    /// The number of the namespace in the agent's namespace.
    pub(super) namespace: i32,
    /// The number of the interface in that namespace.
    pub(super) index: u32,
}

/// The host's ends of a container's interfaces, at one reading of the host's table.
#[derive(Debug, Default)]
pub(super) struct EndsOfContainer {
    generation: u64,
    /// The positions and counters in [`HostEnds::counters`]. Empty if an interface of the container has no end on the host.
    seen: Vec<(usize, u64)>,
}

impl HostEnds {
    /// `table` is the file `net/dev` of a process in the host's network namespace.
    pub(in crate::collect::docker) fn new(table: &str) -> Self {
        Self {
            table: KernelFile::new(table),
            changes: Changes::follow().ok(),
            hashes: RandomState::default(),
            names: 0,
            counters: Vec::new(),
            ends: HashMap::new(),
            generation: 0,
        }
    }

    /// Reads the counters. Must be called before the containers are read, so that a packet that comes in between is seen in the next
    /// round.
    pub(in crate::collect::docker) fn read(&mut self) {
        self.counters.clear();
        // An interface can have the name of an earlier one.
        let has_changed = self.changes.as_ref().is_some_and(Changes::any);
        let Ok(table) = self.table.read() else {
            // Without counters, each container is read.
            return;
        };
        let mut names = self.hashes.build_hasher();
        for (name, counters) in net_dev::lines(table) {
            names.write(name);
            names.write_u8(b':');
            self.counters.push(self.hashes.hash_one(counters));
        }
        let names = names.finish();
        if names == self.names && !has_changed && self.generation > 0 {
            return;
        }
        self.names = names;
        // Without netlink, no ends are known, and each container is read.
        self.ends = ends(table).unwrap_or_default();
        self.generation += 1;
    }

    /// Returns the host's ends of a container's interfaces `others`, with the counters of the newest reading.
    pub(super) fn of_container(&self, others: &[OtherEnd]) -> EndsOfContainer {
        let seen = others.iter().map(|other| {
            let position = *self.ends.get(other)?;
            Some((position, *self.counters.get(position)?))
        });
        EndsOfContainer {
            generation: self.generation,
            seen: seen.collect::<Option<_>>().unwrap_or_default(),
        }
    }

    /// Like [`Self::new`], without reports of the kernel, because tests that run at the same time can change the interfaces.
    #[cfg(test)]
    pub(super) fn without_reports(table: &str) -> Self {
        Self {
            changes: None,
            ..Self::new(table)
        }
    }

    /// Adds an end that the kernel does not have, and returns its other end.
    #[cfg(test)]
    pub(super) fn add_end(&mut self, position: usize) -> OtherEnd {
        let other = OtherEnd {
            namespace: 7,
            index: 1000 + u32::try_from(position).unwrap(),
        };
        self.ends.insert(other, position);
        other
    }
}

impl EndsOfContainer {
    /// Returns whether the host's ends have been read again since this reading.
    pub(super) fn is_older(&self, host: &HostEnds) -> bool {
        self.generation != host.generation
    }

    /// Returns whether the counters of all interfaces are still the same. False if an interface has no end on the host.
    pub(super) fn are_unchanged(&self, now: &HostEnds) -> bool {
        let is_same =
            |(position, counters): &(usize, u64)| now.counters.get(*position) == Some(counters);
        self.generation == now.generation && !self.seen.is_empty() && self.seen.iter().all(is_same)
    }
}

/// Returns the positions in `table` of the ends of veth pairs whose other ends are in other network namespaces.
fn ends(table: &[u8]) -> io::Result<HashMap<OtherEnd, usize>> {
    let positions: HashMap<&[u8], usize> = net_dev::lines(table)
        .enumerate()
        .map(|(position, (name, _))| (name, position))
        .collect();
    let links = Netlink::open()?.links()?;
    let pairs = links
        .iter()
        .filter(|link| link.kind.as_deref() == Some("veth"));
    let ends = pairs.filter_map(|link| {
        let other = OtherEnd {
            namespace: link.namespace?,
            index: link.link?,
        };
        Some((other, *positions.get(&*link.name)?))
    });
    Ok(ends.collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{EndsOfContainer, HostEnds, OtherEnd};

    const HEAD: &str = "Inter-|   Receive\n face |bytes    packets\n";

    #[test]
    fn a_change_of_one_end_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev");
        let write = |text: &str| fs::write(&path, format!("{HEAD}{text}")).unwrap();
        write("  vetha: 1 2 3\n vethb: 4 5 6\n");
        let mut host = HostEnds::without_reports(path.to_str().unwrap());
        host.read();
        let (a, b) = (host.add_end(0), host.add_end(1));
        let (one, both) = (host.of_container(&[a]), host.of_container(&[a, b]));
        assert!(one.are_unchanged(&host) && both.are_unchanged(&host));
        // An interface without an end on the host, and a container whose interfaces are not known.
        let other = OtherEnd { index: 1, ..a };
        assert!(!host.of_container(&[a, other]).are_unchanged(&host));
        assert!(!host.of_container(&[]).are_unchanged(&host));
        assert!(!EndsOfContainer::default().are_unchanged(&host));

        write("  vetha: 1 2 3\n vethb: 4 5 7\n");
        host.read();
        assert!(one.are_unchanged(&host) && !both.are_unchanged(&host));
        assert!(host.of_container(&[a, b]).are_unchanged(&host));

        let generation = host.generation;
        write("  vetha: 1 2 3\n vethc: 4 5 7\n");
        host.read();
        assert!(host.generation > generation && !one.are_unchanged(&host));

        let a = host.add_end(0);
        let one = host.of_container(&[a]);
        assert!(one.are_unchanged(&host));
        write("");
        fs::remove_file(&path).unwrap();
        host.read();
        assert!(!one.are_unchanged(&host));
    }

    #[test]
    fn each_interface_of_the_host_has_counters() {
        let mut host = HostEnds::new("/proc/self/net/dev");
        host.read();
        let table = fs::read_to_string("/proc/self/net/dev").unwrap();
        // Other tests can add or remove interfaces.
        let off = host.counters.len().abs_diff(table.lines().count() - 2);
        assert!(!host.counters.is_empty() && off < 10, "{off}");
    }
}
