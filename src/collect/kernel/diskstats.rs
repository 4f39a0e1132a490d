//! Reads the counters of block devices, and what udev knows about the devices.

use std::collections::HashMap;

use super::family::{Family, FamilyError, Roots, Rows, read_file, read_text};
use crate::settings::{FileVersion, HostRoot, Patterns};

/// The size of a sector in the kernel's counters, in bytes. It does not depend on the device.
const SECTOR: f64 = 512.0;
/// The figures, in the order of the table, with their units. Kernels older than 4.18 have 11 figures, and kernels older than 5.5 have 15.
const FIGURES: [(&str, f64); 17] = [
    ("reads_completed", 1.0),
    ("reads_merged", 1.0),
    ("read_bytes", SECTOR),
    ("read_time", 0.001),
    ("writes_completed", 1.0),
    ("writes_merged", 1.0),
    ("written_bytes", SECTOR),
    ("write_time", 0.001),
    ("io_now", 1.0),
    ("io_time", 0.001),
    ("io_time_weighted", 0.001),
    ("discards_completed", 1.0),
    ("discards_merged", 1.0),
    ("discarded_sectors", 1.0),
    ("discard_time", 0.001),
    ("flush_requests", 1.0),
    ("flush_requests_time", 0.001),
];
/// The number of figures that each kernel has.
const MIN_FIGURES: usize = 11;
/// Maximum size of a file of udev, in bytes.
const MAX_SIZE: u64 = 64 * 1024;

/// The family. Sources: `/proc/diskstats`, `/sys/block` and `/run/udev/data`.
pub(super) struct Diskstats {
    roots: Roots,
    host: HostRoot,
    /// The names of devices that are left out.
    exclude: Patterns,
    /// The devices of the previous reading, by name.
    known: HashMap<String, Device>,
}

/// What is known about a device and seldom changes.
struct Device {
    number: (String, String),
    /// The version of the file from which `udev` was read. None if there is no file.
    version: Option<FileVersion>,
    udev: Udev,
    is_rotational: bool,
}

/// The properties of a device in udev's data.
#[derive(Default)]
struct Udev(HashMap<String, String>);

impl Diskstats {
    pub(super) fn new(roots: Roots, host: HostRoot, exclude: Patterns) -> Self {
        Self {
            roots,
            host,
            exclude,
            known: HashMap::new(),
        }
    }

    /// Returns what is known about a device. Reads udev's file again only if the file has changed.
    fn device(&mut self, name: &str, number: (&str, &str)) -> Device {
        let path = format!("/run/udev/data/b{}:{}", number.0, number.1);
        let version = self.host.version(&path).ok();
        let known = self.known.remove(name);
        let same = known.filter(|known| {
            let (major, minor) = &known.number;
            (&**major, &**minor) == number && known.version == version
        });
        same.unwrap_or_else(|| {
            let text = version.and_then(|_| self.host.read(&path, MAX_SIZE).ok());
            // In `/sys/block`, an exclamation mark replaces a slash in a device's name.
            let folder = self.roots.sys.join("block").join(name.replace('/', "!"));
            let rotational = read_text(&folder.join("queue/rotational"));
            Device {
                number: (number.0.to_owned(), number.1.to_owned()),
                version,
                udev: Udev::parse(&text.unwrap_or_default()),
                is_rotational: rotational.as_deref() == Some("1"),
            }
        })
    }
}

impl Family for Diskstats {
    fn name(&self) -> &'static str {
        "diskstats"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let path = self.roots.proc.join("diskstats");
        let text = read_file(&path)?;
        let mut known = HashMap::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(major), Some(minor), Some(name)) = (words.next(), words.next(), words.next())
            else {
                return Err(FamilyError::parse(&path));
            };
            // While devices are added and removed, the kernel sometimes lists a device twice.
            let is_excluded = is_part_or_in_memory(name)
                || self.exclude.matches(name)
                || self.exclude.matches(&format!("/dev/{name}"))
                || known.contains_key(name);
            if is_excluded {
                continue;
            }
            let row = rows.add([("device", name)]);
            for ((figure, unit), word) in FIGURES.into_iter().zip(words) {
                let number: f64 = word.parse().map_err(|_| FamilyError::parse(&path))?;
                row.figure(figure, number * unit);
            }
            if row.figures.len() < MIN_FIGURES {
                return Err(FamilyError::parse(&path));
            }
            let device = self.device(name, (major, minor));
            device.describe(name, rows);
            known.insert(name.to_owned(), device);
        }
        self.known = known;
        Ok(())
    }
}

impl Device {
    /// Adds the rows that describe a device.
    fn describe(&self, name: &str, rows: &mut Rows) {
        let (major, minor) = &self.number;
        let property = |name: &str| self.udev.property(name).unwrap_or_default();
        let serials = ["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"].map(property);
        let serial = serials.into_iter().find(|serial| !serial.is_empty());
        rows.add([
            ("device", name),
            ("major", major),
            ("minor", minor),
            ("model", property("ID_MODEL")),
            ("path", property("ID_PATH")),
            ("revision", property("ID_REVISION")),
            ("rotational", if self.is_rotational { "1" } else { "0" }),
            ("serial", serial.unwrap_or_default()),
            ("wwn", property("ID_WWN")),
        ])
        .figure("info", 1.0);
        let kind = property("ID_FS_TYPE");
        if !kind.is_empty() {
            rows.add([
                ("device", name),
                ("type", kind),
                ("usage", property("ID_FS_USAGE")),
                ("uuid", property("ID_FS_UUID")),
                ("version", property("ID_FS_VERSION")),
            ])
            .figure("filesystem_info", 1.0);
        }
        let mapped = property("DM_NAME");
        if !mapped.is_empty() {
            rows.add([
                ("device", name),
                ("lv_layer", property("DM_LV_LAYER")),
                ("lv_name", property("DM_LV_NAME")),
                ("name", mapped),
                ("uuid", property("DM_UUID")),
                ("vg_name", property("DM_VG_NAME")),
            ])
            .figure("device_mapper_info", 1.0);
        }
        if !property("ID_ATA").is_empty() {
            let row = rows.add([("device", name)]);
            for (name, figure) in [
                ("ID_ATA_WRITE_CACHE", "ata_write_cache"),
                ("ID_ATA_WRITE_CACHE_ENABLED", "ata_write_cache_enabled"),
                ("ID_ATA_ROTATION_RATE_RPM", "ata_rotation_rate_rpm"),
            ] {
                if let Ok(number) = property(name).parse() {
                    row.figure(figure, number);
                }
            }
        }
    }
}

impl Udev {
    /// Parses lines such as `E:ID_MODEL=SSD`. Skips other lines.
    fn parse(text: &str) -> Self {
        const PREFIXES: [&str; 3] = ["DM_", "ID_", "SCSI_IDENT_SERIAL"];
        let property = |line: &str| {
            let (name, value) = line.strip_prefix("E:")?.split_once('=')?;
            let is_used = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            is_used.then(|| (name.to_owned(), value.to_owned()))
        };
        Self(text.lines().filter_map(property).collect())
    }

    fn property(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Whether a device is left out as in node_exporter: a device in memory, a file that is used as a device, a floppy drive, or a partition of
/// a usual disk such as `sda1` or `nvme0n1p1`.
fn is_part_or_in_memory(name: &str) -> bool {
    let is_digit = |last: char| last.is_ascii_digit();
    let stem = name.trim_end_matches(is_digit);
    if stem.len() == name.len() {
        return false;
    }
    if ["ram", "zram", "loop", "fd"].contains(&stem) {
        return true;
    }
    if let Some((disk, letter)) = stem.split_at_checked(stem.len().saturating_sub(1))
        && ["hd", "sd", "vd", "xvd"].contains(&disk)
        && letter.starts_with(|letter: char| letter.is_ascii_lowercase())
    {
        return true;
    }
    let numbers = stem
        .strip_prefix("nvme")
        .and_then(|rest| rest.strip_suffix('p'))
        .and_then(|rest| rest.split_once('n'));
    let is_number = |text: &str| !text.is_empty() && text.chars().all(is_digit);
    numbers.is_some_and(|(controller, namespace)| is_number(controller) && is_number(namespace))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Diskstats, HostRoot, Patterns, Roots, is_part_or_in_memory};

    const TABLE: &str = "\
   1       0 ram0 0 0 0 0 0 0 0 0 0 0 0
   8       1 sda1 250 0 2000 36 0 0 0 0 0 36 36
 252       1 dm-1 388 0 3104 84 74 0 592 0 0 76 84
   8      32 sdc 126552 141 1657779 14 11822 1895 172905 1007 0 10730 17070 18851 0 125173784 11130 1555 1944
   8      48 sdd 1 1 1 1 1 1 1 1 1 1 1
";
    const UDEV: &str = "\
S:disk/by-id/x
W:4
E:SCSI_IDENT_SERIAL=3EWB5Y25CWQWA7EH1U
E:ID_MODEL=INTEL_SSDS9X9SI0
E:ID_REVISION=0100
E:ID_SERIAL_SHORT=58907ddc573a5de
E:ID_WWN=0x58907ddc573a5de
E:ID_PATH=pci-0000:00:1f.2-ata-4
E:ID_ATA=1
E:ID_ATA_WRITE_CACHE=1
E:ID_ATA_WRITE_CACHE_ENABLED=0
E:ID_ATA_ROTATION_RATE_RPM=0
G:systemd
";

    #[test]
    fn counters_and_properties_are_read() {
        let folder = TempDir::new().unwrap();
        let mapped = "E:DM_NAME=system-swap_1\nE:DM_VG_NAME=system\nE:DM_LV_NAME=swap_1\nE:DM_UUID=LVM-w\n\
            E:ID_FS_TYPE=swap\nE:ID_FS_USAGE=other\nE:ID_FS_UUID=5272bb60\nE:ID_FS_VERSION=1\n";
        write_files(
            folder.path(),
            &[
                ("diskstats", TABLE),
                ("block/sdc/queue/rotational", "1\n"),
                ("run/udev/data/b8:32", UDEV),
                ("run/udev/data/b252:1", mapped),
            ],
        );
        let roots = Roots {
            proc: folder.path().into(),
            sys: folder.path().into(),
        };
        let host = HostRoot::parse(folder.path().to_str().unwrap()).unwrap();
        let exclude = Patterns::parse("/dev/sdd", "names").unwrap();
        let mut disks = Diskstats::new(roots, host, exclude);
        let expected = [
            "device=dm-1 reads_completed 388",
            "device=dm-1 reads_merged 0",
            "device=dm-1 read_bytes 1589248",
            "device=dm-1 read_time 0.084",
            "device=dm-1 writes_completed 74",
            "device=dm-1 writes_merged 0",
            "device=dm-1 written_bytes 303104",
            "device=dm-1 write_time 0",
            "device=dm-1 io_now 0",
            "device=dm-1 io_time 0.076",
            "device=dm-1 io_time_weighted 0.084",
            "device=dm-1 major=252 minor=1 model= path= revision= rotational=0 serial= wwn= info 1",
            "device=dm-1 type=swap usage=other uuid=5272bb60 version=1 filesystem_info 1",
            "device=dm-1 lv_layer= lv_name=swap_1 name=system-swap_1 uuid=LVM-w vg_name=system device_mapper_info 1",
            "device=sdc reads_completed 126552",
            "device=sdc reads_merged 141",
            "device=sdc read_bytes 848782848",
            "device=sdc read_time 0.014",
            "device=sdc writes_completed 11822",
            "device=sdc writes_merged 1895",
            "device=sdc written_bytes 88527360",
            "device=sdc write_time 1.0070000000000001",
            "device=sdc io_now 0",
            "device=sdc io_time 10.73",
            "device=sdc io_time_weighted 17.07",
            "device=sdc discards_completed 18851",
            "device=sdc discards_merged 0",
            "device=sdc discarded_sectors 125173784",
            "device=sdc discard_time 11.13",
            "device=sdc flush_requests 1555",
            "device=sdc flush_requests_time 1.944",
            "device=sdc major=8 minor=32 model=INTEL_SSDS9X9SI0 path=pci-0000:00:1f.2-ata-4 revision=0100 rotational=1 \
             serial=3EWB5Y25CWQWA7EH1U wwn=0x58907ddc573a5de info 1",
            "device=sdc ata_write_cache 1",
            "device=sdc ata_write_cache_enabled 0",
            "device=sdc ata_rotation_rate_rpm 0",
        ];
        assert_eq!(lines_of(&mut disks), expected);
        // The second reading does not read udev's files again.
        assert_eq!(lines_of(&mut disks), expected);
        write_files(
            folder.path(),
            &[("run/udev/data/b8:32", "E:ID_MODEL=NEW\n")],
        );
        let lines = lines_of(&mut disks);
        assert!(
            lines.iter().any(|line| line.contains("model=NEW")),
            "{lines:#?}"
        );
    }

    #[test]
    fn partitions_and_devices_in_memory_are_left_out() {
        for name in [
            "ram0",
            "zram1",
            "loop7",
            "fd0",
            "sda1",
            "xvdb12",
            "hdc3",
            "vda1",
            "nvme0n1p1",
            "nvme10n2p15",
        ] {
            assert!(is_part_or_in_memory(name), "{name}");
        }
        for name in [
            "sda",
            "sdaa1",
            "nvme0n1",
            "mmcblk0p1",
            "dm-0",
            "sr0",
            "md127",
            "nvmexn1p1",
            "1",
            "é1",
        ] {
            assert!(!is_part_or_in_memory(name), "{name}");
        }
    }
}
