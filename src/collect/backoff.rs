//! The pauses between tries at a source that fails.

use std::time::Duration;

/// Doubling pauses with jitter, from `first` to `most`.
///
/// Each pause lies between half and the whole of its nominal length, so that agents which lost
/// their engine together do not come back together.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and never exceeds `most`.
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// The pause before the next try.
    pub(super) fn pause(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.most);
        nominal.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// After a success, the next pause is the first again.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn doubles_up_to_the_most_and_starts_anew_after_a_success() {
        let (first, most) = (Duration::from_millis(500), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, most);
        for nominal in [500, 1000, 2000, 4000, 5000, 5000] {
            let nominal = Duration::from_millis(nominal);
            let pause = backoff.pause();
            assert!(pause >= nominal / 2 && pause <= nominal, "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= first);
    }
}
