//! Reads the host's sensors of temperature, fans, voltage, current, power and humidity, and the names of all sensors. The names are the same as in node_exporter, so that
//! dashboards for node_exporter work.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::family::{MetricFamily, Round};
use crate::model::{
    SensorChip, SensorKind, SensorLabel, SensorReading, Sensors as Named, Temperature, figure,
};

/// How often the list of sensors is read again.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of devices.
const MAX_CHIPS: usize = 256;
/// Maximum number of sensors.
const MAX_SENSORS: usize = 256;
/// The sensors that do not measure temperature: the kernel's name of the kind and the content of the file, the published kind, and the
/// factor from the kernel's unit to the published unit. Source: the kernel's `Documentation/hwmon/sysfs-interface.rst`.
const OTHERS: [(&str, &str, SensorKind, f64); 6] = [
    ("fan", "input", SensorKind::Fan, 1.0),
    ("in", "input", SensorKind::Voltage, 1e-3),
    ("curr", "input", SensorKind::Current, 1e-3),
    ("power", "input", SensorKind::Power, 1e-6),
    ("power", "average", SensorKind::AveragePower, 1e-6),
    ("humidity", "input", SensorKind::Humidity, 1e-3),
];
/// Maximum number of published labels, including labels of sensors that do not measure temperature.
const MAX_LABELS: usize = 1024;
/// Plausible temperatures, in degrees Celsius. A sensor with another value is not connected or is broken.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = -60.0..=250.0;
/// The kernel's names for kinds of sensors. In a file name, the number of the sensor follows such a name, as in `temp1_input`.
const KINDS: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

/// The metric family, with the sensors that were found.
pub(super) struct Sensors {
    /// The folder in which the kernel lists devices with sensors: `/sys/class/hwmon`.
    class: PathBuf,
    found: Vec<Sensor>,
    /// The names of all devices and sensors.
    named: Arc<Named>,
    /// When the list of sensors was read. None before the first reading.
    looked: Option<Instant>,
}

struct Sensor {
    device: String,
    label: String,
    chip: String,
    /// The kernel's name of the sensor, e.g. `temp1`.
    name: String,
    input: PathBuf,
    measures: Measures,
}

/// What a sensor measures.
enum Measures {
    Temperature {
        critical: Option<f64>,
    },
    /// The factor converts the kernel's unit to the published unit.
    Other(SensorKind, f64),
}

impl MetricFamily for Sensors {
    const NAME: &'static str = "sensors";

    type Figures = (Vec<Temperature>, Vec<SensorReading>);
    /// The family never fails: it leaves out a sensor that cannot be read.
    type Error = Infallible;

    /// Reads the sensors in `/sys/class/hwmon`.
    fn read(&mut self, _round: &Round<'_>) -> Result<Self::Figures, Infallible> {
        Ok(self.shown())
    }

    fn publish(&mut self, (temperatures, others): Self::Figures, round: &mut Round<'_>) {
        round.metrics.temperatures = temperatures;
        round.metrics.sensors = others;
        round.metrics.exact.sensors = self.named();
    }
}

impl Sensors {
    pub(super) fn new(class: &Path) -> Self {
        Self {
            class: class.to_owned(),
            found: Vec::new(),
            named: Arc::default(),
            looked: None,
        }
    }

    /// Reads all sensors, sorted by device and sensor. Leaves out a sensor that cannot be read.
    fn shown(&mut self) -> (Vec<Temperature>, Vec<SensorReading>) {
        if self.looked.is_none_or(|at| at.elapsed() >= RESCAN_INTERVAL) {
            let (found, named) = find(&self.class);
            self.found = found;
            self.named = Arc::new(named);
            self.looked = Some(Instant::now());
        }
        let (mut temperatures, mut others) = (Vec::new(), Vec::new());
        for sensor in &self.found {
            let Some(text) = text(&sensor.input) else {
                continue;
            };
            match &sensor.measures {
                Measures::Temperature { critical } => {
                    let exact = celsius(&text);
                    temperatures.extend(exact.map(|exact| Temperature {
                        device: sensor.device.clone(),
                        sensor: sensor.label.clone(),
                        chip: sensor.chip.clone(),
                        input: sensor.name.clone(),
                        celsius: rounded(exact),
                        critical: *critical,
                        exact,
                    }));
                }
                Measures::Other(kind, factor) => {
                    let value = text.parse::<i64>().ok();
                    others.extend(value.map(|value| SensorReading {
                        device: sensor.device.clone(),
                        sensor: sensor.label.clone(),
                        chip: sensor.chip.clone(),
                        input: sensor.name.clone(),
                        kind: kind.clone(),
                        value: value as f64 * factor,
                    }));
                }
            }
        }
        (temperatures, others)
    }

    /// Returns the names of all devices and sensors, including sensors that do not measure temperature.
    fn named(&self) -> Arc<Named> {
        Arc::clone(&self.named)
    }
}

/// A device with sensors.
struct Chip {
    folder: PathBuf,
    /// The device's own name, from its file `name`.
    device: String,
    /// The name that node_exporter gives to the device. Each device has a different name.
    name: String,
}

/// Finds the files of the sensors, such as `hwmon*/temp*_input`, and the names of devices and sensors.
fn find(class: &Path) -> (Vec<Sensor>, Named) {
    let mut found = Vec::new();
    let mut named = Named::default();
    for chip in chips(class) {
        let files = sensor_files(&chip.folder);
        if !files.is_empty() && !clean(&chip.device).is_empty() {
            named.chips.push(SensorChip {
                chip: chip.name.clone(),
                device: clean(&chip.device),
            });
        }
        let mut labels: Vec<_> = files
            .iter()
            .filter(|((.., what), _)| what == "label")
            .filter_map(|((kind, number, _), file)| {
                let label = text(file).filter(|label| !label.is_empty())?;
                Some(((kind.clone(), *number), label))
            })
            .collect();
        labels.sort();
        for ((kind, number), label) in &labels {
            named.labels.push(SensorLabel {
                chip: chip.name.clone(),
                sensor: format!("{kind}{number}"),
                label: label.clone(),
            });
        }
        let labels: HashMap<_, _> = labels.into_iter().collect();
        for ((kind, number, what), input) in &files {
            let other = OTHERS
                .iter()
                .find(|(of_kind, of_what, ..)| of_kind == kind && of_what == what);
            let measures = match (kind.as_str(), what.as_str(), other) {
                ("temp", "input", _) => {
                    let critical = files.get(&(kind.clone(), *number, "crit".to_owned()));
                    let critical = critical.and_then(|file| celsius(&text(file)?));
                    let critical = critical.map(rounded).filter(|critical| *critical > 0.0);
                    Measures::Temperature { critical }
                }
                (_, _, Some((.., published, factor))) => {
                    Measures::Other(published.clone(), *factor)
                }
                _ => continue,
            };
            let name = format!("{kind}{number}");
            let label = labels.get(&(kind.clone(), *number)).cloned();
            // Temperatures come first, so that the limit keeps them.
            let is_other = matches!(measures, Measures::Other(..));
            let order = (chip.device.clone(), chip.folder.clone(), kind.clone());
            found.push((
                (is_other, order, *number, what.clone()),
                Sensor {
                    device: chip.device.clone(),
                    label: label.unwrap_or_else(|| name.clone()),
                    chip: chip.name.clone(),
                    name,
                    measures,
                    input: input.clone(),
                },
            ));
        }
    }
    named.labels.truncate(MAX_LABELS);
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found.truncate(MAX_SENSORS);
    (found.into_iter().map(|(_, sensor)| sensor).collect(), named)
}

/// Returns the files of a device's sensors, by kind, number and content (`input`, `label`, `crit` …). Old drivers create these
/// files in the folder `device`, and not in the hwmon folder.
fn sensor_files(folder: &Path) -> HashMap<(String, u32, String), PathBuf> {
    let mut files = HashMap::new();
    // If both folders have a file, the file in the hwmon folder counts.
    for folder in [folder.join("device"), folder.to_owned()] {
        for file in entries(&folder) {
            let name = file.file_name().and_then(|name| name.to_str());
            if let Some(sensor) = name.and_then(sensor_file) {
                files.insert(sensor, file);
            }
        }
    }
    files
}

/// Splits a file name such as `temp1_input` into the kind of sensor, its number and the file's content.
fn sensor_file(name: &str) -> Option<(String, u32, String)> {
    let end = name.find(|one: char| one.is_ascii_digit())?;
    let (kind, rest) = name.split_at(end);
    if !KINDS.contains(&kind) {
        return None;
    }
    let digits = rest.find(|one: char| !one.is_ascii_digit());
    let (number, what) = rest.split_at(digits.unwrap_or(rest.len()));
    let what = match what {
        "" => "",
        what => what.strip_prefix('_')?,
    };
    Some((kind.to_owned(), number.parse().ok()?, what.to_owned()))
}

/// Returns the devices, each with a unique name, as in node_exporter. Devices with the same parent device would have the same
/// name, so their own name is appended. If the own name does not make the name unique, the hwmon number is appended instead.
fn chips(class: &Path) -> Vec<Chip> {
    let mut folders = entries(class);
    folders.sort();
    folders.truncate(MAX_CHIPS);
    let mut chips: Vec<Chip> = folders
        .into_iter()
        .map(|folder| {
            let device = text(&folder.join("name")).unwrap_or_default();
            let name = chip(&folder, &device);
            Chip {
                folder,
                device,
                name,
            }
        })
        .collect();
    let with_device = |chip: &Chip| match clean(&chip.device) {
        device if device.is_empty() => chip.name.clone(),
        device => format!("{}_{device}", chip.name),
    };
    let mut shared = HashMap::<String, usize>::new();
    let mut as_longer = HashMap::<String, usize>::new();
    for chip in &chips {
        *shared.entry(chip.name.clone()).or_default() += 1;
        *as_longer.entry(with_device(chip)).or_default() += 1;
    }
    for chip in chips.iter_mut().filter(|chip| shared[&chip.name] > 1) {
        let longer = with_device(chip);
        let own = as_longer[&longer] == 1 && longer != chip.name && !shared.contains_key(&longer);
        chip.name = if own {
            longer
        } else {
            format!("{}_{}", chip.name, clean(&file_name(&chip.folder)))
        };
    }
    // Appends the hwmon number to any name that is still not unique.
    let mut known = HashMap::<String, usize>::new();
    for chip in &mut chips {
        let mut name = chip.name.clone();
        while known.contains_key(&name) {
            name = format!("{name}_{}", clean(&file_name(&chip.folder)));
        }
        known.insert(name.clone(), 1);
        chip.name = name;
    }
    chips
}

/// Returns the name that node_exporter gives to a device: the final two parts of the device's path. If the device has no path,
/// the name is the device's own name. Without an own name, it is the hwmon number, which can change with each boot.
fn chip(folder: &Path, name: &str) -> String {
    let part = |path: Option<&Path>| path.map(|path| clean(&file_name(path)));
    let by_path = fs::canonicalize(folder.join("device")).ok().map(|device| {
        let parts = [part(device.parent()), part(Some(&device))];
        let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("_")
    });
    let by_number = || clean(&file_name(folder));
    let named = by_path.into_iter().chain([clean(name)]);
    named
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_else(by_number)
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Replaces each character that is not allowed in the name of a metric by `_`.
fn clean(text: &str) -> String {
    let allowed = |one: char| match one.to_ascii_lowercase() {
        one @ ('a'..='z' | '0'..='9' | ':' | '_') => one,
        _ => '_',
    };
    let text: String = text.chars().map(allowed).collect();
    text.trim_matches('_').to_owned()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Converts a text in thousandths of a degree to degrees. Returns none if the value is not plausible.
fn celsius(text: &str) -> Option<f64> {
    let degrees = text.parse::<i64>().ok()? as f64 / 1000.0;
    PLAUSIBLE.contains(&degrees).then_some(degrees)
}

/// Rounds a temperature to a tenth of a degree.
fn rounded(degrees: f64) -> f64 {
    figure(degrees.abs(), 1).copysign(degrees) + 0.0
}

fn text(file: &Path) -> Option<String> {
    let text = fs::read(file).ok()?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use std::path::Path;

    use super::{PLAUSIBLE, Sensors, celsius};
    use crate::model::{SensorChip, SensorKind, SensorLabel, Temperature};

    #[test]
    fn every_working_temperature_sensor_is_read() {
        let class = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = class.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("hwmon1/name", "coretemp\n");
        write("hwmon1/temp10_input", "41000\n");
        write("hwmon1/temp2_input", "45500\n");
        write("hwmon1/temp2_label", "Core 0\n");
        write("hwmon1/temp2_crit", "100000\n");
        write("hwmon1/temp3_input", "-128000\n");
        write("hwmon1/temp4_input", "nonsense\n");
        write("hwmon1/tempx_input", "1000\n");
        write("hwmon1/fan1_input", "1200\n");
        write("hwmon1/fan2_input", "broken\n");
        write("hwmon1/in0_input", "792\n");
        write("hwmon1/in0_label", "Vcore\n");
        write("hwmon1/power1_input", "50000000\n");
        write("hwmon1/power1_average", "45500000\n");
        write("hwmon0/name", "nvme\n");
        write("hwmon0/temp1_input", "-5250\n");
        write("hwmon0/temp1_crit", "0\n");
        // Another device has the same name. The paths of the two devices differ.
        write("devices/pci0/nvme/nvme1/model", "x\n");
        write("hwmon2/name", "nvme\n");
        write("hwmon2/temp1_input", "30000\n");
        symlink(
            class.path().join("devices/pci0/nvme/nvme1"),
            class.path().join("hwmon2/device"),
        )
        .unwrap();
        let sensor =
            |device: &str, sensor: &str, exact: f64, critical, names: [&str; 2]| Temperature {
                device: device.to_owned(),
                sensor: sensor.to_owned(),
                chip: names[0].to_owned(),
                input: names[1].to_owned(),
                celsius: super::rounded(exact),
                critical,
                exact,
            };
        let expected = [
            sensor(
                "coretemp",
                "Core 0",
                45.5,
                Some(100.0),
                ["coretemp", "temp2"],
            ),
            sensor("coretemp", "temp10", 41.0, None, ["coretemp", "temp10"]),
            sensor("nvme", "temp1", -5.25, None, ["nvme", "temp1"]),
            sensor("nvme", "temp1", 30.0, None, ["nvme_nvme1", "temp1"]),
        ];
        let mut sensors = Sensors::new(class.path());
        let (temperatures, others) = sensors.shown();
        assert_eq!(temperatures, expected);
        let others: Vec<_> = others
            .iter()
            .map(|one| {
                (
                    &*one.device,
                    &*one.input,
                    &*one.sensor,
                    &one.kind,
                    one.value,
                )
            })
            .collect();
        let expected = [
            ("coretemp", "fan1", "fan1", &SensorKind::Fan, 1200.0),
            ("coretemp", "in0", "Vcore", &SensorKind::Voltage, 0.792),
            (
                "coretemp",
                "power1",
                "power1",
                &SensorKind::AveragePower,
                45.5,
            ),
            ("coretemp", "power1", "power1", &SensorKind::Power, 50.0),
        ];
        assert_eq!(others, expected);
        write("hwmon1/temp10_input", "43000\n");
        assert_eq!(sensors.shown().0[1].celsius, 43.0);
        let none = Sensors::new(&class.path().join("none")).shown();
        assert!(none.0.is_empty() && none.1.is_empty());
    }

    /// Unpacks a directory tree from node_exporter's archive of test data.
    fn unpack(archive: &str, into: &Path) {
        let mut lines = archive.lines();
        while let Some(line) = lines.next() {
            if let Some(folder) = line.strip_prefix("Directory: ") {
                fs::create_dir_all(into.join(folder)).unwrap();
            } else if let Some(path) = line.strip_prefix("Path: ") {
                let path = into.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let next = lines.next().unwrap();
                if let Some(target) = next.strip_prefix("SymlinkTo: ") {
                    symlink(target, path).unwrap();
                } else {
                    let count: usize = next.strip_prefix("Lines: ").unwrap().parse().unwrap();
                    let text: Vec<_> = lines.by_ref().take(count).collect();
                    fs::write(path, text.join("\n").replace("EOF", "") + "\n").unwrap();
                }
            }
        }
    }

    #[test]
    fn devices_have_the_same_names_as_in_node_exporter() {
        let tree = tempfile::tempdir().unwrap();
        let archive = include_str!("../../../tests/fixtures/node-exporter-hwmon.ttar");
        unpack(archive, tree.path());
        let mut sensors = Sensors::new(&tree.path().join("sys/class/hwmon"));
        let expected = include_str!("../../../tests/fixtures/node-exporter-hwmon.txt");
        let lines = |prefix: &str| -> Vec<String> {
            let lines = expected
                .lines()
                .filter_map(|line| line.strip_prefix(prefix));
            lines.map(str::to_owned).collect()
        };
        let (temperatures, others) = sensors.shown();
        for (kind, prefix) in [
            (SensorKind::Fan, "node_hwmon_fan_rpm"),
            (SensorKind::Voltage, "node_hwmon_in_volts"),
        ] {
            let of_kind = others.iter().filter(|one| one.kind == kind);
            let of_kind = of_kind.map(|one| {
                format!(
                    "{{chip=\"{}\",sensor=\"{}\"}} {}",
                    one.chip, one.input, one.value
                )
            });
            let mut of_kind: Vec<String> = of_kind.collect();
            of_kind.sort();
            assert_eq!(of_kind, lines(prefix));
        }
        let temperatures = temperatures.into_iter().map(|one| {
            let Temperature {
                chip, input, exact, ..
            } = one;
            format!("{{chip=\"{chip}\",sensor=\"{input}\"}} {exact}")
        });
        let mut temperatures: Vec<String> = temperatures.collect();
        temperatures.sort();
        assert_eq!(temperatures, lines("node_hwmon_temp_celsius"));
        let named = sensors.named();
        let chips = named.chips.iter().map(|SensorChip { chip, device }| {
            format!("{{chip=\"{chip}\",chip_name=\"{device}\"}} 1")
        });
        let mut chips: Vec<String> = chips.collect();
        chips.sort();
        assert_eq!(chips, lines("node_hwmon_chip_names"));
        let labels = named.labels.iter().map(|one| {
            let SensorLabel {
                chip,
                sensor,
                label,
            } = one;
            format!("{{chip=\"{chip}\",label=\"{label}\",sensor=\"{sensor}\"}} 1")
        });
        let mut labels: Vec<String> = labels.collect();
        labels.sort();
        assert_eq!(labels, lines("node_hwmon_sensor_label"));
    }

    #[test]
    fn every_sensor_has_a_unique_name() {
        let tree = tempfile::tempdir().unwrap();
        let class = tree.path().join("class");
        let make = |parent: &str, number: u32, name: &[u8]| {
            let folder = class.join(format!("hwmon{number}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), name).unwrap();
            for input in 1..=2 {
                fs::write(folder.join(format!("temp{input}_input")), " 33000\n").unwrap();
                fs::write(folder.join(format!("temp{input}_label")), b"\xe9\n").unwrap();
            }
            let parent = tree.path().join("devices").join(parent);
            fs::create_dir_all(&parent).unwrap();
            symlink(parent, folder.join("device")).unwrap();
        };
        // One parent with three pairs of devices: same name, no usable name, and names that are equal after `clean`.
        make("platform/a", 0, b"x");
        make("platform/a", 1, b"x");
        make("platform/a", 2, b"");
        make("platform/a", 3, b"\xff");
        make("platform/a", 4, b"y\xe8");
        make("platform/a", 5, b"y\xe9");
        make("platform/a", 6, b"own");
        // Other parents, whose names equal the longer name of a device above.
        make("platform/a_own", 7, b"own");
        make("platform/a-own", 8, b"own");
        let read = Sensors::new(&class).shown().0;
        assert_eq!(read.len(), 18);
        let mut names: Vec<_> = read.iter().map(|one| (&one.chip, &one.input)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 18, "{read:#?}");
    }

    proptest! {
        #[test]
        fn a_parsed_temperature_is_always_plausible(text in "\\PC*|-?[0-9]{1,20}", thousandths in -70_000..260_000_i64) {
            for text in [text, format!("{thousandths}")] {
                prop_assert!(celsius(&text).is_none_or(|celsius| PLAUSIBLE.contains(&celsius)));
            }
        }
    }
}
