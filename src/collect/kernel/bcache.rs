//! Reads the caches of bcache, and the devices behind them.
//!
//! The file `priority_stats` is not read, because it is expensive. node_exporter leaves it out by default, too.

use std::path::Path;

use super::devices::{numbered, value};
use super::family::{Family, FamilyError, Roots, Rows, names_if_any, names_in, read_file};

/// Maximum number of caches, and of devices of a cache.
const MAX_DEVICES: usize = 64;
/// The files of a cache. The names of the figures are their names without folder.
const OF_CACHE: [&str; 10] = [
    "average_key_size",
    "btree_cache_size",
    "cache_available_percent",
    "congested",
    "root_usage_percent",
    "tree_depth",
    "internal/active_journal_entries",
    "internal/btree_nodes",
    "internal/btree_read_average_duration_us",
    "internal/cache_read_races",
];
/// The files with the totals of a device behind the cache.
const TOTALS: [&str; 7] = [
    "bypassed",
    "cache_bypass_hits",
    "cache_bypass_misses",
    "cache_hits",
    "cache_miss_collisions",
    "cache_misses",
    "cache_readaheads",
];
/// The lines of the file `writeback_rate_debug`, and the names of the figures.
const WRITEBACK: [(&str, &str); 5] = [
    ("rate:", "writeback_rate"),
    ("target:", "dirty_target"),
    ("proportional:", "writeback_rate_proportional_term"),
    ("integral:", "writeback_rate_integral_term"),
    ("change:", "writeback_change"),
];
/// The files of a device that caches.
const OF_CACHE_DEVICE: [&str; 3] = ["io_errors", "metadata_written", "written"];

/// The family. Source: `/sys/fs/bcache`. The files are described in the kernel's `Documentation/admin-guide/bcache.rst`.
pub(super) struct Bcache(pub(super) Roots);

impl Family for Bcache {
    fn name(&self) -> &'static str {
        "bcache"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("fs/bcache");
        let names = names_if_any(&folder)?;
        let caches = names.iter().filter(|name| name.contains('-'));
        for uuid in caches.take(MAX_DEVICES) {
            read_cache(&folder.join(uuid), uuid, rows);
        }
        Ok(())
    }
}

fn read_cache(folder: &Path, uuid: &str, rows: &mut Rows) {
    let row = rows.add([("uuid", uuid)]);
    for file in OF_CACHE {
        let Some(number) = size(&folder.join(file)) else {
            continue;
        };
        match file.rsplit('/').next() {
            // node_exporter takes the microseconds for nanoseconds. The value repeats that.
            Some("btree_read_average_duration_us") => {
                row.figure("btree_read_average_duration", number * 1e-9);
            }
            Some(name) => row.figure(name, number),
            None => {}
        }
    }
    let names = names_in(folder).unwrap_or_default();
    for name in names.iter().take(MAX_DEVICES) {
        let folder = folder.join(name);
        if numbered(name, "bdev").is_some() {
            read_backing_device(&folder, [name, uuid], rows);
        } else if numbered(name, "cache").is_some() {
            let row = rows.add([("cache_device", name), ("uuid", uuid)]);
            for file in OF_CACHE_DEVICE {
                if let Some(number) = size(&folder.join(file)) {
                    row.figure(file, number);
                }
            }
        }
    }
}

/// Reads a device behind the cache. `names` are the name of the device and the UUID of the cache.
fn read_backing_device(folder: &Path, names: [&str; 2], rows: &mut Rows) {
    let [device, uuid] = names;
    let row = rows.add([("backing_device", device), ("uuid", uuid)]);
    if let Some(bytes) = size(&folder.join("dirty_data")) {
        row.figure("dirty_data", bytes);
    }
    for file in TOTALS {
        let number = size(&folder.join("stats_total").join(file));
        // Newer kernels do not count readaheads.
        let is_counted = |number: &f64| file != "cache_readaheads" || *number != 0.0;
        if let Some(number) = number.filter(is_counted) {
            row.figure(file, number);
        }
    }
    let writeback = read_file(&folder.join("writeback_rate_debug")).unwrap_or_default();
    for line in writeback.lines() {
        let found = WRITEBACK
            .iter()
            .find_map(|(start, name)| Some((*name, line.strip_prefix(start)?)));
        if let Some((name, text)) = found
            && let Some(number) = parse(text.trim().trim_end_matches("/sec"))
        {
            row.figure(name, number);
        }
    }
}

fn size(path: &Path) -> Option<f64> {
    parse(&value(path)?)
}

/// Parses a number such as `329204`, `1.1M` or `-427.5k`. After the point, the kernel prints 1,024ths and not tenths. As node_exporter,
/// this divides them by 10.24 and adds them.
fn parse(text: &str) -> Option<f64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1.0, text),
        None => (1.0, text),
    };
    let Some(unit) = text.chars().last().filter(|last| !last.is_ascii_digit()) else {
        return Some(sign * text.parse::<f64>().ok()?.trunc());
    };
    let power = "kMGTPEZY".find(unit)?;
    let text = text.strip_suffix(unit)?;
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let number = whole.parse::<f64>().ok()? + f64::from(part.parse::<u32>().ok()?) / 10.24;
    let number = (1..=power + 1).fold(number, |number, _| number * 1024.0);
    Some(sign * number.trunc())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Bcache, Roots, parse};

    #[test]
    fn numbers_have_the_values_of_node_exporter() {
        assert_eq!(parse("546"), Some(546.0));
        assert_eq!(parse("1.1M"), Some(1_150_976.0));
        assert_eq!(parse("-427.5k"), Some(-437_748.0));
        assert_eq!(parse("20.4G"), Some(21_894_266_880.0));
        for invalid in ["", "k", "1.k", "1x", "1.1.1k"] {
            assert_eq!(parse(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn a_cache_has_its_devices() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| format!("fs/bcache/deaddd54-c735/{name}");
        write_files(
            folder.path(),
            &[
                (&file("tree_depth"), "0\n"),
                (&file("internal/btree_read_average_duration_us"), "1305\n"),
                (&file("bdev0/stats_total/cache_hits"), "546\n"),
                (&file("bdev0/stats_total/cache_readaheads"), "0\n"),
                (
                    &file("bdev0/writeback_rate_debug"),
                    "rate:           1.1M/sec\ndirty:          20.4G\nnext io:        17ms\n",
                ),
                (&file("cache0/metadata_written"), "512\n"),
                ("fs/bcache/register", ""),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "uuid=deaddd54-c735 tree_depth 0",
            "uuid=deaddd54-c735 btree_read_average_duration 0.000001305",
            "backing_device=bdev0 uuid=deaddd54-c735 cache_hits 546",
            "backing_device=bdev0 uuid=deaddd54-c735 writeback_rate 1150976",
            "cache_device=cache0 uuid=deaddd54-c735 metadata_written 512",
        ];
        let lines = lines_of(&mut Bcache(roots));
        let expected =
            expected.map(|line| line.replace("0.000001305", &(1305.0 * 1e-9).to_string()));
        assert_eq!(lines, expected);
    }
}
