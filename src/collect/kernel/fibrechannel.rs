//! Reads the adapters of Fibre Channel.

use super::devices::value;
use super::family::{Family, FamilyError, Roots, Rows, names_in};

/// Maximum number of adapters.
const MAX_ADAPTERS: usize = 128;
/// The files with counters, and the names of the figures.
const COUNTERS: [(&str, &str); 14] = [
    ("dumped_frames", "dumped_frames"),
    ("error_frames", "error_frames"),
    ("fcp_packet_aborts", "fcp_packet_aborts"),
    ("invalid_crc_count", "invalid_crc"),
    ("invalid_tx_word_count", "invalid_tx_words"),
    ("link_failure_count", "link_failure"),
    ("loss_of_signal_count", "loss_of_signal"),
    ("loss_of_sync_count", "loss_of_sync"),
    ("nos_count", "nos"),
    ("rx_frames", "rx_frames"),
    ("rx_words", "rx_words"),
    ("seconds_since_last_reset", "seconds_since_last_reset"),
    ("tx_frames", "tx_frames"),
    ("tx_words", "tx_words"),
];

/// The family. Source: `/sys/class/fc_host`.
pub(super) struct Fibrechannel(pub(super) Roots);

impl Family for Fibrechannel {
    fn name(&self) -> &'static str {
        "fibrechannel"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("class/fc_host");
        let names = names_in(&folder)?;
        for host in names.iter().take(MAX_ADAPTERS) {
            let folder = folder.join(host);
            let text = |file: &str| value(&folder.join(file)).unwrap_or_default();
            // node_exporter shows these numbers without `0x`.
            let number = |file: &str| {
                let text = text(file);
                text.get(2..).map_or_else(|| text.clone(), str::to_owned)
            };
            let state = text("port_state");
            rows.add([
                ("dev_loss_tmo", &text("dev_loss_tmo")),
                ("fabric_name", &number("fabric_name")),
                ("fc_host", host),
                ("port_id", &number("port_id")),
                ("port_name", &number("port_name")),
                ("port_state", &state),
                ("port_type", &text("port_type")),
                ("speed", &text("speed")),
                ("supported_classes", &text("supported_classes")),
                ("supported_speeds", &text("supported_speeds")),
                ("symbolic_name", &text("symbolic_name")),
            ])
            .figure("info", 1.0);
            // An adapter that is switched off has no counters. node_exporter shows them as 0.
            let is_off = state.is_empty() || state == "Unknown";
            let row = rows.add([("fc_host", host)]);
            for (file, name) in COUNTERS {
                let count = match is_off {
                    true => Some(0),
                    false => counter(&text(&format!("statistics/{file}"))),
                };
                if let Some(count) = count {
                    row.figure(name, count as f64);
                }
            }
        }
        Ok(())
    }
}

/// Parses a counter such as `0x1f`. Returns none for the highest number, which means that the adapter does not count.
fn counter(text: &str) -> Option<u64> {
    let count = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    count.ok().filter(|count| *count != u64::MAX)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Fibrechannel, Roots};

    #[test]
    fn an_adapter_has_properties_and_counters() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| format!("class/fc_host/host0/{name}");
        write_files(
            folder.path(),
            &[
                (&file("port_state"), "Online\n"),
                (&file("port_id"), "0x000002\n"),
                (&file("speed"), "16 Gbit\n"),
                (&file("statistics/dumped_frames"), "0xffffffffffffffff\n"),
                (&file("statistics/rx_words"), "0x1f\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "dev_loss_tmo= fabric_name= fc_host=host0 port_id=000002 port_name= port_state=Online port_type= \
            speed=16 Gbit supported_classes= supported_speeds= symbolic_name= info 1",
            "fc_host=host0 rx_words 31",
        ];
        assert_eq!(lines_of(&mut Fibrechannel(roots)), expected);
    }
}
