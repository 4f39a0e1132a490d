//! Reads the properties of the network interfaces.

use std::sync::{Arc, Mutex};

use super::family::{Family, FamilyError, Rows};
use super::net_links::{Link, Links};
use crate::collect::net_dev::published_names;

/// The family. Source: rtnetlink(7), and `/sys/class/net` for what it lacks.
pub(super) struct Netclass(pub(super) Arc<Mutex<Links>>);

impl Family for Netclass {
    fn name(&self) -> &'static str {
        "netclass"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let mut links = Links::lock(&self.0);
        match links.read_with_speed() {
            Ok(links) => add(links, rows),
            Err(_) => add(&links.read_files()?, rows),
        }
        Ok(())
    }
}

/// Adds two rows for each interface: one with its figures, and one with its texts as labels.
fn add(links: &[Link], rows: &mut Rows) {
    let names = published_names(links.iter().map(|link| &link.name[..]));
    for (link, name) in links.iter().zip(&names) {
        let row = rows.add([("device", name)]);
        row.figure("up", f64::from(link.state == "up"));
        for (name, value) in link.figures.iter().chain(&link.fixed) {
            row.figure(*name, *value);
        }
        if let Some(speed) = link.speed {
            row.figure("speed_bytes", speed);
        }
        let texts = [
            ("device", &name[..]),
            ("address", &link.address),
            ("broadcast", &link.broadcast),
            ("duplex", &link.duplex),
            ("operstate", link.state),
            ("adminstate", if link.is_up { "up" } else { "down" }),
            ("ifalias", &link.alias),
        ];
        rows.add(texts).figure("info", 1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::super::family::Roots;
    use super::super::family::tests::{lines_of, write_files};
    use super::{Family, FamilyError, Links, Netclass, Rows, add};
    use crate::settings::Patterns;

    /// The family for an agent that cannot use netlink.
    struct FromFiles<'p>(&'p Path);

    impl Family for FromFiles<'_> {
        fn name(&self) -> &'static str {
            "netclass"
        }

        fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
            let roots = Roots {
                sys: self.0.into(),
                ..Roots::default()
            };
            let exclude = Patterns::parse("dmz", "names").unwrap();
            let links = Links::shared(&roots, exclude);
            add(&Links::lock(&links).read_files()?, rows);
            Ok(())
        }
    }

    #[test]
    fn the_files_of_an_interface_are_read() {
        let folder = TempDir::new().unwrap();
        let files = [
            ("addr_assign_type", "3"),
            ("address", "01:01:01:01:01:01"),
            ("broadcast", "ff:ff:ff:ff:ff:ff"),
            ("carrier", "1"),
            ("carrier_changes", "2"),
            ("carrier_down_count", "1"),
            ("carrier_up_count", "1"),
            ("dev_id", "0x20"),
            ("dormant", "1"),
            ("duplex", "full"),
            ("flags", "0x1303"),
            ("ifalias", ""),
            ("ifindex", "2"),
            ("iflink", "2"),
            ("link_mode", "1"),
            ("mtu", "1500"),
            ("name_assign_type", "2"),
            ("netdev_group", "0"),
            ("operstate", "up"),
            ("speed", "1000"),
            ("tx_queue_len", "1000"),
            ("type", "1"),
        ];
        for (file, text) in files {
            let text = format!("{text}\n");
            write_files(folder.path(), &[(&format!("class/net/eth0/{file}"), &text)]);
        }
        let others = [
            ("class/net/bonding_masters", "bond0\n"),
            ("class/net/dmz/ifindex", "3\n"),
        ];
        write_files(folder.path(), &others);
        let mut expected = [
            "up 1",
            "carrier 1",
            "carrier_changes 2",
            "carrier_up_changes 1",
            "carrier_down_changes 1",
            "dormant 1",
            "flags 4867",
            "iface_id 2",
            "iface_link 2",
            "iface_link_mode 1",
            "mtu_bytes 1500",
            "net_dev_group 0",
            "transmit_queue_length 1000",
            "protocol_type 1",
            "address_assign_type 3",
            "name_assign_type 2",
            "device_id 32",
            "speed_bytes 125000000",
        ]
        .map(|line| format!("device=eth0 {line}"))
        .to_vec();
        expected.push(
            "device=eth0 address=01:01:01:01:01:01 broadcast=ff:ff:ff:ff:ff:ff duplex=full operstate=up \
             adminstate=up ifalias= info 1"
                .to_owned(),
        );
        assert_eq!(lines_of(&mut FromFiles(folder.path())), expected);
    }

    #[test]
    fn this_host_has_loopback() {
        let links = Links::shared(&Roots::default(), Patterns::default());
        let lines = lines_of(&mut Netclass(links));
        for line in ["device=lo iface_id 1", "device=lo protocol_type 772"] {
            assert!(lines.iter().any(|one| one == line), "{lines:?}");
        }
    }
}
