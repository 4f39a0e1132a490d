//! Reads all sensors: temperature, fans, voltage, current, power, energy and humidity, with their limits and alarms.
//!
//! A sensor can be slow to read, because some drivers ask the hardware. So limits and other values that only a user changes are read once
//! a minute. The sensors of a sleeping GPU are not read, because this would wake the GPU.

use std::fs;
use std::path::{Path, PathBuf};

use super::devices::{Cached, filled, number, value};
use super::family::{Family, FamilyError, Roots, Rows};
use crate::collect::system::sensors::{GPU_DRIVERS, KINDS, chips, clean};

/// Maximum number of sensors.
const MAX_SENSORS: usize = 2048;
/// Maximum number of files of a sensor.
const MAX_FILES: usize = 64;

/// The family. Source: `/sys/class/hwmon`. The files are described in the kernel's `Documentation/hwmon/sysfs-interface.rst`.
pub(super) struct Hwmon {
    class: PathBuf,
    chips: Cached<Chip>,
}

/// A device with sensors.
struct Chip {
    /// The name that node_exporter gives to the device.
    name: String,
    /// The device's own name.
    device: String,
    /// The file that tells whether the device sleeps. Only for GPUs.
    status: Option<PathBuf>,
    sensors: Vec<Sensor>,
}

struct Sensor {
    /// The kernel's name of the sensor, such as `temp1`.
    name: String,
    label: Option<String>,
    /// The files with values that change at any time.
    changing: Vec<Value>,
    /// The files with values that rarely change.
    rare: Vec<Value>,
    /// The figures of the rare values. None until the device is awake.
    known: Option<Vec<(String, f64)>>,
}

/// A file with a value.
struct Value {
    /// The kind of the sensor, such as `temp`.
    kind: &'static str,
    /// What follows the name of the sensor in the name of the file, such as `crit`.
    property: String,
    path: PathBuf,
}

impl Hwmon {
    pub(super) fn new(roots: &Roots) -> Self {
        Self {
            class: roots.sys.join("class/hwmon"),
            chips: Cached::default(),
        }
    }
}

impl Family for Hwmon {
    fn name(&self) -> &'static str {
        "hwmon"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let Self { class, chips } = self;
        let chips = chips.found(|| find(class));
        if chips.is_empty() && !class.exists() {
            return Err(FamilyError::Absent);
        }
        for chip in chips {
            if !chip.device.is_empty() && !chip.sensors.is_empty() {
                rows.add([("chip", &chip.name), ("chip_name", &chip.device)])
                    .figure("name", 1.0);
            }
            let is_asleep = chip.is_asleep();
            for sensor in &mut chip.sensors {
                sensor.read(&chip.name, is_asleep, rows);
            }
        }
        Ok(())
    }
}

impl Chip {
    fn is_asleep(&self) -> bool {
        let status = self.status.as_deref().and_then(value);
        matches!(status.as_deref(), Some("suspended" | "suspending"))
    }
}

impl Sensor {
    fn read(&mut self, chip: &str, is_asleep: bool, rows: &mut Rows) {
        if let Some(label) = &self.label {
            rows.add([("chip", chip), ("label", label), ("sensor", &self.name)])
                .figure("label", 1.0);
        }
        if is_asleep {
            return;
        }
        let rare = &self.rare;
        let known = self
            .known
            .get_or_insert_with(|| rare.iter().filter_map(Value::figure).collect());
        let changing = self.changing.iter().filter_map(Value::figure);
        let (frequencies, figures): (Vec<_>, Vec<_>) = changing
            .chain(known.iter().cloned())
            .partition(|(name, _)| name == "freq_input");
        if !figures.is_empty() {
            let row = rows.add([("chip", chip), ("sensor", &self.name)]);
            for (name, value) in figures {
                row.figure(name, value);
            }
        }
        // The label of a frequency, such as `sclk`, takes the place of the sensor's name.
        if let Some(label) = &self.label {
            for (name, value) in frequencies {
                rows.add([("chip", chip), ("sensor", &clean(label))])
                    .figure(name, value);
            }
        }
    }
}

impl Value {
    /// Reads the file. Returns the name of the figure, and the value in the unit that node_exporter uses.
    fn figure(&self) -> Option<(String, f64)> {
        let number = number(&self.path)?;
        let name = match clean(&self.property) {
            property if property.is_empty() => self.kind.to_owned(),
            property => format!("{}_{property}", self.kind),
        };
        Some((name, converted(self.kind, &self.property, number)))
    }

    /// Whether the value changes without a user. All other values are limits or settings.
    fn is_changing(&self) -> bool {
        const CHANGING: [&str; 9] = [
            "", "average", "cap", "fault", "input", "manual", "mode", "output", "target",
        ];
        const ENDS: [&str; 4] = ["alarm", "enable", "highest", "lowest"];
        CHANGING.contains(&&*self.property) || ENDS.iter().any(|end| self.property.ends_with(end))
    }
}

/// Converts a value from the kernel's unit to node_exporter's unit. For equal values, it repeats that node_exporter divides alarms of
/// limits by 1,000, and the humidity in thousandths of a percent by 1,000,000.
fn converted(kind: &str, property: &str, number: f64) -> f64 {
    match (kind, property) {
        (_, "alarm" | "fault" | "beep") | ("temp", "type") => number,
        ("power", "average_interval" | "average_interval_min" | "average_interval_max")
        | ("in" | "cpu" | "temp" | "curr" | "update_interval", _) => number * 0.001,
        ("energy" | "power" | "humidity", _) | ("freq", "input") => number / 1_000_000.0,
        // A device with an invalid value does not beep.
        ("beep_enable", _) => f64::from(u8::from(number == 1.0)),
        _ => number,
    }
}

/// Finds all devices and their sensors.
fn find(class: &Path) -> Vec<Chip> {
    let mut left = MAX_SENSORS;
    let found = chips(class).into_iter().map(|chip| {
        let sensors = sensors(&chip.folder, left);
        left -= sensors.len();
        let is_gpu = GPU_DRIVERS.contains(&&*chip.device);
        Chip {
            status: is_gpu.then(|| chip.folder.join("device/power/runtime_status")),
            name: chip.name,
            device: clean(&chip.device),
            sensors,
        }
    });
    found.collect()
}

/// Finds the sensors of a device, at most `most`. Old drivers create the files in the folder `device`.
fn sensors(folder: &Path, most: usize) -> Vec<Sensor> {
    let mut files = std::collections::BTreeMap::new();
    // If both folders have a file, the file in the folder `device` counts, as in node_exporter.
    for folder in [folder.to_owned(), folder.join("device")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // The folder `device` has a folder with the name `power`.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            if let Some((kind, number, property)) = name.to_str().and_then(parts) {
                files.insert((kind, number, property.to_owned()), entry.path());
            }
        }
    }
    let mut sensors: Vec<Sensor> = Vec::new();
    for ((kind, number, property), path) in files {
        let name = format!("{kind}{number}");
        if sensors.last().is_none_or(|last| last.name != name) {
            if sensors.len() == most {
                break;
            }
            sensors.push(Sensor {
                name,
                label: None,
                changing: Vec::new(),
                rare: Vec::new(),
                known: None,
            });
        }
        let Some(sensor) = sensors.last_mut() else {
            break;
        };
        if property == "label" {
            sensor.label = filled(&path);
            continue;
        }
        let value = Value {
            kind,
            property,
            path,
        };
        let list = match value.is_changing() {
            true => &mut sensor.changing,
            false => &mut sensor.rare,
        };
        if list.len() < MAX_FILES {
            list.push(value);
        }
    }
    sensors
}

/// Splits the name of a file such as `temp1_crit` into kind, number and property. A name without number, such as `beep_enable`, has the
/// number 0.
fn parts(name: &str) -> Option<(&'static str, u32, &str)> {
    KINDS.into_iter().find_map(|kind| {
        let rest = name.strip_prefix(kind)?;
        if rest.is_empty() {
            return Some((kind, 0, ""));
        }
        let end = rest.find(|one: char| !one.is_ascii_digit());
        let (number, property) = rest.split_at(end.unwrap_or(rest.len()));
        let property = match property {
            "" => "",
            property => property.strip_prefix('_').filter(|text| !text.is_empty())?,
        };
        Some((kind, number.parse().ok()?, property))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::super::family::{Family as _, FamilyError, Roots, Rows};
    use super::{Hwmon, parts};

    fn family(folder: &TempDir) -> Hwmon {
        Hwmon::new(&Roots {
            sys: folder.path().into(),
            ..Roots::default()
        })
    }

    #[test]
    fn a_file_name_has_kind_number_and_property() {
        assert_eq!(parts("temp1_crit_alarm"), Some(("temp", 1, "crit_alarm")));
        assert_eq!(parts("intrusion0_beep"), Some(("intrusion", 0, "beep")));
        assert_eq!(parts("pwm2"), Some(("pwm", 2, "")));
        assert_eq!(parts("beep_enable"), Some(("beep_enable", 0, "")));
        for other in ["in_x", "temp1_", "temp1x", "name", "bogus1_input"] {
            assert_eq!(parts(other), None, "{other}");
        }
    }

    #[test]
    fn each_sensor_has_its_values_in_the_units_of_node_exporter() {
        let folder = TempDir::new().unwrap();
        let chip = "devices/platform/nct6775.656/hwmon/hwmon3";
        let files = [
            ("name", "nct6779\n"),
            ("fan2_input", "1098\n"),
            ("fan2_min", "0\n"),
            ("in1_input", "1024\n"),
            ("in1_alarm", "1\n"),
            ("temp1_crit_alarm", "0\n"),
            ("temp1_input", "55000\n"),
            ("temp1_label", "Core 0\n"),
            ("temp1_max", "84000\n"),
            ("temp2_input", "broken\n"),
            ("freq1_input", "214000000\n"),
            ("freq1_label", "SCLK\n"),
            ("pwm1", "128\n"),
            ("beep_enable", "1\n"),
            ("energy1_input", "2500000\n"),
        ];
        let paths = files.map(|(name, text)| (format!("{chip}/{name}"), text));
        let files: Vec<_> = paths.iter().map(|(name, text)| (&**name, *text)).collect();
        write_files(folder.path(), &files);
        let class = folder.path().join("class/hwmon");
        fs::create_dir_all(&class).unwrap();
        symlink(folder.path().join(chip), class.join("hwmon3")).unwrap();
        symlink(
            folder.path().join("devices/platform/nct6775.656"),
            folder.path().join(chip).join("device"),
        )
        .unwrap();
        let mut lines = lines_of(&mut family(&folder));
        lines.sort_unstable();
        let of = |line: &str| format!("chip=platform_nct6775_656 {line}");
        let expected = [
            "chip_name=nct6779 name 1",
            "label=Core 0 sensor=temp1 label 1",
            "label=SCLK sensor=freq1 label 1",
            "sensor=beep_enable0 beep_enable 1",
            "sensor=energy1 energy_input 2.5",
            "sensor=fan2 fan_input 1098",
            "sensor=fan2 fan_min 0",
            "sensor=in1 in_alarm 1",
            "sensor=in1 in_input 1.024",
            "sensor=pwm1 pwm 128",
            "sensor=sclk freq_input 214",
            "sensor=temp1 temp_crit_alarm 0",
            "sensor=temp1 temp_input 55",
            "sensor=temp1 temp_max 84",
        ];
        assert_eq!(lines, expected.map(of));
    }

    #[test]
    fn a_sleeping_gpu_is_not_read() {
        let folder = TempDir::new().unwrap();
        let chip = "class/hwmon/hwmon0";
        let file = |name: &str| format!("{chip}/{name}");
        let status = file("device/power/runtime_status");
        write_files(
            folder.path(),
            &[
                (&file("name"), "amdgpu\n"),
                (&file("temp1_input"), "40000\n"),
                (&file("temp1_crit"), "90000\n"),
                (&status, "suspended\n"),
            ],
        );
        let mut family = family(&folder);
        let count = |family: &mut Hwmon| lines_of(family).len();
        assert_eq!(count(&mut family), 1);
        write_files(folder.path(), &[(&status, "active\n")]);
        assert_eq!(count(&mut family), 3);
        // The limit stays known.
        fs::remove_file(folder.path().join(file("temp1_crit"))).unwrap();
        assert_eq!(count(&mut family), 3);
    }

    #[test]
    fn a_host_without_sensors_has_no_figures() {
        let read = family(&TempDir::new().unwrap()).read(&mut Rows::default());
        assert!(matches!(read, Err(FamilyError::Absent)), "{read:?}");
    }
}
