//! Reads the counters, the errors and the devices of bcachefs file systems.

use std::path::Path;

use super::devices::{filled, number, value};
use super::family::{Family, FamilyError, Roots, Rows, names_in, read_file};

/// Maximum number of file systems, and of devices of a file system.
const MAX_ENTRIES: usize = 64;
/// Maximum number of counters of a file system.
const MAX_COUNTERS: usize = 512;

/// The family. Source: `/sys/fs/bcachefs`. A file system or a kernel without a file has no figures of this file.
pub(super) struct Bcachefs(pub(super) Roots);

impl Family for Bcachefs {
    fn name(&self) -> &'static str {
        "bcachefs"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("fs/bcachefs");
        let names = names_in(&folder)?;
        if names.is_empty() {
            return Err(FamilyError::Absent);
        }
        for uuid in names.iter().take(MAX_ENTRIES) {
            read_file_system(&folder.join(uuid), uuid, rows);
        }
        Ok(())
    }
}

fn read_file_system(folder: &Path, uuid: &str, rows: &mut Rows) {
    let row = rows.add([("uuid", uuid)]);
    row.figure("info", 1.0);
    let cache = filled(&folder.join("btree_cache_size"));
    let cache = cache.and_then(|text| bytes(&text));
    row.figure("btree_cache_size", cache.unwrap_or_default());
    let counters = folder.join("counters");
    for name in names_in(&counters)
        .unwrap_or_default()
        .into_iter()
        .take(MAX_COUNTERS)
    {
        if let Some(count) = counter(&counters.join(&name)) {
            row.figure(format!("counters.{name}"), count);
        }
    }
    for words in table(&folder.join("compression_stats"), 1) {
        if let [algorithm, compressed, uncompressed, ..] = &words[..]
            && let (Some(compressed), Some(uncompressed)) = (bytes(compressed), bytes(uncompressed))
        {
            let row = rows.add([("uuid", uuid), ("algorithm", name(algorithm))]);
            row.figure("compressed", compressed);
            row.figure("uncompressed", uncompressed);
        }
    }
    for words in table(&folder.join("errors"), 0) {
        if let [kind, count, ..] = &words[..]
            && let Ok(count) = count.parse::<u64>()
        {
            rows.add([("uuid", uuid), ("error_type", kind)])
                .figure("errors", count as f64);
        }
    }
    for words in table(&folder.join("btree_write_stats"), 1) {
        if let [kind, count, size, ..] = &words[..]
            && let (Ok(count), Some(size)) = (count.parse::<u64>(), bytes(size))
        {
            let row = rows.add([("uuid", uuid), ("type", name(kind))]);
            row.figure("btree_writes", count as f64);
            row.figure("btree_write_average_size", size);
        }
    }
    let names = names_in(folder).unwrap_or_default();
    let devices = names.iter().filter_map(|name| name.strip_prefix("dev-"));
    for device in devices.take(MAX_ENTRIES) {
        read_device(&folder.join(format!("dev-{device}")), uuid, device, rows);
    }
}

fn read_device(folder: &Path, uuid: &str, device: &str, rows: &mut Rows) {
    let text = |file| value(&folder.join(file)).unwrap_or_default();
    let labels = [
        ("uuid", uuid),
        ("device", device),
        ("label", &text("label")),
        ("state", &text("state")),
    ];
    rows.add(labels).figure("device_info", 1.0);
    let row = rows.add([("uuid", uuid), ("device", device)]);
    let whole = |file| number(&folder.join(file)).unwrap_or_default();
    row.figure(
        "bucket_size",
        bytes(&text("bucket_size")).unwrap_or_default(),
    );
    row.figure("nbuckets", whole("nbuckets"));
    row.figure("durability", whole("durability"));
    let mut operation = None;
    for line in read_file(&folder.join("io_done"))
        .unwrap_or_default()
        .lines()
    {
        match (line.trim(), operation) {
            ("read:", _) => operation = Some("read"),
            ("write:", _) => operation = Some("write"),
            (line, Some(operation)) => {
                if let Some((kind, bytes)) = pair(line) {
                    let labels = [
                        ("uuid", uuid),
                        ("device", device),
                        ("operation", operation),
                        ("data_type", kind),
                    ];
                    rows.add(labels).figure("io_done", bytes);
                }
            }
            _ => {}
        }
    }
    // The file has the errors since the file system was created, and then the errors since a later moment.
    let errors = read_file(&folder.join("io_errors")).unwrap_or_default();
    let lines = errors.lines();
    let mut lines =
        lines.skip_while(|line| !line.starts_with("IO errors since filesystem creation"));
    lines.next();
    for line in lines.take_while(|line| !line.starts_with("IO errors since ")) {
        if let Some((kind, count)) = pair(line) {
            let labels = [("uuid", uuid), ("device", device), ("type", kind)];
            rows.add(labels).figure("io_errors", count);
        }
    }
}

/// Reads a counter since the file system was created.
fn counter(path: &Path) -> Option<f64> {
    let text = value(path)?;
    let mut lines = text.lines();
    bytes(lines.find_map(|line| line.strip_prefix("since filesystem creation:"))?)
}

/// Returns the words of each line of a file, without the first `skipped` lines.
fn table(path: &Path, skipped: usize) -> Vec<Vec<String>> {
    let text = read_file(path).unwrap_or_default();
    let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect();
    text.lines().skip(skipped).map(words).collect()
}

/// Removes the colon at the end of a name.
fn name(word: &str) -> &str {
    word.strip_suffix(':').unwrap_or(word)
}

/// Parses a line such as `checksum: 12`.
fn pair(line: &str) -> Option<(&str, f64)> {
    let (name, value) = line.split_once(':')?;
    let value: u64 = value.trim().parse().ok()?;
    Some((name.trim(), value as f64))
}

/// Parses a size such as `28.2k`. Returns whole bytes, as node_exporter does.
fn bytes(text: &str) -> Option<f64> {
    let text = text.trim();
    let unit = text.chars().last()?.to_ascii_lowercase();
    let (digits, power) = match ['k', 'm', 'g', 't', 'p', 'e']
        .iter()
        .position(|one| *one == unit)
    {
        Some(position) => (&text[..text.len() - 1], position as i32 + 1),
        None => (text, 0),
    };
    let value: f64 = digits.trim().parse().ok()?;
    value
        .is_finite()
        .then(|| (value * 1024_f64.powi(power)).trunc())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::read;
    use super::super::family::tests::{lines_of, write_files};
    use super::{Bcachefs, Roots, bytes};
    use crate::model::KernelStatus;

    /// Shortened files of a file system. The numbers are those in the fixtures of node_exporter (Apache-2.0).
    const FILES: [(&str, &str); 12] = [
        ("btree_cache_size", "2.05G\n"),
        (
            "compression_stats",
            "typetype  compressed  uncompressed  average extent size\nlz4   48.9G  71.2G  62.5k\n",
        ),
        ("errors", "bset_bad_csum  2  1767112063\nodd\n"),
        (
            "btree_write_stats",
            "           nr  size\ninitial:  3298401  100k\n",
        ),
        (
            "counters/fsync",
            "since mount:    12\nsince filesystem creation:     44105502\n",
        ),
        ("counters/odd", "7\n"),
        ("dev-4/label", "disk-4\n"),
        ("dev-4/state", "[rw] ro\n"),
        ("dev-4/bucket_size", "2.00M\n"),
        ("dev-4/nbuckets", "7629824\n"),
        (
            "dev-4/io_done",
            "read:\nsb          :       86016\nwrite:\nsb          :      645120\n",
        ),
        (
            "dev-4/io_errors",
            "IO errors since filesystem creation\n  read:    197416\nIO errors since 8 y ago\n  read:    5\n",
        ),
    ];

    fn roots(folder: &TempDir) -> Roots {
        Roots {
            sys: folder.path().into(),
            ..Roots::default()
        }
    }

    #[test]
    fn a_file_system_is_read() {
        let folder = TempDir::new().unwrap();
        let files = FILES.map(|(path, text)| (format!("fs/bcachefs/dead-beef/{path}"), text));
        let files = files.each_ref().map(|(path, text)| (path.as_str(), *text));
        write_files(folder.path(), &files);
        let expected = [
            "uuid=dead-beef info 1",
            "uuid=dead-beef btree_cache_size 2201170739",
            "uuid=dead-beef counters.fsync 44105502",
            "uuid=dead-beef algorithm=lz4 compressed 52505975193",
            "uuid=dead-beef algorithm=lz4 uncompressed 76450417868",
            "uuid=dead-beef error_type=bset_bad_csum errors 2",
            "uuid=dead-beef type=initial btree_writes 3298401",
            "uuid=dead-beef type=initial btree_write_average_size 102400",
            "uuid=dead-beef device=4 label=disk-4 state=[rw] ro device_info 1",
            "uuid=dead-beef device=4 bucket_size 2097152",
            "uuid=dead-beef device=4 nbuckets 7629824",
            "uuid=dead-beef device=4 durability 0",
            "uuid=dead-beef device=4 operation=read data_type=sb io_done 86016",
            "uuid=dead-beef device=4 operation=write data_type=sb io_done 645120",
            "uuid=dead-beef device=4 type=read io_errors 197416",
        ];
        assert_eq!(lines_of(&mut Bcachefs(roots(&folder))), expected);
    }

    #[test]
    fn a_host_without_bcachefs_has_no_figures() {
        let folder = TempDir::new().unwrap();
        let mut family = Bcachefs(roots(&folder));
        assert_eq!(read(&mut family, false).status, KernelStatus::Absent);
        std::fs::create_dir_all(folder.path().join("fs/bcachefs")).unwrap();
        assert_eq!(read(&mut family, false).status, KernelStatus::Absent);
    }

    #[test]
    fn sizes_have_units() {
        let sizes = ["405", "542k", "28.2k", "322M", "1.5G", " 10.8T "].map(bytes);
        let expected = [
            405.0,
            555_008.0,
            28_876.0,
            337_641_472.0,
            1_610_612_736.0,
            11_874_725_579_980.0,
        ];
        assert_eq!(sizes, expected.map(Some));
        for text in ["", "k", "two", "inf", "é"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
