//! Reads the figures of the kernel's load balancer IPVS.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::family::{Family, FamilyError, Roots, Rows, read_file};
use super::lines::each_line;

/// Maximum number of backends. More backends are left out.
const MAX_BACKENDS: usize = 4096;

/// The counters, in the order of the columns.
const COUNTERS: [&str; 5] = [
    "connections",
    "incoming_packets",
    "outgoing_packets",
    "incoming_bytes",
    "outgoing_bytes",
];

/// The family. Sources: `ip_vs_stats` and `ip_vs` in `/proc/net`.
pub(super) struct Ipvs(pub(super) Roots);

/// A service of the load balancer: the address or the mark that clients use.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Service {
    protocol: String,
    address: String,
    port: String,
    mark: String,
}

/// A server to which a service sends connections: its address and port.
type Backend = (Service, String, String);

impl Family for Ipvs {
    fn name(&self) -> &'static str {
        "ipvs"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.proc.join("net");
        let path = folder.join("ip_vs_stats");
        let text = read_file(&path)?;
        // Two lines with titles come first.
        let line = text.lines().nth(2).unwrap_or_default();
        let words = line.split_ascii_whitespace();
        let counters: Option<Vec<u64>> = words
            .map(|word| u64::from_str_radix(word, 16).ok())
            .collect();
        let counters = counters.filter(|counters| counters.len() == COUNTERS.len());
        let counters = counters.ok_or_else(|| FamilyError::parse(&path))?;
        let row = rows.add([]);
        for (name, counter) in COUNTERS.into_iter().zip(counters) {
            row.figure(name, counter as f64);
        }

        let mut backends: BTreeMap<Backend, [u64; 3]> = BTreeMap::new();
        let mut service = Service::default();
        each_line(&folder.join("ip_vs"), |line| {
            take_in(line, &mut service, &mut backends)
        })?;
        for ((service, address, port), [weight, active, inactive]) in &backends {
            let row = rows.add([
                ("local_address", &service.address),
                ("local_port", &service.port),
                ("local_mark", &service.mark),
                ("proto", &service.protocol),
                ("remote_address", address),
                ("remote_port", port),
            ]);
            row.figure("backend_connections_active", *active as f64);
            row.figure("backend_connections_inactive", *inactive as f64);
            row.figure("backend_weight", *weight as f64);
        }
        Ok(())
    }
}

/// Parses a line of the table: a service, or a backend of the service in the lines before. Returns none if the line is invalid.
fn take_in(
    line: &str,
    service: &mut Service,
    backends: &mut BTreeMap<Backend, [u64; 3]>,
) -> Option<()> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    match words[..] {
        [protocol @ ("TCP" | "UDP" | "SCTP"), local, ..] => {
            let (address, port) = parse_address(local)?;
            *service = Service {
                protocol: protocol.to_owned(),
                address,
                port,
                mark: String::new(),
            };
        }
        ["FWM", mark, ..] => {
            *service = Service {
                protocol: "FWM".to_owned(),
                address: String::new(),
                port: "0".to_owned(),
                mark: mark.to_owned(),
            };
        }
        // The line with the titles.
        ["->", "RemoteAddress:Port", ..] => {}
        ["->", remote, _, weight, active, inactive, ..] => {
            let (address, port) = parse_address(remote)?;
            let key = (service.clone(), address, port);
            if backends.len() < MAX_BACKENDS || backends.contains_key(&key) {
                let sums = backends.entry(key).or_default();
                for (sum, word) in sums.iter_mut().zip([weight, active, inactive]) {
                    *sum = sum.saturating_add(word.parse().ok()?);
                }
            }
        }
        _ => {}
    }
    Some(())
}

/// Parses an address and a port, such as `C0A80016:0CEA` or `[2620:0000:0000:0000:0000:0000:0000:0001]:0050`.
fn parse_address(text: &str) -> Option<(String, String)> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.strip_prefix('[') {
        Some(address) => {
            let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
            address.to_string()
        }
        None => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).to_string(),
    };
    Some((address, port.to_string()))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Ipvs, Roots, parse_address};

    #[test]
    fn services_have_backends() {
        let folder = TempDir::new().unwrap();
        let statistics = "   Total Incoming Outgoing         Incoming         Outgoing\n   \
Conns  Packets  Packets            Bytes            Bytes\n \
16AA370 E33656E5        0     51D8C8883AB3                0\n\n \
Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n       4    1FB3C        0          1282A8F                0\n";
        let table = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
-> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  C0A80016:0CEA wlc  \n  \
-> C0A85216:0CEA      Tunnel  100    248        2         \nFWM  10001000 wlc   \n  \
-> C0A8321A:0CEA      Tunnel  20     64         1         \n";
        write_files(
            folder.path(),
            &[("net/ip_vs_stats", statistics), ("net/ip_vs", table)],
        );
        let roots = Roots {
            proc: folder.path().into(),
            ..Roots::default()
        };
        let marked = "local_address= local_port=0 local_mark=10001000 proto=FWM remote_address=192.168.50.26 remote_port=3306";
        let plain = "local_address=192.168.0.22 local_port=3306 local_mark= proto=TCP remote_address=192.168.82.22 remote_port=3306";
        let expected = [
            "connections 23765872".to_owned(),
            "incoming_packets 3811989221".to_owned(),
            "outgoing_packets 0".to_owned(),
            "incoming_bytes 89991519156915".to_owned(),
            "outgoing_bytes 0".to_owned(),
            format!("{marked} backend_connections_active 64"),
            format!("{marked} backend_connections_inactive 1"),
            format!("{marked} backend_weight 20"),
            format!("{plain} backend_connections_active 248"),
            format!("{plain} backend_connections_inactive 2"),
            format!("{plain} backend_weight 100"),
        ];
        assert_eq!(lines_of(&mut Ipvs(roots)), expected);
        let address = parse_address("[2620:0000:0000:0000:0000:0000:0000:0001]:0050");
        assert_eq!(address, Some(("2620::1".to_owned(), "80".to_owned())));
        assert_eq!(parse_address("C0A80016"), None);
    }
}
