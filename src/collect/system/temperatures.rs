//! The host's temperature sensors.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::model::{SensorNames, Temperature, figure};

/// How often it is looked which sensors there are.
const LOOK_ANEW: Duration = Duration::from_secs(60);
/// The most sensors that are read.
const MOST: usize = 256;
/// What no sensor of a host in use shows, in degrees Celsius: it is not connected, or broken.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = -60.0..=250.0;

/// The sensors that were found.
pub(super) struct Sensors {
    /// Where the kernel lists devices with sensors: `/sys/class/hwmon`.
    class: PathBuf,
    found: Vec<Sensor>,
    looked: Option<Instant>,
}

struct Sensor {
    device: String,
    label: String,
    input: PathBuf,
    critical: Option<f64>,
    names: SensorNames,
}

impl Sensors {
    pub(super) fn new(class: &Path) -> Self {
        Self {
            class: class.to_owned(),
            found: Vec::new(),
            looked: None,
        }
    }

    /// What they show now, by device and sensor; one that shows nothing is left out.
    pub(super) fn read(&mut self) -> Vec<Temperature> {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_ANEW) {
            self.found = find(&self.class);
            self.looked = Some(Instant::now());
        }
        let shown = self.found.iter().filter_map(|sensor| {
            Some(Temperature {
                device: sensor.device.clone(),
                sensor: sensor.label.clone(),
                celsius: celsius(&text(&sensor.input)?)?,
                critical: sensor.critical,
                exact: sensor.names.clone(),
            })
        });
        shown.collect()
    }
}

/// `hwmon*/temp*_input`, with the device's name and the sensor's label beside it.
fn find(class: &Path) -> Vec<Sensor> {
    let mut found = Vec::new();
    for folder in entries(class) {
        let device = text(&folder.join("name")).unwrap_or_default();
        let chip = chip(&folder, &device);
        for input in entries(&folder) {
            let file = input.file_name().and_then(|name| name.to_str());
            let number = file
                .and_then(|name| name.strip_prefix("temp")?.strip_suffix("_input"))
                .filter(|number| number.bytes().all(|digit| digit.is_ascii_digit()));
            let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
                continue;
            };
            let beside = |what: &str| folder.join(format!("temp{number}_{what}"));
            let label = text(&beside("label")).filter(|label| !label.is_empty());
            found.push((
                (device.clone(), folder.clone(), number),
                Sensor {
                    device: device.clone(),
                    label: label.unwrap_or_else(|| format!("temp{number}")),
                    names: SensorNames {
                        chip: chip.clone(),
                        sensor: format!("temp{number}"),
                    },
                    critical: text(&beside("crit"))
                        .and_then(|text| celsius(&text))
                        .filter(|critical| *critical > 0.0),
                    input,
                },
            ));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found.truncate(MOST);
    found.into_iter().map(|(_, sensor)| sensor).collect()
}

/// What node_exporter calls the device: by the last two parts of its path, as numbers of hwmon depend on who came first; by
/// its name where it has no device; else by that number.
fn chip(folder: &Path, name: &str) -> String {
    let clean = |text: &str| {
        let allowed = |one: char| match one.to_ascii_lowercase() {
            one @ ('a'..='z' | '0'..='9' | ':' | '_') => one,
            _ => '_',
        };
        let text: String = text.chars().map(allowed).collect();
        text.trim_matches('_').to_owned()
    };
    let part = |path: Option<&Path>| clean(&path?.file_name()?.to_string_lossy()).into();
    let by_path = fs::canonicalize(folder.join("device")).ok().map(|device| {
        let parts: [Option<String>; 2] = [part(device.parent()), part(Some(&device))];
        let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("_")
    });
    let by_number = || part(Some(folder)).unwrap_or_default();
    let named = by_path.into_iter().chain([clean(name)]);
    named
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_else(by_number)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Thousandths of a degree; none for what cannot be.
fn celsius(text: &str) -> Option<f64> {
    let degrees = text.parse::<i64>().ok()? as f64 / 1000.0;
    PLAUSIBLE
        .contains(&degrees)
        .then(|| figure(degrees.abs(), 1).copysign(degrees) + 0.0)
}

fn text(file: &Path) -> Option<String> {
    let text = fs::read(file).ok()?;
    Some(String::from_utf8_lossy(&text).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::{PLAUSIBLE, Sensors, celsius};
    use crate::model::{SensorNames, Temperature};

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
            |device: &str, sensor: &str, celsius, critical, names: [&str; 2]| Temperature {
                device: device.to_owned(),
                sensor: sensor.to_owned(),
                celsius,
                critical,
                exact: SensorNames {
                    chip: names[0].to_owned(),
                    sensor: names[1].to_owned(),
                },
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
            sensor("nvme", "temp1", -5.3, None, ["nvme", "temp1"]),
            sensor("nvme", "temp1", 30.0, None, ["nvme_nvme1", "temp1"]),
        ];
        let mut sensors = Sensors::new(class.path());
        assert_eq!(sensors.read(), expected);
        write("hwmon1/temp10_input", "43000\n");
        assert_eq!(sensors.read()[1].celsius, 43.0);
        assert!(Sensors::new(&class.path().join("none")).read().is_empty());
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
