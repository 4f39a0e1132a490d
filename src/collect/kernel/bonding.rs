//! Counts the network interfaces that are bonded.

use super::family::{Family, FamilyError, Roots, Rows, read_file, read_text};

/// The family. Source: `bonding_masters` and the folders of the bonds in `/sys/class/net`.
pub(super) struct Bonding(pub(super) Roots);

impl Family for Bonding {
    fn name(&self) -> &'static str {
        "bonding"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("class/net");
        for bond in read_file(&folder.join("bonding_masters"))?.split_ascii_whitespace() {
            let bond_folder = folder.join(bond);
            let Some(members) = read_text(&bond_folder.join("bonding/slaves")) else {
                // The bond has been deleted meanwhile.
                continue;
            };
            let (mut count, mut active) = (0, 0);
            for member in members.split_ascii_whitespace() {
                // Before Linux 3.16, the prefix was `slave_`.
                let state = ["lower_", "slave_"].iter().find_map(|prefix| {
                    let member = bond_folder.join(format!("{prefix}{member}"));
                    read_text(&member.join("bonding_slave/mii_status"))
                });
                count += 1;
                active += u32::from(state.is_some_and(|state| state == "up"));
            }
            let row = rows.add([("master", bond)]);
            row.figure("slaves", f64::from(count));
            row.figure("active", f64::from(active));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Bonding, Roots};

    #[test]
    fn members_with_a_link_are_active() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                ("class/net/bonding_masters", "bond0 int\n"),
                ("class/net/bond0/bonding/slaves", "\n"),
                ("class/net/int/bonding/slaves", "eth5 eth1\n"),
                (
                    "class/net/int/slave_eth5/bonding_slave/mii_status",
                    "down\n",
                ),
                ("class/net/int/lower_eth1/bonding_slave/mii_status", "up\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "master=bond0 slaves 0",
            "master=bond0 active 0",
            "master=int slaves 2",
            "master=int active 1",
        ];
        assert_eq!(lines_of(&mut Bonding(roots)), expected);
    }
}
