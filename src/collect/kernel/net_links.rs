//! Lists the network interfaces with rtnetlink(7), for the families `netdev` and `netclass`. One request has almost all figures of all
//! interfaces. In `/sys/class/net`, each figure of each interface is a separate file.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::family::{FamilyError, Roots, names_in, read_number, read_text};
use crate::collect::links::{Changes, Netlink, attribute, attributes, int, short};
use crate::settings::Patterns;

/// The constants from here to `STATES` are from `linux/rtnetlink.h`, `linux/if_link.h` and `linux/if.h`.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_BROADCAST: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKMODE: u16 = 17;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_CARRIER: u16 = 33;
const IFLA_CARRIER_CHANGES: u16 = 35;
const IFLA_CARRIER_UP_COUNT: u16 = 47;
const IFLA_CARRIER_DOWN_COUNT: u16 = 48;
const IFLA_ALLMULTI: u16 = 61;
const IFLA_INFO_KIND: u16 = 1;
/// Asks the kernel to omit the counters.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 1 << 6;
const IFF_PROMISC: u32 = 1 << 8;
const IFF_ALLMULTI: u32 = 1 << 9;
const IFF_LOWER_UP: u32 = 1 << 16;
const IFF_DORMANT: u32 = 1 << 17;
/// The names of the operational states, by their numbers.
const STATES: [&str; 7] = [
    "unknown",
    "notpresent",
    "down",
    "lowerlayerdown",
    "testing",
    "dormant",
    "up",
];
/// Maximum age of the list. The kernel does not report some changes of an interface that is switched off.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of interfaces. More interfaces are left out.
const MAX_LINKS: usize = 4096;
/// The number of bytes in a megabit.
const BYTES_IN_MEGABIT: f64 = 125_000.0;

/// The files of an interface in `/sys/class/net`, and the names of their figures.
const FILES: [(&str, &str); 13] = [
    ("carrier", "carrier"),
    ("carrier_changes", "carrier_changes"),
    ("carrier_up_count", "carrier_up_changes"),
    ("carrier_down_count", "carrier_down_changes"),
    ("dormant", "dormant"),
    ("flags", "flags"),
    ("ifindex", "iface_id"),
    ("iflink", "iface_link"),
    ("link_mode", "iface_link_mode"),
    ("mtu", "mtu_bytes"),
    ("netdev_group", "net_dev_group"),
    ("tx_queue_len", "transmit_queue_length"),
    ("type", "protocol_type"),
];

/// The files with figures that rtnetlink does not have, and the names of the figures.
const FIXED_FILES: [(&str, &str); 3] = [
    ("addr_assign_type", "address_assign_type"),
    ("name_assign_type", "name_assign_type"),
    ("dev_id", "device_id"),
];

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Link {
    /// The name as bytes, because a name is not always valid UTF-8.
    pub(super) name: Vec<u8>,
    pub(super) index: u32,
    /// Whether the interface is switched on.
    pub(super) is_up: bool,
    pub(super) figures: Vec<(&'static str, f64)>,
    pub(super) state: &'static str,
    pub(super) address: String,
    pub(super) broadcast: String,
    pub(super) alias: String,
    /// Figures that change only if the interface changes.
    pub(super) fixed: Vec<(&'static str, f64)>,
    /// In bytes per second. Negative if the driver does not know it.
    pub(super) speed: Option<f64>,
    pub(super) duplex: String,
    /// The flags as the kernel's answer has them.
    flags: u32,
    is_veth: bool,
    /// Whether `figures` has the flags. Before Linux 6.0, a file must be read.
    has_flags: bool,
}

/// The interfaces of the agent's network namespace, which several families use.
pub(super) struct Links {
    /// The folder `/sys/class/net`.
    class: PathBuf,
    exclude: Patterns,
    /// Reports changes of interfaces. None if they cannot be followed. Then the list is read each time.
    changes: Option<Changes>,
    /// When `links` was read. None if `links` must be read again.
    read_at: Option<Instant>,
    links: Vec<Link>,
}

impl Links {
    /// Creates the list for several families. It leaves out the interfaces with the names `exclude`.
    pub(super) fn shared(roots: &Roots, exclude: Patterns) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            class: roots.sys.join("class/net"),
            exclude,
            changes: None,
            read_at: None,
            links: Vec::new(),
        }))
    }

    pub(super) fn lock(links: &Mutex<Self>) -> MutexGuard<'_, Self> {
        links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the setting leaves out the interface with this name.
    pub(super) fn excludes(&self, name: &[u8]) -> bool {
        self.exclude.matches(&String::from_utf8_lossy(name))
    }

    /// Returns the interfaces, without their speed. Asks the kernel for them only if they have changed.
    ///
    /// # Errors
    /// Fails if netlink is not allowed.
    pub(super) fn read(&mut self) -> io::Result<&[Link]> {
        self.refresh()?;
        Ok(&self.links)
    }

    /// Returns the interfaces with their speed. The speed of a veth is read once, because it never changes.
    ///
    /// # Errors
    /// Fails if netlink is not allowed.
    pub(super) fn read_with_speed(&mut self) -> io::Result<&[Link]> {
        self.refresh()?;
        for link in self.links.iter_mut().filter(|link| !link.is_veth) {
            link.read_speed(&self.class);
        }
        Ok(&self.links)
    }

    /// Reads the interfaces from files, for an agent that cannot use netlink.
    ///
    /// # Errors
    /// Fails if the folder cannot be read.
    pub(super) fn read_files(&self) -> Result<Vec<Link>, FamilyError> {
        let names = names_in(&self.class)?.into_iter();
        let names = names.filter(|name| !self.exclude.matches(name));
        let links = names.filter_map(|name| Link::from_files(&self.class, name.as_bytes()));
        Ok(links.collect())
    }

    fn refresh(&mut self) -> io::Result<()> {
        if self.changes.is_none() {
            self.changes = Changes::follow().ok();
        }
        let changed = self.changes.as_ref().is_none_or(Changes::any);
        let is_old = |at: Instant| at.elapsed() >= RESCAN_INTERVAL;
        if changed || self.read_at.is_none_or(is_old) {
            self.read_at = None;
            let links = self.ask()?;
            self.take_in(links);
            self.read_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Asks the kernel for all interfaces.
    fn ask(&self) -> io::Result<Vec<Link>> {
        let mut body = vec![0; 16];
        attribute(&mut body, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let mut links = Netlink::open()?.list(RTM_GETLINK, &body, |kind, body| {
            parse(body).filter(|link| kind == RTM_NEWLINK && !self.excludes(&link.name))
        })?;
        // While interfaces are renamed, the kernel can list one twice.
        let mut known = HashSet::new();
        links.retain(|link| known.insert(link.name.clone()));
        links.truncate(MAX_LINKS);
        Ok(links)
    }

    /// Replaces the list. Reads the files of the interfaces that are new or have changed.
    fn take_in(&mut self, links: Vec<Link>) {
        let before = std::mem::take(&mut self.links).into_iter();
        let mut before: HashMap<u32, Link> = before.map(|link| (link.index, link)).collect();
        for mut link in links {
            if !link.has_flags {
                link.read_flags(&self.class);
            }
            match before.remove(&link.index) {
                Some(before) if before.is_same(&link) => {
                    link.fixed = before.fixed;
                    link.speed = before.speed;
                    link.duplex = before.duplex;
                }
                _ => {
                    link.read_fixed(&self.class);
                    if link.is_veth {
                        link.read_speed(&self.class);
                    }
                }
            }
            self.links.push(link);
        }
    }
}

impl Link {
    /// Whether the fixed figures of the other interface with the same index are those of this interface.
    fn is_same(&self, other: &Self) -> bool {
        let key = |link: &Self| (link.flags, link.is_veth);
        key(self) == key(other) && self.name == other.name && self.address == other.address
    }

    fn folder(&self, class: &Path) -> PathBuf {
        class.join(OsStr::from_bytes(&self.name))
    }

    fn read_fixed(&mut self, class: &Path) {
        let folder = self.folder(class);
        let read = |(file, name)| Some((name, read_integer(&folder.join(file))?));
        self.fixed = FIXED_FILES.into_iter().filter_map(read).collect();
    }

    /// Reads what the driver knows about the speed. It knows nothing while the interface is switched off.
    fn read_speed(&mut self, class: &Path) {
        (self.speed, self.duplex) = (None, String::new());
        if self.is_up {
            let folder = self.folder(class);
            let megabits = read_number(&folder.join("speed"));
            self.speed = megabits.map(|megabits| megabits * BYTES_IN_MEGABIT);
            self.duplex = read_text(&folder.join("duplex")).unwrap_or_default();
        }
    }

    fn read_flags(&mut self, class: &Path) {
        if let Some(flags) = read_integer(&self.folder(class).join("flags")) {
            self.figures.push(("flags", flags));
        }
    }

    /// Reads an interface from files. Returns none if it has no index: then it is another file of the folder.
    fn from_files(class: &Path, name: &[u8]) -> Option<Self> {
        let folder = class.join(OsStr::from_bytes(name));
        let index = read_number(&folder.join("ifindex"))?;
        let read = |(file, name)| Some((name, read_integer(&folder.join(file))?));
        let figures: Vec<(&'static str, f64)> = FILES.into_iter().filter_map(read).collect();
        let flags = figures.iter().find(|(name, _)| *name == "flags");
        let text = |file| read_text(&folder.join(file)).unwrap_or_default();
        let state = text("operstate");
        let mut link = Self {
            name: name.to_vec(),
            index: index as u32,
            is_up: flags.is_some_and(|(_, flags)| *flags as u32 & IFF_UP != 0),
            state: STATES
                .into_iter()
                .find(|one| *one == state)
                .unwrap_or_default(),
            address: text("address"),
            broadcast: text("broadcast"),
            alias: text("ifalias"),
            figures,
            ..Self::default()
        };
        link.read_fixed(class);
        link.read_speed(class);
        Some(link)
    }
}

/// Reads a file with a decimal number, or a hexadecimal number with the prefix `0x`.
fn read_integer(path: &Path) -> Option<f64> {
    let text = read_text(path)?;
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok().map(f64::from),
        None => text.parse().ok(),
    }
}

/// Parses a `struct ifinfomsg` and the attributes after it. The figures are those of the files in `/sys/class/net`.
fn parse(body: &[u8]) -> Option<Link> {
    let index = u32::try_from(int(body.get(4..)?)?).ok()?;
    let flags = int(body.get(8..)?)? as u32;
    let is_up = flags & IFF_UP != 0;
    let mut link = Link {
        index,
        is_up,
        flags,
        state: STATES[0],
        ..Link::default()
    };
    let mut below = index;
    let mut promiscuous = 0;
    let mut all_multicast = None;
    for (kind, value) in attributes(body.get(16..)?) {
        let number = || int(value).map(|number| f64::from(number as u32));
        let byte = || value.first().map(|byte| f64::from(*byte));
        let (name, number) = match kind {
            IFLA_MTU => ("mtu_bytes", number()),
            IFLA_TXQLEN => ("transmit_queue_length", number()),
            IFLA_GROUP => ("net_dev_group", number()),
            IFLA_CARRIER_CHANGES => ("carrier_changes", number()),
            IFLA_CARRIER_UP_COUNT => ("carrier_up_changes", number()),
            IFLA_CARRIER_DOWN_COUNT => ("carrier_down_changes", number()),
            IFLA_LINKMODE => ("iface_link_mode", byte()),
            IFLA_CARRIER if is_up => ("carrier", byte()),
            _ => {
                match kind {
                    IFLA_IFNAME => link.name = text(value).to_vec(),
                    IFLA_LINK => below = int(value)? as u32,
                    IFLA_PROMISCUITY => promiscuous = int(value)?,
                    IFLA_ALLMULTI => all_multicast = int(value),
                    IFLA_OPERSTATE => {
                        let state = usize::from(*value.first()?);
                        link.state = STATES.get(state).copied().unwrap_or_default();
                    }
                    IFLA_ADDRESS => link.address = hardware_address(value),
                    IFLA_BROADCAST => link.broadcast = hardware_address(value),
                    IFLA_IFALIAS => {
                        link.alias = String::from_utf8_lossy(text(value)).into_owned();
                    }
                    IFLA_LINKINFO => {
                        let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                        link.is_veth = kind.is_some_and(|(_, kind)| text(kind) == b"veth");
                    }
                    _ => {}
                }
                continue;
            }
        };
        link.figures.extend(number.map(|number| (name, number)));
    }
    if is_up {
        let is_dormant = flags & IFF_DORMANT != 0;
        link.figures.push(("dormant", f64::from(is_dormant)));
    }
    link.has_flags = all_multicast.is_some();
    if let Some(all_multicast) = all_multicast {
        // The answer has flags that the file does not have, and lacks two flags that the kernel sets for its own purposes.
        const OTHER: u32 = IFF_RUNNING | IFF_LOWER_UP | IFF_DORMANT | IFF_PROMISC | IFF_ALLMULTI;
        let flag = |count: i32, flag: u32| if count == 0 { 0 } else { flag };
        let kept = flags & !OTHER;
        let flags = kept | flag(promiscuous, IFF_PROMISC) | flag(all_multicast, IFF_ALLMULTI);
        link.figures.push(("flags", f64::from(flags)));
    }
    link.figures.push(("iface_id", f64::from(index)));
    link.figures.push(("iface_link", f64::from(below)));
    let hardware = short(body.get(2..)?)?;
    link.figures.push(("protocol_type", f64::from(hardware)));
    (!link.name.is_empty()).then_some(link)
}

/// Returns a text without the zero byte at its end.
fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Writes an address as the kernel does: two hexadecimal digits for each byte, with colons.
fn hardware_address(bytes: &[u8]) -> String {
    let mut address = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        if !address.is_empty() {
            address.push(':');
        }
        // Writing to a string never fails.
        let _ = write!(address, "{byte:02x}");
    }
    address
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::{Link, Links, Roots, parse};
    use crate::settings::Patterns;

    const CLASS: &str = "/sys/class/net";

    /// Returns a veth in a bridge as the kernel describes it.
    fn veth() -> Vec<u8> {
        let mut body = vec![0, 0];
        body.extend(1_u16.to_ne_bytes());
        for number in [17_i32, 0x11043, 0] {
            body.extend(number.to_ne_bytes());
        }
        let mut put = |kind: u16, value: &[u8]| {
            body.extend((4 + value.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        put(3, b"veth0a\0");
        for (kind, number) in [
            (4, 1500_i32),
            (5, 2),
            (13, 0),
            (27, 5),
            (30, 1),
            (35, 4),
            (47, 3),
            (48, 1),
            (61, 1),
        ] {
            put(kind, &number.to_ne_bytes());
        }
        put(16, &[6]);
        put(17, &[1]);
        put(33, &[1]);
        put(1, &[0xb2, 0x1b, 0x1a, 0xaf, 0x4b, 0x89]);
        put(2, &[0xff; 6]);
        put(20, b"uplink\0");
        put(18 | 0x8000, b"\x09\0\x01\0veth\0\0\0\0");
        body
    }

    #[test]
    fn an_answer_has_what_the_files_have() {
        let mut link = parse(&veth()).unwrap();
        link.figures.sort_unstable_by_key(|(name, _)| *name);
        let expected = [
            ("carrier", 1.0),
            ("carrier_changes", 4.0),
            ("carrier_down_changes", 1.0),
            ("carrier_up_changes", 3.0),
            ("dormant", 0.0),
            // The flags IFF_RUNNING and IFF_LOWER_UP are missing. The bridge has set IFF_PROMISC and IFF_ALLMULTI.
            ("flags", f64::from(0x1303)),
            ("iface_id", 17.0),
            ("iface_link", 2.0),
            ("iface_link_mode", 1.0),
            ("mtu_bytes", 1500.0),
            ("net_dev_group", 5.0),
            ("protocol_type", 1.0),
            ("transmit_queue_length", 0.0),
        ];
        assert_eq!(link.figures, expected);
        assert_eq!(
            (&link.name[..], link.index, link.state),
            (&b"veth0a"[..], 17, "up")
        );
        assert_eq!(
            (&*link.address, &*link.broadcast),
            ("b2:1b:1a:af:4b:89", "ff:ff:ff:ff:ff:ff")
        );
        assert_eq!(
            (&*link.alias, link.is_veth, link.is_up, link.has_flags),
            ("uplink", true, true, true)
        );
    }

    #[test]
    fn netlink_and_files_agree_on_this_host() {
        let read = || {
            let links = Links::shared(&Roots::default(), Patterns::default());
            let links = Links::lock(&links).read_with_speed().unwrap().to_vec();
            links.into_iter().map(|mut link| {
                link.figures.sort_unstable_by_key(|(name, _)| *name);
                link
            })
        };
        let before: Vec<Link> = read().collect();
        let files = before
            .iter()
            .map(|link| Link::from_files(Path::new(CLASS), &link.name));
        let files: Vec<_> = files.collect();
        let after: Vec<Link> = read().collect();
        // Interfaces that change meanwhile are not compared.
        let pairs = before
            .iter()
            .zip(files)
            .filter(|(link, _)| after.contains(link));
        let mut count = 0;
        for (link, file) in pairs {
            let mut file = file.unwrap();
            file.figures.sort_unstable_by_key(|(name, _)| *name);
            (file.flags, file.is_veth, file.has_flags) = (link.flags, link.is_veth, link.has_flags);
            assert_eq!(*link, file);
            count += 1;
        }
        assert!(count > 0);
    }

    #[test]
    fn a_second_reading_keeps_what_never_changes() {
        let links = Links::shared(&Roots::default(), Patterns::default());
        let mut links = Links::lock(&links);
        let first = links.read().unwrap().to_vec();
        // As if the files had other figures now.
        for link in &mut links.links {
            link.fixed = vec![("kept", 1.0)];
        }
        links.read_at = None;
        let lo = |list: &[Link]| {
            list.iter()
                .find(|link| link.name == b"lo")
                .cloned()
                .unwrap()
        };
        assert_eq!(lo(links.read().unwrap()).fixed, [("kept", 1.0)]);
        for link in &mut links.links {
            link.name.push(b'x');
        }
        links.read_at = None;
        assert_eq!(lo(links.read().unwrap()).fixed, lo(&first).fixed);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>, cut in 0..200_usize, at in 0..200_usize, odd: u8) {
            parse(&bytes);
            let mut veth = veth();
            let length = veth.len();
            veth[at % length] = odd;
            parse(&veth);
            parse(&veth[..cut.min(length)]);
        }
    }
}
