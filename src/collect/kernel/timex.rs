//! Reads how the kernel corrects the host's clock.

use libc::timex;

use super::family::{Family, FamilyError, Rows};
use crate::collect::system::clock::adjtimex;

/// The unit of frequencies: millionths, with 16 bits after the point.
const PPM: f64 = 1e6 * 65536.0;

/// The family. Source: `adjtimex(2)` with the mode 0, which changes nothing.
pub(super) struct Timex;

impl Family for Timex {
    fn name(&self) -> &'static str {
        "timex"
    }

    fn read(&mut self, rows: &mut Rows) -> Result<(), FamilyError> {
        // Without permission there are no figures.
        let (state, clock) = adjtimex().ok_or(FamilyError::Absent)?;
        let row = rows.add([]);
        for (name, value) in figures(state, &clock) {
            row.figure(name, value);
        }
        Ok(())
    }
}

/// Converts the kernel's figures to seconds and hertz.
fn figures(state: libc::c_long, clock: &timex) -> [(&'static str, f64); 17] {
    let unit = match clock.status & libc::STA_NANO {
        0 => 1e6,
        _ => 1e9,
    };
    let is_synchronized = state != libc::c_long::from(libc::TIME_ERROR);
    [
        ("sync_status", f64::from(u8::from(is_synchronized))),
        ("offset", clock.offset as f64 / unit),
        ("freq", 1.0 + clock.freq as f64 / PPM),
        ("maxerror", clock.maxerror as f64 / 1e6),
        ("esterror", clock.esterror as f64 / 1e6),
        ("status", f64::from(clock.status)),
        ("constant", clock.constant as f64),
        ("tick", clock.tick as f64 / 1e6),
        ("ppsfreq", clock.ppsfreq as f64 / PPM),
        ("jitter", clock.jitter as f64 / unit),
        ("shift", f64::from(clock.shift)),
        ("stabil", clock.stabil as f64 / PPM),
        ("jitcnt", clock.jitcnt as f64),
        ("calcnt", clock.calcnt as f64),
        ("errcnt", clock.errcnt as f64),
        ("stbcnt", clock.stbcnt as f64),
        ("tai", f64::from(clock.tai)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::family::tests::lines_of;
    use super::{Timex, adjtimex, figures};

    #[test]
    fn units_are_seconds_and_hertz() {
        let (_, mut clock) = adjtimex().unwrap();
        clock.status = libc::STA_NANO | libc::STA_PLL;
        clock.offset = -1_500_000;
        clock.freq = -65536 * 500;
        clock.tick = 10_000;
        clock.jitter = 2_000_000;
        let figures = figures(libc::TIME_OK.into(), &clock);
        let figure = |wanted: &str| figures.iter().find(|(name, _)| *name == wanted).unwrap().1;
        assert_eq!(figure("sync_status"), 1.0);
        assert_eq!(figure("offset"), -0.0015);
        assert_eq!(figure("freq"), 0.9995);
        assert_eq!(figure("tick"), 0.01);
        assert_eq!(figure("jitter"), 0.002);
        assert_eq!(figure("status"), 8193.0);
        assert_eq!(lines_of(&mut Timex).len(), 17);
    }
}
