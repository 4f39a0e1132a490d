//! Which of the interfaces in a container's network namespace are the container's: those that the engine gave it. What
//! else there is (loopback, tunnels, bridges, VLANs) carries the same bytes once more, and `docker stats` leaves it out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::collect::links::Netlink;
use crate::collect::net_dev::{self, Interface};
use crate::model::InterfaceCounters;

/// What the kernel calls the tunnels that it makes by itself.
const KERNELS: [&str; 9] = [
    "tunl", "sit", "gre", "gretap", "erspan", "ip6tnl", "ip6gre", "ip_vti", "ip6_vti",
];
/// What common programs call what is no way out of its own.
const PROGRAMS: [&str; 9] = [
    "tun", "tap", "wg", "docker", "br", "virbr", "cni", "dummy", "ifb",
];

/// The table of a container's interfaces.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) table: File,
    /// The folder of the container's first process.
    process: PathBuf,
    pid: u32,
    chosen: Mutex<Chosen>,
}

/// Which of the interfaces of these names count.
#[derive(Debug, Default)]
struct Chosen {
    names: Vec<Vec<u8>>,
    count: Vec<bool>,
}

impl Network {
    /// That of a process.
    pub(super) fn new(table: File, proc: &Path, pid: u32) -> Self {
        Self {
            table,
            process: proc.join(pid.to_string()),
            pid,
            chosen: Mutex::default(),
        }
    }

    /// The container's interfaces, from the text of the table.
    pub(super) fn interfaces(&self, table: &[u8]) -> BTreeMap<String, InterfaceCounters> {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let all = net_dev::parse(table);
        if !all.iter().map(|one| one.name).eq(chosen.names.iter()) {
            let names: Vec<&[u8]> = all.iter().map(|one| one.name).collect();
            let count = choose(&names, || self.given(&names));
            *chosen = Chosen {
                names: names.into_iter().map(<[u8]>::to_vec).collect(),
                count,
            };
        }
        let counts = all.iter().zip(&chosen.count).filter(|(_, counts)| **counts);
        published(counts.map(|(one, _)| one).collect())
    }

    /// Which of them are the other ends of pairs that the host has an end of; none where that cannot be told.
    fn given(&self, names: &[&[u8]]) -> BTreeSet<Vec<u8>> {
        let ends = || -> std::io::Result<BTreeSet<u32>> {
            let mut netlink = Netlink::open()?;
            // First: a namespace has no number before.
            let links = netlink.links()?;
            let Some(own) = netlink.namespace_of(self.pid)? else {
                return Ok(BTreeSet::new());
            };
            let ends = links.iter().filter(|link| link.namespace == Some(own));
            Ok(ends.filter_map(|link| link.link).collect())
        };
        let ends = ends().unwrap_or_default();
        let index = |name: &[u8]| index(&self.process, name);
        let given = names
            .iter()
            .filter(|name| index(name).is_some_and(|index| ends.contains(&index)));
        given.map(|name| name.to_vec()).collect()
    }
}

/// Which of the interfaces of these names are the container's. Whether others are the ends of pairs is asked for only if
/// there are names that the engine does not choose by itself.
fn choose(names: &[&[u8]], given: impl FnOnce() -> BTreeSet<Vec<u8>>) -> Vec<bool> {
    let is_other = |name: &[u8]| name != b"lo" && !is_engines(name);
    if !names.iter().any(|name| is_other(name)) {
        return names.iter().map(|name| is_engines(name)).collect();
    }
    let given = given();
    let counts = |name: &[u8]| is_engines(name) || given.contains(name);
    if names.iter().any(|name| counts(name)) {
        return names.iter().map(|name| counts(name)).collect();
    }
    // A macvlan by a name of the user's own, or an engine that has other names: slirp4netns calls the only one `tap0`.
    let rank = |name: &[u8]| {
        if !is_other(name) || is_kernels(name) {
            None
        } else if !is_secondary(name, names) {
            Some(0)
        } else {
            Some(if stem(name) == b"tap" { 1 } else { 2 })
        }
    };
    let first = names.iter().filter_map(|name| rank(name)).min();
    names
        .iter()
        .map(|name| first.is_some() && rank(name) == first)
        .collect()
}

/// Whether the engine calls an interface so, where it is not told otherwise: `eth0` and so on.
fn is_engines(name: &[u8]) -> bool {
    let number = name
        .strip_prefix(b"eth")
        .filter(|number| !number.is_empty());
    number.is_some_and(|number| number.iter().all(u8::is_ascii_digit))
}

/// Whether the name is that of an interface that stands on another.
fn is_secondary(name: &[u8], all: &[&[u8]]) -> bool {
    let below = |mark: u8| {
        let at = name.iter().rposition(|byte| *byte == mark)?;
        Some(all.contains(&&name[..at]))
    };
    // A VLAN, or an alias.
    [b'.', b':', b'@']
        .into_iter()
        .any(|mark| below(mark) == Some(true))
        || PROGRAMS.iter().any(|kind| kind.as_bytes() == stem(name))
        || name.starts_with(b"br-")
        || name.starts_with(b"veth")
}

/// Whether the kernel makes such an interface by itself in every namespace, once its module is there.
fn is_kernels(name: &[u8]) -> bool {
    KERNELS.iter().any(|kind| kind.as_bytes() == stem(name))
}

/// A name without its number.
fn stem(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| !byte.is_ascii_digit());
    &name[..end.map_or(0, |end| end + 1)]
}

/// The number of an interface in the namespace of a process. Everybody may read these files.
fn index(process: &Path, name: &[u8]) -> Option<u32> {
    let by_ipv6 = process.join("net/dev_snmp6").join(OsStr::from_bytes(name));
    if let Ok(text) = fs::read_to_string(by_ipv6) {
        let number = text.lines().next()?.strip_prefix("ifIndex")?;
        return number.trim().parse().ok();
    }
    // `17   eth0            1     0     01005e000001`
    let table = fs::read(process.join("net/dev_mcast")).ok()?;
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line
            .split(u8::is_ascii_whitespace)
            .filter(|field| !field.is_empty());
        let number = std::str::from_utf8(fields.next()?).ok()?;
        (fields.next()? == name).then(|| number.parse().ok())?
    })
}

/// Their counters, by name.
fn published(interfaces: Vec<&Interface<'_>>) -> BTreeMap<String, InterfaceCounters> {
    let names = net_dev::published_names(interfaces.iter().map(|one| one.name));
    let counters = |interface: &Interface<'_>| InterfaceCounters {
        rx_bytes: interface.received.bytes,
        tx_bytes: interface.sent.bytes,
        rx_packets: interface.received.packets,
        tx_packets: interface.sent.packets,
        ..InterfaceCounters::default()
    };
    names
        .into_iter()
        .zip(interfaces.into_iter().map(counters))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::{choose, index};

    fn chosen<'n>(names: &[&'n str], given: &[&str]) -> Vec<&'n str> {
        let given: BTreeSet<Vec<u8>> = given.iter().map(|name| name.as_bytes().to_vec()).collect();
        let bytes: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let counts = choose(&bytes, || given);
        let chosen = names.iter().zip(counts).filter(|(_, counts)| *counts);
        chosen.map(|(name, _)| *name).collect()
    }

    #[test]
    fn the_engines_interfaces_count_whatever_they_are_called() {
        assert_eq!(chosen(&["lo", "eth0", "eth1"], &[]), ["eth0", "eth1"]);
        // A name of the user's own, beside the engine's and alone.
        assert_eq!(chosen(&["lo", "eth0", "lan0"], &["lan0"]), ["eth0", "lan0"]);
        assert_eq!(chosen(&["lo", "tunl0", "tun7"], &["tun7"]), ["tun7"]);
        // What carries the same bytes once more.
        let more = [
            "lo", "eth0", "eth0.100", "ethernet", "tun0", "wg0", "docker0", "br-4f", "veth1a",
            "sit0",
        ];
        assert_eq!(chosen(&more, &[]), ["eth0"]);
        assert_eq!(chosen(&["lo"], &[]), [""; 0]);
    }

    #[test]
    fn where_it_cannot_be_told_tunnels_and_the_like_are_left_out() {
        let names = [
            "lo", "lan0", "lan0.5", "tunl0", "ip6tnl0", "wg0", "tun1", "br-1", "vethx", "gre0",
            "docker0",
        ];
        assert_eq!(chosen(&names, &[]), ["lan0"]);
        assert_eq!(chosen(&["lo", "tap12", "mac.5"], &[]), ["mac.5"]);
        // That of a rootless engine, with a VPN or without.
        assert_eq!(chosen(&["lo", "tap0", "tunl0"], &[]), ["tap0"]);
        assert_eq!(chosen(&["lo", "tap0", "tun0"], &[]), ["tap0"]);
        assert_eq!(chosen(&["lo", "wg0", "sit0"], &[]), ["wg0"]);
    }

    #[test]
    fn an_interfaces_number_is_in_either_file() {
        let process = tempfile::tempdir().unwrap();
        let net = process.path().join("net");
        fs::create_dir_all(net.join("dev_snmp6")).unwrap();
        fs::write(
            net.join("dev_snmp6/a"),
            "ifIndex                         \t7\nIp6InReceives \t0\n",
        )
        .unwrap();
        let table = "8    b               1     0     01005e000001\n8    b   1 0 333300000001\n";
        fs::write(net.join("dev_mcast"), table).unwrap();
        let number = |name: &[u8]| index(process.path(), name);
        assert_eq!(
            [number(b"a"), number(b"b"), number(b"c")],
            [Some(7), Some(8), None]
        );
    }
}
