//! Reads the kernel's counters of the network protocols.

use std::path::Path;

use super::family::{Family, FamilyError, Roots, Rows, read_file};
use crate::model::KernelRow;

/// The family: the counters that node_exporter publishes by default. Sources: `netstat`, `snmp` and `snmp6` in `/proc/net`.
pub(super) struct Netstat(pub(super) Roots);

impl Family for Netstat {
    fn name(&self) -> &'static str {
        "netstat"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.proc.join("net");
        let row = rows.add([]);
        for file in ["netstat", "snmp"] {
            let path = folder.join(file);
            read_pairs(&path, row)?;
        }
        match read_list(&folder.join("snmp6"), row) {
            // The host does not use IPv6.
            Err(FamilyError::Absent) => Ok(()),
            read => read,
        }
    }
}

/// Reads a file with two lines for each protocol: the names of its counters, and the counters.
fn read_pairs(path: &Path, row: &mut KernelRow) -> Result<(), FamilyError> {
    let text = read_file(path)?;
    let mut lines = text.lines();
    while let Some(names) = lines.next() {
        let invalid = || FamilyError::parse(path);
        let counters = lines.next().ok_or_else(invalid)?;
        let (protocol, names) = names.split_once(':').ok_or_else(invalid)?;
        let (same, counters) = counters.split_once(':').ok_or_else(invalid)?;
        if same != protocol {
            return Err(invalid());
        }
        let counters = counters.split_ascii_whitespace();
        for (name, counter) in names.split_ascii_whitespace().zip(counters) {
            add(row, protocol, name, counter).ok_or_else(invalid)?;
        }
    }
    Ok(())
}

/// Reads a file with a line for each counter, such as `Udp6InErrors 5`. The name starts with the name of the protocol, which ends with 6.
fn read_list(path: &Path, row: &mut KernelRow) -> Result<(), FamilyError> {
    for line in read_file(path)?.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(counter)) = (words.next(), words.next()) else {
            continue;
        };
        if let Some(end) = name.find('6') {
            let (protocol, name) = name.split_at(end + 1);
            add(row, protocol, name, counter).ok_or_else(|| FamilyError::parse(path))?;
        }
    }
    Ok(())
}

/// Adds a counter if it is published. Returns none if it is not a number.
fn add(row: &mut KernelRow, protocol: &str, name: &str, counter: &str) -> Option<()> {
    if is_published(protocol, name) {
        row.figure(format!("{protocol}_{name}"), counter.parse().ok()?);
    }
    Some(())
}

fn is_published(protocol: &str, name: &str) -> bool {
    if matches!(name, "InErrors" | "InErrs") {
        return true;
    }
    match protocol {
        "Ip" => name == "Forwarding",
        "Ip6" | "IpExt" => matches!(name, "InOctets" | "OutOctets"),
        "Icmp" | "Icmp6" => matches!(name, "InMsgs" | "OutMsgs"),
        "Tcp" => matches!(
            name,
            "ActiveOpens"
                | "InSegs"
                | "OutSegs"
                | "OutRsts"
                | "PassiveOpens"
                | "RetransSegs"
                | "CurrEstab"
        ),
        "TcpExt" => {
            name.starts_with("Listen")
                || name.starts_with("Syncookies")
                || matches!(
                    name,
                    "TCPSynRetrans" | "TCPTimeouts" | "TCPOFOQueue" | "TCPRcvQDrop"
                )
        }
        "Udp" | "Udp6" => matches!(
            name,
            "InDatagrams" | "OutDatagrams" | "NoPorts" | "RcvbufErrors" | "SndbufErrors"
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Netstat, Roots};

    #[test]
    fn the_counters_are_those_that_node_exporter_publishes() {
        let folder = TempDir::new().unwrap();
        let netstat = "TcpExt: SyncookiesSent TW ListenOverflows ListenDrops TCPTimeouts TCPSynRetrans\n\
            TcpExt: 3 388812 0 9 115 2\n\
            IpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 6286396970 2786264347\n";
        let snmp = "Ip: Forwarding DefaultTTL\nIp: 1 64\nIcmpMsg: InType3 OutType3\nIcmpMsg: 104 120\n\
            Tcp: RtoAlgorithm MaxConn CurrEstab InErrs\nTcp: 1 -1 5 0\n\
            Udp: InDatagrams NoPorts InCsumErrors\nUdp: 88542 120 0\n\
            UdpLite: InDatagrams InErrors\nUdpLite: 7 1\n";
        let snmp6 = "Ip6InReceives  \t7\nIp6InOctets  \t460\nIcmp6OutMsgs \t8\nIcmp6OutType133 \t3\n\
            Udp6RcvbufErrors \t9\nUdpLite6RcvbufErrors \t4\nUdpLite6InErrors \t2\n";
        write_files(
            folder.path(),
            &[("net/netstat", netstat), ("net/snmp", snmp)],
        );
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let without_ipv6 = lines_of(&mut Netstat(roots.clone()));
        let expected = [
            "TcpExt_SyncookiesSent 3",
            "TcpExt_ListenOverflows 0",
            "TcpExt_ListenDrops 9",
            "TcpExt_TCPTimeouts 115",
            "TcpExt_TCPSynRetrans 2",
            "IpExt_InOctets 6286396970",
            "IpExt_OutOctets 2786264347",
            "Ip_Forwarding 1",
            "Tcp_CurrEstab 5",
            "Tcp_InErrs 0",
            "Udp_InDatagrams 88542",
            "Udp_NoPorts 120",
            "UdpLite_InErrors 1",
        ];
        assert_eq!(without_ipv6, expected);
        write_files(folder.path(), &[("net/snmp6", snmp6)]);
        let of_ipv6 = [
            "Ip6_InOctets 460",
            "Icmp6_OutMsgs 8",
            "Udp6_RcvbufErrors 9",
            "UdpLite6_InErrors 2",
        ];
        assert_eq!(lines_of(&mut Netstat(roots))[expected.len()..], of_ipv6);
    }

    #[test]
    fn this_host_counts_its_connections() {
        let lines = lines_of(&mut Netstat(Roots::default()));
        for name in [
            "Tcp_ActiveOpens ",
            "Udp_InDatagrams ",
            "TcpExt_ListenDrops ",
        ] {
            assert!(lines.iter().any(|line| line.starts_with(name)), "{lines:?}");
        }
    }
}
