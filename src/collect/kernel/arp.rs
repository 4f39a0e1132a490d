//! Counts the neighbors that the kernel knows by ARP.

use std::collections::BTreeMap;

use super::family::{Family, FamilyError, Roots, Rows};
use super::lines::each_line;
use crate::settings::Patterns;

/// The flag of an address for which this host answers (`ATF_PUBL`). It is not a neighbor.
const PUBLISHED: u32 = 8;

/// The family. Source: `/proc/net/arp`.
pub(super) struct Arp {
    pub(super) roots: Roots,
    /// The names of interfaces that are left out.
    pub(super) exclude: Patterns,
}

impl Family for Arp {
    fn name(&self) -> &'static str {
        "arp"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.roots.proc.join("net/arp");
        let mut entries: BTreeMap<String, u64> = BTreeMap::new();
        let mut is_title = true;
        each_line(&path, |line| {
            if std::mem::take(&mut is_title) {
                return Some(());
            }
            // For example `192.168.1.1 0x1 0x2 cc:aa:dd:ee:aa:bb * eth0`.
            let mut words = line.split_ascii_whitespace();
            let flags = words.nth(2)?.strip_prefix("0x")?;
            let flags = u32::from_str_radix(flags, 16).ok()?;
            let device = words.nth(2)?;
            if flags & PUBLISHED == 0 && !self.exclude.matches(device) {
                match entries.get_mut(device) {
                    Some(count) => *count += 1,
                    None => drop(entries.insert(device.to_owned(), 1)),
                }
            }
            Some(())
        })?;
        for (device, count) in &entries {
            rows.add([("device", device)])
                .figure("entries", *count as f64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Arp, Patterns, Roots};

    #[test]
    fn neighbors_are_counted_by_interface() {
        let folder = TempDir::new().unwrap();
        let text = "IP address       HW type     Flags       HW address            Mask     Device\n\
192.168.1.1    0x1         0x2         cc:aa:dd:ee:aa:bb     *        eth0\n\
192.168.1.4    0x1         0x2         dd:ee:ff:aa:bb:cc     *        eth1\n\
192.168.1.5    0x1         0x0         00:00:00:00:00:00     *        eth1\n\
192.168.1.9    0x1         0xc         00:00:00:00:00:00     *        eth1\n\
10.0.0.1       0x1         0x2         de:ad:be:ef:00:00     *        nope\n";
        write_files(folder.path(), &[("net/arp", text)]);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let exclude = Patterns::parse("no*", "names").unwrap();
        assert_eq!(
            lines_of(&mut Arp { roots, exclude }),
            ["device=eth0 entries 1", "device=eth1 entries 2"]
        );
    }
}
