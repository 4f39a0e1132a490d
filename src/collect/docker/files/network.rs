//! Chooses the network interfaces of a container whose traffic counts. These are the interfaces that the engine created. The
//! traffic of other interfaces (loopback, tunnels, bridges, VLANs) would count the same bytes twice. `docker stats` also omits
//! them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::host_ends::{EndsOfContainer, HostEnds, OtherEnd};
use crate::collect::links::Netlink;
use crate::collect::net_dev::{self, Counters, Interface};
use crate::model::{InterfaceCounters, Interfaces, PacketsLost};

/// Names, without their numbers, of the tunnels that the kernel creates automatically.
const KERNEL_TUNNELS: [&str; 9] = [
    "tunl", "sit", "gre", "gretap", "erspan", "ip6tnl", "ip6gre", "ip_vti", "ip6_vti",
];
/// Names, without their numbers, that common programs give to interfaces on top of another interface.
const SECONDARY_NAMES: [&str; 9] = [
    "tun", "tap", "wg", "docker", "br", "virbr", "cni", "dummy", "ifb",
];

/// The network interfaces of a container.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) table: File,
    /// The directory of the container's first process below `/proc`.
    process: PathBuf,
    pid: u32,
    chosen: Mutex<Chosen>,
}

/// How long the table of a container is read in each round after traffic that the host's ends did not show.
const UNEXPLAINED_FOR: Duration = Duration::from_mins(1);

/// The interfaces that count, for a list of names. The choice is cached until the names change.
#[derive(Debug, Default)]
struct Chosen {
    names: Vec<Vec<u8>>,
    count: Vec<bool>,
    seen: Seen,
}

/// The host's ends when the container's table was read.
#[derive(Debug, Default)]
struct Seen {
    ends: EndsOfContainer,
    /// None before the first reading.
    at: Option<Instant>,
    /// The interfaces that count. None if they are not known.
    own: Option<Vec<OtherEnd>>,
    /// When a reading last found that the counters had changed while those of the host's ends stayed the same. None if no reading has.
    unexplained_at: Option<Instant>,
}

impl Network {
    /// Creates the network of the process `pid`. `table` is the file `net/dev` of this process.
    pub(super) fn new(table: File, proc: &Path, pid: u32) -> Self {
        Self {
            table,
            process: proc.join(pid.to_string()),
            pid,
            chosen: Mutex::default(),
        }
    }

    /// Returns when the container's table was read, if the counters of the host's ends have not changed since then. Returns none for a minute
    /// after traffic that the host's ends did not show.
    pub(super) fn unchanged_since(&self, host: &HostEnds, now: Instant) -> Option<Instant> {
        let seen = &self.chosen().seen;
        let is_recent = |at: Instant| now.saturating_duration_since(at) < UNEXPLAINED_FOR;
        let is_reliable = !seen.unexplained_at.is_some_and(is_recent);
        seen.at
            .filter(|_| is_reliable && seen.ends.are_unchanged(host))
    }

    /// Records that the container's table was read at `now`, after the host's table. `has_traffic` says whether its counters have changed
    /// since the previous reading.
    pub(super) fn note_read(&self, host: &HostEnds, now: Instant, has_traffic: bool) {
        let chosen = &mut *self.chosen();
        let seen = &mut chosen.seen;
        let is_first = seen.at.replace(now).is_none();
        if !is_first && has_traffic && seen.ends.are_unchanged(host) {
            // For example, eBPF programs can send packets past the host's end. Or a packet came between the two readings.
            seen.unexplained_at = Some(now);
        }
        // The kernel can give a number to the container's namespace later.
        if is_first || seen.own.is_none() && seen.ends.is_older(host) {
            let counted = chosen.names.iter().zip(&chosen.count);
            let counted = counted.filter(|(_, counts)| **counts);
            seen.own = self.own_ends(counted.map(|(name, _)| &**name));
        }
        seen.ends = host.of_container(seen.own.as_deref().unwrap_or_default());
    }

    fn chosen(&self) -> MutexGuard<'_, Chosen> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the interfaces with these names. None if their numbers are not known.
    fn own_ends<'n>(&self, names: impl Iterator<Item = &'n [u8]>) -> Option<Vec<OtherEnd>> {
        let namespace = Netlink::open().ok()?.namespace_of(self.pid).ok()??;
        let end = |name: &[u8]| {
            let index = index(&self.process, name)?;
            Some(OtherEnd { namespace, index })
        };
        names.map(end).collect()
    }

    /// Returns the counters of the container's interfaces, from the text of the table.
    pub(super) fn interfaces(&self, table: &[u8]) -> Interfaces {
        let chosen = &mut *self.chosen();
        let all = net_dev::parse(table);
        if !all.iter().map(|one| one.name).eq(chosen.names.iter()) {
            let names: Vec<&[u8]> = all.iter().map(|one| one.name).collect();
            let count = choose(&names, || self.paired(&names));
            *chosen = Chosen {
                names: names.into_iter().map(<[u8]>::to_vec).collect(),
                count,
                seen: Seen::default(),
            };
        }
        let counts = all.iter().zip(&chosen.count).filter(|(_, counts)| **counts);
        published(counts.map(|(one, _)| one).collect())
    }

    /// Sets the ends of the interfaces, which the kernel does not have in a test.
    #[cfg(test)]
    pub(super) fn set_own_ends(&self, ends: Vec<OtherEnd>) {
        self.chosen().seen.own = Some(ends);
    }

    #[cfg(test)]
    pub(super) fn set_read_earlier(&self, by: Duration) {
        let at = &mut self.chosen().seen.at;
        *at = at.and_then(|at| at.checked_sub(by));
    }

    /// Returns the names of the interfaces whose other end is on the host, for example the end of a veth pair. Empty if the other
    /// ends are not known.
    fn paired(&self, names: &[&[u8]]) -> BTreeSet<Vec<u8>> {
        let ends = || -> std::io::Result<BTreeSet<u32>> {
            let mut netlink = Netlink::open()?;
            // This call must be first, because in this call the kernel assigns a number to the namespace.
            let links = netlink.links()?;
            let Some(own) = netlink.namespace_of(self.pid)? else {
                return Ok(BTreeSet::new());
            };
            let ends = links.iter().filter(|link| link.namespace == Some(own));
            Ok(ends.filter_map(|link| link.link).collect())
        };
        let ends = ends().unwrap_or_default();
        let index = |name: &[u8]| index(&self.process, name);
        let paired = names
            .iter()
            .filter(|name| index(name).is_some_and(|index| ends.contains(&index)));
        paired.map(|name| name.to_vec()).collect()
    }
}

/// Chooses the interfaces that count, by their names. Calls `paired` only if a name is not one of the engine's default names.
fn choose(names: &[&[u8]], paired: impl FnOnce() -> BTreeSet<Vec<u8>>) -> Vec<bool> {
    let is_other = |name: &[u8]| name != b"lo" && !is_engine_name(name);
    if !names.iter().any(|name| is_other(name)) {
        return names.iter().map(|name| is_engine_name(name)).collect();
    }
    let paired = paired();
    let counts = |name: &[u8]| is_engine_name(name) || paired.contains(name);
    if names.iter().any(|name| counts(name)) {
        return names.iter().map(|name| counts(name)).collect();
    }
    // The engine's default names are missing. The interface can be a macvlan with a name from the user, or an interface of
    // another engine. slirp4netns names its only interface `tap0`.
    let rank = |name: &[u8]| {
        if !is_other(name) || is_kernel_tunnel(name) {
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

/// Whether a name is a default name of the engine, such as `eth0`.
fn is_engine_name(name: &[u8]) -> bool {
    let number = name
        .strip_prefix(b"eth")
        .filter(|number| !number.is_empty());
    number.is_some_and(|number| number.iter().all(u8::is_ascii_digit))
}

/// Whether the name shows that the interface is on top of another interface.
fn is_secondary(name: &[u8], all: &[&[u8]]) -> bool {
    let below = |mark: u8| {
        let at = name.iter().rposition(|byte| *byte == mark)?;
        Some(all.contains(&&name[..at]))
    };
    // The name is that of a VLAN or an alias.
    [b'.', b':', b'@']
        .into_iter()
        .any(|mark| below(mark) == Some(true))
        || SECONDARY_NAMES
            .iter()
            .any(|kind| kind.as_bytes() == stem(name))
        || name.starts_with(b"br-")
        || name.starts_with(b"veth")
}

/// Whether the name is that of a kernel tunnel. When the tunnel's module is loaded, the kernel creates such a tunnel in every
/// namespace.
fn is_kernel_tunnel(name: &[u8]) -> bool {
    KERNEL_TUNNELS
        .iter()
        .any(|kind| kind.as_bytes() == stem(name))
}

/// Returns a name without its number.
fn stem(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| !byte.is_ascii_digit());
    &name[..end.map_or(0, |end| end + 1)]
}

/// Returns the number of an interface in the network namespace of a process. Any user can read these files.
fn index(process: &Path, name: &[u8]) -> Option<u32> {
    let by_ipv6 = process.join("net/dev_snmp6").join(OsStr::from_bytes(name));
    if let Ok(text) = fs::read_to_string(by_ipv6) {
        let number = text.lines().next()?.strip_prefix("ifIndex")?;
        return number.trim().parse().ok();
    }
    // A line of the file: `17   eth0            1     0     01005e000001`
    let table = fs::read(process.join("net/dev_mcast")).ok()?;
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line
            .split(u8::is_ascii_whitespace)
            .filter(|field| !field.is_empty());
        let number = std::str::from_utf8(fields.next()?).ok()?;
        (fields.next()? == name).then(|| number.parse().ok())?
    })
}

/// Whether one of the counters differs between two readings. The rates do not count, because the newer reading has none yet.
pub(super) fn has_traffic(before: &Interfaces, now: &Interfaces) -> bool {
    let without_rates = |one: &InterfaceCounters| InterfaceCounters {
        rx_bytes_per_second: None,
        tx_bytes_per_second: None,
        ..*one
    };
    let is_same =
        |(before, now): ((&String, &InterfaceCounters), (&String, &InterfaceCounters))| {
            before.0 == now.0 && without_rates(before.1) == without_rates(now.1)
        };
    before.len() != now.len() || !before.iter().zip(now).all(is_same)
}

/// Returns the counters of interfaces, by name.
fn published(interfaces: Vec<&Interface<'_>>) -> Interfaces {
    let names = net_dev::published_names(interfaces.iter().map(|one| one.name));
    let lost = |counters: Counters| PacketsLost {
        errors: counters.errors,
        drops: counters.drops,
    };
    let counters = |interface: &Interface<'_>| InterfaceCounters {
        rx_bytes: interface.received.bytes,
        tx_bytes: interface.sent.bytes,
        rx_packets: interface.received.packets,
        tx_packets: interface.sent.packets,
        rx_lost: lost(interface.received),
        tx_lost: lost(interface.sent),
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

    use super::{choose, has_traffic, index};
    use crate::model::{InterfaceCounters, Interfaces};

    fn chosen<'n>(names: &[&'n str], paired: &[&str]) -> Vec<&'n str> {
        let paired: BTreeSet<Vec<u8>> =
            paired.iter().map(|name| name.as_bytes().to_vec()).collect();
        let bytes: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let counts = choose(&bytes, || paired);
        let chosen = names.iter().zip(counts).filter(|(_, counts)| *counts);
        chosen.map(|(name, _)| *name).collect()
    }

    #[test]
    fn interfaces_from_the_engine_count_with_any_name() {
        assert_eq!(chosen(&["lo", "eth0", "eth1"], &[]), ["eth0", "eth1"]);
        // The user chose the name `lan0` or `tun7`. In the first case there are also default names.
        assert_eq!(chosen(&["lo", "eth0", "lan0"], &["lan0"]), ["eth0", "lan0"]);
        assert_eq!(chosen(&["lo", "tunl0", "tun7"], &["tun7"]), ["tun7"]);
        // All interfaces except `eth0` carry the same bytes a second time.
        let more = [
            "lo", "eth0", "eth0.100", "ethernet", "tun0", "wg0", "docker0", "br-4f", "veth1a",
            "sit0",
        ];
        assert_eq!(chosen(&more, &[]), ["eth0"]);
        assert_eq!(chosen(&["lo"], &[]), [""; 0]);
    }

    #[test]
    fn tunnels_and_bridges_are_omitted_if_no_pair_is_known() {
        let names = [
            "lo", "lan0", "lan0.5", "tunl0", "ip6tnl0", "wg0", "tun1", "br-1", "vethx", "gre0",
            "docker0",
        ];
        assert_eq!(chosen(&names, &[]), ["lan0"]);
        assert_eq!(chosen(&["lo", "tap12", "mac.5"], &[]), ["mac.5"]);
        // The interface of a rootless engine, alone and together with a VPN.
        assert_eq!(chosen(&["lo", "tap0", "tunl0"], &[]), ["tap0"]);
        assert_eq!(chosen(&["lo", "tap0", "tun0"], &[]), ["tap0"]);
        assert_eq!(chosen(&["lo", "wg0", "sit0"], &[]), ["wg0"]);
    }

    #[test]
    fn rates_are_no_traffic() {
        let interfaces = |name: &str, rx_bytes, rate| {
            let counters = InterfaceCounters {
                rx_bytes,
                rx_bytes_per_second: rate,
                ..InterfaceCounters::default()
            };
            Interfaces::from_iter([(name.to_owned(), counters)])
        };
        let before = interfaces("eth0", 7, Some(1.5));
        assert!(!has_traffic(&before, &interfaces("eth0", 7, None)));
        assert!(has_traffic(&before, &interfaces("eth0", 8, None)));
        assert!(has_traffic(&before, &interfaces("eth1", 7, None)));
        assert!(has_traffic(&before, &Interfaces::default()));
    }

    #[test]
    fn the_number_of_an_interface_is_found_in_either_file() {
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
