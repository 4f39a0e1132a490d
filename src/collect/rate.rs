//! Calculates rates from counters.

use crate::model::figure;

/// Returns the increase of a counter per second. Returns 0 if the counter went backwards or if no time has passed.
pub(super) fn per_second(before: u64, now: u64, seconds: f64) -> f64 {
    figure(now.saturating_sub(before) as f64 / seconds, 2)
}

#[cfg(test)]
mod tests {
    use super::per_second;

    #[test]
    fn rates_are_finite_and_not_negative() {
        assert_eq!(per_second(100, 350, 5.0), 50.0);
        assert_eq!(per_second(100, 50, 5.0), 0.0);
        assert_eq!(per_second(100, 350, 0.0), 0.0);
        assert!(per_second(0, u64::MAX, 1e-9).is_finite());
    }
}
