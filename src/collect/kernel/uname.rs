//! Reads the names that the command `uname` shows.

use rustix::system::uname;

use super::family::{Family, FamilyError, Rows};

/// The family. Source: `uname(2)`.
pub(super) struct Uname;

impl Family for Uname {
    fn name(&self) -> &'static str {
        "uname"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let name = uname();
        let labels = [
            ("domainname", name.domainname()),
            ("machine", name.machine()),
            ("nodename", name.nodename()),
            ("release", name.release()),
            ("sysname", name.sysname()),
            ("version", name.version()),
        ];
        let row = rows.add([]);
        let labels = labels.map(|(label, text)| (label, text.to_string_lossy().into_owned()));
        row.labels = labels.into();
        row.figure("info", 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::family::tests::lines_of;
    use super::Uname;

    #[test]
    fn all_names_are_labels() {
        let lines = lines_of(&mut Uname);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("domainname="), "{lines:?}");
        assert!(lines[0].contains(" sysname=Linux version=#"), "{lines:?}");
    }
}
