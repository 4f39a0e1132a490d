//! Asks the kernel whether the host's clock is synchronized.

#![expect(
    unsafe_code,
    reason = "neither rustix nor the standard library has this system call"
)]

use std::convert::Infallible;
use std::mem::MaybeUninit;

use libc::timex;

use super::family::{MetricFamily, Round};
use crate::model::ClockStatus;

/// The metric family. Source: `adjtimex(2)` with the mode 0, which changes nothing.
pub(super) struct Clock;

impl MetricFamily for Clock {
    const NAME: &'static str = "clock";

    type Figures = Option<ClockStatus>;
    /// The family never fails: without permission there are no figures. For example, the unit's `ProtectClock=yes` and old versions of
    /// Docker forbid the system call, even for reading.
    type Error = Infallible;

    fn read(&mut self, _round: &Round<'_>) -> Result<Option<ClockStatus>, Infallible> {
        Ok(adjtimex().map(|(state, clock)| status(state, &clock)))
    }

    fn publish(&mut self, clock: Option<ClockStatus>, round: &mut Round<'_>) {
        round.metrics.clock = clock;
    }
}

/// Returns the state of the clock and the figures. Returns none if the kernel refuses the call.
pub(in crate::collect) fn adjtimex() -> Option<(libc::c_long, timex)> {
    // SAFETY: `timex` consists of numbers, for which zero is valid. With `modes` 0 the kernel only writes to the struct.
    let mut clock: timex = unsafe { MaybeUninit::zeroed().assume_init() };
    // The function `adjtimex` of the C library calls `clock_adjtime`, which can also set the clocks of other devices. The unit allows only
    // `adjtimex`.
    // SAFETY: the argument is a pointer to a valid struct that lives until the call returns.
    let state = unsafe { libc::syscall(libc::SYS_adjtimex, &raw mut clock) };
    (state >= 0).then_some((state, clock))
}

/// Converts the kernel's figures. The offset is in nanoseconds or microseconds, and the errors are in microseconds.
fn status(state: libc::c_long, clock: &timex) -> ClockStatus {
    let offset_unit = match clock.status & libc::STA_NANO {
        0 => 1e6,
        _ => 1e9,
    };
    ClockStatus {
        synchronized: state != libc::c_long::from(libc::TIME_ERROR),
        offset_seconds: clock.offset as f64 / offset_unit,
        max_error_seconds: clock.maxerror as f64 / 1e6,
        estimated_error_seconds: clock.esterror as f64 / 1e6,
    }
}

#[cfg(test)]
mod tests {
    use super::{adjtimex, status};
    use crate::model::ClockStatus;

    #[test]
    fn the_unit_of_the_offset_depends_on_the_status() {
        let (_, mut clock) = adjtimex().unwrap();
        clock.offset = -1_500_000;
        clock.maxerror = 16_000_000;
        clock.esterror = 250;
        for (nano, state, offset_seconds, synchronized) in [
            (libc::STA_NANO, libc::TIME_OK, -0.001_5, true),
            (0, libc::TIME_ERROR, -1.5, false),
            // A leap second does not mean that the clock is not synchronized.
            (0, libc::TIME_INS, -1.5, true),
        ] {
            clock.status = nano;
            let expected = ClockStatus {
                synchronized,
                offset_seconds,
                max_error_seconds: 16.0,
                estimated_error_seconds: 0.000_25,
            };
            assert_eq!(status(state.into(), &clock), expected);
        }
    }

    #[test]
    fn the_kernel_answers() {
        let (state, clock) = adjtimex().unwrap();
        let status = status(state, &clock);
        let unsynchronized = clock.status & (libc::STA_UNSYNC | libc::STA_CLOCKERR) != 0;
        assert_eq!(status.synchronized, !unsynchronized);
        assert!(
            (0.0..=16.0).contains(&status.max_error_seconds),
            "{status:?}"
        );
    }
}
