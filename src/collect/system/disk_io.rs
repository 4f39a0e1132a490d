//! Reads the traffic of the host's block devices: counters and rates.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::family::{MetricFamily, Round};
use crate::collect::kernel_file::KernelFile;
use crate::collect::rate::per_second;
use crate::model::{DiskIo, figure};
use crate::settings::Patterns;

/// The size of a sector in the kernel's counters, in bytes. It does not depend on the device.
const SECTOR: u64 = 512;
/// Names of devices that are not disks, without the number: devices in memory, files that are used as devices, and floppy
/// drives.
const NO_DISKS: [&str; 4] = ["loop", "ram", "zram", "fd"];

/// The metric family, with the data that it stores between readings.
pub(super) struct Devices {
    /// The folder in which the kernel lists whole devices: `/sys/block`.
    block: PathBuf,
    /// The table of the counters, `/proc/diskstats`.
    table: KernelFile,
    /// The devices of the previous reading, by name.
    known: HashMap<String, KnownDevice>,
    /// The number of the current reading. A device that is gone has the number of an earlier reading.
    reading: u64,
    /// The time of the previous successful reading of the counters.
    read_at: Instant,
    /// The names of devices that are left out.
    exclude: Patterns,
}

/// Why the block devices cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read /proc/diskstats")]
pub(super) struct DiskIoError(#[from] io::Error);

/// The data about a device from the previous reading.
struct KnownDevice {
    /// Whether the device is a whole disk that is not left out.
    whole: bool,
    excluded: bool,
    before: Counters,
    reading: u64,
}

/// The counters of a device since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    /// The major and minor number of the device.
    number: (u32, u32),
    reads: u64,
    sectors_read: u64,
    writes: u64,
    sectors_written: u64,
    busy_ms: u64,
}

impl MetricFamily for Devices {
    const NAME: &'static str = "disk_io";
    const COMPARES: bool = true;

    type Figures = Vec<DiskIo>;
    type Error = DiskIoError;

    /// Reads the counters. Rates are averages over the time since the previous successful reading.
    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<DiskIo>, DiskIoError> {
        let now = Instant::now();
        let seconds = (now - self.read_at).as_secs_f64();
        let devices = self.table(seconds)?;
        self.read_at = now;
        Ok(devices)
    }

    fn publish(&mut self, devices: Vec<DiskIo>, round: &mut Round<'_>) {
        round.metrics.disk_io = devices;
        round.excluded += self.known.values().filter(|known| known.excluded).count() as u64;
    }
}

impl Devices {
    pub(super) fn new(block: &Path) -> Self {
        Self {
            block: block.to_owned(),
            table: KernelFile::new("/proc/diskstats"),
            known: HashMap::new(),
            reading: 0,
            read_at: Instant::now(),
            exclude: Patterns::default(),
        }
    }

    /// Leaves out the devices with these names.
    pub(super) fn without(mut self, names: Patterns) -> Self {
        self.exclude = names;
        self
    }

    /// Reads every whole device. `seconds` is the time since the previous reading. Source: `/proc/diskstats`. If the kernel does
    /// not have this file, returns an empty list.
    fn table(&mut self, seconds: f64) -> io::Result<Vec<DiskIo>> {
        let table = self.table.read().map(String::from_utf8_lossy);
        match table.map(Cow::into_owned) {
            Ok(table) => Ok(self.take_in(&table, seconds)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Builds the published devices from the text of `/proc/diskstats`.
    fn take_in(&mut self, table: &str, seconds: f64) -> Vec<DiskIo> {
        self.reading += 1;
        let devices = table
            .lines()
            .filter_map(parse)
            .filter_map(|(name, now)| self.one(name, now, seconds))
            .collect();
        let reading = self.reading;
        self.known.retain(|_, known| known.reading == reading);
        devices
    }

    /// Builds one published device. Returns none if the device is not a whole disk, or if the table has already listed the
    /// device.
    fn one(&mut self, name: &str, now: Counters, seconds: f64) -> Option<DiskIo> {
        let before = match self.known.get_mut(name) {
            // While devices are added and removed, the kernel sometimes lists a device twice.
            Some(known) if known.reading == self.reading => return None,
            Some(known) => {
                known.reading = self.reading;
                let before = std::mem::replace(&mut known.before, now);
                known.whole.then_some(before)?
            }
            None => {
                let whole = self.is_whole(name);
                let is_excluded =
                    || self.exclude.matches(name) || self.exclude.matches(&format!("/dev/{name}"));
                let excluded = whole && is_excluded();
                let whole = whole && !excluded;
                let known = KnownDevice {
                    whole,
                    excluded,
                    before: now,
                    reading: self.reading,
                };
                self.known.insert(name.to_owned(), known);
                whole.then_some(now)?
            }
        };
        let bytes = |sectors: u64| sectors.saturating_mul(SECTOR);
        let rate = |of: fn(&Counters) -> u64| per_second(of(&before), of(&now), seconds);
        let bytes_rate =
            |of: fn(&Counters) -> u64| per_second(bytes(of(&before)), bytes(of(&now)), seconds);
        // The rate is in milliseconds per second, and 10 ms per second are 1 %.
        let busy = rate(|counters| counters.busy_ms) / 10.0;
        Some(DiskIo {
            device: name.to_owned(),
            number: now.number,
            read_bytes: bytes(now.sectors_read),
            write_bytes: bytes(now.sectors_written),
            read_ops: now.reads,
            write_ops: now.writes,
            busy_ms: now.busy_ms,
            read_bytes_per_second: bytes_rate(|counters| counters.sectors_read),
            write_bytes_per_second: bytes_rate(|counters| counters.sectors_written),
            read_ops_per_second: rate(|counters| counters.reads),
            write_ops_per_second: rate(|counters| counters.writes),
            busy_percent: figure(busy, 2).min(100.0),
        })
    }

    /// Returns whether a device is a whole disk, and neither a partition nor one of `NO_DISKS`.
    fn is_whole(&self, name: &str) -> bool {
        let kind = name.trim_end_matches(|last: char| last.is_ascii_digit());
        // In `/sys/block`, an exclamation mark replaces a slash in a device's name (`cciss/c0d0`).
        !NO_DISKS.contains(&kind) && self.block.join(name.replace('/', "!")).exists()
    }
}

/// Parses a line `254 0 vda reads merged sectors ms writes merged sectors ms in_flight ms_busy …`.
fn parse(line: &str) -> Option<(&str, Counters)> {
    let mut fields = line.split_ascii_whitespace();
    let device = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let name = fields.next()?;
    let mut number = |skipped: usize| fields.nth(skipped)?.parse::<u64>().ok();
    let counters = Counters {
        number: device,
        reads: number(0)?,
        sectors_read: number(1)?,
        writes: number(1)?,
        sectors_written: number(1)?,
        busy_ms: number(2)?,
    };
    Some((name, counters))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::{Counters, Devices, parse};
    use crate::model::DiskIo;

    const BEFORE: &str = "\
   7       0 loop0 10 0 80 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 1000 5 16000 200 2000 7 64000 900 3 5000 1100 0 0 0 0 10 20
 254       1 vda1 900 5 15000 200 2000 7 64000 900 3 5000 1100 0 0 0 0
 104       0 cciss/c0d0 1 0 8 0 0 0 0 0 0 1 1
";
    const AFTER: &str = "\
   7       0 loop0 10 0 80 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 254       0 vda 1100 5 18000 200 2050 7 64400 900 3 7500 1100 0 0 0 0 10 20
 254       1 vda1 900 5 15000 200 2000 7 64000 900 3 5000 1100 0 0 0 0
";

    #[test]
    fn whole_disks_have_counters_and_rates() {
        let block = tempfile::tempdir().unwrap();
        for name in ["vda", "loop0", "cciss!c0d0"] {
            fs::create_dir(block.path().join(name)).unwrap();
        }
        let mut devices = Devices::new(block.path());
        let first = devices.take_in(BEFORE, 0.5);
        let names: Vec<&str> = first.iter().map(|one| one.device.as_str()).collect();
        assert_eq!(names, ["vda", "cciss/c0d0"]);
        assert_eq!(first[0].read_bytes_per_second, 0.0);
        let expected = DiskIo {
            device: "vda".to_owned(),
            number: (254, 0),
            read_bytes: 18_000 * 512,
            write_bytes: 64_400 * 512,
            read_ops: 1100,
            write_ops: 2050,
            busy_ms: 7500,
            read_bytes_per_second: 2000.0 * 512.0 / 5.0,
            write_bytes_per_second: 400.0 * 512.0 / 5.0,
            read_ops_per_second: 20.0,
            write_ops_per_second: 10.0,
            busy_percent: 50.0,
        };
        assert_eq!(devices.take_in(AFTER, 5.0), [expected]);
        assert_eq!(devices.known.len(), 3);
    }

    #[test]
    fn a_device_that_is_listed_twice_counts_once() {
        let block = tempfile::tempdir().unwrap();
        fs::create_dir(block.path().join("vda")).unwrap();
        let mut devices = Devices::new(block.path());
        for table in [BEFORE, AFTER] {
            let read = devices.take_in(&format!("{table}{table}"), 1.0);
            assert_eq!(read.len(), 1, "{read:#?}");
        }
        assert_eq!(devices.take_in(AFTER, 1.0)[0].read_ops_per_second, 0.0);
    }

    #[test]
    fn lines_of_old_and_new_kernels_are_read() {
        // The three formats: kernels older than 4.18, kernels with discards (4.18), and kernels with flushes (5.5).
        let old = "   8       0 sda 1 2 3 4 5 6 7 8 9 10 11";
        let counters = Counters {
            number: (8, 0),
            reads: 1,
            sectors_read: 3,
            writes: 5,
            sectors_written: 7,
            busy_ms: 10,
        };
        for more in ["", " 12 13 14 15", " 12 13 14 15 16 17"] {
            assert_eq!(parse(&format!("{old}{more}")), Some(("sda", counters)));
        }
        for none in [
            "",
            "8 0 sda",
            "8 0 sda 1 2 3 4 5 6 7 8 9",
            "8 0 sda a b c d e f g h i j k",
        ] {
            assert_eq!(parse(none), None);
        }
    }

    proptest! {
        #[test]
        fn figures_of_any_table_are_finite_and_not_negative(text in "\\PC*", before: [u64; 11], now: [u64; 11], seconds: f64) {
            parse(&text);
            let block = tempfile::tempdir().unwrap();
            fs::create_dir(block.path().join("sda")).unwrap();
            let mut devices = Devices::new(block.path());
            let line = |numbers: [u64; 11]| format!("8 0 sda {}", numbers.map(|one| one.to_string()).join(" "));
            devices.take_in(&line(before), seconds);
            for one in devices.take_in(&line(now), seconds) {
                for figure in [one.read_bytes_per_second, one.write_bytes_per_second, one.read_ops_per_second,
                    one.write_ops_per_second, one.busy_percent] {
                    prop_assert!(figure.is_finite() && figure >= 0.0, "{figure}");
                }
            }
        }
    }

    #[test]
    fn fuzz_diskstats() {
        crate::fuzzing::run(
            "diskstats",
            &[BEFORE.as_bytes(), AFTER.as_bytes()],
            |bytes| {
                for line in String::from_utf8_lossy(bytes).lines() {
                    parse(line);
                }
            },
        );
    }
}
