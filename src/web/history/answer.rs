//! Figures of a range as averages over steps of equal length.

use std::collections::BTreeMap;

use serde::Serialize;

use super::samples::{Average, Samples};

/// The shortest step, in milliseconds.
const MIN_STEP_MS: i64 = 1000;
/// The usual time between two samples, as long as too few samples are known, in milliseconds.
const USUAL_STEP_MS: i64 = 5000;
/// The number of samples that are enough to know the usual time between two of them.
const ENOUGH: usize = 4;

/// Series over the same times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The beginning of the range, in milliseconds since 1970.
    pub from_at: i64,
    /// The end of the range, in milliseconds since 1970.
    pub to_at: i64,
    /// The length of a step, in milliseconds.
    pub step_ms: i64,
    /// The times of the figures, in milliseconds since 1970. Where samples are missing, there is one time without figures.
    pub times: Vec<i64>,
    /// The figures of each series, averages over the step that begins at the time.
    pub series: BTreeMap<String, Vec<Option<f32>>>,
}

/// How samples follow each other, in milliseconds.
#[derive(Clone, Copy)]
struct Spacing {
    /// From the time of a sample to the middle of what it stands for.
    shift: i64,
    /// The time that a sample stands for.
    length: i64,
    /// The longest time between two samples that is not a gap.
    longest: i64,
}

/// The steps of a range.
pub(super) struct Steps {
    from: i64,
    to: i64,
    step: i64,
    /// For each step the longest time to the next sample that is not a gap, in milliseconds. 0: there is no sample in this step.
    longest: Vec<i64>,
    series: BTreeMap<String, Vec<Average>>,
}

impl Steps {
    /// Divides a range into at most `points` steps.
    pub(super) fn new((from, to): (i64, i64), points: usize, series: &[&str]) -> Self {
        let points = i64::try_from(points.max(1)).unwrap_or(i64::MAX);
        let length = to.saturating_sub(from).max(1);
        let step = (length / points + i64::from(length % points > 0)).max(MIN_STEP_MS);
        let count = usize::try_from(length / step + 1).unwrap_or_default();
        let averages = |name: &&str| ((*name).to_owned(), vec![Average::default(); count]);
        Self {
            from,
            to,
            step,
            longest: vec![0; count],
            series: series.iter().map(averages).collect(),
        }
    }

    pub(super) fn length(&self) -> i64 {
        self.step
    }

    /// Adds averages with a time from `first` to before `end`. Each one is the average of the time `length` that begins with its time.
    pub(super) fn add_averages(&mut self, averages: &Samples, range: (i64, i64), length: i64) {
        // If an agent has a longer interval, some averages are missing, and this is no gap.
        let interval = usual_interval(&averages.times).unwrap_or(length);
        let spacing = Spacing {
            // The middle of the time of an average.
            shift: length / 2,
            length,
            longest: interval.max(length) * 3 / 2,
        };
        self.add_rows(averages, range, spacing);
    }

    /// Adds samples with a time from `first` to before `end`. `usual` is the usual time between two samples of the range, if it is known.
    pub(super) fn add(&mut self, samples: &Samples, range: (i64, i64), usual: Option<i64>) {
        let own = usual_interval(&samples.times).filter(|_| samples.times.len() >= ENOUGH);
        let interval = own.or(usual).unwrap_or(USUAL_STEP_MS).max(1);
        let spacing = Spacing {
            shift: 0,
            length: interval,
            // Samples come a little earlier or later, and one of them can be missing.
            longest: interval * 3,
        };
        self.add_rows(samples, range, spacing);
    }

    fn add_rows(&mut self, samples: &Samples, (first, end): (i64, i64), spacing: Spacing) {
        let rows = samples.rows(first.max(self.from), end.min(self.to.saturating_add(1)));
        let steps: Vec<usize> = samples.times[rows.clone()]
            .iter()
            .filter_map(|at| usize::try_from((at + spacing.shift - self.from) / self.step).ok())
            .collect();
        for step in &steps {
            if let Some(known) = self.longest.get_mut(*step) {
                *known = (*known).max(spacing.longest.max(1));
            }
        }
        for (name, averages) in &mut self.series {
            let Some(column) = samples.column(name) else {
                continue;
            };
            for (step, figure) in steps.iter().zip(&column[rows.clone()]) {
                if let Some(average) = averages.get_mut(*step) {
                    average.add(*figure, spacing.length as f64);
                }
            }
        }
    }

    /// Returns the averages.
    pub(super) fn answer(self) -> Answer {
        // The steps with samples. None: samples are missing after the step before.
        let mut shown: Vec<(i64, Option<usize>)> = Vec::new();
        let mut before: Option<(i64, i64)> = None;
        for (number, longest) in self.longest.iter().enumerate().filter(|(_, it)| **it > 0) {
            let at = self.from + self.step.saturating_mul(number as i64);
            if let Some((time, known)) = before
                && at - time > known.max(*longest).max(self.step * 3 / 2)
            {
                shown.push((time + self.step, None));
            }
            before = Some((at, *longest));
            shown.push((at, Some(number)));
        }
        let figures = |averages: Vec<Average>| {
            let figure = |(_, step): &(i64, Option<usize>)| averages.get((*step)?)?.value();
            shown.iter().map(figure).collect()
        };
        let series = self.series.into_iter();
        Answer {
            from_at: self.from,
            to_at: self.to,
            step_ms: self.step,
            series: series
                .map(|(name, averages)| (name, figures(averages)))
                .collect(),
            times: shown.iter().map(|(at, _)| *at).collect(),
        }
    }
}

/// Returns the usual time between two of these sorted times, in milliseconds: the lower median. None for less than two times.
pub(super) fn usual_interval(times: &[i64]) -> Option<i64> {
    let mut steps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let middle = steps.len().checked_sub(1)? / 2;
    Some(*steps.select_nth_unstable(middle).1)
}
