//! Reads how many bytes wait in the queues of UDP sockets.

use std::path::Path;

use super::family::{Family, FamilyError, Roots, Rows};
use super::lines::each_line;

/// The family. Sources: `udp` and `udp6` in `/proc/net`.
pub(super) struct UdpQueues(pub(super) Roots);

impl Family for UdpQueues {
    fn name(&self) -> &'static str {
        "udp_queues"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.proc.join("net");
        let mut is_absent = true;
        for (file, ip) in [("udp", "v4"), ("udp6", "v6")] {
            let [sent, received] = match read_queues(&folder.join(file)) {
                Err(FamilyError::Absent) => continue,
                queues => queues?,
            };
            for (queue, bytes) in [("tx", sent), ("rx", received)] {
                let row = rows.add([("ip", ip), ("queue", queue)]);
                row.figure("queues", bytes as f64);
            }
            is_absent = false;
        }
        match is_absent {
            true => Err(FamilyError::Absent),
            false => Ok(()),
        }
    }
}

/// Returns the sums of the bytes that wait for sending, and of the received bytes that wait for a program.
fn read_queues(path: &Path) -> Result<[u64; 2], FamilyError> {
    let mut sums = [0_u64; 2];
    let mut is_title = true;
    each_line(path, |line| {
        if std::mem::take(&mut is_title) {
            return Some(());
        }
        // For example `0: 00000000:0016 00000000:0000 0A 00000015:00000000 00:00000000`: the fifth word has both queues.
        let queues = line.split_ascii_whitespace().nth(4)?.split_once(':')?;
        for (sum, queue) in sums.iter_mut().zip([queues.0, queues.1]) {
            *sum = sum.saturating_add(u64::from_str_radix(queue, 16).ok()?);
        }
        Some(())
    })?;
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, UdpQueues};

    #[test]
    fn the_queues_of_all_sockets_are_added() {
        let folder = TempDir::new().unwrap();
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
0: 00000000:0016 00000000:0000 0A 00000015:00000000 00:00000000 00000000     0        0 2740 1 ffff88003d3af3c0 100 0 0 10 0\n  \
15: 0100007F:0035 00000000:0000 07 00000001:00000900 00:00000000 00000000   101        0 2741 2 ffff88003d3af3c1 0\n";
        write_files(folder.path(), &[("net/udp", text)]);
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        assert_eq!(
            lines_of(&mut UdpQueues(roots)),
            ["ip=v4 queue=tx queues 22", "ip=v4 queue=rx queues 2304"]
        );
        assert!(!lines_of(&mut UdpQueues(Roots::default())).is_empty());
    }
}
