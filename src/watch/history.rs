//! Figures over time, newest last.

use std::collections::VecDeque;

/// The newest values of one figure.
#[derive(Debug, Clone, Default)]
pub(super) struct History(VecDeque<f32>);

impl History {
    /// As many as a wide screen shows, two in a column. There may be a thousand of these.
    const MOST: usize = 400;

    pub(super) fn push(&mut self, value: f64) {
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(value as f32);
    }

    /// The newest ones, oldest first, `count` at the most.
    pub(super) fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = f64> {
        self.0
            .range(self.0.len().saturating_sub(count)..)
            .map(|value| f64::from(*value))
    }

    pub(super) fn highest(&self, count: usize) -> f64 {
        self.newest(count).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::History;

    #[test]
    fn the_newest_stay() {
        let mut history = History::default();
        (0..700).for_each(|value| history.push(f64::from(value)));
        assert_eq!(history.newest(3).collect::<Vec<_>>(), [697.0, 698.0, 699.0]);
        assert_eq!(history.newest(1000).len(), History::MOST);
        assert_eq!(history.highest(2), 699.0);
    }
}
