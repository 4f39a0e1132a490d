//! Reads the host's load averages.

use std::io;
use std::time::Instant;

use super::family::{MetricFamily, Round};
use crate::collect::kernel_file::KernelFile;
use crate::model::{LoadAverage, ProcessCounts, figure};

/// The periods of the averages, in seconds.
const PERIODS: [f64; 3] = [60.0, 300.0, 900.0];

/// The metric family, with its previous figures. Source: `/proc/loadavg`. In a guest, the averages are computed from the states
/// of the processes.
pub(super) struct Load {
    file: KernelFile,
    last: LoadAverage,
    /// The averages of the guest in the order of [`PERIODS`], and when they were computed. None if the agent does not measure a
    /// guest.
    guest: Option<([f64; 3], Instant)>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            file: KernelFile::new("/proc/loadavg"),
            last: LoadAverage::default(),
            guest: None,
        }
    }
}

/// Why the load averages cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("cannot read /proc/loadavg")]
    Read(#[from] io::Error),
    #[error("cannot read /proc/loadavg: invalid data")]
    Parse,
    #[error("the load of the container cannot be computed without its processes")]
    Processes,
}

impl MetricFamily for Load {
    const NAME: &'static str = "load";

    type Figures = LoadAverage;
    type Error = LoadError;

    fn read(&mut self, round: &Round<'_>) -> Result<LoadAverage, LoadError> {
        if round
            .guest
            .as_ref()
            .is_some_and(|guest| guest.computes_load)
        {
            let counts = round.metrics.processes.ok_or(LoadError::Processes)?;
            return Ok(self.of_guest(&counts, Instant::now()));
        }
        self.guest = None;
        parse(&String::from_utf8_lossy(self.file.read()?)).ok_or(LoadError::Parse)
    }

    fn publish(&mut self, load: LoadAverage, round: &mut Round<'_>) {
        self.last = load;
        round.metrics.load_avg = load;
        round.metrics.exact.load_avg = Some(load);
    }

    fn publish_last(&self, round: &mut Round<'_>) {
        round.metrics.load_avg = self.last;
    }
}

impl Load {
    /// Computes the averages as the kernel does, with the processes that run, or that wait without interruption.
    fn of_guest(&mut self, counts: &ProcessCounts, now: Instant) -> LoadAverage {
        let active = counts.running.saturating_add(counts.blocked) as f64;
        let averages = match self.guest {
            Some((before, at)) => {
                let elapsed = now.saturating_duration_since(at).as_secs_f64();
                decay(before, active, elapsed)
            }
            // Nothing is known of the time before. An average that begins at 0 would be too low for many minutes.
            None => [active; 3],
        };
        self.guest = Some((averages, now));
        let [one, five, fifteen] = averages.map(|average| figure(average, 2));
        LoadAverage { one, five, fifteen }
    }
}

/// Returns the averages after `elapsed` seconds with `active` processes.
fn decay(before: [f64; 3], active: f64, elapsed: f64) -> [f64; 3] {
    let mut averages = before;
    for (average, period) in averages.iter_mut().zip(PERIODS) {
        let share = (-elapsed / period).exp();
        *average = *average * share + active * (1.0 - share);
    }
    averages
}

/// Parses `0.52 0.58 0.59 1/467 12345`. The first three fields are the averages.
fn parse(loadavg: &str) -> Option<LoadAverage> {
    let mut fields = loadavg.split_ascii_whitespace();
    let mut next = || {
        let average: f64 = fields.next()?.parse().ok()?;
        (average.is_finite() && average >= 0.0).then(|| figure(average, 2))
    };
    Some(LoadAverage {
        one: next()?,
        five: next()?,
        fifteen: next()?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Load, decay, parse};
    use crate::model::ProcessCounts;

    /// The kernel computes the averages every 5 s, with the rounded factors 1884, 2014 and 2037 of 2048.
    #[test]
    fn the_averages_of_a_guest_decay_as_those_of_the_kernel() {
        let mut averages = [0.0; 3];
        let mut kernel = [0.0; 3];
        for _ in 0..24 {
            averages = decay(averages, 3.0, 5.0);
            for (average, factor) in kernel.iter_mut().zip([1884.0, 2014.0, 2037.0]) {
                let share: f64 = factor / 2048.0;
                *average = *average * share + 3.0 * (1.0 - share);
            }
        }
        for (average, kernel) in averages.iter().zip(kernel) {
            assert!((average - kernel).abs() < 0.02, "{averages:?} {kernel:?}");
        }
        // The result does not depend on the interval.
        let mut often = [0.0; 3];
        for _ in 0..1200 {
            often = decay(often, 3.0, 0.1);
        }
        for (often, average) in often.iter().zip(averages) {
            assert!((often - average).abs() < 1e-9);
        }
        assert_eq!(decay([1.0, 2.0, 3.0], 9.0, 0.0), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn the_load_of_a_guest_begins_with_its_processes() {
        let counts = |running, blocked| ProcessCounts {
            running,
            blocked,
            sleeping: 70,
            ..ProcessCounts::default()
        };
        let mut load = Load::default();
        let start = Instant::now();
        let first = load.of_guest(&counts(1, 2), start);
        assert_eq!((first.one, first.five, first.fifteen), (3.0, 3.0, 3.0));
        let later = load.of_guest(&counts(0, 0), start + Duration::from_secs(60));
        assert_eq!((later.one, later.five, later.fifteen), (1.1, 2.46, 2.81));
    }

    #[test]
    fn three_valid_numbers_are_needed() {
        let load = parse("0.52 0.58 1.591 1/467 12345\n").unwrap();
        assert_eq!((load.one, load.five, load.fifteen), (0.52, 0.58, 1.59));
        for text in [
            "",
            "much\n",
            "0.5 0.5",
            "0.5 x 0.5",
            "NaN 0 0",
            "-1 0 0",
            "inf 0 0",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
