//! Reads thermal zones and cooling devices.

use super::family::{Family, FamilyError, Roots, Rows, names_in, read_number, read_text};

/// The family. Source: `/sys/class/thermal`.
pub(super) struct Thermal(pub(super) Roots);

impl Family for Thermal {
    fn name(&self) -> &'static str {
        "thermal_zone"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let folder = self.0.sys.join("class/thermal");
        for name in names_in(&folder)? {
            let device = folder.join(&name);
            let Some(kind) = read_text(&device.join("type")) else {
                continue;
            };
            if let Some(zone) = name.strip_prefix("thermal_zone") {
                // A zone that is switched off has no temperature.
                if let Some(thousandths) = read_number(&device.join("temp")) {
                    rows.add([("type", &kind), ("zone", zone)])
                        .figure("temp", thousandths / 1000.0);
                }
            } else if let Some(number) = name.strip_prefix("cooling_device") {
                let row = rows.add([("name", number), ("type", &kind)]);
                for state in ["cur_state", "max_state"] {
                    if let Some(number) = read_number(&device.join(state)) {
                        row.figure(state, number);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, Thermal};

    #[test]
    fn zones_and_cooling_devices_are_read() {
        let folder = TempDir::new().unwrap();
        write_files(
            folder.path(),
            &[
                ("class/thermal/thermal_zone0/type", "cpu-thermal\n"),
                ("class/thermal/thermal_zone0/temp", "12376\n"),
                ("class/thermal/thermal_zone1/type", "off\n"),
                ("class/thermal/cooling_device0/type", "Processor\n"),
                ("class/thermal/cooling_device0/cur_state", "0\n"),
                ("class/thermal/cooling_device0/max_state", "3\n"),
            ],
        );
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let expected = [
            "name=0 type=Processor cur_state 0",
            "name=0 type=Processor max_state 3",
            "type=cpu-thermal zone=0 temp 12.376",
        ];
        assert_eq!(lines_of(&mut Thermal(roots)), expected);
    }
}
