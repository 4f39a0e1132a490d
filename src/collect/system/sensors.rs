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
/// The drivers whose sensors wake a sleeping GPU when they are read.
pub(in crate::collect) const GPU_DRIVERS: [&str; 4] = ["amdgpu", "i915", "nouveau", "xe"];
/// Plausible temperatures, in degrees Celsius. A sensor with another value is not connected or is broken.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = -60.0..=250.0;
/// The kernel's names for kinds of sensors. In a file name, the number of the sensor follows such a name, as in `temp1_input`.
pub(in crate::collect) const KINDS: [&str; 14] = [
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
    /// The file that tells whether the device sleeps. Only for GPUs.
    status: Option<PathBuf>,
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
            if sensor.is_asleep() {
                continue;
            }
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

impl Sensor {
    fn is_asleep(&self) -> bool {
        let status = self.status.as_ref().and_then(|file| text(file));
        matches!(status.as_deref(), Some("suspended" | "suspending"))
    }
}

/// A device with sensors.
pub(in crate::collect) struct Chip {
    pub(in crate::collect) folder: PathBuf,
    /// The device's own name, from its file `name`.
    pub(in crate::collect) device: String,
    /// The name that node_exporter gives to the device. Each device has a different name.
    pub(in crate::collect) name: String,
}

/// Finds the files of the sensors, such as `hwmon*/temp*_input`, and the names of devices and sensors.
fn find(class: &Path) -> (Vec<Sensor>, Named) {
    let mut found = Vec::new();
    let mut named = Named::default();
    for chip in chips(class) {
        let files = sensor_files(&chip.folder);
        let is_gpu = GPU_DRIVERS.contains(&chip.device.as_str());
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
                    status: is_gpu.then(|| chip.folder.join("device/power/runtime_status")),
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
pub(in crate::collect) fn chips(class: &Path) -> Vec<Chip> {
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
pub(in crate::collect) fn clean(text: &str) -> String {
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
mod tests;
