//! Samples of one host: times, and the figures of each series at these times.

use std::cmp::Reverse;
use std::collections::HashMap;

/// Maximum number of series in stored samples.
pub(super) const MAX_STORED_SERIES: usize = 4096;
/// Maximum number of series in memory, before [`Samples::limit`] chooses the ones to store.
const MAX_IN_MEMORY: usize = 2 * MAX_STORED_SERIES;
/// The beginning of the names of containers' series.
pub(super) const CONTAINER: &str = "container:";

/// Samples in the order of their times.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples {
    /// In milliseconds since 1970.
    pub(super) times: Vec<i64>,
    /// The name of each series, in the order in which the series appeared.
    pub(super) names: Vec<String>,
    /// The figures of each series, in the order of `names`. Each series has as many figures as there are times. NaN: no figure.
    pub(super) columns: Vec<Vec<f32>>,
    /// The position of each name.
    positions: HashMap<String, usize>,
}

impl Samples {
    /// Makes samples from their parts. None if the parts do not fit.
    pub(super) fn from_parts(
        times: Vec<i64>,
        names: Vec<String>,
        columns: Vec<Vec<f32>>,
    ) -> Option<Self> {
        let fits = names.len() == columns.len()
            && columns.iter().all(|column| column.len() == times.len())
            && times.is_sorted();
        let positions = names.iter().cloned().zip(0..).collect();
        fits.then_some(Self {
            times,
            names,
            columns,
            positions,
        })
    }

    /// Returns the position of a series. Adds the series if it is new. None if there are too many.
    fn position(&mut self, name: &str, expected: usize) -> Option<usize> {
        // The figures of a host usually come in the same order.
        if self.names.get(expected).is_some_and(|one| one == name) {
            return Some(expected);
        }
        if let Some(position) = self.positions.get(name) {
            return Some(*position);
        }
        if self.names.len() >= MAX_IN_MEMORY {
            return None;
        }
        let position = self.names.len();
        self.names.push(name.to_owned());
        self.columns.push(vec![f32::NAN; self.times.len()]);
        self.positions.insert(name.to_owned(), position);
        Some(position)
    }

    /// Adds a sample, unless there is another sample less than `gap` milliseconds before or after it. Returns its row.
    pub(super) fn add<'n>(
        &mut self,
        at: i64,
        gap: i64,
        figures: impl Iterator<Item = (&'n str, f32)>,
    ) -> Option<usize> {
        let row = self.times.partition_point(|time| *time < at);
        let is_near = |row: usize| matches!(self.times.get(row), Some(time) if (time - at).abs() < gap.max(1));
        if is_near(row) || row.checked_sub(1).is_some_and(is_near) {
            return None;
        }
        self.insert(at, row);
        let mut expected = 0;
        for (name, figure) in figures {
            if let Some(position) = self.position(name, expected) {
                self.columns[position][row] = figure;
                expected = position + 1;
            }
        }
        Some(row)
    }

    /// Adds a time without figures.
    fn insert(&mut self, at: i64, row: usize) {
        self.times.insert(row, at);
        for column in &mut self.columns {
            column.insert(row, f32::NAN);
        }
    }

    /// Returns the figures of a row, with the positions of their series.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = (usize, f32)> {
        let figures = self.columns.iter().map(move |column| column[row]);
        figures.enumerate().filter(|(_, figure)| !figure.is_nan())
    }

    /// Adds the samples of `other` that are at least `gap` milliseconds away from the own ones.
    pub(super) fn merge(&mut self, other: &Self, gap: i64) {
        let own = self.times.clone();
        for (row, at) in other.times.iter().enumerate() {
            let next = own.partition_point(|time| time < at);
            let near = [next.checked_sub(1), Some(next)].into_iter().flatten();
            let mut near = near.filter_map(|row| own.get(row));
            if near.any(|time| (time - at).abs() < gap) {
                continue;
            }
            let figures = other.row(row);
            let figures =
                figures.map(|(position, figure)| (other.names[position].as_str(), figure));
            self.add(*at, 1, figures);
        }
    }

    /// Whether there is a sample at this time.
    pub(super) fn has(&self, at: i64) -> bool {
        self.times.binary_search(&at).is_ok()
    }

    /// Replaces the sample at this time.
    pub(super) fn replace<'n>(&mut self, at: i64, figures: impl Iterator<Item = (&'n str, f32)>) {
        if let Ok(row) = self.times.binary_search(&at) {
            self.times.remove(row);
            for column in &mut self.columns {
                column.remove(row);
            }
        }
        self.add(at, 1, figures);
    }

    /// Calculates the average of each series over the times from `from` to before `to`. A series without figures is absent. None if
    /// there is no sample.
    pub(super) fn average(&self, from: i64, to: i64) -> Option<Vec<(&str, f32)>> {
        let rows = self.rows(from, to);
        if rows.is_empty() {
            return None;
        }
        let mut averages = Vec::with_capacity(self.names.len());
        for (name, column) in self.names.iter().zip(&self.columns) {
            let mut sum = Average::default();
            for figure in &column[rows.clone()] {
                sum.add(*figure, 1.0);
            }
            averages.extend(sum.value().map(|figure| (name.as_str(), figure)));
        }
        Some(averages)
    }

    /// Returns the rows of the times from `from` to before `to`.
    pub(super) fn rows(&self, from: i64, to: i64) -> std::ops::Range<usize> {
        let first = self.times.partition_point(|time| *time < from);
        let end = self.times.partition_point(|time| *time < to);
        first..end.max(first)
    }

    /// Removes series without figures. If more than `most` are left, removes series of the containers that ended first.
    pub(super) fn limit(&mut self, most: usize) {
        let mut kept = Vec::new();
        for (position, (name, column)) in self.names.iter().zip(&self.columns).enumerate() {
            let count = column.iter().filter(|figure| !figure.is_nan()).count();
            if let Some(newest) = column.iter().rposition(|figure| !figure.is_nan()) {
                let rank = Reverse((newest, count));
                kept.push((name.starts_with(CONTAINER), rank, position));
            }
        }
        if kept.len() == self.names.len() && kept.len() <= most {
            return;
        }
        // The host's own series come first, then the containers with the newest figures.
        kept.sort_unstable();
        kept.truncate(most);
        let mut positions: Vec<_> = kept.into_iter().map(|(.., position)| position).collect();
        positions.sort_unstable();
        let take = |position: &usize| {
            (
                std::mem::take(&mut self.names[*position]),
                std::mem::take(&mut self.columns[*position]),
            )
        };
        let (names, columns) = positions.iter().map(take).unzip();
        (self.names, self.columns) = (names, columns);
        self.positions = self.names.iter().cloned().zip(0..).collect();
    }

    /// Returns the figures of a series. None if there is no such series.
    pub(super) fn column(&self, name: &str) -> Option<&[f32]> {
        let position = self.positions.get(name)?;
        self.columns.get(*position).map(Vec::as_slice)
    }

    /// Returns a copy with only these series.
    pub(super) fn picked(&self, names: &[&str]) -> Self {
        let column = |name: &&str| Some(((*name).to_owned(), self.column(name)?.to_vec()));
        let (names, columns) = names.iter().filter_map(column).unzip();
        Self::from_parts(self.times.clone(), names, columns).unwrap_or_default()
    }
}

/// An average of figures.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    /// Adds a figure with its weight. NaN is no figure.
    pub(super) fn add(&mut self, figure: f32, weight: f64) {
        if !figure.is_nan() {
            self.sum += f64::from(figure) * weight;
            self.weight += weight;
        }
    }

    pub(super) fn value(self) -> Option<f32> {
        (self.weight > 0.0).then(|| (self.sum / self.weight) as f32)
    }
}
