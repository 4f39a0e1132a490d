//! Reads batteries, mains adapters and other power supplies: more values than the snapshot has.

use super::family::{Family, FamilyError, Roots, Rows, names_in, read_file};

/// Maximum number of power supplies.
const MAX_SUPPLIES: usize = 64;
/// The files whose numbers have no smaller unit, so they are published unchanged.
const WHOLE: [&str; 10] = [
    "authentic",
    "calibrate",
    "capacity",
    "capacity_alert_max",
    "capacity_alert_min",
    "cycle_count",
    "online",
    "present",
    "time_to_empty_now",
    "time_to_full_now",
];
/// The values in millionths of V, A, W, Ah or Wh.
const MILLIONTHS: [&str; 31] = [
    "charge_control_limit",
    "charge_control_limit_max",
    "charge_counter",
    "charge_empty",
    "charge_empty_design",
    "charge_full",
    "charge_full_design",
    "charge_now",
    "charge_term_current",
    "constant_charge_current",
    "constant_charge_current_max",
    "constant_charge_voltage",
    "constant_charge_voltage_max",
    "current_boot",
    "current_max",
    "current_now",
    "energy_empty",
    "energy_empty_design",
    "energy_full",
    "energy_full_design",
    "energy_now",
    "input_current_limit",
    "power_now",
    "precharge_current",
    "voltage_boot",
    "voltage_max",
    "voltage_max_design",
    "voltage_min",
    "voltage_min_design",
    "voltage_now",
    "voltage_ocv",
];
/// The values in tenths of a degree.
const TENTHS: [&str; 8] = [
    "temp",
    "temp_alert_max",
    "temp_alert_min",
    "temp_ambient",
    "temp_ambient_max",
    "temp_ambient_min",
    "temp_max",
    "temp_min",
];

/// The family. Source: `/sys/class/power_supply`. The files are described in the kernel's `Documentation/ABI/testing/sysfs-class-power`.
pub(super) struct PowerSupply(pub(super) Roots);

impl Family for PowerSupply {
    fn name(&self) -> &'static str {
        "powersupplyclass"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("class/power_supply");
        let names = names_in(&folder)?;
        for name in names.iter().take(MAX_SUPPLIES) {
            // This file has all values, so that a power supply costs one reading. A power supply can be removed meanwhile.
            let Ok(values) = read_file(&folder.join(name).join("uevent")) else {
                continue;
            };
            let row = rows.add([("power_supply", name)]);
            for line in values.lines() {
                if let Some((property, value)) = parse(line) {
                    row.figure(property, value);
                }
            }
        }
        Ok(())
    }
}

/// Parses a line such as `POWER_SUPPLY_VOLTAGE_NOW=11660000`. Returns none for a value that is not a number.
fn parse(line: &str) -> Option<(&'static str, f64)> {
    let (key, value) = line.strip_prefix("POWER_SUPPLY_")?.split_once('=')?;
    let value: i64 = value.trim().parse().ok()?;
    let value = value as f64;
    let is_key = |property: &&&str| property.eq_ignore_ascii_case(key);
    if let Some(property) = WHOLE.iter().find(is_key) {
        return Some((property, value));
    }
    if let Some(property) = MILLIONTHS.iter().find(is_key) {
        return Some((property, value / 1e6));
    }
    let property = TENTHS.iter().find(is_key)?;
    Some((property, value / 10.0))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{PowerSupply, Roots};

    #[test]
    fn values_are_read_from_one_file() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                (
                    "class/power_supply/AC/uevent",
                    "POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_ONLINE=0\n",
                ),
                (
                    "class/power_supply/BAT0/uevent",
                    "POWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_VOLTAGE_MAX=12600000\n\
                    POWER_SUPPLY_TEMP_ALERT_MAX=605\nPOWER_SUPPLY_OTHER=1\n",
                ),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "power_supply=AC online 0",
            "power_supply=BAT0 voltage_max 12.6",
            "power_supply=BAT0 temp_alert_max 60.5",
        ];
        assert_eq!(lines_of(&mut PowerSupply(roots)), expected);
    }
}
