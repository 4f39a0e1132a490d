//! Reads batteries, mains adapters and other power supplies.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::family::{MetricFamily, Round};
use crate::model::PowerSupply;

/// How often the list of power supplies is read again.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of power supplies.
const MAX_SUPPLIES: usize = 64;

/// The metric family. Source: `/sys/class/power_supply`.
pub(super) struct PowerSupplies {
    class: PathBuf,
    /// The power supplies with the values that do not change.
    found: Vec<(PathBuf, PowerSupply)>,
    /// When the list was read. None before the first reading.
    looked: Option<Instant>,
}

impl MetricFamily for PowerSupplies {
    const NAME: &'static str = "power_supplies";

    type Figures = Vec<PowerSupply>;
    /// The family never fails: it leaves out a power supply that cannot be read.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Vec<PowerSupply>, Infallible> {
        if self.looked.is_none_or(|at| at.elapsed() >= RESCAN_INTERVAL) {
            self.found = find(&self.class);
            self.looked = Some(Instant::now());
        }
        let supplies = self.found.iter().filter_map(|(uevent, supply)| {
            let text = fs::read(uevent).ok()?;
            Some(parse(supply, &String::from_utf8_lossy(&text)))
        });
        Ok(supplies.collect())
    }

    fn publish(&mut self, supplies: Vec<PowerSupply>, round: &mut Round<'_>) {
        round.metrics.power_supplies = supplies;
    }
}

impl PowerSupplies {
    pub(super) fn new(class: &Path) -> Self {
        Self {
            class: class.to_owned(),
            found: Vec::new(),
            looked: None,
        }
    }
}

/// Returns all power supplies, sorted by name, with the values that do not change, and the file that has all other values.
fn find(class: &Path) -> Vec<(PathBuf, PowerSupply)> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    let supplies = folders.into_iter().filter_map(|folder| {
        let text = |file: &str| {
            let text = fs::read(folder.join(file)).ok()?;
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let supply = PowerSupply {
            name: folder.file_name()?.to_string_lossy().into_owned(),
            kind: text("type")?,
            technology: text("technology"),
            manufacturer: text("manufacturer"),
            model_name: text("model_name"),
            serial_number: text("serial_number"),
            ..PowerSupply::default()
        };
        Some((folder.join("uevent"), supply))
    });
    supplies.take(MAX_SUPPLIES).collect()
}

/// Parses lines such as `POWER_SUPPLY_VOLTAGE_NOW=11660000`. The kernel's units are millionths of V, A, W, Ah and Wh, tenths of a
/// degree, and seconds. They are in the kernel's `Documentation/ABI/testing/sysfs-class-power`.
fn parse(supply: &PowerSupply, uevent: &str) -> PowerSupply {
    let value = |key: &str| {
        let of = |line: &'_ str| {
            let line = line.strip_prefix("POWER_SUPPLY_")?;
            let value = line.strip_prefix(key)?.strip_prefix('=')?.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        uevent.lines().find_map(of)
    };
    let number = |key: &str| {
        value(key)?
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
    };
    let millionths = |key: &str| Some(number(key)? / 1e6);
    let count = |key: &str| value(key)?.parse().ok();
    let switch = |key: &str| Some(number(key)? > 0.0);
    PowerSupply {
        online: switch("ONLINE"),
        present: switch("PRESENT"),
        status: value("STATUS"),
        capacity_percent: number("CAPACITY"),
        capacity_level: value("CAPACITY_LEVEL"),
        cycle_count: count("CYCLE_COUNT"),
        energy: millionths("ENERGY_NOW"),
        energy_full: millionths("ENERGY_FULL"),
        energy_full_design: millionths("ENERGY_FULL_DESIGN"),
        charge: millionths("CHARGE_NOW"),
        charge_full: millionths("CHARGE_FULL"),
        charge_full_design: millionths("CHARGE_FULL_DESIGN"),
        power: millionths("POWER_NOW"),
        current: millionths("CURRENT_NOW"),
        voltage: millionths("VOLTAGE_NOW"),
        voltage_min_design: millionths("VOLTAGE_MIN_DESIGN"),
        celsius: number("TEMP").map(|tenths| tenths / 10.0),
        seconds_to_empty: count("TIME_TO_EMPTY_NOW").or_else(|| count("TIME_TO_EMPTY_AVG")),
        seconds_to_full: count("TIME_TO_FULL_NOW").or_else(|| count("TIME_TO_FULL_AVG")),
        ..supply.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::{PowerSupplies, find, parse};
    use crate::collect::system::containers::ContainerNames;
    use crate::collect::system::family::{MetricFamily as _, Round};
    use crate::model::{PowerSupply, SystemMetrics};

    #[test]
    fn the_values_have_the_units_of_the_snapshot() {
        let class = TempDir::new().unwrap();
        let battery = class.path().join("BAT0");
        let mains = class.path().join("AC");
        for (folder, kind, uevent) in [
            (
                &battery,
                "Battery\n",
                "POWER_SUPPLY_NAME=BAT0\nPOWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_PRESENT=1\n\
                POWER_SUPPLY_CYCLE_COUNT=7\nPOWER_SUPPLY_VOLTAGE_NOW=11660000\nPOWER_SUPPLY_POWER_NOW=5002000\n\
                POWER_SUPPLY_ENERGY_NOW=36580000\nPOWER_SUPPLY_CAPACITY=81\nPOWER_SUPPLY_TEMP=-45\n\
                POWER_SUPPLY_TIME_TO_EMPTY_NOW=900\nPOWER_SUPPLY_ENERGY_FULL=odd\n",
            ),
            (
                &mains,
                "Mains\n",
                "POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_ONLINE=0\n",
            ),
        ] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("type"), kind).unwrap();
            fs::write(folder.join("uevent"), uevent).unwrap();
        }
        fs::write(battery.join("model_name"), b"45N1\xff\n").unwrap();
        // A folder without a type is left out.
        fs::create_dir(class.path().join("odd")).unwrap();
        let (names, last) = (ContainerNames::default(), SystemMetrics::default());
        let round = Round::new(&names, &last, Duration::ZERO);
        let mut supplies = PowerSupplies::new(class.path());
        let found = supplies.read(&round).unwrap();
        let expected = PowerSupply {
            name: "BAT0".to_owned(),
            kind: "Battery".to_owned(),
            status: Some("Discharging".to_owned()),
            present: Some(true),
            cycle_count: Some(7),
            voltage: Some(11.66),
            power: Some(5.002),
            energy: Some(36.58),
            capacity_percent: Some(81.0),
            celsius: Some(-4.5),
            seconds_to_empty: Some(900),
            model_name: Some("45N1\u{fffd}".to_owned()),
            ..PowerSupply::default()
        };
        assert_eq!(found.len(), 2);
        assert_eq!(
            (&*found[0].name, &*found[0].kind, found[0].online),
            ("AC", "Mains", Some(false))
        );
        assert_eq!(found[1], expected);
        // A battery that is removed is left out at once.
        fs::remove_file(battery.join("uevent")).unwrap();
        assert_eq!(supplies.read(&round).unwrap().len(), 1);
        assert!(find(&class.path().join("none")).is_empty());
    }

    #[test]
    fn fuzz_power_supplies() {
        let seed = b"POWER_SUPPLY_STATUS=Full\nPOWER_SUPPLY_CAPACITY=81\nPOWER_SUPPLY_TEMP=-45\nPOWER_SUPPLY_ENERGY_NOW=5\n";
        crate::fuzzing::run("power_supplies", &[seed], |bytes| {
            let parsed = parse(&PowerSupply::default(), &String::from_utf8_lossy(bytes));
            serde_json::to_string(&parsed).unwrap();
        });
    }
}
