//! The host's temperature sensors.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::family::{MetricFamily, Round};
use crate::model::{SensorChip, SensorLabel, Sensors as Named, Temperature, figure};

/// How often it is looked which sensors there are.
const LOOK_ANEW: Duration = Duration::from_secs(60);
/// The most devices and sensors that are read.
const MOST_CHIPS: usize = 256;
const MOST: usize = 256;
/// The most labels that are published, those of sensors that measure something else included.
const MOST_LABELS: usize = 1024;
/// What no sensor of a host in use shows, in degrees Celsius: it is not connected, or broken.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = -60.0..=250.0;
/// What the kernel's names of sensors begin with, before their number.
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

/// The sensors that were found.
pub(super) struct Sensors {
    /// Where the kernel lists devices with sensors: `/sys/class/hwmon`.
    class: PathBuf,
    found: Vec<Sensor>,
    named: Arc<Named>,
    looked: Option<Instant>,
}

struct Sensor {
    device: String,
    label: String,
    chip: String,
    /// Its name for the kernel, e.g. `temp1`.
    name: String,
    input: PathBuf,
    critical: Option<f64>,
}

impl MetricFamily for Sensors {
    const NAME: &'static str = "temperatures";

    type Figures = Vec<Temperature>;
    /// A sensor that cannot be read is left out.
    type Error = Infallible;

    /// Source: `/sys/class/hwmon`.
    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<Temperature>, Infallible> {
        Ok(self.shown())
    }

    fn publish(&mut self, temperatures: Vec<Temperature>, round: &mut Round<'_>) {
        round.metrics.temperatures = temperatures;
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

    /// What they show now, by device and sensor; one that shows nothing is left out.
    fn shown(&mut self) -> Vec<Temperature> {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_ANEW) {
            let (found, named) = find(&self.class);
            self.found = found;
            self.named = Arc::new(named);
            self.looked = Some(Instant::now());
        }
        let shown = self.found.iter().filter_map(|sensor| {
            let exact = celsius(&text(&sensor.input)?)?;
            Some(Temperature {
                device: sensor.device.clone(),
                sensor: sensor.label.clone(),
                chip: sensor.chip.clone(),
                input: sensor.name.clone(),
                celsius: rounded(exact),
                critical: sensor.critical,
                exact,
            })
        });
        shown.collect()
    }

    /// What devices and sensors are called, those that measure something else included.
    fn named(&self) -> Arc<Named> {
        Arc::clone(&self.named)
    }
}

/// A folder of the class.
struct Chip {
    folder: PathBuf,
    /// What the device calls itself.
    device: String,
    /// What node_exporter calls it: no two have the same.
    name: String,
}

/// `hwmon*/temp*_input`, with the device's name and the sensor's label beside it.
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
        let inputs = files
            .iter()
            .filter(|((kind, _, what), _)| kind == "temp" && what == "input");
        for ((kind, number, _), input) in inputs {
            let name = format!("{kind}{number}");
            let label = labels.get(&(kind.clone(), *number)).cloned();
            let critical = files.get(&(kind.clone(), *number, "crit".to_owned()));
            let critical = critical.and_then(|file| celsius(&text(file)?));
            found.push((
                (chip.device.clone(), chip.folder.clone(), *number),
                Sensor {
                    device: chip.device.clone(),
                    label: label.unwrap_or_else(|| name.clone()),
                    chip: chip.name.clone(),
                    name,
                    critical: critical.map(rounded).filter(|critical| *critical > 0.0),
                    input: input.clone(),
                },
            ));
        }
    }
    named.labels.truncate(MOST_LABELS);
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found.truncate(MOST);
    (found.into_iter().map(|(_, sensor)| sensor).collect(), named)
}

/// The files of a device's sensors by kind, number and what they say. Old drivers keep them in the device's own folder.
fn sensor_files(folder: &Path) -> HashMap<(String, u32, String), PathBuf> {
    let mut files = HashMap::new();
    // What is beside the name counts where both have it.
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

/// `temp1_input`: the kind of sensor, its number and what the file says of it.
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

/// The devices, each with a name of its own. Several may have one parent device, after which they would have the same:
/// then what they call themselves tells them apart, or else their number, as in node_exporter.
fn chips(class: &Path) -> Vec<Chip> {
    let mut folders = entries(class);
    folders.sort();
    folders.truncate(MOST_CHIPS);
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
    // Whatever else they are called.
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

/// What node_exporter calls the device: by the last two parts of its path, as numbers of hwmon depend on who came first; by
/// its name where it has no device; else by that number.
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

/// With nothing but what may be in the name of a metric.
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

/// Thousandths of a degree; none for what cannot be.
fn celsius(text: &str) -> Option<f64> {
    let degrees = text.parse::<i64>().ok()? as f64 / 1000.0;
    PLAUSIBLE.contains(&degrees).then_some(degrees)
}

/// As it is published: to a tenth of a degree.
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
    use crate::model::{SensorChip, SensorLabel, Temperature};

    #[test]
    fn every_sensor_that_works_is_read() {
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
        write("hwmon0/name", "nvme\n");
        write("hwmon0/temp1_input", "-5250\n");
        write("hwmon0/temp1_crit", "0\n");
        // Another of the same name: where it is tells them apart.
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
        assert_eq!(sensors.shown(), expected);
        write("hwmon1/temp10_input", "43000\n");
        assert_eq!(sensors.shown()[1].celsius, 43.0);
        assert!(Sensors::new(&class.path().join("none")).shown().is_empty());
    }

    /// A tree as an archive of node_exporter's fixtures keeps it.
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
    fn devices_are_called_as_node_exporter_calls_them() {
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
        let temperatures = sensors.shown().into_iter().map(|one| {
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
    fn no_two_sensors_look_the_same_whatever_they_are_called() {
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
        // Of one parent: two of a name, two that have none, and two whose names are equal once they are clean.
        make("platform/a", 0, b"x");
        make("platform/a", 1, b"x");
        make("platform/a", 2, b"");
        make("platform/a", 3, b"\xff");
        make("platform/a", 4, b"y\xe8");
        make("platform/a", 5, b"y\xe9");
        make("platform/a", 6, b"own");
        // Of another, which is called as one of those is then.
        make("platform/a_own", 7, b"own");
        make("platform/a-own", 8, b"own");
        let read = Sensors::new(&class).shown();
        assert_eq!(read.len(), 18);
        let mut names: Vec<_> = read.iter().map(|one| (&one.chip, &one.input)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 18, "{read:#?}");
    }

    proptest! {
        #[test]
        fn no_text_is_a_temperature_that_cannot_be(text in "\\PC*|-?[0-9]{1,20}", thousandths in -70_000..260_000_i64) {
            for text in [text, format!("{thousandths}")] {
                prop_assert!(celsius(&text).is_none_or(|celsius| PLAUSIBLE.contains(&celsius)));
            }
        }
    }
}
