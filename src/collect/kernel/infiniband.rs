//! Reads the ports of InfiniBand adapters, and of Ethernet adapters with RDMA.

use std::path::Path;

use super::devices::{number, numbered, value};
use super::family::{Family, FamilyError, Roots, Rows, names_in};

/// Maximum number of adapters, and of ports of an adapter.
const MAX_DEVICES: usize = 64;
/// The bytes per second of 1 Gbit/s.
const GIGABIT: f64 = 125_000_000.0;
/// The files in the folder `counters`, and the names of the figures.
const COUNTERS: [(&str, &str); 22] = [
    ("VL15_dropped", "vl15_dropped"),
    (
        "excessive_buffer_overrun_errors",
        "excessive_buffer_overrun_errors",
    ),
    ("link_downed", "link_downed"),
    ("link_error_recovery", "link_error_recovery"),
    ("local_link_integrity_errors", "local_link_integrity_errors"),
    ("multicast_rcv_packets", "multicast_packets_received"),
    ("multicast_xmit_packets", "multicast_packets_transmitted"),
    (
        "port_rcv_constraint_errors",
        "port_constraint_errors_received",
    ),
    ("port_rcv_data", "port_data_received_bytes"),
    ("port_rcv_discards", "port_discards_received"),
    ("port_rcv_errors", "port_errors_received"),
    ("port_rcv_packets", "port_packets_received"),
    (
        "port_rcv_remote_physical_errors",
        "port_receive_remote_physical_errors",
    ),
    (
        "port_rcv_switch_relay_errors",
        "port_receive_switch_relay_errors",
    ),
    (
        "port_xmit_constraint_errors",
        "port_constraint_errors_transmitted",
    ),
    ("port_xmit_data", "port_data_transmitted_bytes"),
    ("port_xmit_discards", "port_discards_transmitted"),
    ("port_xmit_packets", "port_packets_transmitted"),
    ("port_xmit_wait", "port_transmit_wait"),
    ("symbol_error", "symbol_error"),
    ("unicast_rcv_packets", "unicast_packets_received"),
    ("unicast_xmit_packets", "unicast_packets_transmitted"),
];
/// The same for the folder `counters_ext` of kernels before Linux 4.5.
const EXTENDED: [(&str, &str); 8] = [
    (
        "port_multicast_rcv_packets",
        "legacy_multicast_packets_received",
    ),
    (
        "port_multicast_xmit_packets",
        "legacy_multicast_packets_transmitted",
    ),
    ("port_rcv_data_64", "legacy_data_received_bytes"),
    ("port_rcv_packets_64", "legacy_packets_received"),
    (
        "port_unicast_rcv_packets",
        "legacy_unicast_packets_received",
    ),
    (
        "port_unicast_xmit_packets",
        "legacy_unicast_packets_transmitted",
    ),
    ("port_xmit_data_64", "legacy_data_transmitted_bytes"),
    ("port_xmit_packets_64", "legacy_packets_transmitted"),
];
/// The same for the folder `hw_counters`.
const OF_HARDWARE: [(&str, &str); 29] = [
    ("duplicate_request", "duplicate_requests_packets"),
    ("implied_nak_seq_err", "implied_nak_seq_errors"),
    ("local_ack_timeout_err", "local_ack_timeout_errors"),
    ("np_cnp_sent", "np_cnp_packets_sent"),
    (
        "np_ecn_marked_roce_packets",
        "np_ecn_marked_roce_packets_received",
    ),
    ("out_of_buffer", "out_of_buffer_drops"),
    ("out_of_sequence", "out_of_sequence_packets_received"),
    ("packet_seq_err", "packet_sequence_errors"),
    ("req_cqe_error", "req_cqes_errors"),
    ("req_cqe_flush_error", "req_cqes_flush_errors"),
    ("req_remote_access_errors", "req_remote_access_errors"),
    (
        "req_remote_invalid_request",
        "req_remote_invalid_request_errors",
    ),
    ("resp_cqe_error", "resp_cqes_errors"),
    ("resp_cqe_flush_error", "resp_cqes_flush_errors"),
    ("resp_local_length_error", "resp_local_length_errors"),
    ("resp_remote_access_errors", "resp_remote_access_errors"),
    ("rnr_nak_retry_err", "rnr_nak_retry_packets_received"),
    ("roce_adp_retrans", "roce_adp_retransmits"),
    ("roce_adp_retrans_to", "roce_adp_retransmits_timeout"),
    ("roce_slow_restart", "roce_slow_restart_used"),
    ("roce_slow_restart_cnps", "roce_slow_restart_cnps"),
    ("roce_slow_restart_trans", "roce_slow_restart"),
    ("rp_cnp_handled", "rp_cnp_packets_handled"),
    ("rp_cnp_ignored", "rp_cnp_ignored_packets_received"),
    ("rx_atomic_requests", "rx_atomic_requests"),
    ("rx_dct_connect", "rx_dct_connect_requests"),
    ("rx_icrc_encapsulated", "rx_icrc_encapsulated_errors"),
    ("rx_read_requests", "rx_read_requests"),
    ("rx_write_requests", "rx_write_requests"),
];

/// The family. Source: `/sys/class/infiniband`. The files are described in the kernel's `Documentation/ABI/stable/sysfs-class-infiniband`.
pub(super) struct Infiniband(pub(super) Roots);

impl Family for Infiniband {
    fn name(&self) -> &'static str {
        "infiniband"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("class/infiniband");
        let names = names_in(&folder)?;
        for device in names.iter().take(MAX_DEVICES) {
            let folder = folder.join(device);
            let text = |file: &str| value(&folder.join(file)).unwrap_or_default();
            rows.add([
                ("board_id", &text("board_id")),
                ("device", device),
                ("firmware_version", &text("fw_ver")),
                ("hca_type", &text("hca_type")),
            ])
            .figure("info", 1.0);
            let ports = names_in(&folder.join("ports")).unwrap_or_default();
            let ports = ports.iter().filter(|port| numbered(port, "").is_some());
            for port in ports.take(MAX_DEVICES) {
                read_port(&folder.join("ports").join(port), [device, port], rows);
            }
        }
        Ok(())
    }
}

/// Reads a port. `names` are the names of the adapter and of the port.
fn read_port(folder: &Path, names: [&str; 2], rows: &mut Rows) {
    let [device, port] = names;
    let row = rows.add([("device", device), ("port", port)]);
    for (file, name) in [("state", "state_id"), ("phys_state", "physical_state_id")] {
        let text = value(&folder.join(file)).unwrap_or_default();
        // For example `4: ACTIVE`.
        if let Some(Ok(number)) = text.split(':').next().map(str::parse) {
            row.figure(name, number);
        }
    }
    // For example `40 Gb/sec (4X QDR)`.
    let rate = value(&folder.join("rate")).unwrap_or_default();
    if let Some(Ok(gigabits)) = rate.split(' ').next().map(str::parse::<f64>) {
        row.figure("rate_bytes_per_second", gigabits * GIGABIT);
    }
    if let Some(milliseconds) = number(&folder.join("hw_counters/lifespan")) {
        row.figure("lifespan_seconds", (milliseconds / 1000.0).trunc());
    }
    for (kind, counters) in [
        ("counters", &COUNTERS[..]),
        ("counters_ext", &EXTENDED),
        ("hw_counters", &OF_HARDWARE),
    ] {
        // A port has only some of the files.
        let files = names_in(&folder.join(kind)).unwrap_or_default();
        for (file, name) in counters {
            if files.binary_search_by(|one| (**one).cmp(file)).is_err() {
                continue;
            }
            if let Some(count) = number(&folder.join(kind).join(file)) {
                row.figure(*name, count * lanes(file));
            }
        }
    }
}

/// Returns by what a counter must be multiplied. The hardware counts data in units of 4 bytes.
fn lanes(file: &str) -> f64 {
    match file {
        "port_rcv_data" | "port_xmit_data" | "port_rcv_data_64" | "port_xmit_data_64" => 4.0,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Infiniband, Roots};

    #[test]
    fn each_port_has_its_state_and_counters() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| format!("class/infiniband/mlx4_0/{name}");
        write_files(
            folder.path(),
            &[
                (&file("fw_ver"), "2.31.5050\n"),
                (&file("hca_type"), "MT4099\n"),
                (&file("ports/1/state"), "4: ACTIVE\n"),
                (&file("ports/1/rate"), "40 Gb/sec (4X QDR)\n"),
                (&file("ports/1/counters/port_rcv_data"), "555810175\n"),
                (&file("ports/1/counters/link_downed"), "N/A (no PMA)\n"),
                (&file("ports/1/hw_counters/lifespan"), "10\n"),
                (&file("ports/1/hw_counters/out_of_buffer"), "3\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "board_id= device=mlx4_0 firmware_version=2.31.5050 hca_type=MT4099 info 1",
            "device=mlx4_0 port=1 state_id 4",
            "device=mlx4_0 port=1 rate_bytes_per_second 5000000000",
            "device=mlx4_0 port=1 lifespan_seconds 0",
            "device=mlx4_0 port=1 port_data_received_bytes 2223240700",
            "device=mlx4_0 port=1 out_of_buffer_drops 3",
        ];
        assert_eq!(lines_of(&mut Infiniband(roots)), expected);
    }
}
