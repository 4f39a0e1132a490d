//! The host's network interfaces.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ContainerNames;
use crate::collect::net_dev::{self, Interface};
use crate::collect::rate::per_second;
use crate::model::{InterfaceKind, NetworkInterface};

/// `ARPHRD_LOOPBACK`, in the file `type`.
const LOOPBACK: u64 = 772;
/// The bit of `flags` that is set where an interface was switched on.
const UP: u64 = 1;
/// For how long what was found of an interface's link is not looked at again, where rounds come faster.
const STANDS_FOR: Duration = Duration::from_millis(900);
/// The most files that are kept open: for each container there is an interface.
pub(super) const MOST_KEPT_FILES: u64 = 256;

/// What is kept of the interfaces between two readings.
pub(super) struct Interfaces {
    /// Where the kernel says more of each: `/sys/class/net`.
    class: PathBuf,
    known: HashMap<String, Known>,
    /// The number of this reading, by which what is gone is told.
    reading: u64,
    /// How many files may be kept open, and how many more in this reading.
    most_kept: u64,
    room_for_files: u64,
}

struct Known {
    /// Its `operstate`. It stays its own: once the interface is gone, reading fails.
    state: Option<File>,
    kind: Option<InterfaceKind>,
    /// Its link, when it was looked at last.
    up: Option<bool>,
    speed: Option<u64>,
    looked: Option<Instant>,
    /// Of a veth: its peer's number, in the namespace that has it.
    peer: Option<u64>,
    /// Whose peer that is, by id.
    container: Option<String>,
    /// Bytes and packets received, bytes and packets sent, at the last reading.
    before: [u64; 4],
    reading: u64,
}

impl Interfaces {
    pub(super) fn new(class: &Path) -> Self {
        Self {
            class: class.to_owned(),
            known: HashMap::new(),
            reading: 0,
            most_kept: super::may_keep(MOST_KEPT_FILES),
            room_for_files: 0,
        }
    }

    /// Every interface of the agent's network namespace, `seconds` after the last reading. Source of the
    /// counters: `/proc/net/dev`, one file, where `/sys/class/net` takes ten an interface.
    pub(super) fn read(
        &mut self,
        seconds: f64,
        names: &ContainerNames,
    ) -> io::Result<Vec<NetworkInterface>> {
        let table = fs::read("/proc/net/dev")?;
        Ok(self.take_in(&String::from_utf8_lossy(&table), seconds, names))
    }

    fn take_in(
        &mut self,
        table: &str,
        seconds: f64,
        names: &ContainerNames,
    ) -> Vec<NetworkInterface> {
        self.reading += 1;
        let kept = self.known.values().filter(|known| known.state.is_some());
        self.room_for_files = self.most_kept.saturating_sub(kept.count() as u64);
        let mut strangers = false;
        let interfaces: Vec<NetworkInterface> = net_dev::parse(table)
            .map(|interface| {
                let (published, new) = self.one(&interface, seconds);
                strangers |= new && published.kind == Some(InterfaceKind::Veth);
                published
            })
            .collect();
        let reading = self.reading;
        self.known.retain(|_, known| known.reading == reading);
        if strangers {
            self.match_peers(names);
        }
        interfaces
            .into_iter()
            .map(|interface| NetworkInterface {
                container: self.container(&interface.name, names),
                ..interface
            })
            .collect()
    }

    /// One interface, and whether it was not there before.
    fn one(&mut self, interface: &Interface<'_>, seconds: f64) -> (NetworkInterface, bool) {
        let Interface {
            name,
            received,
            sent,
        } = interface;
        let now = [received.bytes, received.packets, sent.bytes, sent.packets];
        let folder = self.class.join(name);
        let before = match self.known.get_mut(*name) {
            Some(known) => {
                known.reading = self.reading;
                Some(std::mem::replace(&mut known.before, now))
            }
            None => None,
        };
        let new = before.is_none();
        if new {
            let kind = kind(&folder);
            let veth = kind == Some(InterfaceKind::Veth);
            let known = Known {
                state: None,
                kind,
                up: None,
                speed: None,
                looked: None,
                peer: veth.then(|| number(&folder, "iflink")).flatten(),
                container: None,
                before: now,
                reading: self.reading,
            };
            self.known.insert((*name).to_owned(), known);
        }
        let (kind, up, speed) = self.link(name, &folder);
        let rate = |counter: usize| {
            before.map(|before| per_second(before[counter], now[counter], seconds))
        };
        let published = NetworkInterface {
            name: (*name).to_owned(),
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
            speed,
            up,
            kind,
            container: None,
        };
        (published, new)
    }

    /// What an interface is, whether it has a link, and how fast that is.
    fn link(
        &mut self,
        name: &str,
        folder: &Path,
    ) -> (Option<InterfaceKind>, Option<bool>, Option<u64>) {
        let now = Instant::now();
        let due = |known: &Known| known.looked.is_none_or(|at| now - at >= STANDS_FOR);
        if self.known.get(name).is_some_and(due) {
            let up = self.is_up(name, folder);
            if let Some(known) = self.known.get_mut(name) {
                known.up = up;
                known.speed = (known.kind == Some(InterfaceKind::Physical))
                    .then(|| number(folder, "speed"))
                    .flatten()
                    .filter(|speed| *speed > 0);
                known.looked = Some(now);
            }
        }
        let known = self.known.get(name);
        known.map_or((None, None, None), |known| {
            (known.kind.clone(), known.up, known.speed)
        })
    }

    /// Whether it has a link. Those that cannot tell (loopback, tunnels) are up when they are switched on.
    fn is_up(&mut self, name: &str, folder: &Path) -> Option<bool> {
        let known = self.known.get_mut(name)?;
        let read = |file: File| Some((word(&file)?, file));
        let (state, file) = match known.state.take().and_then(read) {
            Some(kept) => kept,
            None => {
                let opened = read(File::open(folder.join("operstate")).ok()?)?;
                if self.room_for_files == 0 {
                    return up(&opened.0, folder);
                }
                self.room_for_files -= 1;
                opened
            }
        };
        known.state = Some(file);
        up(&state, folder)
    }

    /// Looks up whose peers the veths are that have none yet.
    fn match_peers(&mut self, names: &ContainerNames) {
        let owners = names.interface_owners();
        for known in self.known.values_mut() {
            let owner = known.peer.and_then(|peer| owners.get(&peer));
            // Where two containers have an interface of that number it may be either's.
            known.container = owner.and_then(Option::clone);
        }
    }

    fn container(&self, interface: &str, names: &ContainerNames) -> Option<String> {
        let id = self.known.get(interface)?.container.as_ref()?;
        names.by_id(id).map(str::to_owned)
    }
}

/// What an interface is; none where the kernel does not tell.
fn kind(folder: &Path) -> Option<InterfaceKind> {
    let number = |file| number(folder, file);
    let own = number("ifindex")?;
    let there = |entry: &str| folder.join(entry).exists();
    Some(if number("type") == Some(LOOPBACK) {
        InterfaceKind::Loopback
    } else if there("device") {
        InterfaceKind::Physical
    } else if there("bridge") {
        InterfaceKind::Bridge
    } else if number("iflink").is_some_and(|link| link != 0 && link != own) && !is_stacked(folder) {
        InterfaceKind::Veth
    } else {
        InterfaceKind::Virtual
    })
}

/// Whether it is one of those that stand on another interface (a VLAN, a macvlan and so on): they say of which
/// type they are, which a veth does not.
fn is_stacked(folder: &Path) -> bool {
    let uevent = fs::read_to_string(folder.join("uevent")).unwrap_or_default();
    uevent.lines().any(|line| line.starts_with("DEVTYPE="))
}

/// What an interface's `operstate` says.
fn up(state: &[u8], folder: &Path) -> Option<bool> {
    match state.trim_ascii() {
        b"up" => Some(true),
        b"unknown" => {
            let flags = fs::read_to_string(folder.join("flags")).ok()?;
            let flags = u64::from_str_radix(flags.trim_end().strip_prefix("0x")?, 16).ok()?;
            Some(flags & UP != 0)
        }
        _ => Some(false),
    }
}

/// A file with a word, padded by line feeds.
fn word(file: &File) -> Option<[u8; 32]> {
    let mut word = [b'\n'; 32];
    file.read_at(&mut word, 0).ok()?;
    Some(word)
}

/// The number in a file; none where it says -1, or nothing at present.
fn number(folder: &Path, file: &str) -> Option<u64> {
    let text = fs::read_to_string(folder.join(file)).ok()?;
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::{ContainerNames, Interfaces, STANDS_FOR};
    use crate::model::{InterfaceKind, NetworkInterface};

    /// An interface in a class folder: files with a text, and folders.
    fn interface(class: &Path, name: &str, files: &[(&str, &str)]) {
        let folder = class.join(name);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in files {
            match *text {
                "/" => fs::create_dir(folder.join(file)).unwrap(),
                text => fs::write(folder.join(file), format!("{text}\n")).unwrap(),
            }
        }
    }

    fn table(bytes: &[(&str, u64)]) -> String {
        let line = |(name, bytes): &(&str, u64)| {
            format!("{name}: {bytes} 1 0 0 0 0 0 0 {bytes} 1 0 0 0 0 0 0\n")
        };
        bytes.iter().map(line).collect()
    }

    #[test]
    fn kinds_are_told_by_what_the_kernel_says_of_each() {
        let class = tempfile::tempdir().unwrap();
        let make = |name: &str, numbers: [&str; 3], more: &[(&str, &str)]| {
            let [own, link, kind] = numbers;
            let files = [("ifindex", own), ("iflink", link), ("type", kind)];
            interface(class.path(), name, &[&files, more].concat());
        };
        let up = ("operstate", "up");
        let unknown = ("operstate", "unknown");
        make(
            "eth0",
            ["2", "2", "1"],
            &[("device", "/"), ("speed", "10000"), up],
        );
        make(
            "eth1",
            ["3", "3", "1"],
            &[("device", "/"), ("speed", "-1"), ("operstate", "down")],
        );
        make("lo", ["1", "1", "772"], &[unknown, ("flags", "0x9")]);
        make("tun0", ["9", "9", "65534"], &[unknown, ("flags", "0x1090")]);
        let vlan = ("uevent", "DEVTYPE=vlan\nINTERFACE=eth0.7");
        make(
            "eth0.7",
            ["5", "2", "1"],
            &[vlan, ("operstate", "lowerlayerdown")],
        );
        make("sit0", ["6", "0", "776"], &[]);
        make(
            "vethab",
            ["7", "12", "1"],
            &[("uevent", "INTERFACE=vethab"), up],
        );
        make("br0", ["8", "8", "1"], &[("bridge", "/")]);
        let names = [
            "eth0", "eth1", "lo", "tun0", "eth0.7", "sit0", "vethab", "br0", "gone",
        ];
        let table = table(&names.map(|name| (name, 1)));
        let read = Interfaces::new(class.path()).take_in(&table, 1.0, &ContainerNames::default());
        let told: Vec<_> = read
            .iter()
            .map(|one| (one.kind.clone(), one.up, one.speed))
            .collect();
        use InterfaceKind::{Bridge, Loopback, Physical, Veth, Virtual};
        let expected = [
            (Some(Physical), Some(true), Some(10_000)),
            (Some(Physical), Some(false), None),
            (Some(Loopback), Some(true), None),
            (Some(Virtual), Some(false), None),
            (Some(Virtual), Some(false), None),
            (Some(Virtual), None, None),
            (Some(Veth), Some(true), None),
            (Some(Bridge), None, None),
            (None, None, None),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn rates_begin_with_the_second_reading_and_end_with_the_interface() {
        let class = tempfile::tempdir().unwrap();
        let mut interfaces = Interfaces::new(class.path());
        let mut rates = |bytes: &[(&str, u64)]| -> Vec<Option<f64>> {
            let rate = |one: &NetworkInterface| one.bytes_recv_per_second;
            let read = interfaces.take_in(&table(bytes), 2.0, &ContainerNames::default());
            read.iter().map(rate).collect()
        };
        assert_eq!(rates(&[("a", 100)]), [None]);
        assert_eq!(rates(&[("a", 150), ("b", 1000)]), [Some(25.0), None]);
        // It went backwards: another one of the same name.
        assert_eq!(rates(&[("a", 10), ("b", 1000)]), [Some(0.0), Some(0.0)]);
        assert_eq!(rates(&[("b", 1002)]), [Some(1.0)]);
        assert_eq!(rates(&[("a", 20), ("b", 1002)]), [None, Some(0.0)]);
        assert_eq!(interfaces.known.len(), 2);
    }

    #[test]
    fn a_link_is_looked_at_again_once_what_was_found_is_old() {
        let class = tempfile::tempdir().unwrap();
        let name = "eth0";
        let numbers = [("ifindex", "2"), ("iflink", "2"), ("type", "1")];
        let link = [("device", "/"), ("operstate", "up"), ("speed", "100")];
        interface(class.path(), name, &[numbers, link].concat());
        let mut interfaces = Interfaces::new(class.path());
        let mut link = |looked_before: Duration| {
            if let Some(known) = interfaces.known.get_mut(name) {
                known.looked = known.looked.and_then(|at| at.checked_sub(looked_before));
            }
            let read = interfaces.take_in(&table(&[(name, 1)]), 1.0, &ContainerNames::default());
            (read[0].up, read[0].speed)
        };
        assert_eq!(link(Duration::ZERO), (Some(true), Some(100)));
        fs::write(class.path().join(name).join("operstate"), "down\n").unwrap();
        fs::write(class.path().join(name).join("speed"), "-1\n").unwrap();
        assert_eq!(link(Duration::ZERO), (Some(true), Some(100)));
        assert_eq!(link(STANDS_FOR), (Some(false), None));
    }
}
