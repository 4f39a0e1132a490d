//! Reads how many sockets of each protocol are in use.

use std::path::Path;

use rustix::param::page_size;

use super::family::{Family, FamilyError, Roots, Rows, read_file};
use crate::model::KernelRow;

/// The family. Sources: `sockstat` and `sockstat6` in `/proc/net`.
pub(super) struct Sockstat(pub(super) Roots);

impl Family for Sockstat {
    fn name(&self) -> &'static str {
        "sockstat"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.proc.join("net");
        let row = rows.add([]);
        read_sockets(&folder.join("sockstat"), row)?;
        match read_sockets(&folder.join("sockstat6"), row) {
            // The host does not use IPv6.
            Err(FamilyError::Absent) => Ok(()),
            read => read,
        }
    }
}

/// Reads a file with lines such as `TCP: inuse 4 orphan 0 mem 1`.
fn read_sockets(path: &Path, row: &mut KernelRow) -> Result<(), FamilyError> {
    for line in read_file(path)?.lines() {
        let invalid = || FamilyError::parse(path);
        let (protocol, pairs) = line.split_once(':').ok_or_else(invalid)?;
        let mut words = pairs.split_ascii_whitespace();
        while let (Some(name), Some(number)) = (words.next(), words.next()) {
            let number: f64 = number.parse().map_err(|_| invalid())?;
            let is_published = match protocol {
                "sockets" => name == "used",
                _ => matches!(name, "inuse" | "orphan" | "tw" | "alloc" | "mem" | "memory"),
            };
            if is_published {
                row.figure(format!("{protocol}_{name}"), number);
            }
            if name == "mem" {
                let bytes = number * page_size() as f64;
                row.figure(format!("{protocol}_mem_bytes"), bytes);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, Sockstat};

    #[test]
    fn memory_is_also_in_bytes() {
        let folder = TempDir::new().unwrap();
        let sockstat =
            "sockets: used 229\nTCP: inuse 4 orphan 0 tw 4 alloc 17 mem 1\nUDPLITE: inuse 0\n";
        let sockstat6 = "TCP6: inuse 17\nFRAG6: inuse 0 memory 0\n";
        write_files(
            folder.path(),
            &[("net/sockstat", sockstat), ("net/sockstat6", sockstat6)],
        );
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let page = rustix::param::page_size();
        let expected = [
            "sockets_used 229",
            "TCP_inuse 4",
            "TCP_orphan 0",
            "TCP_tw 4",
            "TCP_alloc 17",
            "TCP_mem 1",
            &format!("TCP_mem_bytes {page}"),
            "UDPLITE_inuse 0",
            "TCP6_inuse 17",
            "FRAG6_inuse 0",
            "FRAG6_memory 0",
        ];
        assert_eq!(lines_of(&mut Sockstat(roots)), expected);
    }
}
