//! Tests of the network interfaces.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{ETHERNET, Interfaces, KnownInterface, MAX_LINK_AGE};
use crate::collect::links::NetlinkInterface;
use crate::model::{InterfaceKind, NetworkInterface};

/// Creates the folder of an interface with `files`. If the text of a file is "/", creates a folder with its name instead.
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

fn table(bytes: &[(&str, u64)]) -> Vec<u8> {
    let line = |(name, bytes): &(&str, u64)| {
        format!("{name}: {bytes} 1 0 0 0 0 0 0 {bytes} 1 0 0 0 0 0 0\n")
    };
    bytes.iter().map(line).collect::<String>().into_bytes()
}

#[test]
fn the_kind_of_an_interface_is_found_from_its_files() {
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
    // Tunnels that are bound to a device.
    make("sit1", ["10", "2", "776"], &[]);
    make("gre1", ["11", "2", "778"], &[]);
    make(
        "vethab",
        ["7", "12", "1"],
        &[("uevent", "INTERFACE=vethab"), up],
    );
    make("br0", ["8", "8", "1"], &[("bridge", "/")]);
    let names = [
        "eth0", "eth1", "lo", "tun0", "eth0.7", "sit0", "sit1", "gre1", "vethab", "br0", "gone",
    ];
    let table = table(&names.map(|name| (name, 1)));
    let read = Interfaces::by_files(class.path()).take_in(&table, 1.0);
    let published: Vec<_> = read
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
        (Some(Virtual), None, None),
        (Some(Virtual), None, None),
        (Some(Veth), Some(true), None),
        (Some(Bridge), None, None),
        (None, None, None),
    ];
    assert_eq!(published, expected);
}

#[test]
fn an_interface_has_rates_from_its_second_reading_on() {
    let class = tempfile::tempdir().unwrap();
    let mut interfaces = Interfaces::by_files(class.path());
    let mut rates = |bytes: &[(&str, u64)]| -> Vec<Option<f64>> {
        let rate = |one: &NetworkInterface| one.bytes_recv_per_second;
        let read = interfaces.take_in(&table(bytes), 2.0);
        read.iter().map(rate).collect()
    };
    assert_eq!(rates(&[("a", 100)]), [None]);
    assert_eq!(rates(&[("a", 150), ("b", 1000)]), [Some(25.0), None]);
    // The counter of `a` is lower than before, for example because another interface now has this name.
    assert_eq!(rates(&[("a", 10), ("b", 1000)]), [Some(0.0), Some(0.0)]);
    assert_eq!(rates(&[("b", 1002)]), [Some(1.0)]);
    assert_eq!(rates(&[("a", 20), ("b", 1002)]), [None, Some(0.0)]);
    assert_eq!(interfaces.before.len(), 2);
}

#[test]
fn link_files_are_read_again_when_the_cached_data_are_old() {
    let class = tempfile::tempdir().unwrap();
    let name = "eth0";
    let numbers = [("ifindex", "2"), ("iflink", "2"), ("type", "1")];
    let link = [("device", "/"), ("operstate", "up"), ("speed", "100")];
    interface(class.path(), name, &[numbers, link].concat());
    let mut interfaces = Interfaces::by_files(class.path());
    let mut link = |looked_before: Duration| {
        let earlier = |at: std::time::Instant| at.checked_sub(looked_before);
        interfaces.looked = interfaces.looked.and_then(earlier);
        let read = interfaces.take_in(&table(&[(name, 1)]), 1.0);
        (read[0].up, read[0].speed)
    };
    assert_eq!(link(Duration::ZERO), (Some(true), Some(100)));
    fs::write(class.path().join(name).join("operstate"), "down\n").unwrap();
    fs::write(class.path().join(name).join("speed"), "-1\n").unwrap();
    assert_eq!(link(Duration::ZERO), (Some(true), Some(100)));
    assert_eq!(link(MAX_LINK_AGE), (Some(false), None));
}

/// Sets the link data to the data that netlink would report.
fn set_links(interfaces: &mut Interfaces, links: &[NetlinkInterface]) {
    let known = |link: &NetlinkInterface| (link.name.clone(), interfaces.known(link, None));
    let links: Vec<(Vec<u8>, KnownInterface)> = links.iter().map(known).collect();
    interfaces.links = links.into_iter().collect();
    interfaces.looked = Some(std::time::Instant::now());
}

fn link(name: &str, index: u32, kind: Option<&str>) -> NetlinkInterface {
    NetlinkInterface {
        name: name.as_bytes().to_vec(),
        index,
        hardware: ETHERNET,
        kind: kind.map(str::to_owned),
        namespace: Some(7),
        ..NetlinkInterface::default()
    }
}

#[test]
fn only_an_interface_that_comes_in_pairs_is_a_veth() {
    let class = tempfile::tempdir().unwrap();
    let interfaces = Interfaces::by_files(class.path());
    let kind = |kind| {
        let known = interfaces.known(&link("any", 3, kind), None);
        (known.kind, known.peer)
    };
    use InterfaceKind::{Bridge, Veth, Virtual};
    for pair in ["veth", "netkit"] {
        assert_eq!(kind(Some(pair)), (Veth, Some(7)));
    }
    assert_eq!(kind(Some("bridge")), (Bridge, None));
    // Interfaces of these kinds do not come in pairs. If netlink reports another namespace for such an interface, it is not
    // the namespace of an other end.
    for other in [
        "ipip",
        "gre",
        "gretap",
        "erspan",
        "sit",
        "ip6tnl",
        "vti",
        "wireguard",
        "tun",
        "geneve",
        "vxlan",
        "vlan",
        "macvlan",
        "ipvlan",
        "dummy",
        "ifb",
        "bond",
        "xfrm",
        "openvswitch",
    ] {
        assert_eq!(kind(Some(other)), (Virtual, None), "{other}");
    }
    assert_eq!(kind(None), (Virtual, None));
}

#[test]
fn interfaces_that_exchange_their_names_keep_their_counters() {
    let class = tempfile::tempdir().unwrap();
    let mut interfaces = Interfaces::by_files(class.path());
    let mut rates = |links: &[NetlinkInterface], bytes: &[(&str, u64)]| {
        set_links(&mut interfaces, links);
        let read = interfaces.take_in(&table(bytes), 1.0);
        let rate = |one: &NetworkInterface| (one.kind.clone(), one.bytes_recv_per_second);
        read.iter().map(rate).collect::<Vec<_>>()
    };
    let (a, b) = (link("a", 3, Some("veth")), link("b", 4, Some("gre")));
    use InterfaceKind::{Veth, Virtual};
    let first = rates(&[a, b], &[("a", 100), ("b", 9000)]);
    assert_eq!(first, [(Some(Veth), None), (Some(Virtual), None)]);
    let (a, b) = (link("a", 4, Some("gre")), link("b", 3, Some("veth")));
    let swapped = rates(&[a, b], &[("a", 9005), ("b", 107)]);
    let expected = [(Some(Virtual), Some(5.0)), (Some(Veth), Some(7.0))];
    assert_eq!(swapped, expected);
    // The first reading of another interface with the same name has no rate.
    let replaced = rates(&[link("a", 5, Some("veth"))], &[("a", 50_000)]);
    assert_eq!(replaced, [(Some(Veth), None)]);
}

#[test]
fn names_that_are_not_utf8_stay_unique() {
    let class = tempfile::tempdir().unwrap();
    let line = |name: &[u8]| [name, b": 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"].concat();
    let table = [line(b"x\xe8"), line(b"x\xe9"), line(b"lo")].concat();
    let read = Interfaces::by_files(class.path()).take_in(&table, 1.0);
    let names: Vec<_> = read.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["x\u{fffd} (x\\xe8)", "x\u{fffd} (x\\xe9)", "lo"]);
}
