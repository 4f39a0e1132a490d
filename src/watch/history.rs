//! The newest values of a figure over time, for graphs.

use std::collections::VecDeque;

/// The newest values of one figure, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct History(VecDeque<f32>);

impl History {
    /// Maximum number of values. A graph shows two values in each column of the screen, so 400 values fill 200 columns. The
    /// number is low because there can be a thousand histories.
    const MAX_VALUES: usize = 400;

    /// Adds a value. If the history is full, removes the oldest value.
    pub(super) fn push(&mut self, value: f64) {
        if self.0.len() == Self::MAX_VALUES {
            self.0.pop_front();
        }
        self.0.push_back(value as f32);
    }

    /// Returns up to `count` of the newest values, in the order of their arrival.
    pub(super) fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = f64> {
        self.0
            .range(self.0.len().saturating_sub(count)..)
            .map(|value| f64::from(*value))
    }

    /// Returns the highest of the newest `count` values. Returns 0 if there are no values.
    pub(super) fn highest(&self, count: usize) -> f64 {
        self.newest(count).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::History;

    #[test]
    fn only_the_newest_values_are_stored() {
        let mut history = History::default();
        (0..700).for_each(|value| history.push(f64::from(value)));
        assert_eq!(history.newest(3).collect::<Vec<_>>(), [697.0, 698.0, 699.0]);
        assert_eq!(history.newest(1000).len(), History::MAX_VALUES);
        assert_eq!(history.highest(2), 699.0);
    }
}
