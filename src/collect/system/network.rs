//! Reads the network interfaces of the agent's network namespace, usually the namespace of the host: counters, rates, kind and
//! link state. Does not read the interfaces inside containers.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt as _};

use super::family::{MetricFamily, Round};
use crate::collect::kernel_file::KernelFile;
use crate::collect::links::{Changes, Netlink, NetlinkInterface};
use crate::collect::net_dev::{self, Interface};
use crate::collect::rate::per_second;
use crate::model::{InterfaceKind, NetworkInterface};
use crate::settings::Patterns;

/// The hardware type of Ethernet (`ARPHRD_ETHER`).
const ETHERNET: u16 = 1;
/// The hardware type of the loopback interface (`ARPHRD_LOOPBACK`).
const LOOPBACK: u16 = 772;
/// The bit of `flags` that is set while an interface is switched on.
const UP: u64 = 1;
/// The kernel's names for the kinds of interfaces that come in pairs.
const PAIRS: [&str; 3] = ["veth", "netkit", "vxcan"];
/// Maximum age of link data (kind, state and speed) from files. If the interval is shorter, several rounds use the same data.
const MAX_LINK_AGE: Duration = Duration::from_millis(900);
/// Maximum age of link data from netlink. Older data is read again, even if the kernel has reported no change.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of readings of the counters in one round. A reading is repeated if an interface changed meanwhile.
const TRIES: usize = 3;

/// The metric family `network`, with the data that it stores between readings.
pub(super) struct Interfaces {
    /// The folder `/sys/class/net`. It has a folder with files for each interface.
    class: PathBuf,
    /// The table of the counters, `/proc/net/dev`.
    counters: KernelFile,
    /// Reports changes of interfaces. After a change, `links` is out of date. None if the agent cannot use netlink.
    changes: Option<Changes>,
    /// The link data of each interface, by name.
    links: HashMap<Vec<u8>, KnownInterface>,
    /// When `links` was read. None if `links` must be read again.
    looked: Option<Instant>,
    /// The counters of each interface at the previous reading: bytes received, packets received, bytes sent and packets sent.
    before: HashMap<Key, [u64; 4]>,
    /// The time of the previous successful reading of the counters.
    read_at: Instant,
    /// The names of interfaces that are left out, and the number of such interfaces in the newest reading.
    exclude: Patterns,
    excluded: u64,
}

/// Why the interfaces cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read /proc/net/dev")]
pub(super) struct NetworkError(#[from] io::Error);

/// Identifies an interface in two successive readings. The name is not enough, because another interface can get the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// The number of the interface.
    Index(u32),
    /// The name of the interface, if its number is not known.
    Name(Vec<u8>),
}

/// The link data of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KnownInterface {
    index: u32,
    kind: InterfaceKind,
    up: Option<bool>,
    /// The number of the network namespace of a veth's other end. None if this is the agent's namespace, or if it is not known.
    peer: Option<i32>,
    /// The speed of a physical interface, in Mbit/s.
    speed: Option<u64>,
    /// When `speed` was read. None if `speed` must be read again.
    speed_at: Option<Instant>,
}

impl MetricFamily for Interfaces {
    const NAME: &'static str = "network";
    const COMPARES: bool = true;

    type Figures = Vec<NetworkInterface>;
    type Error = NetworkError;

    /// Reads the counters. Rates are averages over the time since the previous successful reading.
    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<NetworkInterface>, NetworkError> {
        let now = Instant::now();
        let seconds = (now - self.read_at).as_secs_f64();
        let interfaces = self.list(seconds)?;
        self.read_at = now;
        Ok(interfaces)
    }

    fn publish(&mut self, interfaces: Vec<NetworkInterface>, round: &mut Round<'_>) {
        round.metrics.network = interfaces;
        round.excluded += self.excluded;
    }

    /// Publishes the interfaces of the previous snapshot, without their rates. The rates belong to an earlier time.
    fn publish_last(&self, round: &mut Round<'_>) {
        let last = round.last.network.iter();
        round.metrics.network = last.map(NetworkInterface::without_rates).collect();
    }
}

impl Interfaces {
    /// Creates the family. `class` is the folder `/sys/class/net`.
    pub(super) fn new(class: &Path) -> Self {
        Self {
            changes: Changes::follow().ok(),
            ..Self::by_files(class)
        }
    }

    /// Creates the family without netlink. The family then reads all link data from the files in `class`.
    fn by_files(class: &Path) -> Self {
        Self {
            class: class.to_owned(),
            counters: KernelFile::new("/proc/net/dev"),
            changes: None,
            links: HashMap::new(),
            looked: None,
            before: HashMap::new(),
            read_at: Instant::now(),
            exclude: Patterns::default(),
            excluded: 0,
        }
    }

    /// Leaves out the interfaces with these names.
    pub(super) fn without(mut self, names: Patterns) -> Self {
        self.exclude = names;
        self
    }

    fn is_excluded(&self, name: &[u8]) -> bool {
        self.exclude.matches(&String::from_utf8_lossy(name))
    }

    /// Reads every interface of the agent's network namespace. `seconds` is the time since the previous successful reading.
    ///
    /// Reads the counters from `/proc/net/dev`, because this file has all counters of all interfaces. In `/sys/class/net`, each
    /// counter of each interface is a separate file.
    fn list(&mut self, seconds: f64) -> io::Result<Vec<NetworkInterface>> {
        let mut changed = self.have_changed();
        let mut table = Vec::new();
        for _ in 0..TRIES {
            if changed {
                self.ask();
            }
            table = self.counters.read()?.to_vec();
            // The name connects an interface in `links` with its counters in `table`. If an interface was renamed between the
            // two readings, a name can mean two different interfaces. In this case, both are read again.
            changed = self.have_changed();
            if !changed {
                break;
            }
        }
        if changed {
            // The interfaces have changed again. The next round reads `links` again.
            self.looked = None;
        }
        Ok(self.take_in(&table, seconds))
    }

    /// Returns whether `links` must be read again with netlink. Always returns false if the agent cannot use netlink.
    fn have_changed(&self) -> bool {
        let Some(changes) = &self.changes else {
            return false;
        };
        let old = |at: Instant| at.elapsed() >= RESCAN_INTERVAL;
        changes.any() || self.looked.is_none_or(old)
    }

    /// Reads `links` from the kernel with netlink. If this fails, the family uses only files from then on.
    fn ask(&mut self) {
        match Netlink::open().and_then(|mut netlink| netlink.links()) {
            Ok(links) => {
                let known = std::mem::take(&mut self.links);
                let of = |link: NetlinkInterface| {
                    let before = known.get(&link.name);
                    let before = before.filter(|before| before.index == link.index);
                    (link.name.clone(), self.known(&link, before))
                };
                let links = links.into_iter().filter(|one| !self.is_excluded(&one.name));
                self.links = links.map(of).collect();
            }
            // The files have most of the link data. They lack the namespaces of the other ends of veths.
            Err(_) => {
                self.changes = None;
                self.links.clear();
            }
        }
        self.looked = Some(Instant::now());
    }

    /// Returns the link data of an interface that netlink has listed. `before` is the previous link data of the same interface.
    fn known(&self, link: &NetlinkInterface, before: Option<&KnownInterface>) -> KnownInterface {
        let folder = self.folder(&link.name);
        let there = |entry: &str| folder.join(entry).exists();
        let is = |kind: &str| link.kind.as_deref() == Some(kind);
        let kind = if link.hardware == LOOPBACK {
            InterfaceKind::Loopback
        } else if PAIRS.iter().any(|pair| is(pair)) {
            InterfaceKind::Veth
        } else if is("bridge") {
            InterfaceKind::Bridge
        } else if link.device {
            InterfaceKind::Physical
        } else {
            match before {
                Some(before) => before.kind.clone(),
                // Before version 5.14, the kernel does not report by netlink whether an interface belongs to a device.
                None if link.kind.is_none() && there("device") => InterfaceKind::Physical,
                None => InterfaceKind::Virtual,
            }
        };
        let peer = link.namespace.filter(|_| kind == InterfaceKind::Veth);
        KnownInterface {
            index: link.index,
            up: Some(link.up),
            peer,
            kind,
            speed: before.and_then(|before| before.speed),
            // The interface has possibly changed, and its speed too. So the speed must be read again.
            speed_at: None,
        }
    }

    fn folder(&self, name: &[u8]) -> PathBuf {
        self.class.join(OsStr::from_bytes(name))
    }

    /// Builds the published interfaces from `table`, the content of `/proc/net/dev`.
    fn take_in(&mut self, table: &[u8], seconds: f64) -> Vec<NetworkInterface> {
        let mut interfaces = net_dev::parse(table);
        let all = interfaces.len();
        interfaces.retain(|one| !self.is_excluded(one.name));
        self.excluded = (all - interfaces.len()) as u64;
        self.look(&interfaces);
        let names = net_dev::published_names(interfaces.iter().map(|one| one.name));
        let mut now = HashMap::with_capacity(interfaces.len());
        let published = interfaces.iter().zip(names).map(|(interface, name)| {
            let known = self.links.get(interface.name);
            let key = known.map_or_else(
                || Key::Name(interface.name.to_vec()),
                |known| Key::Index(known.index),
            );
            let before = self.before.get(&key);
            let published = publish(interface, name, known, before, seconds);
            now.insert(key, counters(interface));
            published
        });
        let published = published.collect();
        self.before = now;
        published
    }

    /// Reads link data from files. Reads the speed of a physical interface again if it is old. If the agent cannot use netlink,
    /// also reads all other link data again if it is old or lacks an interface.
    fn look(&mut self, interfaces: &[Interface<'_>]) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_none_or(|at| now - at >= MAX_LINK_AGE);
        if self.changes.is_none() {
            let is_known = |one: &Interface<'_>| self.links.contains_key(one.name);
            if due(self.looked) || !interfaces.iter().all(is_known) {
                let links = interfaces.iter().filter_map(|one| {
                    let known = by_files(&self.folder(one.name))?;
                    Some((one.name.to_vec(), known))
                });
                self.links = links.collect();
                self.looked = Some(now);
            }
        }
        for (name, known) in &mut self.links {
            if known.kind == InterfaceKind::Physical && due(known.speed_at) {
                let folder = self.class.join(OsStr::from_bytes(name));
                known.speed = number(&folder, "speed").filter(|speed| *speed > 0);
                known.speed_at = Some(now);
            }
        }
    }
}

fn counters(interface: &Interface<'_>) -> [u64; 4] {
    let Interface { received, sent, .. } = interface;
    [received.bytes, received.packets, sent.bytes, sent.packets]
}

fn publish(
    interface: &Interface<'_>,
    name: String,
    known: Option<&KnownInterface>,
    before: Option<&[u64; 4]>,
    seconds: f64,
) -> NetworkInterface {
    let Interface { received, sent, .. } = interface;
    let now = counters(interface);
    let rate =
        |counter: usize| before.map(|before| per_second(before[counter], now[counter], seconds));
    NetworkInterface {
        name,
        bytes_sent: sent.bytes,
        bytes_recv: received.bytes,
        packets_sent: sent.packets,
        packets_recv: received.packets,
        bytes_sent_per_second: rate(2),
        bytes_recv_per_second: rate(0),
        packets_sent_per_second: rate(3),
        packets_recv_per_second: rate(1),
        errors_sent: Some(sent.errors),
        errors_recv: Some(received.errors),
        drops_sent: Some(sent.drops),
        drops_recv: Some(received.drops),
        speed: known.and_then(|known| known.speed),
        up: known.and_then(|known| known.up),
        kind: known.map(|known| known.kind.clone()),
        // The aggregator adds the name of the container later.
        container: None,
        peer: known.and_then(|known| known.peer),
    }
}

/// Reads the link data of an interface, except its speed, from its files. The agent uses this function only if it cannot use
/// netlink. Returns none if the number of the interface cannot be read.
fn by_files(folder: &Path) -> Option<KnownInterface> {
    let number = |file| number(folder, file);
    let index = u32::try_from(number("ifindex")?).ok()?;
    let hardware = number("type").and_then(|kind| u16::try_from(kind).ok());
    let there = |entry: &str| folder.join(entry).exists();
    let other = number("iflink").is_some_and(|link| link != 0 && link != u64::from(index));
    let kind = if hardware == Some(LOOPBACK) {
        InterfaceKind::Loopback
    } else if there("device") {
        InterfaceKind::Physical
    } else if there("bridge") {
        InterfaceKind::Bridge
    } else if other && hardware == Some(ETHERNET) && !is_stacked(folder) {
        InterfaceKind::Veth
    } else {
        InterfaceKind::Virtual
    };
    Some(KnownInterface {
        index,
        kind,
        up: up(folder),
        peer: None,
        speed: None,
        speed_at: None,
    })
}

/// Returns whether the file `uevent` of an interface contains a device type. An interface on top of another interface, such as
/// a VLAN or a macvlan, has a device type. A veth has none.
fn is_stacked(folder: &Path) -> bool {
    let uevent = fs::read_to_string(folder.join("uevent")).unwrap_or_default();
    uevent.lines().any(|line| line.starts_with("DEVTYPE="))
}

/// Returns whether an interface is up. Reads the files `operstate` and, if necessary, `flags`. Returns none if a file cannot be
/// read.
fn up(folder: &Path) -> Option<bool> {
    match fs::read(folder.join("operstate")).ok()?.trim_ascii() {
        b"up" => Some(true),
        b"unknown" => {
            let flags = fs::read_to_string(folder.join("flags")).ok()?;
            let flags = u64::from_str_radix(flags.trim_end().strip_prefix("0x")?, 16).ok()?;
            Some(flags & UP != 0)
        }
        _ => Some(false),
    }
}

/// Reads the number in a file. Returns none if the file cannot be read, or contains no such number, for example -1.
fn number(folder: &Path, file: &str) -> Option<u64> {
    let text = fs::read_to_string(folder.join(file)).ok()?;
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests;
