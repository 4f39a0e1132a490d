//! Reads the host's load averages.

use std::fs;
use std::io;

use super::family::{MetricFamily, Round};
use crate::model::{LoadAverage, figure};

/// The metric family, with its previous figures. Source: `/proc/loadavg`.
#[derive(Default)]
pub(super) struct Load {
    last: LoadAverage,
}

/// Why the load averages cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("cannot read /proc/loadavg")]
    Read(#[from] io::Error),
    #[error("cannot read /proc/loadavg: invalid data")]
    Parse,
}

impl MetricFamily for Load {
    const NAME: &'static str = "load";

    type Figures = LoadAverage;
    type Error = LoadError;

    fn read(&mut self, _round: &Round<'_>) -> Result<LoadAverage, LoadError> {
        let text = fs::read("/proc/loadavg")?;
        parse(&String::from_utf8_lossy(&text)).ok_or(LoadError::Parse)
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
    use super::parse;

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
