//! Reads the host's clock, its time zone, and the clock sources of the kernel.

#![expect(
    unsafe_code,
    reason = "only the C library knows the time zone, and no safe crate of this project asks it"
)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

use super::family::{Family, FamilyError, Roots, Rows, names_in, read_text};

/// The family. Sources: `clock_gettime(2)`, `localtime(3)` and `/sys/devices/system/clocksource`.
pub(super) struct Time(pub(super) Roots);

impl Family for Time {
    fn name(&self) -> &'static str {
        "time"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        rows.add([]).figure("seconds", now.as_secs_f64());
        if let Some((zone, offset)) = i64::try_from(now.as_secs()).ok().and_then(zone_at) {
            rows.add([("time_zone", &zone)])
                .figure("zone_offset", offset as f64);
        }
        let folder = self.0.sys.join("devices/system/clocksource");
        let names = names_in(&folder).unwrap_or_default();
        for name in names {
            let Some(device) = name.strip_prefix("clocksource") else {
                continue;
            };
            for (file, figure) in [
                ("available_clocksource", "clocksource_available"),
                ("current_clocksource", "clocksource_current"),
            ] {
                let text = read_text(&folder.join(&name).join(file)).unwrap_or_default();
                for source in text.split_ascii_whitespace() {
                    rows.add([("clocksource", source), ("device", device)])
                        .figure(figure, 1.0);
                }
            }
        }
        Ok(())
    }
}

/// Returns the name of the agent's time zone at this Unix time, and how many seconds the zone is east of UTC.
fn zone_at(seconds: i64) -> Option<(String, libc::c_long)> {
    #[allow(
        deprecated,
        clippy::useless_conversion,
        reason = "32 bits on some machines; libc marks the type as deprecated for musl, where it is going to have 64 bits"
    )]
    let seconds = libc::time_t::try_from(seconds).ok()?;
    let mut local = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid until the call returns. The agent never changes its environment, which the function reads.
    let is_known = unsafe { !libc::localtime_r(&raw const seconds, local.as_mut_ptr()).is_null() };
    // SAFETY: the struct consists of numbers and a pointer, for which zero is valid.
    let local = unsafe { local.assume_init() };
    if !is_known || local.tm_zone.is_null() {
        return None;
    }
    // SAFETY: the C library sets the pointer to a text that ends with a zero, and that is not freed.
    let zone = unsafe { CStr::from_ptr(local.tm_zone) };
    Some((zone.to_string_lossy().into_owned(), local.tm_gmtoff))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::family::tests::{lines_of, write_files};
    use super::{Roots, Time, zone_at};

    #[test]
    fn the_clock_the_zone_and_the_clock_sources_are_read() {
        let folder = TempDir::new().unwrap();
        let files = [
            (
                "devices/system/clocksource/clocksource0/available_clocksource",
                "tsc hpet acpi_pm \n",
            ),
            (
                "devices/system/clocksource/clocksource0/current_clocksource",
                "tsc\n",
            ),
        ];
        write_files(folder.path(), &files);
        let roots = Roots {
            sys: folder.path().into(),
            ..Roots::default()
        };
        let lines = lines_of(&mut Time(roots));
        let (zone, offset) = zone_at(1_700_000_000).unwrap();
        assert!(!zone.is_empty() && offset.abs() <= 14 * 3600);
        assert!(lines[0].starts_with("seconds 1"), "{lines:?}");
        assert!(lines[1].starts_with("time_zone="), "{lines:?}");
        assert_eq!(
            lines[2..],
            [
                "clocksource=tsc device=0 clocksource_available 1",
                "clocksource=hpet device=0 clocksource_available 1",
                "clocksource=acpi_pm device=0 clocksource_available 1",
                "clocksource=tsc device=0 clocksource_current 1"
            ]
        );
    }
}
